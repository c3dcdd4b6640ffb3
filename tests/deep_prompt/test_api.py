"""`import deep_prompt`: the public API agrees with its page, and the import is fast."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import deep_prompt
from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.world import write_corpus
from tests.support.paths import ROOT
from tests.support.small_project import make_backbone

HEAD = TaskHead(
    "token_classification",
    "classes",
    ("O", "B-X", "I-X"),
    thresholds={"temperature": 1.5},
    word_rule="punctuation",
)
ROW = {"tokens": ["Ada", "in", "Bonn"]}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_corpus("srl", folder / "corpus", 40, 7)
    params = BackboneParams(
        f"folder:{folder}/backbone", make_backbone(folder / "backbone", folder / "corpus")
    )
    backbone = Backbone.load(folder / "backbone").requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    prompt = DeepPrompt(torch.randn(backbone.prompt_shape(4), generator=generator))
    model = PromptedModel(
        backbone, prompt, Heads(["classes"], [3], backbone.hidden_size, 0), train_backbone=False
    )
    config = ArtifactConfig(
        "deep_prompt",
        params,
        "bert",
        32,
        {"ner": HEAD},
        prompt.shape,
        backbone_files=backbone.files,
    )
    save_artifact(folder / "ner", model, config)
    return folder / "ner"


def test_load_warns_about_missing_thresholds_and_hashes(artifact: Path, tmp_path: Path) -> None:
    """A folder of artifacts/ instead of models/ predicts without calibration."""
    shutil.copytree(artifact, tmp_path / "raw")
    values = json.loads((artifact / "config.json").read_text(encoding="utf-8"))
    del values["backbone_files"], values["heads"]["ner"]["thresholds"]
    del values["heads"]["ner"]["word_rule"]
    (tmp_path / "raw/config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.warns(UserWarning, match=re.escape(str(tmp_path))) as caught:
        deep_prompt.load(tmp_path / "raw")
    hashes, thresholds, rule = (str(warning.message) for warning in caught)
    assert "has no hashes of the backbone's config and tokenizer files" in hashes
    assert "head 'ner' has no thresholds: its probabilities are not calibrated" in thresholds
    assert "load the folder that the stage release writes (models/TASK)" in thresholds
    assert "head 'ner' records no rule for words, so 'treebank' makes words of rows with" in rule
    (tmp_path / "raw/scores.json").write_text("{}", encoding="utf-8")  # a released task
    with pytest.warns(UserWarning, match=re.escape(str(tmp_path))) as caught:
        deep_prompt.load(tmp_path / "raw")
    thresholds = str(caught[1].message)
    assert thresholds.endswith("were right; take a larger validation set")


@pytest.mark.parametrize(
    "name", [lambda path: path, str, lambda path: [path], lambda path: {"ner": path}]
)
def test_load_accepts_four_types_of_artifact_names(
    name: Callable[[Path], object], artifact: Path
) -> None:
    model = deep_prompt.load(name(artifact))  # type: ignore[arg-type]
    (prediction,) = model.predict([ROW])
    assert isinstance(model, deep_prompt.Predictor)
    assert isinstance(prediction, deep_prompt.Prediction)
    assert (prediction.task, prediction.id) == ("ner", 0)


def test_text_rows_and_frames_are_predicted(artifact: Path) -> None:
    model = deep_prompt.load(artifact)
    text = "Ada, in Bonn"
    prediction = model(text)
    assert isinstance(prediction, deep_prompt.Prediction)
    for entity in prediction.result.entities:
        assert text[entity.start : entity.end] == entity.text
    assert [one.id for one in model([text, {"text": text, "id": "x"}])] == [0, "x"]
    frame = model(pd.DataFrame({"text": [text, "Bonn"]}, index=[7, 9]))
    assert (list(frame.index), list(frame.columns)) == ([7, 9], ["task", "entities"])


def test_options_reach_the_predictor(artifact: Path) -> None:
    assert deep_prompt.load(artifact, max_length=16, stride=4).windows == {"ner": (16, 4)}


def test_the_config_is_read_without_tensors(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((artifact / "config.json").read_bytes())
    config = deep_prompt.load_config(str(tmp_path))
    assert isinstance(config, deep_prompt.ArtifactConfig)
    assert config.heads == {"ner": HEAD}


def test_a_missing_artifact_is_a_user_error(tmp_path: Path) -> None:
    assert deep_prompt.UserError is UserError
    for call in (deep_prompt.load, deep_prompt.load_config):
        with pytest.raises(UserError, match=r"config.json: no such file"):
            call(tmp_path)


def test_another_type_than_a_path_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"artifact is \[\]; give the path of a folder"):
        deep_prompt.load_config([])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="artifacts is 3; give a list of folders"):
        deep_prompt.load(3)  # type: ignore[arg-type]


def test_only_public_names_exist() -> None:
    assert dir(deep_prompt) == sorted(deep_prompt.__all__)
    assert all(hasattr(deep_prompt, name) for name in deep_prompt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        deep_prompt.Trainer  # noqa: B018


def test_the_import_loads_no_torch() -> None:
    check = "import sys, deep_prompt; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
