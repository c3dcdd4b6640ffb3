"""Checkpoints: all that a run needs to go on as if it had never stopped. For resuming only; see `artifact` for what is kept.

A checkpoint is a folder `step-N` with `state.safetensors` and `state.json`, which holds a hash of both: a torn or altered one
is recognized and the one before is used. Everything else of a run is a function of (params, step).
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

KEPT = 2


@dataclass
class State:
    """`tensors` are trained values (`now.`), best so far (`best.`) and AdamW's moments (`adam.`); `progress` is plain JSON."""

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def save_checkpoint(folder: Path, state: State) -> None:
    """Write `folder/step-N` beside and rename it; drop all but it and the one before (later ones are broken)."""
    path = folder / f"step-{state.step:09d}"
    with atomic_folder(path) as beside:
        content = save({name: tensor.contiguous() for name, tensor in state.tensors.items()})
        (beside / "state.safetensors").write_bytes(content)
        described = {"step": state.step, "progress": state.progress}
        described["sha256"] = _digest(content, described)
        (beside / "state.json").write_text(json.dumps(described), encoding="utf-8")
    there = _checkpoints(folder)
    kept = [one for one in there if one <= path][-KEPT:]
    for other in set(there) - set(kept):
        shutil.rmtree(other)


def load_checkpoint(folder: Path) -> tuple[State | None, list[str]]:
    """The newest whole checkpoint in `folder` (None: there is none), and a line for each broken one that was passed over."""
    broken: list[str] = []
    for path in reversed(_checkpoints(folder)):
        try:
            described = json.loads((path / "state.json").read_text(encoding="utf-8"))
            content = (path / "state.safetensors").read_bytes()
            if described.pop("sha256") == _digest(content, described):
                return State(described["step"], load(content), described["progress"]), broken
            broken.append(f"{path}: its hash differs; passed over")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            broken.append(f"{path}: cannot be read ({error}); passed over")
    return None, broken


def _digest(content: bytes, described: dict[str, Any]) -> str:
    return hashlib.sha256(content + json.dumps(described, sort_keys=True).encode()).hexdigest()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
