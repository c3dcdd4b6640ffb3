"""Answers as spans of a context: their characters, and the best spans of a window."""

from collections.abc import Iterator
from unicodedata import category

import numpy as np

from pipeline.tasks.base.features import WindowLogits

NUM_CANDIDATES = 20  # as in BERT's run_squad


def with_marks(context: str, begin: int, end: int) -> tuple[int, int]:
    """The span [begin, end) extended to whole letters, that is with their combining marks.

    A tokenizer that removes accents, or splits a letter from its mark, has offsets inside a letter.
    """
    while 0 < begin < end and _is_mark(context[begin]) and not context[begin - 1].isspace():
        begin -= 1
    while end < len(context) and _is_mark(context[end]):
        end += 1
    return begin, end


def _is_mark(character: str) -> bool:
    return character > "\u02ff" and category(character).startswith("M")


def best_spans(window: WindowLogits, max_length: int) -> Iterator[tuple[int, int, float]]:
    """The best spans of a window as (start, end, score), without position 0, the summary."""
    best = np.argsort(-window.logits[1:], axis=0, kind="stable")[:NUM_CANDIDATES] + 1
    starts, ends = (pairs.ravel() for pairs in np.meshgrid(*best.T, indexing="ij"))
    allowed = (starts <= ends) & (ends < starts + max_length)
    starts, ends = starts[allowed], ends[allowed]
    scores = window.logits[starts, 0] + window.logits[ends, 1]
    yield from zip(
        window.begins[starts].tolist(), window.ends[ends].tolist(), scores.tolist(), strict=True
    )
