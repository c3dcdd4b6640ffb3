"""deep-prompt tune: search spaces, continued studies, resumed trials, and --apply."""

import difflib
import importlib
import os
import re
import signal
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from deep_prompt.cli import search_space as search
from deep_prompt.cli.search_space import Range, Target
from deep_prompt.cli.tune import _work, tune
from pipeline.config import load_yaml
from pipeline.errors import Diverged, UserError
from pipeline.params import TrainParams
from pipeline.report.tuning_page import TrialResult, best_of, write_tuning
from pipeline.training.callbacks import TrainingRun
from stages.runtime.params import check_params
from tests.support.small_project import (
    ROOT,
    TUNING,
    environment,
    make_project,
    params,
    python,
    python_of,
    write_params,
)

COMMAND = ["-m", "deep_prompt", "tune", "world_ner", "--arm", "head_only", "--space", "small.yaml"]
SPACE: dict[str, Any] = {
    "pruner": "none",
    "arms": {"head_only": {"head_lr": {"low": 0.001, "high": 0.1}, "epochs": [0.2]}},
}


def write_space(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "small.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A small project with features of world_ner."""
    home = tmp_path_factory.mktemp("tune")
    folder, env = home / "project", environment(home)
    folder.mkdir()
    make_project(folder)
    write_space(folder, SPACE)
    for stage, name in (("generate", "ner"), ("prepare", "world_ner"), ("featurize", "world_ner")):
        done = python(folder, env, "-m", f"stages.{stage}", name)
        assert done.returncode == 0, done.stderr
    return folder, env


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "tuning/head_only-world_ner/trials.tsv", sep="\t")


def test_a_search_continues_and_apply_writes_the_best_values(
    project: tuple[Path, dict[str, str]],
) -> None:
    folder, env = project
    before = (folder / "params.yaml").read_bytes()
    done = python(folder, env, *COMMAND, "--trials", "2")
    assert done.returncode == 0, done.stderr
    first = trials(folder)
    assert list(first["trial"]) == [0, 1]
    assert sorted(first.columns) == ["epochs", "head_lr", "pruned", "score", "scored", "trial"]
    assert first["head_lr"][0] == TUNING["head_lr"], "the first trial has the values of params.yaml"
    assert 0.001 <= first["head_lr"][1] <= 0.1
    assert set(first["epochs"]) == {0.2}
    assert (folder / "params.yaml").read_bytes() == before, "params.yaml changes only with --apply"
    done = python(folder, env, *COMMAND, "--trials", "4", "--workers", "2", "--apply")
    assert done.returncode == 0, done.stderr
    more = trials(folder)
    pd.testing.assert_frame_equal(more.head(2), first, check_dtype=False)
    assert len(more) == 4
    assert more["head_lr"].nunique() == 4
    best = more.loc[more["score"].idxmax()]
    written = load_yaml(folder / "params.yaml")
    assert written["tasks"]["world_ner"]["head_only"] == {
        "head_lr": pytest.approx(best["head_lr"], rel=1e-5)
    }
    assert f"best validation {best['score']:.2f}" in done.stdout
    page = (folder / "tuning/head_only-world_ner/tuning.html").read_text(encoding="utf-8")
    assert "Score by head_lr" in page
    assert "History" in page
    # A change of a param that trials depend on starts a new study without these trials.
    values = params(written["backbone"]["sha256"])
    values["arms"]["head_only"]["weight_decay"] = 0.1
    write_params(folder, values)
    done = python(folder, env, *COMMAND, "--trials", "1")
    assert done.returncode == 0, done.stderr
    assert len(trials(folder)) == 1
    assert not list((folder / ".work/tune").rglob("*.safetensors")), (
        "a finished trial leaves no checkpoint"
    )


