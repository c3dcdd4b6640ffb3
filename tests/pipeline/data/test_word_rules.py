"""The rule for words that agrees most with the tokens of a corpus."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.prepare import prepare
from pipeline.data.readers.base import Splits
from pipeline.data.readers.conll_columns import Options
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.data.word_rules import PREFERRED, agreement, describe_words, join_tokens
from pipeline.words import RULES

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


def test_equal_rules_have_an_order(tmp_path: Path) -> None:
    """A user's text has punctuation, also if the corpus has none."""
    assert summary_of(["show me films"], tmp_path)["word_rule"] == "treebank"
    assert sorted(PREFERRED) == sorted(RULES)


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


@pytest.mark.parametrize("rule", ["spaces", "punctuation"])
def test_rule_of_a_corpus_with_offsets_is_that_of_its_reader(rule: str, tmp_path: Path) -> None:
    text = "Ada went to Bonn."
    lines = [
        {"text": f"{text} {number}", "spans": [{"start": 0, "end": 3, "label": "X"}]}
        for number in range(3)
    ]
    for name, line in zip(("train", "validation", "test"), lines, strict=True):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line), encoding="utf-8")
    path = tmp_path / "ours.yaml"
    path.write_text(
        "task: token_classification\nlicense: CC0\nsource: ours\nreader: offsets\nlabels: [X]\n"
        f"options: {{dialect: plain, word_rule: {rule}}}\n"
        "files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}\n",
        encoding="utf-8",
    )
    summary, _ = prepare(load_recipe(path), tmp_path, tmp_path / "out")
    assert (summary["word_rule"], summary["word_agreement"]) == (rule, {})
    assert describe_words(summary) == f"The rule {rule!r} makes words of text, as in the corpus."
