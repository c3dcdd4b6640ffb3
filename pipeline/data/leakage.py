"""Leakage: train texts of one corpus that are validation or test texts of any, itself included, or contain them, or the reverse.

*Equal* are texts of the same words, whatever case, spacing, punctuation and Unicode form. *Contained* is measured on n-grams of 8
words. Of each 6 neighbors among a text's n-grams the one with the least hash is kept (winnowing: Schleimer, Wilkerson and Aiken,
SIGMOD 2003): its fingerprints F, about 2 of 7 of its n-grams G. So two texts that share 13 words in a row share a fingerprint; 13
is what GPT-3's authors looked for (Brown et al. 2020, appendix C). A held-out text H is contained in a train text T, or T in H,
where

    |F(H) & G(T)| / |F(H)| >= 0.8    or    |F(T) & F(H)| / |F(T)| >= 0.8    (containment: Broder, SEQUENCES 1997)

With less than 4 fingerprints (about 20 words) a text only counts as equal. N-grams that more than 50 held-out texts have are
boilerplate, and left out, as GPT-3's authors do.

In memory are the held-out texts only: 12 bytes a fingerprint, 30 a distinct text. Train texts are read past them, in one pass.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple, TypeAlias
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from pipeline.seeding import Ints, splitmix64

Hashes: TypeAlias = NDArray[np.uint64]
Texts = Callable[[str, str], Iterable[str]]

MIN_WORDS = 4  # shorter texts ("On Monday :") recur by chance
GRAM, WINDOW = 8, 6
FEWEST = 4  # fingerprints of a text that counts as contained
THRESHOLD = 0.8
COMMON = 50  # held-out texts with the same n-gram: it is boilerplate
SHOWN = 3
BLOCK = 4096  # texts looked at together
REMEMBERED = 1 << 20  # words whose hashes are kept


class Leaks(NamedTuple):
    """`pairs`: for each (train corpus, held-out corpus, split) that leaks, how many held-out `rows` are in train, how many of
    them `equal` and how many `contained`, how many `train_rows` they are in, and the beginnings of a few. `train_rows`: the
    numbers of each corpus's train rows that leak anything, rising.
    """

    pairs: list[dict[str, Any]]
    train_rows: dict[str, Ints]


def find_leaks(corpora: Sequence[str], texts: Texts) -> Leaks:
    """What of the validation and test splits of `corpora` is in their train splits. `texts(corpus, split)` gives a text a row."""
    splits = [(corpus, split) for corpus in corpora for split in ("validation", "test")]
    held_out = _HeldOut([texts(*split) for split in splits])
    pairs: dict[tuple[int, str], dict[str, Any]] = {}
    shown: dict[int, list[tuple[list[str], Ints]]] = defaultdict(list)
    train_rows: dict[str, Ints] = {}
    for corpus in corpora:
        found = held_out.look_for(texts(corpus, "train"))
        train_rows[corpus] = np.unique(found.rows)
        for split in np.unique(held_out.split[found.texts]).tolist():
            pair, first = _pair(found, held_out, split)
            pairs[split, corpus] = {
                "train": corpus,
                "held_out": splits[split][0],
                "split": splits[split][1],
                **pair,
            }
            shown[split].append((pair["examples"], first))
    for split, wanted in shown.items():
        _show(texts(*splits[split]), wanted)
    order = [(split, corpus) for split in range(len(splits)) for corpus in corpora]
    return Leaks([pairs[key] for key in order if key in pairs], train_rows)


class _Found(NamedTuple):
    """Pairs [N] of a train row and a held-out text, and whether the two are equal."""

    rows: Ints
    texts: Ints
    equal: NDArray[np.bool_]


def _pair(found: _Found, held_out: "_HeldOut", split: int) -> tuple[dict[str, Any], Ints]:
    """The counts for one held-out split, and the numbers of its first rows that leak."""
    inside = held_out.split[found.texts] == split
    equal = np.unique(found.texts[inside & found.equal])
    contained = np.setdiff1d(found.texts[inside], equal)
    counts = [int(held_out.repeats[texts].sum()) for texts in (equal, contained)]
    first = np.sort(held_out.first[np.concatenate([equal, contained])])[:SHOWN]
    return {
        "rows": sum(counts),
        "equal": counts[0],
        "contained": counts[1],
        "train_rows": len(np.unique(found.rows[inside])),
        "examples": [],
    }, first


def _show(texts: Iterable[str], wanted: Sequence[tuple[list[str], Ints]]) -> None:
    """Fill each list with the beginnings of the rows that have these numbers."""
    for number, text in enumerate(islice(texts, max(int(rows[-1]) for _, rows in wanted) + 1)):
        for examples, rows in wanted:
            if number in rows:
                examples.append(text[:100])


@dataclass(frozen=True)
class _Block:
    """Some rows [R] of a split that are long enough, by number, and which of M distinct texts each has; the texts' keys [M], and
    the hashes of their words.
    """

    rows: Ints
    text: Ints
    keys: Hashes
    words: list[Hashes]

    def grams(self) -> tuple[Ints, Hashes]:
        """The n-grams of all texts in order [N]: whose each is, and its hash."""
        flat = np.concatenate([np.zeros(0, np.uint64), *self.words])
        owner = np.repeat(np.arange(len(self.words)), [len(words) for words in self.words])
        count = max(0, len(flat) - GRAM + 1)
        hashes = np.zeros(count, np.uint64)
        for place in range(GRAM):
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + flat[place : place + count]
        inside = owner[:count] == owner[len(owner) - count :]
        return owner[:count][inside], splitmix64(hashes[inside])


def _blocks(texts: Iterable[str]) -> Iterator[_Block]:
    hashes: dict[str, int] = {}
    numbered = iter(enumerate(texts))
    while taken := list(islice(numbered, BLOCK)):
        distinct: dict[str, list[int]] = defaultdict(list)
        for number, text in taken:
            distinct[text].append(number)
        rows, text_of, keys, words = list[int](), list[int](), list[int](), list[Hashes]()
        for text, numbers in distinct.items():
            found = _words(text)
            if len(found) >= MIN_WORDS:
                rows += numbers
                text_of += [len(keys)] * len(numbers)
                keys.append(_hash(" ".join(found)))
                words.append(np.array([_hashed(word, hashes) for word in found], np.uint64))
        yield _Block(
            np.array(rows, np.int64), np.array(text_of, np.int64), np.array(keys, np.uint64), words
        )
        if len(hashes) > REMEMBERED:
            hashes.clear()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", (text if text.isascii() else normalize("NFKC", text)).casefold())


def _hash(text: str) -> int:
    return int.from_bytes(
        blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


def _hashed(word: str, known: dict[str, int]) -> int:
    found = known.get(word)
    if found is None:
        found = known[word] = _hash(word)
    return found


class _HeldOut:
    """All distinct texts [D] of the held-out splits, by key and by fingerprint.

    `key`, `split`, `repeats` (rows that have the text), `first` (the number of the first) and `size` (fingerprints) are by text;
    `hashes` [F] rise, and `owner` [F] is a text that has it; `common` are the hashes that were left out, rising.
    """

    def __init__(self, splits: Sequence[Iterable[str]]) -> None:
        none = np.zeros(0, np.int64)
        seen: list[tuple[Hashes, Ints, Ints, Ints]] = [(np.zeros(0, np.uint64), none, none, none)]
        prints: list[tuple[Ints, Hashes]] = [(none, np.zeros(0, np.uint64))]
        count = 0
        for split, texts in enumerate(splits):
            for block in _blocks(texts):
                repeats = np.bincount(block.text, minlength=len(block.keys))
                first = block.rows[np.searchsorted(block.text, np.arange(len(block.keys)))]
                seen.append((block.keys, np.full(len(block.keys), split), repeats, first))
                owner, hashes = _winnowed(*block.grams())
                prints.append((owner + count, hashes))
                count += len(block.keys)
        keys, split_of, repeats, first = (
            np.concatenate(column) for column in zip(*seen, strict=True)
        )
        order = np.lexsort(
            (np.arange(count), keys, split_of)
        )  # the same text may be in several blocks
        new = np.ones(count, bool)
        new[1:] = (keys[order][1:] != keys[order][:-1]) | (
            split_of[order][1:] != split_of[order][:-1]
        )
        text_of = np.empty(count, np.int64)
        text_of[order] = np.cumsum(new) - 1
        self.key, self.split, self.first = keys[order[new]], split_of[order[new]], first[order[new]]
        self.repeats = np.bincount(text_of, repeats, len(self.key)).astype(np.int64)
        self._by_key = np.argsort(self.key, kind="stable")
        owner, hashes = (np.concatenate(column) for column in zip(*prints, strict=True))
        self._index(text_of[owner], hashes)

    def _index(self, owner: Ints, hashes: Hashes) -> None:
        owner, hashes = _distinct(owner, hashes)
        order = np.argsort(hashes, kind="stable")
        owner, hashes = owner[order], hashes[order]
        values, counts = np.unique(hashes, return_counts=True)
        self.common = values[counts > COMMON]
        kept = ~_is_in(hashes, self.common)
        self.hashes, self.owner = hashes[kept], owner[kept].astype(np.int32)
        self.size = np.bincount(self.owner, minlength=len(self.key))

    def look_for(self, texts: Iterable[str]) -> _Found:
        """Which of the held-out texts are in these train texts."""
        parts = [_Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))]
        for block in _blocks(texts):
            same, at = _matches(self.key[self._by_key], block.keys)
            contained, held_out = self._contained(block)
            text = np.concatenate([same, contained])
            which, row = _matches(block.text, text)
            equal = np.arange(len(text)) < len(same)
            parts.append(
                _Found(
                    block.rows[row],
                    np.concatenate([self._by_key[at], held_out])[which],
                    equal[which],
                )
            )
        return _Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _contained(self, block: _Block) -> tuple[Ints, Ints]:
        """Pairs [N] of a text of the block and a held-out text, of which one contains the other."""
        grams = block.grams()
        owner, hashes = _winnowed(*grams)
        rare = ~_is_in(hashes, self.common)
        sizes = np.bincount(owner[rare], minlength=len(block.keys))
        found = np.concatenate(
            [
                self._shared(*_distinct(*grams), lambda text, held_out: self.size[held_out]),
                self._shared(owner[rare], hashes[rare], lambda text, held_out: sizes[text]),
            ],
            axis=1,
        )
        text, held_out = np.unique(found, axis=1)
        return text, held_out

    def _shared(self, owner: Ints, hashes: Hashes, size: Callable[[Ints, Ints], Ints]) -> Ints:
        """Pairs [2, N] of a text and a held-out text that share enough: the share of `size` fingerprints."""
        which, at = _matches(self.hashes, hashes)
        pairs, counts = np.unique(
            owner[which] * max(1, len(self.key)) + self.owner[at], return_counts=True
        )
        text, held_out = np.divmod(pairs, max(1, len(self.key)))
        sizes = size(text, held_out)
        return np.stack([text, held_out])[:, (sizes >= FEWEST) & (counts >= THRESHOLD * sizes)]


def _winnowed(owner: Ints, hashes: Hashes) -> tuple[Ints, Hashes]:
    """The distinct fingerprints of each text: the least hash of every WINDOW neighbors, or of all that it has."""
    least, count = hashes.copy(), len(hashes)
    for place in range(1, min(WINDOW, count)):
        inside = owner[: count - place] == owner[place:]
        least[: count - place] = np.where(
            inside, np.minimum(least[: count - place], hashes[place:]), least[: count - place]
        )
    starts = np.ones(count, bool)
    starts[1:] = owner[1:] != owner[:-1]
    whole = np.zeros(count, bool)
    whole[: max(0, count - WINDOW + 1)] = owner[: max(0, count - WINDOW + 1)] == owner[WINDOW - 1 :]
    return _distinct(owner[starts | whole], least[starts | whole])


def _distinct(owner: Ints, hashes: Hashes) -> tuple[Ints, Hashes]:
    order = np.lexsort((hashes, owner))
    owner, hashes = owner[order], hashes[order]
    new = np.ones(len(owner), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])
    return owner[new], hashes[new]


def _matches(rising: NDArray[Any], wanted: NDArray[Any]) -> tuple[Ints, Ints]:
    """All pairs (i, j) with rising[j] == wanted[i]."""
    left = np.searchsorted(rising, wanted, side="left")
    counts = np.searchsorted(rising, wanted, side="right") - left
    which = np.repeat(np.arange(len(wanted)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts - left, counts)


def _is_in(values: Hashes, rising: Hashes) -> NDArray[np.bool_]:
    return np.searchsorted(rising, values, side="right") > np.searchsorted(
        rising, values, side="left"
    )
