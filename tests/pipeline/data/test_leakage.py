"""Leakage: equal and contained texts are found, regardless of case, spacing and punctuation."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.data import leakage
from pipeline.data.leakage import (
    CONTAINMENT_THRESHOLD,
    MAX_TEXTS_PER_NGRAM,
    MIN_FINGERPRINTS,
    NGRAM_WORDS,
    WINNOWING_WINDOW,
    Leaks,
    find_leaks,
)

Corpora = dict[str, dict[str, list[str]]]


def leaks(corpora: Corpora) -> list[dict[str, Any]]:
    return [
        {key: leak[key] for key in ("train", "held_out", "split", "rows", "examples")}
        for leak in find(corpora).pairs
    ]


def find(corpora: Corpora) -> Leaks:
    def texts(corpus: str, split: str) -> Iterable[str]:
        yield from corpora[corpus].get(split, [])

    return find_leaks(list(corpora), texts)


def test_leaks_are_found_within_and_between_corpora() -> None:
    cat, dog, clean = "The cat sat there.", "A dog ran over there.", "Nothing else is in both."
    corpora = {
        "a": {"train": [cat, dog], "validation": [cat, clean], "test": [dog, dog]},
        "b": {"train": [dog], "test": [cat]},
    }
    assert leaks(corpora) == [
        {"train": "a", "held_out": "a", "split": "validation", "rows": 1, "examples": [cat]},
        {"train": "a", "held_out": "a", "split": "test", "rows": 2, "examples": [dog]},
        {"train": "b", "held_out": "a", "split": "test", "rows": 2, "examples": [dog]},
        {"train": "a", "held_out": "b", "split": "test", "rows": 1, "examples": [cat]},
    ]


@pytest.mark.parametrize(
    "other", ["the CAT sat there", "The  cat ,\nsat (there) !", "“The cat” sat, there..."]
)
def test_texts_with_equal_words_are_equal(other: str) -> None:
    (leak,) = leaks({"a": {"train": ["The cat sat there."]}, "b": {"validation": [other]}})
    assert (leak["train"], leak["held_out"], leak["rows"], leak["examples"]) == (
        "a",
        "b",
        1,
        [other],
    )


@pytest.mark.parametrize(
    "other",
    ["The cat sat here.", "The cats at there.", "The cat sat there now.", "there sat the cat", ""],
)
def test_texts_with_other_words_do_not_leak(other: str) -> None:
    assert leaks({"a": {"train": ["The cat sat there."]}, "b": {"validation": [other]}}) == []


def test_letters_outside_ascii_are_compared_without_case() -> None:
    assert leaks({"a": {"train": ["eins zwei drei äpfel"], "test": ["eins zwei drei öpfel"]}}) == []
    train, test = ["Die Straße heißt Äpfelweg"], ["DIE STRASSE HEISST ÄPFELWEG"]
    assert len(leaks({"a": {"train": train, "test": test}})) == 1


def test_texts_of_few_words_are_ignored() -> None:
    train, test = ["On Monday :", "x y z"], ["On Monday :", "x y z", ". . . ."]
    assert leaks({"a": {"train": train, "test": test}}) == []
    assert len(leaks({"a": {"train": ["w x y z"], "test": ["w x y z"]}})) == 1


def test_examples_are_the_beginnings_of_a_few_distinct_texts() -> None:
    rows = [f"row number {number} of it " + "long " * 40 for number in range(5)]
    (leak,) = leaks({"a": {"train": rows, "test": [rows[0], *rows]}})
    assert leak["rows"] == 6
    assert leak["examples"] == [row[:100] for row in rows[:3]]


def prose(words: int, seed: int) -> list[str]:
    return [f"w{number}" for number in np.random.default_rng(seed).integers(0, 5000, words)]


def pair(train: list[str], held_out: list[str]) -> tuple[int, int, list[int]]:
    """The numbers of equal and of contained held-out rows, and the training rows that leak.

    The first training row is unrelated: no test uses its seed.
    """
    result = find(
        {
            "a": {"train": [" ".join(prose(60, 1001)), " ".join(train)]},
            "b": {"test": [" ".join(held_out)]},
        }
    )
    leak = result.pairs[0] if result.pairs else {"equal": 0, "contained": 0}
    return leak["equal"], leak["contained"], result.train_rows["a"].tolist()


@pytest.mark.parametrize(
    ("train", "held_out", "expected"),
    [
        pytest.param(prose(100, 1), prose(100, 1), (1, 0, [1]), id="equal"),
        pytest.param(prose(300, 1), prose(300, 1)[120:180], (0, 1, [1]), id="held-out in training"),
        pytest.param(prose(300, 1)[5:60], prose(300, 1), (0, 1, [1]), id="training in held-out"),
        pytest.param(
            prose(300, 1),
            [*prose(300, 1)[40:140], *prose(15, 2)],
            (0, 1, [1]),
            id="nearly all of it",
        ),
        pytest.param(
            prose(300, 1), [*prose(300, 1)[40:140], *prose(200, 2)], (0, 0, []), id="a third of it"
        ),
        pytest.param(prose(300, 1), prose(300, 1)[120:135], (0, 0, []), id="only a phrase"),
        pytest.param(prose(300, 1), sorted(prose(300, 1)), (0, 0, []), id="another word order"),
        pytest.param(prose(300, 1), prose(300, 2), (0, 0, []), id="other words"),
    ],
)
def test_contained_texts_are_found(
    train: list[str], held_out: list[str], expected: tuple[int, int, list[int]]
) -> None:
    assert pair(train, held_out) == expected


@settings(max_examples=50, deadline=None)
@given(start=st.integers(0, 200), length=st.integers(31, 100), seed=st.integers(0, 1000))
@example(start=75, length=31, seed=341)
def test_passage_of_a_text_is_always_found(start: int, length: int, seed: int) -> None:
    """All fingerprints of a passage are n-grams of the whole text, for any start.

    A fingerprint is the minimum of at most 6 windows. 31 words have 24 n-grams and 19 windows, so
    at least 4 fingerprints; 30 words may have 3, which is too few for a contained text.
    """
    whole = prose(300, seed)
    assert pair(whole, whole[start : start + length])[1:] == (1, [1])
    assert pair(whole[start : start + length], whole)[1:] == (1, [1])


def test_containment_equals_a_plain_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain implementation uses sets of n-grams. The texts share passages of all lengths."""
    monkeypatch.setattr(leakage, "BLOCK_ROWS", 7)
    source = [prose(400, seed) for seed in range(2)]
    generator = np.random.default_rng(0)

    def text() -> str:
        words: list[str] = []
        for _ in range(generator.integers(1, 3)):
            index, start, length = (
                generator.integers(0, 2),
                generator.integers(0, 100),
                generator.integers(1, 90),
            )
            words += source[index][start : start + length]
        return " ".join(words)

    train, test = [text() for _ in range(40)], [text() for _ in range(40)]
    result = find({"a": {"train": train, "test": test}})
    expected = {
        (i, j)
        for i, train_text in enumerate(train)
        for j, test_text in enumerate(test)
        if is_leak(train_text, test_text)
    }
    assert 5 < len(expected) < 800
    assert result.train_rows["a"].tolist() == sorted({i for i, _ in expected})
    assert result.pairs[0]["rows"] == len({j for _, j in expected})


