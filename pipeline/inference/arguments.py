"""Checks of the arguments of the public API: `load` and `Predictor.predict`."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError, did_you_mean, first_line
from pipeline.params import BackboneParams

ON_BAD = ("raise", "skip")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_load_arguments(
    artifacts: Any, backbone: Any, device: Any, dtype: Any, **sizes: Any
) -> None:
    """Raise UserError with all arguments of `load` that have a wrong type or value.

    `sizes` are the optional whole numbers.
    """
    problems = list(_artifact_problems(artifacts))
    if not isinstance(backbone, BackboneParams | None):
        problems.append(
            f"backbone is {_show(backbone)}; give pipeline.params.BackboneParams(source, sha256)"
        )
    if device is not None and (reason := _device_problem(device)):
        problems.append(f"device is {_show(device)}: {reason}; give cpu, or cuda:N of a GPU here")
    if dtype is not None and dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        problems.append(f"dtype is {_show(dtype)}; give one of {names}, not its name")
    problems += [
        f"{name} is {_show(value)}; give a whole number"
        for name, value in sizes.items()
        if value is not None and not _is_integer(value)
    ]
    if problems:
        raise UserError(*problems)


def check_predict_arguments(
    rows: Any, on_bad: Any, problems: Callable[[UserError], None] | None, **sizes: Any
) -> None:
    """Raise UserError with all arguments of `predict` that have a wrong type or value.

    `sizes` are the numbers that must be at least 1.
    """
    messages = []
    if not _is_list(rows):
        messages.append(f"rows is {_show(rows)}; give a list (or another iterable) of rows")
    if on_bad not in ON_BAD:
        messages.append(f"on_bad is {_show(on_bad)}{did_you_mean(str(on_bad), ON_BAD)}")
    if problems is not None and not callable(problems):
        messages.append(f"problems is {_show(problems)}; give a function that takes a UserError")
    messages += [
        f"{name} is {_show(value)}; give a whole number above 0"
        for name, value in sizes.items()
        if not _is_integer(value) or value < 1
    ]
    if messages:
        raise UserError(*messages)


def check_rows(name: str, rows: Any) -> None:
    """Raise UserError if an argument is not an iterable of rows."""
    if not _is_list(rows):
        raise UserError(
            f"{name} is {_show(rows)}; give a text, a row (a mapping), a list of these, or a "
            "pandas frame"
        )


def _is_list(rows: Any) -> bool:
    return isinstance(rows, Iterable) and not isinstance(rows, str | bytes | Mapping)


def check_path(name: str, value: Any) -> None:
    """Raise UserError if an argument is not the path of a folder."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{name} is {_show(value)}; give the path of a folder")


def plain(value: Any) -> Any:
    """Replace numpy arrays and numbers in a value of a row by lists and numbers of Python."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {
            key.item() if isinstance(key, np.generic) else key: plain(item)
            for key, item in value.items()
        }
    return value


def _artifact_problems(artifacts: Any) -> Iterable[str]:
    if isinstance(artifacts, str | bytes) or not isinstance(artifacts, Sequence | Mapping):
        yield (
            f"artifacts is {_show(artifacts)}; give a list of folders, or a mapping from task "
            "names to folders"
        )
        return
    items = artifacts.items() if isinstance(artifacts, Mapping) else enumerate(artifacts)
    for name, folder in items:
        if not isinstance(folder, str | os.PathLike):
            yield f"artifacts[{name!r}] is {_show(folder)}; give the path of a folder"


def _device_problem(device: Any) -> str | None:
    """The reason why torch cannot compute on a device."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        return first_line(error).rstrip(".")
    return None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _show(value: Any) -> str:
    """The beginning of a value in Python's notation, for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
