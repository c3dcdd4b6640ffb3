"""Dialogue states as text: a decoder writes the state after the last turn of a dialogue.

The text is "slot = value" of each slot, as in SimpleTOD (Hosseini-Asl et al. 2020). Values are not
classes, so a value that no training row has can be predicted. An example is a dialogue up to one of
its turns; its state is written anew, so no error of a previous turn is inherited.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import dialogue_states
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.metrics.dialogue_states import REQUEST, Dialogue, split_label, states
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.dialogues import check_dialogue, label_lists, unlabeled
from pipeline.tasks.shared.generation import GenerationTask

NO_VALUES = "none"
"""The text of a state without values and requests."""


@dataclass(frozen=True)
class Example:
    """A dialogue up to a turn: T texts of the system ("" if the user begins) and T of the user.

    `labels` are the labels "slot=value" of the state after the last turn, and its requests. They
    are empty in a row to predict. Examples of the same `dialogue` are not independent ("": an
    example of its own).
    """

    id: str
    dialogue: str
    system: tuple[str, ...]
    user: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class GeneratedState:
    """A generated text, and the state and requests in it. It has no confidence."""

    text: str
    state: dict[str, str]
    requests: tuple[str, ...]

    def __str__(self) -> str:
        return self.text


class DialogueStateGeneration(GenerationTask[Example, GeneratedState]):
    """A dialogue up to a turn, and the state after it."""

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("dialogue", pa.string()),
            ("system", pa.list_(pa.string())),
            ("user", pa.list_(pa.string())),
            ("labels", pa.list_(pa.string())),
        ]
    )
    row_keys = RowKeys(
        inputs={"system": "texts", "user": "texts"}, targets={"labels": "label_lists"}
    )
    inputs = ("system", "user")
    outputs = ("labels",)
    keeps_end = True
    metric_names = ("joint_goal_accuracy", "turn_request_accuracy")
    metric_titles: ClassVar[Mapping[str, str]] = {
        "joint_goal_accuracy": "joint goal accuracy",
        "turn_request_accuracy": "turn request accuracy",
        "values_of_other_slots": "predicted values of other slots",
    }
    glossary: ClassVar[Mapping[str, str]] = {
        "joint goal accuracy": "The percentage of turns after which all slots have the right "
        "value, and no other slot has one.",
        "turn request accuracy": "The percentage of turns whose requests are all right.",
        "predicted values of other slots": "The number of predicted values of slots that no turn "
        "of the split has.",
    }

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The dialogue. Labels are slot=value, with one value for each slot of a turn.

        Warns if the row is a whole dialogue (it has no title), but only its last turn is a target.
        """
        before, turns = len(problems), label_lists(row, problems)
        if turns is None:
            return None
        for number, turn in enumerate(turns):
            _check_syntax(turn, f"{row['where']}: turn {number}", problems)
        example = _example(row, turns, problems) if len(problems) == before else None
        if example is not None and len(turns) > 1 and not row.get("title"):
            problems.add(
                row["where"],
                f"a dialogue of {len(turns)} turns without a title: only the state after its last "
                f"turn is learned and scored, the {len(turns) - 1} before are not; set rows: turns "
                "in the options of woz_json, or write a row for each turn, with the name of the "
                "dialogue as title",
                "turns-without-target",
            )
        return example

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The dialogue without labels."""
        return _example(row, unlabeled(row), problems)

    def split_group(self, row: Row) -> str:
        """The title, which is that of the dialogue; without it, the user's first text."""
        return str(row.get("title") or row["user"][:1])

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The dialogue with each text edited."""
        return replace(example, system=edit.words(example.system), user=edit.words(example.user))

    def source(self, example: Example) -> str:
        """The texts of all turns, in order, each after the name of its speaker."""
        turns = zip(example.system, example.user, strict=True)
        return " ".join(
            f"{speaker}: {text}"
            for turn in turns
            for speaker, text in zip(("system", "user"), turn, strict=True)
            if text
        )

    def references(self, example: Example) -> tuple[str, ...]:
        """The text of the annotated state."""
        return (_text(example.labels),)

    def score(
        self, examples: Sequence[Example], predictions: Sequence[str], classes: Sequence[str]
    ) -> Metrics:
        """Joint goal accuracy and turn request accuracy: `pipeline.metrics.dialogue_states`.

        The labels of the metrics are the annotated slots. A text may have any other, such as half a
        sentence; their values are only counted.
        """
        scores = dialogue_states.score(*_dialogues(examples, predictions))
        overall = {name: scores.overall[name] for name in (*self.metric_names, "turns")}
        slots = {slot: values for slot, values in scores.labels.items() if values["gold"]}
        overall["values_of_other_slots"] = sum(
            values["predicted"] for slot, values in scores.labels.items() if slot not in slots
        )
        return Metrics(overall, slots)

    def counts(
        self, examples: Sequence[Example], predictions: Sequence[str], classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each dialogue, because its turns are not independent."""
        units = [example.dialogue or example.id for example in examples]
        return dialogue_states.counts(units, *_dialogues(examples, predictions))

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> GeneratedState:
        """The generated text, and the state and requests in it."""
        text = self.decode(example, window_logits, classes)
        labels = _labels(text)
        (state,) = states([labels])
        pairs = map(split_label, labels)
        return GeneratedState(text, state, tuple(value for slot, value in pairs if slot == REQUEST))


TASK = DialogueStateGeneration()


def _example(row: Row, turns: Dialogue, problems: Problems) -> Example | None:
    if not check_dialogue(row, turns, problems):
        return None
    *_, state = states(turns)
    goals = tuple(f"{slot}={state[slot]}" for slot in sorted(state))
    requests = tuple(label for label in turns[-1] if split_label(label)[0] == REQUEST)
    return Example(
        row["id"],
        str(row.get("title") or ""),
        tuple(row["system"]),
        tuple(row["user"]),
        goals + requests,
    )


def _check_syntax(turn: Sequence[str], where: str, problems: Problems) -> None:
    """Add a problem for each label that its text would not give back."""
    for label in turn:
        if _labels(_text([label])) != (label,):
            problems.add(
                where,
                f"label {label!r} is not a slot and its value; write slot=value, without "
                "semicolons, and without space around the two",
                "invalid-label",
            )


def _text(labels: Sequence[str]) -> str:
    """The text of labels "slot=value"."""
    return "; ".join(" = ".join(split_label(label)) for label in labels) or NO_VALUES


def _labels(text: str) -> tuple[str, ...]:
    """The labels in a text. A part without a value is a label too, and never a right one."""
    parts = (part.partition("=") for part in text.split(";") if part.strip() not in ("", NO_VALUES))
    return tuple(f"{slot.strip()}={value.strip()}" for slot, _, value in parts)


def _dialogues(
    examples: Sequence[Example], predictions: Sequence[str]
) -> tuple[list[Dialogue], list[Dialogue]]:
    """The annotated and the predicted labels, of each turn as a dialogue of its own."""
    gold: list[Dialogue] = [[example.labels] for example in examples]
    return gold, [[_labels(text)] for text in predictions]
