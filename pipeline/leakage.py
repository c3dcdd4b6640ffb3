"""Leakage: train texts of one corpus that are validation or test texts of any, itself included."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

SHOWN = 3
MIN_WORDS = 4  # shorter texts ("On Monday :") recur by chance

Texts = Callable[[str, str], Iterable[str]]


def find_leaks(corpora: Sequence[str], texts: Texts) -> list[dict[str, Any]]:
    """For each (train corpus, held-out corpus, split) how many held-out texts are train texts, with a few of them.

    `texts(corpus, split)` gives one text a row: a sentence, or a context. Equal means equal words, whatever case, spacing and
    punctuation. Holds a hash of 8 bytes per distinct train text in memory.
    """
    train = {corpus: {_key(text) for text in texts(corpus, "train")} - {None} for corpus in corpora}
    leaks: list[dict[str, Any]] = []
    for held_out, split in product(corpora, ("validation", "test")):
        found: dict[str, Any] = {
            corpus: {"train": corpus, "held_out": held_out, "split": split, "rows": 0, "examples": []} for corpus in corpora}
        for text in texts(held_out, split):
            key = _key(text)
            for leak in (found[corpus] for corpus in corpora if key in train[corpus]):
                leak["rows"] += 1
                if text[:100] not in leak["examples"] and len(leak["examples"]) < SHOWN:
                    leak["examples"].append(text[:100])
        leaks += [leak for leak in found.values() if leak["rows"]]
    return leaks


def _key(text: str) -> bytes | None:
    words = re.findall(r"\w+", text.casefold())
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest() if len(words) >= MIN_WORDS else None
