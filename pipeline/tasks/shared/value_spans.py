"""Values of slots as spans of a turn: words, their tags in training, and the best span.

Each word of a turn has a tag: B-X at the first word of the value of the slot X, I-X at the next
ones, else O. A prediction does not need the best sequence of tags (Viterbi), which may have no span
of a slot or several: another class of the head has decided that the turn has exactly one value. So
each span of words has a score, that of the best tags with this span and no other of its slot, and
the value is the best of all spans. Spans of different slots may share words, because each slot is
decoded by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.dialogue_states import split_label
from pipeline.tasks.base.claims import Floats
from pipeline.tasks.shared.slots import Slot, normalized

OUTSIDE = "O"
"""The tag of a word that is in no value, and the first of the tags among the classes of a head."""

Bounds = tuple[int, int]
"""The characters [start, end) of a word in the text of a turn."""


def value_tags(
    values: Mapping[str, str], text: str, words: Sequence[Bounds], num_system: int
) -> list[str]:
    """The tag of each word for the `values` of slots, which are normalized.

    `words` [N] are in `text`; the first `num_system` are the system's. A value is at each of
    its places in the user's text; if there are none, at those in the system's. Words have one tag:
    the place of a value is free, and longer values come first, since a shorter one may be a part of
    them. The slot of a value without a place has no tag.
    """
    tags = [OUTSIDE] * len(words)
    for slot, value in sorted(values.items(), key=lambda item: -len(item[1])):
        for side in (range(num_system, len(words)), range(num_system)):
            for first, last in places(value, text, [words[number] for number in side]):
                span = side[first : last + 1]
                if all(tags[word] == OUTSIDE for word in span):
                    tags[span[0]] = f"B-{slot}"
                    for word in span[1:]:
                        tags[word] = f"I-{slot}"
            if f"B-{slot}" in tags:
                break
    return tags


def places(value: str, text: str, words: Sequence[Bounds]) -> Iterator[tuple[int, int]]:
    """The first and the last word of each span whose normalized text is `value`."""
    for first, (start, _) in enumerate(words):
        for last in range(first, len(words)):
            candidate = normalized(text[start : words[last][1]])
            if candidate == value:
                yield first, last
            if len(candidate) >= len(value):
                break


class ScoredWords(NamedTuple):
    """The N words of a turn, as in `value_tags`, and the logits [N, K] of their tags."""

    text: str
    bounds: Sequence[Bounds]
    num_system: int
    logits: Floats


class SlotSpans:
    """The probability of each span of a turn's words, if exactly one is the value of a slot."""

    def __init__(self, words: ScoredWords, slot: str, classes: Sequence[str]) -> None:
        """Score the spans of at least one word. No span has words of both speakers."""
        self._text, self._bounds = words.text, words.bounds
        logits, num_system = words.logits, words.num_system
        begin = classes.index(f"B-{slot}")
        others = np.arange(len(classes))
        others = others[(others >= classes.index(OUTSIDE)) & ~np.isin(others, (begin, begin + 1))]
        outside = logits[:, others].max(axis=1)
        inside = np.cumsum(logits[:, begin + 1] - outside)
        scores = (logits[:, begin] - outside - inside)[:, None] + inside
        first, last = np.indices(scores.shape)
        is_span = (first <= last) & ((first < num_system) == (last < num_system))
        scores = np.where(is_span, scores, -np.inf)
        self._log_probabilities: Floats = scores - _log_sum(scores)

    @property
    def best(self) -> str:
        """The normalized text of the best span."""
        first, last = np.unravel_index(
            int(self._log_probabilities.argmax()), self._log_probabilities.shape
        )
        return normalized(self._text[self._bounds[int(first)][0] : self._bounds[int(last)][1]])

    def log_probabilities(self, values: Sequence[str]) -> list[float]:
        """The log-probability of each of the different values, and of all others together.

        That of a value is the sum of its spans.
        """
        is_other: NDArray[np.bool_] = np.ones(self._log_probabilities.shape, np.bool_)
        shares = []
        for value in values:
            spans = list(places(value, self._text, self._bounds))
            shares.append(_log_sum(np.array([self._log_probabilities[span] for span in spans])))
            for span in spans:
                is_other[span] = False
        return [*shares, _log_sum(self._log_probabilities[is_other])]


def decide_open_slot(
    slot: Slot, logits: Floats, words: ScoredWords, classes: Sequence[str]
) -> tuple[str, Floats]:
    """The label of an open slot of a turn, and the logits [K + 1] of its values.

    `logits` [K + 1] are those of its classes, with -inf for others. The logit of the class food=*
    is divided among the values in the turn by their probabilities: a closed value of the slot gets
    its part, food=* that of the best value, and the last column the rest. Without words, food=* is
    not an option.
    """
    any_value, logits = classes.index(slot.any_value), logits.copy()
    best_class, in_turn = classes[int(logits.argmax())], logits[any_value]
    logits[any_value] = -np.inf
    if not words.bounds:
        return classes[int(logits.argmax())], logits
    spans = SlotSpans(words, slot.query, classes)
    best = f"{slot.query}={spans.best}"
    closed = (label for label in slot.values if label != slot.any_value)
    labels = tuple(dict.fromkeys((best, *closed)))
    *shares, others = spans.log_probabilities([split_label(label)[1] for label in labels])
    for label, share in zip(labels, shares, strict=True):
        option = classes.index(slot.option(label))
        logits[option] = np.logaddexp(logits[option], in_turn + share)
    logits[-1] = in_turn + others
    return best if best_class == slot.any_value else best_class, logits


def _log_sum(values: Floats) -> float:
    """The logarithm of the sum of exponentials; -inf if there are none."""
    return float(np.logaddexp.reduce(values, axis=None))
