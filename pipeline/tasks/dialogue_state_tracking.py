"""Dialogue state tracking: the values of slots that a user asks for, turn by turn.

A turn is a window: the system's text, the user's text, and the name of each slot. The head predicts
the value of a slot at the slot's name, as SOM-DST predicts operations at slot tokens (Kim et al.
2020). The values of the ontology are the classes, so a new value cannot be predicted. An example is
a whole dialogue, because its state accumulates the predictions of its turns.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems, UserError
from pipeline.metrics import dialogue_states
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.metrics.dialogue_states import REQUEST, Dialogue, split_label, states
from pipeline.tasks.base.capabilities import (
    HasConfidence,
    HasUnits,
    Perturbable,
    Sample,
    ShowsSamples,
    ShowsSpans,
)
from pipeline.tasks.base.claims import Claim, Floats, softmax
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.marked_text import MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task
from pipeline.tasks.shared.dialogues import check_dialogue, label_lists, unlabeled

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

NONE = "none"
"""The first class: the turn says nothing about the slot."""

MIN_TURN_TOKENS = 16  # of a window


@dataclass(frozen=True)
class Example:
    """A dialogue of T turns: the system's text ("" if the user begins) and the user's reply.

    `labels` has the labels "slot=value" of each turn. They are empty in a row to predict.
    """

    id: str
    system: tuple[str, ...]
    user: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SlotValue:
    """The value of a slot, with its probability."""

    slot: str
    value: str
    score: float


@dataclass(frozen=True)
class Turn:
    """The labels of a turn, the slot "request" among them, and the state after the turn."""

    labels: tuple[SlotValue, ...]
    state: dict[str, str]


@dataclass(frozen=True)
class DialogueStates:
    """The turns of a dialogue."""

    turns: tuple[Turn, ...]


class Slot(NamedTuple):
    """A decision of each turn: the text that asks for it, and its classes besides NONE."""

    query: str
    values: tuple[str, ...]


class DialogueStateTracking(
    Task[Example, Sequence[Dialogue], DialogueStates],
    HasConfidence[Example],
    HasUnits[Example, Sequence[Dialogue]],
    Perturbable[Example],
    ShowsSamples[Example],
    ShowsSpans[Example, DialogueStates],
):
    """Predictions are dialogues, one per example in the examples' order.

    A turn has a decision for each slot, and for each value of the slot "request", which may have
    several values in a turn. The prediction for a turn is the class of each decision, maybe NONE.
    """

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("system", pa.list_(pa.string())),
            ("user", pa.list_(pa.string())),
            ("labels", pa.list_(pa.list_(pa.string()))),
        ]
    )
    row_keys = RowKeys(
        inputs={"system": "texts", "user": "texts"}, targets={"labels": "label_lists"}
    )
    inputs = ("system", "user")
    outputs = ("labels",)
    head = "classes"
    num_samples = 3
    claim_and_decision_names = ("slot values", "decisions about slots")
    metric_names = ("joint_goal_accuracy", "turn_request_accuracy", "turn_goal_accuracy")
    metric_titles: ClassVar[Mapping[str, str]] = {
        "joint_goal_accuracy": "joint goal accuracy",
        "turn_request_accuracy": "turn request accuracy",
        "turn_goal_accuracy": "turn goal accuracy",
    }
    glossary: ClassVar[Mapping[str, str]] = {
        "joint goal accuracy": "The percentage of turns after which all slots have the right "
        "value. An error counts in all later turns until it is corrected.",
        "turn request accuracy": "The percentage of turns whose requests are all right.",
    }

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels: required, unique, of the form slot=value."""
        return [
            *super().check_labels(labels),
            *(
                f"{label!r} is not a slot and its value; write slot=value"
                for label in labels
                if not all(map(str.strip, split_label(label)))
            ),
        ]

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """NONE, then the labels."""
        return (NONE, *labels)

    def labels(self, example: Example) -> Iterator[str]:
        """The labels of all turns."""
        return chain.from_iterable(example.labels)

    def expected_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The recipe's labels."""
        return tuple(labels)

    def from_record(self, record: dict[str, Any]) -> Example:
        """The inverse of `record`."""
        return Example(
            record["id"],
            tuple(record["system"]),
            tuple(record["user"]),
            tuple(map(tuple, record["labels"])),
        )

    def text(self, example: Example) -> str:
        """The texts of all turns, in order."""
        return " ".join(text for _, text in self.input_texts(example) if text)

    def input_texts(self, example: Example) -> Iterator[tuple[str, str]]:
        """The texts of all turns, in order."""
        for system, user in zip(example.system, example.user, strict=True):
            yield "system", system
            yield "user", user

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The dialogue. Labels must be in the recipe, with one value for each slot of a turn."""
        before, turns = len(problems), label_lists(row, problems)
        if turns is None:
            return None
        example = _example(row, turns, problems)
        for number, turn in enumerate(example.labels if example else ()):
            _check_turn(turn, labels, f"{row['where']}: turn {number}", problems)
        return example if len(problems) == before else None

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The dialogue without labels."""
        return _example(row, unlabeled(row), problems)

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The dialogue with each text edited."""
        return replace(example, system=edit.words(example.system), user=edit.words(example.user))

    def featurize(
        self,
        examples: Sequence[Example],
        first: int,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        max_length: int,
        stride: int,
        counts: Counter[str],
    ) -> Iterator[Feature]:
        """One window per turn, with a position for each decision.

        Of a turn that is too long, the end of the user's text and the beginning of the system's
        are cut, and counted. Raises UserError if there is no room for a turn.
        """
        slots = _slots(classes)
        queries = [ids for ids, _ in tokenizer.encode_texts([slot.query for slot in slots])]
        room = _room(queries, tokenizer, max_length)
        for number, example in enumerate(examples, first):
            texts = map(tokenizer.encode_texts, (example.system, example.user))
            turns = zip(*texts, example.labels, strict=True)
            for turn, ((system, _), (user, _), labels) in enumerate(turns):
                counts["turns cut"] += len(system) + len(user) > room
                ids, types, positions = _window(system, user, queries, room, tokenizer)
                begin = turn * len(slots)
                yield Feature(
                    example=number,
                    input_ids=ids,
                    token_types=types,
                    positions=positions,
                    labels=[classes.index(_option(slot, labels)) for slot in slots],
                    begins=range(begin, begin + len(slots)),
                    ends=range(begin + 1, begin + len(slots) + 1),
                    label_count=len(slots),
                )

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> list[tuple[str, ...]]:
        """The best class of each decision, turn by turn."""
        logits = self.decision_logits(example, window_logits, classes)
        return _best_classes(logits, len(example.user), classes)

    def predictions(
        self,
        examples: Sequence[Example],
        decoded: Sequence[Dialogue],
        thresholds: Mapping[str, float],
    ) -> Sequence[Dialogue]:
        """The decoded labels."""
        return decoded

    def score(
        self, examples: Sequence[Example], predictions: Sequence[Dialogue], classes: Sequence[str]
    ) -> Metrics:
        """Joint goal accuracy and turn request accuracy: `pipeline.metrics.dialogue_states`."""
        return dialogue_states.score(
            [example.labels for example in examples], list(map(_without_none, predictions))
        )

    def counts(
        self, examples: Sequence[Example], predictions: Sequence[Dialogue], classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each dialogue, because the states of its turns are not independent."""
        return dialogue_states.counts(
            [example.id for example in examples],
            [example.labels for example in examples],
            list(map(_without_none, predictions)),
        )

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [T * S, K] of the S decisions of each of the T turns.

        They are -inf for the values of other slots.
        """
        turns = sorted(window_logits, key=lambda window: int(window.begins[0]))
        logits = np.concatenate([window.logits for window in turns]).astype(np.float64)
        is_option = np.array(
            [[name == NONE or name in slot.values for name in classes] for slot in _slots(classes)]
        )
        return np.where(np.tile(is_option, (len(turns), 1)), logits, -np.inf)

    def decisions(
        self, example: Example, prediction: Dialogue, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The class [T * S] of each decision, and whether it is right [T * S]."""
        slots = _slots(classes)
        guesses = list(chain.from_iterable(prediction))
        gold = [_option(slot, turn) for turn in example.labels for slot in slots]
        return list(map(classes.index, guesses)), list(map(str.__eq__, guesses, gold))

    def claims(self, example: Example, prediction: Dialogue) -> Iterator[Claim]:
        """The predicted labels of each turn, and the annotated labels that it misses."""
        for number, (gold, guess) in enumerate(zip(example.labels, prediction, strict=True)):
            where = f"turn {number}: "
            for decision, label in enumerate(guess):
                if label != NONE:
                    expected = _same_slot(label, gold)
                    yield Claim(
                        (number * len(guess) + decision,),
                        expected,
                        label,
                        where + expected,
                        where + label,
                        label == expected,
                    )
            for label in gold:
                if _same_slot(label, guess) == NONE:
                    yield Claim((), label, NONE, where + label, "", False)

    def samples(self, example: Example, prediction: Dialogue) -> Iterator[Sample]:
        """The turns of the dialogue, each with the state after it and the requests."""
        dialogues = (example.labels, _without_none(prediction))
        traces = (map(_trace, dialogue, states(dialogue)) for dialogue in dialogues)
        yield from map(Sample, self.shown_texts(example), *traces)

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> DialogueStates:
        """The labels of each turn, and the state after it."""
        logits = self.decision_logits(example, window_logits, classes)
        prediction = _best_classes(logits, len(example.user), classes)
        scores = softmax(logits, thresholds.get("temperature", 1.0)).max(axis=1)
        return _result(prediction, scores.reshape(len(prediction), -1))

    def shown_texts(self, example: Example) -> tuple[str, ...]:
        """The system's and the user's text of each turn."""
        turns = zip(example.system, example.user, strict=True)
        return tuple(" · ".join(filter(None, turn)) for turn in turns)

    def annotation(self, example: Example) -> DialogueStates:
        """The annotated labels of each turn, and the state after it."""
        return _result(example.labels, [np.ones(len(turn)) for turn in example.labels])

    def marked_texts(self, texts: Sequence[str], result: DialogueStates) -> tuple[MarkedText, ...]:
        """Each turn below its labels and the state after it."""
        return tuple(
            MarkedText(text, (), _title(turn))
            for text, turn in zip(texts, result.turns, strict=True)
        )


