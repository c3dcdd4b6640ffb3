"""The stage release writes the scores and licenses of an artifact for the server."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.config import load_config
from pipeline.artifacts.scores import ArtifactScores, TestScore, load_scores
from pipeline.files import write_json
from stages import release as stage
from tests.support.serving import make_artifacts


def rows_of(text: str) -> dict[str, Any]:
    return {"ner": {"train": {"examples_sha256": text}}}


def test_release_writes_scores_and_licenses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "load_params", lambda: None)
    monkeypatch.setattr(stage, "task_of", lambda *_: None)
    make_artifacts(tmp_path, versions=1)
    (tmp_path / "artifacts/multitask").mkdir(parents=True)
    (tmp_path / "ner-0").rename(tmp_path / "artifacts/multitask/ner")
    config = load_config(Path("artifacts/multitask/ner"))
    licenses = {"wnut17": "CC BY 4.0", "ner": "CC0"}
    initial = {"artifact": "zoo/open", "licenses": licenses, "data": rows_of("other rows")}
    provenance = {
        "pretrained_on": ["other", "wnut17"],
        "data": rows_of("rows"),
        "seed": 1,
        "training": {},
        "init_from": initial,
    }
    values = dataclasses.asdict(dataclasses.replace(config, provenance=provenance))
    write_json(Path("artifacts/multitask/ner/config.json"), values)
    scores = {"f1": 61.5, "precision": 60.0, "tokens": 9}
    metrics = {
        "task": "token_classification",
        "primary": "f1",
        "rows": {"train": 10, "validation": 5, "test": 20},
        "test": scores,
        "validation": scores,
        "thresholds": {"temperature": 1.5},
        "parameters": {"backbone": 10, "trained": 1},
        "interval": [50.25, 70.5],
    }
    write_json(Path("results/multitask/ner/metrics.json"), metrics)
    write_json(Path("data/corpora/ner.json"), {"license": "MIT", "source": "here"})
    # A corpus of this project, also of a removed task, may have the name of one of the zoo.
    write_json(Path("data/corpora/wnut17.json"), {"license": "internal", "source": "here"})
    stage.release("ner")
    assert load_scores(Path("models/ner")) == ArtifactScores(
        {"ner": TestScore("f1", 61.5, 20, (50.25, 70.5))},
        {"ner": "MIT", "ner of zoo/open": "CC0", "other": "unknown", "wnut17": "CC BY 4.0"},
    )
    card = Path("models/ner/README.md").read_text(encoding="utf-8")
    assert (
        "| wnut17 | multi-task pretraining | CC BY 4.0 | see the model card of zoo/open |" in card
    )
    assert "| unknown | unknown (zoo/open does not record it) |" in card
    assert "The 95 % interval of the test f1 is 50.25 to 70.50 (bootstrap" in card
