"""The rule for words that agrees most with the tokens of a corpus."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.prepare import prepare
from pipeline.data.readers.base import Splits
from pipeline.data.readers.conll_columns import Options
from pipeline.data.recipe import Recipe
from pipeline.data.word_rules import agreement, describe_words, join_tokens

SENTENCES = {
    "treebank": ["They do n't like Bo 's state-of-the-art car .", "It cost $ 3.50 ( 2 % ) ."],
    "punctuation": ["a well - known e . g . 3 . 50 case , of course", "U . S . - based"],
    "spaces": ["what's on, in (new york)?", "show me don't-stop movies!"],
    "characters": ["北 京 天 气 ok".replace("ok", "o k"), "我 爱 天 安 门"],
}


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "corpus",
        "task": "token_classification",
        "license": "CC0",
        "source": "ours",
        "reader": "conll_columns",
        "files": Splits(("train.txt",), ("train.txt",), ("train.txt",)),
        "options": Options(2, 0, 1, "iob2"),
        "labels": ("X",),
    }
    return Recipe(**values | changes)


def summary_of(sentences: list[str], folder: Path) -> dict[str, Any]:
    for split in ("train", "validation", "test"):
        text = "\n\n".join(
            "\n".join(f"{token}\t{'O' if number else 'B-X'}" for number, token in enumerate(words))
            for words in ([*sentence.split(), split] for sentence in sentences)
        )
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    files = Splits(("train.txt",), ("validation.txt",), ("test.txt",))
    summary, _ = prepare(recipe(files=files), folder, folder / "out")
    return summary


@pytest.mark.parametrize("rule", ["treebank", "punctuation", "spaces"])
def test_summary_has_the_rule_of_the_corpus(rule: str, tmp_path: Path) -> None:
    summary = summary_of(SENTENCES[rule], tmp_path)
    percent = summary["word_agreement"]
    assert summary["word_rule"] == rule
    assert percent[rule] > 90
    assert percent[rule] == max(percent.values())
    sentence = describe_words(summary)
    assert sentence.startswith(f"The rule {rule!r} makes words of text. If the training tokens are")
    assert f"by {percent[rule]:.1f} % (" in sentence


@pytest.mark.parametrize("rule", SENTENCES)
def test_tokens_of_each_rule_agree_with_it(rule: Any) -> None:
    assert agreement([sentence.split() for sentence in SENTENCES[rule]], rule) > 95


def test_agreement_is_the_f1_of_words() -> None:
    # "a b-c" has the words a, b-c by spaces, of which one is among the tokens a, b, -, c.
    tokens = ["a", "b-", "c"]
    assert agreement([tokens], "spaces") == 100
    assert agreement([["Ada", "."]], "spaces") == 0  # "Ada." is one word
    assert agreement([["so", "Ada", "."]], "spaces") == pytest.approx(100 * 2 * 1 / (3 + 2))
    assert agreement([], "spaces") == 0


def test_text_of_tokens_has_the_usual_spaces() -> None:
    tokens = "He said \" I do n't ( ever ) , Bo 's \" . $ 5 北 京 ok !"
    text, _ = join_tokens(tokens.split())
    assert text == "He said \"I don't (ever), Bo's\". $5 北京 ok!"


@given(st.lists(st.text(min_size=1, max_size=4) | st.sampled_from(['"', "n't", ".", "(", "北"])))
def test_every_token_is_at_its_bounds(tokens: list[str]) -> None:
    text, bounds = join_tokens(tokens)
    assert [text[start:end] for start, end in bounds] == tokens
    assert all(end <= start for (_, end), (start, _) in pairwise(bounds))