TASK = DialogueStateTracking()


def _slots(classes: Sequence[str]) -> list[Slot]:
    """The decisions of a turn, in the order of their first classes."""
    values: dict[str, list[str]] = {}
    for label in classes:
        slot, value = split_label(label)
        if label != NONE:
            values.setdefault(f"{slot} {value}" if slot == REQUEST else slot, []).append(label)
    return [Slot(query, tuple(labels)) for query, labels in values.items()]


def _best_classes(logits: Floats, num_turns: int, classes: Sequence[str]) -> list[tuple[str, ...]]:
    """The class of each decision with the greatest of its logits [T * S, K], turn by turn."""
    best = logits.argmax(axis=1).reshape(num_turns, -1)
    return [tuple(classes[number] for number in turn) for turn in best]


def _option(slot: Slot, labels: Sequence[str]) -> str:
    """The class of a decision for a turn with these labels."""
    return next((label for label in labels if label in slot.values), NONE)


def _same_slot(label: str, labels: Sequence[str]) -> str:
    """The label that belongs to the same decision as `label`; NONE if `labels` have none."""
    if label in labels:
        return label
    slot, _ = split_label(label)
    others = (other for other in labels if split_label(other)[0] == slot != REQUEST)
    return next(others, NONE)


def _without_none(dialogue: Dialogue) -> Dialogue:
    return [[label for label in turn if label != NONE] for turn in dialogue]


