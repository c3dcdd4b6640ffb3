"""Checkpoints: the state that a run needs to resume as if it had not stopped.

A checkpoint is a folder `step-N` with `state.safetensors` and `state.json`. The latter contains a
hash of both. So a truncated or altered checkpoint is detected, and the previous one is used. The
rest of a run is a function of (params, step). Trained models are saved as artifacts
(`pipeline.artifacts`), not as checkpoints.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from pipeline.files import atomic_folder

NUM_KEPT = 2


@dataclass
class State:
    """The state after a step.

    `tensors` has the trained values (`now.NAME`), the best values so far (`best.NAME`) and AdamW's
    moments (`adam.NAME`); after a finished run, only the best values. `progress` is plain JSON.
    """

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def save_checkpoint(folder: Path, state: State, num_kept: int = NUM_KEPT) -> None:
    """Write `folder/step-N` atomically.

    Keeps the newest `num_kept` checkpoints up to this one. Later checkpoints are broken and are
    removed.
    """
    path = folder / f"step-{state.step:09d}"
    with atomic_folder(path) as new_folder:
        content = save({name: tensor.contiguous() for name, tensor in state.tensors.items()})
        (new_folder / "state.safetensors").write_bytes(content)
        description = {"step": state.step, "progress": state.progress}
        description["sha256"] = _digest(content, description)
        (new_folder / "state.json").write_text(json.dumps(description), encoding="utf-8")
    checkpoints = _checkpoints(folder)
    kept = [checkpoint for checkpoint in checkpoints if checkpoint <= path][-num_kept:]
    for checkpoint in set(checkpoints) - set(kept):
        shutil.rmtree(checkpoint)


def load_checkpoint(folder: Path) -> tuple[State | None, list[str]]:
    """The newest intact checkpoint in `folder` or None, and a message per broken checkpoint."""
    broken: list[str] = []
    for path in reversed(_checkpoints(folder)):
        try:
            description = json.loads((path / "state.json").read_text(encoding="utf-8"))
            content = (path / "state.safetensors").read_bytes()
            if description.pop("sha256") == _digest(content, description):
                return State(description["step"], load(content), description["progress"]), broken
            broken.append(f"{path}: its hash differs; ignored")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            broken.append(f"{path}: cannot be read ({error}); ignored")
    return None, broken


def _digest(content: bytes, description: dict[str, Any]) -> str:
    return hashlib.sha256(content + json.dumps(description, sort_keys=True).encode()).hexdigest()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
