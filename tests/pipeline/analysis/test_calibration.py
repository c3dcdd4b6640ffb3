"""Calibration: errors computed by hand, a known temperature, and unchanged predictions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.calibration import (
    Decisions,
    bins,
    brier,
    calibration_error,
    gather,
    risk_area,
    risk_coverage,
    temperature,
    top_two,
)
from pipeline.tasks import task_named
from pipeline.tasks.base.claims import softmax
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.semantic_role_labeling import Example as Proposition
from pipeline.tasks.span_extraction import Answer
from pipeline.tasks.span_extraction import Example as Question
from pipeline.tasks.token_classification import Example as Sentence

HALVES = st.integers(-6, 6).map(lambda number: number / 2)  # so that many scores are equal
CONFIDENCE, RIGHT = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])


def draw_decisions(true_temperature: float, num_options: int = 4, size: int = 20_000) -> Decisions:
    """Decisions for the best option, right with its softmax probability at `true_temperature`."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (size, num_options))
    taken = logits.argmax(axis=1)
    probability = softmax(logits, true_temperature)[np.arange(size), taken]
    return Decisions(logits, taken, generator.random(size) < probability)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.7])
def test_the_fitted_temperature_is_the_true_one_and_calibrates(true_temperature: float) -> None:
    decisions = draw_decisions(true_temperature)
    fitted = temperature(decisions)["temperature"]
    assert fitted == pytest.approx(true_temperature, rel=0.05)
    error = calibration_error(decisions.confidence(fitted), decisions.right)
    assert error is not None
    assert error < 0.015
    if true_temperature != 1.0:
        assert (calibration_error(decisions.confidence(), decisions.right) or 0.0) > 0.03


def test_a_temperature_preserves_the_order_of_options() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (50, 6))
    for value in (0.1, 1.0, 9.0):
        assert (softmax(logits, value).argsort(axis=1) == logits.argsort(axis=1)).all()
        assert softmax(logits, value).sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("right", [[True, True], [False, False], []])
def test_no_temperature_is_fitted_if_all_decisions_are_right_or_all_wrong(
    right: list[bool],
) -> None:
    logits = [np.zeros((len(right), 3))]
    assert temperature(gather(logits, [0] * len(right), right)) == {}


def test_missing_options_have_zero_probability() -> None:
    decisions = gather(
        [np.array([[0.0, 0.0]]), np.array([[1.0, 1.0, 1.0, 1.0]])], [1, 3], [True, False]
    )
    assert decisions.confidence().tolist() == pytest.approx([0.5, 0.25])
    assert decisions.confidence(7.0).tolist() == pytest.approx([0.5, 0.25])


def test_calibration_error_and_brier_score_have_the_values_computed_by_hand() -> None:
    assert calibration_error(CONFIDENCE, RIGHT) == pytest.approx((2 * 0.45 + 2 * 0.45) / 4)
    assert brier(CONFIDENCE, RIGHT) == pytest.approx((0.05**2 + 0.95**2 + 2 * 0.45**2) / 4)
    assert [item.size for item in bins(CONFIDENCE, RIGHT)] == [2, 2]
    assert bins(np.array([0.0, 1 / 15, 1.0]), np.array([False, False, True]))[0].size == 2, (
        "a bin includes its upper edge"
    )


def test_risk_by_coverage_has_the_values_computed_by_hand() -> None:
    coverage, risk = risk_coverage(CONFIDENCE, RIGHT)
    assert coverage.tolist() == [0.5, 1.0], "decisions of equal confidence enter together"
    assert risk.tolist() == [0.5, 0.25]
    assert risk_area(CONFIDENCE, RIGHT) == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    assert risk_area(np.array([0.9, 0.8]), np.array([True, True])) == 0.0


def test_no_decisions_have_no_error() -> None:
    empty = np.empty(0), np.empty(0, np.bool_)
    errors = [calibration_error(*empty), brier(*empty), risk_area(*empty)]
    assert errors == [None, None, None]
    assert bins(*empty) == []


