"""Documents: texts with spans of characters, to which all dialects of `offsets` are read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.data.readers.json_values import integer
from pipeline.data.readers.offset_units import offset_in_characters
from pipeline.data.readers.spans import LabeledSpan, span_title
from pipeline.errors import Problems, abbreviate, describe, quantity
from pipeline.tasks.shared.offsets import OffsetUnit, span_hint, text_mismatch_hint
from pipeline.words import Word

_STARTS, _ENDS = ("start", "start_offset"), ("end", "end_offset")
LABEL_KEYS = ("label", "type", "labels")


class Document(NamedTuple):
    """A text with spans of its characters. `words` are its own words, if the file has them.

    `where` is the position of its record, or the file if the text is a whole file.
    """

    where: str
    text: str
    spans: tuple[LabeledSpan, ...]
    id: str | None = None
    words: tuple[Word, ...] | None = None
    is_file: bool = False

    def line(self, offset: int) -> str:
        """The position of the line of a character of the text."""
        number = self.text.count("\n", 0, offset) + 1
        return f"{self.where}:{number}" if self.is_file else f"{self.where}, line {number}"


class RawSpan(NamedTuple):
    """A span as it is in the file: its offsets count units of the file, its text is optional."""

    label: str
    start: int
    end: int
    text: str | None = None


def raw_spans(value: Any, name: str, where: str, problems: Problems) -> list[RawSpan]:
    """The spans of a JSON value: [start, end, label], or a mapping with these keys.

    A mapping may also have `start_offset` and `end_offset` (doccano), `type` (SpERT), or `labels`,
    a list with one span for each item (Label Studio). Another value adds a problem.
    """
    if isinstance(value, Mapping):
        start, end, labels = (
            next((value[key] for key in keys if key in value), None)
            for keys in (_STARTS, _ENDS, LABEL_KEYS)
        )
        text = value.get("text")
    elif isinstance(value, list) and len(value) == 3:
        (start, end, labels), text = value, None
    else:
        start = end = labels = text = None
    start, end, labels = integer(start), integer(end), _as_list(labels)
    names = [_label(label) for label in labels]
    if start is None or end is None or not names or None in names:
        problems.add(
            where,
            f"{name}: found {describe(value, 60)}, expected [start, end, "
            "label] or a mapping with the integers start and end, and label; correct it, or fields "
            "or dialect in the recipe's options",
            "wrong-type",
        )
        return []
    text = text if isinstance(text, str) else None
    return [RawSpan(str(label), start, end, text) for label in names]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _label(value: Any) -> str | None:
    """A label as text; integers are class numbers."""
    number = integer(value)
    label = value if number is None else str(number)
    return label if isinstance(label, str) and label.strip() else None


def to_span(
    raw: RawSpan, name: str, text: str, unit: OffsetUnit, where: str, problems: Problems
) -> LabeledSpan | None:
    """The span in characters of `text`.

    Adds a problem and returns None if it is not in the text, or the text there is another one.
    """
    before = len(problems)
    start, end = (
        offset_in_characters(f"{name}.{key}", text, offset, unit, where, problems)
        for key, offset in (("start", raw.start), ("end", raw.end))
    )
    if len(problems) > before:
        return None
    title = span_title(name, raw.label, text[max(0, start) : max(0, end)], start, end)
    expected = "" if raw.text is None else _collapse(raw.text)
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        hint = span_hint(text, start, end) or "; correct it, or offsets in the recipe's options"
        problems.add(
            where,
            f"{title} is not a span of words of the {quantity(len(text), 'character')}{hint}",
            "span-offset",
        )
    elif expected and _collapse(text[start:end]) != expected:
        hint = text_mismatch_hint(text, str(raw.text), start) or "correct the offsets or the text"
        problems.add(where, f"{title} should be {abbreviate(raw.text, 40)}; {hint}", "span-text")
    return None if len(problems) > before else LabeledSpan(raw.label, start, end, where, title)


def _collapse(text: str) -> str:
    """The text with single spaces; tools write line breaks in the text of a span as they like."""
    return " ".join(text.replace("\\n", " ").split())
