"""Dialogue state tracking: the values of slots that a user asks for, turn by turn.

A turn is a window: the system's text, the user's text, and the name of each slot. The head predicts
the value of a slot at the slot's name, as SOM-DST predicts operations at slot tokens (Kim et al.
2020). The values of the ontology are the classes. An example is a whole dialogue, because its state
accumulates the predictions of its turns.

The label `food=*` of a recipe makes the slot food open: its values are words of the turn, so values
that no training row has can be predicted. As in BERT-DST (Chao and Lane 2019), the slot has a class
for a value in the turn, and the value is a span of the system's or the user's words. The span is
predicted by the tags B-food, I-food and O of the words, not by its start and its end, because a
position of this head has one class, and a value of one word would have two. All are classes of one
matrix, and the loss is the sum over slots and words. `pipeline.tasks.shared.value_spans` finds the
span. Closed values of an open slot, such as food=dontcare, stay classes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems
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
from pipeline.tasks.base.claims import Claim, Floats, softmax, temperature_of
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.marked_text import MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task
from pipeline.tasks.shared.dialogues import check_dialogue, label_lists, unlabeled
from pipeline.tasks.shared.slots import (
    NONE,
    Slot,
    declared_label,
    is_known,
    open_slot_problems,
    open_slots,
    slots_of,
    with_normalized_value,
)
from pipeline.tasks.shared.tagging import bio_classes
from pipeline.tasks.shared.turn_windows import (
    encoded_turns,
    room_for_turn,
    turn_text,
    turn_window,
    turn_words,
)
from pipeline.tasks.shared.validation import label_hint
from pipeline.tasks.shared.value_spans import ScoredWords, decide_open_slot, value_tags

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

UNKNOWN_VALUES = "values neither in the window nor in the labels"
"""The counter of values of open slots that are neither learned nor predicted.

