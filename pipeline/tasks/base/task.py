"""The contract of a task: everything specific to a kind of annotation, from a row to a score.

A task is independent of corpora, mixtures and files.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics.base import UNSPACED, Metrics
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row, RowKeys

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

HeadKind = Literal["classes", "positions", "verbalizer", "language_model"]
"""A head predicts a class at every position ("classes"), a position for each class ("positions"),
or, with the backbone's LM head, the word of a class ("verbalizer") or the next token of a text
("language_model")."""

LM_HEADS: frozenset[HeadKind] = frozenset({"verbalizer", "language_model"})
"""The heads without parameters of their own: they use the LM head of the backbone."""

E = TypeVar("E")
"""The task's example: a frozen dataclass whose fields are the columns of `schema`."""
P = TypeVar("P")
"""The predictions that `score` takes."""
R = TypeVar("R")
"""The result for one row to predict: a frozen dataclass of plain values."""


class Task(ABC, Generic[E, P, R]):
    """One kind of task. Its only state is that of `configured`.

    A new kind is a file in pipeline/tasks. The file ends in `TASK = ...`, an instance of the class.

    A kind sets each declaration below that has no value, and implements the abstract methods: its
    example, features, decoding, predictions, score and result. All other methods have a default.
    A kind may add confidence, intervals and perturbation (`pipeline.tasks.base.capabilities`); the
    report lists the missing capabilities.

    - `example_type` is the class of the examples, `schema` their columns on disk.
    - `row_keys` are the keys of its rows.
    - `inputs` are the columns that the model reads, `outputs` those that it predicts.
    - `max_answer_length` is the maximum length of a predicted answer or text in sub-words; None if
      predictions are neither spans of a context nor generated.
    - `metric_names` are the metrics of `score` that a recipe may choose to compare runs by. The
      first is the default.
    - `metric_keys` has the optional key of a row that a metric needs, if it needs one.
    - `metric_titles` are the report's titles of metrics, if they differ from the names.
    - `has_labels` is whether a corpus has a list of labels; if not, a recipe may not have the key.
    - `collects_labels` is whether the labels of a corpus are those of its examples, the most
      frequent of the training split first, and not labels of the recipe.
    - `min_train_labels` is the number of different labels without which nothing can be learned.
    - `glossary` explains terms in the report that are specific to this kind.
    - `pipeline_tag` is the name of the kind on the Hugging Face hub.
    """

    example_type: ClassVar[type[Any]]
    schema: ClassVar[pa.Schema]
    row_keys: ClassVar[RowKeys]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    head: ClassVar[HeadKind]
    max_answer_length: int | None = None
    metric_names: ClassVar[tuple[str, ...]]
    metric_keys: ClassVar[Mapping[str, str]] = {}
    metric_titles: ClassVar[Mapping[str, str]] = {}
    has_labels: ClassVar[bool] = True
    collects_labels: ClassVar[bool] = False
    min_train_labels: ClassVar[int] = 1
    glossary: ClassVar[Mapping[str, str]] = {}
    pipeline_tag: ClassVar[str] = "other"

    @abstractmethod
    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> E | None:
        """The checked example of a row. The row has all required keys, `id` and `where`.

        Returns None, and adds problems, if the row is not valid.
        """

    @abstractmethod
    def example_for_prediction(self, row: Row, problems: Problems) -> E | None:
        """The checked example of a row without annotation.

        The row has `query_keys` with values of any type. Returns None, and adds problems, if the
        row is not valid.
        """

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
        """The windows of the examples, at most `max_length` tokens [T] each.

        `first` is the number of `examples[0]` in its split. Windows of one example overlap by about
        `stride` tokens. `counts` counts the effects of `max_length` (truncation and splitting) by
        kind. No label is truncated silently.
        """

    @abstractmethod
    def decode(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Any:
        """The prediction for an example from the logits of all its windows, before thresholds."""

    @abstractmethod
    def predictions(
        self, examples: Sequence[E], decoded: Sequence[Any], thresholds: Mapping[str, float]
    ) -> P:
        """Final predictions in the form that `score` takes: in the examples' order, or by id."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: P, classes: Sequence[str]) -> Metrics:
        """Compare predictions with the examples' annotations, as the official script does."""

    @abstractmethod
    def result(
        self,
        example: E,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> R:
        """The result for a user's row, from the logits of all its windows."""

    @property
    def name(self) -> str:
        """The name in recipes: the name of the file."""
        return type(self).__module__.rpartition(".")[2]

    def configured(
        self, metric: str | None = None, max_answer_length: int | None = None
    ) -> "Task[E, P, R]":
        """The task with the settings of a corpus (None: the default of the kind).

        `metric` is one of `metric_names`, the metric to compare runs by. `max_answer_length` is in
        sub-words. By default, a kind has no settings.
        """
        return self

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns of which no two splits may have the same values. By default, the inputs."""
        return self.inputs

    @property
    def query_keys(self) -> tuple[str, ...]:
        """The keys that a row must have for a prediction."""
        return tuple(self.row_keys.inputs)

    def check_query(
        self, example: E, classes: Sequence[str], where: str, problems: Problems
    ) -> None:
        """Add the problems of an example to predict that depend on the classes of the head.

        By default, there are none.
        """

    def check_window(
        self, example: E, tokenizer: "Tokenizer", max_length: int, where: str, problems: Problems
    ) -> None:
        """Add a problem if windows of `max_length` tokens cannot hold an example.

        By default, `featurize` splits or truncates every example to fit.
        """

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels. By default, labels are required and unique.

        With `has_labels = False`, there must be none.
        """
        if not self.has_labels:
            return ["the task has no labels; remove the key"] if labels else []
        if not labels:
            return ["the task needs the list of its labels; add it"]
        return [
            f"{label!r} occurs twice; remove one of them"
            for label in sorted({label for label in labels if labels.count(label) > 1})
        ]

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The names of the head's outputs for these labels, in order. By default, the labels."""
        return tuple(labels)

    def from_record(self, record: dict[str, Any]) -> E:
        """The inverse of `record`. `record` is an item of `pyarrow.Table.to_pylist()`.

        By default, lists become tuples. A task with nested values overrides this method.
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
        """The group of a row. All rows of a group go to the same split. By default, its inputs."""
        return str([row[key] for key in self.row_keys.inputs])

    def text(self, example: E) -> str:
        """The text that must not be in two splits. By default, all text of `inputs`."""
        return " ".join(text for name in self.inputs for text in _texts(getattr(example, name)))

    def num_tokens(self, example: E) -> int:
        """The number of words (not of the backbone's sub-words). By default, those of `text`."""
        return num_words(self.text(example))

    def labels(self, example: E) -> Iterator[str]:
        """The label of each annotation, repeated as often as it occurs.

        By default, there are none. Then `prepare` neither counts labels nor checks that the
        training split contains them.
        """
        return iter(())

    def declared_labels(self, example: E, labels: Sequence[str]) -> Iterator[str]:
        """The labels that `prepare` counts: those of the example, as a recipe declares them.

        `labels` are those of the recipe. By default, the labels of the example. A kind in which one
        label of a recipe stands for many of the examples overrides this method.
        """
        return self.labels(example)

    def expected_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The labels of annotations without which a split has nothing to learn or to score.

        `labels` are those of the recipe. By default, there are none, so no split is checked.
        """
        return ()

    def fit_thresholds(self, examples: Sequence[E], decoded: Sequence[Any]) -> dict[str, float]:
        """The thresholds with the best score on decoded *validation* examples.

        By default, there are none.
        """
        return {}


def in_order(examples: Sequence[Any], predictions: Any) -> Iterator[Any]:
    """The predictions in the order of the examples.

    `predictions` is the result of `Task.predictions`: a mapping from example id, or a list.
    """
    yield from (
        (predictions[example.id] for example in examples)
        if isinstance(predictions, Mapping)
        else predictions
    )


def num_words(text: str) -> int:
    """The number of words between spaces.

    Each character of a script that is written without spaces counts as a word.
    """
    return len((text if text.isascii() else UNSPACED.sub(r" \g<0> ", text)).split())


def is_text_list(value: Any) -> bool:
    """Whether a value of a user's row is a list of texts."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    return value if is_text_list(value) else ()
