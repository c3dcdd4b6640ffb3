"""deep-prompt publish: upload an artifact to the Hugging Face hub."""

import json
import re
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deep_prompt.cli.arguments import add_artifact_argument
from pipeline.errors import UserError
from stages.runtime.entry import log
from stages.runtime.paths import MODELS

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

UPLOADED = ("*.json", "*.safetensors", "README.md")
INPUTS = ("data_recipes", "dvc.yaml", "params.yaml", "pipeline", "stages")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_artifact_argument(parser)
    parser.add_argument(
        "--repo",
        required=True,
        metavar="OWNER/NAME",
        help="the repository on the hub; it is created if it does not exist",
    )
    parser.add_argument(
        "--private", action="store_true", help="make the repository private if it is created"
    )


def publish(arguments: Namespace) -> None:
    """Upload an artifact's folder, such as models/TASK, to the Hugging Face hub.

    First log in with `hf auth login`, or set a token in HF_TOKEN. If the artifact is an up-to-date
    output of the project's stage `release`, the uploaded config.json and README.md also name the
    git commit that produces it. A prompt may reproduce parts of its training texts: read the
    licenses in README.md first.
    """
    from huggingface_hub import HfApi, get_token

    from pipeline.artifacts.config import load_config

    load_config(arguments.artifact)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.repo):
        raise UserError(f"--repo: found {arguments.repo!r}; write OWNER/NAME")
    if not (arguments.artifact / "README.md").exists():
        raise UserError(
            f"--artifact: {arguments.artifact} has no README.md, the model card with the training "
            "data; publish an output of the stage release (models/TASK), or write a README.md"
        )
    if get_token() is None:
        raise UserError(
            "publish: found no token for the hub; log in with `hf auth login`, or set HF_TOKEN"
        )
    commit = _commit(arguments.artifact)
    api = HfApi()
    try:
        api.create_repo(arguments.repo, private=arguments.private, exist_ok=True)
        uploaded = api.create_commit(
            arguments.repo,
            list(_operations(arguments.artifact, commit)),
            commit_message="Upload a deep-prompt artifact",
        )
    except Exception as error:  # huggingface_hub and its HTTP library have no common error class.
        raise UserError(
            f"publish: {arguments.repo}: {str(error).splitlines()[0]}; check the network, the "
            "token and the name of the repository"
        ) from error
    log(f"published {arguments.artifact}: {uploaded.commit_url}")


def _operations(artifact: Path, commit: str | None) -> "Iterator[CommitOperationAdd]":
    """Yield one operation per file. Add the commit to config.json and README.md."""
    from huggingface_hub import CommitOperationAdd

    for path in sorted({path for pattern in UPLOADED for path in artifact.glob(pattern)}):
        content: Path | bytes = path
        if commit and path.name == "config.json":
            config = json.loads(path.read_text(encoding="utf-8"))
            config["provenance"]["commit"] = commit
            content = json.dumps(config, sort_keys=True, indent=2).encode() + b"\n"
        elif commit and path.name == "README.md":
            content = (
                path.read_bytes() + f"\nProduced by the pipeline at commit `{commit}`.\n".encode()
            )
        yield CommitOperationAdd(path.name, content)


def _commit(artifact: Path) -> str | None:
    """The git commit that produces the artifact, "with changes" if the inputs are not committed.

    None if the artifact is not an up-to-date output of the project's stage `release`. The log then
    has the reason.
    """
    stage = f"release@{artifact.name}"
    status = [sys.executable, "-m", "dvc", "status", "--quiet", "--with-deps", stage]
    if artifact.resolve().parent != MODELS.resolve() or _run(*status).returncode:
        log(f"published without a commit: {artifact} is not an up-to-date output of `dvc repro`")
        return None
    head = _run("git", "rev-parse", "--verify", "HEAD")
    if head.returncode:
        log("published without a commit: the project has no git commit")
        return None
    changed = _run("git", "diff", "--quiet", "HEAD", "--", *INPUTS).returncode
    return head.stdout.strip() + (" with changes" if changed else "")


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # Git is not installed.
        return subprocess.CompletedProcess(command, 127)
