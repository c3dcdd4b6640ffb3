"""Experiments of DVC in the small project: `--temp` and `--queue` run in another folder.

The backbone and cluster.yaml are files that git ignores, so an experiment's folder lacks them.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_project import (
    ROOT,
    TRAINING,
    environment,
    make_project,
    python,
    write_params,
)

ARM = "baseline@deep_prompt-world_srl"
STAGES_OF_ARM = {
    "backbone_files",
    "code_files",
    "prepare@world_srl",
    "featurize@world_srl",
    "training_params",
    ARM,
    f"evaluate_{ARM}",
}


class Project:
    """A small project with one arm on one corpus, under git and DVC, after a first `dvc repro`."""

    def __init__(self, home: Path) -> None:
        self.folder, self.env = home / "project", environment(home)
        self.values: dict[str, Any] = make_project(self.folder)
        self.values["arms"]["deep_prompt"] = dict(TRAINING)
        self.values["compare"] = {"arms": ["deep_prompt"], "tasks": ["world_srl"]}
        self.values["repeat"] = {"arms": [], "tasks": [], "seeds": []}
        self.values["probe"] = self.values["probe"] | {"tasks": [], "out_of_domain": []}
        self.values["backbone"]["source"] = "folder:../project/backbone"
        write_params(self.folder, self.values)
        ignored = "/backbone/\n/cluster.yaml\n.work/\n__pycache__/\n/resource_usage/\n"
        (self.folder / ".gitignore").write_text(ignored, encoding="utf-8")
        (self.folder / "cluster.yaml").write_text("checkpoint_minutes: 7\n", encoding="utf-8")
        self.git("init", "--quiet")
        for words in ("init --quiet", "config core.analytics false"):
            self.dvc(*words.split())
        self.first = self.repro()
        self.commit()

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, check=True, capture_output=True, text=True
        )
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a")

    def dvc(self, *words: str) -> str:
        done = python(self.folder, self.env, "-m", "dvc", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self) -> set[str]:
        """Run the stages of the arm; returns their names."""
        output = self.dvc("repro", f"evaluate_{ARM}")
        return set(re.findall(r"^Running stage '(.+?)'", output, re.M))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("experiments"))


def test_other_files_of_the_backbone_rerun_the_stages_that_use_it(project: Project) -> None:
    """The weights and their hash in params.yaml stay the same."""
    assert project.first == STAGES_OF_ARM
    assert project.repro() == {"backbone_files"}
    path = project.folder / "backbone/config.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(before) | {"hidden_act": "relu"}), encoding="utf-8")
    assert project.repro() == STAGES_OF_ARM - {"code_files", "prepare@world_srl", "training_params"}
    artifact = project.folder / "artifacts/deep_prompt/world_srl/config.json"
    changed = json.loads(artifact.read_text(encoding="utf-8"))["backbone_files"]
    path.write_text(before, encoding="utf-8")
    project.repro()
    restored = json.loads(artifact.read_text(encoding="utf-8"))["backbone_files"]
    assert {name for name in restored if restored[name] != changed[name]} == {"config.json"}


def test_the_sweep_of_the_page_runs_in_the_queue(project: Project) -> None:
    """Each experiment runs in .dvc/tmp/exps and finds the backbone of the project."""
    page = (ROOT / "docs/howto/tune.md").read_text(encoding="utf-8")
    match = re.search(r"`dvc (exp run --queue -S) '([\w.]+)=([\d.]+),([\d.]+)'`", page)
    assert match, "the page has no sweep"
    assert "then `dvc exp run --run-all`" in page
    command, param, *values = match.groups()
    project.dvc(*command.split(), f"{param}={','.join(values)}", f"evaluate_{ARM}")
    project.dvc("exp", "run", "--run-all")
    shown = json.loads(project.dvc("exp", "show", "--json"))
    revisions = [
        revision["data"]
        for row in shown
        for experiment in row["experiments"] or []
        for revision in experiment["revs"]
    ]
    rates = [data["params"]["params.yaml"]["data"]["arms"]["deep_prompt"] for data in revisions]
    assert sorted(rate["prompt_lr"] for rate in rates) == sorted(map(float, values))
    for data in revisions:
        metrics = {
            path: metric["data"] for path, metric in data["metrics"].items() if "data" in metric
        }
        assert metrics.keys() == {"results/deep_prompt/world_srl/score.json"}
        (scores,) = metrics.values()
        assert scores["deep_prompt"]["world_srl"].keys() == {"validation", "test"}
