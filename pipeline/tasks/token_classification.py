"""Token classification: a label for spans of tokens that do not overlap, such as named entities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import Metrics, spans
from pipeline.readers.base import Row
from pipeline.recipe import Recipe
from pipeline.tasks.tagging import TaggingTask, Tags, bio_classes, check_tags


@dataclass(frozen=True)
class Example:
    """A sentence: T tokens and T tags in IOB2."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]


class TokenClassification(TaggingTask[Example]):
    """Predictions are tags in IOB2 (orphan I- tags allowed), one list per example in the examples' order."""

    schema = pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.string())), ("tags", pa.list_(pa.string()))])
    keys = ("tokens", "tags")

    def example(self, row: Row, recipe: Recipe, problems: Problems) -> Example | None:
        """The sentence, unless a tag is not among the recipe's labels or tags and tokens differ in number."""
        if not check_tags(row, recipe.labels, problems):
            return None
        return Example(row["id"], tuple(row["tokens"]), tuple(row["tags"]))

    def restore(self, record: dict[str, Any]) -> Example:
        """The inverse of `record`."""
        return Example(record["id"], tuple(record["tokens"]), tuple(record["tags"]))

    def marked(self, example: Example) -> int | None:
        """None: entities are found without a hint."""
        return None

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """O, then B-X and I-X for each entity type X."""
        return bio_classes(labels)

    def score(self, examples: Sequence[Example], predictions: Tags) -> Metrics:
        """Entity precision, recall and F1 as conlleval computes them: `pipeline.metrics.spans`."""
        return spans.score([example.tags for example in examples], predictions)
