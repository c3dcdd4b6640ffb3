"""Rows, the output of readers and the input of tasks.

This module is separate from both, so that training does not depend on the code of a reader.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SPLITS = ("train", "validation", "test")

Row = dict[str, Any]
"""One unchecked example as plain Python. It always has `where` (its "file:line"); the task declares
the other keys (`RowKeys`)."""

TAG_PROBLEMS = "tag_problems"
"""The key of a row's problems (`errors.Problem`) if the tags in the file violate their scheme. The
task adds them to those that it finds, and refuses the row."""

ValueKind = Literal[
    "text",
    "name",
    "label",
    "tags",
    "texts",
    "references",
    "label_lists",
    "integer",
    "integers",
    "spans",
    "answers",
]
"""The kind of a key's value.

- A `name` is text; a file may write it as an integer. A `label` may also be true or false.
- `tags` are the labels of words: any scheme in a file, IOB2 in a row.
- `texts` and `integers` are lists. `references` are a list of texts; a file may have one text.
  `label_lists` are a list of lists of labels.
- `spans` are a list of mappings, each with the integers segment, start and end.
- `answers` are a list of mappings, each with text and the integer answer_start.
"""

RowsWith = Literal["all", "some", "none"]
"""How many rows of a corpus have an optional key."""

COMMON_KEYS: Mapping[str, ValueKind] = {"id": "name", "title": "name"}
"""Optional keys of every kind of task. Rows without `id` are numbered; `title` names the document
of a row."""


@dataclass(frozen=True)
class RowKeys:
    """The keys of a task's rows, each with the kind of its value.

    Every row has `inputs`, also a row to predict. An annotated row has `targets` too. A row may
    have `optional`.
    """

    inputs: Mapping[str, ValueKind]
    targets: Mapping[str, ValueKind]
    optional: Mapping[str, ValueKind] = field(default_factory=dict)

    @property
    def required(self) -> tuple[str, ...]:
        """The keys that an annotated row must have."""
        return (*self.inputs, *self.targets)

    @property
    def kinds(self) -> dict[str, ValueKind]:
        """The kind of each key that a row may have."""
        return {**COMMON_KEYS, **self.inputs, **self.targets, **self.optional}
