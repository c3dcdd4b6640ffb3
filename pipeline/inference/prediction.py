"""Predictions, which print as text and show in notebooks with colored spans."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from pipeline.display.highlighting import to_html, to_plain
from pipeline.tasks.base.marked_text import MarkedText


@dataclass(frozen=True)
class Prediction:
    """The result of a task for one row. `id` is the row's `id`, or its number from 0.

    `texts` are the texts of the row with the spans of the result, for display; empty if the kind of
    task does not support it. `labels` are all labels of the task, which determine the colors. `cut`
    counts the parts of the row that the model did not read as a whole, such as `texts cut`.
    """

    id: str | int
    task: str
    result: Any
    texts: tuple[MarkedText, ...] = field(default=(), repr=False, compare=False)
    labels: tuple[str, ...] = field(default=(), repr=False, compare=False)
    cut: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)

    def asdict(self) -> dict[str, Any]:
        """The id, task and result, and `cut` if it is not empty, as values for JSON."""
        values = {"id": self.id, "task": self.task, "result": dataclasses.asdict(self.result)}
        return values | ({"cut": dict(self.cut)} if self.cut else {})

    def __str__(self) -> str:
        return to_plain(self.texts) if self.texts else str(self.result)

    def _repr_html_(self) -> str:
        """The texts with colored spans. Notebooks call this method."""
        if not self.texts:
            return f"<pre>{escape(str(self.result))}</pre>"
        return to_html(self.texts, self.labels)


class Predictions(list[Prediction]):
    """A list of predictions that prints one after the other."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        """All predictions. Notebooks call this method."""
        return "".join(prediction._repr_html_() for prediction in self)
