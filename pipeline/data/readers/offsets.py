"""Texts with labeled spans of characters, as annotation tools export them.

For token classification, a rule splits the text into words, and spans become tags. For
classification, each span is a row: the text with the span marked, and its label.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.data.readers import brat, docbin, json_dialects, record_keys
from pipeline.data.readers.base import Source
from pipeline.data.readers.brat import OnDiscontinuous
from pipeline.data.readers.document_rows import TagPolicy, WordRule, marked_rows, tagged_rows
from pipeline.data.readers.documents import Document
from pipeline.data.readers.json_dialects import DIALECTS, JsonDialectName
from pipeline.data.readers.label_names import LabelNames, check_names
from pipeline.data.readers.record_keys import RecordFormat, RecordKeys, unknown_fields
from pipeline.data.readers.spans import OnOverlap, OnPartial
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.offsets import OffsetUnit

DialectName = Literal[JsonDialectName, "brat", "spacy"]
_FIELDS = {"brat": (), "spacy": ("spans",)}  # the others: text, spans, id
_WITH_TOKENS = ("prodigy", "spacy")
_FOR_TAGS = ("word_rule", "on_partial", "on_overlap", "lines")  # options


@dataclass(frozen=True)
class Options:
    """The form of the files, and what becomes of spans that do not fit.

    `dialect` is the tool that wrote the files. `fields` has the keys of text, spans and id if the
    files have others than the dialect; for spaCy, `spans` is a span group instead of the entities.
    `names` renames labels; spans with the new name O are ignored. `offsets` is the unit of the
    offsets. `format` is by default that of the file's extension (.jsonl, .json, .parquet, .arrow).

    `word_rule` is the rule that splits a text into words (`pipeline.words`), or `tokens`: the
    tokens in the file. It is by default `tokens` for spaCy, `punctuation` for others. With `lines`,
    each line of a text is a row; a line break inside a span does not end a row.
    """

    dialect: DialectName = "plain"
    fields: dict[str, str | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    word_rule: WordRule | None = None
    on_partial: OnPartial = "error"
    on_overlap: OnOverlap = "error"
    on_discontinuous: OnDiscontinuous = "error"
    lines: bool = False
    offsets: OffsetUnit = "characters"
    format: RecordFormat | None = None

    def __post_init__(self) -> None:
        problems = unknown_fields(self.fields, _FIELDS.get(self.dialect, ("text", "spans", "id")))
        if self.word_rule == "tokens" and self.dialect not in _WITH_TOKENS:
            problems.append(
                f"word_rule: files of the dialect {self.dialect} have no tokens; choose a rule, or "
                "remove the key"
            )
        problems += [
            f"{name}: the dialect {self.dialect} does not use it; remove the key"
            for name in self._unused()
        ]
        if problems:
            raise ValueError("; ".join(problems))

    def _unused(self) -> list[str]:
        """The options that are set, but that the dialect does not use."""
        unused = [] if self.dialect == "brat" else ["on_discontinuous"]
        unused += ["format"] if self.dialect in ("brat", "spacy") else []
        unused += ["offsets"] if self.dialect == "spacy" else []
        return [name for name in unused if getattr(self, name) != getattr(Options, name)]

    @property
    def record_keys(self) -> RecordKeys | None:
        """Where the records of a file have their values; None if it has no records."""
        if self.dialect == "brat" or self.dialect == "spacy":  # noqa: PLR1714  (narrows the type)
            return None
        dialect = DIALECTS[self.dialect]
        defaults = {"text": dialect.text, "spans": dialect.spans, "id": ("id",)}
        return RecordKeys(defaults, self.fields, self.format)


@dataclass(frozen=True)
class TaskOptions:
    """The options for a task whose rows are tagged words, or else texts with a marked span."""

    options: Options
    tags: bool

    def __post_init__(self) -> None:
        unused = [
            name for name in _FOR_TAGS if getattr(self.options, name) != getattr(Options, name)
        ]
        if unused and not self.tags:
            raise ValueError(
                f"{', '.join(unused)}: only a task that tags words uses this; remove it"
            )


def keys(options: Options) -> frozenset[str]:
    """The keys of rows of any task."""
    return frozenset({"tokens", "tags", "text", "spans", "label"})


def for_task(options: Options, keys: RowKeys) -> TaskOptions:
    """The options for a task with these keys. Raises ValueError if an option does not fit."""
    return TaskOptions(options, "tags" in keys.required)


def resolve_auto(
    task_options: TaskOptions, files: Iterable[Source]
) -> tuple[TaskOptions, dict[str, Any]]:
    """The options with the rule that makes words of texts, and that rule."""
    options = task_options.options
    if not task_options.tags:
        return task_options, {}
    rule = options.word_rule or ("tokens" if options.dialect == "spacy" else "punctuation")
    options = replace(options, word_rule=rule)
    return replace(task_options, options=options), {"word_rule": rule}


def chunk_boundary(path: Path, task_options: TaskOptions) -> Literal["lines"] | None:
    """JSON lines may be split between lines."""
    keys = task_options.options.record_keys
    return None if keys is None else record_keys.chunk_boundary(path, keys)


def companion_files(path: Path, task_options: TaskOptions) -> list[Path]:
    """The text of an annotation file of brat."""
    text = brat.text_file(path)
    is_brat = task_options.options.dialect == "brat"
    return [text] if is_brat and text != path and text.is_file() else []


def read(source: Source, task_options: TaskOptions, problems: Problems) -> Iterator[Row]:
    """Rows with the keys tokens and tags, or text, spans and label; and id if the file has ids."""
    options, keys = task_options.options, task_options.options.record_keys
    classes = [] if keys is None else record_keys.classes_of_labels(source, keys)
    names = LabelNames(options.names, classes, str(source), problems)
    for document in _documents(source, options, problems) if names.is_valid else ():
        renamed = document._replace(spans=tuple(names.rename(document.spans)))
        yield from (
            tagged_rows(renamed, _policy(options), problems)
            if task_options.tags
            else marked_rows(renamed, problems)
        )
    names.add_found()


def _policy(options: Options) -> TagPolicy:
    assert options.word_rule is not None
    return TagPolicy(options.word_rule, options.on_partial, options.on_overlap, options.lines)


def _documents(source: Source, options: Options, problems: Problems) -> Iterator[Document]:
    if options.dialect == "brat":
        return brat.documents(source, options.offsets, options.on_discontinuous, problems)
    if options.dialect == "spacy":
        return docbin.documents(source, options.fields.get("spans"), problems)
    keys = options.record_keys
    assert keys is not None
    return json_dialects.documents(
        source, DIALECTS[options.dialect], keys, options.offsets, problems
    )


def check_options(task_options: TaskOptions, where: str, problems: Problems) -> None:
    """Add a warning for the names that match no label in the whole corpus."""
    check_names(task_options.options.names, "label", where, problems)


def count_unread_files(
    task_options: TaskOptions, files: Iterable[Path], problems: Problems
) -> None:
    """Count the texts of brat without an annotation file as skipped."""
    if task_options.options.dialect == "brat":
        problems.skipped[brat.UNANNOTATED] += brat.count_unannotated(files)
