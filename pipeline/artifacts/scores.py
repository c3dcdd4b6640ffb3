"""The scores.json of an artifact: its test scores, and the licenses of its training corpora."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import load_json, parse

FILE = "scores.json"


@dataclass(frozen=True)
class TestScore:
    """The primary test score of a head in percent, on `rows` test rows.

    `interval` is the 95 % interval (None: not computed).
    """

    __test__ = False  # not a class of tests for pytest

    metric: str
    value: float
    rows: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ArtifactScores:
    """The scores of an artifact by head, and the license of each training corpus."""

    tasks: dict[str, TestScore] = field(default_factory=dict)
    licenses: dict[str, str] = field(default_factory=dict)


def load_scores(folder: Path) -> ArtifactScores:
    """Read scores.json; empty if the artifact has none. Raises UserError if it is malformed."""
    path = folder / FILE
    return parse(ArtifactScores, load_json(path), str(path)) if path.exists() else ArtifactScores()
