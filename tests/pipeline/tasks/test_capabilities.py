"""The defaults of the task contract, and the optional capabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import Problems
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.capabilities import HasUnits, unsupported_features
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task


@dataclass(frozen=True)
class Example:
    """Words, a number, a text, and a verdict about them."""

    id: str
    words: tuple[str, ...]
    number: int
    text: str
    verdict: str


class MinimalTask(Task[Example, Sequence[str], str]):
    """A kind of task without any capability."""

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("words", pa.list_(pa.string())),
            ("number", pa.int32()),
            ("text", pa.string()),
            ("verdict", pa.string()),
        ]
    )
    row_keys = RowKeys(
        {"words": "texts", "number": "integer"}, {"verdict": "label"}, {"text": "text"}
    )
    inputs = ("words", "number", "text")
    outputs = ("verdict",)
    head = "classes"
    metric_names = ("right",)

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        raise NotImplementedError

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        raise NotImplementedError

    def featurize(self, *arguments: Any) -> Any:
        raise NotImplementedError

    def decode(self, *arguments: Any) -> str:
        raise NotImplementedError

    def predictions(self, *arguments: Any) -> Sequence[str]:
        raise NotImplementedError

    def score(self, *arguments: Any) -> Metrics:
        raise NotImplementedError

    def result(self, *arguments: Any) -> str:
        raise NotImplementedError


class TaskWithUnits(MinimalTask, HasUnits[Example, Sequence[str]]):
    """The same kind with units."""

    def counts(self, *arguments: Any) -> UnitCounts:
        raise NotImplementedError


TASK, EXAMPLE = MinimalTask(), Example("a", ("Ada", "ran"), 7, "to Bonn", "yes")


def test_default_record_round_trips() -> None:
    (record,) = pa.Table.from_pylist([TASK.record(EXAMPLE)], schema=TASK.schema).to_pylist()
    assert TASK.from_record(record) == EXAMPLE


def test_defaults_are_derived_from_the_inputs() -> None:
    assert TASK.text(EXAMPLE) == "Ada ran to Bonn"
    assert TASK.num_tokens(EXAMPLE) == 4
    row = {"words": ["Ada", "ran"], "number": 7, "verdict": "yes", "text": "to Bonn"}
    assert TASK.split_group(row) == TASK.split_group(row | {"verdict": "no"})
    assert TASK.split_group(row) != TASK.split_group(row | {"number": 8})
    assert list(TASK.labels(EXAMPLE)) == []
    assert TASK.classes(("yes", "no")) == ("yes", "no")
    assert TASK.check_labels(("a", "b")) == []
    assert "needs the list of its labels" in TASK.check_labels(())[0]
    assert "'a' occurs twice" in TASK.check_labels(("a", "a"))[0]
    assert TASK.fit_thresholds([EXAMPLE], ["yes"]) == {}


def test_key_properties_follow_from_the_declared_row_keys() -> None:
    assert TASK.query_keys == ("words", "number")
    assert TASK.row_keys.required == ("words", "number", "verdict")
    assert list(TASK.row_keys.kinds) == ["id", "title", "words", "number", "verdict", "text"]


def test_missing_capabilities_are_listed_in_a_sentence() -> None:
    assert TASK.name == "test_capabilities"
    assert unsupported_features(TASK) == (
        "test_capabilities does not support confidence, intervals or perturbation."
    )
    assert unsupported_features(TaskWithUnits()) == (
        "test_capabilities does not support confidence or perturbation."
    )


@pytest.mark.parametrize("name", NAMES)
def test_kind_is_named_by_its_file_and_has_a_column_per_field(name: str) -> None:
    task = task_named(name)
    assert task.name == name
    assert task.schema.names == list(task.example_type.__dataclass_fields__)
    assert {*task.inputs, *task.outputs} <= {*task.schema.names}
    assert {*task.row_keys.targets} == {*task.outputs}
    assert task.metric_names


def test_kinds_of_this_project_have_all_capabilities() -> None:
    """A kind added by a user need not have all capabilities.

    The probability of a text says little about its quality, so text_generation has no confidence.
    """
    assert not any(
        unsupported_features(task_named(name))
        for name in (
            "dialogue_state_tracking",
            "intent_and_slots",
            "knowledge_probing",
            "multiple_choice",
            "semantic_role_labeling",
            "sequence_classification",
            "span_extraction",
            "token_classification",
            "verbalized_classification",
        )
    )
