"""What a task is: everything particular to a kind of annotation, from a row to a score. It knows no corpus, mixture or disk."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.claims import Claim, Floats
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row

if TYPE_CHECKING:  # for its type only: preparing a corpus needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

HeadKind = Literal["classes", "positions", "verbalizer"]
"""What a head picks: a class at every position; a position for each of its classes; one of some words by the LM head."""

E = TypeVar("E")
"""The task's example: a frozen dataclass whose fields are the columns of `schema`."""
P = TypeVar("P")
"""The predictions that `score` takes."""
R = TypeVar("R")
"""What is said of a row that is to be predicted: a frozen dataclass of plain values."""


class Task(ABC, Generic[E, P, R]):
    """One kind of task, without state. A new one is a file in pipeline/tasks that ends in `TASK = ...` of its class.

    `keys` are what rows must have, `query_keys` what they need for a prediction. `figures` are those of `score` that a recipe may
    compare runs by; the first is the usual one. `inputs` are the columns of `schema` that the model is shown, `outputs` those
    that it should say. `says` names what a prediction is made of: its claims, and its decisions. `pipeline_tag` is what the Hugging
    Face hub calls it. Under a "verbalizer" head, classes are words that the LM head predicts.
    """

    schema: ClassVar[pa.Schema]
    keys: ClassVar[tuple[str, ...]]
    query_keys: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    head: ClassVar[HeadKind]
    claim_and_decision_names: ClassVar[tuple[str, str]]
    metric_names: ClassVar[tuple[str, ...]]
    pipeline_tag: ClassVar[str]

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """What is wrong with a recipe's labels; most tasks need some."""
        if not labels:
            return ["the task needs the list of its labels; add it"]
        return [
            f"{label!r} is there twice; remove one"
            for label in sorted({one for one in labels if labels.count(one) > 1})
        ]

    @abstractmethod
    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> E | None:
        """The checked example of a row that has `keys`, `id` and `where`; None, and problems added, where it is not sound."""

    @abstractmethod
    def example_for_prediction(self, row: Row, problems: Problems) -> E | None:
        """Like `example`, of a row that has `query_keys`, of any types, and no annotation."""

    @abstractmethod
    def from_record(self, record: dict[str, Any]) -> E:
        """The example of one record of the Parquet file, as `pyarrow.Table.to_pylist` gives it: the inverse of `record`."""

    @abstractmethod
    def split_group(self, row: Row) -> str:
        """What must not be in two splits at once. Rows of the same group are assign_split into the same split."""

    @abstractmethod
    def labels(self, example: E) -> Iterator[str]:
        """The label of each annotation in an example, repeated as often as it occurs."""

    @abstractmethod
    def text(self, example: E) -> str:
        """The text that must not be both trained and tested on: the sentence, or the context."""

    @abstractmethod
    def num_tokens(self, example: E) -> int:
        """Its number of tokens, as the corpus has them: words, not the backbone's sub-words."""

    @abstractmethod
    def apply_edit(self, example: E, edit: Edit) -> E:
        """The example with its texts changed by an edit, and its annotation pointing to what it did before."""

    @abstractmethod
    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The names of the head's outputs, in order, for a corpus with these labels."""

    @abstractmethod
    def featurize(
        self,
        examples: Sequence[E],
        first: int,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        max_length: int,
        stride: int,
        counts: Counter[str],
    ) -> Iterator[Feature]:
        """The windows of examples, of which `examples[0]` is number `first` of its split.

        Whatever does not fit into `max_length` is counted in `counts` by what happened; no label is cut silently.
        """

    @abstractmethod
    def decode(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Any:
        """One example's prediction from the logits of all its windows, before any threshold."""

    def fit_thresholds(self, examples: Sequence[E], decoded: Sequence[Any]) -> dict[str, float]:
        """Thresholds that make the most of decoded *validation* examples; most tasks need none."""
        return {}

    @abstractmethod
    def predictions(
        self, examples: Sequence[E], decoded: Sequence[Any], thresholds: Mapping[str, float]
    ) -> P:
        """Final predictions, as `score` takes them."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: P, classes: Sequence[str]) -> Metrics:
        """Compare predictions with the examples' annotations, as the task's official script does."""

    @abstractmethod
    def counts(self, examples: Sequence[E], predictions: P, classes: Sequence[str]) -> UnitCounts:
        """What `score` adds up, by unit: what must be resampled as a whole, since what is in it is not independent."""

    @abstractmethod
    def decision_logits(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [M, K] of what each of the example's decisions is between."""

    def apply_thresholds(self, options: Floats, thresholds: Mapping[str, float]) -> Floats:
        """An example's `options` [M, K] as thresholds move them, so that confidences are in what was decided; most move none."""
        return options

    @abstractmethod
    def decisions(
        self, example: E, prediction: Any, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """Which of its `options` each decision of an example's final prediction has taken [M], and whether that is right [M]."""

    @abstractmethod
    def claims(self, example: E, prediction: Any) -> Iterator[Claim]:
        """What an example's final prediction says and leaves out."""

    @abstractmethod
    def result(
        self,
        example: E,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> R:
        """What to tell a user of one query, from the logits of all its windows."""

    def record(self, example: E) -> dict[str, Any]:
        """The example as a record of `schema`."""
        return dict(vars(example))


def is_text_list(value: Any) -> bool:
    """Whether a value of a user's row is a list of texts."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
