"""All that the code knows of an arm is in its record: no other module names one."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from pipeline.arms import ARMS, MULTITASK, PRETRAIN_PARAMS, ArmName, Part
from pipeline.params import TrainParams
from pipeline.report.plots import OTHER_COLOR, TASK_COLORS
from tests.support.paths import ROOT

# The same word for another thing: the name of the attention function, and of its argument.
OTHER_MEANINGS = {
    "pipeline/model/attention.py": {"deep_prompt"},
    "pipeline/model/backbone.py": {"deep_prompt"},
    "pipeline/arms.py": {*ARMS},
}


def named_arms(file: Path) -> set[str]:
    """The arms whose names are text in a file: alone, or as a part of a path.

    `lora` names a part too, in params, parameters and files: only what is compared with it counts.
    """
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    compared = {
        constant
        for node in nodes
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq)
        for constant in (node.left, *node.comparators)
    }
    return {
        arm
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for arm in node.value.split("/")
        if arm in ARMS and (arm not in get_args(Part) or node in compared)
    }


def test_no_other_module_names_an_arm() -> None:
    offenders = {
        name: found
        for folder in ("pipeline", "stages", "deep_prompt", "benchmarks")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if (name := str(file.relative_to(ROOT)))
        and (found := named_arms(file) - OTHER_MEANINGS.get(name, set()))
    }
    assert not offenders


def test_the_check_for_names_finds_them(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(
        '"""Of fine_tune."""\nif arm == "fine_tune":\n    folder = f"head_only/{task}"\n'
    )
    assert named_arms(file) == {"fine_tune", "head_only"}


def test_every_arm_has_its_record() -> None:
    assert tuple(ARMS) == get_args(ArmName)
    assert all(name == arm.name for name, arm in ARMS.items())
    assert [arm for arm in ARMS.values() if not arm.baseline] == [MULTITASK]


def test_arms_can_be_told_apart_in_the_report() -> None:
    for texts in (
        [arm.color for arm in ARMS.values()] + [OTHER_COLOR, *TASK_COLORS],
        [arm.title for arm in ARMS.values()],
        [arm.glossary for arm in ARMS.values()],
    ):
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arms_params_and_rates_are_those_of_training(arm: str) -> None:
    keys = set(TrainParams.__dataclass_fields__)
    assert {*ARMS[arm].params, *PRETRAIN_PARAMS} <= keys
    assert {f"{part}_lr" for part in ARMS[arm].parts} <= keys
