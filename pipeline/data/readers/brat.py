"""brat's standoff format: a text in `x.txt`, and its annotation in `x.ann`."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pipeline.data.readers.base import (
    READ_ERRORS,
    Source,
    SourceLine,
    damaged_message,
    lines,
    not_utf8_message,
    open_text,
)
from pipeline.data.readers.documents import Document, RawSpan, to_span
from pipeline.data.readers.spans import LabeledSpan, span_title
from pipeline.errors import UNDECODABLE, Problems, abbreviate
from pipeline.tasks.shared.offsets import OffsetUnit

OnDiscontinuous = Literal["error", "split", "expand", "drop"]
"""How to read a span of several fragments: as a problem; as a span for each fragment; as the span
from the first to the last; or as no span."""

# Their names in `Problems.skipped`.
OTHER_LINES = "lines of annotations that are not text spans"
UNANNOTATED = "texts without annotation file"
_match_span = re.compile(
    r"(T\S+)\t(\S+) ([0-9]{1,18} [0-9]{1,18}(?:;[0-9]{1,18} [0-9]{1,18})*)(?:\t(.*))?"
).fullmatch
_OTHER_KINDS = ("R", "E", "A", "M", "N", "#", "*")


def text_file(path: Path) -> Path:
    """The file of the text of an annotation file; the same compression is expected."""
    return path.with_name(re.sub(r"\.ann(\.\w+)?$", r".txt\1", path.name))


def count_unannotated(annotations: Iterable[Path]) -> int:
    """The number of texts without an annotation file, in the folders of annotation files."""
    folders = {path.parent for path in annotations}
    paths = {path for folder in folders for path in folder.iterdir()}
    names = ((path, re.sub(r"\.txt(\.\w+)?$", r".ann\1", path.name)) for path in paths)
    return sum(path.with_name(name) not in paths for path, name in names)


def documents(
    source: Source, unit: OffsetUnit, on_discontinuous: OnDiscontinuous, problems: Problems
) -> Iterator[Document]:
    """The document of an annotation file; problems, and no document, if it is invalid."""
    path = Path(str(source))
    text = _text(path, problems)
    if text is None:
        return
    before, spans = len(problems), list[LabeledSpan]()
    with problems.in_one_row():
        for line in lines(source, problems):
            if line.text.startswith("T"):
                spans += _spans(line, text, unit, on_discontinuous, problems)
            elif line.text.startswith(_OTHER_KINDS):
                problems.skipped[OTHER_LINES] += 1
            elif line.text.strip():
                _add_ill_formed(line, problems)
    if len(problems) == before:
        yield Document(str(text_file(path)), text, tuple(spans), is_file=True)


def _text(path: Path, problems: Problems) -> str | None:
    """The text that belongs to an annotation file; adds a problem if it cannot be read."""
    if ".ann" not in path.name:
        problems.add(
            str(path),
            "not an annotation file of brat; list the .ann files in the recipe's files (*.ann), "
            "with each .txt beside its .ann",
            "unknown-format",
            hides=True,
        )
        return None
    file = text_file(path)
    try:
        with open_text(file) as opened:
            return opened.read().decode("utf-8-sig")
    except FileNotFoundError:
        problems.add(
            str(file),
            f"the text of {path.name} does not exist; put it beside its annotation",
            "missing-file",
            hides=True,
        )
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.add(f"{file}:{line}", not_utf8_message(error), UNDECODABLE, hides=True)
    except READ_ERRORS as error:
        problems.add(str(file), damaged_message(error), "damaged-file", hides=True)
    return None


def _spans(
    line: SourceLine,
    text: str,
    unit: OffsetUnit,
    on_discontinuous: OnDiscontinuous,
    problems: Problems,
) -> list[LabeledSpan]:
    """The spans of a line: one, unless it is discontinuous."""
    match = _match_span(line.text)
    if match is None:
        _add_ill_formed(line, problems)
        return []
    name, label, offsets, expected = match.groups()
    bounds = [part.split(" ") for part in offsets.split(";")]
    fragments = [RawSpan(label, int(start), int(end)) for start, end in bounds]
    if len(fragments) == 1:
        fragments = [fragments[0]._replace(text=expected)]
    else:
        fragments = _continuous(line, name, fragments, expected, on_discontinuous, problems)
    found = (to_span(span, name, text, unit, line.where, problems) for span in fragments)
    return [span for span in found if span]


def _continuous(
    line: SourceLine,
    name: str,
    fragments: list[RawSpan],
    text: str | None,
    on_discontinuous: OnDiscontinuous,
    problems: Problems,
) -> list[RawSpan]:
    """The spans that replace a discontinuous span; a problem, or a warning."""
    start, end = min(part.start for part in fragments), max(part.end for part in fragments)
    whole = RawSpan(fragments[0].label, start, end)
    fact = f"{span_title(name, whole.label, text or '', start, end)} has {len(fragments)} fragments"
    match on_discontinuous:
        case "split":
            problems.add(line.where, f"{fact}; each becomes a span", "split-span")
            return fragments
        case "expand":
            problems.add(line.where, f"{fact}; they become one span", "expanded-span")
            return [whole]
        case "drop":
            problems.add(line.where, f"{fact}; it is dropped", "dropped-span")
        case "error":
            problems.add(
                line.where,
                f"{fact}; correct it, or set on_discontinuous (split, expand or drop) in the "
                "recipe's options",
                "discontinuous-span",
            )
    return []


def _add_ill_formed(line: SourceLine, problems: Problems) -> None:
    problems.add(
        line.where,
        f"{abbreviate(line.text)} is not a line of brat's annotation, as in "
        "'T1\\tLOC 13 17\\tBonn'; correct it",
        "ill-formed-annotation",
    )
