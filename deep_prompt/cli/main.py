"""The command `deep-prompt`; also `python -m deep_prompt`."""

import argparse
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from inspect import cleandoc
from typing import NamedTuple

from deep_prompt.cli import (
    check_backbone,
    check_corpus,
    export_import,
    inspect_artifact,
    parallel,
    predict,
    preset,
    publish,
    serve,
    show,
    tune,
)
from stages.runtime.entry import discard_stdout, report_errors

# The commands import torch, transformers and similar packages inside their functions, because these
# imports take seconds, which would delay --help and the error for a typo.


class Command(NamedTuple):
    """A subcommand: its name, function, arguments, and one line of help."""

    name: str
    run: Callable[[Namespace], None]
    add_arguments: Callable[[ArgumentParser], None]
    summary: str


COMMANDS = (
    Command(
        "check", check_corpus.check, check_corpus.add_arguments, "check the project or one corpus"
    ),
    Command(
        "check-backbone",
        check_backbone.check_backbone,
        check_backbone.add_arguments,
        "check that deep prompts work on a backbone",
    ),
    Command("preset", preset.preset, preset.add_arguments, "replace params.yaml with a preset"),
    Command(
        "parallel",
        parallel.parallel,
        parallel.add_arguments,
        "run the whole pipeline with one task on each GPU",
    ),
    Command(
        "show",
        show.show,
        show.add_arguments,
        "print the scores, the summary and the resource usage",
    ),
    Command("tune", tune.tune, tune.add_arguments, "search an arm's training params on validation"),
    Command(
        "predict",
        predict.predict,
        predict.add_arguments,
        "predict rows of one or more tasks with one backbone",
    ),
    Command("serve", serve.serve, serve.add_arguments, "serve the tasks of artifacts over HTTP"),
    Command(
        "inspect",
        inspect_artifact.inspect,
        inspect_artifact.add_arguments,
        "describe an artifact",
    ),
    Command(
        "export",
        export_import.export,
        export_import.add_export_arguments,
        "write an artifact's prompt in the format of another library",
    ),
    Command(
        "import",
        export_import.import_,
        export_import.add_import_arguments,
        "make an artifact from another library's prompt",
    ),
    Command(
        "publish",
        publish.publish,
        publish.add_arguments,
        "upload an artifact to the Hugging Face hub",
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with the arguments `argv` (default: those of the command line).

    Exits with status 1 on a user error and with status 2 on wrong usage.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    try:
        with report_errors():
            arguments.run(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # The reader of stdout closed it, as `head` does.
        # Python flushes stdout again at exit, and would print the error then.
        discard_stdout()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _exit_on_sigterm(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)  # An exception, so that temporary files are removed.


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "deep-prompt",
        description="Check data, run the pipeline, and use artifacts: prompts and heads on a "
        "frozen backbone.",
        epilog="`deep-prompt COMMAND --help` describes a command.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=cleandoc(command.run.__doc__ or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser
