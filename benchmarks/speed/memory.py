"""Peak memory of a training step, measured in a separate process per method and precision.

`python -m benchmarks.speed.memory KIND METHOD PRECISION SETTING` measures one method. A table lists
the tensors that a step of a deep prompt keeps for its backward pass.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.speed.methods import PRECISIONS, deep_prompt_model
from benchmarks.speed.setting import Setting, load_corpus
from benchmarks.speed.step import (
    FINE_TUNING,
    METHODS,
    PEFT,
    PEFT_NO_DROPOUT,
    TOKENS_PER_BATCH_OF_TASK,
    make_batches,
)
from benchmarks.speed.timing import table

BASES = (FINE_TUNING, PEFT, PEFT_NO_DROPOUT)
NUM_STEPS = 3


def run(setting: Setting) -> Iterator[str]:
    """Yield the tables of each corpus."""
    columns = ("method", "process", "of the step", *(f"of {base}'s" for base in BASES))
    for kind, tokens in TOKENS_PER_BATCH_OF_TASK.items():
        for precision in PRECISIONS:
            peaks = {method: peak_memory(setting, kind, method, precision) for method in METHODS}
            yield (
                f"Peak memory of a step on {kind.upper()} in {precision}, batches of {tokens} "
                "tokens: of the process, and without its memory before the model (weights, "
                "gradients, moments, activations)."
            )
            yield ""
            rows = []
            for method, (process_mb, step_mb) in peaks.items():
                ratios = [f"{step_mb / peaks[base][1]:.2f}" for base in BASES]
                rows.append((method, f"{process_mb:.0f} MB", f"{step_mb:.0f} MB", *ratios))
            yield from table(columns, rows)
        yield f"Tensors that a deep prompt's step on {kind.upper()} keeps for the backward pass."
        yield ""
        yield from table(("kept by", "tensors", "float32"), _kept_rows(setting, kind))


def peak_memory(setting: Setting, kind: str, method: str, precision: str) -> tuple[float, float]:
    """Return the peak memory in MB during a step: in total, and without the memory before."""
    values = json.dumps(asdict(setting), default=str)
    command = [sys.executable, "-m", "benchmarks.speed.memory", kind, method, precision, values]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    base, peak = map(float, process.stdout.split()[-2:])
    return peak, peak - base


def _kept_rows(setting: Setting, kind: str) -> Iterator[tuple[str, ...]]:
    corpus = load_corpus(setting, kind)
    (batch, *_) = make_batches(setting, corpus, TOKENS_PER_BATCH_OF_TASK[kind])
    model = deep_prompt_model(setting, corpus)
    kept = kept_for_backward(model.heads.loss(model(batch), batch), model)
    for operation, tensors in sorted(kept.items(), key=lambda item: -sum(map(_num_bytes, item[1]))):
        megabytes = sum(map(_num_bytes, tensors)) / 1e6
        yield (operation, str(len(tensors)), f"{megabytes:.1f} MB")


def kept_for_backward(loss: Tensor, model: nn.Module) -> dict[str, list[Tensor]]:
    """The tensors that the graph of `loss` keeps, by the name of the operation.

    A tensor that several operations keep counts for the first of them. The parameters and buffers
    of `model` do not count.
    """
    counted = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept, seen, pending = defaultdict[str, list[Tensor]](list), set[Any](), [loss.grad_fn]
    while pending:
        node: Any = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pending += [parent for parent, _ in node.next_functions]
        for name in dir(node):
            value = getattr(node, name) if name.startswith("_saved_") else None
            if isinstance(value, Tensor) and _storage(value) not in counted:
                counted.add(_storage(value))
                kept[node.name().removesuffix("Backward0")].append(value)
    return dict(kept)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _num_bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def main(kind: str, method: str, precision: str, setting_json: str) -> None:
    """Print the memory in MB before the model is loaded, and the peak during some steps."""
    values = json.loads(setting_json)
    for name in ("backbone", "data", "scratch", "project"):
        values[name] = values[name] and Path(values[name])
    setting = Setting(**values)
    corpus = load_corpus(setting, kind)
    batches = make_batches(setting, corpus, TOKENS_PER_BATCH_OF_TASK[kind])[:NUM_STEPS]
    base = _status_mb("VmRSS")
    step = METHODS[method](setting, corpus, batches, PRECISIONS[precision])
    # Reset the peak, to exclude the load of the model.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for batch in batches:
        step(batch)
    print(base, _status_mb("VmHWM"))


def _status_mb(name: str) -> float:
    match = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert match
    return int(match[1]) / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
