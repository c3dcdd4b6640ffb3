"""The record of an arm is complete: no other module names an arm."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from pipeline.arms import ARMS, MULTITASK, PRETRAIN_PARAMS, ArmName, Part
from pipeline.params import TrainParams
from pipeline.report.plots import OTHER_COLOR, TASK_COLORS
from tests.support.paths import ROOT

# Modules in which a name has another meaning: the attention function and its argument, a package.
OTHER_MEANINGS = {
    "pipeline/model/attention.py": {"deep_prompt"},
    "pipeline/model/backbone.py": {"deep_prompt"},
    "deep_prompt/cli/space.py": {"deep_prompt"},
    "benchmarks/serve/methods.py": {"deep_prompt"},
    "pipeline/arms.py": {*ARMS},
}


def named_arms(file: Path) -> set[str]:
    """The arms in the string constants of a file: alone, or as a component of a path.

    The name `lora` is also the name of a part, so it counts only in a comparison.
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


def python_files(*folders: str) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield str(file.relative_to(ROOT)), file


def test_no_other_module_names_an_arm() -> None:
    offenders = {
        name: arms
        for name, file in python_files("pipeline", "stages", "deep_prompt", "benchmarks")
        if (arms := named_arms(file) - OTHER_MEANINGS.get(name, set()))
    }
    assert not offenders


def test_named_arms_finds_comparisons_and_paths(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(
        '"""Of fine_tune."""\nif arm == "fine_tune":\n    folder = f"head_only/{task}"\n'
    )
    assert named_arms(file) == {"fine_tune", "head_only"}


def test_every_arm_name_has_a_record() -> None:
    assert tuple(ARMS) == get_args(ArmName)
    assert all(name == arm.name for name, arm in ARMS.items())
    assert [arm for arm in ARMS.values() if not arm.baseline] == [MULTITASK]


def test_colors_titles_and_glossary_differ_between_arms() -> None:
    for texts in (
        [arm.color for arm in ARMS.values()] + [OTHER_COLOR, *TASK_COLORS],
        [arm.title for arm in ARMS.values()],
        [arm.glossary for arm in ARMS.values()],
    ):
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("arm", ARMS)
def test_params_and_learning_rates_of_an_arm_are_keys_of_train_params(arm: str) -> None:
    keys = set(TrainParams.__dataclass_fields__)
    assert {*ARMS[arm].params, *PRETRAIN_PARAMS} <= keys
    assert {f"{part}_lr" for part in ARMS[arm].parts} <= keys
