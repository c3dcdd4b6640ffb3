"""Consistency: whether a model gives the same answer to paraphrases of a question.

It is the percentage of pairs of templates of a fact whose best objects are equal (Elazar et al.
2021, Measuring and Improving Consistency in Pretrained Language Models). An answer need not be
right.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipeline.model.prompted_model import PromptedModel
from pipeline.tasks.base.capabilities import HasParaphrases


@dataclass(frozen=True)
class Paraphrases:
    """The paraphrases of examples, each with the number of its example, in order.

    An example is a paraphrase of itself. `num_refused` is the number of those that the model cannot
    read.
    """

    numbers: tuple[int, ...]
    examples: tuple[Any, ...]
    num_refused: int

    @property
    def num_pairs(self) -> int:
        """The number of pairs of paraphrases of the same example."""
        return sum(count * (count - 1) // 2 for count in Counter(self.numbers).values())


def paraphrases_of(task: HasParaphrases[Any, Any], examples: Sequence[Any]) -> Paraphrases:
    """All paraphrases of the examples, without annotation."""
    numbers, variants, num_refused = list[int](), list[Any](), 0
    for number, example in enumerate(examples):
        found, refused = task.paraphrased(example)
        numbers += [number] * len(found)
        variants += found
        num_refused += refused
    return Paraphrases(tuple(numbers), tuple(variants), num_refused)


def consistency(paraphrases: Paraphrases, answers: Sequence[str]) -> float | None:
    """The percentage of pairs with the same answer; None if there is no pair.

    `answers` are those to the paraphrases, in order.
    """
    if not paraphrases.num_pairs:
        return None
    same = sum(left == right for left, right in _pairs(paraphrases.numbers, answers))
    return 100.0 * same / paraphrases.num_pairs


def _pairs(numbers: Sequence[int], answers: Sequence[str]) -> Iterator[tuple[str, str]]:
    by_number: dict[int, list[str]] = {}
    for number, answer in zip(numbers, answers, strict=True):
        by_number.setdefault(number, []).append(answer)
    for group in by_number.values():
        yield from combinations(group, 2)


@contextmanager
def without_prompt(model: PromptedModel) -> Iterator[None]:
    """Within the context, the model has no prompt."""
    prompt, model.prompt = model.prompt, None
    try:
        yield
    finally:
        model.prompt = prompt
