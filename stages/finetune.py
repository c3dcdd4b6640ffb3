"""finetune: train one arm on one task. `multitask` starts from an artifact: its mixture's shared prompt, or another task's.

With a seed as its third word, it repeats that training with it, in `repeat/SEED/ARM/TASK` in place of `ARM/TASK`.
"""

from pathlib import Path
from typing import Any

from pipeline.artifact import load_heads, load_prompt, save_artifact
from pipeline.files import sha256
from pipeline.manifest import load_config
from pipeline.mixture import UNIT
from pipeline.model import PromptedModel
from pipeline.params import Arm, TrainParams
from stages.command import say, say_read, say_wrote
from stages.launching import launch
from stages.params import Params, arm_of, load_params, run_folder, seeded, task_of
from stages.training import (
    Beginning,
    TaskData,
    check_positions,
    check_stored,
    describe,
    fit,
    heads_for,
    load_backbone,
    new_prompt,
    write_run,
)


def finetune(arm_name: str, name: str, seed: str = "") -> None:
    """Write artifacts/ARM/TASK and runs/ARM/TASK."""
    arm, params = arm_of(arm_name), seeded(load_params(), seed)
    training = params.training(arm, name)
    begun = begin(arm, name, training, params)
    folder = run_folder(arm, name, seed)
    result, writes = fit("-".join(("finetune", *folder.parts)), arm, begun, training, params)
    if writes:
        artifact, curves = Path("artifacts") / folder, Path("runs") / folder
        save_artifact(artifact, begun.model, describe(arm, begun, training, params))
        write_run(curves, result, arm, training, params.seed)
        say(f"best validation {result.best_score:.2f} at step {result.best_step}")
        say_wrote(artifact, curves)


def begin(arm: Arm, name: str, training: TrainParams, params: Params) -> Beginning:
    """What an arm's training on a task begins with."""
    data = TaskData.load(name, training.validation_rows)
    say_read(data.train.path)
    backbone = load_backbone(params.backbone, [data.words], training.precision)
    heads = heads_for([data], backbone.hidden_size, params.seed)
    start: dict[str, Any] = {}
    pretrained_on: list[str] = []
    if arm == "multitask":
        source = Path("artifacts") / task_of(params, name).start
        config = load_config(source)
        prompt = load_prompt(source, config, params.backbone, backbone, name if name in config.heads else None,
                             training.projection, training.prompt_dropout)
        if name in config.heads:
            load_heads(source, config, heads, {name: data.classes})
        pretrained_on = sorted({*config.provenance.get("pretrained_on", []), *config.provenance.get("data", {})})
        start = {file.name: sha256(file) for file in sorted(source.iterdir())}
        say_read(source)
    else:
        prompt = new_prompt(arm, backbone, [data], training, params.seed)
    check_positions(prompt, backbone, params, [name])
    check_stored(f"arms.{arm}", prompt, backbone, training)
    return Beginning(PromptedModel(backbone, prompt, heads, train_backbone=arm == "fine_tune"), [data], [UNIT], start,
                     pretrained_on)


if __name__ == "__main__":
    launch(finetune)
