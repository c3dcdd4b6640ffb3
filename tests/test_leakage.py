"""Leakage: a held-out text that some corpus trains on is found, whatever its case, spacing and punctuation."""

from collections.abc import Iterable
from typing import Any

import pytest

from pipeline.leakage import find_leaks

Corpora = dict[str, dict[str, list[str]]]


def leaks(corpora: Corpora) -> list[dict[str, Any]]:
    def texts(corpus: str, split: str) -> Iterable[str]:
        yield from corpora[corpus].get(split, [])

    return find_leaks(list(corpora), texts)


def test_other_corpora_and_the_corpus_itself_are_looked_through() -> None:
    one, two, three = "The cat sat there.", "A dog ran over there.", "Nothing else is in both."
    corpora = {"a": {"train": [one, two], "validation": [one, three], "test": [two, two]}, "b": {"train": [two], "test": [one]}}
    assert leaks(corpora) == [
        {"train": "a", "held_out": "a", "split": "validation", "rows": 1, "examples": [one]},
        {"train": "a", "held_out": "a", "split": "test", "rows": 2, "examples": [two]},
        {"train": "b", "held_out": "a", "split": "test", "rows": 2, "examples": [two]},
        {"train": "a", "held_out": "b", "split": "test", "rows": 1, "examples": [one]},
    ]


@pytest.mark.parametrize("other", ["the CAT sat there", "The  cat ,\nsat (there) !", "“The cat” sat, there..."])
def test_equal_means_equal_words(other: str) -> None:
    (leak,) = leaks({"a": {"train": ["The cat sat there."]}, "b": {"validation": [other]}})
    assert (leak["train"], leak["held_out"], leak["rows"], leak["examples"]) == ("a", "b", 1, [other])


@pytest.mark.parametrize("other", ["The cat sat here.", "The cats at there.", "The cat sat there now.", "there sat the cat", ""])
def test_other_words_are_no_leak(other: str) -> None:
    assert leaks({"a": {"train": ["The cat sat there."]}, "b": {"validation": [other]}}) == []


def test_letters_outside_ascii_count() -> None:
    assert leaks({"a": {"train": ["eins zwei drei äpfel"], "test": ["eins zwei drei öpfel"]}}) == []
    assert len(leaks({"a": {"train": ["Die Straße heißt Äpfelweg"], "test": ["DIE STRASSE HEISST ÄPFELWEG"]}})) == 1


def test_short_texts_recur_by_chance() -> None:
    assert leaks({"a": {"train": ["On Monday :", "x y z"], "test": ["On Monday :", "x y z", ". . . ."]}}) == []
    assert len(leaks({"a": {"train": ["w x y z"], "test": ["w x y z"]}})) == 1


def test_a_few_distinct_texts_are_shown_cut() -> None:
    rows = [f"row number {number} of it " + "long " * 40 for number in range(5)]
    (leak,) = leaks({"a": {"train": rows, "test": [rows[0], *rows]}})
    assert leak["rows"] == 6
    assert leak["examples"] == [row[:100] for row in rows[:3]]
