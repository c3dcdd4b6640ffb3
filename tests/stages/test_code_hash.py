"""An edit of the code invalidates the checkpoints and shards of the stages that run the code.

It invalidates nothing else.
"""

import re
import shutil
from pathlib import Path

import pytest

from pipeline import tasks
from stages.runtime import code_hash
from stages.runtime.code_hash import code_of_stage
from tests.support.paths import ROOT
from tests.support.small_project import environment, make_project, python

MODULES = ("prepare", "featurize", "pretrain", "finetune", "report")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dvc.yaml and a copy of the code. Hashes are computed from this copy."""
    for name in code_hash.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code_hash, "CODE", tmp_path)
    monkeypatch.setattr(tasks, "__path__", [str(tmp_path / "pipeline/tasks")])
    return tmp_path


def hashes() -> dict[str, str]:
    """The code hash of each stage. Stages with a single kind of task run token classification."""
    kinds = {"prepare": [], "report": []}
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
        ("pipeline/tasks/span_extraction.py", {"prepare", "report"}),
        ("pipeline/errors.py", set(MODULES)),
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


def test_without_dvc_yaml_the_hash_covers_all_code(code: Path) -> None:
    (code / "dvc.yaml").unlink()
    before = hashes()
    with (code / "pipeline/report/plots.py").open("a", encoding="utf-8") as opened:
        opened.write("# edited\n")
    after = hashes()
    assert not [name for name in MODULES if after[name] == before[name]]


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
from stages.training.curve import Curve

def edit(file):
    with Path(file).open("a", encoding="utf-8") as opened:
        opened.write("# edited\\n")

made, make, step = [], Shard.make, Curve.step
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

Curve.step = stop
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
