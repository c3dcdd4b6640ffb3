"""What tests of tasks encode: texts as token ids, and examples as features."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.features import Feature
from pipeline.tasks.base.task import Task


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text, without special tokens."""
    return tokenizer.encode_texts([text])[0][0]


def features_and_counts(
    task: Task[Any, Any, Any],
    tokenizer: Tokenizer,
    examples: Sequence[Any],
    classes: Sequence[str],
    max_length: int,
    first: int = 0,
) -> tuple[list[Feature], Counter[str]]:
    """The features of examples with a stride of 0, and the counts that are not 0."""
    counts: Counter[str] = Counter()
    features = task.featurize(examples, first, tokenizer, classes, max_length, 0, counts)
    return list(features), +counts
