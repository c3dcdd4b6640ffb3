"""Consistency: pairs of paraphrases with the same answer."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.analysis.consistency import Paraphrases, consistency, paraphrases_of, without_prompt
from pipeline.tasks.knowledge_probing import TASK, Example

BORN = "[X] was born in [Y]."
OTHERS = ("[X] is from [Y].", "[Y] bore [X].", "[X] comes from [Y].")
FACTS = [
    Example("a", "Ada", "born", "London", BORN, OTHERS),
    Example("b", "Bo", "born", "Rome", BORN, OTHERS[:2]),
    Example("c", "Cy", "born", "Rome", BORN),
]


def test_paraphrases_are_the_templates_that_a_decoder_can_read() -> None:
    found = paraphrases_of(TASK, FACTS)
    assert found.numbers == (0, 0, 0, 1, 1, 2)
    assert [example.template for example in found.examples[:3]] == [BORN, OTHERS[0], OTHERS[2]]
    assert found.num_refused == 2
    assert found.num_pairs == 3 + 1
    assert len({example.id for example in found.examples}) == 6
    assert not any(example.object for example in found.examples), "answers do not know the object"


def test_consistency_counts_pairs_of_the_same_fact() -> None:
    found = paraphrases_of(TASK, FACTS)
    assert consistency(found, ["x", "x", "y", "y", "y", "x"]) == pytest.approx(100 * 2 / 4)
    assert consistency(found, ["x"] * 6) == 100
    assert consistency(Paraphrases((0, 1), (FACTS[0], FACTS[1]), 0), ["x", "x"]) is None
    predictions: Any = [{"objects": ["x", "y"]}, {"objects": ["z"]}]
    assert TASK.answers(predictions) == ["x", "z"]


def test_the_prompt_comes_back() -> None:
    model: Any = SimpleNamespace(prompt="prompt")
    with without_prompt(model):
        assert model.prompt is None
    assert model.prompt == "prompt"
