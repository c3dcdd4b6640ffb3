"""Record the resource usage of a training run on this machine: seconds, memory and ranks.

These numbers vary between runs on the same inputs; all other output is reproducible. They are
therefore stored in files that DVC and git ignore, so an unchanged dvc.lock proves unchanged
results.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config import load_json, parse
from pipeline.files import sha256, write_json
from stages.runtime.paths import RESOURCE_USAGE, RUNS


@dataclass(frozen=True)
class ResourceUsage:
    """The resource usage of one training run.

    - `seconds`: the time of training, including validation.
    - `peak_memory_mb`: the peak memory of rank 0, of its GPU if it has one, else of its process.
    - `ranks`: the number of ranks.
    - `curve_sha256`: the hash of the run's train.tsv, which identifies the run.
    """

    seconds: float
    peak_memory_mb: float
    ranks: int
    curve_sha256: str


def write_resource_usage(folder: Path, seconds: float, peak_memory_mb: float, ranks: int) -> None:
    """Write RESOURCE_USAGE/`folder`/run.json for the run in RUNS/`folder`."""
    usage = ResourceUsage(seconds, peak_memory_mb, ranks, _curve_sha256(folder))
    write_json(RESOURCE_USAGE / folder / "run.json", asdict(usage))


def load_resource_usage(folder: Path) -> ResourceUsage | None:
    """Load the resource usage of the run in RUNS/`folder`.

    Returns None if this machine did not train the run, because DVC restored it from its cache.
    Raises UserError if the file is malformed.
    """
    path = RESOURCE_USAGE / folder / "run.json"
    if not path.exists():
        return None
    usage = parse(ResourceUsage, load_json(path), str(path))
    return usage if usage.curve_sha256 == _curve_sha256(folder) else None


def _curve_sha256(folder: Path) -> str:
    return sha256(RUNS / folder / "train.tsv")
