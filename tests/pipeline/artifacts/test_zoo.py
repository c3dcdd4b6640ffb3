"""The artifacts that ship with the project."""

import hashlib
import re
from pathlib import Path

import pytest

import deep_prompt
from deep_prompt.serve.describe import describe_tasks
from pipeline.artifacts import zoo
from pipeline.artifacts.config import load_config
from pipeline.data.recipe import load_recipe
from pipeline.errors import UserError
from stages import zoo as stage
from tests.support.paths import ROOT

NAMES = zoo.zoo_names()
FOLDERS = {name: zoo.ZOO / name for name in ("open", "squad")}


def test_the_zoo_is_small_and_not_empty() -> None:
    files = [path for path in zoo.ZOO.rglob("*") if path.is_file()]
    assert "open" in NAMES
    assert sum(path.stat().st_size for path in files) < 8e6


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_the_hashes_of_the_files(name: str) -> None:
    folder = zoo.artifact_folder(f"zoo:{name}")
    card = (folder / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^    ([0-9a-f]{64})  (\S+)$", card, re.MULTILINE))
    found = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.name
        for path in folder.iterdir()
        if path.name != "README.md"
    }
    assert listed == found


@pytest.mark.parametrize("name", NAMES)
def test_the_licenses_of_all_training_corpora_allow_it(name: str) -> None:
    provenance = load_config(zoo.ZOO / name).provenance
    card = (zoo.ZOO / name / "README.md").read_text(encoding="utf-8")
    for corpus in {*provenance["pretrained_on"], *provenance["data"]}:
        license_ = load_recipe(ROOT / f"data_recipes/{corpus}.yaml").license
        assert re.match(r"CC BY|MIT", license_), f"{corpus}: {license_}"
        assert f"| {corpus} |" in card


def test_zoo_open_finds_entities_roles_and_answers() -> None:
    model = deep_prompt.load("zoo:open")  # without warnings: it is calibrated
    text = "Ada Lovelace was born in London."
    rows = [
        {"task": "wikigold", "text": text},
        {"task": "squad", "question": "Where was Ada born?", "context": text},
        {"task": "propbank_ewt", "text": text, "predicate": {"start": 17, "end": 21}},
    ]
    entities, answer, roles = (prediction.result for prediction in model.predict(rows))
    assert [(entity.label, entity.text) for entity in entities.entities] == [
        ("PER", "Ada Lovelace"),
        ("LOC", "London"),
    ]
    assert "London" in answer.answer
    assert roles.predicate == "born"
    assert roles.arguments


@pytest.mark.filterwarnings("ignore:.*trained in bfloat16:UserWarning")
def test_a_tuned_task_replaces_the_head_of_the_shared_prompt() -> None:
    with pytest.warns(UserWarning, match="head 'squad' is not used, because another artifact"):
        model = deep_prompt.load(["zoo:open", "zoo:squad"])
    row = {
        "task": "squad",
        "question": "When was Ada born?",
        "context": "Ada Lovelace, who was born in London in 1815, wrote a program.",
    }
    assert list(model.tasks).count("squad") == 1
    assert "wikigold" in model.tasks
    together, alone = (
        next(model.predict([row])).result for model in (model, deep_prompt.load("zoo:squad"))
    )
    assert together.answer == alone.answer == "1815"
    shown = {name: task["artifact"] for name, task in describe_tasks(model, FOLDERS).items()}
    assert (shown["squad"], shown["wikigold"]) == ("squad", "open")
    assert list(shown) == list(model.tasks)


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"zoo:opne: no such artifact; did you mean 'open'\?"):
        deep_prompt.load("zoo:opne")
    assert zoo.artifact_folder("models/open") == Path("models/open")


def test_the_stage_copies_the_zoo_without_model_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit of a card must not retrain the tasks that start from its prompt."""
    monkeypatch.chdir(tmp_path)
    stage.zoo()
    for name in NAMES:
        files = {path.name: path.read_bytes() for path in (zoo.ZOO / name).iterdir()}
        assert files.pop("README.md")
        copy = tmp_path / "artifacts/zoo" / name
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == files
