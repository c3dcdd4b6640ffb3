"""One of several processes that train a tiny model together: python two_ranks.py FOLDER; rank 0 leaves its values there."""

import os
import sys
from pathlib import Path

import tiny
from safetensors.torch import save_file

from pipeline.batches import TrainBatches
from pipeline.cluster import Ranks
from pipeline.config import parse
from pipeline.files import write_json
from pipeline.launch import joined
from pipeline.mixture import UNIT
from pipeline.model import PromptedModel
from pipeline.params import TrainParams
from pipeline.trainer import Run, train

PARAMS = {"epochs": 2.0, "prompt_lr": 0.02, "head_lr": 0.01, "batch_tokens": 48, "micro_batches": 4, "validations": 3,
          "clip": 0.5}


def batches(folder: Path) -> TrainBatches:
    """Micro-batches of two tasks in turn, so that two ranks hold different tasks in a step."""
    tables = [tiny.table(folder, "classes", 40, 1), tiny.table(folder, "positions", 25, 2)]
    return TrainBatches(tables, [UNIT // 2, UNIT // 2], PARAMS["batch_tokens"], PARAMS["micro_batches"], seed=5)


def run(folder: Path, ranks: Ranks) -> tuple[PromptedModel, Run]:
    """Train; every rank ends with the same values."""
    model = tiny.prompted("multitask")
    made = train(model, "multitask", batches(folder), parse(TrainParams, PARAMS, "params"), names=["ner", "qa"], pad=0,
                 validate=lambda trained: {"ner": float(trained.heads.weight.detach().abs().sum())},
                 checkpoints=folder / "checkpoints", ranks=ranks, watcher=tiny.Watcher())
    return model, made


if __name__ == "__main__":
    ranks, folder = Ranks.from_environment(os.environ), Path(sys.argv[1])
    with joined(ranks, 60):
        model, made = run(folder / str(ranks.rank), ranks)
    save_file({name: value.detach() for name, value in model.trainable_state().items()}, folder / f"{ranks.rank}.safetensors")
    write_json(folder / f"{ranks.rank}.json", made.train)
