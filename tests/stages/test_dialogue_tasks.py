"""Intents with slots, and dialogue states, through all stages: one shared prompt for both."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_project import (
    IN_ONE_PROCESS,
    TASK,
    TRAINING,
    TUNING,
    environment,
    make_project,
    python,
    write_params,
)

CITIES = ("Bonn", "Rome", "New York", "Lima")
FOODS = (
    ("thai", "north indian", "modern", "east polish", "greek", "new corsican"),
    ("zulu", "old english"),
)
"""The foods of the training split of the corpus "spans", and those of the others."""
VERBS = {"buy": ("buy a house in", "I want a flat in"), "fly": ("fly to", "a ticket to")}
RECIPES = {
    "requests": """
task: intent_and_slots
license: CC0
source: made here
reader: parallel_lines
files: {train: train/seq.in, validation: valid/seq.in, test: test/seq.in}
labels: [intent:buy, intent:fly, city]
allow: [shared-row]
""",
    "dialogues": """
task: dialogue_state_tracking
license: CC0
source: made here
reader: woz_json
files: {train: train.json, validation: valid.json, test: test.json}
labels: [food=thai, food=greek, area=north, area=south, request=phone]
allow: [shared-row]
""",
    "spans": """
task: dialogue_state_tracking
license: CC0
source: made here
reader: woz_json
files: {train: train.json, validation: valid.json, test: test.json}
labels: [food=*, food=dontcare, area=north, area=south]
allow: [shared-row]
""",
}
NAMES = tuple(RECIPES)
STAGES = (
    *(f"prepare {name}" for name in NAMES),
    "training_params",
    *(f"featurize {name}" for name in NAMES),
    "mixture_corpora all",
    "mix all",
    "pretrain all",
    *(
        f"{stage} {arm} {name}"
        for name in NAMES
        for arm in ("multitask", "fine_tune")
        for stage in ("finetune", "evaluate")
    ),
    *(f"release {name}" for name in NAMES),
    *(f"probe multitask {name}" for name in NAMES),
    "report",
)
PREDICT = """
import dataclasses, json
import deep_prompt

dialogue = {"task": "dialogues", "system": ["", "Where?"], "user": ["thai food", "in the south"]}
rows = [{"task": "requests", "text": "fly to New York"}, dialogue,
        {"task": "requests", "tokens": ["fly", "to", "New", "York"]}]
model = deep_prompt.load("artifacts/pretrain/all")
mixed = list(model.predict(rows))
for row, prediction in zip(rows, mixed):
    if row["task"] == "requests":
        assert prediction.result.intent == model(row).result.intent
    else:
        states, alone = ([turn.state for turn in result.turns] for result in
                         (prediction.result, model(row).result))
        assert states == alone
spans = {"system": ["", "Where?"], "user": ["Zulu food", "in the south"]}
for name, row in (("requests", rows[0]), ("dialogues", rows[1]), ("spans", spans)):
    model = deep_prompt.load(f"artifacts/fine_tune/{name}")
    row = {key: value for key, value in row.items() if key != "task"}
    print(name, json.dumps(dataclasses.asdict(model(row).result)))
    print(model(row))
