"""A small copy of the pipeline with real DVC.

Reruns are minimal, killed runs resume, and equal inputs give equal bytes.

The tests share a project and run in the order of this file. Each test starts from a pipeline that
is up to date.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from pipeline.config import load_json
from pipeline.data.recipe import load_recipe
from pipeline.world import write_corpus
from tests.support.small_project import (
    IN_ONE_PROCESS,
    ROOT,
    TASK,
    environment,
    make_project,
    project_outputs,
    python,
    write_params,
)

STAGES_OF_A_TASK = ("prepare", "featurize", "finetune", "evaluate", "release")
ALL = (
    {
        "code_files",
        "generate@ner",
        "report",
        "training_params",
        "zoo",
        "baseline@head_only-world_ner",
        "evaluate_baseline@head_only-world_ner",
    }
    | {f"{stage}@{task}" for stage in STAGES_OF_A_TASK for task in ("world_ner", "world_srl")}
    | {
        f"{stage}@{mixture}"
        for stage in ("mixture_corpora", "mix", "pretrain")
        for mixture in ("all", "ner_only")
    }
)
TRAININGS = sum(stage.startswith(("pretrain@", "finetune@", "baseline@")) for stage in ALL)
PROBES = {"probe@multitask-world_srl", "out_of_domain@multitask-shift0", "transfer@world_srl"}
ALL |= PROBES
RATE = {
    "training_params",
    "finetune@world_ner",
    "evaluate@world_ner",
    "release@world_ner",
    "report",
    "out_of_domain@multitask-shift0",
    "transfer@world_srl",
}
ALWAYS = "backbone_files"  # the stage that runs in every repro
WITHOUT_DVC = (
    "code_files",
    "generate ner",
    "prepare world_ner",
    "prepare world_srl",
    "backbone_files",
    "zoo",
    "featurize world_ner",
    "featurize world_srl",
    "training_params",
    "mixture_corpora all",
    "mixture_corpora ner_only",
    "mix all",
    "mix ner_only",
    "pretrain ner_only",
    "pretrain all",
    "finetune multitask world_ner",
    "finetune multitask world_srl",
    "finetune head_only world_ner",
    "evaluate multitask world_ner",
    "evaluate multitask world_srl",
    "evaluate head_only world_ner",
    "release world_ner",
    "release world_srl",
    "probe multitask world_srl",
    "out_of_domain multitask world_ner world_ner",
    "transfer world_srl",
    "report",
)


@dataclass(frozen=True)
class Outcome:
    """The stages that `dvc repro` ran, and the stages that it restored from the cache."""

    ran: set[str]
    restored: set[str]
    output: str


@dataclass
class Project:
    """A folder with the pipeline; `values` are the contents of its params.yaml."""

    folder: Path
    env: dict[str, str]
    values: dict[str, Any]

    def repro(self, **more: str) -> Outcome:
        """Run `dvc repro` with additional environment variables."""
        done = python(self.folder, self.env | more, "-m", "dvc", "repro")
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        return Outcome(
            set(re.findall(r"^Running stage '(.+?)'", output, re.M)) - {ALWAYS},
            set(re.findall(r"^Stage '(.+?)' is cached", output, re.M)),
            output,
        )

    def write_params(self) -> None:
        """Write `values` to params.yaml."""
        write_params(self.folder, self.values)


def start(project: Project, *words: str) -> "subprocess.Popen[str]":
    """Start `python WORDS` in a new process.

    Its hash seed differs from the seed of the fork server: results must not depend on it.
    """
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=project.folder,
        env=project.env | {"PYTHONHASHSEED": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project under git and DVC before the first run."""
    home = tmp_path_factory.mktemp("project")
    folder, env = home / "project", environment(home)
    values = make_project(folder)
    initialize(folder, env)
    return Project(folder, env, values)