def test_predicted_and_missed_spans_are_claims() -> None:
    task = task_named("token_classification")
    example = Sentence(
        "a",
        ("Ada", "of", "New", "York", "met", "Bo", "Li"),
        ("B-PER", "O", "B-LOC", "I-LOC", "O", "B-PER", "I-PER"),
    )
    claims = list(task.claims(example, ["B-ORG", "O", "B-LOC", "I-LOC", "B-LOC", "B-PER", "O"]))
    assert [(claim.gold_label, claim.predicted_label, claim.right) for claim in claims] == [
        ("PER", "ORG", False),
        ("LOC", "LOC", True),
        ("(none)", "LOC", False),
        ("(other words)", "PER", False),
        ("PER", "(other words)", False),
    ]
    assert (claims[3].gold, claims[3].predicted) == ("PER: Bo Li", "PER: Bo")
    assert (claims[4].gold, claims[4].predicted) == ("PER: Bo Li", "")
    srl = task_named("semantic_role_labeling")
    proposition = Proposition("a", ("Ada", "met", "Bo"), 1, ("B-A0", "B-V", "B-A1"))
    claims = list(srl.claims(proposition, ["B-A0", "B-V", "O"]))
    assert [claim.predicted for claim in claims] == ["A0: Ada", ""], "V is an input"


def test_a_discontinuous_argument_is_a_single_claim() -> None:
    task = task_named("semantic_role_labeling")
    example = Proposition(
        "a", ("He", "said", "Bo", "ran", "fast"), 1, ("B-A1", "B-V", "B-C-A1", "I-C-A1", "B-A2")
    )
    claims = list(task.claims(example, ["B-A1", "B-V", "B-C-A1", "O", "B-A2"]))
    assert [(claim.decisions, claim.gold, claim.predicted, claim.right) for claim in claims] == [
        ((0, 2), "A1: He … Bo ran", "A1: He … Bo", False),
        ((4,), "A2: fast", "A2: fast", True),
        ((), "A1: He … Bo ran", "", False),
    ]
    assert [claim.right for claim in task.claims(example, example.tags)] == [True, True]


ROLES = st.sampled_from(
    ["O", "B-V", "I-V", "B-A0", "I-A0", "B-C-A0", "I-C-A0", "B-R-A0", "B-A1", "B-C-A1", "B-C-V"]
)


