"""What a training run took on this machine: seconds, memory and ranks.

These numbers differ between two runs of the same inputs; all other output is the same. So they are
kept where neither DVC nor git looks, and an unchanged dvc.lock proves unchanged results.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config import load_json, parse
from pipeline.files import sha256, write_json
from stages.runtime.paths import RESOURCE_USAGE, RUNS


@dataclass(frozen=True)
class ResourceUsage:
    """Seconds of training, validation included; peak memory in MB of rank 0's GPU or process; the
    number of ranks.

    `curve_sha256` is the hash of the run's train.tsv: it tells which run was measured.
    """

    seconds: float
    peak_memory_mb: float
    ranks: int
    curve_sha256: str


def write_resource_usage(folder: Path, seconds: float, peak_memory_mb: float, ranks: int) -> None:
    """Write RESOURCE_USAGE/`folder`/run.json for the run in RUNS/`folder`."""
    measured = ResourceUsage(seconds, peak_memory_mb, ranks, _curve_sha256(folder))
    write_json(RESOURCE_USAGE / folder / "run.json", asdict(measured))


def load_resource_usage(folder: Path) -> ResourceUsage | None:
    """The resource usage of the run in RUNS/`folder`. None if it was not trained here: DVC restored
    it from its cache.

    Raises UserError where the file is malformed.
    """
    path = RESOURCE_USAGE / folder / "run.json"
    if not path.exists():
        return None
    measured = parse(ResourceUsage, load_json(path), str(path))
    return measured if measured.curve_sha256 == _curve_sha256(folder) else None


def _curve_sha256(folder: Path) -> str:
    return sha256(RUNS / folder / "train.tsv")
