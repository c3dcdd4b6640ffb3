"""training_params: the training params of each arm on each task, with the overrides of the task.

Only this stage depends on the params of all arms and tasks. An edit of one override of a task then
reruns one arm on that task and nothing else.
"""

from dataclasses import asdict

from pipeline.files import atomic_folder, atomic_write, write_json
from stages.runtime.entry import log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import (
    ANSWER_LENGTHS,
    ARTIFACTS,
    MIXTURE_STEPS,
    MIXTURES,
    PROMPTS,
    TRAINING_PARAMS,
)

KEEP = ".keep"


def training_params() -> None:
    """Write data/training_params/ARM/TASK.json for each arm on each of its tasks.

    It also writes data/answer_lengths/TASK.json for each task, and data/mixture_steps/MIXTURE.json
    with the params that set the number of micro-batches, because DVC cannot depend on a key that
    params.yaml may lack. The files are dependencies for DVC. Stages read params.yaml itself.

    data/prompts.json has the prompts of the project: of each task with its initialization, and of
    each mixture. DVC keeps the outputs of removed tasks and mixtures, so the folders of all prompts
    do not tell which of them exist.

    An empty file keeps the folders of mixtures and shared prompts, on which DVC's stages depend
    also in a project without a mixture.
    """
    params = load_params()
    with atomic_folder(TRAINING_PARAMS) as temporary:
        for arm in params.compared_arms:
            (temporary / arm).mkdir()
            for task in params.tasks_of(arm):
                write_json(temporary / arm / f"{task}.json", asdict(params.training(arm, task)))
    with atomic_folder(ANSWER_LENGTHS) as temporary:
        for name, values in params.tasks.items():
            write_json(temporary / f"{name}.json", {"max_answer_length": values.max_answer_length})
    with atomic_folder(MIXTURE_STEPS) as temporary:
        for name, training in params.pretrain.items():
            write_json(
                temporary / f"{name}.json",
                {
                    "epochs": training.epochs,
                    "tokens_per_micro_batch": training.tokens_per_micro_batch,
                    "micro_batches_per_step": training.micro_batches_per_step,
                },
            )
    init_from = {name: values.init_from for name, values in params.tasks.items()}
    write_json(PROMPTS, {"tasks": init_from, "mixtures": list(params.mixtures)})
    for folder in (MIXTURES, ARTIFACTS / "pretrain"):
        atomic_write(folder / KEEP, "")
    log_wrote(TRAINING_PARAMS, ANSWER_LENGTHS, MIXTURE_STEPS, PROMPTS)


if __name__ == "__main__":
    run(training_params)
