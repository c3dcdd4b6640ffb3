"""Tokens with labeled spans of tokens, as SpERT, CoNLL-2004 and GLiNER have them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.data.readers import record_keys
from pipeline.data.readers.base import Source
from pipeline.data.readers.documents import raw_spans
from pipeline.data.readers.label_names import LabelNames, check_names
from pipeline.data.readers.record_keys import (
    RecordFormat,
    RecordKeys,
    add_wrong_type,
    read_records,
    unknown_fields,
)
from pipeline.data.readers.spans import (
    LabeledSpan,
    OnOverlap,
    resolve_overlaps,
    span_title,
    to_tags,
)
from pipeline.data.readers.tables import Record
from pipeline.errors import Problems, quantity
from pipeline.tasks.base.row import Row

_DEFAULTS = {"tokens": ("tokens",), "spans": ("entities",), "id": ("id",)}


@dataclass(frozen=True)
class Options:
    """The keys of a record, and what becomes of spans that overlap.

    `fields` has the keys of `tokens`, `spans` (by default `entities`) and `id`, if the files have
    others. A span is a mapping with `type` (or `label`), `start` and `end`, or a list [start, end,
    label]. `end` is the token after the span, or, with `inclusive`, its last token. `names` renames
    labels; spans with the new name O are ignored.
    """

    fields: dict[str, str | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    end: Literal["exclusive", "inclusive"] = "exclusive"
    on_overlap: OnOverlap = "error"
    format: RecordFormat | None = None

    def __post_init__(self) -> None:
        if problems := unknown_fields(self.fields, tuple(_DEFAULTS)):
            raise ValueError("; ".join(problems))

    @property
    def record_keys(self) -> RecordKeys:
        """Where the records of a file have their values."""
        return RecordKeys(_DEFAULTS, self.fields, self.format)


def chunk_boundary(path: Path, options: Options) -> Literal["lines"] | None:
    """JSON lines may be split between lines."""
    return record_keys.chunk_boundary(path, options.record_keys)


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows with the keys tokens and tags, and id if the file has ids."""
    keys = options.record_keys
    classes = record_keys.classes_of_labels(source, keys)
    names = LabelNames(options.names, classes, str(source), problems)
    for where, record in read_records(source, keys, problems) if names.is_valid else ():
        with problems.in_one_row():
            row = _row(record, options, names, where, problems)
        if row is not None:
            yield row
    names.add_found()


def _row(
    record: Record, options: Options, names: LabelNames, where: str, problems: Problems
) -> Row | None:
    before, keys = len(problems), options.record_keys
    values = keys.annotated("tokens", record, where, problems)
    if values is None:
        return None
    tokens, raw, id = values
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        add_wrong_type(keys.paths("tokens")[0], tokens, "a list of texts", where, problems)
    keys.check_spans(raw, where, problems)
    if len(problems) > before:
        return None
    spans = names.rename(_spans(raw, tokens, options, where, problems))
    spans = resolve_overlaps(spans, tokens, options.on_overlap, problems)
    if len(problems) > before:
        return None
    row: Row = {"where": where, "tokens": tokens, "tags": to_tags(spans, len(tokens))}
    return row if id is None else row | {"id": id}


def _spans(
    values: list[Any], tokens: list[str], options: Options, where: str, problems: Problems
) -> list[LabeledSpan]:
    """The spans of tokens; adds a problem for each that is not in the sentence."""
    spans = list[LabeledSpan]()
    for number, value in enumerate(values):
        name = f"spans[{number}]"
        for label, start, last, _ in raw_spans(value, name, where, problems):
            end = last + (options.end == "inclusive")
            title = span_title(name, label, " ".join(tokens[max(0, start) : end]), start, last)
            if 0 <= start < end <= len(tokens):
                spans.append(LabeledSpan(label, start, end, where, title))
                continue
            problems.add(
                where,
                f"{title} is not a span of the {quantity(len(tokens), 'token')}; correct it, or "
                "end in the recipe's options",
                "span-offset",
            )
    return spans


def check_options(options: Options, where: str, problems: Problems) -> None:
    """Add a warning for the names that match no label in the whole corpus."""
    check_names(options.names, "label", where, problems)
