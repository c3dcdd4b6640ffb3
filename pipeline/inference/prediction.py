"""Predictions, which print as text and show in notebooks with colored spans."""

import dataclasses
from dataclasses import dataclass, field
from html import escape
from typing import Any

from pipeline.display.highlighting import to_html, to_plain
from pipeline.tasks.base.marked_text import MarkedText


@dataclass(frozen=True)
class Prediction:
    """The result of a task for one row. `id` is the row's `id`, or its number from 0.

    `texts` are the texts of the row with the spans of the result, for display; empty if the kind of
    task does not support it. `labels` are all labels of the task, which determine the colors.
    """

    id: str | int
    task: str
    result: Any
    texts: tuple[MarkedText, ...] = field(default=(), repr=False, compare=False)
    labels: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def asdict(self) -> dict[str, Any]:
        """The id, task and result as plain values that JSON can represent."""
        return {"id": self.id, "task": self.task, "result": dataclasses.asdict(self.result)}

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