def _room(queries: Sequence[Sequence[int]], tokenizer: "Tokenizer", max_length: int) -> int:
    """The number of tokens for the two texts of a turn."""
    parts = (tokenizer.prefix, tokenizer.middle, tokenizer.middle, tokenizer.suffix, *queries)
    room = max_length - sum(map(len, parts))
    if room < MIN_TURN_TOKENS:
        raise UserError(
            f"dialogue_state_tracking: max_length is {max_length}, which leaves {room} tokens for "
            f"a turn beside its {len(queries)} slots; raise it to at least "
            f"{max_length - room + MIN_TURN_TOKENS}"
        )
    return room


def _window(
    system: Sequence[int],
    user: Sequence[int],
    queries: Sequence[Sequence[int]],
    room: int,
    tokenizer: "Tokenizer",
) -> tuple[list[int], list[int], list[int]]:
    """The ids [N], the token types [N], and the positions of the last sub-words of the queries.

    The texts of the system and the user have at most `room` tokens together.
    """
    user = user[:room]
    system = system[max(0, len(system) + len(user) - room) :]
    head = [*tokenizer.prefix, *system, *tokenizer.middle]
    ids, positions = [*head, *user, *tokenizer.middle], list[int]()
    for query in queries:
        ids += query
        positions.append(len(ids) - 1)
    ids += tokenizer.suffix
    types = [0] * len(head) + [tokenizer.second_type] * (len(ids) - len(head))
    return ids, types, positions


def _result(labels: Dialogue, scores: Sequence[Floats]) -> DialogueStates:
    """The result for a dialogue with these labels and their probabilities."""
    turns = zip(labels, scores, states(_without_none(labels)), strict=True)
    return DialogueStates(
        tuple(
            Turn(
                tuple(
                    SlotValue(*split_label(label), float(score))
                    for label, score in zip(turn, turn_scores, strict=True)
                    if label != NONE
                ),
                state,
            )
            for turn, turn_scores, state in turns
        )
    )


def _trace(labels: Sequence[str], state: Mapping[str, str]) -> str:
    """The state after a turn and the requests of the turn, as a text."""
    requests = (label for label in labels if split_label(label)[0] == REQUEST)
    return ", ".join([*(f"{slot}={state[slot]}" for slot in sorted(state)), *requests])


def _title(turn: Turn) -> str:
    labels = ", ".join(f"{label.slot}={label.value} ({label.score:.2f})" for label in turn.labels)
    state = ", ".join(f"{slot}={value}" for slot, value in sorted(turn.state.items()))
    return f"{labels or NONE}; state: {state or NONE}"


def _example(row: Row, labels: Dialogue, problems: Problems) -> Example | None:
    if not check_dialogue(row, labels, problems):
        return None
    return Example(row["id"], tuple(row["system"]), tuple(row["user"]), tuple(map(tuple, labels)))


def _check_turn(turn: Sequence[str], labels: Sequence[str], where: str, problems: Problems) -> None:
    """Add problems for unknown labels."""
    for label in turn:
        if label not in labels:
            problems.add(
                where,
                f"label {label!r} is not in the recipe's labels; add it there, or correct it",
                "unknown-label",
            )
