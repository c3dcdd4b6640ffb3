"""Labeled spans of a document: fit them to words, resolve their overlaps, and make tags of them."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from pipeline.errors import Problems, abbreviate
from pipeline.tasks.shared.offsets import span_hint
from pipeline.words import Word

OnPartial = Literal["error", "trim", "expand", "split", "drop"]
"""How to read a span that begins or ends inside a word: as a problem; as the span without the word;
as the span with the whole word; with the word split there; or as no span."""

OnOverlap = Literal["error", "trim", "split", "drop"]
"""How to read spans that overlap or nest: as a problem; the longest span stays, and shorter spans
keep their other words; the shortest span stays, and longer spans become their other words; or only
the longest span stays."""

REPEATED = "repeated spans"  # its name in `Problems.skipped`


class LabeledSpan(NamedTuple):
    """Characters of a text, or words, [start, end) with a label.

    `where` is the "file:line" of the span, and `title` names it in messages, with its text.
    """

    label: str
    start: int
    end: int
    where: str
    title: str


def span_title(name: str, label: str, text: str, start: int, end: int) -> str:
    """The `title` of a span whose name in the file is `name`."""
    return f"{name}: {label} {abbreviate(text, 40)} at {start} to {end}"


def fit_to_words(
    spans: Sequence[LabeledSpan],
    words: Sequence[Word],
    text: str,
    on_partial: OnPartial,
    problems: Problems,
) -> tuple[Sequence[Word], list[LabeledSpan]]:
    """The words, and the spans of characters as spans of words.

    White space at the ends of a span does not count. Spans that begin or end inside a word are
    problems, or `on_partial` changes or drops them, each with a warning.
    """
    cut = {span for span in spans if _cut_words(span, words)}
    if on_partial == "split":
        for span in filter(cut.__contains__, spans):
            fact = f"{span.title} {_cut_text(span, words)}"
            problems.add(span.where, f"{fact}, which is split there", "split-word")
        words, cut = _split_at(words, {at for span in cut for at in (span.start, span.end)}), set()
    fitted = []
    for span in spans:
        whole = _words_of(span, words)
        if span in cut:
            changed = _without_partial(span, whole, words, on_partial)
            _tell_partial(span, changed, words, text, on_partial, problems)
            whole = changed
        elif whole.start >= whole.end:
            problems.add(
                span.where, f"{span.title} has no token; correct it, or the tokens", "span-offset"
            )
        if whole.start < whole.end:
            fitted.append(whole)
    return words, fitted


def _words_of(span: LabeledSpan, words: Sequence[Word]) -> LabeledSpan:
    """The span of all words that have a character in a span of characters."""
    first = bisect_right(words, span.start, key=lambda word: word.end)
    last = bisect_left(words, span.end, key=lambda word: word.start)
    return span._replace(start=first, end=last)


def _cut_words(span: LabeledSpan, words: Sequence[Word]) -> list[tuple[str, Word]]:
    """The words that a span of characters begins or ends inside of."""
    whole = _words_of(span, words)
    if whole.start >= whole.end:
        return []
    first, last = words[whole.start], words[whole.end - 1]
    begins = [("begins", first)] if first.start < span.start else []
    return begins + ([("ends", last)] if last.end > span.end else [])


def _cut_text(span: LabeledSpan, words: Sequence[Word]) -> str:
    """The words that a span begins or ends inside of, for a message."""
    return " and ".join(
        f"{verb} inside the word {abbreviate(word.text, 40)}"
        for verb, word in _cut_words(span, words)
    )


def _without_partial(
    span: LabeledSpan, whole: LabeledSpan, words: Sequence[Word], on_partial: OnPartial
) -> LabeledSpan:
    """The span of words for a span of characters that cuts a word."""
    if on_partial == "expand":
        return whole
    if on_partial != "trim":
        return whole._replace(end=whole.start)
    verbs = [verb for verb, _ in _cut_words(span, words)]
    start, end = whole.start + ("begins" in verbs), whole.end - ("ends" in verbs)
    return whole._replace(start=start, end=max(start, end))


def _tell_partial(
    span: LabeledSpan,
    changed: LabeledSpan,
    words: Sequence[Word],
    text: str,
    on_partial: OnPartial,
    problems: Problems,
) -> None:
    fact = f"{span.title} {_cut_text(span, words)}"
    if on_partial == "error":
        hint = span_hint(text, span.start, span.end) or (
            "; correct its offsets, or set on_partial (trim, expand, split or drop), or word_rule, "
            "in the recipe's options"
        )
        problems.add(span.where, f"{fact}{hint}", "span-in-word")
    elif changed.start >= changed.end:
        problems.add(span.where, f"{fact}; it is dropped", "dropped-span")
    else:
        kept = text[words[changed.start].start : words[changed.end - 1].end]
        kind = "trimmed-span" if on_partial == "trim" else "expanded-span"
        problems.add(span.where, f"{fact}; it becomes {abbreviate(kept, 40)}", kind)


def _split_at(words: Sequence[Word], offsets: set[int]) -> list[Word]:
    """The words, split at each of the offsets that is inside a word."""
    result = list[Word]()
    ordered = sorted(offsets)
    for word in words:
        inside = ordered[bisect_right(ordered, word.start) : bisect_left(ordered, word.end)]
        bounds = [word.start, *inside, word.end]
        result += [
            Word(word.text[start - word.start : end - word.start], start, end)
            for start, end in pairwise(bounds)
        ]
    return result


def resolve_overlaps(
    spans: Sequence[LabeledSpan], tokens: Sequence[str], on_overlap: OnOverlap, problems: Problems
) -> list[LabeledSpan]:
    """The spans of words without overlaps, in order.

    Repeated spans are counted and skipped. Spans that overlap are problems, or `on_overlap` changes
    or drops them, each with a warning.
    """
    unique = dict[tuple[int, int, str], LabeledSpan]()
    for span in spans:
        unique.setdefault((span.start, span.end, span.label), span)
    problems.skipped[REPEATED] += len(spans) - len(unique)
    sign = 1 if on_overlap == "split" else -1  # the shortest spans first, or the longest
    order = sorted(unique.values(), key=lambda span: (sign * (span.end - span.start), span.start))
    owners: list[LabeledSpan | None] = [None] * len(tokens)
    result = list[LabeledSpan]()
    for span in order:
        other = next(filter(None, owners[span.start : span.end]), None)
        kept = [span] if other is None else _without_overlap(span, owners, on_overlap)
        if other is not None:
            _tell_overlap(span, other, kept, tokens, on_overlap, problems)
        for piece in kept:
            owners[piece.start : piece.end] = [span] * (piece.end - piece.start)
        result += kept
    return sorted(result, key=lambda span: span.start)


def _without_overlap(
    span: LabeledSpan, owners: Sequence[LabeledSpan | None], on_overlap: OnOverlap
) -> list[LabeledSpan]:
    """The pieces of a span that stay: words without an owner."""
    if on_overlap not in ("trim", "split"):
        return []
    pieces, start = list[LabeledSpan](), span.start
    for position in range(span.start, span.end + 1):
        if position == span.end or owners[position] is not None:
            if start < position:
                pieces.append(span._replace(start=start, end=position))
            start = position + 1
    if on_overlap == "trim":
        return sorted(pieces, key=lambda piece: piece.start - piece.end)[:1]
    return pieces


def _tell_overlap(
    span: LabeledSpan,
    other: LabeledSpan,
    kept: Sequence[LabeledSpan],
    tokens: Sequence[str],
    on_overlap: OnOverlap,
    problems: Problems,
) -> None:
    fact = f"{span.title} overlaps {other.title}"
    if on_overlap == "error":
        problems.add(
            span.where,
            f"{fact}; correct them, or set on_overlap in the recipe's options (trim, split or "
            "drop)",
            "overlapping-spans",
        )
    elif not kept:
        problems.add(span.where, f"{fact}; it is dropped", "dropped-span")
    else:
        texts = (abbreviate(" ".join(tokens[piece.start : piece.end]), 40) for piece in kept)
        kind = "trimmed-span" if on_overlap == "trim" else "split-span"
        problems.add(span.where, f"{fact}; it becomes {' and '.join(texts)}", kind)


def to_tags(spans: Sequence[LabeledSpan], num_words: int) -> list[str]:
    """The tags of words in IOB2 for spans that do not overlap."""
    tags = ["O"] * num_words
    for span in spans:
        tags[span.start : span.end] = [f"I-{span.label}"] * (span.end - span.start)
        tags[span.start] = f"B-{span.label}"
    return tags