def initialize(folder: Path, env: dict[str, str]) -> None:
    """Put a project under git and DVC."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, env=env, check=True)
    for words in ("init --quiet", "config core.analytics false"):
        python(folder, env, "-m", "dvc", *words.split()).check_returncode()


@pytest.fixture(scope="module")
def plain(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Project, "subprocess.Popen[str]"]]:
    """The same project in another folder; a process runs all its stages without DVC."""
    home = tmp_path_factory.mktemp("plain")
    for name in (
        "pipeline",
        "stages",
        "deep_prompt",
        "data_recipes",
        "zoo",
        "backbone",
        "data/raw",
    ):
        shutil.copytree(project.folder / name, home / name)
    for name in ("params.yaml", "dvc.yaml", ".dvcignore"):
        shutil.copy(project.folder / name, home)
    other = Project(home, project.env, project.values)
    process = start(other, "-c", IN_ONE_PROCESS, *WITHOUT_DVC)
    yield other, process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def first(project: Project, plain: object) -> tuple[Outcome, dict[str, bytes]]:
    """The outcome and the outputs of the first repro. It runs in parallel with `plain`."""
    outcome = project.repro()
    return outcome, project_outputs(project.folder)


@pytest.fixture(scope="module")
def changed_rate(project: Project, first: object) -> Outcome:
    """The outcome of a repro after an edit of the learning rate of a task."""
    project.values["tasks"]["world_ner"]["multitask"] = {"prompt_lr": 0.03}
    project.write_params()
    return project.repro()


def test_the_first_repro_runs_everything(first: tuple[Outcome, dict[str, bytes]]) -> None:
    assert first[0].ran == ALL


def test_results_have_equal_bytes_with_and_without_dvc(
    first: tuple[Outcome, dict[str, bytes]], plain: tuple[Project, "subprocess.Popen[str]"]
) -> None:
    other, process = plain
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    with_dvc, without_dvc = first[1], project_outputs(other.folder)
    assert len([name for name in with_dvc if name.startswith("artifacts/")]) >= 12
    assert with_dvc.keys() == without_dvc.keys()
    assert [name for name in with_dvc if with_dvc[name] != without_dvc[name]] == []


def test_an_unchanged_dvc_lock_proves_unchanged_results(
    project: Project,
    first: tuple[Outcome, dict[str, bytes]],
    plain: tuple[Project, "subprocess.Popen[str]"],
) -> None:
    """The outputs of another run do not change dvc.lock, because every hashed output is equal."""
    other, process = plain
    process.communicate(timeout=600)
    initialize(other.folder, other.env)
    lock = (project.folder / "dvc.lock").read_bytes()
    (other.folder / "dvc.lock").write_bytes(lock)
    done = python(other.folder, other.env, "-m", "dvc", "commit", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (other.folder / "dvc.lock").read_bytes() == lock
    assert len(list((other.folder / "resource_usage").rglob("run.json"))) == TRAININGS


def test_a_released_artifact_predicts_and_names_its_sources(
    project: Project, first: object
) -> None:
    """The folder of the artifact is enough; params.yaml is not read."""
    rows = [
        {"tokens": ["Ada", "left"], "task": "world_ner"},
        {"tokens": ["It", "ended"], "predicate": 1, "task": "world_srl"},
    ]
    (project.folder.parent / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    done = python(
        project.folder,
        project.env,
        "-m",
        "deep_prompt",
        "predict",
        "--artifact",
        "models/world_ner",
        "--artifact",
        "models/world_srl",
        "--input",
        str(project.folder.parent / "rows.jsonl"),
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["task"] for line in done.stdout.splitlines()] == [
        "world_ner",
        "world_srl",
    ]
    config, tuned = (
        load_json(project.folder / place / "world_srl/config.json")
        for place in ("models", "artifacts/multitask")
    )
    assert config["provenance"] == tuned["provenance"]
    metrics = load_json(project.folder / "results/multitask/world_srl/metrics.json")
    card = ModelCard.load(project.folder / "models/world_srl/README.md")
    assert card.data.eval_results[0].metric_value == pytest.approx(metrics["test"]["f1"], abs=0.005)
    scores = load_json(project.folder / "models/world_srl/scores.json")
    assert scores["tasks"]["world_srl"]["interval"] == metrics["interval"]
    for corpus in ("world_ner", "world_srl"):
        recipe = load_recipe(ROOT / "data_recipes" / f"{corpus}.yaml")
        assert f"| {recipe.license} | {recipe.source} |" in card.text


def test_a_killed_training_resumes_and_gives_equal_bytes(
    plain: tuple[Project, "subprocess.Popen[str]"],
) -> None:
    other, process = plain
    process.communicate(timeout=600)
    before = project_outputs(other.folder)
    results = (other.folder / "artifacts/pretrain/all", other.folder / "runs/pretrain/all")
    work = other.folder / ".work/pretrain-all"
    for folder in (*results, work):
        shutil.rmtree(folder)
    killed = start(other, "-m", "stages.pretrain", "all")
    deadline = time.monotonic() + 300
    while killed.poll() is None and not list(work.glob("*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.kill()
    output, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, output
    assert list(work.glob("*/step-*")), output
    assert not any(folder.exists() for folder in results)
    again = python(other.folder, other.env, "-m", "stages.pretrain", "all")
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"resuming at step [1-9]\d* of \d+", again.stdout)
    assert project_outputs(other.folder) == before
    for folder in results:
        shutil.rmtree(folder)
    again = python(other.folder, other.env, "-m", "stages.pretrain", "all")
    steps = re.search(r"resuming at step (\d+) of (\d+)", again.stdout)
    assert steps, again.stdout
    assert steps[1] == steps[2], (
        "a complete training is not repeated if DVC was killed before it recorded the outputs"
    )
    assert project_outputs(other.folder) == before


def test_an_edit_of_a_learning_rate_reruns_its_task(changed_rate: Outcome) -> None:
    assert (changed_rate.ran, changed_rate.restored) == (RATE, set())


def test_a_reverted_edit_restores_the_first_results_without_training(
    project: Project, changed_rate: Outcome, first: tuple[Outcome, dict[str, bytes]]
) -> None:
    assert project_outputs(project.folder) != first[1]
    del project.values["tasks"]["world_ner"]["multitask"]
    project.write_params()
    outcome = project.repro()
    assert (outcome.ran, outcome.restored) == (set(), RATE)
    assert project_outputs(project.folder) == first[1]


def test_comments_other_hardware_and_changed_gitignore_files_run_nothing(
    project: Project, first: object
) -> None:
    """DVC writes a .gitignore to the folders of outputs, and changes it if a repro fails."""
    for name in ("dvc.yaml", "params.yaml", "data_recipes/world_ner.yaml"):
        path = project.folder / name
        path.write_text("# a new comment\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("data/features", "data/mixtures", "runs/pretrain/all"):
        with (project.folder / name / ".gitignore").open("a", encoding="utf-8") as file:
            file.write("/another\n")
    outcome = project.repro(
        CUDA_VISIBLE_DEVICES="0,1,2", WORLD_SIZE="3", RANK="1", LOCAL_RANK="1", OMP_NUM_THREADS="2"
    )
    assert (outcome.ran, outcome.restored) == (set(), set())


def test_an_edit_of_probes_reruns_probes_and_the_report(project: Project, first: object) -> None:
    """An edit of params.yaml reruns only these stages.

    An edit of their code reruns all stages that depend on its folder, but changes no output.
    """
    project.values["probe"]["rows"] = 8
    project.write_params()
    assert project.repro().ran == {*PROBES, "report"}
    code = project.folder / "pipeline/analysis/perturbations.py"
    before = code.read_text(encoding="utf-8")
    code.write_text(f"{before}# edited\n", encoding="utf-8")
    assert project.repro().ran == {
        "code_files",
        "probe@multitask-world_srl",
        "out_of_domain@multitask-shift0",
    }
    code.write_text(before, encoding="utf-8")
    project.values["probe"]["rows"] = 10
    project.write_params()
    assert project.repro().ran == set(), "the cache has all results"


def test_a_new_seed_adds_one_run(project: Project, first: object) -> None:
    """The runs with other seeds do not change. The report has the mean of all runs."""
    project.values["repeat"]["seeds"] = [8]
    project.write_params()
    runs = ("multitask-world_ner-", "head_only-world_ner-")
    assert project.repro().ran == {
        f"{stage}@{run}8" for stage in ("repeat", "evaluate_repeat") for run in runs
    } | {"report"}
    heads = [
        project.folder / "artifacts" / place / "multitask/world_ner/heads.safetensors"
        for place in (".", "repeat/8")
    ]
    assert heads[0].read_bytes() != heads[1].read_bytes()
    metrics = [
        load_json(project.folder / "results" / place / "head_only/world_ner/metrics.json")
        for place in (".", "repeat/8")
    ]
    scores = [found["test"][found["primary"]] for found in metrics]
    report = (project.folder / "report/report.md").read_text(encoding="utf-8")
    assert f"of {scores[0]:.1f}, {scores[1]:.1f}" in report
    project.values["repeat"]["seeds"] = [8, 9]
    project.write_params()
    assert project.repro().ran == {
        f"{stage}@{run}9" for stage in ("repeat", "evaluate_repeat") for run in runs
    } | {"report"}
    project.values["repeat"]["seeds"] = []
    project.write_params()
    for place in ("artifacts", "runs", "results", "predictions"):
        shutil.rmtree(project.folder / place / "repeat")  # DVC keeps outputs of removed stages


def test_an_edit_of_a_weight_reruns_the_mixture_and_its_dependents(
    project: Project, first: object
) -> None:
    project.values["mixtures"]["all"]["weights"] = {"world_srl": 3.0}
    project.write_params()
    outcome = project.repro()
    assert outcome.ran == {
        "training_params",
        "mix@all",
        "pretrain@all",
        "finetune@world_srl",
        "evaluate@world_srl",
        "release@world_srl",
        "probe@multitask-world_srl",
        "transfer@world_srl",
        "report",
    }
    assert outcome.restored == set()


def test_an_edit_of_a_raw_file_reruns_its_corpus_and_the_mixtures_with_it(
    project: Project, first: object
) -> None:
    """`mixture_corpora` runs for every mixture, but its output for the other mixture is equal.

    Therefore no later stage of the other mixture runs.
    """
    path = project.folder / "data/raw/srl/train.conll"
    sentence = "more\t0\t0\tIt\t-\t-\t-\t-\t(ARG0*)\nmore\t0\t1\tended\t-\t-\tend\tend.01\t(V*)\n\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(sentence)
    outcome = project.repro()
    assert outcome.ran == {
        "prepare@world_srl",
        "featurize@world_srl",
        "mixture_corpora@all",
        "mixture_corpora@ner_only",
        "mix@all",
        "pretrain@all",
        "finetune@world_srl",
        "evaluate@world_srl",
        "release@world_srl",
        "probe@multitask-world_srl",
        "transfer@world_srl",
        "report",
    }
    assert outcome.restored == set()


def test_a_new_corpus_needs_only_a_recipe_and_a_line_in_params(
    project: Project, first: object
) -> None:
    write_corpus("ner", project.folder / "data/raw/more", 30, 8)
    shutil.copy(
        project.folder / "data_recipes/world_ner.yaml", project.folder / "data_recipes/more.yaml"
    )
    project.values["tasks"]["more"] = {"source": "raw/more", "init_from": "pretrain/all", **TASK}
    project.write_params()
    outcome = project.repro()
    new = {f"{stage}@more" for stage in STAGES_OF_A_TASK}
    assert outcome.ran == new | {
        "training_params",
        "mixture_corpora@all",
        "mixture_corpora@ner_only",
        "mix@all",
        "pretrain@all",
        "finetune@world_srl",
        "evaluate@world_srl",
        "release@world_srl",
        "release@world_ner",
        "probe@multitask-world_srl",
        "transfer@world_srl",
        "report",
    }
    assert outcome.restored == set()


def stages_of(path: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml without `foreach`."""
    stages = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