"""


def sentences(split: int) -> list[tuple[str, str, str]]:
    """The words, tags and intent of each sentence."""
    made = []
    for number, city in enumerate(CITIES * 6):
        for intent, verbs in VERBS.items():
            verb = verbs[(number + split) % 2]
            words = verb.split()
            city_tags = ["B-city", *["I-city"] * (len(city.split()) - 1)]
            tags = ["O"] * len(words) + city_tags
            made.append((f"{verb} {city}", " ".join(tags), intent))
    return made


def dialogues(split: int) -> list[dict[str, Any]]:
    """Dialogues of two turns."""
    made = []
    for number in range(24):
        food, area = ("thai", "greek")[number % 2], ("north", "south")[number // 2 % 2]
        asks = [["request", "phone"]] if number % 3 == split else []
        turns = [
            {"system_transcript": "", "transcript": f"{food} food", "turn_label": [["food", food]]},
            {
                "system_transcript": "Where?",
                "transcript": f"in the {area}" + ", and the phone number" * bool(asks),
                "turn_label": [["area", area], *asks],
            },
        ]
        made.append({"dialogue_idx": number, "dialogue": turns})
    return made


def dialogues_of_spans(split: int) -> list[dict[str, Any]]:
    """Dialogues of two turns; the values of food outside the training split are not in it."""
    made = []
    foods = FOODS[split > 0]
    for number in range(24):
        food, area = foods[number % len(foods)], ("north", "south")[number // 6 % 2]
        first, label = (f"{food} food", food) if number % 4 else ("any food", "dontcare")
        turns = [
            {"system_transcript": "", "transcript": first, "turn_label": [["food", label]]},
            {
                "system_transcript": "Where?",
                "transcript": f"in the {area}",
                "turn_label": [["area", area]],
            },
        ]
        made.append({"dialogue_idx": number, "dialogue": turns})
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The project after all stages, and their output."""
    home = tmp_path_factory.mktemp("dialogue")
    folder = home / "project"
    values = make_project(folder)
    for split, name in enumerate(("train", "valid", "test")):
        path = folder / "data/raw/requests" / name
        path.mkdir(parents=True)
        columns = zip(*sentences(split), strict=True)
        for file, lines in zip(("seq.in", "seq.out", "label"), columns, strict=True):
            (path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        for corpus, made in (("dialogues", dialogues), ("spans", dialogues_of_spans)):
            path = folder / "data/raw" / corpus
            path.mkdir(exist_ok=True)
            (path / f"{name}.json").write_text(json.dumps(made(split)), encoding="utf-8")
    for name, text in RECIPES.items():
        (folder / f"data_recipes/{name}.yaml").write_text(text, encoding="utf-8")
    write_params(folder, params(values))
    done = python(folder, environment(home), "-c", IN_ONE_PROCESS + PREDICT, *STAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def params(values: dict[str, Any]) -> dict[str, Any]:
    task = {"init_from": "pretrain/all", **TASK, "max_length": 64, "test_rows": None}
    fine_tune = {key: value for key, value in TUNING.items() if key != "prompt_lr"}
    fine_tune |= {"backbone_lr": 0.005, "head_lr": 0.02, "epochs": 20.0}
    return values | {
        "generate": {**values["generate"], "corpora": []},
        "tasks": {name: {"source": f"raw/{name}", **task} for name in NAMES},
        "mixtures": {"all": values["mixtures"]["all"]},
        "pretrain": {"all": {**TRAINING, "num_validations": 1}},
        "arms": {"multitask": values["arms"]["multitask"], "fine_tune": fine_tune},
        "compare": {"arms": ["fine_tune"], "tasks": [*NAMES]},
        "repeat": {"arms": ["multitask"], "tasks": [*NAMES], "seeds": []},
        "probe": values["probe"] | {"tasks": [*NAMES], "out_of_domain": []},
    }


def metrics(folder: Path, arm: str, task: str) -> dict[str, Any]:
    path = folder / f"results/{arm}/{task}/metrics.json"
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def test_fine_tuning_learns_both(project: tuple[Path, str]) -> None:
    folder, _ = project
    frames = metrics(folder, "fine_tune", "requests")["test"]
    assert frames["f1"] > 90
    assert frames["intent_accuracy"] > 90
    assert frames["sentences"] == 48
    tracked = metrics(folder, "fine_tune", "dialogues")["test"]
    assert tracked["joint_goal_accuracy"] > 90
    assert (tracked["turns"], tracked["dialogues"]) == (48, 24)
    assert 0 < metrics(folder, "multitask", "requests")["test"]["intent_accuracy"] <= 100


def test_predictions_have_frames_and_states(project: tuple[Path, str]) -> None:
    _, output = project
    results = {name: json.loads(output.split(f"\n{name} ", 1)[1].splitlines()[0]) for name in NAMES}
    assert results["requests"]["intent"] == "fly"
    (slot,) = results["requests"]["slots"]
    assert (slot["label"], slot["text"], slot["start"]) == ("city", "New York", 7)
    assert [turn["state"] for turn in results["dialogues"]["turns"]] == [
        {"food": "thai"},
        {"food": "thai", "area": "south"},
    ]
    assert "fly to [city: New York]" in output
    assert "state: area=south, food=thai\nWhere? · in the south" in output


def test_the_report_has_all_metrics_and_calibration(project: tuple[Path, str]) -> None:
    folder, _ = project
    report = (folder / "report/report.md").read_text(encoding="utf-8")
    for words in ("slot F1", "joint goal accuracy", "slots and intents", "slot values"):
        assert words in report
    assert "does not support" not in report
    assert "| thai food | (empty) | food=thai | food=thai |" in report


def test_values_that_training_lacks_are_predicted_as_spans(project: tuple[Path, str]) -> None:
    folder, output = project
    assert "unseen-label" not in output
    tracked = metrics(folder, "fine_tune", "spans")["test"]
    assert tracked["joint_goal_accuracy"] > 90
    line = output.split("\nspans ", 1)[1].splitlines()[0]
    first, second = json.loads(line)["turns"]
    assert (first["state"], second["state"]) == (
        {"food": "zulu"},
        {"food": "zulu", "area": "south"},
    )
    assert first["labels"][0]["score"] > 0.5
    predictions = folder / "predictions/fine_tune/spans/test.jsonl"
    assert '"food=old english"' in predictions.read_text(encoding="utf-8")
