"""finetune: train one arm on one task.

The arm `multitask` starts from an artifact: the shared prompt of a mixture, or the prompt of
another task. With a seed as the third argument, the training is repeated with that seed; the output
folder is then `repeat/SEED/ARM/TASK` instead of `ARM/TASK`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.arms import ARMS, ArmName
from pipeline.artifacts.artifact import (
    check_deep_prompt_alone,
    init_head,
    load_heads,
    load_prompt,
    save_artifact,
)
from pipeline.artifacts.config import (
    ArtifactConfig,
    artifact_hashes,
    load_config,
    missing_hashes,
    training_rows_hash,
)
from pipeline.artifacts.scores import load_scores
from pipeline.distributed.cluster import Ranks
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora
from pipeline.model.prompt import DeepPrompt, SoftPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params, TrainParams, task_of
from pipeline.training.arm_checks import check_arm
from pipeline.training.callbacks import TrainingRun
from pipeline.training.setup import (
    TaskData,
    TrainingSetup,
    artifact_config,
    check_hidden_state_cache,
    check_positions,
    heads_for,
    new_prompt,
)
from stages.runtime.code_hash import code_of_stage
from stages.runtime.entry import log, log_read, log_wrote
from stages.runtime.launcher import launch
from stages.runtime.params import arm_of, load_params, with_seed
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, RUNS, run_folder
from stages.training.run import fit, load_backbone, write_run


def finetune(arm_name: str, name: str, seed: str = "") -> None:
    """Write artifacts/ARM/TASK and runs/ARM/TASK."""
    arm, params = arm_of(arm_name), with_seed(load_params(), seed)
    training = params.training(arm, name)
    setup = set_up(arm, name, training, params)
    folder = run_folder(arm, name, seed)
    stage = "-".join(("finetune", *folder.parts))
    if ARMS[arm].parts:
        result, is_rank_0 = fit(stage, arm, setup, training, params)
    else:
        result, is_rank_0 = TrainingRun(steps=0), Ranks.from_environment(os.environ).rank == 0
    if is_rank_0:
        artifact = ARTIFACTS / folder
        save_artifact(artifact, setup.model, artifact_config(arm, setup, training, params))
        write_run(folder, result, arm, training, params.seed, pretrained_on=setup.pretrained_on)
        if result.validation:
            log(f"best validation {result.best_score:.2f} at step {result.best_step}")
        log_wrote(artifact, RUNS / folder)


def set_up(arm: ArmName, name: str, training: TrainParams, params: Params) -> TrainingSetup:
    """Load the data and make the model to train an arm on a task.

    Raises UserError if the model does not fit the data, the params or the artifact in `init_from`,
    or if the arm trains nothing and the task has a head of its own.
    """
    data = TaskData.load(FEATURES / name, EXAMPLES / name, training.validation_rows)
    check_arm(arm, name, data.task)
    log_read(data.train.path)
    backbone = load_backbone(
        params.backbone,
        [data],
        training.precision,
        ARMS[arm].trains_backbone,
        params.seed if ARMS[arm].random_backbone else None,
    )
    heads = heads_for([data], backbone.hidden_size, params.seed)
    where = f"arms.{arm}"
    if ARMS[arm].from_artifact:
        start = _start_from_artifact(data, backbone, heads, training, params)
    else:
        start = _Start(new_prompt(arm, where, backbone, [data], training, params.seed))
    if "lora" in training.learning_rates(arm):
        # After the prompt, whose scales and shifts belong to the frozen projections.
        add_lora(backbone, training.lora_rank, training.lora_alpha, params.seed)
    check_positions(start.prompt, backbone, params, [name])
    check_hidden_state_cache(where, start.prompt, backbone, training)
    inputs = {"code": code_of_stage("finetune", [data.task]), **start.hashes}
    if backbone.random_weights:
        inputs["random_weights"] = backbone.random_weights.sha256
    return TrainingSetup(
        PromptedModel(backbone, start.prompt, heads, train_backbone=ARMS[arm].trains_backbone),
        [data],
        [RATE_SCALE],
        inputs,
        ARMS[arm].params,
        start.pretrained_on,
        start.init_from,
    )


@dataclass(frozen=True)
class _Start:
    """The prompt before training, and the hashes and provenance of its artifact, if any.

    `pretrained_on` and `init_from` are those of `TrainingSetup`.
    """

    prompt: DeepPrompt | SoftPrompt | None
    hashes: Mapping[str, str] = field(default_factory=dict)
    pretrained_on: Sequence[str] = ()
    init_from: dict[str, Any] = field(default_factory=dict)


def _start_from_artifact(
    data: TaskData, backbone: Backbone, heads: Heads, training: TrainParams, params: Params
) -> _Start:
    """Load the prompt of the artifact in the task's `init_from`, and initialize the head from it.

    Raises UserError if the artifact does not fit the backbone, the data or the params.
    """
    init_from = task_of(params, data.name).init_from
    source = ARTIFACTS / init_from
    config = load_config(source)
    for warning in missing_hashes(source, config):
        log(f"warning: {warning}")
    check_deep_prompt_alone(source, config)
    prompt = load_prompt(
        source,
        config,
        params.backbone,
        backbone,
        data.name if data.name in config.heads else None,
        training.projection_size,
        training.prompt_dropout,
    )
    _initialize_head(source, config, heads, data)
    pretrained_on = sorted(
        {*config.provenance.get("pretrained_on", []), *config.provenance.get("data", {})}
    )
    if pretrained_on and data.name not in pretrained_on:
        log(f"the prompt has not seen {data.name}; it was trained on {', '.join(pretrained_on)}")
    rows_hash = training_rows_hash(config.provenance, data.name)
    if rows_hash not in (None, data.summary["splits"]["train"]["examples_sha256"]):
        log(
            f"warning: the corpus {data.name} of {source} is another one, or another version: its "
            "training rows differ"
        )
    log_read(source)
    licenses = {
        **config.provenance.get("init_from", {}).get("licenses", {}),
        **load_scores(source).licenses,
    }
    return _Start(
        prompt,
        artifact_hashes(source),
        pretrained_on,
        {"artifact": init_from, **config.provenance, "licenses": licenses},
    )


def _initialize_head(source: Path, config: ArtifactConfig, heads: Heads, data: TaskData) -> None:
    """Load the task's head from an artifact, or initialize its classes from the other heads."""
    if data.name in config.heads:
        load_heads(source, config, heads, {data.name: data.classes})
        return
    shared = init_head(source, config, heads, data.task, data.classes)
    log(
        f"{source} has no head for {data.name}; {len(shared)} of its {len(data.classes)} classes "
        f"start from other heads{': ' if shared else ''}{', '.join(shared)}"
    )


def _micro_batches(arm_name: str, name: str, seed: str = "") -> int:
    """The micro-batches of a step."""
    del seed
    return load_params().training(arm_of(arm_name), name).micro_batches_per_step


if __name__ == "__main__":
    launch(finetune, _micro_batches)
