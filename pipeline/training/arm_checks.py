"""Whether an arm fits a task. It needs no torch, because `deep-prompt check` asks it too."""

from pipeline.arms import ARMS, ArmName
from pipeline.errors import UserError
from pipeline.params import PARAMS_FILE
from pipeline.tasks import task_named
from pipeline.tasks.base.task import LM_HEADS


def check_arm(arm: ArmName, name: str, task: str) -> None:
    """Check that the task `name`, of the type `task`, needs no head that the arm does not train.

    Raises UserError if the arm trains nothing and the task has a head of its own.
    """
    if not ARMS[arm].parts and task_named(task).head not in LM_HEADS:
        raise UserError(
            f"{PARAMS_FILE}: compare: {arm} trains nothing, but {task} needs a trained head; "
            f"remove {arm} from compare.arms, or {name} from compare.tasks"
        )
