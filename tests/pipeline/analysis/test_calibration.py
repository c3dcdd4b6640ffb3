"""Calibration: values counted by hand, a temperature that is known, and what a temperature may not do."""

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

HALVES = st.integers(-6, 6).map(lambda number: number / 2)  # so that scores are often equal
SURE, RIGHT = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])


def drawn(heat: float, options: int = 4, number: int = 20_000) -> Decisions:
    """The best of the options each, right as often as the softmax of logits / heat says."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (number, options))
    taken = logits.argmax(axis=1)
    chance = softmax(logits, heat)[np.arange(number), taken]
    return Decisions(logits, taken, draw.random(number) < chance)


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.7])
def test_the_temperature_is_found_and_calibrates(heat: float) -> None:
    decisions = drawn(heat)
    found = temperature(decisions)["temperature"]
    assert found == pytest.approx(heat, rel=0.05)
    error = calibration_error(decisions.confidence(found), decisions.right)
    assert error is not None
    assert error < 0.015
    if heat != 1.0:
        assert (calibration_error(decisions.confidence(), decisions.right) or 0.0) > 0.03


def test_a_temperature_changes_no_order() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (50, 6))
    for heat in (0.1, 1.0, 9.0):
        assert (softmax(logits, heat).argsort(axis=1) == logits.argsort(axis=1)).all()
        assert softmax(logits, heat).sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("right", [[True, True], [False, False], []])
def test_all_right_or_all_wrong_says_nothing_of_a_temperature(right: list[bool]) -> None:
    logits = [np.zeros((len(right), 3))]
    assert temperature(gather(logits, [0] * len(right), right)) == {}


def test_options_that_are_not_there_have_no_share() -> None:
    decisions = gather(
        [np.array([[0.0, 0.0]]), np.array([[1.0, 1.0, 1.0, 1.0]])], [1, 3], [True, False]
    )
    assert decisions.confidence().tolist() == pytest.approx([0.5, 0.25])
    assert decisions.confidence(7.0).tolist() == pytest.approx([0.5, 0.25])


def test_errors_by_hand() -> None:
    assert calibration_error(SURE, RIGHT) == pytest.approx((2 * 0.45 + 2 * 0.45) / 4)
    assert brier(SURE, RIGHT) == pytest.approx((0.05**2 + 0.95**2 + 2 * 0.45**2) / 4)
    assert [one.size for one in bins(SURE, RIGHT)] == [2, 2]
    assert bins(np.array([0.0, 1 / 15, 1.0]), np.array([False, False, True]))[0].size == 2, (
        "a bin has its upper edge"
    )


def test_risk_by_coverage_by_hand() -> None:
    coverage, risk = risk_coverage(SURE, RIGHT)
    assert coverage.tolist() == [0.5, 1.0], "equally sure ones come together"
    assert risk.tolist() == [0.5, 0.25]
    assert risk_area(SURE, RIGHT) == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    assert risk_area(np.array([0.9, 0.8]), np.array([True, True])) == 0.0


def test_nothing_said_has_no_error() -> None:
    nothing = np.empty(0), np.empty(0, np.bool_)
    assert [calibration_error(*nothing), brier(*nothing), risk_area(*nothing), bins(*nothing)] == [
        None,
        None,
        None,
        [],
    ]


def test_spans_are_claims_and_so_is_what_is_left_out() -> None:
    task = task_named("token_classification")
    example = Sentence(
        "a",
        ("Ada", "of", "New", "York", "met", "Bo", "Li"),
        ("B-PER", "O", "B-LOC", "I-LOC", "O", "B-PER", "I-PER"),
    )
    claims = list(task.claims(example, ["B-ORG", "O", "B-LOC", "I-LOC", "B-LOC", "B-PER", "O"]))
    assert [(one.gold_label, one.predicted_label, one.right) for one in claims] == [
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
    assert [one.predicted for one in srl.claims(proposition, ["B-A0", "B-V", "O"])] == [
        "A0: Ada",
        "",
    ], "V is told"


def test_the_pieces_of_an_argument_are_one_claim() -> None:
    task = task_named("semantic_role_labeling")
    example = Proposition(
        "a", ("He", "said", "Bo", "ran", "fast"), 1, ("B-A1", "B-V", "B-C-A1", "I-C-A1", "B-A2")
    )
    claims = list(task.claims(example, ["B-A1", "B-V", "B-C-A1", "O", "B-A2"]))
    assert [(one.decisions, one.gold, one.predicted, one.right) for one in claims] == [
        ((0, 2), "A1: He … Bo ran", "A1: He … Bo", False),
        ((4,), "A2: fast", "A2: fast", True),
        ((), "A1: He … Bo ran", "", False),
    ]
    assert [one.right for one in task.claims(example, example.tags)] == [True, True]


ROLES = st.sampled_from(
    ["O", "B-V", "I-V", "B-A0", "I-A0", "B-C-A0", "I-C-A0", "B-R-A0", "B-A1", "B-C-A1", "B-C-V"]
)


@given(st.lists(st.tuples(ROLES, ROLES), min_size=1, max_size=12))
def test_right_claims_are_those_that_the_score_counts(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = map(list, zip(*pairs, strict=True))
    task = task_named("semantic_role_labeling")
    example = Proposition("a", ("x",) * len(gold), 0, tuple(gold))
    claims, scored = (
        list(task.claims(example, predicted)),
        task.score([example], [predicted], ()).overall,
    )
    said = [one for one in claims if one.predicted]
    assert sum(one.right for one in claims) == scored["correct"]
    assert len(said) == scored["correct"] + scored["excess"]
    assert (
        sum(not one.right and one.gold_label in ("A0", "R-A0", "A1") for one in claims)
        == scored["missed"]
    )


def test_answers_are_claims() -> None:
    task = task_named("span_extraction")
    asked, unanswerable = (
        Question("a", "q", "c", (Answer("the red house", 0),)),
        Question("b", "q", "c", ()),
    )
    said = [next(task.claims(asked, text)) for text in ("Red house", "a house", "tree", "")]
    assert [(one.predicted_label, one.right) for one in said] == [
        ("exact", True),
        ("partial", False),
        ("wrong", False),
        ("no answer", False),
    ]
    assert [next(task.claims(unanswerable, text)).right for text in ("", "tree")] == [True, False]
    assert task.decisions(asked, "", ()) == ([0], [False])
    assert task.decisions(asked, "Red house", ()) == ([1], [True])


@given(
    st.lists(st.tuples(HALVES, HALVES), min_size=2, max_size=6),
    st.floats(-4, 4) | st.sampled_from([-1.5, -0.5, 0.0, 0.5]),
)
def test_what_is_said_of_an_answer_is_what_is_surest(
    scores: list[tuple[float, float]], margin: float
) -> None:
    task, classes, thresholds = (
        task_named("span_extraction"),
        ("start", "end"),
        {"null_margin": margin},
    )
    places = np.arange(len(scores) - 1)
    window = WindowLogits(
        np.append(0, places), np.append(0, places + 1), np.array(scores, np.float32)
    )
    question = Question("a", "q", "abcde"[: len(places)], ())
    said = task.predictions([question], [task.decode(question, [window], classes)], thresholds)["a"]
    options = task.apply_thresholds(task.decision_logits(question, [window], classes), thresholds)
    decisions = gather([options], *task.decisions(question, said, classes))
    assert decisions.confidence()[0] == softmax(options).max()
    told = task.result(question, [window], classes, thresholds)
    assert told.answer == said
    surest = max((span.probability for span in told.spans), default=0.0)
    assert (told.no_answer >= surest) if said == "" else (surest >= told.no_answer)


def test_the_margin_for_no_answer_belongs_in_the_confidence() -> None:
    """The chance that there is no answer is that of its score less 3, as a threshold of 3 has it."""
    task, draw = task_named("span_extraction"), np.random.default_rng(0)
    options = draw.normal([3.0, 0.0], 3.0, (4000, 1, 2))
    moved = [task.apply_thresholds(one, {"null_margin": 3.0}) for one in options]
    taken = [int(one[0, 1] >= one[0, 0]) for one in moved]
    right = [
        bool(draw.random() < softmax(one)[0, choice])
        for one, choice in zip(moved, taken, strict=True)
    ]
    plain, weighted = (gather(logits, taken, right) for logits in (list(options), moved))
    errors = [calibration_error(one.confidence(), one.right) or 0.0 for one in (plain, weighted)]
    assert errors[0] > 0.1
    assert errors[1] < 0.03


def test_the_margin_to_the_next_best_alone() -> None:
    decisions = gather([np.array([[1.0, 3.0, 2.0]]), np.array([[4.0]])], [1, 0], [True, False])
    assert top_two(decisions).confidence().tolist() == pytest.approx([1 / (1 + np.exp(-1)), 1.0])
    assert top_two(decisions).right.tolist() == [True, False]
    assert top_two(gather([], [], [])).confidence().tolist() == []


def test_a_result_has_the_calibrated_confidence_and_the_same_prediction() -> None:
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
        cold, warm = (
            task.result(example, [logits], classes, {"temperature": heat}) for heat in (1.0, 4.0)
        )
        assert task.decision_logits(example, [logits], classes).shape[1] >= 3
        if name == "span_extraction":
            assert cold.answer == warm.answer
            assert cold.spans[0].probability > warm.spans[0].probability
            assert warm.spans[0].probability == pytest.approx(
                softmax(task.decision_logits(example, [logits], classes)[0], 4.0)[1]
            )
        else:
            assert (
                [one.text for one in cold.entities]
                == [one.text for one in warm.entities]
                == ["x y"]
            )
            assert warm.entities[0].score == pytest.approx(
                softmax(np.array([0.0, 0.0, 2.0]), 4.0)[2]
            )
