"""WebNLG: XML with entries, each a set of triples and its texts.

The triples become a text, `subject : property : object | ...`, with spaces for underscores and
without quotes. The parser expands no entities: a file with a document type is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from pipeline.data.readers.base import READ_ERRORS, Source, damaged_message, open_text
from pipeline.errors import Problems, did_you_mean
from pipeline.tasks.base.row import Row

_CHUNK_BYTES = 1 << 16
_CATEGORY = "category "  # and the category: its name in `Problems.found`
# Names in `Problems.skipped`.
SKIPPED_TEXTS, SKIPPED_ENTRIES = "texts that are not good", "entries without a good text"


@dataclass(frozen=True)
class Options:
    """`unseen_categories` are those of the subset "unseen"; the others are "seen".

    Without them, rows have no subset.
    """

    unseen_categories: tuple[str, ...] = ()


class _DocumentTypeError(Exception):
    pass


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `source`, `references` and maybe `subset`, one per entry.

    Texts whose comment is not "good", and entries without another text, are skipped and counted.
    """
    path = Path(str(source))
    entries = _Entries(path, options, problems)
    try:
        with open_text(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                entries.parser.Parse(chunk, False)
                yield from entries.take_rows()
        entries.parser.Parse(b"", True)
    except READ_ERRORS as error:
        problems.add(entries.where, damaged_message(error), "damaged-file", hides=True)
    except _DocumentTypeError:
        problems.add(
            entries.where,
            "has a document type (<!DOCTYPE>), whose entities could expand without limit, so the "
            "rest of the file is not read; remove it",
            "document-type",
            hides=True,
        )
    except expat.ExpatError as error:
        problems.add(
            entries.where,
            f"not valid XML: {expat.ErrorString(error.code)}; correct the file, or download it "
            "again",
            "not-xml",
            hides=True,
        )
    yield from entries.take_rows()


def check_options(options: Options, where: str, problems: Problems) -> None:
    """Add a warning for the unseen categories that no entry has."""
    known = [name.removeprefix(_CATEGORY) for name in problems.found]
    for category in options.unseen_categories:
        if category not in known:
            problems.add(
                where,
                f"unseen_categories: no entry has the category {category!r}"
                f"{did_you_mean(category, known)}",
                "unmatched-option",
            )


class _Entries:
    """Makes rows of the elements of a file as the parser meets them."""

    def __init__(self, path: Path, options: Options, problems: Problems) -> None:
        self._path, self._options, self._problems = path, options, problems
        self._rows: list[Row] = []
        self._row: Row = {}
        self._triples: list[str] = []
        self._text: list[str] | None = None  # of the current triple or text
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    @property
    def where(self) -> str:
        """The current line."""
        return f"{self._path}:{self.parser.CurrentLineNumber}"

    def take_rows(self) -> list[Row]:
        """The rows since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def _refuse(self, *_: object) -> None:
        raise _DocumentTypeError

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "entry":
            self._triples = []
            self._row = {"where": self.where, "references": []}
            self._add_subset(attributes.get("category", ""))
        elif name == "lex" and attributes.get("comment", "good") != "good":
            self._problems.skipped[SKIPPED_TEXTS] += 1
        elif name in ("mtriple", "lex"):
            self._text = []

    def _add_subset(self, category: str) -> None:
        self._problems.found[_CATEGORY + category] += 1
        if self._options.unseen_categories:
            unseen = category in self._options.unseen_categories
            self._row["subset"] = "unseen" if unseen else "seen"

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        text, self._text = self._text, None
        if name == "mtriple" and text is not None:
            self._triples.append(_linearized("".join(text)))
        elif name == "lex" and text is not None and self._row:
            self._row["references"].append("".join(text).strip())
        elif name == "entry" and self._row:
            self._add_row(self._row | {"source": " | ".join(self._triples)})
            self._row = {}

    def _add_row(self, row: Row) -> None:
        if row["references"]:
            self._rows.append(row)
        else:
            self._problems.skipped[SKIPPED_ENTRIES] += 1


def _linearized(triple: str) -> str:
    """`Aarhus_Airport | cityServed | "Aarhus"` as `Aarhus Airport : cityServed : Aarhus`."""
    parts = [part.strip().strip('"').replace("_", " ") for part in triple.split(" | ")]
    return " : ".join(parts)
