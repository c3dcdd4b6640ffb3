"""deep-prompt predict: rows in, predictions out."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from deep_prompt.cli.arguments import SOURCE, add_artifact_argument, backbone_at, positive_integer
from pipeline.data.readers.base import not_utf8_message
from pipeline.errors import UserError, did_you_mean
from pipeline.files import atomic_stream
from pipeline.tasks.base.row import Row

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.params import BackboneParams


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_artifact_argument(
        parser,
        action="append",
        help="an artifact's folder; repeat it for more tasks on the same backbone",
    )
    parser.add_argument("--input", default="-", metavar="FILE", help="the rows (default: -, stdin)")
    parser.add_argument(
        "--output", default="-", metavar="FILE", help="the predictions (default: -, stdout)"
    )
    parser.add_argument("--task", metavar="NAME", help="the task of rows that name none")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave malformed rows out, say so on stderr and go on",
    )
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help=f"where the backbone is, if not where the artifacts say: {SOURCE}; its weights must be the same",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive_integer,
        default=4096,
        metavar="N",
        help="tokens of a batch, with padding (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        type=positive_integer,
        metavar="N",
        help="tokens of a window (default: as each task was trained); a longer text is read in several, which "
        "then overlap by a quarter",
    )
    parser.add_argument(
        "--chunk-rows",
        type=positive_integer,
        default=512,
        metavar="N",
        help="rows read before the first of them is answered (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="in what the backbone computes (default: %(default)s); bfloat16 is for GPUs",
    )


def predict(given: Namespace) -> None:
    """Predict rows: JSON objects, one a line, each with the keys that its task asks for, "task" (the name of a head; not needed
    where the artifacts have one) and perhaps "id". For instance

        {"task": "ner", "tokens": ["Ada", "went", "to", "Bonn"]}
        {"task": "qa", "question": "Who went to Bonn?", "context": "Ada went to Bonn.", "id": 17}

    For each row comes one line, in the same order: its id (or its number, from 0), task and result. Rows are read and answered in
    chunks, so a file may be of any size and a pipe without end. An output file appears when it is whole, or not at all.
    Exits with 1, naming line and remedy, where a row is malformed; --skip-bad goes on without it.
    """
    notes: Counter[str] = Counter()

    def skip(error: UserError) -> None:
        notes["rows skipped"] += 1
        for problem in error.problems:
            print(f"skipped: {problem}", file=sys.stderr)

    with _reading(given.input) as (stream, name), _writing(given.output) as write:
        import torch

        from pipeline.inference.predictor import load

        predictor = load(
            given.artifact,
            _moved(given),
            dtype=getattr(torch, given.dtype),
            max_length=given.max_length,
        )
        if given.task not in (None, *predictor.tasks):
            raise UserError(
                f"--task: the artifacts have no task {given.task!r}{did_you_mean(given.task, predictor.tasks)}"
            )
        rows = _rows(stream, name, {"task": given.task} if given.task else {})
        on_bad: Literal["skip", "raise"] = "skip" if given.skip_bad else "raise"
        for prediction in predictor.predict(
            rows, given.batch_tokens, on_bad, skip, given.chunk_rows
        ):
            write(json.dumps(prediction.asdict(), ensure_ascii=False, allow_nan=False) + "\n")
    for what, count in (notes + predictor.counts).items():
        print(f"{what}: {count}", file=sys.stderr)


def _moved(given: Namespace) -> "BackboneParams | None":
    """The backbone at --backbone, with the hash that the first artifact gives."""
    from pipeline.artifacts.config import load_config

    return (
        backbone_at(given.backbone, load_config(given.artifact[0]).backbone.sha256)
        if given.backbone
        else None
    )


@contextmanager
def _reading(place: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file or stdin, and its name in messages."""
    if place == "-":
        yield sys.stdin.buffer, "stdin"
        return
    try:
        stream = Path(place).open("rb")  # noqa: SIM115  (an error in the block is none of opening)
    except OSError as error:
        raise UserError(
            f"--input: {place} cannot be read: {error.strerror}; give a file of JSON lines"
        ) from None
    with stream:
        yield stream, place


def _rows(stream: BinaryIO, name: str, default: Row) -> Iterator[Row | UserError]:
    """The rows in lines of JSON; for a line that holds none, the error that says why. Blank lines are skipped."""
    for line, raw in enumerate(stream, start=1):
        where = f"{name}:{line}"
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
            value = json.loads(text) if text else None
        except UnicodeDecodeError as error:
            yield UserError(f"{where}: {not_utf8_message(error)}")
        except json.JSONDecodeError as error:
            yield UserError(
                f"{where}: not valid JSON at column {error.colno}: {error.msg}; each line is one JSON object"
            )
        except (
            ValueError,
            RecursionError,
        ) as error:  # a number of thousands of digits, a list in a list in a list ...
            yield UserError(
                f"{where}: cannot be read as JSON: {error}; each line is one JSON object"
            )
        else:
            if isinstance(value, dict):
                yield {**default, **value, "where": where}
            elif text:
                yield UserError(
                    f"{where}: found {text[:40]!r}, expected a mapping; each line is one JSON object"
                )


@contextmanager
def _writing(place: str) -> Iterator[Callable[[str], object]]:
    """A function that writes a line: to stdout or a device at once, to a file that appears when it is complete."""
    if place == "-":
        yield partial(_write, sys.stdout.buffer)
        return
    path = Path(place)
    try:
        if path.is_file() or not path.exists():
            with atomic_stream(path.resolve()) as file:  # resolved, so that a link stays a link
                yield file.write
        else:
            with path.open("wb") as device:
                yield partial(_write, device)
    except OSError as error:
        raise UserError(
            f"--output: {place} cannot be written: {error.strerror or error}; give another file"
        ) from None


def _write(stream: BinaryIO, line: str) -> None:
    stream.write(line.encode())
    stream.flush()
