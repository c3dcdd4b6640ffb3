"""deep-prompt publish: an artifact on the Hugging Face hub."""

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

# Other imports are inside the functions, as in deep_prompt.cli.main.
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
        help="the hub's repository; made if it is not there",
    )
    parser.add_argument("--private", action="store_true", help="make it private, if it is made now")


def publish(given: Namespace) -> None:
    """Upload an artifact's folder, such as models/TASK, to the Hugging Face hub. Log in before, by `hf auth login` or a token
    in HF_TOKEN.

    If the artifact is an up-to-date output of the project's stage `release`, the uploaded config.json and README.md also name the git
    commit that makes it. A prompt learns from the texts it was trained on: see the licenses in its README.md.
    """
    from huggingface_hub import HfApi, get_token

    from pipeline.artifacts.config import load_config

    load_config(given.artifact)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given.repo):
        raise UserError(f"--repo: found {given.repo!r}; write OWNER/NAME")
    if not (given.artifact / "README.md").exists():
        raise UserError(
            f"--artifact: {given.artifact} has no README.md, the model card that says what it learned from; "
            "publish what the stage release made (models/TASK), or write one"
        )
    if get_token() is None:
        raise UserError(
            "publish: there is no token for the hub; log in with `hf auth login`, or set HF_TOKEN"
        )
    commit = _commit(given.artifact)
    api = HfApi()
    try:
        api.create_repo(given.repo, private=given.private, exist_ok=True)
        made = api.create_commit(
            given.repo,
            list(_operations(given.artifact, commit)),
            commit_message="Upload a deep-prompt artifact",
        )
    except Exception as error:  # the hub's library raises those of its HTTP library too, which have no class in common
        raise UserError(
            f"publish: {given.repo}: {str(error).splitlines()[0]}; check network, token and name"
        ) from error
    log(f"published {given.artifact}: {made.commit_url}")


def _operations(artifact: Path, commit: str | None) -> "Iterator[CommitOperationAdd]":
    """One operation per file; the commit is added to config.json and README.md, which say where the artifact comes from."""
    from huggingface_hub import CommitOperationAdd

    for path in sorted({path for pattern in UPLOADED for path in artifact.glob(pattern)}):
        content: Path | bytes = path
        if commit and path.name == "config.json":
            config = json.loads(path.read_text(encoding="utf-8"))
            config["provenance"]["commit"] = commit
            content = json.dumps(config, sort_keys=True, indent=2).encode() + b"\n"
        elif commit and path.name == "README.md":
            content = path.read_bytes() + f"\nMade by the pipeline at commit `{commit}`.\n".encode()
        yield CommitOperationAdd(path.name, content)


def _commit(artifact: Path) -> str | None:
    """The git commit whose pipeline makes the artifact, "with changes" if its inputs are not committed. None, with a line that
    says why, unless the artifact is an up-to-date output of the project's stage `release`.
    """
    stage = f"release@{artifact.name}"
    status = [sys.executable, "-m", "dvc", "status", "--quiet", "--with-deps", stage]
    if artifact.resolve().parent != MODELS.resolve() or _run(*status).returncode:
        log(f"no commit is published: {artifact} is not what `dvc repro` makes here now")
        return None
    head = _run("git", "rev-parse", "--verify", "HEAD")
    if head.returncode:
        log("no commit is published: the project has none")
        return None
    changed = _run("git", "diff", "--quiet", "HEAD", "--", *INPUTS).returncode
    return head.stdout.strip() + (" with changes" if changed else "")


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return subprocess.CompletedProcess(command, 127)
