"""Folders that `save_to_disk` of the library `datasets` wrote: Arrow files, and their order."""

import json
from pathlib import Path
from typing import Any

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def data_files(folder: Path) -> list[Path]:
    """The Arrow files of a saved data set, in order; empty if the folder is not one.

    A file in the list may be missing.
    """
    listed = _read(folder / _STATE).get("_data_files")
    names = [item.get("filename") for item in listed or () if isinstance(item, dict)]
    return [folder / name for name in names if isinstance(name, str) and Path(name).name == name]


def folder_problem(folder: Path) -> str | None:
    """Why a folder cannot be read, and the remedy; None if it is a saved data set."""
    splits = _read(folder / _SPLITS).get("splits")
    if isinstance(splits, list):
        return (
            f"it holds several splits; give each split of the recipe its folder "
            f"({', '.join(f'{folder.name}/{split}' for split in splits)})"
        )
    if _read(folder / _STATE).get("_indices_data_files"):
        return (
            "it selects rows by an index, as old versions of datasets saved them; load it with "
            "datasets, call flatten_indices(), and save it again"
        )
    if not data_files(folder):
        return (
            f"it is a folder that datasets.save_to_disk did not write; list its files in the "
            f"recipe, e.g. {folder.name}/*.jsonl"
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
