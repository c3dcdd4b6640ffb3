"""training_params: how each arm is trained on each task, as params.yaml says: the arm's params with the task's overrides.

The one stage that looks at all of them, so that an edit of one task's override reruns this arm on this task and nothing else.
"""

from dataclasses import asdict

from pipeline.files import atomic_folder, write_json
from stages.runtime.entry import log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import TRAINING_PARAMS


def training_params() -> None:
    """Write data/training_params/ARM/TASK.json for each arm and task that is run. It is there for DVC: stages read params.yaml."""
    params = load_params()
    with atomic_folder(TRAINING_PARAMS) as beside:
        for arm in params.compared_arms:
            (beside / arm).mkdir()
            for task in params.tasks_of(arm):
                write_json(beside / arm / f"{task}.json", asdict(params.training(arm, task)))
    log_wrote(TRAINING_PARAMS)


if __name__ == "__main__":
    run(training_params)
