"""Artifacts in the conventions of the Hugging Face hub: their files, and uploads."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token

from pipeline.artifacts.config import load_config
from pipeline.artifacts.location import FILES
from pipeline.errors import UserError, first_line

COMMIT_MESSAGE = "Upload a deep-prompt artifact"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def artifact_files(artifact: Path) -> list[Path]:
    """The files of an artifact that are copied and uploaded, in alphabetical order."""
    return sorted({path for pattern in FILES for path in artifact.glob(pattern)})


def check_repo(repo: str, name: str = "repository") -> None:
    """Raise UserError if `repo` is not the name of a repository on the hub.

    `name` is that of the argument in the message.
    """
    if not _REPO.fullmatch(repo):
        raise UserError(f"{name}: found {repo!r}; write OWNER/NAME")


def check_upload(artifact: Path, repo: str, token: str | None = None) -> None:
    """Raise UserError if the artifact cannot be uploaded to OWNER/NAME; connects to nothing."""
    load_config(artifact)
    check_repo(repo)
    if not (artifact / "README.md").exists():
        raise UserError(
            f"{artifact} has no README.md, the model card with the training data; publish an "
            "output of the stage release (models/TASK), or write a README.md"
        )
    if token is None and get_token() is None:
        raise UserError("found no token for the hub; log in with `hf auth login`, or set HF_TOKEN")


def upload(
    artifact: Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit: str | None = None,
    commit_message: str = COMMIT_MESSAGE,
) -> str:
    """Upload an artifact to OWNER/NAME on the hub; returns the address of the hub's commit.

    The repository is created if it does not exist, for its owner only if it is `private`. `commit`
    is the git commit that produces the artifact; config.json and README.md then name it. Call
    `check_upload` before. Raises UserError if the hub refuses.
    """
    api = HfApi(token=token)
    operations = list(_operations(artifact, commit))
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        uploaded = api.create_commit(repo, operations, commit_message=commit_message)
    except Exception as error:  # huggingface_hub and its HTTP library have no common error class.
        raise UserError(
            f"{repo}: {first_line(error)}; check the network, the token and the name of "
            "the repository"
        ) from error
    return str(uploaded.commit_url)


def _operations(artifact: Path, commit: str | None) -> Iterator[CommitOperationAdd]:
    """Yield one operation per file. Add the commit to config.json and README.md."""
    for path in artifact_files(artifact):
        content: Path | bytes = path
        if commit and path.name == "config.json":
            config = json.loads(path.read_text(encoding="utf-8"))
            config.setdefault("provenance", {})["commit"] = commit
            content = json.dumps(config, sort_keys=True, indent=2).encode() + b"\n"
        elif commit and path.name == "README.md":
            content = (
                path.read_bytes() + f"\nProduced by the pipeline at commit `{commit}`.\n".encode()
            )
        yield CommitOperationAdd(path.name, content)
