"""Leakage: training texts that equal or contain held-out texts, or are contained in them.

Held-out texts are those of the validation and test splits.

Texts are *equal* if they have the same words; case, spacing, punctuation and Unicode form do not
matter. *Containment* is estimated from n-grams of 8 words. Of each 6 neighbors among a text's
n-grams the one with the smallest hash is kept (winnowing: Schleimer, Wilkerson and Aiken, SIGMOD
2003). These are the text's fingerprints F, about 2 of 7 of its n-grams G. So two texts with 13
consecutive words in common have a fingerprint in common; GPT-3's authors searched for 13 words too
(Brown et al. 2020, appendix C). A held-out text H is contained in a training text T, or T in H, if

    |F(H) & G(T)| / |F(H)| >= 0.8    or    |F(T) & F(H)| / |F(T)| >= 0.8

(containment: Broder, SEQUENCES 1997). Texts with fewer than 4 fingerprints (about 20 words) can
only be equal. An n-gram of more than 50 held-out texts is boilerplate and is ignored, as GPT-3's
authors do.

Memory holds the held-out texts only: 12 bytes per fingerprint, 30 per distinct text. The train
texts are streamed once.
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
"""(corpus, split) -> the text of each row."""

MIN_WORDS = 4  # shorter texts ("On Monday :") recur by chance
NGRAM_WORDS, WINNOWING_WINDOW = 8, 6
MIN_FINGERPRINTS = 4  # of a contained text
CONTAINMENT_THRESHOLD = 0.8
MAX_TEXTS_PER_NGRAM = 50  # an n-gram of more held-out texts is boilerplate
MAX_EXAMPLES = 3  # texts to show for a pair of splits
BLOCK_ROWS = 4096
MAX_CACHED_WORDS = 1 << 20


class Leaks(NamedTuple):
    """The leaks of a mixture.

    `pairs` has an entry per (`train` corpus, `held_out` corpus, `split`) with a leak: the number of
    held-out `rows` that leak, how many of them are `equal` and how many `contained`, the number of
    `train_rows` with them, and the beginnings of a few as `examples`. `train_rows` has, by corpus,
    the sorted numbers of all training rows that leak.
    """

    pairs: list[dict[str, Any]]
    train_rows: dict[str, Ints]


def find_leaks(corpora: Sequence[str], texts: Texts) -> Leaks:
    """The leaks between all training splits and all validation and test splits of `corpora`."""
    splits = [(corpus, split) for corpus in corpora for split in ("validation", "test")]
    held_out = _HeldOut([texts(*split) for split in splits])
    pairs: dict[tuple[int, str], dict[str, Any]] = {}
    examples: dict[int, list[tuple[list[str], Ints]]] = defaultdict(list)
    train_rows: dict[str, Ints] = {}
    for corpus in corpora:
        matches = held_out.search(texts(corpus, "train"))
        train_rows[corpus] = np.unique(matches.rows)
        for split in np.unique(held_out.split[matches.texts]).tolist():
            pair, first_rows = _pair(matches, held_out, split)
            pairs[split, corpus] = {
                "train": corpus,
                "held_out": splits[split][0],
                "split": splits[split][1],
                **pair,
            }
            examples[split].append((pair["examples"], first_rows))
    for split, lists in examples.items():
        _fill_examples(texts(*splits[split]), lists)
    order = [(split, corpus) for split in range(len(splits)) for corpus in corpora]
    return Leaks([pairs[key] for key in order if key in pairs], train_rows)


class _Matches(NamedTuple):
    """Pairs [N] of a training row and a held-out text, and whether the two are equal."""

    rows: Ints
    texts: Ints
    equal: NDArray[np.bool_]


def _pair(matches: _Matches, held_out: "_HeldOut", split: int) -> tuple[dict[str, Any], Ints]:
    """The counts for one held-out split, and the numbers of its first leaking rows."""
    inside = held_out.split[matches.texts] == split
    equal = np.unique(matches.texts[inside & matches.equal])
    contained = np.setdiff1d(matches.texts[inside], equal)
    counts = [int(held_out.repeats[texts].sum()) for texts in (equal, contained)]
    first_rows = np.sort(held_out.first[np.concatenate([equal, contained])])[:MAX_EXAMPLES]
    return {
        "rows": sum(counts),
        "equal": counts[0],
        "contained": counts[1],
        "train_rows": len(np.unique(matches.rows[inside])),
        "examples": [],
    }, first_rows


def _fill_examples(texts: Iterable[str], lists: Sequence[tuple[list[str], Ints]]) -> None:
    """Append to each list the beginnings of the rows with its numbers."""
    last_row = max(int(rows[-1]) for _, rows in lists)
    for number, text in enumerate(islice(texts, last_row + 1)):
        for examples, rows in lists:
            if number in rows:
                examples.append(text[:100])


@dataclass(frozen=True)
class _Block:
    """Some rows [R] of a split, without texts that are too short.

    `rows` are their numbers, `text` is the index of each row's text among M distinct texts. `keys`
    [M] are the hashes of the texts, `words` [M] the hashes of their words.
    """

    rows: Ints
    text: Ints
    keys: Hashes
    words: list[Hashes]

    def ngrams(self) -> tuple[Ints, Hashes]:
        """The n-grams of all texts in order [N]: the index of the text, and the hash."""
        flat = np.concatenate([np.zeros(0, np.uint64), *self.words])
        owner = np.repeat(np.arange(len(self.words)), [len(words) for words in self.words])
        count = max(0, len(flat) - NGRAM_WORDS + 1)
        hashes = np.zeros(count, np.uint64)
        for offset in range(NGRAM_WORDS):
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + flat[offset : offset + count]
        inside = owner[:count] == owner[len(owner) - count :]
        return owner[:count][inside], splitmix64(hashes[inside])


def _blocks(texts: Iterable[str]) -> Iterator[_Block]:
    word_hashes: dict[str, int] = {}
    numbered = iter(enumerate(texts))
    while block := list(islice(numbered, BLOCK_ROWS)):
        distinct: dict[str, list[int]] = defaultdict(list)
        for number, text in block:
            distinct[text].append(number)
        rows, text_of_row, keys, words = list[int](), list[int](), list[int](), list[Hashes]()
        for text, numbers in distinct.items():
            text_words = _words(text)
            if len(text_words) >= MIN_WORDS:
                rows += numbers
                text_of_row += [len(keys)] * len(numbers)
                keys.append(_hash(" ".join(text_words)))
                words.append(
                    np.array([_cached_hash(word, word_hashes) for word in text_words], np.uint64)
                )
        yield _Block(
            np.array(rows, np.int64),
            np.array(text_of_row, np.int64),
            np.array(keys, np.uint64),
            words,
        )
        if len(word_hashes) > MAX_CACHED_WORDS:
            word_hashes.clear()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", (text if text.isascii() else normalize("NFKC", text)).casefold())


def _hash(text: str) -> int:
    return int.from_bytes(
        blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


def _cached_hash(word: str, cache: dict[str, int]) -> int:
    result = cache.get(word)
    if result is None:
        result = cache[word] = _hash(word)
    return result


class _HeldOut:
    """The distinct texts [D] of the held-out splits, indexed by key and by fingerprint.

    By text: `key`, `split`, `repeats` (the number of rows with the text), `first` (the number of
    the first of them) and `size` (the number of fingerprints). `hashes` [F] are the sorted
    fingerprints, `owner` [F] is the text of each. `common` are the sorted hashes of boilerplate.
    """

    def __init__(self, splits: Sequence[Iterable[str]]) -> None:
        empty = np.zeros(0, np.int64)
        texts_by_block: list[tuple[Hashes, Ints, Ints, Ints]] = [
            (np.zeros(0, np.uint64), empty, empty, empty)
        ]
        fingerprints: list[tuple[Ints, Hashes]] = [(empty, np.zeros(0, np.uint64))]
        count = 0
        for split, texts in enumerate(splits):
            for block in _blocks(texts):
                repeats = np.bincount(block.text, minlength=len(block.keys))
                first = block.rows[np.searchsorted(block.text, np.arange(len(block.keys)))]
                texts_by_block.append((block.keys, np.full(len(block.keys), split), repeats, first))
                owner, hashes = _winnow(*block.ngrams())
                fingerprints.append((owner + count, hashes))
                count += len(block.keys)
        keys, split_of_text, repeats, first = (
            np.concatenate(column) for column in zip(*texts_by_block, strict=True)
        )
        # Several blocks of a split may have the same text.
        order = np.lexsort((np.arange(count), keys, split_of_text))
        new = np.ones(count, bool)
        new[1:] = (keys[order][1:] != keys[order][:-1]) | (
            split_of_text[order][1:] != split_of_text[order][:-1]
        )
        index = np.empty(count, np.int64)
        index[order] = np.cumsum(new) - 1
        kept = order[new]
        self.key, self.split, self.first = keys[kept], split_of_text[kept], first[kept]
        self.repeats = np.bincount(index, repeats, len(self.key)).astype(np.int64)
        self._by_key = np.argsort(self.key, kind="stable")
        owner, hashes = (np.concatenate(column) for column in zip(*fingerprints, strict=True))
        self._build_index(index[owner], hashes)

    def _build_index(self, owner: Ints, hashes: Hashes) -> None:
        owner, hashes = _distinct(owner, hashes)
        order = np.argsort(hashes, kind="stable")
        owner, hashes = owner[order], hashes[order]
        values, counts = np.unique(hashes, return_counts=True)
        self.common = values[counts > MAX_TEXTS_PER_NGRAM]
        kept = ~_is_in(hashes, self.common)
        self.hashes, self.owner = hashes[kept], owner[kept].astype(np.int32)
        self.size = np.bincount(self.owner, minlength=len(self.key))

    def search(self, texts: Iterable[str]) -> _Matches:
        """The matches of the training texts `texts`."""
        results = [_Matches(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))]
        for block in _blocks(texts):
            equal, position = _join(self.key[self._by_key], block.keys)
            contained, held_out = self._contained(block)
            text = np.concatenate([equal, contained])
            pair, row = _join(block.text, text)
            results.append(
                _Matches(
                    block.rows[row],
                    np.concatenate([self._by_key[position], held_out])[pair],
                    (np.arange(len(text)) < len(equal))[pair],
                )
            )
        return _Matches(*(np.concatenate(column) for column in zip(*results, strict=True)))

    def _contained(self, block: _Block) -> tuple[Ints, Ints]:
        """Pairs [N] of a text of the block and a held-out text; one of them contains the other."""
        ngrams = block.ngrams()
        owner, hashes = _winnow(*ngrams)
        rare = ~_is_in(hashes, self.common)
        sizes = np.bincount(owner[rare], minlength=len(block.keys))
        pairs = np.concatenate(
            [
                self._overlapping(*_distinct(*ngrams), lambda text, held_out: self.size[held_out]),
                self._overlapping(owner[rare], hashes[rare], lambda text, held_out: sizes[text]),
            ],
            axis=1,
        )
        text, held_out = np.unique(pairs, axis=1)
        return text, held_out

    def _overlapping(self, owner: Ints, hashes: Hashes, size: Callable[[Ints, Ints], Ints]) -> Ints:
        """Pairs [2, N] of a text and a held-out text with enough hashes in common.

        `size(text, held_out)` is the number of fingerprints of the contained text.
        """
        index, position = _join(self.hashes, hashes)
        num_texts = max(1, len(self.key))
        pairs, counts = np.unique(
            owner[index] * num_texts + self.owner[position], return_counts=True
        )
        text, held_out = np.divmod(pairs, num_texts)
        sizes = size(text, held_out)
        enough = (sizes >= MIN_FINGERPRINTS) & (counts >= CONTAINMENT_THRESHOLD * sizes)
        return np.stack([text, held_out])[:, enough]


def _winnow(owner: Ints, hashes: Hashes) -> tuple[Ints, Hashes]:
    """The distinct fingerprints of each text: the minima of all windows of neighboring hashes.

    The only window of a text with fewer hashes than WINNOWING_WINDOW is the whole text.
    """
    minimum, count = hashes.copy(), len(hashes)
    for offset in range(1, min(WINNOWING_WINDOW, count)):
        inside = owner[: count - offset] == owner[offset:]
        minimum[: count - offset] = np.where(
            inside,
            np.minimum(minimum[: count - offset], hashes[offset:]),
            minimum[: count - offset],
        )
    starts = np.ones(count, bool)
    starts[1:] = owner[1:] != owner[:-1]
    num_windows = max(0, count - WINNOWING_WINDOW + 1)
    is_full = np.zeros(count, bool)
    is_full[:num_windows] = owner[:num_windows] == owner[WINNOWING_WINDOW - 1 :]
    return _distinct(owner[starts | is_full], minimum[starts | is_full])


def _distinct(owner: Ints, hashes: Hashes) -> tuple[Ints, Hashes]:
    order = np.lexsort((hashes, owner))
    owner, hashes = owner[order], hashes[order]
    new = np.ones(len(owner), bool)
    new[1:] = (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])
    return owner[new], hashes[new]


def _join(ascending: NDArray[Any], values: NDArray[Any]) -> tuple[Ints, Ints]:
    """All pairs (i, j) with ascending[j] == values[i]."""
    left = np.searchsorted(ascending, values, side="left")
    counts = np.searchsorted(ascending, values, side="right") - left
    index = np.repeat(np.arange(len(values)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts - left, counts)


def _is_in(values: Hashes, ascending: Hashes) -> NDArray[np.bool_]:
    left = np.searchsorted(ascending, values, side="left")
    return np.searchsorted(ascending, values, side="right") > left
