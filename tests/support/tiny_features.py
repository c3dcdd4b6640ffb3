"""Small tables of random features.

This module does not import torch, because processes that make shards do not need it.
"""

import shutil
from pathlib import Path

import numpy as np

from pipeline.features.table import FeatureTable, write_features
from pipeline.tasks.base.features import Feature

VOCABULARY = 60
END = 2  # the id of the end token


def features(kind: str, rows: int, seed: int, classes: int = 3) -> list[Feature]:
    """Random windows of 5 to 14 tokens. The labels are a function of the tokens.

    Those of a "language_model" are the tokens after the first three. Those of a "target" are too;
    there, the third token is the first one of the target of a BART.
    """
    generator = np.random.default_rng(seed)
    windows = []
    for number in range(rows):
        length = int(generator.integers(5, 15))
        ids = generator.integers(3, VOCABULARY, length).tolist()
        positions = list(range(1, length - 1)) if kind == "classes" else [0, *range(2, length - 1)]
        labels = [ids[position] % classes for position in positions]
        if kind in ("language_model", "target"):
            positions, labels = list(range(2, length)), [*ids[3:], END]
        types = [0] * length
        if kind == "target":
            ids[2], types[2:] = END, [1] * (length - 2)
        if kind == "positions":
            start = int(generator.integers(0, len(positions)))
            labels = [start, int(generator.integers(start, len(positions)))]
        windows.append(
            Feature(
                number,
                ids,
                types,
                positions,
                labels,
                positions,
                [position + 1 for position in positions],
                1 if kind == "positions" else len(labels),
            )
        )
    return windows


def table(folder: Path, kind: str, rows: int, seed: int, classes: int = 3) -> FeatureTable:
    """Write random features (see `features`) to a table and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{rows}-{seed}"
    shutil.rmtree(path, ignore_errors=True)
    write_features(features(kind, rows, seed, classes), path)
    return FeatureTable(path)
