"""Optional capabilities of a task, beyond the contract of `Task`: base classes for it to inherit.

A kind without a capability does not support the feature. Callers check `isinstance(task,
HasUnits)`, and the report lists the unsupported features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from pipeline.metrics.base import UnitCounts
from pipeline.tasks.base.candidates import RankingQuery
from pipeline.tasks.base.claims import Claim, Floats
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.marked_text import MarkedText
from pipeline.tasks.base.task import Task, is_text_list

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_SHOWN_REFERENCES = 3  # of a generated text

E = TypeVar("E")
"""The task's example."""
P = TypeVar("P")
"""The predictions that `Task.score` takes."""
R = TypeVar("R")
"""The result for a row to predict."""


class HasUnits(ABC, Generic[E, P]):
    """Scores are functions of sums over units, such as sentences or questions.

    The report has their intervals, and tests of differences if the primary metric is one of them,
    by the bootstrap over units.
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
    judges, and the decisions that a claim consists of. `claim_input` is the input that the spans of
    claims are in; "" if claims have no spans.
    """

    inputs: ClassVar[tuple[str, ...]]
    claim_and_decision_names: ClassVar[tuple[str, str]]
    claim_input: ClassVar[str] = ""

    @abstractmethod
    def decision_logits(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [M, K] of the K options of each of the example's M decisions."""

    def apply_thresholds(self, options: Floats, thresholds: Mapping[str, float]) -> Floats:
        """The logits [M, K] shifted by thresholds, so that each decision is their argmax.

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

    def input_texts(self, example: E) -> Iterator[tuple[str, str]]:
        """The texts that a reader needs to judge claims, each with the name of its input.

        By default, there is one text for each of `inputs`. Lists of other values than texts have
        none.
        """
        for name in self.inputs:
            value = getattr(example, name)
            if isinstance(value, int):
                yield name, f"{name} {value}"
            elif isinstance(value, str):
                yield name, value
            elif is_text_list(value):
                yield name, " ".join(value)


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

    @abstractmethod
    def similarity(self, answer: str, other: str) -> float:
        """The similarity of two answers, from 0 to 1."""


class HasParaphrases(ABC, Generic[E, P]):
    """An example can be asked in other words: the stage `probe` compares the answers."""

    @abstractmethod
    def paraphrased(self, example: E) -> tuple[list[E], int]:
        """The example and its paraphrases, without annotation.

        Also returns the number of paraphrases that the model cannot read, which are left out.
        """

    @abstractmethod
    def answers(self, predictions: P) -> list[str]:
        """The answer of each prediction."""


class Sample(NamedTuple):
    """A part of an example, such as a turn, with its annotation and its prediction as texts."""

    source: str
    references: str
    text: str


class ShowsSamples(ABC, Generic[E]):
    """The report shows the predictions for some examples beside their annotations.

    `num_samples` is the number of these examples.
    """

    num_samples: ClassVar[int] = 10

    @abstractmethod
    def samples(self, example: E, prediction: Any) -> Iterator[Sample]:
        """The parts of an example, in order."""


class GeneratesText(ShowsSamples[E]):
    """The prediction of an example is a text that the LM head of a decoder generates.

    Its source consists of the tokens up to the first position of its first window. The text has at
    most `max_answer_length` tokens.
    """

    max_answer_length: int

    @abstractmethod
    def source(self, example: E) -> str:
        """The text to generate from."""

    @abstractmethod
    def references(self, example: E) -> tuple[str, ...]:
        """The annotated texts."""

    def samples(self, example: E, prediction: str) -> Iterator[Sample]:
        """The text, and the first of the references with " / " between them."""
        references = " / ".join(self.references(example)[:MAX_SHOWN_REFERENCES])
        yield Sample(self.source(example), references, prediction)


class RanksCandidates(ABC, Generic[E]):
    """The prediction of an example is the order of candidate texts after its window.

    The candidates are in the classes. The LM head of a decoder gives their probabilities.
    """

    @abstractmethod
    def asker(
        self, classes: Sequence[str], tokenizer: "Tokenizer"
    ) -> Callable[[E, Sequence[int]], RankingQuery]:
        """The function that makes a query of an example and the tokens before the candidates.

        It is made once for many examples, because the trees of candidates are large.
        """

    @abstractmethod
    def query_values(self, classes: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Key of a row to predict -> the values that a head with these classes can answer."""


class TagsWords(ABC, Generic[E]):
    """Examples have `tokens` and `tags` in IOB2, and predictions are tags in IOB2.

    The stage `out_of_domain` can map their labels; `probe` swaps entities if words are the only
    input. A row to predict may have `text` in place of `tokens`.
    """

    @abstractmethod
    def with_tags(self, example: E, tokens: Sequence[str], tags: Sequence[str]) -> E:
        """The example with other tokens and their tags."""

    @abstractmethod
    def in_characters(self, result: Any, text: str, bounds: Sequence[tuple[int, int]]) -> Any:
        """The result of a sentence with positions in the text of the sentence.

        The starts and ends of `result` count words. `bounds` has the characters [start, end) of
        each word of `text`.
        """


class ShowsSpans(ABC, Generic[E, R]):
    """Results are spans of texts: notebooks and pages show them in color."""

    @abstractmethod
    def shown_texts(self, example: E) -> tuple[str, ...]:
        """The texts of an example that its results are about."""

    @abstractmethod
    def annotation(self, example: E) -> R:
        """The annotation of an example as a result, with positions in `shown_texts`."""

    @abstractmethod
    def marked_texts(self, texts: Sequence[str], result: R) -> tuple[MarkedText, ...]:
        """The texts with the spans of a result, which has positions in these texts."""


class MarksPredicate(ABC, Generic[R]):
    """The input names a word of the sentence, its `predicate`, which another task can find.

    `finder_classes` are the classes of a head that finds predicates.
    """

    finder_classes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def sentence_result(self, results: Sequence[R], scores: Sequence[float]) -> Any:
        """The result of a sentence from those of its predicates, which have these probabilities."""


_FEATURES = (
    (HasConfidence, "confidence"),
    (HasUnits, "intervals"),
    (Perturbable, "perturbation"),
)


def unsupported_features(task: Task[Any, Any, Any]) -> str:
    """A sentence on the features that a kind of task does not support; empty if there are none."""
    names = [name for capability, name in _FEATURES if not isinstance(task, capability)]
    if not names:
        return ""
    features = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{task.name} does not support {features}."
