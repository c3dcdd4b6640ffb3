"""Texts, rows and pandas frames as the rows of a predictor, and predictions as a frame."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.errors import UserError
from pipeline.inference.arguments import check_rows
from pipeline.inference.prediction import Prediction
from pipeline.tasks.base.row import Row


def rows_of(inputs: Any, default: Row) -> Iterator[Any]:
    """The rows of texts and mappings; a text is a row with the key `text` only.

    `default` has keys for rows without them. Raises UserError if `inputs` is not iterable.
    """
    check_rows("inputs", inputs)
    return (_row(item, default) for item in inputs)


def _row(item: Any, default: Row) -> Any:
    if isinstance(item, str):
        return default | {"text": item}
    return default | dict(item) if isinstance(item, Mapping) else item


def frame_rows(frame: pd.DataFrame, default: Row) -> Iterator[Row]:
    """The rows of a frame: its columns are keys, and missing values are left out.

    Whole numbers in a column of floats, as pandas makes of integers with missing values, are
    integers again.

    The `id` of a row is its position. Raises UserError if a column has no name or a repeated one.
    """
    names = list(frame.columns)
    problems = [
        f"the column {name!r} of the frame is not a key of a row; give it a name, once"
        for name in dict.fromkeys(names)
        if not isinstance(name, str) or names.count(name) > 1
    ]
    if problems:
        raise UserError(*problems)
    columns = {name: frame[name].tolist() for name in names if name != "id"}
    return (
        _frame_row(label, position, columns, default)
        for position, label in enumerate(frame.index.tolist())
    )


def _frame_row(label: Any, position: int, columns: Mapping[str, list[Any]], default: Row) -> Row:
    cells = {name: values[position] for name, values in columns.items()}
    row = {name: _whole(value) for name, value in cells.items() if not _is_missing(value)}
    return default | row | {"id": position, "where": f"row {label!r} of the frame"}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def frame_of(
    frame: pd.DataFrame, predictions: Iterable[Prediction], fields: Sequence[str]
) -> pd.DataFrame:
    """The predictions of the rows of a frame, with their index.

    The columns are `id` if the frame has it, `task`, and the fields of the results; without a
    prediction, `fields`.
    """
    positions, records = list[int](), list[dict[str, Any]]()
    for prediction in predictions:
        positions.append(int(prediction.id))
        result = dataclasses.asdict(prediction.result)
        records.append({"task": prediction.task, **result})
    index = frame.index[positions]
    columns = None if records else ["task", *fields]
    result_frame = pd.DataFrame(records, index=index, columns=columns)
    if "id" in frame.columns:
        result_frame.insert(0, "id", frame["id"].iloc[positions])
    return result_frame
