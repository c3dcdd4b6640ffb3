"""deep-prompt publish: an artifact on the Hugging Face hub."""

import re
from argparse import ArgumentParser, Namespace

from deep_prompt.cli.arguments import add_artifact_argument
from pipeline.errors import UserError
from stages.runtime.entry import log

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415


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

    A prompt learns from the texts it was trained on: see the licenses in its README.md.
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
    api = HfApi()
    try:
        api.create_repo(given.repo, private=given.private, exist_ok=True)
        where = api.upload_folder(
            repo_id=given.repo,
            folder_path=given.artifact,
            commit_message="Upload a deep-prompt artifact",
            allow_patterns=["*.json", "*.safetensors", "README.md"],
        )
    except Exception as error:  # the hub's library raises those of its HTTP library too, which have no class in common
        raise UserError(
            f"publish: {given.repo}: {str(error).splitlines()[0]}; check network, token and name"
        ) from error
    log(f"published {given.artifact}: {where}")
