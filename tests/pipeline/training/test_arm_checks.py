"""Arms that train nothing or only a head fit only some tasks."""

import pytest

from pipeline.arms import ARMS, ArmName
from pipeline.errors import UserError
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.task import LM_HEADS
from pipeline.training.arm_checks import check_arm

WITHOUT_HEAD = {"text_generation", "verbalized_classification"}


def test_tasks_without_a_head_of_their_own_are_known() -> None:
    assert {name for name in NAMES if task_named(name).head in LM_HEADS} >= WITHOUT_HEAD


@pytest.mark.parametrize("task", NAMES)
def test_an_arm_without_training_needs_a_task_without_a_head(task: str) -> None:
    if task_named(task).head in LM_HEADS:
        check_arm("untrained", "corpus", task)
        return
    with pytest.raises(UserError, match=f"{task} needs a trained head; remove untrained from"):
        check_arm("untrained", "corpus", task)


@pytest.mark.parametrize("task", NAMES)
def test_an_arm_that_trains_only_a_head_needs_a_task_with_one(task: str) -> None:
    if task_named(task).head not in LM_HEADS:
        check_arm("head_only", "corpus", task)
        return
    with pytest.raises(UserError, match=f"{task} uses the frozen LM head .* remove head_only from"):
        check_arm("head_only", "corpus", task)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in ("untrained", "head_only")])
def test_all_other_arms_fit_all_tasks(arm: ArmName) -> None:
    for task in NAMES:
        check_arm(arm, "corpus", task)