The class of such a decision is NONE.
"""


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
            *open_slot_problems(labels),
        ]

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """NONE, then the labels; then the tags of values, if slots are open."""
        slots = open_slots(labels)
        return (NONE, *labels, *(bio_classes(slots) if slots else ()))

    def labels(self, example: Example) -> Iterator[str]:
        """The labels of all turns."""
        return chain.from_iterable(example.labels)

    def declared_labels(self, example: Example, labels: Sequence[str]) -> Iterator[str]:
        """The labels of all turns; food=* for a value of an open slot that is not a class."""
        return (declared_label(label, labels) for label in self.labels(example))

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
        """The dialogue. Labels must be in the recipe, with one value for each slot of a turn.

        Values of open slots are normalized, as predicted values are.
        """
        before, turns = len(problems), label_lists(row, problems)
        if turns is None:
            return None
        turns = [[with_normalized_value(label, labels) for label in turn] for turn in turns]
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
        """One window per turn, with a position for each decision, and for each word of open slots.

        Of a turn that is too long, the end of the user's text and the beginning of the system's
        are cut, and counted. Raises UserError if there is no room for a turn.
        """
        slots = slots_of(classes)
        queries = [ids for ids, _ in tokenizer.encode_texts([slot.query for slot in slots])]
        room = room_for_turn(queries, tokenizer, max_length)
        has_tags = any(slot.is_open for slot in slots)
        for number, example in enumerate(examples, first):
            turns = encoded_turns(example.system, example.user, tokenizer)
            for turn, (encoded, labels) in enumerate(zip(turns, example.labels, strict=True)):
                counts["turns cut"] += encoded.num_tokens > room
                ids, types, positions = turn_window(encoded, queries, room, tokenizer)
                words, num_system = turn_words(encoded, room, tokenizer) if has_tags else ([], 0)
                bounds = [(word.start, word.end) for word in words]
                text = turn_text(encoded.system.text, encoded.user.text)
                tags = value_tags(_open_values(slots, labels), text, bounds, num_system)
                targets = [_target(slot, labels, tags) for slot in slots]
                counts[UNKNOWN_VALUES] += sum(
                    target == NONE != slot.label(labels)
                    for slot, target in zip(slots, targets, strict=True)
                )
                decisions = range(turn * len(slots), (turn + 1) * len(slots))
                yield Feature(
                    example=number,
                    input_ids=ids,
                    token_types=types,
                    positions=[*positions, *(word.position for word in words)],
                    labels=[classes.index(name) for name in (*targets, *tags)],
                    begins=[*decisions, *(start for start, _ in bounds)],
                    ends=[*(decision + 1 for decision in decisions), *(end for _, end in bounds)],
                    label_count=len(slots) + len(words),
                )

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> list[tuple[str, ...]]:
        """The label of each decision, turn by turn: its best class, or the value of its span."""
        return _decide(example, window_logits, classes)[0]

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

        They are -inf for the values of other slots, and for tags. If slots are open, there is one
        column more. The logit of the class food=* is then that of the best value in the turn, and
        the last column has that of all other values in the turn.
        """
        return _decide(example, window_logits, classes)[1]

    def decisions(
        self, example: Example, prediction: Dialogue, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The class [T * S] of each decision, and whether its label is right [T * S]."""
        slots = slots_of(classes)
        guesses = list(chain.from_iterable(prediction))
        gold = [slot.label(turn) for turn in example.labels for slot in slots]
        return _options(prediction, classes), list(map(str.__eq__, guesses, gold))

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
        prediction, logits = _decide(example, window_logits, classes)
        probabilities = softmax(logits, temperature_of(thresholds))
        scores = probabilities[np.arange(len(logits)), _options(prediction, classes)]
        return _result(prediction, list(scores.reshape(len(prediction), -1)))

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


def _open_values(slots: Sequence[Slot], labels: Sequence[str]) -> dict[str, str]:
    """The value of each open slot that the labels of a turn have."""
    open_labels = {slot.query: slot.label(labels) for slot in slots if slot.is_open}
    return {slot: split_label(label)[1] for slot, label in open_labels.items() if label != NONE}


def _target(slot: Slot, labels: Sequence[str], tags: Sequence[str]) -> str:
    """The class of a decision for a turn with these labels, whose words have these tags."""
    if f"B-{slot.query}" in tags:
        return slot.any_value
    label = slot.label(labels)
    return label if label in slot.values else NONE


def _options(prediction: Dialogue, classes: Sequence[str]) -> list[int]:
    """The class [T * S] of each label of a prediction."""
    slots = slots_of(classes)
    return [
        classes.index(slot.option(label))
        for turn in prediction
        for slot, label in zip(slots, turn, strict=True)
    ]


def _decide(
    example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
) -> tuple[list[tuple[str, ...]], Floats]:
    """The label of each decision, turn by turn, and the logits of `decision_logits`."""
    slots = slots_of(classes)
    turns = sorted(window_logits, key=lambda window: int(window.begins[0]))
    logits = np.concatenate([window.logits[: len(slots)] for window in turns]).astype(np.float64)
    is_option = np.array(
        [[name == NONE or name in slot.values for name in classes] for slot in slots]
    )
    logits = np.where(np.tile(is_option, (len(turns), 1)), logits, -np.inf)
    labels = [classes[number] for number in logits.argmax(axis=1)]
    if any(slot.is_open for slot in slots):
        logits = np.pad(logits, ((0, 0), (0, 1)), constant_values=-np.inf)
        texts = zip(turns, example.system, example.user, strict=True)
        words = [_scored_words(*turn, first=len(slots)) for turn in texts]
        for row, (turn, slot) in enumerate(product(words, slots)):
            if slot.is_open:
                labels[row], logits[row] = decide_open_slot(slot, logits[row], turn, classes)
    width = len(slots)
    return [tuple(labels[row : row + width]) for row in range(0, len(labels), width)], logits


def _scored_words(window: WindowLogits, system: str, user: str, first: int) -> ScoredWords:
    """The words of a turn with the logits of their tags, from position `first` of its window."""
    begins, ends = window.begins[first:].tolist(), window.ends[first:].tolist()
    return ScoredWords(
        turn_text(system, user),
        list(zip(begins, ends, strict=True)),
        sum(begin < len(system) for begin in begins),
        window.logits[first:].astype(np.float64),
    )


def _same_slot(label: str, labels: Sequence[str]) -> str:
    """The label that belongs to the same decision as `label`; NONE if `labels` have none."""
    if label in labels:
        return label
    slot, _ = split_label(label)
    others = (other for other in labels if split_label(other)[0] == slot != REQUEST)
    return next(others, NONE)


def _without_none(dialogue: Dialogue) -> Dialogue:
    return [[label for label in turn if label != NONE] for turn in dialogue]


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
        if not is_known(label, labels):
            problems.add(
                where,
                f"label {label!r} makes the slot open and is not one of its values; replace * by "
                "the value"
                if label in labels
                else f"label {label!r} is not in the recipe's labels; {label_hint(label, labels)}",
                "unknown-label",
            )
