"""Knowledge probing through all stages: a prompt that two relations share, and its evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_project import (
    IN_ONE_PROCESS,
    TASK,
    TRAINING,
    environment,
    make_decoder,
    make_project,
    python,
    write_params,
)

SUBJECTS = ("Ada", "Bo", "Cy", "Dan", "Eva", "Flo", "Gil", "Hal", "Ida", "Jo", "Kai", "Lea")
OBJECTS = {"lives": ("New York", "York", "Rome", "Bonn"), "likes": ("tea", "green tea", "Rome")}
RELATIONS = [
    {
        "relation": "lives",
        "template": "[X] lives in [Y] .",
        "paraphrases": ["[X] is in [Y].", "[Y] is home to [X]."],
    },
    {"relation": "likes", "template": "[X] likes [Y]", "paraphrases": []},
]
RECIPE = """
task: knowledge_probing
license: CC0
source: made here
reader: trex_jsonl
options: {relations: [%s]}
files: {train: train.jsonl, validation: dev.jsonl, test: test.jsonl}
allow: [shared-row]
"""
STAGES = (
    *(f"prepare {name}" for name in OBJECTS),
    "training_params",
    *(f"featurize {name}" for name in OBJECTS),
    "mixture_corpora all",
    "mix all",
    "pretrain all",
    *(f"{stage} multitask {name}" for name in OBJECTS for stage in ("finetune", "evaluate")),
    "release lives",
    "finetune untrained lives",
    "evaluate untrained lives",
    *(f"probe {arm} lives" for arm in ("multitask", "untrained")),
    "report",
)
PREDICT = """
import deep_prompt
from deep_prompt.cli.main import main

model = deep_prompt.load("artifacts/pretrain/all")
row = {"task": "lives", "subject": "Ada", "relation": "lives"}
together = model([row, {"task": "likes", "subject": "Ada", "relation": "likes"}])
assert together[0].result.objects[0] == model(row).result.objects[0]
print("shared", len(together[0].result.objects), len(together[1].result.objects))
open("rows.jsonl", "w").write(
    '{"subject": "Ada", "relation": "lives"}\\n{"subject": "Ada", "relation": "live"}\\n'
)
main(["inspect", "models/lives"])
main(["predict", "--artifact", "models/lives", "--input", "rows.jsonl", "--output", "out.jsonl",
      "--skip-bad"])
