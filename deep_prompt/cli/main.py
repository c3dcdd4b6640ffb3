"""deep-prompt, the command; also `python -m deep_prompt`. A module here is a command, or two that belong together."""

import argparse
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from inspect import cleandoc

from deep_prompt.cli import (
    check_corpus,
    export_import,
    inspect_artifact,
    parallel,
    predict,
    preset,
    publish,
    show,
    tune,
)
from stages.runtime.entry import report_errors

# Torch, transformers and the like are imported inside the commands: they take seconds, which --help and a typo should not.


def main(words: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the command line. Exits with 1 on a user's mistake, with 2 on wrong usage."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    given = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with report_errors():
            given.run(given)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads stdout has seen enough, as `head` does
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python's own flush at exit would say so
        raise SystemExit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _terminated(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)  # so that what is being written beside is removed


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "deep-prompt",
        description="Check a corpus, tune params, use artifacts: prompts and heads on a frozen backbone.",
        epilog="`deep-prompt COMMAND --help` says more of a command.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, add_words, text in (
        (
            "check",
            check_corpus.check,
            check_corpus.words,
            "check this project, or one corpus, before anyone trains",
        ),
        ("preset", preset.preset, preset.words, "switch params.yaml to one of the presets"),
        (
            "parallel",
            parallel.parallel,
            parallel.words,
            "run the whole pipeline with one task on each GPU",
        ),
        ("show", show.show, show.words, "print the test scores and the report's summary"),
        ("tune", tune.tune, tune.words, "search an arm's training params on validation"),
        ("predict", predict.predict, predict.words, "predict rows of many tasks over one backbone"),
        ("inspect", inspect_artifact.inspect, inspect_artifact.words, "show what an artifact is"),
        (
            "export",
            export_import.export,
            export_import.export_words,
            "write an artifact's prompt as another library's",
        ),
        (
            "import",
            export_import.import_,
            export_import.import_words,
            "make an artifact of another library's prompt",
        ),
        ("publish", publish.publish, publish.words, "upload an artifact to the Hugging Face hub"),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=cleandoc(run.__doc__ or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_words(command)
        command.set_defaults(run=run)
    return parser
