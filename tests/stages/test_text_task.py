"""Text generation through all stages, in a mixture with a tagging task, on a tiny decoder."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_project import (
    IN_ONE_PROCESS,
    TASK,
    environment,
    make_decoder,
    make_project,
    python,
    write_params,
)

NAMES = ("Aromi", "Cotto", "Zizzi", "Giraffe", "Strada", "Wildwood", "Cocum", "Clowns", "Ranch")
KINDS = ("pub", "restaurant", "coffee shop")
AREAS = ("riverside", "city centre")
ARMS = ["multitask", "fine_tune", "soft_prompt", "random_backbone", "untrained"]
RECIPE = """
task: text_generation
license: CC0
source: made here
reader: e2e_csv
files: {train: train.csv, validation: validation.csv, test: test.csv}
"""
STAGES = (
    "prepare places",
    "prepare world_srl",
    "training_params",
    "featurize places",
    "featurize world_srl",
    "mixture_corpora all",
    "mix all",
    "pretrain all",
    "finetune multitask places",
    "finetune fine_tune places",
    "finetune soft_prompt places",
    "finetune random_backbone places",
    "finetune untrained places",
    "evaluate multitask places",
    "evaluate fine_tune places",
    "evaluate soft_prompt places",
    "evaluate random_backbone places",
    "evaluate untrained places",
    "release places",
    "probe multitask places",
    "report",
)
PREDICT = """
import csv
import json

import deep_prompt
from deep_prompt.cli.main import main

rows = [{"source": "name[Aromi], eatType[pub], area[riverside]"}, {"source": "name[Cotto]"}]
for folder in ("models/places", "artifacts/fine_tune/places"):
    model = deep_prompt.load(folder)
    results = list(model.predict(rows))
    pieces = []
    streamed = list(model.predict(rows, on_text=pieces.append))
    assert streamed == results
    assert "".join(pieces) == "".join(p.result.text for p in results)
    assert list(model.predict(rows, decoding=deep_prompt.Decoding(num_beams=3)))
    short = list(model.predict(rows, decoding=deep_prompt.Decoding(max_new_tokens=2)))
    assert [p.result.text for p in results][0].startswith(short[0].result.text)
    print("predicted", str(results[0]))

# Random weights are drawn again, and an artifact without prompt is the backbone alone.
sources = dict.fromkeys(row[0] for row in list(csv.reader(open("data/raw/places/test.csv")))[1:])
for arm in ("random_backbone", "untrained"):
    model = deep_prompt.load(f"artifacts/{arm}/places")
    results = model.predict([{"source": source} for source in sources])
    evaluated = [json.loads(line) for line in open(f"predictions/{arm}/places/test.jsonl")]
    assert sorted(p.result.text for p in results) == sorted(e["prediction"] for e in evaluated)
    main(["inspect", f"artifacts/{arm}/places"])
    print("agrees", arm)

# All heads of the shared prompt: rows of both tasks in one call, and alone.
model = deep_prompt.load("artifacts/pretrain/all")
mixed = [
    {"task": "places", **rows[0]},
    {"task": "world_srl", "tokens": ["Ada", "went"], "predicate": 1},
    {"task": "places", **rows[1]},
]
together = [prediction.result for prediction in model.predict(mixed)]
assert together == [model(row).result for row in mixed]
print("mixed", type(together[1]).__name__, type(together[2]).__name__)
main(["inspect", "models/places"])
arguments = ["--artifact", "models/places", "--input", "rows.jsonl", "--output", "out.jsonl"]
open("rows.jsonl", "w").write('{"source": "name[Aromi]"}\\n{"source": " "}\\n')
main(["predict", *arguments, "--skip-bad", "--num-beams", "2", "--max-new-tokens", "4"])
print("command", open("out.jsonl").read())
"""


def rows(split: str) -> list[tuple[str, str]]:
    """Two references for each place. Each split has other combinations of names and kinds."""
    number = {"train": 0, "validation": 1, "test": 2}[split]
    made = []
    for i, name in enumerate(NAMES):
        for j, kind in enumerate(KINDS):
            for area in AREAS:
                if (i + j) % 3 == number:
                    mr = f"name[{name}], eatType[{kind}], area[{area}]"
                    made.append((mr, f"{name} is a {kind} in the {area}."))
                    made.append((mr, f"In the {area} is a {kind}, {name}."))
    return made


def write_places(folder: Path) -> list[str]:
    """Write the corpus and its recipe into a project; returns the texts of its training set."""
    corpus = folder / "data/raw/places"
    corpus.mkdir()
    for split in ("train", "validation", "test"):
        with (corpus / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("mr", "ref"), *sorted(rows(split), key=lambda r: r[1])])
    (folder / "data_recipes/places.yaml").write_text(RECIPE, encoding="utf-8")
    return [text for pair in rows("train") for text in pair]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The project after all stages, and their output."""
    home = tmp_path_factory.mktemp("generation")
    folder = home / "project"
    values = make_project(folder)
    texts = write_places(folder)
    srl = (folder / "data/raw/srl/train.conll").read_text(encoding="utf-8")
    sha256 = make_decoder(folder / "decoder", [*texts, srl])
    values["backbone"] = {"source": "folder:decoder", "sha256": sha256}
    write_params(folder, params(values))
    done = python(folder, environment(home), "-c", IN_ONE_PROCESS + PREDICT, *STAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def params(values: dict[str, Any]) -> dict[str, Any]:
    places = {"source": "raw/places", "init_from": "pretrain/all", **TASK}
    places |= {"max_answer_length": 16, "test_rows": None}
    training = {"epochs": 1.0, "validation_rows": 4, "num_validations": 1}
    training |= {"tokens_per_micro_batch": 256}
    tuning = {"prompt_lr": 0.05, "head_lr": 0.02, **training}
    places["multitask"] = tuning | {"epochs": 5.0}
    arms = values["arms"] | {
        "fine_tune": {"backbone_lr": 0.01, "head_lr": 0.02, **training, "epochs": 30.0},
        "soft_prompt": {**tuning, "num_virtual_tokens": 4},
        "random_backbone": {**tuning, "num_virtual_tokens": 4},
        "untrained": {"validation_rows": 4, "precision": "float32"},
    }
    return values | {
        "tasks": {"places": places, "world_srl": values["tasks"]["world_srl"]},
        "mixtures": {"all": values["mixtures"]["all"]},
        "pretrain": {"all": {**values["pretrain"]["all"], "num_validations": 1}},
        "arms": arms,
        "compare": {"arms": ARMS[1:], "tasks": ["places"]},
        "repeat": {"arms": ["multitask"], "tasks": ["places"], "seeds": []},
        "probe": values["probe"] | {"tasks": ["places"], "out_of_domain": [], "rows": 4},
    }


def metrics(folder: Path, arm: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / f"results/{arm}/places/metrics.json").read_text())
    return values


