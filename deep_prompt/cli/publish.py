"""deep-prompt publish: upload an artifact to the Hugging Face hub, or write a Space."""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from deep_prompt.cli.arguments import add_artifact_argument
from deep_prompt.cli.space import write_space
from pipeline.config import load_json
from pipeline.errors import UserError
from stages.backbone_files import hashes
from stages.runtime.entry import log
from stages.runtime.paths import BACKBONE_FILES, MODELS

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
FILES = ("dvc.yaml", "params.yaml")
INPUTS = (*FILES, "data_recipes", "pipeline", "stages", "zoo")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_artifact_argument(
        parser,
        action="append",
        help="folder of the artifact, or zoo:NAME; with --space, repeat it for several artifacts",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--repo",
        metavar="OWNER/NAME",
        help="the repository on the hub; it is created if it does not exist",
    )
    target.add_argument(
        "--space",
        type=Path,
        metavar="DIR",
        help="in place of an upload: write the folder of a Space that serves the artifacts",
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

    With --space, write the folder of a Hugging Face Space (a Dockerfile, the code and the
    artifacts), whose page is that of `deep-prompt serve`. It uploads nothing.
    """
    if arguments.space:
        write_space(arguments.space, arguments.artifact)
        log(
            f"wrote {arguments.space}; upload it: hf upload OWNER/NAME {arguments.space} "
            "--repo-type space"
        )
        return
    if len(arguments.artifact) > 1:
        raise UserError("--artifact: one repository has one artifact; publish them one by one")
    _upload(arguments.artifact[0], arguments)


def _upload(artifact: Path, arguments: Namespace) -> None:
    from pipeline.interop.hub import check_repo, check_upload, upload

    check_repo(arguments.repo, "--repo")
    check_upload(artifact, arguments.repo)  # before DVC looks for the commit
    address = upload(artifact, arguments.repo, private=arguments.private, commit=_commit(artifact))
    log(f"published {artifact}: {address}")


def _commit(artifact: Path) -> str | None:
    """The git commit that produces the artifact; None, with a line in the log, if there is none.

    The artifact must be an up-to-date output of the project's stage `release`, and all inputs of
    the pipeline must be committed.
    """
    head = _run("git", "rev-parse", "--verify", "HEAD")
    tracked = _run("git", "ls-files", "--error-unmatch", *FILES)
    changed = _run("git", "status", "--porcelain", "--untracked-files=all", "--", *INPUTS)
    if artifact.resolve().parent != MODELS.resolve() or not _is_up_to_date(artifact.name):
        reason = f"{artifact} is not an up-to-date output of `dvc repro`"
    elif head.returncode or tracked.returncode:
        reason = "the project has no git commit"
    elif changed.stdout:
        reason = f"commit {', '.join(line[3:] for line in changed.stdout.splitlines()[:3])} first"
    else:
        return head.stdout.strip()
    log(f"published without a commit: {reason}")
    return None


def _is_up_to_date(task: str) -> bool:
    """Whether the stage `release` of a task, and the stages before it, have nothing to do."""
    status = [sys.executable, "-m", "dvc", "status", "--json", "--with-deps", f"release@{task}"]
    done = _run(*status)
    if done.returncode:
        return False
    # A stage with `always_changed` is never up to date for DVC, even if its output is.
    if any(changes != ["always changed"] for changes in json.loads(done.stdout).values()):
        return False
    # `dvc status` does not run this stage.
    return bool(load_json(BACKBONE_FILES) == hashes())


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # Git is not installed.
        return subprocess.CompletedProcess(command, 127)
