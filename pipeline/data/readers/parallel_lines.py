"""Parallel files with one line per sentence: its words, its slot tags in IOB2, and its intent.

ATIS and SNIPS have this format since Goo et al. (2018), Slot-Gated Modeling for Joint Slot Filling
and Intent Prediction: the files seq.in, seq.out and label of a folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pipeline.data.readers.base import Source, SourceLine, lines, split_columns
from pipeline.data.readers.tags import to_iob2
from pipeline.errors import Problem, Problems, abbreviate
from pipeline.tasks.base.row import TAG_PROBLEMS, Row

_NO_LINE = SourceLine("", "")


@dataclass(frozen=True)
class Options:
    """The names of the files of tags and of intents, in the folder of the file of words."""

    tags: str = "seq.out"
    intents: str = "label"

    def __post_init__(self) -> None:
        if any(Path(name).name != name for name in (self.tags, self.intents)):
            raise ValueError(
                f"tags, intents: {self.tags!r} and {self.intents!r} must be names of files "
                "in the folder of the file of words; remove the folders"
            )


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """One row per line: `tokens`, `tags` and `intent`. Lines that are empty in all files are none.

    Stops at the first line that only some of the files have.
    """
    path = Path(str(source))
    files = [path, *companion_files(path, options)]
    if len(files) < 3:
        problems.add(
            str(path),
            f"its files {options.tags} and {options.intents} do not both exist; "
            "add them, or correct tags and intents",
            "missing-file",
            hides=True,
        )
        return
    rows = zip_longest(*(lines(file, problems) for file in files), fillvalue=_NO_LINE)
    for sentence in rows:
        filled = [line for line in sentence if line.text.strip()]
        if len(filled) == len(sentence):
            words, tags, intent = sentence
            yield _row(words, tags, intent)
        elif filled:
            problems.add(
                filled[0].where,
                f"{abbreviate(filled[0].text)} has no line beside it in the other files "
                f"({', '.join(file.name for file in files)}); give all files the same lines",
                "uneven-files",
                hides=True,
            )
            return


def companion_files(path: Path, options: Options) -> list[Path]:
    """The files of tags and intents of a file of words, if they exist."""
    files = (path.with_name(name) for name in (options.tags, options.intents))
    return [file for file in files if file.is_file()]


def _row(words: SourceLine, tags: SourceLine, intent: SourceLine) -> Row:
    """The row of a sentence; with TAG_PROBLEMS if its tags violate IOB2."""
    iob2, errors = to_iob2(split_columns(tags, None), "iob2")
    row: Row = {
        "where": words.where,
        "tokens": split_columns(words, None),
        "tags": iob2,
        "intent": intent.text.strip(),
    }
    if errors:
        row[TAG_PROBLEMS] = [Problem(kind, tags.where, message) for _, message, kind in errors]
    return row