def test_workers_with_equal_values_take_turns(project: tuple[Path, dict[str, str]]) -> None:
    folder, env = project
    write_params(folder, params(load_yaml(folder / "params.yaml")["backbone"]["sha256"]))
    space = {"pruner": "none", "arms": {"head_only": {"head_lr": [0.01], "epochs": [0.2]}}}
    write_space(folder, space)
    done = python(folder, env, *COMMAND, "--trials", "3", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert len(trials(folder)) == 3
    assert trials(folder)["score"].nunique() == 1


def test_a_failed_worker_fails_the_command_after_the_results_are_written(
    project: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = project
    monkeypatch.chdir(folder)
    values = params(load_yaml(folder / "params.yaml")["backbone"]["sha256"])
    write_params(folder, values)
    arguments = Namespace(
        target="world_ner",
        arm="head_only",
        space=write_space(folder, SPACE),
        trials=1,
        workers=2,
        apply=True,
    )

    def one_of_two(arguments: Namespace, target: Target) -> list[int]:
        _work(arguments, target, 0)
        return [1]

    monkeypatch.setattr("deep_prompt.cli.tune._search", one_of_two)
    with pytest.raises(UserError, match=r"workers failed: 1; .* run the command again"):
        tune(arguments)
    assert len(trials(folder)) >= 1
    assert load_yaml(folder / "params.yaml") == values, "the best values are not applied"


def test_an_interrupted_trial_resumes(
    project: tuple[Path, dict[str, str]],
) -> None:
    folder, env = project
    values = params(load_yaml(folder / "params.yaml")["backbone"]["sha256"])
    values["arms"]["head_only"] |= {"epochs": 40, "num_validations": 40}
    write_params(folder, values)
    space = {"pruner": "none", "arms": {"head_only": {"head_lr": {"low": 0.001, "high": 0.1}}}}
    write_space(folder, space)
    with subprocess.Popen(
        [python_of(env), *COMMAND, "--trials", "1"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.search(r"step \d+: validation", line):
                break
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        process.communicate()  # Read the output to its end.
    assert process.returncode == 128 + signal.SIGTERM
    done = python(folder, env, *COMMAND, "--trials", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"resuming at step \d+", done.stdout)
    table = trials(folder)
    assert len(table) == 1
    assert table["head_lr"][0] == TUNING["head_lr"]
    write_space(folder, SPACE)


@pytest.fixture
def fake_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The training is fake: its score falls with the learning rate, and it diverges above 0.05."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, params("0" * 64))
    summary = tmp_path / "data/features/world_ner/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text("{}", encoding="utf-8")

    def fit(
        stage: str, arm: str, setup: Any, training: TrainParams, params: Any, callbacks: Any
    ) -> tuple[TrainingRun, bool]:
        if training.head_lr > 0.05:
            raise UserError("it diverged") from Diverged(3, "the loss is nan", [])
        run = TrainingRun(20)
        for step in (10, 20):
            run.add_validation(step, {"world_ner": 50 + step - 1000 * training.head_lr})
            (pruning,) = callbacks
            pruning.validated(run)
            run.pruned = step < run.steps and pruning.should_prune(run)
            if run.pruned:
                break
        return run, True

    # First the stages: their import would bind a replaced fit for all later tests.
    for stage in ("finetune", "pretrain"):
        importlib.import_module(f"stages.{stage}")
    monkeypatch.setattr("stages.finetune.set_up", lambda *_: None)
    monkeypatch.setattr("stages.training.run.fit", fit)
    return tmp_path


def search_head_only(folder: Path, space: dict[str, object], num_trials: int) -> pd.DataFrame:
    """The trials of a search of `head_only`."""
    path = write_space(folder, {"arms": {"head_only": space}})
    tune(
        Namespace(
            target="world_ner",
            arm="head_only",
            space=path,
            trials=num_trials,
            workers=1,
            apply=False,
        )
    )
    return trials(folder)


@pytest.mark.parametrize(
    ("space", "first"),
    [
        ({"weight_decay": [0, 0.1], "num_validations": [4]}, 0.0),
        ({"weight_decay": [0.1, 0]}, 0.0),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": False}}, 0.0),
        ({"weight_decay": [0.1, 0.2]}, None),
    ],
)
def test_the_first_trial_has_the_values_of_params(
    fake_project: Path,
    capsys: pytest.CaptureFixture[str],
    space: dict[str, object],
    first: float | None,
) -> None:
    """A choice may be an integer where the param is a number; other values are not in the space."""
    table = search_head_only(fake_project, space, 2)
    if first is not None:
        assert table["weight_decay"][0] == first
    assert (
        "no trial has the values of params.yaml, because the search space lacks weight_decay 0.0"
        in capsys.readouterr().out
    ) == (first is None)


def test_a_list_of_the_space_is_the_tuple_of_params() -> None:
    choices = ([0, 1], [2])
    assert search.contains(choices, (2,))
    assert not search.contains(choices, None)


def test_bad_trials_are_pruned_and_diverged_trials_score_0(fake_project: Path) -> None:
    rates = [0.003, 0.002, 0.004, 0.001, 0.03, 0.06, 0.0005]
    table = search_head_only(fake_project, {"head_lr": rates}, 40)
    assert len(table) == 40
    assert set(table["score"][table["head_lr"] == 0.06]) <= {0.0}
    finished = table[(table["pruned"] == 0) & (table["head_lr"] < 0.05)]
    assert np.allclose(finished["score"], 70 - 1000 * finished["head_lr"])
    pruned = table[table["pruned"] == 1]
    assert len(pruned) >= 1
    assert np.allclose(pruned["score"], 60 - 1000 * pruned["head_lr"])
    assert set(pruned["scored"]) == {1}
    assert 0.0005 not in set(pruned["head_lr"]), "the best trial is never pruned"
    assert table.loc[table["score"].idxmax(), "head_lr"] == 0.0005


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"arms": {"head_only": {"head_lr": {"low": 0.1, "high": 0.01}}}},
            "low is 0.1 and high 0.01; give low < high",
        ),
        (
            {"arms": {"head_only": {"head_lr": {"low": 0, "high": 0.01}}}},
            "above 0 if log is true",
        ),
        ({"arms": {"head_only": {"head_lr": []}}}, "head_only.head_lr: the list is empty"),
        ({"arms": {"head_only": {"prompt_lr": [0.1]}}}, "head_only trains no prompt"),
        (
            {"arms": {"head_only": {"tokens_per_micro_batch": {"low": 8, "high": 64}}}},
            "tokens_per_micro_batch: found a number 8.0, expected an integer",
        ),
        (
            {"arms": {"head_only": {"hed_lr": [0.1]}}},
            "unknown key 'hed_lr'; did you mean 'head_lr'?",
        ),
        ({"arms": {"deep_prompt": {}}}, "no 'head_only'"),
        ({"arms": {}, "pruner": "mean"}, "'mean' is not one of the allowed values"),
    ],
)
def test_an_invalid_search_space_is_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    path = write_space(tmp_path, values)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        search.load_search(
            path, Target("head_only", "world_ner"), check_params(params("0" * 64), "params.yaml")
        )
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": [0]}, "pretrain.epochs: epochs is missing or 0"),
        ({"lora_rank": [4]}, "pretrain.lora_rank: lora_rank is set, but a shared prompt does not"),
        ({"backbone_lr": [0.1]}, "backbone_lr is set, but multitask trains no backbone"),
    ],
)
def test_an_invalid_search_space_of_a_shared_prompt_is_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    path = write_space(tmp_path, {"arms": {"pretrain": values}})
    with pytest.raises(UserError, match=re.escape(message)):
        search.load_search(
            path, Target("pretrain", "all"), check_params(params("0" * 64), "params.yaml")
        )


