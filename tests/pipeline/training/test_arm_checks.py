"""An arm that trains nothing fits the tasks that need no head of their own."""

import pytest

from pipeline.arms import ARMS
from pipeline.errors import UserError
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.task import LM_HEADS
from pipeline.training.arm_checks import check_arm

WITHOUT_HEAD = {"text_generation", "verbalized_classification"}


def test_tasks_without_a_head_of_their_own_are_known() -> None:
    assert {name for name in NAMES if task_named(name).head in LM_HEADS} >= WITHOUT_HEAD


@pytest.mark.parametrize("task", NAMES)
def test_an_arm_without_training_needs_a_task_without_a_head(task: str) -> None:
    for arm in ARMS.values():
        if arm.parts or task_named(task).head in LM_HEADS:
            check_arm(arm.name, "corpus", task)
            continue
        with pytest.raises(UserError, match=f"{task} needs a trained head; remove untrained from"):
            check_arm(arm.name, "corpus", task)
