"""Knowledge probing: P@k and MRR as means over relations."""

import numpy as np
import pytest

from pipeline.metrics.base import apply_formula
from pipeline.metrics.knowledge import Fact, counts, score

FACTS = [
    Fact("a", 1, 1, 3, True),
    Fact("a", 2, 20, 0, False),
    Fact("a", 101, 101, 0, False),
    Fact("a", 10, 101, 11, False),
    Fact("b", 1, 1, 0, False),
]


def test_scores_are_means_over_relations() -> None:
    overall = score(FACTS).overall
    assert overall["p_at_1"] == (25 + 100) / 2
    assert overall["p_at_10"] == (75 + 100) / 2
    assert overall["mrr"] == pytest.approx(100 * ((1 + 0.5 + 0.1) / 4 + 1) / 2)
    assert overall["majority_p_at_1"] == (25 + 0) / 2
    assert overall["p_at_1_all"] == (25 + 100) / 2
    assert overall["mrr_all"] == pytest.approx(100 * ((1 + 1 / 20) / 4 + 1) / 2)
    # Only relation a has facts with an object of one token.
    assert overall["p_at_1_vocabulary"] == 0
    assert overall["p_at_10_vocabulary"] == 50
    assert overall["mrr_vocabulary"] == pytest.approx(100 * (1 / 3 + 1 / 11) / 2)
    numbers = {name: overall[name] for name in ("one_token_facts", "ranks_beyond", "facts")}
    assert numbers == {"one_token_facts": 2, "ranks_beyond": 1, "facts": 5}
    assert all(isinstance(value, int) for value in numbers.values()), "the report shows counts"


def test_the_labels_are_the_relations() -> None:
    labels = score(FACTS).labels
    assert list(labels) == ["a", "b"]
    assert labels["a"] == {
        "p_at_1": 25,
        "p_at_10": 75,
        "mrr": pytest.approx(40),
        "majority_p_at_1": 25,
        "p_at_1_all": 25,
        "support": 4,
    }
    assert labels["b"]["support"] == 1


def test_scores_are_formulas_of_the_counts_of_facts() -> None:
    units = counts([f"u{n}" for n in range(len(FACTS))], FACTS)
    sums = {name: np.array([column.sum()]) for name, column in units.columns.items()}
    overall = score(FACTS).overall
    for name, formula in units.formulas.items():
        assert float(apply_formula(formula, sums)[0]) == overall[name]
    assert {"p_at_1", "mrr", "mrr_vocabulary", "majority_p_at_1"} <= units.formulas.keys()


def test_no_fact_is_no_error() -> None:
    assert score([]).overall["p_at_1"] == 0
    assert counts([], []).units == ()
