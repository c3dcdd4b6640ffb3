"""deep-prompt serve: a server of the tasks of artifacts, with a page."""

import argparse
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from deep_prompt.cli.arguments import (
    SOURCE,
    add_artifact_argument,
    add_dtype_argument,
    backbone_at,
    dtype_of,
    positive_integer,
)
from pipeline.errors import UserError
from stages.runtime.entry import log

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from deep_prompt.serve.model import ServedModel
    from deep_prompt.serve.settings import Settings

TOKEN_VARIABLE = "DEEP_PROMPT_ADMIN_TOKEN"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_artifact_argument(
        parser,
        action="append",
        required=False,
        default=[],
        help="folder of an artifact, or zoo:NAME; repeat the option for several artifacts on one "
        "backbone",
    )
    parser.add_argument("--zoo", action="store_true", help="serve the artifacts of the zoo")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8000, help="port; 0 chooses a free one (default: %(default)s)"
    )
    _add_model_arguments(parser)
    _add_limits(parser)
    _add_admin_arguments(parser)


def _add_model_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--wait-ms",
        type=_number,
        default=2.0,
        metavar="N",
        help="how long to gather requests for a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive_integer,
        default=4096,
        metavar="N",
        help="maximum tokens per batch, padding included (default: %(default)s)",
    )
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help=f"location of the backbone, if it has moved: {SOURCE}; its files must be the same",
    )
    add_dtype_argument(parser)


def _add_limits(parser: ArgumentParser) -> None:
    for name, default, text in (
        ("--max-rows", 512, "rows of a request"),
        ("--max-characters", 20_000, "characters of a row"),
        ("--max-body-bytes", 4_000_000, "bytes of a request"),
        ("--max-queued-rows", 4096, "rows that wait; more get status 503"),
        ("--max-streams", 16, "texts that are generated as events; more get status 503"),
        ("--max-connections", 512, "open connections"),
        ("--timeout", 30, "seconds from a request to its answer"),
    ):
        parser.add_argument(
            name,
            type=positive_integer,
            default=default,
            metavar="N",
            help=f"maximum {text} (default: %(default)s)",
        )
    parser.add_argument(
        "--drain-seconds",
        type=_number,
        default=1.0,
        metavar="N",
        help="how long to accept requests after a stop signal, so that load balancers see that the "
        "server is not ready (default: %(default)s)",
    )


def _add_admin_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--admin-token",
        default=os.environ.get(TOKEN_VARIABLE),
        metavar="TOKEN",
        help="allow PUT and DELETE of artifacts with this token of at least 8 characters (default: "
        f"the environment variable {TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--admin-folder",
        type=Path,
        metavar="DIR",
        help="the folder of the artifacts that PUT may load",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="DIR",
        help="accept corrections of predictions, and append them to DIR/TASK/corrections.jsonl",
    )


def serve(arguments: Namespace) -> None:
    """Serve the tasks of artifacts over HTTP, with a page, until Ctrl-C or SIGTERM.

    For example:

        deep-prompt serve --zoo
        deep-prompt serve --artifact models/world_ner --artifact models/world_srl --port 8000

    Rows of different requests and tasks share forward passes. GET /docs lists the requests. At a
    stop signal, the server answers all accepted requests and exits with status 0.
    """
    settings = _settings(arguments)
    model = _load(arguments)
    from deep_prompt.serve.runner import listen, run_server

    for warning in model.served.predictor.warnings:
        log(f"warning: {warning}")
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log(f"serving {', '.join(model.served.predictor.tasks)} at http://{shown}:{port}")
    run_server(model, settings, listening)


def _load(arguments: Namespace) -> "ServedModel":
    try:
        from deep_prompt.serve.model import ServedModel, named_folders
        from deep_prompt.serve.runner import listen  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"serve: the package {error.name} is not installed; run pip install '.[serve]'"
        ) from None
    from pipeline.artifacts.config import load_config
    from pipeline.artifacts.zoo import zoo_names

    zoo = [f"zoo:{name}" for name in zoo_names()] if arguments.zoo else []
    folders = named_folders([*arguments.artifact, *zoo])
    if not folders:
        raise UserError("serve: there is no artifact; give --artifact DIR, or --zoo")
    backbone = None
    if arguments.backbone:
        first = next(iter(folders.values()))
        backbone = backbone_at(arguments.backbone, load_config(first).backbone.sha256)
    return ServedModel(folders, backbone, arguments.batch_tokens, dtype_of(arguments))


def _settings(arguments: Namespace) -> "Settings":
    from deep_prompt.serve.settings import Limits, Settings

    admin_token = arguments.admin_token or None  # an empty variable is as none
    if admin_token is not None and len(admin_token) < 8:
        raise UserError("--admin-token: has fewer than 8 characters; choose a longer one")
    folder = arguments.admin_folder
    if folder is not None and not folder.is_dir():
        raise UserError(f"--admin-folder: {folder} is not a folder; give one that exists")
    return Settings(
        arguments.host,
        arguments.port,
        arguments.wait_ms,
        arguments.batch_tokens,
        Limits(
            rows=arguments.max_rows,
            characters=arguments.max_characters,
            body_bytes=arguments.max_body_bytes,
            queued_rows=arguments.max_queued_rows,
            seconds=arguments.timeout,
            streams=arguments.max_streams,
            connections=arguments.max_connections,
        ),
        admin_token,
        folder,
        arguments.corrections,
        arguments.drain_seconds,
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 0 to 65535")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 3600")
    return value
