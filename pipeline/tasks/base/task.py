"""The contract of a task: everything particular to a kind of annotation, from a row to a score.

A task knows no corpus, no mixture and no file.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics.base import Metrics
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row, RowKeys

if TYPE_CHECKING:  # for its type only: preparing a corpus needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

HeadKind = Literal["classes", "positions", "verbalizer"]
"""A head predicts a class at every position ("classes"), a position for each class ("positions"),
or by the backbone's LM head a word that stands for a class ("verbalizer")."""

E = TypeVar("E")
"""The task's example: a frozen dataclass whose fields are the columns of `schema`."""
P = TypeVar("P")
"""The predictions that `score` takes."""
R = TypeVar("R")
"""The result of one row that is to be predicted: a frozen dataclass of plain values."""


class Task(ABC, Generic[E, P, R]):
    """One kind of task, without state. A new kind is a file in pipeline/tasks that ends in
    `TASK = ...`, an instance of its class.

    A kind needs the declarations below that have no value, and the abstract methods: its example,
    features, decoding, predictions, score and result. All other methods have a default. It may add
    confidence, intervals and perturbation (`pipeline.tasks.base.capabilities`); the report says
    which of them it leaves out.

    - `example_type` is the class of the examples, `schema` the columns that they have on disk.
    - `row_keys` are the keys of its rows.
    - `inputs` are the columns that the model reads, `outputs` those that it predicts.
    - `metric_names` are the figures of `score` that recipes may compare runs by, the default first.
    - `metric_titles` are the report's words for its figures, where these are not their names.
    - `glossary` explains words that only this kind brings into the report.
    - `pipeline_tag` is the Hugging Face hub's name for the kind.
    """

    example_type: ClassVar[type[Any]]
    schema: ClassVar[pa.Schema]
    row_keys: ClassVar[RowKeys]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    head: ClassVar[HeadKind]
    metric_names: ClassVar[tuple[str, ...]]
    metric_titles: ClassVar[Mapping[str, str]] = {}
    glossary: ClassVar[Mapping[str, str]] = {}
    pipeline_tag: ClassVar[str] = "other"

    @abstractmethod
    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> E | None:
        """The checked example of a row, which has all required keys, `id` and `where`.

        Returns None, and adds problems, if the row is not sound.
        """

    @abstractmethod
    def example_for_prediction(self, row: Row, problems: Problems) -> E | None:
        """Like `example`, of a row without annotation: `query_keys` with values of any type."""

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

    @abstractmethod
    def predictions(
        self, examples: Sequence[E], decoded: Sequence[Any], thresholds: Mapping[str, float]
    ) -> P:
        """Final predictions, as `score` takes them: in the examples' order, or by the examples' ids."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: P, classes: Sequence[str]) -> Metrics:
        """Compare predictions with the examples' annotations, as the task's official script does."""

    @abstractmethod
    def result(
        self,
        example: E,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> R:
        """The answer to a user's row, from the logits of all its windows."""

    @property
    def name(self) -> str:
        """The name that recipes use: that of the file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def query_keys(self) -> tuple[str, ...]:
        """The keys that a row must have for a prediction."""
        return tuple(self.row_keys.inputs)

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels; by default, there are some, each once."""
        if not labels:
            return ["the task needs the list of its labels; add it"]
        return [
            f"{label!r} is there twice; remove one"
            for label in sorted({label for label in labels if labels.count(label) > 1})
        ]

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The names of the head's outputs, in order, for these labels; by default the labels."""
        return tuple(labels)

    def from_record(self, record: dict[str, Any]) -> E:
        """The inverse of `record`, of one record as `pyarrow.Table.to_pylist` returns it.

        By default lists become tuples; a task with nested values overrides it.
        """
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        example: E = self.example_type(**values)
        return example

    def record(self, example: E) -> dict[str, Any]:
        """The example as a record of `schema`."""
        return dict(vars(example))

    def split_group(self, row: Row) -> str:
        """The group of a row: all rows of a group are in one split. By default, its inputs."""
        return str([row[key] for key in self.row_keys.inputs])

    def text(self, example: E) -> str:
        """The text that must not be in two splits; by default all text of `inputs`."""
        return " ".join(text for name in self.inputs for text in _texts(getattr(example, name)))

    def num_tokens(self, example: E) -> int:
        """The number of words (not of the backbone's sub-words); by default those of `text`."""
        return len(self.text(example).split())

    def labels(self, example: E) -> Iterator[str]:
        """The label of each annotation, repeated as often as it occurs.

        By default there are none; then no labels are counted, and none is looked for in train.
        """
        return iter(())

    def fit_thresholds(self, examples: Sequence[E], decoded: Sequence[Any]) -> dict[str, float]:
        """The thresholds with the best score on decoded *validation* examples; most need none."""
        return {}


def is_text_list(value: Any) -> bool:
    """Whether a value of a user's row is a list of texts."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    return value if is_text_list(value) else ()
