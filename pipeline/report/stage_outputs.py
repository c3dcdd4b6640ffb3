"""What stages left on disk, read and checked: an absent file is None; a malformed one is a UserError that names it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError

RERUN = "rerun the stage that writes it"
COLUMNS = {
    "step",
    "loss",
    "score",
    "label",
    "precision",
    "recall",
    "f1",
    "support",  # also loss_TASK and score_TASK
    "suite",
    "changed",
    "layer",
    "head",
    "prompt",
    "cosine",
}
Scores = dict[str, float | None]


def parquet(path: Path, required: Sequence[str]) -> pd.DataFrame | None:
    """A Parquet file that has at least those columns."""
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a Parquet file: {str(error).splitlines()[0]}; {RERUN}"
        ) from None
    missing = set(required) - set(frame.columns)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; {RERUN}")
    return frame


def document(path: Path) -> dict[str, Any] | None:
    """A JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; {RERUN}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; {RERUN}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {type(values).__name__}, expected a JSON object; {RERUN}")
    return values


def typed(values: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    """The value at `key`, of that type; an empty one where there is none."""
    value = values.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise UserError(f"{path}: {key}: found {value!r}, expected a {kind.__name__}; {RERUN}")
    return value


def numbers(values: dict[str, Any], key: str, path: Path) -> Scores:
    """The mapping at `key`, empty where there is none; NaN, which JSON does not have but Python writes, becomes None."""
    scores: Scores = {}
    for name, value in typed(values, key, dict, path).items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{path}: {key}: {name}: found {value!r}, expected a number; {RERUN}")
        scores[name] = None if value is None or value != value else value  # noqa: PLR0124
    return scores


def table(path: Path, required: Sequence[str], text: str = "") -> pd.DataFrame | None:
    """The known columns of a TSV, numbers but for the column `text`; an empty field is NaN."""
    try:  # All as text first: a label may be spelled "NA" or "null".
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
    bad = values.isna() & ~stripped.str.lower().isin(["", "nan"])
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(
            f"{path}:{row + 2}: {column.name}: found {stripped.iloc[row]!r}, expected a number; {RERUN}"
        )
    return values
