"""What a task may do beyond the contract of `Task`: a task's class inherits its capabilities.

A kind without a capability has the feature switched off. Callers ask `isinstance(task, HasUnits)`,
and the report says what is off.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pipeline.metrics.base import UnitCounts
from pipeline.tasks.base.claims import Claim, Floats
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.task import Task

E = TypeVar("E")
"""The task's example."""
P = TypeVar("P")
"""The predictions that `Task.score` takes."""


class HasUnits(ABC, Generic[E, P]):
    """The score is a function of sums over units, such as sentences or questions.

    The report has intervals and tests of differences, by the bootstrap over units.
    """

    @abstractmethod
    def counts(self, examples: Sequence[E], predictions: P, classes: Sequence[str]) -> UnitCounts:
        """The terms of `Task.score` by unit.

        A unit is resampled as a whole, since its parts are not independent.
        """


class HasConfidence(ABC, Generic[E]):
    """Predictions consist of decisions that have probabilities.

    The report has calibration, risk by coverage, confusion and the most confident mistakes.
    `claim_and_decision_names` are the plural nouns of its two levels: claims, which a reader
    judges, and the decisions that a claim consists of.
    """

    claim_and_decision_names: ClassVar[tuple[str, str]]

    @abstractmethod
    def decision_logits(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [M, K] of the K options of each of the example's M decisions."""

    def apply_thresholds(self, options: Floats, thresholds: Mapping[str, float]) -> Floats:
        """The logits [M, K] shifted by thresholds, so that a decision takes the greatest of them.

        Most tasks have no thresholds.
        """
        return options

    @abstractmethod
    def decisions(
        self, example: E, prediction: Any, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The option [M] of each decision of a final prediction, and whether it is right [M]."""

    @abstractmethod
    def claims(self, example: E, prediction: Any) -> Iterator[Claim]:
        """The claims of a final prediction, and the parts of the annotation that it misses."""


class Perturbable(ABC, Generic[E]):
    """An example's text can be edited: the stage `probe` scores perturbed test examples."""

    @abstractmethod
    def apply_edit(self, example: E, edit: Edit) -> E:
        """The example with edited texts, and its annotation on the same parts of them as before."""


class AnswersQuestions(ABC, Generic[E]):
    """A prediction is a text that answers `example.question` about `example.context`.

    The report compares confidences with the agreement of the answers to paraphrases.
    """

    @abstractmethod
    def ask(self, id: str, question: str, context: str) -> E:
        """The example of a question without annotation."""


class TagsWords(ABC, Generic[E]):
    """Examples have `tokens` and `tags` in IOB2, and predictions are such tags.

    The stage `out_of_domain` can map their labels; `probe` swaps entities if only words are read.
    """

    @abstractmethod
    def with_tags(self, example: E, tokens: Sequence[str], tags: Sequence[str]) -> E:
        """The example with other tokens and their tags."""


_OFF = (
    (HasConfidence, "gives no confidence"),
    (HasUnits, "gives no intervals"),
    (Perturbable, "is not perturbed"),
)


def switched_off(task: Task[Any, Any, Any]) -> str:
    """A sentence on the features that a kind of task leaves out; empty where it leaves out none."""
    off = [words for capability, words in _OFF if not isinstance(task, capability)]
    words = " and ".join(filter(None, [", ".join(off[:-1]), *off[-1:]]))
    return f"{task.name} {words}: pipeline/tasks/{task.name}.py leaves that out." if off else ""