def is_leak(train: str, held_out: str) -> bool:
    train_hashes, held_out_hashes = ngram_hashes(train), ngram_hashes(held_out)
    train_prints, held_out_prints = fingerprints(train_hashes), fingerprints(held_out_hashes)
    return (
        train == held_out
        or is_contained(held_out_prints, set(train_hashes))
        or is_contained(train_prints, held_out_prints)
    )


def is_contained(prints: set[int], hashes: set[int]) -> bool:
    enough = CONTAINMENT_THRESHOLD * len(prints)
    return len(prints) >= MIN_FINGERPRINTS and len(prints & hashes) >= enough


def fingerprints(hashes: list[int]) -> set[int]:
    windows = [
        hashes[i : i + WINNOWING_WINDOW] for i in range(max(1, len(hashes) - WINNOWING_WINDOW + 1))
    ]
    return {min(window) for window in windows if window}


def ngram_hashes(text: str) -> list[int]:
    words = text.split()
    ngrams = [" ".join(words[i : i + NGRAM_WORDS]) for i in range(len(words) - NGRAM_WORDS + 1)]
    return [ngram_hash(ngram) for ngram in ngrams]


@cache
def ngram_hash(ngram: str) -> int:
    (block,) = leakage._blocks([ngram])
    return int(block.ngrams()[1][0])


def test_boilerplate_does_not_leak() -> None:
    license = " ".join(prose(80, 3))
    few = [f"{license} {number}" for number in range(MAX_TEXTS_PER_NGRAM - 1)]
    many = [f"{license} {number}" for number in range(MAX_TEXTS_PER_NGRAM + 5)]
    assert find({"a": {"train": [f"{license} other"], "test": few}}).pairs
    assert not find({"a": {"train": [f"{license} other"], "test": many}}).pairs


def test_train_rows_that_leak_are_listed() -> None:
    cat, dog = "The cat sat there.", "A dog ran over there."
    result = find(
        {
            "a": {"train": ["Nothing of it is here.", dog, cat, dog], "test": [cat]},
            "b": {"train": ["x"], "validation": [dog]},
        }
    )
    assert {name: rows.tolist() for name, rows in result.train_rows.items()} == {
        "a": [1, 2, 3],
        "b": [],
    }
    assert [(leak["held_out"], leak["train_rows"]) for leak in result.pairs] == [("a", 1), ("b", 2)]


def test_size_of_blocks_does_not_change_the_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [" ".join(prose(40, seed)) for seed in range(30)]
    corpora = {
        "a": {"train": rows[:20], "test": rows[10:]},
        "b": {"train": rows[25:], "validation": rows[::3] * 2},
    }
    whole = find(corpora)
    monkeypatch.setattr(leakage, "BLOCK_ROWS", 3)
    in_blocks = find(corpora)
    assert whole.pairs == in_blocks.pairs
    assert all(
        np.array_equal(whole.train_rows[name], in_blocks.train_rows[name]) for name in corpora
    )