def test_the_study_depends_on_params_features_and_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = tmp_path / "data/features/world_ner/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text("{}", encoding="utf-8")
    target, space = Target("head_only", "world_ner"), {"head_lr": Range(0.001, 0.1)}

    def digest(change: dict[str, Any], searched: search.Space = space) -> str:
        values = params("0" * 64)
        values["arms"]["head_only"] |= change
        return search.digest(target, check_params(values, "params.yaml"), searched)

    assert digest({}) == digest({"head_lr": 0.05}), (
        "the value of a searched param in params.yaml does not count"
    )
    assert (
        len({digest({}), digest({"epochs": 2.0}), digest({}, {"head_lr": Range(0.001, 0.2)})}) == 3
    )
    before = digest({})
    summary.write_text('{"other": 1}', encoding="utf-8")
    assert digest({}) != before


def test_apply_keeps_the_comments_of_params_yaml(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    before = path.read_text(encoding="utf-8").splitlines()
    search.apply(Target("deep_prompt", "world_ner"), {"prompt_lr": 0.0123}, path)
    search.apply(Target("fine_tune", "world_qa"), {"head_lr": 0.0456}, path)
    search.apply(Target("lora", "world_srl"), {"lora_lr": 0.0789}, path)
    search.apply(Target("pretrain", "all"), {"head_lr": 0.0031, "patience": 3}, path)
    after = path.read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.ndiff(before, after) if line.startswith(("+", "-"))]
    assert [line[0] + line.strip("+- ") for line in changes] == [
        "+deep_prompt: {prompt_lr: 0.0123}",
        "-fine_tune: {backbone_lr: 1.0e-4}",
        "+fine_tune: {head_lr: 0.0456, backbone_lr: 1.0e-4}",
        "+lora: {lora_lr: 0.0789}",
        "-head_lr: 0.01",
        "+head_lr: 0.0031",
        "+patience: 3",
    ]
    checked = check_params(load_yaml(path), str(path))
    assert checked.training("lora", "world_srl").lora_lr == 0.0789
    with pytest.raises(UserError, match="prompt_lr: found text"):
        search.apply(Target("deep_prompt", "world_ner"), {"prompt_lr": "fast"}, path)
    assert path.read_text(encoding="utf-8").splitlines() == after