@given(st.lists(st.tuples(ROLES, ROLES), min_size=1, max_size=12))
def test_right_claims_agree_with_the_counts_of_the_score(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = map(list, zip(*pairs, strict=True))
    task = task_named("semantic_role_labeling")
    example = Proposition("a", ("x",) * len(gold), 0, tuple(gold))
    claims = list(task.claims(example, predicted))
    overall = task.score([example], [predicted], ()).overall
    assert sum(claim.right for claim in claims) == overall["correct"]
    num_predicted = sum(bool(claim.predicted) for claim in claims)
    assert num_predicted == overall["correct"] + overall["excess"]
    wrong = [claim for claim in claims if not claim.right]
    assert sum(claim.gold_label in ("A0", "R-A0", "A1") for claim in wrong) == overall["missed"]


def test_answers_are_claims() -> None:
    task = task_named("span_extraction")
    answerable = Question("a", "q", "c", (Answer("the red house", 0),))
    unanswerable = Question("b", "q", "c", ())
    texts = ("Red house", "a house", "tree", "")
    claims = [next(task.claims(answerable, text)) for text in texts]
    assert [(claim.predicted_label, claim.right) for claim in claims] == [
        ("exact", True),
        ("partial", False),
        ("wrong", False),
        ("no answer", False),
    ]
    assert [next(task.claims(unanswerable, text)).right for text in ("", "tree")] == [True, False]
    assert task.decisions(answerable, "", ()) == ([0], [False])
    assert task.decisions(answerable, "Red house", ()) == ([1], [True])


@given(
    st.lists(st.tuples(HALVES, HALVES), min_size=2, max_size=6),
    st.floats(-4, 4) | st.sampled_from([-1.5, -0.5, 0.0, 0.5]),
)
def test_the_predicted_answer_has_the_highest_probability(
    scores: list[tuple[float, float]], margin: float
) -> None:
    task, classes = task_named("span_extraction"), ("start", "end")
    thresholds = {"null_margin": margin}
    offsets = np.arange(len(scores) - 1)
    window = WindowLogits(
        np.append(0, offsets), np.append(0, offsets + 1), np.array(scores, np.float32)
    )
    question = Question("a", "q", "abcde"[: len(offsets)], ())
    answer = task.predictions([question], [task.decode(question, [window], classes)], thresholds)[
        "a"
    ]
    options = task.apply_thresholds(task.decision_logits(question, [window], classes), thresholds)
    decisions = gather([options], *task.decisions(question, answer, classes))
    assert decisions.confidence()[0] == softmax(options).max()
    result = task.result(question, [window], classes, thresholds)
    assert result.answer == answer
    highest = max((span.probability for span in result.spans), default=0.0)
    if answer == "":
        assert result.no_answer >= highest
    else:
        assert highest >= result.no_answer


def test_the_null_margin_is_applied_before_the_confidence() -> None:
    """With a null margin of 3, the logit of no answer is lowered by 3 before the softmax."""
    task, generator = task_named("span_extraction"), np.random.default_rng(0)
    options = generator.normal([3.0, 0.0], 3.0, (4000, 1, 2))
    shifted = [task.apply_thresholds(logits, {"null_margin": 3.0}) for logits in options]
    taken = [int(logits[0, 1] >= logits[0, 0]) for logits in shifted]
    right = [
        bool(generator.random() < softmax(logits)[0, option])
        for logits, option in zip(shifted, taken, strict=True)
    ]
    unshifted = gather(list(options), taken, right)
    assert (calibration_error(unshifted.confidence(), unshifted.right) or 0.0) > 0.1
    decisions = gather(shifted, taken, right)
    assert (calibration_error(decisions.confidence(), decisions.right) or 0.0) < 0.03


def test_top_two_compares_the_option_with_the_next_best_only() -> None:
    decisions = gather([np.array([[1.0, 3.0, 2.0]]), np.array([[4.0]])], [1, 0], [True, False])
    assert top_two(decisions).confidence().tolist() == pytest.approx([1 / (1 + np.exp(-1)), 1.0])
    assert top_two(decisions).right.tolist() == [True, False]
    assert top_two(gather([], [], [])).confidence().tolist() == []


def test_a_temperature_changes_the_confidence_but_not_the_prediction() -> None:
    window = WindowLogits(
        np.array([0, 0, 4]),
        np.array([0, 3, 7]),
        np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]], np.float32),
    )
    question = Question("a", "q", "Ada Bee", ())
    for name, example, classes in (
        ("span_extraction", question, ("start", "end")),
        ("token_classification", Sentence("a", ("x", "y", "z"), ("O",) * 3), ("O", "B-X", "I-X")),
    ):
        task = task_named(name)
        logits = (
            window
            if name == "span_extraction"
            else window._replace(
                begins=np.arange(3), logits=np.array([[0, 3, 0], [0, 0, 2], [4, 0, 0]], np.float32)
            )
        )
        raw, calibrated = (
            task.result(example, [logits], classes, {"temperature": value}) for value in (1.0, 4.0)
        )
        assert task.decision_logits(example, [logits], classes).shape[1] >= 3
        if name == "span_extraction":
            assert raw.answer == calibrated.answer
            assert raw.spans[0].probability > calibrated.spans[0].probability
            assert calibrated.spans[0].probability == pytest.approx(
                softmax(task.decision_logits(example, [logits], classes)[0], 4.0)[1]
            )
        else:
            assert [entity.text for entity in raw.entities] == ["x y"]
            assert [entity.text for entity in calibrated.entities] == ["x y"]
            assert calibrated.entities[0].score == pytest.approx(
                softmax(np.array([0.0, 0.0, 2.0]), 4.0)[2]
            )
