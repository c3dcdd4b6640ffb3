"""Exact match and F1 equal those of the official SQuAD scripts and counts by hand."""

import json

import pytest

from pipeline.metrics.answers import SQUAD, best_threshold, normalize, score
from tests.support.paths import DATA

OFFICIAL = DATA / "scores" / "qa" / "official_scores.json"
SYSTEMS = {
    "logistic_regression_v1.1": "squad/dev-v1.1.json",
    "bert_ensemble_v1.1": "squad/dev-v1.1.json",
    "bert_single_v2.0": "squad_v2/dev-v2.0.json",
    "bidaf_elmo_v2.0": "squad_v2/dev-v2.0.json",
}


def test_normalization_removes_case_punctuation_and_articles() -> None:
    assert normalize("  The  Cat's, an\tAnimal! ") == "cats animal"
    assert normalize("a.n") == ""  # first without punctuation, then without the article
    assert normalize("theatre “x”") == "theatre “x”"  # only ASCII punctuation


def test_scores_of_pairs_equal_counts_by_hand() -> None:
    assert SQUAD.exact_match("The cat", "cat.") == 1.0
    assert SQUAD.f1("black cat", "the cat sat") == pytest.approx(0.5)
    assert SQUAD.f1("cat cat", "cat") == pytest.approx(2 / 3)
    assert (SQUAD.f1("", ""), SQUAD.f1("", "cat"), SQUAD.f1("the", "a")) == (1.0, 0.0, 1.0)


def test_score_equals_counts_by_hand() -> None:
    references = {"1": ["cat", "black cat"], "2": [], "3": [], "4": ["dog"]}
    metrics = score(references, {"1": "a black cat", "2": "", "3": "fish"})
    assert metrics.overall == {
        "exact_match": 50.0,
        "f1": 50.0,
        "total": 4,
        "HasAns_exact_match": 50.0,
        "HasAns_f1": 50.0,
        "HasAns_total": 2,
        "NoAns_exact_match": 50.0,
        "NoAns_f1": 50.0,
        "NoAns_total": 2,
    }


def test_only_unanswerable_questions_add_separate_metrics() -> None:
    assert score({"1": ["cat"]}, {"1": "black cat"}).overall == {
        "exact_match": 0.0,
        "f1": pytest.approx(200 / 3),
        "total": 1,
    }


def test_threshold_equals_search_by_hand() -> None:
    references = {"1": ["cat"], "2": [], "3": ["dog"], "4": []}
    predictions = {"1": "cat", "2": "x", "3": "dog", "4": "y"}
    # An answer to 1 scores 3 of 4. An answer to 2 loses a point, and an answer to 3 wins it back,
    # which is not better.
    assert best_threshold(references, predictions, {"1": -3.0, "2": -1.0, "3": 0.5, "4": 2.0}) == (
        -3.0,
        75.0,
    )
    assert best_threshold(references, predictions, {"1": -3.0, "2": 1.0, "3": 0.5, "4": 2.0}) == (
        0.5,
        100.0,
    )


def test_threshold_does_not_separate_equal_null_scores() -> None:
    references: dict[str, list[str]] = {"1": ["cat"], "2": [], "3": []}
    threshold = best_threshold(
        references, {"1": "cat", "2": "x", "3": "y"}, dict.fromkeys(references, 0.0)
    )
    assert threshold.value < 0.0
    assert threshold.score == pytest.approx(200 / 3)


def test_threshold_gives_its_reported_score() -> None:
    references = {str(i): ["cat"] if i % 3 else [] for i in range(30)}
    predictions = {id: "cat" if int(id) % 2 else "black cat" for id in references}
    nulls = {id: float(int(id) * 7 % 11) for id in references}
    for metric, name in ((SQUAD.f1, "f1"), (SQUAD.exact_match, "exact_match")):
        threshold = best_threshold(references, predictions, nulls, metric)
        final = {
            id: "" if nulls[id] > threshold.value else text for id, text in predictions.items()
        }
        assert score(references, final).overall[name] == pytest.approx(threshold.score)


@pytest.mark.skipif(not OFFICIAL.exists(), reason=f"{OFFICIAL} is absent")
@pytest.mark.parametrize("system", SYSTEMS)
def test_scores_equal_the_official_scripts(system: str) -> None:
    data = json.loads((DATA / "qa" / SYSTEMS[system]).read_text(encoding="utf-8"))["data"]
    references = {
        qa["id"]: [answer["text"] for answer in qa["answers"]]
        for article in data
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    }
    predictions = json.loads((OFFICIAL.parent / f"{system}.json").read_text(encoding="utf-8"))
    overall = score(references, predictions).overall
    for name, value in json.loads(OFFICIAL.read_text(encoding="utf-8"))[system].items():
        ours = name if name in overall else name.replace("exact", "exact_match")
        assert overall[ours] == pytest.approx(value, abs=1e-9)
