"""Scores of dialogue state tracking, turn by turn, as defined for WoZ 2.0.

Mrkšić et al. (2017), Neural Belief Tracker: Data-Driven Dialogue State Tracking. A turn has labels
"slot=value". Those of the slot "request" ask for information about an entity; the others are goals.
The state after a turn has the last value of each slot among the goals up to the turn.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

from pipeline.metrics.base import Metrics, UnitCounts, counts_by_label, sum_by_unit

REQUEST = "request"
Dialogue = Sequence[Sequence[str]]
"""The labels of each turn."""


def split_label(label: str) -> tuple[str, str]:
    """The slot and the value of a label "slot=value"."""
    slot, _, value = label.partition("=")
    return slot, value


def states(dialogue: Dialogue) -> Iterator[dict[str, str]]:
    """The value of each slot after each turn."""
    state: dict[str, str] = {}
    for turn in dialogue:
        state = state | dict(split_label(label) for label in turn if not _is_request(label))
        yield state


def score(gold: Sequence[Dialogue], predicted: Sequence[Dialogue]) -> Metrics:
    """`joint_goal_accuracy`, `turn_goal_accuracy`, `turn_request_accuracy` and `turns`.

    They are the percentages of the turns with the right state, the right new goals, and the right
    requests. The labels of the metrics are the slots, with precision, recall and F1 of their values
    in the turns.

    Raises ValueError if the numbers of dialogues or of turns differ.
    """
    right: Counter[str] = Counter()
    for pair in zip(gold, predicted, strict=True):
        for turn in _right_turns(*pair):
            right.update(turn)
    return Metrics(
        {
            f"{name}_accuracy": 100.0 * right[name] / max(1, right["turns"])
            for name in ("joint_goal", "turn_goal", "turn_request")
        }
        | {"turns": right["turns"], "dialogues": len(gold)},
        _slot_scores(gold, predicted),
    )


def counts(
    units: Sequence[str], gold: Sequence[Dialogue], predicted: Sequence[Dialogue]
) -> UnitCounts:
    """The sums behind `score`, by unit. A unit is the unit of a dialogue, of all its turns."""
    turns = [
        (unit, turn)
        for unit, *pair in zip(units, gold, predicted, strict=True)
        for turn in _right_turns(*pair)
    ]
    names = ("joint_goal", "turn_goal", "turn_request", "turns")
    return sum_by_unit(
        [unit for unit, _ in turns],
        {name: [turn[name] for _, turn in turns] for name in names},
        {f"{name}_accuracy": ((name, "turns"),) for name in names[:3]},
    )


def _right_turns(gold: Dialogue, predicted: Dialogue) -> Iterator[dict[str, bool]]:
    """Whether the state, the goals and the requests of each turn are right."""
    for reference, guess, state, guessed_state in zip(
        gold, predicted, states(gold), states(predicted), strict=True
    ):
        yield {
            "joint_goal": state == guessed_state,
            "turn_goal": _goals(reference) == _goals(guess),
            "turn_request": _requests(reference) == _requests(guess),
            "turns": True,
        }


def _slot_scores(
    gold: Sequence[Dialogue], predicted: Sequence[Dialogue]
) -> dict[str, dict[str, float]]:
    turns = list(zip(chain(*gold), chain(*predicted), strict=True))
    labels = (
        (label for reference, _ in turns for label in reference),
        (label for _, guess in turns for label in guess),
        (label for reference, guess in turns for label in {*reference} & {*guess}),
    )
    slots = (Counter(split_label(label)[0] for label in group) for group in labels)
    return {slot: counts.scores() for slot, counts in counts_by_label(*slots).items()}


def _goals(turn: Sequence[str]) -> set[str]:
    return {label for label in turn if not _is_request(label)}


def _requests(turn: Sequence[str]) -> set[str]:
    return {label for label in turn if _is_request(label)}


def _is_request(label: str) -> bool:
    return split_label(label)[0] == REQUEST