def with_anchors(text: str) -> str:
    """The default params, in which two tasks share the values of an arm, and two a merge key."""
    shared = "    fine_tune: {backbone_lr: 1.0e-4}\n"
    assert text.count(shared) == 1
    text = text.replace(shared, "    fine_tune: &rates {backbone_lr: 1.0e-4}\n")
    text = text.replace("  world_srl:\n", "  world_srl:\n    fine_tune: *rates\n", 1)
    text = text.replace("  head_only:\n    head_lr: 0.01\n", "  head_only:\n    <<: *head\n")
    return text.replace("arms:\n  multitask:", "arms:\n  multitask: &head", 1)


def test_apply_changes_no_value_that_others_share(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = with_anchors((ROOT / "params.yaml").read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    before = load_yaml(path)
    for task in ("world_qa", "world_srl"):
        with pytest.raises(UserError) as caught:
            search.apply(Target("fine_tune", task), {"head_lr": 0.0456}, path)
        (problem,) = caught.value.problems
        assert f"{path}: not changed, because other params share the values of" in problem
        assert f"fine_tune-{task} (anchors and aliases in the lines" in problem
        assert problem.endswith("write the values out, then set head_lr: 0.0456")
        assert path.read_text(encoding="utf-8") == text
    # The anchors of other keys do not matter.
    search.apply(Target("multitask", "world_ner"), {"head_lr": 0.0456}, path)
    after = load_yaml(path)
    assert after["tasks"]["world_ner"].pop("multitask") == {"head_lr": 0.0456}
    assert after == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "world_nr"}, "no task 'world_nr'; did you mean 'world_ner'?"),
        ({"target": "world_ner", "arm": "heads"}, "--arm: no arm 'heads'"),
        ({"target": "world_ner", "arm": "untrained"}, "--arm untrained: this arm trains nothing"),
        ({"target": "multitask/world_ner"}, "give a task's name, or pretrain/MIXTURE"),
        ({"target": "pretrain/al"}, "no mixture 'al'"),
        ({"target": "world_ner", "trials": 0}, "--trials is 0"),
        (
            {"target": "world_ner"},
            "data/features/world_ner/summary.json: no such file; run the stage that makes it",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, params("0" * 64))
    space = write_space(
        tmp_path, {**SPACE, "arms": {**SPACE["arms"], "pretrain": {"head_lr": [0.1, 0.2]}}}
    )
    arguments = {"arm": "head_only", "space": space, "trials": 1, "workers": 1, "apply": False}
    with pytest.raises(UserError, match=re.escape(message)):
        tune(Namespace(**{**arguments, **changes}))


def test_the_best_trial_is_finished_and_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    results = [
        TrialResult(0, 50.0, False, 4, {"lr": 0.1, "init": "text"}),
        TrialResult(1, 70.0, True, 1, {"lr": 0.01, "init": "normal"}),
        TrialResult(2, 60.0, False, 4, {"lr": 0.02, "init": "normal"}),
    ]
    assert best_of(results).number == 2
    assert best_of(results[1:2]).number == 1
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_tuning(tmp_path / folder, "multitask-ner", results, {"lr": 0.7, "init": 0.3})
    pages = [(tmp_path / folder / "tuning.html").read_bytes() for folder in ("one", "two")]
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert "3 trials, 1 of them pruned" in text
    assert "init: normal, text" in text
