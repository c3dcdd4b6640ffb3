"""Read and check the outputs of stages.

The result is None if a file is missing. A malformed file is a UserError with its path.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError, describe, first_line

RERUN = "rerun the stage that writes it"
# The first part of each known column's name, before "_", as in "loss_TASK" and "score_TASK".
COLUMNS = {"step", "loss", "score", "label", "precision", "recall", "f1", "support"} | {
    "suite",
    "changed",
    "layer",
    "head",
    "prompt",
    "cosine",
    # Scores of relations.
    "p",
    "mrr",
    "majority",
}
Scores = dict[str, float | None]


def parquet(path: Path, required: Sequence[str]) -> pd.DataFrame | None:
    """The content of a Parquet file.

    Raises UserError if it is not Parquet, or lacks one of the `required` columns.
    """
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet file: {first_line(error)}; {RERUN}") from None
    missing = set(required) - set(frame.columns)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; {RERUN}")
    return frame


def document(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file.

    Raises UserError if it is not a JSON object in UTF-8.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; {RERUN}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; {RERUN}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {describe(values)}, expected a JSON object; {RERUN}")
    return values


def typed(values: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    """The value of `key`; an empty `kind()` if it is absent or null.

    Raises UserError if its type is not `kind`.
    """
    value = values.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise UserError(f"{path}: {key}: found {value!r}, expected a {kind.__name__}; {RERUN}")
    return value


def numbers(values: dict[str, Any], key: str, path: Path) -> Scores:
    """The numbers in the mapping at `key`; empty if it is absent.

    NaN becomes None: JSON has no NaN, but Python writes it. Raises UserError for other values.
    """
    scores: Scores = {}
    for name, value in typed(values, key, dict, path).items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{path}: {key}: {name}: found {value!r}, expected a number; {RERUN}")
        scores[name] = None if value is None or value != value else value  # noqa: PLR0124
    return scores


def table(path: Path, required: Sequence[str], text: str = "") -> pd.DataFrame | None:
    """The known columns of a TSV file, as numbers except the column `text`. An empty field is NaN.

    Raises UserError if it is not a table, lacks a `required` column, or a field is not a number.
    """
    try:  # Read all columns as text: a label may be "NA" or "null".
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8")
        frame = frame[[column for column in frame.columns if column.split("_")[0] in COLUMNS]]
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(
            f"{path}: not a table of tab-separated UTF-8 text: {str(error).strip()}; {RERUN}"
        ) from None
    missing = [column for column in required if column not in frame.columns]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}; {RERUN}"
        )
    return frame.assign(
        **{str(name): _column(frame[name], path) for name in frame.columns if name != text}
    )


def _column(column: "pd.Series[str]", path: Path) -> "pd.Series[float]":
    stripped = column.fillna("").str.strip()
    values = pd.to_numeric(stripped, errors="coerce").astype(float)
    invalid = values.isna() & ~stripped.str.lower().isin(["", "nan"])
    if invalid.any():
        row = int(invalid.to_numpy().argmax())
        raise UserError(
            f"{path}:{row + 2}: {column.name}: found {stripped.iloc[row]!r}, expected a number; "
            f"{RERUN}"
        )
    return values
