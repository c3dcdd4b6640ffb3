"""finetune: train one arm on one task. `multitask` starts from an artifact: its mixture's shared prompt, or another task's.

With a seed as its third word, it repeats that training with it, in `repeat/SEED/ARM/TASK` in place of `ARM/TASK`.
"""

from typing import Any

from pipeline.arms import ARMS, ArmName
from pipeline.artifacts.artifact import load_heads, load_prompt, save_artifact
from pipeline.artifacts.config import load_config
from pipeline.files import sha256
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.lora import add_lora
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params, TrainParams, task_of
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
from stages.runtime.params import arm_of, load_params, seeded
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, RUNS, run_folder
from stages.training.run import fit, load_backbone, write_run


def finetune(arm_name: str, name: str, seed: str = "") -> None:
    """Write artifacts/ARM/TASK and runs/ARM/TASK."""
    arm, params = arm_of(arm_name), seeded(load_params(), seed)
    training = params.training(arm, name)
    setup = set_up(arm, name, training, params)
    folder = run_folder(arm, name, seed)
    result, writes = fit("-".join(("finetune", *folder.parts)), arm, setup, training, params)
    if writes:
        artifact = ARTIFACTS / folder
        save_artifact(artifact, setup.model, artifact_config(arm, setup, training, params))
        write_run(folder, result, arm, training, params.seed)
        log(f"best validation {result.best_score:.2f} at step {result.best_step}")
        log_wrote(artifact, RUNS / folder)


def set_up(arm: ArmName, name: str, training: TrainParams, params: Params) -> TrainingSetup:
    """What an arm's training on a task begins with."""
    data = TaskData.load(FEATURES / name, EXAMPLES / name, training.validation_rows)
    log_read(data.train.path)
    backbone = load_backbone(params.backbone, [data.label_token_ids], training.precision)
    heads = heads_for([data], backbone.hidden_size, params.seed)
    start: dict[str, Any] = {"code": code_of_stage("finetune", [data.task])}
    pretrained_on: list[str] = []
    if "lora" in ARMS[arm].parts:
        add_lora(backbone, training.lora_rank, training.lora_alpha, params.seed)
    if ARMS[arm].from_artifact:
        source = ARTIFACTS / task_of(params, name).init_from
        config = load_config(source)
        prompt = load_prompt(
            source,
            config,
            params.backbone,
            backbone,
            name if name in config.heads else None,
            training.projection_size,
            training.prompt_dropout,
        )
        if name in config.heads:
            load_heads(source, config, heads, {name: data.classes})
        pretrained_on = sorted(
            {*config.provenance.get("pretrained_on", []), *config.provenance.get("data", {})}
        )
        start |= {file.name: sha256(file) for file in sorted(source.iterdir())}
        log_read(source)
    else:
        prompt = new_prompt(arm, backbone, [data], training, params.seed)
    check_positions(prompt, backbone, params, [name])
    check_hidden_state_cache(f"arms.{arm}", prompt, backbone, training)
    return TrainingSetup(
        PromptedModel(backbone, prompt, heads, train_backbone=ARMS[arm].trains_backbone),
        [data],
        [RATE_SCALE],
        start,
        pretrained_on,
    )


if __name__ == "__main__":
    launch(finetune)
