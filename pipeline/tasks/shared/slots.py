"""The slots of dialogues: their decisions, the classes of these, and open slots.

The label `food=*` of a recipe makes the slot food open: its value is a span of the turn, or one of
the other labels of the slot.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.metrics.dialogue_states import REQUEST, split_label

NONE = "none"
"""The first class: the turn says nothing about the slot."""

ANY_VALUE = "*"
"""The value in the label that makes a slot open; the label is the class of a value in the turn."""


class Slot(NamedTuple):
    """A decision of each turn: the text that asks for it, and its classes besides NONE.

    The query of an open slot is its name.
    """

    query: str
    values: tuple[str, ...]

    @property
    def any_value(self) -> str:
        """The class of a value in the turn. Only an open slot has it among its `values`."""
        return f"{self.query}={ANY_VALUE}"

    @property
    def is_open(self) -> bool:
        """Whether a value may be a span of the turn."""
        return self.any_value in self.values

    def label(self, labels: Sequence[str]) -> str:
        """The label of the slot among those of a turn; NONE if there is none."""
        for label in labels:
            if label in self.values or (self.is_open and split_label(label)[0] == self.query):
                return label
        return NONE

    def option(self, label: str) -> str:
        """The class of NONE or of a label of the slot."""
        return label if label == NONE or label in self.values else self.any_value


def slots_of(classes: Sequence[str]) -> list[Slot]:
    """The decisions of a turn, in the order of their first classes.

    The slot "request" has one for each value. NONE and tags have no "=", and are no labels.
    """
    values: dict[str, list[str]] = {}
    for label in classes:
        slot, value = split_label(label)
        if "=" in label:
            values.setdefault(f"{slot} {value}" if slot == REQUEST else slot, []).append(label)
    return [Slot(query, tuple(labels)) for query, labels in values.items()]


def open_slots(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of the slots that the labels of a recipe, or the classes of a head, make open."""
    pairs = map(split_label, labels)
    return tuple(slot for slot, value in pairs if value == ANY_VALUE)


def open_slot_problems(labels: Sequence[str]) -> Iterator[str]:
    """The problems of a recipe's labels of open slots."""
    slots = open_slots(labels)
    if REQUEST in slots:
        yield (
            f"{REQUEST}={ANY_VALUE} is not possible, because a turn may have several values of "
            f"{REQUEST!r}; replace it by a label for each value"
        )
    for label in labels:
        slot, value = split_label(label)
        if slot in slots and value != normalized(value):
            yield (
                f"{label!r} is a value of the open slot {slot!r}, whose values are in lower case "
                f"with single spaces; write {slot}={normalized(value)}"
            )


def declared_label(label: str, labels: Sequence[str]) -> str:
    """The label among the `labels` of a recipe that stands for a label of a row.

    It is food=* for a value of the open slot food that is not in `labels`.
    """
    slot, _ = split_label(label)
    any_value = f"{slot}={ANY_VALUE}"
    return any_value if label not in labels and any_value in labels else label


def with_normalized_value(label: str, labels: Sequence[str]) -> str:
    """The label of a row, with its value normalized if its slot is open."""
    slot, value = split_label(label)
    return f"{slot}={normalized(value)}" if f"{slot}={ANY_VALUE}" in labels else label


def is_known(label: str, labels: Sequence[str]) -> bool:
    """Whether a row may have a label: one of `labels`, or a value of an open slot."""
    return split_label(label)[1] not in ("", ANY_VALUE) and declared_label(label, labels) in labels


def normalized(text: str) -> str:
    """The text in lower case, with single spaces."""
    return " ".join(text.lower().split())
