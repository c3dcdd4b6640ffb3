"""Leakage: a held-out text that some corpus trains on is found, whatever its case, spacing and punctuation, whole or in part."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import leakage
from pipeline.data.leakage import COMMON, GRAM, THRESHOLD, WINDOW, Leaks, find_leaks

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


def test_other_corpora_and_the_corpus_itself_are_looked_through() -> None:
    one, two, three = "The cat sat there.", "A dog ran over there.", "Nothing else is in both."
    corpora = {
        "a": {"train": [one, two], "validation": [one, three], "test": [two, two]},
        "b": {"train": [two], "test": [one]},
    }
    assert leaks(corpora) == [
        {"train": "a", "held_out": "a", "split": "validation", "rows": 1, "examples": [one]},
        {"train": "a", "held_out": "a", "split": "test", "rows": 2, "examples": [two]},
        {"train": "b", "held_out": "a", "split": "test", "rows": 2, "examples": [two]},
        {"train": "a", "held_out": "b", "split": "test", "rows": 1, "examples": [one]},
    ]


@pytest.mark.parametrize(
    "other", ["the CAT sat there", "The  cat ,\nsat (there) !", "“The cat” sat, there..."]
)
def test_equal_means_equal_words(other: str) -> None:
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
def test_other_words_are_no_leak(other: str) -> None:
    assert leaks({"a": {"train": ["The cat sat there."]}, "b": {"validation": [other]}}) == []


def test_letters_outside_ascii_count() -> None:
    assert leaks({"a": {"train": ["eins zwei drei äpfel"], "test": ["eins zwei drei öpfel"]}}) == []
    assert (
        len(
            leaks(
                {
                    "a": {
                        "train": ["Die Straße heißt Äpfelweg"],
                        "test": ["DIE STRASSE HEISST ÄPFELWEG"],
                    }
                }
            )
        )
        == 1
    )


def test_short_texts_recur_by_chance() -> None:
    assert (
        leaks(
            {"a": {"train": ["On Monday :", "x y z"], "test": ["On Monday :", "x y z", ". . . ."]}}
        )
        == []
    )
    assert len(leaks({"a": {"train": ["w x y z"], "test": ["w x y z"]}})) == 1


def test_a_few_distinct_texts_are_shown_cut() -> None:
    rows = [f"row number {number} of it " + "long " * 40 for number in range(5)]
    (leak,) = leaks({"a": {"train": rows, "test": [rows[0], *rows]}})
    assert leak["rows"] == 6
    assert leak["examples"] == [row[:100] for row in rows[:3]]


def prose(words: int, seed: int) -> list[str]:
    return [f"w{number}" for number in np.random.default_rng(seed).integers(0, 5000, words)]


def pair(train: list[str], held_out: list[str]) -> tuple[int, int, list[int]]:
    """How many held-out rows are equal to a train row, how many contained; and which train rows leak."""
    found = find(
        {
            "a": {"train": [" ".join(prose(60, 98)), " ".join(train)]},
            "b": {"test": [" ".join(held_out)]},
        }
    )
    leak = found.pairs[0] if found.pairs else {"equal": 0, "contained": 0}
    return leak["equal"], leak["contained"], found.train_rows["a"].tolist()


@pytest.mark.parametrize(
    ("train", "held_out", "wanted"),
    [
        (prose(100, 1), prose(100, 1), (1, 0, [1])),
        (prose(300, 1), prose(300, 1)[120:180], (0, 1, [1])),  # held out in train
        (prose(300, 1)[5:60], prose(300, 1), (0, 1, [1])),  # train in held out
        (prose(300, 1), [*prose(300, 1)[40:140], *prose(15, 2)], (0, 1, [1])),  # nearly all of it
        (prose(300, 1), [*prose(300, 1)[40:140], *prose(200, 2)], (0, 0, [])),  # a third of it
        (
            prose(300, 1),
            prose(300, 1)[120:135],
            (0, 0, []),
        ),  # too short to tell from a common phrase
        (prose(300, 1), sorted(prose(300, 1)), (0, 0, [])),  # the same words in another order
        (prose(300, 1), prose(300, 2), (0, 0, [])),
    ],
)
def test_a_text_in_another_is_found(
    train: list[str], held_out: list[str], wanted: tuple[int, int, list[int]]
) -> None:
    assert pair(train, held_out) == wanted


@settings(max_examples=50, deadline=None)
@given(start=st.integers(0, 200), length=st.integers(30, 100), seed=st.integers(0, 1000))
def test_a_passage_of_a_text_is_always_found(start: int, length: int, seed: int) -> None:
    """All fingerprints of a passage are n-grams of the whole, wherever it begins."""
    whole = prose(300, seed)
    assert pair(whole, whole[start : start + length])[1:] == (1, [1])
    assert pair(whole[start : start + length], whole)[1:] == (1, [1])


def test_containment_is_that_of_a_plain_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against sets of n-grams in plain Python, over texts that share stretches of all lengths."""
    monkeypatch.setattr(leakage, "BLOCK", 7)
    source = [prose(400, seed) for seed in range(2)]
    generator = np.random.default_rng(0)

    def text() -> str:
        words: list[str] = []
        for _ in range(generator.integers(1, 3)):
            one, start, length = (
                generator.integers(0, 2),
                generator.integers(0, 100),
                generator.integers(1, 90),
            )
            words += source[one][start : start + length]
        return " ".join(words)

    train, test = [text() for _ in range(40)], [text() for _ in range(40)]
    found = find({"a": {"train": train, "test": test}})
    expected = {
        (i, j) for i, one in enumerate(train) for j, other in enumerate(test) if plain(one, other)
    }
    assert 5 < len(expected) < 800
    assert found.train_rows["a"].tolist() == sorted({i for i, _ in expected})
    assert found.pairs[0]["rows"] == len({j for _, j in expected})


