"""training_params: the training params of each arm on each task, with the overrides of the task.

Only this stage depends on the params of all arms and tasks. An edit of one override of a task then
reruns one arm on that task and nothing else.
"""

from dataclasses import asdict

from pipeline.files import atomic_folder, write_json
from stages.runtime.entry import log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import TRAINING_PARAMS


def training_params() -> None:
    """Write data/training_params/ARM/TASK.json for each arm on each of its tasks.

    The files are dependencies for DVC. Stages read params.yaml itself.
    """
    params = load_params()
    with atomic_folder(TRAINING_PARAMS) as temporary:
        for arm in params.compared_arms:
            (temporary / arm).mkdir()
            for task in params.tasks_of(arm):
                write_json(temporary / arm / f"{task}.json", asdict(params.training(arm, task)))
    log_wrote(TRAINING_PARAMS)


if __name__ == "__main__":
    run(training_params)
