"""The dialects of `offsets` that have a record for each text."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from pipeline.data.readers.base import Source
from pipeline.data.readers.documents import Document, raw_spans, to_span
from pipeline.data.readers.json_values import check
from pipeline.data.readers.offset_units import offset_in_characters
from pipeline.data.readers.record_keys import RecordKeys, add_wrong_type, read_records
from pipeline.data.readers.tables import Record
from pipeline.errors import Problems, abbreviate
from pipeline.tasks.shared.offsets import OffsetUnit
from pipeline.words import Word

JsonDialectName = Literal["plain", "doccano", "label_studio", "prodigy"]
UNANNOTATED = "texts without annotation"  # their name in `Problems.skipped`


def _as_it_is(record: Record, value: Any, where: str, problems: Problems) -> Any:
    return value


class JsonDialect(NamedTuple):
    """The keys that may have the text and the spans of a record, and the key of its tokens.

    `select(record, value, where, problems)` returns the list of spans in the value of the spans, or
    None if the record is skipped.
    """

    text: tuple[str, ...] = ("text",)
    spans: tuple[str, ...] = ("spans",)
    tokens: str | None = None
    select: Callable[[Record, Any, str, Problems], Any] = _as_it_is


def _annotation(record: Record, value: Any, where: str, problems: Problems) -> Any:
    """The result of the annotation of a Label Studio task."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return value
    finished = [item for item in value if not item.get("was_cancelled")]
    chosen = [item for item in finished if item.get("ground_truth")] or finished
    if not chosen:
        problems.skipped[UNANNOTATED] += 1
        return None
    if len(chosen) > 1:
        problems.add(
            where,
            f"annotations: {len(chosen)} annotations of one text; mark one of them as ground truth "
            "in Label Studio, or delete the others",
            "several-annotations",
        )
        return None
    result = chosen[0].get("result")
    if isinstance(result, list):
        return _labels(result, problems)
    add_wrong_type("annotations.result", result, "a list", where, problems)
    return None


def _labels(result: list[Any], problems: Problems) -> list[Any]:
    """The regions with labels of a result; choices, relations and others are skipped."""
    regions = [item for item in result if isinstance(item, dict)]
    labels = [
        item["value"]
        for item in regions
        if isinstance(item.get("value"), dict) and "labels" in item["value"]
    ]
    problems.skipped["results without labels"] += len(regions) - len(labels)
    return labels + [item for item in result if not isinstance(item, dict)]


def _accepted(record: Record, value: Any, where: str, problems: Problems) -> Any:
    """The spans of a Prodigy record, if its answer is `accept`."""
    if record.get("answer", "accept") == "accept":
        return value
    problems.skipped["records without the answer accept"] += 1
    return None


DIALECTS: dict[JsonDialectName, JsonDialect] = {
    "plain": JsonDialect(),
    "doccano": JsonDialect(("text", "data"), ("label", "labels", "entities")),
    "label_studio": JsonDialect(("data.text",), ("annotations",), select=_annotation),
    "prodigy": JsonDialect(tokens="tokens", select=_accepted),
}


def documents(
    source: Source, dialect: JsonDialect, keys: RecordKeys, unit: OffsetUnit, problems: Problems
) -> Iterator[Document]:
    """The documents of a file. An invalid record adds problems and is skipped."""
    for where, record in read_records(source, keys, problems):
        with problems.in_one_row():
            document = _document(record, dialect, keys, unit, where, problems)
        if document is not None:
            yield document


def _document(
    record: Record,
    dialect: JsonDialect,
    keys: RecordKeys,
    unit: OffsetUnit,
    where: str,
    problems: Problems,
) -> Document | None:
    before = len(problems)
    values = keys.annotated("text", record, where, problems)
    if values is None:
        return None
    text, value, id = values
    raw = dialect.select(record, value, where, problems)
    if len(problems) > before or (raw is None and value is not None):
        return None
    if not isinstance(text, str):
        add_wrong_type(keys.paths("text")[0], text, "text", where, problems)
    keys.check_spans(raw, where, problems)
    if len(problems) > before:
        return None
    spans = [
        to_span(span, f"spans[{number}]", text, unit, where, problems)
        for number, item in enumerate(raw)
        for span in raw_spans(item, f"spans[{number}]", where, problems)
    ]
    tokens = record.get(dialect.tokens) if dialect.tokens else None
    words = None if tokens is None else _own_words(tokens, text, unit, where, problems)
    if len(problems) > before:
        return None
    return Document(where, text, tuple(filter(None, spans)), id, words)


def _own_words(
    value: Any, text: str, unit: OffsetUnit, where: str, problems: Problems
) -> tuple[Word, ...]:
    """The words of the tokens of a record, a list of {text, start, end}, without white space."""
    words, before, previous_end = list[Word](), len(problems), 0
    for number, token in enumerate(value if isinstance(value, list) else [value]):
        name, keys = f"tokens[{number}]", {"start": int, "end": int}
        if not check(token, f"{where}: {name}", keys, problems):
            continue
        start, end = (
            offset_in_characters(f"{name}.{key}", text, token[key], unit, where, problems)
            for key in keys
        )
        word = text[max(0, start) : max(0, end)]
        if not previous_end <= start < end <= len(text) or token.get("text", word) != word:
            problems.add(
                where,
                f"{name}: {abbreviate(token, 60)} is {word[:40]!r} in the text, or does not "
                "follow the token before it; correct the tokens, or set word_rule to a rule in the "
                "recipe's options",
                "token-offset",
            )
        previous_end = max(previous_end, end)
        if word.strip():
            words.append(Word(word, start, end))
    return () if len(problems) > before else tuple(words)