def plain(train: str, held_out: str) -> bool:
    grams, prints = [], []
    for text in (train, held_out):
        words = text.split()
        grams.append([" ".join(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)])
        hashes = [gram_hash(gram) for gram in grams[-1]]
        windows = [hashes[i : i + WINDOW] for i in range(max(1, len(hashes) - WINDOW + 1))]
        prints.append({min(window) for window in windows if window})
    whole = {gram_hash(gram) for gram in grams[0]}
    shares = [(prints[1], whole), (prints[0], prints[1])]
    return train == held_out or any(
        len(one) >= leakage.FEWEST and len(one & other) >= THRESHOLD * len(one)
        for one, other in shares
    )


@cache
def gram_hash(gram: str) -> int:
    (block,) = leakage._blocks([gram])
    return int(block.grams()[1][0])


def test_boilerplate_is_no_leak() -> None:
    licence = " ".join(prose(80, 3))
    few = [f"{licence} {number}" for number in range(COMMON - 1)]
    many = [f"{licence} {number}" for number in range(COMMON + 5)]
    assert find({"a": {"train": [f"{licence} other"], "test": few}}).pairs
    assert not find({"a": {"train": [f"{licence} other"], "test": many}}).pairs


def test_train_rows_that_leak_are_named() -> None:
    one, two = "The cat sat there.", "A dog ran over there."
    found = find(
        {
            "a": {"train": ["Nothing of it is here.", two, one, two], "test": [one]},
            "b": {"train": ["x"], "validation": [two]},
        }
    )
    assert {name: rows.tolist() for name, rows in found.train_rows.items()} == {
        "a": [1, 2, 3],
        "b": [],
    }
    assert [(leak["held_out"], leak["train_rows"]) for leak in found.pairs] == [("a", 1), ("b", 2)]


def test_order_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [" ".join(prose(40, seed)) for seed in range(30)]
    corpora = {
        "a": {"train": rows[:20], "test": rows[10:]},
        "b": {"train": rows[25:], "validation": rows[::3] * 2},
    }
    whole = find(corpora)
    monkeypatch.setattr(leakage, "BLOCK", 3)
    parts = find(corpora)
    assert whole.pairs == parts.pairs
    assert all(np.array_equal(whole.train_rows[name], parts.train_rows[name]) for name in corpora)