STAGES = stages_of(ROOT / "dvc.yaml")


def test_every_stage_depends_on_its_code() -> None:
    """The stage `code_files` lists the code of all stages, so it depends on all of it."""
    for name, stage in STAGES.items():
        module = re.match(r"exec python -m stages\.(\w+)( |$)", stage["cmd"])
        assert module, stage["cmd"]
        code = [
            path
            for path in stage["deps"]
            if path.startswith(("pipeline", "stages", "data/code_files"))
        ]
        expected = [f"data/code_files/{module[1]}.json"]
        assert code == (["pipeline", "stages"] if name == "code_files" else expected), name


def test_dvc_yaml_runs_every_stage_module() -> None:
    run = {re.split(r"[. ]", stage["cmd"])[4] for stage in STAGES.values()}
    modules = {
        path.stem
        for path in (ROOT / "stages").glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert modules == run


def keys_of(value: Any) -> set[str]:
    """All keys at any depth."""
    if not isinstance(value, dict):
        return set()
    return set(value) | {key for inner in value.values() for key in keys_of(inner)}


def test_dvc_yaml_and_params_do_not_describe_hardware() -> None:
    """A changed command or param causes a rerun, but other hardware must not cause one."""
    stages = str(
        {
            name: {key: value for key, value in stage.items() if key != "deps"}
            for name, stage in STAGES.items()
        }
    )
    files = [ROOT / "params.yaml", *(ROOT / "presets").glob("*.yaml")]
    keys = {
        key
        for path in files
        for key in keys_of(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    }
    words = r"(?i)gpu|cuda|rank|node|launch|deepspeed|torchrun|world_size|workers"
    assert re.findall(words, stages) == []
    assert {key for key in keys if re.search(words, key)} <= {"lora_rank", "factor_rank"}
    assert "prepare" in stages
    assert "prompt_lr" in keys


def test_no_output_persists() -> None:
    """With `persist: true` a run could resume from a run with other params."""
    outs = [out for stage in STAGES.values() for out in stage.get("outs", ())]
    assert "persist" not in keys_of(STAGES) | {key for out in outs for key in keys_of(out)}
