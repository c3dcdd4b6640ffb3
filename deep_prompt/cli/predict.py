"""deep-prompt predict: read rows of JSON and write predictions."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from deep_prompt.cli.arguments import (
    SOURCE,
    add_artifact_argument,
    add_dtype_argument,
    backbone_at,
    dtype_of,
    positive_integer,
)
from deep_prompt.cli.row_files import open_input, open_output, parse_rows, read_lines
from pipeline.errors import UserError, did_you_mean
from stages.runtime.entry import stops

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.model.generation import Decoding
    from pipeline.params import BackboneParams
    from pipeline.tasks.base.row import Row

LOCAL_OPTIONS = {
    "backbone": None,
    "batch_tokens": 4096,
    "max_length": None,
    "num_beams": 1,
    "max_new_tokens": None,
    "sample": None,
    "top_p": 1.0,
    "seed": 0,
    "dtype": None,
}
"""The options that a server does not take from a request -> their defaults."""
DECODING_OPTIONS = ("num_beams", "max_new_tokens", "sample")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    add_artifact_argument(
        source,
        action="append",
        required=False,
        help="folder of an artifact, zoo:NAME, or hub:OWNER/NAME@REVISION; repeat the option for "
        "several artifacts on one backbone",
    )
    source.add_argument(
        "--server",
        metavar="URL",
        help="in place of --artifact: ask a server, which `deep-prompt serve` starts",
    )
    parser.add_argument(
        "--input",
        default="-",
        metavar="FILE",
        help="file of rows: .csv or .tsv with the keys in the first line, .txt with a text per "
        "line, or lines of JSON (default: -, stdin, lines of JSON); rows without an id are "
        "numbered from 0, and blank lines do not count",
    )
    parser.add_argument(
        "--output", default="-", metavar="FILE", help="file of predictions (default: -, stdout)"
    )
    parser.add_argument("--task", metavar="NAME", help='the task of rows without a key "task"')
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="skip malformed rows and report them on stderr",
    )
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help=f"location of the backbone, if it has moved: {SOURCE}; its files must be the same",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive_integer,
        default=LOCAL_OPTIONS["batch_tokens"],
        metavar="N",
        help="maximum tokens per batch, padding included (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        type=positive_integer,
        metavar="N",
        help="maximum tokens per window (default: the task's value in training); a longer text is "
        "split into windows that overlap by a quarter, or cut if its task reads one window only",
    )
    parser.add_argument(
        "--chunk-rows",
        type=positive_integer,
        default=512,
        metavar="N",
        help="number of rows to read and predict at a time (default: %(default)s)",
    )
    _add_decoding(parser)
    add_dtype_argument(parser)


def _add_decoding(parser: ArgumentParser) -> None:
    """Add the arguments that choose the tokens of generated texts."""
    parser.add_argument(
        "--num-beams",
        type=positive_integer,
        default=LOCAL_OPTIONS["num_beams"],
        metavar="N",
        help="beams of the search for a generated text (default: 1, greedy decoding)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive_integer,
        metavar="N",
        help="maximum tokens of a generated text (default: the task's value in training)",
    )
    parser.add_argument(
        "--sample",
        type=float,
        metavar="TEMPERATURE",
        help="draw the tokens of generated texts at this temperature",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=LOCAL_OPTIONS["top_p"],
        metavar="P",
        help="with --sample: nucleus sampling",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=LOCAL_OPTIONS["seed"],
        metavar="N",
        help="with --sample: the seed (default: 0)",
    )


def predict(arguments: Namespace) -> None:
    """Predict rows. A row is one JSON object per line, with the keys of its task.

    The key "task" is the name of a head; it may be missing if the artifacts have only one head. The
    key "id" is optional. For example:

        {"task": "ner", "text": "Ada went to Bonn."}
        {"task": "ner", "tokens": ["Ada", "went", "to", "Bonn"]}
        {"task": "srl", "text": "Ada went to Bonn.", "predicate": {"start": 4, "end": 8}}
        {"task": "qa", "question": "Who went to Bonn?", "context": "Ada went to Bonn.", "id": 17}
        {"task": "e2e", "source": "name[Aromi], eatType[pub]"}

    A predicate may also be the index of a word, or missing if an artifact that finds predicates is
    loaded too. The start and end of a span count characters of a text, or words of tokens.
    Generated texts have no confidence. If the output is a terminal, they appear on stderr token by
    token (not with --num-beams).

    The output has one line per row, in the same order: its id (or its number, from 0), task and
    result. Rows are read and predicted in chunks, so a file may have any size, and a pipe may stay
    open. An output file appears only when it is complete. Ctrl-C and SIGTERM end the command when
    it next reads or writes a row. A malformed row ends the command with exit code 1 and a message
    with the line and the remedy; --skip-bad skips the row. If all rows are skipped, or if a table
    lacks a column, the exit code is 1 with --skip-bad too.
    """
    _check_options(arguments)
    skipped: Counter[str] = Counter()

    def skip(error: UserError) -> None:
        skipped["rows skipped"] += 1
        for problem in error.problems:
            print(f"skipped: {problem}", file=sys.stderr)

    with (
        open_input(arguments.input) as (stream, name),  # a signal ends it at once
        stops() as stop_signals,
        open_output(arguments.output) as write,
    ):
        lines = read_lines(stream, name, stop_signals)
        counts: Counter[str] = Counter()
        num_predictions = 0
        predictions = _remote if arguments.server else _local
        for prediction in predictions(arguments, lines, name, skip, counts):
            line = json.dumps(prediction, ensure_ascii=False, allow_nan=False) + "\n"
            with stop_signals.waiting():
                write(line)
            num_predictions += 1
        if skipped and not num_predictions:
            raise UserError(
                f"{name}: all rows ({skipped.total()}) were skipped; correct the problems above"
            )
    for event, count in (skipped + counts).items():
        print(f"{event}: {count}", file=sys.stderr)


def _check_options(arguments: Namespace) -> None:
    """Raise UserError if there are options without effect."""
    changed = _changed(arguments)
    if arguments.server:
        _refuse(changed, "a server has its own; leave out the option")
    if arguments.sample is None:
        sampling = [name for name in changed if name in ("top_p", "seed")]
        _refuse(sampling, "has no effect without --sample; add it, or leave out the option")


def _changed(arguments: Namespace) -> list[str]:
    """The names of the options in LOCAL_OPTIONS that do not have their default."""
    return [name for name, default in LOCAL_OPTIONS.items() if vars(arguments)[name] != default]


def _refuse(names: Iterable[str], problem: str) -> None:
    problems = [f"--{name.replace('_', '-')}: {problem}" for name in names]
    if problems:
        raise UserError(*problems)


def _local(
    arguments: Namespace,
    lines: Iterable[bytes],
    name: str,
    skip: Callable[[UserError], None],
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """The predictions of the artifacts."""
    from pipeline.inference.loading import load
    from pipeline.tasks import task_named
    from pipeline.tasks.base.capabilities import GeneratesText

    predictor = load(
        arguments.artifact,
        _moved_backbone(arguments),
        dtype=dtype_of(arguments),
        max_length=arguments.max_length,
    )
    for warning in predictor.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.task not in (None, *predictor.tasks):
        raise UserError(
            f"--task: the artifacts have no task {arguments.task!r}"
            f"{did_you_mean(arguments.task, predictor.tasks)}"
        )
    rows = parse_rows(lines, name, _default(arguments), predictor.check_columns)
    on_bad: Literal["skip", "raise"] = "skip" if arguments.skip_bad else "raise"
    generates = any(
        isinstance(task_named(head.type), GeneratesText) for head in predictor.tasks.values()
    )
    if not generates:
        decoding = [name for name in _changed(arguments) if name in DECODING_OPTIONS]
        _refuse(decoding, "the artifacts generate no text; leave out the option")
    on_terminal = arguments.output == "-" and sys.stdout.isatty()
    streams = generates and on_terminal and arguments.num_beams == 1
    for prediction in predictor.predict(
        rows,
        arguments.batch_tokens,
        on_bad,
        skip,
        1 if streams else arguments.chunk_rows,
        _decoding(arguments),
        _show_piece if streams else None,
    ):
        if streams:
            _show_piece("\n")
        yield prediction.asdict()
    counts.update(predictor.counts)


def _remote(
    arguments: Namespace,
    lines: Iterable[bytes],
    name: str,
    skip: Callable[[UserError], None],
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """The predictions of the server."""
    from deep_prompt.serve.client import checked_url, predict_remotely

    rows = parse_rows(lines, name, _default(arguments))
    for answer in predict_remotely(checked_url(arguments.server), rows, arguments.chunk_rows):
        if not isinstance(answer, UserError):
            counts.update(answer.get("cut", {}))
            yield answer
        elif arguments.skip_bad:
            skip(answer)
        else:
            raise answer


def _default(arguments: Namespace) -> "Row":
    return {"task": arguments.task} if arguments.task else {}


def _decoding(arguments: Namespace) -> "Decoding":
    from pipeline.model.generation import Decoding

    return Decoding(
        num_beams=arguments.num_beams,
        do_sample=arguments.sample is not None,
        temperature=1.0 if arguments.sample is None else arguments.sample,
        top_p=arguments.top_p,
        seed=arguments.seed,
        max_new_tokens=arguments.max_new_tokens,
    )


def _show_piece(piece: str) -> None:
    """Show a piece of a text that is being generated."""
    sys.stderr.write(piece)
    sys.stderr.flush()


def _moved_backbone(arguments: Namespace) -> "BackboneParams | None":
    """The backbone at --backbone, with the hash from the first artifact."""
    from pipeline.artifacts.config import load_config

    return (
        backbone_at(arguments.backbone, load_config(arguments.artifact[0]).backbone.sha256)
        if arguments.backbone
        else None
    )
