"""What a task is: everything particular to a kind of annotation, from a row to a score. It knows no corpus, mixture or disk."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.features import Feature, WindowLogits
from pipeline.metrics import Metrics
from pipeline.readers.base import Row
from pipeline.recipe import Recipe

if TYPE_CHECKING:  # for its type only: preparing a corpus needs no tokenizer
    from pipeline.tokenizer import Tokenizer

E = TypeVar("E")
"""The task's example: a frozen dataclass whose fields are the columns of `schema`."""
P = TypeVar("P")
"""The predictions that `score` takes."""


class Task(ABC, Generic[E, P]):
    """One kind of task, without state. `primary` is the figure of `score` that runs are compared by."""

    schema: ClassVar[pa.Schema]
    keys: ClassVar[tuple[str, ...]]
    head: ClassVar[Literal["classes", "positions", "verbalizer"]]
    primary: ClassVar[str] = "f1"

    @abstractmethod
    def example(self, row: Row, recipe: Recipe, problems: Problems) -> E | None:
        """The checked example of a row that has `keys`, `id` and `where`; None, and problems added, where it is not sound."""

    @abstractmethod
    def restore(self, record: dict[str, Any]) -> E:
        """The example of one record of the Parquet file, as `pyarrow.Table.to_pylist` gives it: the inverse of `record`."""

    @abstractmethod
    def group(self, row: Row) -> str:
        """What must not be in two splits at once. Rows of the same group are carved into the same split."""

    @abstractmethod
    def labels(self, example: E) -> Iterator[str]:
        """The label of each annotation in an example, repeated as often as it occurs."""

    @abstractmethod
    def text(self, example: E) -> str:
        """The text that must not be both trained and tested on: the sentence, or the context."""

    @abstractmethod
    def size(self, example: E) -> int:
        """Its number of tokens, as the corpus has them: words, not the backbone's sub-words."""

    @abstractmethod
    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The names of the head's outputs, in order, for a corpus with these labels."""

    @abstractmethod
    def featurize(self, examples: Sequence[E], first: int, tokenizer: "Tokenizer", classes: Sequence[str], max_length: int,
                  stride: int, counts: Counter[str]) -> Iterator[Feature]:
        """The windows of examples, of which `examples[0]` is number `first` of its split.

        Whatever does not fit into `max_length` is counted in `counts` by what happened; no label is cut silently.
        """

    @abstractmethod
    def decode(self, example: E, seen: Sequence[WindowLogits], classes: Sequence[str]) -> Any:
        """One example's prediction from the logits of all its windows, before any threshold."""

    def decide(self, examples: Sequence[E], decoded: Sequence[Any]) -> dict[str, float]:
        """Thresholds that make the most of decoded *validation* examples; most tasks need none."""
        return {}

    @abstractmethod
    def predictions(self, examples: Sequence[E], decoded: Sequence[Any], thresholds: dict[str, float]) -> P:
        """Final predictions, as `score` takes them."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: P) -> Metrics:
        """Compare predictions with the examples' annotations, as the task's official script does."""

    def record(self, example: E) -> dict[str, Any]:
        """The example as a record of `schema`."""
        return dict(vars(example))
