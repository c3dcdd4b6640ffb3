"""Documents to rows: words with tags, or the text with a marked span."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from pipeline.data.readers.documents import Document
from pipeline.data.readers.spans import (
    OnOverlap,
    OnPartial,
    fit_to_words,
    resolve_overlaps,
    to_tags,
)
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.validation import check_nfc
from pipeline.words import RuleName, Word, split_words

WordRule = RuleName | Literal["tokens"]
"""How a text becomes words: by a rule, or by the tokens in the file."""


class TagPolicy(NamedTuple):
    """How a document becomes rows of tagged words. With `lines`, each line of a text is a row."""

    word_rule: WordRule
    on_partial: OnPartial
    on_overlap: OnOverlap
    lines: bool


def tagged_rows(document: Document, policy: TagPolicy, problems: Problems) -> list[Row]:
    """The rows of a document: one, or one for each line."""
    before, text = len(problems), document.text
    where = document.line(0) if document.is_file else document.where
    with problems.in_one_row():
        if document.spans:
            check_nfc("text", text, where, problems)
        words = _words(document, policy.word_rule, problems)
        words, spans = fit_to_words(document.spans, words, text, policy.on_partial, problems)
        tokens = [word.text for word in words]
        spans = resolve_overlaps(spans, tokens, policy.on_overlap, problems)
        if not words:
            problems.add(where, f"text is empty: {text[:40]!r}; remove the row", "empty-text")
    if len(problems) > before:
        return []
    tags = to_tags(spans, len(words))
    if policy.lines:
        return _rows_of_lines(document, words, tags)
    row: Row = {"where": where, "tokens": tokens, "tags": tags}
    return [row if document.id is None else row | {"id": document.id}]


def _words(document: Document, rule: WordRule, problems: Problems) -> Sequence[Word]:
    """The words of a document; adds a problem if it should have tokens."""
    if rule != "tokens":
        return split_words(document.text, rule)
    if document.words is None:
        problems.add(
            document.where,
            "tokens are missing; add them, or set word_rule to another rule in the recipe's "
            "options",
            "missing-key",
        )
    return document.words or ()


def _rows_of_lines(document: Document, words: Sequence[Word], tags: Sequence[str]) -> list[Row]:
    """A row for each line of the text with words; a line break inside a span ends no row."""
    starts = [
        number
        for number, (previous, word) in enumerate(pairwise(words), start=1)
        if "\n" in document.text[previous.end : word.start] and not tags[number].startswith("I-")
    ]
    rows = list[Row]()
    for number, (start, stop) in enumerate(pairwise([0, *starts, len(words)])):
        row: Row = {
            "where": document.line(words[start].start),
            "tokens": [word.text for word in words[start:stop]],
            "tags": list(tags[start:stop]),
        }
        if document.id is not None:
            row |= {"id": f"{document.id}-{number}", "title": document.id}
        rows.append(row)
    return rows


def marked_rows(document: Document, problems: Problems) -> Iterator[Row]:
    """A row for each span. A text without spans has none and is counted."""
    problems.skipped["texts without spans"] += not document.spans
    for number, span in enumerate(document.spans):
        row: Row = {
            "where": span.where,
            "text": document.text,
            "spans": [{"segment": 0, "start": span.start, "end": span.end}],
            "label": span.label,
        }
        if document.id is not None:
            row |= {"id": f"{document.id}-{number}", "title": document.id}
        yield row