print("command", open("out.jsonl").read())
"""


def facts(split: int) -> list[dict[str, str]]:
    """Most facts of a relation have its first object. Training has a fact of the test split."""
    made = []
    for relation, names in OBJECTS.items():
        for number, subject in enumerate(SUBJECTS):
            text = f"{subject} {'abc'[split]}" if number else subject
            name = names[number // 2 % len(names) if number % 2 else 0]
            made.append({"relation": relation, "subject": text, "object": name})
    return made


def params(values: dict[str, Any]) -> dict[str, Any]:
    task = {"source": "raw/facts", "init_from": "pretrain/all", **TASK, "max_answer_length": 12}
    training = {**TRAINING, "epochs": 1.0, "num_validations": 1, "validation_rows": 4}
    tuning = {name: training[name] for name in values["arms"]["multitask"]}
    return values | {
        "generate": {**values["generate"], "corpora": []},
        "tasks": {name: {**task, "stride": 0} for name in OBJECTS},
        "mixtures": {"all": {**values["mixtures"]["all"], "on_leak": "drop"}},
        "pretrain": {"all": {**training, "factor_rank": 2}},
        "arms": {
            "multitask": tuning,
            "untrained": {name: tuning[name] for name in ("validation_rows", "precision")},
        },
        "compare": {"arms": ["untrained"], "tasks": ["lives"]},
        "repeat": {"arms": ["multitask"], "tasks": [*OBJECTS], "seeds": []},
        "probe": values["probe"] | {"tasks": ["lives"], "out_of_domain": [], "rows": 4},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The project after all stages, and their output."""
    home = tmp_path_factory.mktemp("knowledge")
    folder = home / "project"
    values = make_project(folder)
    corpus = folder / "data/raw/facts"
    corpus.mkdir()
    files = {name: facts(split) for split, name in enumerate(("train", "dev", "test"))}
    for name, rows in {**files, "relations": RELATIONS}.items():
        text = "\n".join(map(json.dumps, rows))
        (corpus / f"{name}.jsonl").write_text(text, encoding="utf-8")
    for name in OBJECTS:
        (folder / f"data_recipes/{name}.yaml").write_text(RECIPE % name, encoding="utf-8")
    texts = [f"{row['subject']} lives in {row['object']}." for row in files["train"]]
    sha256 = make_decoder(folder / "decoder", texts)
    values["backbone"] = {"source": "folder:decoder", "sha256": sha256}
    write_params(folder, params(values))
    done = python(folder, environment(home), "-c", IN_ONE_PROCESS + PREDICT, *STAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def document(folder: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return values


def test_the_classes_are_the_candidates_of_all_splits(project: tuple[Path, str]) -> None:
    folder, _ = project
    summary = document(folder, "data/examples/lives/summary.json")
    assert summary["classes"][:2] == ["lives=[X] lives in [Y].", "lives=New York"]
    assert {*summary["classes"][1:]} == {f"lives={name}" for name in OBJECTS["lives"]}
    head = document(folder, "models/lives/config.json")["heads"]["lives"]
    assert (head["kind"], head["classes"]) == ("language_model", summary["classes"])
    assert (folder / "models/lives/heads.safetensors").stat().st_size < 100


def test_mix_drops_facts_that_are_in_test(project: tuple[Path, str]) -> None:
    folder, output = project
    mixture = document(folder, "data/mixtures/all.json")
    assert {name: len(rows) for name, rows in mixture["dropped"].items()} == {
        "lives": 1,
        "likes": 1,
    }
    assert "lives: 11 examples" in output
    assert "skipped: facts of other relations 36" in output


def test_ranks_and_confidence_are_scored(project: tuple[Path, str]) -> None:
    folder, output = project
    metrics = document(folder, "results/multitask/lives/metrics.json")
    test = metrics["test"]
    low, high = document(folder, "results/multitask/likes/metrics.json")["interval"]
    assert 0 < low < high <= 100
    assert test["p_at_10"] == 100, "there are only four objects"
    assert (test["facts"], test["relations"], test["ranks_beyond"]) == (12, 1, 0)
    assert test["majority_p_at_1"] == pytest.approx(100 * 8 / 12)
    first = (folder / "predictions/multitask/lives/test.jsonl").read_text().splitlines()[0]
    prediction = json.loads(first)["prediction"]
    assert sorted(prediction["objects"]) == sorted(OBJECTS["lives"])
    assert prediction["objects"][prediction["rank"] - 1] == "New York"
    table = (folder / "results/multitask/lives/labels.tsv").read_text().splitlines()
    assert table[0].split("\t")[:3] == ["label", "p_at_1", "p_at_10"]
    assert "does not support" not in output


def test_the_report_has_relations_samples_and_consistency(project: tuple[Path, str]) -> None:
    folder, _ = project
    report = (folder / "report/report.md").read_text(encoding="utf-8")
    assert "Scores by label, multitask, test" in report
    assert "P@1 of the majority object" in report
    assert "Ada lives in …" in report
    assert "Pairs of paraphrases with the same answer" in report
    assert "ECE, calibrated" in report
    probed = document(folder, "results/probe/multitask/lives/metrics.json")["consistency"]
    assert (probed["pairs"], probed["refused"]) == (4, 4)
    assert {"with_prompt", "without_prompt"} < probed.keys()
    probed = document(folder, "results/probe/untrained/lives/metrics.json")["consistency"]
    assert "without_prompt" in probed
    assert "with_prompt" not in probed, "the arm has no prompt"


def test_the_shared_prompt_and_the_command_answer(project: tuple[Path, str]) -> None:
    _, output = project
    assert "shared 4 3" in output
    written = json.loads(output.split("command ")[1].splitlines()[0])
    assert len(written["result"]["objects"]) == 4
    assert "skipped: rows.jsonl:2: relation: no candidates for 'live'; did you mean 'lives'?" in (
        output
    )
    table = " ".join(output.replace("│", " ").split())
    assert "5 language_model: lives=[X] lives in [Y]., lives=New York" in table
