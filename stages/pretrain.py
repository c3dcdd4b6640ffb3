"""pretrain@MIXTURE: train a shared deep prompt, and one head per corpus, on a mixture (MPT-2)."""

from pathlib import Path

from pipeline.arms import MULTITASK, PRETRAIN_PARAMS
from pipeline.artifacts.artifact import save_artifact
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params, TrainParams
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
from stages.runtime.params import load_params, mixture_of
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, MIXTURES, RUNS
from stages.training.run import fit, load_backbone, write_run


def pretrain(mixture: str) -> None:
    """Write artifacts/pretrain/MIXTURE and runs/pretrain/MIXTURE."""
    params = load_params()
    mixture_of(params, mixture)
    training = params.pretrain[mixture]
    setup = set_up(mixture, training, params)
    result, is_rank_0 = fit(f"pretrain-{mixture}", MULTITASK.name, setup, training, params)
    if is_rank_0:
        folder = Path("pretrain", mixture)
        artifact = ARTIFACTS / folder
        config = artifact_config(MULTITASK.name, setup, training, params)
        save_artifact(artifact, setup.model, config)
        write_run(folder, result, MULTITASK.name, training, params.seed)
        log(f"best validation {result.best_score:.2f} at step {result.best_step}")
        log_wrote(artifact, RUNS / folder)


def set_up(mixture: str, training: TrainParams, params: Params) -> TrainingSetup:
    """Load the data and make the model to train the shared prompt.

    Raises UserError if the features have changed since `mix`, or if the model does not fit them or
    the params.
    """
    source = MIXTURES / f"{mixture}.json"
    mixture_file = load_json(source)
    corpora, features, dropped = (mixture_file[key] for key in ("corpora", "features", "dropped"))
    tasks = [
        TaskData.load(
            FEATURES / name, EXAMPLES / name, training.validation_rows, dropped.get(name, ())
        )
        for name in corpora
    ]
    stale = [task.name for task in tasks if task.summary != features[task.name]]
    if stale:
        raise UserError(
            f"{source}: the features of {', '.join(stale)} have changed; "
            "run mixture_corpora and mix again"
        )
    log_read(source, *(task.train.path for task in tasks))
    backbone = load_backbone(params.backbone, tasks, training.precision)
    where = f"pretrain.{mixture}"
    prompt = new_prompt(MULTITASK.name, where, backbone, tasks, training, params.seed)
    check_positions(prompt, backbone, params, corpora)
    check_hidden_state_cache(where, prompt, backbone, training)
    model = PromptedModel(
        backbone, prompt, heads_for(tasks, backbone.hidden_size, params.seed), train_backbone=False
    )
    code = code_of_stage("pretrain", [task.task for task in tasks])
    return TrainingSetup(
        model,
        tasks,
        [corpora[task.name]["rate"] for task in tasks],
        {"code": code, "dropped": dropped},
        PRETRAIN_PARAMS,
    )


def _micro_batches(mixture: str) -> int:
    """The micro-batches of a step."""
    params = load_params()
    mixture_of(params, mixture)
    return params.pretrain[mixture].micro_batches_per_step


if __name__ == "__main__":
    launch(pretrain, _micro_batches)
