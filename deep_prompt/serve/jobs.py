"""Requests as jobs of the model's thread, and their answers."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.inference.prediction import Prediction
from pipeline.tasks.base.row import Row

CHARACTERS_PER_TOKEN = 4  # of English text; it only decides when a batch is full
RowAnswer = Prediction | UserError


@dataclass(frozen=True)
class Pass:
    """One forward pass: its windows, the tasks among them, their tokens, and the padding."""

    rows: int
    tasks: int
    tokens: int
    padding: int


@dataclass(frozen=True)
class Answers:
    """The answer to each row of a request, and the passes of the batch that it was part of."""

    answers: Sequence[RowAnswer]
    passes: Sequence[Pass]


@dataclass(eq=False)
class Job:
    """The rows of a request, or a function to call in the model's thread.

    `tokens` is about how many tokens each row has. `answers` are those of the first rows.
    """

    rows: Sequence[Row]
    function: Callable[[], Any] | None = None
    future: "Future[Any]" = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    answers: list[RowAnswer] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    tokens: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [num_characters(row) // CHARACTERS_PER_TOKEN + 1 for row in self.rows]

    @property
    def num_waiting(self) -> int:
        """The number of rows without an answer; 0 if the client has left."""
        return 0 if self.future.cancelled() else len(self.rows) - len(self.answers)

    @property
    def waiting_tokens(self) -> int:
        """About how many tokens the rows without an answer have."""
        return sum(self.tokens[len(self.answers) :])

    def next_rows(self, budget: int) -> Sequence[Row]:
        """The next rows, of at most `budget` tokens."""
        first = last = len(self.answers)
        while last < len(self.rows) and (budget := budget - self.tokens[last]) >= 0:
            last += 1
        return self.rows[first:last]


def num_characters(value: Any, stop: int | None = None) -> int:
    """The number of characters of all texts in a value of JSON; other values count as one.

    The count may end early when it is above `stop`.
    """
    total, pending = 0, [value]
    while pending and (stop is None or total <= stop):
        item = pending.pop()
        total += len(item) if isinstance(item, str) else 1
        if isinstance(item, dict):
            pending += (*item.keys(), *item.values())
        elif isinstance(item, list):
            pending += item
    return total
