"""Whether an arm fits a task. It needs no torch, because `deep-prompt check` asks it too."""

from pipeline.arms import ARMS, ArmName
from pipeline.errors import UserError
from pipeline.params import PARAMS_FILE
from pipeline.tasks import task_named
from pipeline.tasks.base.task import LM_HEADS


def check_arm(arm: ArmName, name: str, task: str) -> None:
    """Check that the task `name`, of the type `task`, has a head of its own exactly if needed.

    Raises UserError if the arm trains nothing and the task has a head of its own, or if the arm
    trains only a head and the task has none.
    """
    has_head = task_named(task).head not in LM_HEADS
    remedy = f"remove {arm} from compare.arms, or {name} from compare.tasks"
    if not ARMS[arm].parts and has_head:
        raise UserError(
            f"{PARAMS_FILE}: compare: {arm} trains nothing, but {task} needs a trained head; "
            f"{remedy}"
        )
    if ARMS[arm].parts == ("head",) and not has_head:
        raise UserError(
            f"{PARAMS_FILE}: compare: {arm} trains only a head, but {task} uses the frozen LM head "
            f"of the backbone, so nothing would be trained (the arm untrained measures that); "
            f"{remedy}"
        )
