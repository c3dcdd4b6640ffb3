"""Rows to predict are like the rows of the training."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deep_prompt.serve.describe import example_row
from pipeline.artifacts.config import TaskHead
from pipeline.errors import UserError
from pipeline.inference.queries import QueryReader
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import optional_inputs
from pipeline.tasks.base.row import RowsWith

PAIRS = task_named("sequence_classification")
ROW = {"text": "Ada left.", "text_pair": "She was here."}


def reader(**optional: RowsWith) -> QueryReader:
    head = TaskHead(PAIRS.name, "positions", ("no", "yes"), optional_inputs=optional)
    return QueryReader({"pairs": head}, [PAIRS])


def refused(row: Any, **optional: RowsWith) -> str:
    with pytest.raises(UserError) as caught:
        reader(**optional).read(0, row)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("pair", [{}, {"text_pair": ""}, {"text_pair": None}])
def test_a_key_of_all_training_rows_is_needed(pair: dict[str, Any]) -> None:
    message = "rows[0]: 'text_pair' is missing; all training rows of 'pairs' have it"
    assert refused({"text": "Ada left.", **pair}, text_pair="all") == message
    assert reader(text_pair="all").read(0, ROW).example.text_pair == "She was here."


def test_a_key_of_no_training_row_is_refused() -> None:
    message = "rows[0]: has 'text_pair', but no training row of 'pairs' has it; leave it out"
    assert refused(ROW, text_pair="none") == message
    reader(text_pair="none").read(0, {**ROW, "text_pair": None})


def test_a_key_of_some_training_rows_is_optional() -> None:
    for optional in ({"text_pair": "some"}, {}):  # the second as in an artifact without a record
        for row in (ROW, {"text": "Ada left."}):
            reader(**optional).read(0, row)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sequence_classification", "multiple_choice"])
def test_the_example_of_a_task_has_all_keys_that_it_needs(kind: str) -> None:
    task = task_named(kind)
    optional: dict[str, RowsWith] = {
        key: "all" for key in task.row_keys.optional if key in task.inputs
    }
    head = TaskHead(kind, "positions", ("no", "yes"), optional_inputs=optional)
    QueryReader({"a": head}, [task]).read(0, example_row("a", head))


def test_the_rows_with_a_key_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    for pairs, expected in ((["x", "y"], "all"), (["", "y"], "some"), (["", ""], "none")):
        records = [
            {"id": "a", "text": "b", "text_pair": pair, "spans": [], "label": "no", "question": ""}
            for pair in pairs
        ]
        pq.write_table(pa.Table.from_pylist(records, schema=PAIRS.schema), path)
        assert optional_inputs(path, PAIRS) == {"text_pair": expected, "spans": "none"}
    assert optional_inputs(path, task_named("token_classification")) == {}
