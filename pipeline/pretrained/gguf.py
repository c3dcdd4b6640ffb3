"""Convert a GGUF file (the format of llama.cpp) into a folder with config, tokenizer and weights.

transformers reads GGUF files, but slowly, and without a fast start for each process. So a file is
converted once. The folder stands beside the file; its name contains the hash of the file and the
version of transformers, and it records the hash of the weights.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.config import load_json
from pipeline.errors import UserError, first_line
from pipeline.files import atomic_folder, sha256, write_json

SUFFIX = ".gguf"
RECORD = "converted.json"  # hashes of the file and of the converted weights


def converted_folder(file: Path, digest: str | None = None) -> Path:
    """Return the folder with the converted content of a GGUF file; the first call makes it.

    `digest` is the SHA-256 of the file, if it is known. The weights are float32 and equal to those
    that transformers loads. Raises UserError if the file cannot be converted, or if the weights in
    the folder have changed.
    """
    digest = digest or sha256(file)
    name = f"{file.name}.{digest[:16]}.transformers-{version('transformers')}"
    folder = file.with_name(name)
    if not folder.exists():
        with _lock(file):
            if not folder.exists():  # Another process may have made it in the meantime.
                _convert(file, digest, folder)
    if load_json(folder / RECORD).get("weights") != sha256(folder / "model.safetensors"):
        raise UserError(
            f"{folder}: the weights have changed since {file.name} was converted; delete the folder"
        )
    return folder


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Wait until no other process converts the file."""
    try:
        lock = file.with_name(f".{file.name}.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{file}: cannot be converted beside the file ({error.strerror}); copy it to a folder "
            "that you can write to, and give folder:PATH"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _convert(file: Path, digest: str, folder: Path) -> None:
    _check_libraries(file)
    with atomic_folder(folder) as new:
        try:
            _save(file, new)
        except Exception as error:  # of a parser of foreign files
            reason = first_line(error)
            raise UserError(
                f"{file}: transformers cannot read this GGUF file: {type(error).__name__}: "
                f"{reason}; give a file of one of its architectures, or a folder that "
                "save_pretrained wrote"
            ) from error
        weights = sha256(new / "model.safetensors")
        write_json(new / RECORD, {"file": file.name, "sha256": digest, "weights": weights})


def _check_libraries(file: Path) -> None:
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{file}: GGUF files need {' and '.join(missing)}; run pip install "
            "'deep-prompt[decoder]'"
        )


def _save(file: Path, folder: Path) -> None:
    """Save the content of the file, with weights in float32, as `save_pretrained` does."""
    # transformers imports torch, and callers that find the folder do not need it.
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    tokenizer: Any = AutoTokenizer.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        local_files_only=True,
        dtype="float32",
        quantization_config=GgufConfig(dequantize=True),
    )
    # The weights are plain numbers now, so the folder is that of an ordinary model.
    model.hf_quantizer = None
    vars(model.config).pop("quantization_config", None)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="1TB")
    shutil.copymode(file, folder / "model.safetensors")  # safetensors allows only the owner
