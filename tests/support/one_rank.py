"""Script of one rank that trains tiny models together with other ranks.

A rank runs several jobs, because its start takes longer than the training.

Usage: python one_rank.py FOLDER "NAME ARM ZERO [offload] [until=STEP] [predict] [bfloat16]
[separate] [cached] [text]"...

Each job writes its parameters, curve, rows and predictions to FOLDER/NAME. The options of a job:

- `predict`: write only the predictions of an untrained model.
- `text`: the model is a decoder, its second task generates text, and its predictions are texts.
- `separate`: each rank has a separate folder of checkpoints; write the resulting error message.
- `cached`: the prompt is in the upper layers, and the output of the lower layers is cached.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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
from pipeline.evaluation.generation import generated_texts
from pipeline.features.table import FeatureTable
from pipeline.files import write_json
from pipeline.mixing.batches import Batch, TrainBatches
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams
from pipeline.seeding import Ints
from pipeline.tasks.base.task import HeadKind
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
NEW_TOKENS = 6  # of a generated text
SINGLE_PROCESS = Cluster()
pipeline.training.engine.PERSISTENCE_THRESHOLD = 20  # ZeRO 3 partitions even the tiny weights


class Sums:
    """A task whose predictions are the sums of the logits."""

    def decode(self, example: int, window_logits: list, classes: tuple[str, ...]) -> list[float]:
        return [float(window.logits.astype("float64").sum()) for window in window_logits]


def model_of(arm: ArmName, text: bool) -> PromptedModel:
    """An untrained model of an arm. With `text`, its second task generates text."""
    if not text:
        return tiny.prompted(arm)
    model = tiny.prompted(arm, "llama", second="language_model")
    vars(model.backbone)["tokenizer"] = SimpleNamespace(suffix=[tiny.END], decode=list)
    return model


def batches(folder: Path, second: HeadKind = "positions") -> TrainBatches:
    """Micro-batches of two tasks. In a step, two ranks can have different tasks."""
    tables = [tiny.table(folder, "classes", 40, 1), tiny.table(folder, second, 25, 2)]
    return TrainBatches(
        tables,
        [RATE_SCALE // 2, RATE_SCALE // 2],
        PARAMS["tokens_per_micro_batch"],
        PARAMS["micro_batches_per_step"],
        seed=5,
    )


def predict_rows(model: PromptedModel, folder: Path, ranks: Ranks) -> list[list[float]]:
    """The predictions of the model for each row of a table.

    The number of batches is odd, so one of two ranks has an additional batch.
    """
    if "language_model" in model.heads.kinds:  # texts as lists of ids
        texts = tiny.table(folder, "language_model", 25, 2)
        rows = np.arange(len(texts))
        return generated_texts(model, texts, rows, 1, NEW_TOKENS, TOKENS, ranks)
    table = tiny.table(folder, "classes", 40, 1)
    eval_set = EvalSet(Sums(), ("a", "b", "c"), list(range(40)), table, table.examples)
    return decode(model, eval_set, 0, 0, batch_tokens=TOKENS, ranks=ranks)


def run(
    folder: Path,
    ranks: Ranks,
    arm: ArmName = "multitask",
    cluster: Cluster = SINGLE_PROCESS,
    until: int = 0,
    precision: str = "float32",
    checkpoints: str = "checkpoints",
    cache_mb: int = 0,
    text: bool = False,
) -> tuple[PromptedModel, TrainingRun]:
    """Train a model; returns it with its run. Each rank has a separate folder of data.

    `cache_mb` is `hidden_state_cache_mb`; if it is not 0, only the upper layers have a prompt.
    Raises Stopped after step `until`.
    """
    model, callback, data = (
        model_of(arm, text),
        tiny.TrainingCallback(),
        folder / f"data-{ranks.rank}",
    )

    model.backbone.model.to(getattr(torch, precision))
    if cache_mb:
        model.prompt = DeepPrompt(model.prompt.key_values[1:], first_layer=1)

    def validate(trained: PromptedModel) -> Scores:
        return {"ner": abs(sum(map(sum, predict_rows(trained, data, ranks))))}

    values = (
        PARAMS
        | {"hidden_state_cache_mb": cache_mb}
        | {f"{part}_lr": RATES[part] for part in ARMS[arm].parts}
    )
    training_run = train(
        model,
        arm,
        batches(data, "language_model" if text else "positions"),
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
def record_rows() -> Iterator[list[tuple[int, list[int]]]]:
    """Context manager: record the task and rows of each training micro-batch of this rank."""
    rows: list[tuple[int, list[int]]] = []
    collate = pipeline.training.trainer.collate

    def recording_collate(
        table: FeatureTable, batch_rows: Ints, task: int, pad_token_id: int
    ) -> Batch:
        rows.append((task, batch_rows.tolist()))
        return collate(table, batch_rows, task, pad_token_id)

    pipeline.training.trainer.collate = recording_collate
    try:
        yield rows
    finally:
        pipeline.training.trainer.collate = collate


def run_job(folder: Path, ranks: Ranks, arm: ArmName, zero: str, *options: str) -> None:
    """Run a job and write its results to `folder`."""
    cluster = Cluster(zero=int(zero), offload="offload" in options)
    if "predict" in options:
        model = prepare_for_inference(model_of(arm, "text" in options), ranks, cluster)
    else:
        steps = [
            int(option.removeprefix("until=")) for option in options if option.startswith("until=")
        ]
        until = steps[0] if steps else 0
        checkpoints = f"checkpoints-{ranks.rank}" if "separate" in options else "checkpoints"
        precision = "bfloat16" if "bfloat16" in options else "float32"
        try:
            with record_rows() as rows:
                model, training_run = run(
                    folder,
                    ranks,
                    arm,
                    cluster,
                    until,
                    precision,
                    checkpoints,
                    int("cached" in options),
                    "text" in options,
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
    if "predict" in options or cluster.zero < 3:
        write_json(
            folder / f"{ranks.rank}.predicted.json",
            predict_rows(model, folder / f"data-{ranks.rank}", ranks),
        )


if __name__ == "__main__":
    ranks, folder = Ranks.from_environment(os.environ), Path(sys.argv[1])
    with process_group(ranks, 60):
        for job in sys.argv[2:]:
            name, arm, zero, *options = job.split()
            (folder / name).mkdir(exist_ok=True)
            run_job(folder / name, ranks, arm, zero, *options)