def test_fine_tuning_learns_the_texts(project: tuple[Path, str]) -> None:
    """The frozen random backbone cannot; its prompt must have an effect nevertheless."""
    folder, _ = project
    test = metrics(folder, "fine_tune")["test"]
    assert test["texts"] == 18
    assert test["bleu"] > 50
    assert test["slot_error_rate"] < 50
    assert metrics(folder, "fine_tune")["interval"] is None, "BLEU is not a function of counts"
    outputs = [
        json.loads(line)["prediction"]
        for line in (folder / "predictions/fine_tune/places/test.jsonl").read_text().splitlines()
    ]
    assert sum(" is a " in text for text in outputs) > 6
    assert metrics(folder, "multitask")["test"]["bleu"] != test["bleu"]


def test_the_report_shows_texts_of_all_arms_beside_their_references(
    project: tuple[Path, str],
) -> None:
    folder, output = project
    report = (folder / "report/report.md").read_text(encoding="utf-8")
    assert f"| source | {' | '.join(ARMS)} | references |" in report.replace("\\_", "_")
    assert "text_generation does not support confidence." in report
    for word in ("| BLEU |", "slot error rate", "**NIST, CIDEr**", "| no interval |"):
        assert word in report
    assert "pipeline_tag: text-generation" in (folder / "models/places/README.md").read_text()
    assert output.count("predicted ") == 2


def test_prediction_and_evaluation_agree(project: tuple[Path, str]) -> None:
    folder, output = project
    first = json.loads(
        (folder / "predictions/fine_tune/places/test.jsonl").read_text().splitlines()[0]
    )
    assert isinstance(first["prediction"], str)
    written = json.loads(output.split("command ")[1].splitlines()[0])
    assert (written["id"], written["task"], list(written["result"])) == (0, "places", ["text"])
    assert "skipped: rows.jsonl:2: source is empty: ' '" in output
    assert "mixed Structure Generated" in output
    table = " ".join(output.replace("│", " ").split())
    assert "text_generation; windows of 48 tokens; answers of at most 16 tokens" in table


def test_artifacts_hold_a_prompt_and_no_head(project: tuple[Path, str]) -> None:
    folder, _ = project
    config = json.loads((folder / "models/places/config.json").read_text())
    head = config["heads"]["places"]
    assert (head["kind"], head["classes"], head["max_answer_length"]) == ("language_model", [], 16)
    assert (folder / "models/places/heads.safetensors").stat().st_size < 100


def test_an_arm_that_trains_nothing_has_scores_and_curves_without_rows(
    project: tuple[Path, str],
) -> None:
    folder, output = project
    scores = metrics(folder, "untrained")
    assert scores["parameters"]["trained"] == 0
    assert scores["test"]["texts"] == 18
    run = folder / "runs/untrained/places"
    assert (run / "train.tsv").read_text() == "step\tloss\n"
    assert (run / "validation.tsv").read_text() == "step\tscore\n"
    facts = json.loads((run / "run.json").read_text())
    assert (facts["steps"], facts["learning_rates"]) == (0, {})
    assert not (folder / "resource_usage/untrained").exists()
    config = json.loads((folder / "artifacts/untrained/places/config.json").read_text())
    assert config["prompt_shape"] is None
    assert config["provenance"]["training"] == {"precision": "float32", "validation_rows": 4}
    assert "agrees untrained" in output
    assert "trained nothing" in " ".join(output.replace("│", " ").split())


def test_a_control_trains_the_prompt_and_draws_the_random_weights_again(
    project: tuple[Path, str],
) -> None:
    folder, output = project
    artifact = folder / "artifacts/random_backbone/places"
    config = json.loads((artifact / "config.json").read_text())
    assert config["random_weights"]["seed"] == config["provenance"]["seed"] == 7
    assert {file.name for file in artifact.iterdir()} == {
        "config.json",
        "heads.safetensors",
        "prompt.safetensors",
    }
    assert metrics(folder, "random_backbone")["parameters"]["trained"] > 0
    assert "agrees random_backbone" in output
    assert "random weights seed 7, drawn by torch" in " ".join(output.replace("│", " ").split())
