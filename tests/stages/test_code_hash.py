"""An edit of the code invalidates the checkpoints and shards of the stages that run the code.

It invalidates nothing else.
"""

import ast
import re
import shutil
from pathlib import Path

import pytest

from pipeline import tasks
from stages.runtime import code_hash
from stages.runtime.code_hash import code_files_of, code_of_stage
from tests.support.paths import ROOT
from tests.support.small_project import environment, make_project, python

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("[!_]*.py"))
MODULES = ("prepare", "featurize", "pretrain", "finetune", "release", "report")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the code. Hashes are computed from this copy."""
    for name in code_hash.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    monkeypatch.setattr(code_hash, "CODE", tmp_path)
    monkeypatch.setattr(tasks, "__path__", [str(tmp_path / "pipeline/tasks")])
    return tmp_path


def hashes() -> dict[str, str]:
    """The code hash of each stage. Stages with a single kind of task run token classification."""
    kinds = {"prepare": [], "release": [], "report": []}
    return {
        name: code_of_stage(name, kinds.get(name, ["token_classification"])) for name in MODULES
    }


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("pipeline/report/plots.py", {"report"}),
        ("pipeline/training/trainer.py", {"pretrain", "finetune"}),
        ("pipeline/features/table.py", {"featurize", "pretrain", "finetune"}),
        ("pipeline/data/readers/base.py", {"prepare"}),
        ("pipeline/tasks/token_classification.py", set(MODULES)),
        ("pipeline/tasks/span_extraction.py", {"prepare", "release", "report"}),
        ("pipeline/errors.py", set(MODULES)),
        ("pipeline/report/report.md.j2", {"report"}),
        ("stages/finetune.py", {"finetune"}),
        ("stages/evaluate.py", set()),
    ],
)
def test_an_edit_changes_the_hash_of_the_stages_that_run_the_file(
    file: str, changed: set[str], code: Path
) -> None:
    before = hashes()
    assert len(set(before.values())) == len(MODULES)
    with (code / file).open("a", encoding="utf-8") as opened:
        opened.write("# edited\n")
    after = hashes()
    assert {name for name in MODULES if after[name] != before[name]} == changed


@pytest.mark.parametrize("name", STAGES)
def test_every_module_that_a_stage_loads_is_in_its_code(name: str, tmp_path: Path) -> None:
    """Modules with only a docstring are not."""
    script = (
        f"import sys, stages.{name}\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.split('.')[0] in ('pipeline', 'stages'): print(module.__file__)"
    )
    env = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = python(tmp_path, env, "-c", script)
    assert done.returncode == 0, done.stderr
    loaded = [Path(line).relative_to(ROOT) for line in done.stdout.splitlines()]
    assert Path(f"stages/{name}.py") in loaded
    code = code_files_of(name)
    missing = [str(file) for file in loaded if str(file) not in code]
    assert not [file for file in missing if len(ast.parse((ROOT / file).read_text()).body) > 1]


def test_only_tasks_are_imported_by_a_computed_name() -> None:
    """The code of a stage does not include such imports."""
    files = [file for name in code_hash.PACKAGES for file in (ROOT / name).rglob("*.py")]
    assert len(files) > 40
    computed = [
        file
        for file in files
        if re.search(r"import_module|__import__", file.read_text(encoding="utf-8"))
    ]
    assert computed == [ROOT / "pipeline/tasks/__init__.py"]


def test_the_hash_of_a_task_covers_only_its_code(code: Path) -> None:
    """An edit changes only the hashes of the tasks that import the file."""
    before = {name: tasks.code_of(name) for name in tasks.NAMES}
    assert len(set(before.values())) == len(tasks.NAMES)
    for file, wanted in {
        "tasks/span_extraction.py": {"span_extraction"},
        "metrics/roles.py": {"semantic_role_labeling"},
        "tasks/shared/tagging.py": {
            "dialogue_state_tracking",
            "intent_and_slots",
            "token_classification",
            "semantic_role_labeling",
        },
        "tasks/base/features.py": set(tasks.NAMES),
        "model/prompt.py": set(),
    }.items():
        with (code / "pipeline" / file).open("a", encoding="utf-8") as opened:
            opened.write("# edited\n")
        after = {name: tasks.code_of(name) for name in tasks.NAMES}
        assert {name for name in tasks.NAMES if after[name] != before[name]} == wanted, file
        before = after


INTERRUPTED = """
import os, signal, sys
from contextlib import suppress
from pathlib import Path

import stages.featurize, stages.prepare
from pipeline.data import prepare
from pipeline.errors import Stopped
from pipeline.sharding import Shard
from stages.featurize import featurize
from stages.finetune import finetune
from stages.training.curve import CurveFile

def edit(file):
    with Path(file).open("a", encoding="utf-8") as opened:
        opened.write("# edited\\n")

made, make, step = [], Shard.make, CurveFile.step
Shard.make = lambda shard, into: made.append(shard.key) or make(shard, into)

def interrupted(stage, *words):
    made.clear()
    with suppress(KeyboardInterrupt, Stopped):
        stage(*words)
        raise AssertionError("it was not interrupted")
    print(stage.__name__, "made", len(made))

def interrupt(*_, **__):
    raise KeyboardInterrupt

def stop(curve, run, rows, tokens):
    step(curve, run, rows, tokens)
    os.kill(os.getpid(), signal.SIGTERM)

def three_times(stage, *words, code):
    interrupted(stage, *words)
    edit("pipeline/report/plots.py")
    print("a plot was edited")
    interrupted(stage, *words)
    edit(code)
    print("the code was edited")
    interrupted(stage, *words)

merge, prepare._merge = prepare._merge, interrupt
three_times(stages.prepare.prepare, "world_ner", code="pipeline/data/readers/base.py")
prepare._merge = merge
stages.prepare.prepare("world_ner")

remove_shards, stages.featurize.remove_shards = stages.featurize.remove_shards, interrupt
three_times(featurize, "world_ner", code="pipeline/features/table.py")
stages.featurize.remove_shards = remove_shards
featurize("world_ner")

CurveFile.step = stop
three_times(finetune, "head_only", "world_ner", code="pipeline/training/trainer.py")
"""


def test_an_edit_of_a_plot_invalidates_no_shard_or_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    make_project(folder)
    env = environment(tmp_path)
    python(folder, env, "-m", "stages.generate", "ner").check_returncode()
    done = python(folder, env, "-c", INTERRUPTED)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage, shards in (("prepare", 3), ("featurize", 3)):
        made = re.findall(rf"^{stage} made (\d+)", done.stdout, re.MULTILINE)
        assert list(map(int, made)) == [shards, 0, shards]
    trained = done.stdout.split("finetune made")
    assert ["resuming at step" in text for text in trained[:3]] == [False, True, False]
