"""One rank of several that train tiny models together.

A rank runs several jobs, because its start takes longer than the training.

Usage: python one_rank.py FOLDER "NAME ARM ZERO [offload] [until=STEP] [predict] [bfloat16] [apart]
[stored]"...

Each job writes its parameters, curve, rows and predictions to FOLDER/NAME. The options of a job:

- `predict`: write only the predictions of an untrained model.
- `apart`: each rank has a separate folder of checkpoints; the error message of this is written.
- `stored`: the prompt is in the upper layers, and the output of the lower layers is cached.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

import pipeline.training.engine
import pipeline.training.trainer
from pipeline.arms import ARMS, ArmName
from pipeline.config import parse
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.process_group import process_group
from pipeline.errors import Stopped, UserError
from pipeline.evaluation.evaluate import EvalSet, decode
from pipeline.features.table import FeatureTable
from pipeline.files import write_json
from pipeline.mixing.batches import Batch, TrainBatches
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams
from pipeline.seeding import Ints
from pipeline.training.callbacks import Scores, TrainingRun
from pipeline.training.engine import prepare_for_inference
from pipeline.training.trainer import train
from tests.support import tiny

RATES = {"prompt": 0.02, "head": 0.01, "backbone": 0.001, "lora": 0.01}
PARAMS = {
    "epochs": 2.0,
    "tokens_per_micro_batch": 48,
    "micro_batches_per_step": 4,
    "num_validations": 3,
    "max_grad_norm": 0.5,
}
TOKENS = 52  # per batch of predictions
SINGLE_PROCESS = Cluster()
pipeline.training.engine.PERSISTENT = 20  # ZeRO 3 partitions even the tiny weights


class Sums:
    """A task whose predictions are the sums of the logits."""

    def decode(self, example: int, seen: list, classes: tuple[str, ...]) -> list[float]:
        return [float(window.logits.astype("float64").sum()) for window in seen]


def batches(folder: Path) -> TrainBatches:
    """Micro-batches of two tasks. In a step, two ranks can have different tasks."""
    tables = [tiny.table(folder, "classes", 40, 1), tiny.table(folder, "positions", 25, 2)]
    return TrainBatches(
        tables,
        [RATE_SCALE // 2, RATE_SCALE // 2],
        PARAMS["tokens_per_micro_batch"],
        PARAMS["micro_batches_per_step"],
        seed=5,
    )


def predicted(model: PromptedModel, folder: Path, ranks: Ranks) -> list[list[float]]:
    """The predictions of the model for each row of a table.

    The number of batches is odd: a rank has one batch more than the other.
    """
    table = tiny.table(folder, "classes", 40, 1)
    split = EvalSet(Sums(), ("a", "b", "c"), list(range(40)), table, table.examples)
    return decode(model, split, 0, 0, batch_tokens=TOKENS, ranks=ranks)


def run(
    folder: Path,
    ranks: Ranks,
    arm: ArmName = "multitask",
    cluster: Cluster = SINGLE_PROCESS,
    until: int = 0,
    precision: str = "float32",
    checkpoints: str = "checkpoints",
    stored: int = 0,
) -> tuple[PromptedModel, TrainingRun]:
    """Train; every rank ends with equal parameters. Each rank has a separate folder of data.

    Raises Stopped after step `until`.
    """
    model, callback, data = (
        tiny.prompted(arm),
        tiny.TrainingCallback(),
        folder / f"data-{ranks.rank}",
    )

    model.backbone.model.to(getattr(torch, precision))
    if stored:
        model.prompt = DeepPrompt(model.prompt.key_values[1:], first_layer=1)

    def validate(trained: PromptedModel) -> Scores:
        return {"ner": abs(sum(map(sum, predicted(trained, data, ranks))))}

    values = (
        PARAMS
        | {"hidden_state_cache_mb": stored}
        | {f"{part}_lr": RATES[part] for part in ARMS[arm].parts}
    )
    training_run = train(
        model,
        arm,
        batches(data),
        parse(TrainParams, values, "params"),
        names=["ner", "qa"],
        pad_token_id=0,
        validate=validate,
        checkpoints=folder / checkpoints,
        ranks=ranks,
        callback=callback,
        cluster=cluster,
        stopping=lambda: len(callback.steps) + 1 == until,
    )
    return model, training_run


@contextmanager
def seen_rows() -> Iterator[list[tuple[int, list[int]]]]:
    """Record the task and rows of each training micro-batch of this rank."""
    rows: list[tuple[int, list[int]]] = []
    collate = pipeline.training.trainer.collate

    def recording_collate(table: FeatureTable, chosen: Ints, task: int, pad_token_id: int) -> Batch:
        rows.append((task, chosen.tolist()))
        return collate(table, chosen, task, pad_token_id)

    pipeline.training.trainer.collate = recording_collate
    try:
        yield rows
    finally:
        pipeline.training.trainer.collate = collate


def work(folder: Path, ranks: Ranks, arm: ArmName, zero: str, *words: str) -> None:
    """Run a job."""
    cluster = Cluster(zero=int(zero), offload="offload" in words)
    if "predict" in words:
        model = prepare_for_inference(tiny.prompted(arm), ranks, cluster)
    else:
        until = next(
            (int(word.removeprefix("until=")) for word in words if word.startswith("until=")), 0
        )
        checkpoints = f"checkpoints-{ranks.rank}" if "apart" in words else "checkpoints"
        precision = "bfloat16" if "bfloat16" in words else "float32"
        try:
            with seen_rows() as rows:
                model, training_run = run(
                    folder,
                    ranks,
                    arm,
                    cluster,
                    until,
                    precision,
                    checkpoints,
                    int("stored" in words),
                )
        except Stopped:
            return
        except UserError as error:
            write_json(folder / f"{ranks.rank}.error.json", str(error))
            return
        write_json(folder / f"{ranks.rank}.rows.json", rows)
        values = {name: value.detach() for name, value in model.trainable_state().items()}
        save_file(values, folder / f"{ranks.rank}.safetensors")
        write_json(folder / f"{ranks.rank}.json", training_run.train)
    if "predict" in words or cluster.zero < 3:
        write_json(
            folder / f"{ranks.rank}.predicted.json",
            predicted(model, folder / f"data-{ranks.rank}", ranks),
        )


if __name__ == "__main__":
    ranks, folder = Ranks.from_environment(os.environ), Path(sys.argv[1])
    with process_group(ranks, 60):
        for job in sys.argv[2:]:
            name, *words = job.split()
            (folder / name).mkdir(exist_ok=True)
            work(folder / name, ranks, *words)
