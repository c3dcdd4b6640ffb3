"""Candidates said otherwise: variants of an answer among the n best share their probability.

Jiang et al. (2021, section 4, candidate output paraphrasing) generate paraphrases of a candidate
and add up their probabilities. An extractive model can score only spans of the context. So two
spans are variants of each other if they differ in articles, punctuation, case or the form of a
number, or if one is a short form of the other's name (a coreferent mention).
"""

import re
from collections.abc import Sequence

import numpy as np

from benchmarks.confidence.answers import Record
from pipeline.metrics.answers import normalize

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
DIGITS = {
    **{word: str(number) for number, word in enumerate(_SMALL.split())},
    **{word: str(10 * number) for number, word in enumerate(_TENS.split(), 2)},
    **{
        word: f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"
        for number, word in enumerate(_ORDINALS.split(), 1)
    },
}
CAPITALIZED_NAME = re.compile(r"(?:(?:[A-Z][\w.'-]*)(?: |\Z))+")


def canonical(text: str) -> str:
    """The text without articles, punctuation and case, and with digits for number words."""
    return " ".join(DIGITS.get(word, word) for word in normalize(text.replace("-", " ")).split())


def is_short_name(short: str, name: str) -> bool:
    """Whether `short` is the first or the last words of a capitalized name, without articles."""
    if not (CAPITALIZED_NAME.fullmatch(_bare(short)) and CAPITALIZED_NAME.fullmatch(_bare(name))):
        return False
    few, many = canonical(short).split(), canonical(name).split()
    return 0 < len(few) < len(many) and few in (many[: len(few)], many[-len(few) :])


def _bare(text: str) -> str:
    return re.sub(r"\A(?:the|a|an) ", "", text, flags=re.IGNORECASE)


def group_variants(texts: Sequence[str]) -> list[int]:
    """The group of each text; a group has the number of its first text.

    A text joins the first group whose first text it is a variant of.
    """
    groups = list[int]()
    for number, text in enumerate(texts):
        same = (
            first
            for first in dict.fromkeys(groups)
            if canonical(text) == canonical(texts[first])
            or is_short_name(text, texts[first])
            or is_short_name(texts[first], text)
        )
        groups.append(next(same, number))
    return groups


def merge_variants(record: Record) -> Record:
    """The record with one candidate per group: its best text, and the sum of the probabilities."""
    texts, groups = record["texts"], np.array(group_variants(record["texts"]), np.int64)
    no_answer, logits = record["logits"][0], np.array(record["logits"][1:])
    merged = {
        int(first): float(np.logaddexp.reduce(logits[groups == first]))
        for first in dict.fromkeys(groups.tolist())
    }
    order = sorted(merged, key=lambda first: -merged[first])
    return record | {
        "texts": [texts[first] for first in order],
        "logits": [no_answer, *(merged[first] for first in order)],
    }
