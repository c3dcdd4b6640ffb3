"""Search a learning rate for one arm on one task, on validation, at the budget that params.yaml gives the arm.

    python -m benchmarks.learning_rates deep_prompt conll2003 0.02 0.05 0.1 [key=value ...]

Uses the features that `dvc repro` made; writes nothing. The rates are those of the prompt (of the backbone for fine_tune, of the
head for head_only); key=value pairs override other training params, for instance epochs=0.2 or micro_batches=2.
`pretrain MIXTURE` searches the shared prompt's rate.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

from pipeline.artifact import load_heads, load_prompt
from pipeline.backbone import Backbone
from pipeline.config import load_json
from pipeline.manifest import load_config
from pipeline.mixture import UNIT
from pipeline.model import PromptedModel
from pipeline.params import Arm, TrainParams
from pipeline.source import locate
from stages import training as shared
from stages.params import Params, load_params

RATE = {"fine_tune": "backbone_lr", "head_only": "head_lr"}


def search(arm_name: str, name: str, *words: str) -> None:
    """Print the best validation score of each rate."""
    overrides = {key: YAML(typ="safe").load(value) for key, value in (word.split("=") for word in words if "=" in word)}
    params = load_params()
    pretraining = arm_name == "pretrain"
    arm = cast(Arm, "multitask" if pretraining else arm_name)
    base = params.pretrain[name] if pretraining else params.training(arm, name)
    for rate in (float(word) for word in words if "=" not in word):
        changes: dict[str, Any] = {RATE.get(arm, "prompt_lr"): rate, **overrides}
        result = _one(arm, name, dataclasses.replace(base, **changes), params, pretraining)
        print(f"{arm_name} {name} {changes}: {result}", flush=True)


def _one(arm: Arm, name: str, training: TrainParams, params: Params, pretraining: bool) -> str:
    corpora = load_json(Path("data/mixtures") / f"{name}.json")["corpora"] if pretraining else {name: {"rate": UNIT}}
    tasks = [shared.TaskData.load(corpus, training.validation_rows) for corpus in corpora]
    model = _model(arm, tasks, training, params, None if pretraining or arm != "multitask" else params.tasks[name].start)
    with tempfile.TemporaryDirectory() as folder:
        shared.WORK = Path(folder)
        rates = [corpora[corpus]["rate"] for corpus in corpora]
        run, _ = shared.fit("search", arm, model, tasks, rates, training, params, {})
    scores = {key: round(value, 1) for key, value in run.validation[-1].items() if key.startswith("score_")}
    return f"best {run.best_score:.2f} at step {run.best_step} of {run.steps}, {run.seconds:.0f} s, last {scores}"


def _model(arm: Arm, tasks: Sequence[shared.TaskData], training: TrainParams, params: Params,
           start: str | None) -> PromptedModel:
    backbone = Backbone.load(locate(params.backbone))
    heads = shared.heads_for(tasks, backbone.hidden_size, params.seed)
    if start is None:
        prompt = shared.new_prompt(arm, backbone, tasks, training, params.seed)
    else:
        artifact = Path("artifacts") / start
        config = load_config(artifact)
        prompt = load_prompt(artifact, config, params.backbone, backbone)
        load_heads(artifact, config, heads, {task.name: task.classes for task in tasks})
    return PromptedModel(backbone, prompt, heads, train_backbone=arm == "fine_tune")


if __name__ == "__main__":
    search(*sys.argv[1:])
