"""A predictor under other prompts equals one that is made with them; attention to the prompt."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.artifacts.artifact import load_prompt
from pipeline.artifacts.config import load_config
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.features.table import FeatureList
from pipeline.inference.loading import load, load_beside, shares_backbone
from pipeline.inference.predictor import Predictor
from pipeline.inference.prompt_variants import (
    attention_to_prompt,
    prompt_numbers,
    with_prompt_of,
)
from pipeline.mixing.batches import collate
from pipeline.tasks import task_named
from tests.support.serving import HEADS, ROWS, folders, make_artifacts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifacts(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="module")
def predictor(root: Path) -> Predictor:
    return load(folders(root))


def results(predictor: Predictor) -> list[object]:
    return [prediction.result for prediction in predictor.predict(ROWS)]


@pytest.mark.parametrize("task", [None, "srl"])
def test_a_variant_equals_a_predictor_with_the_prompts(
    root: Path, predictor: Predictor, task: str | None
) -> None:
    prompt = None
    if task is not None:
        config = load_config(root / f"{task}-0")
        prompt = load_prompt(
            root / f"{task}-0", config, config.backbone, predictor.model.backbone, task
        )
    expected = Predictor(
        predictor.model.backbone,
        predictor.tokenizer,
        predictor.tasks,
        [prompt] * len(HEADS),
        predictor.model.heads,
        list(predictor.windows.values()),
    )
    before = results(predictor)
    variant = with_prompt_of(predictor, task)
    assert results(variant) == results(expected)
    assert results(predictor) == before, "the predictor itself stays as it is"
    changed = [one != other for one, other in zip(results(variant), before, strict=True)]
    assert changed == [True, task is None, True]


def test_prompts_have_numbers(root: Path, predictor: Predictor) -> None:
    assert sorted(map(str, prompt_numbers(predictor).values())) == ["0", "1", "2"]
    assert set(prompt_numbers(with_prompt_of(predictor, None)).values()) == {None}
    assert len(set(prompt_numbers(with_prompt_of(predictor, "qa")).values())) == 1


def test_attention_is_that_of_the_backbone(predictor: Predictor) -> None:
    row = {"task": "ner", "tokens": ["Ada", "was", "born"]}
    found = attention_to_prompt(predictor, row)
    kind, head = task_named(HEADS["ner"].type), predictor.tasks["ner"]
    example = kind.example_for_prediction({**row, "id": "0", "where": ""}, None)  # type: ignore[arg-type]
    features = list(
        kind.featurize(
            [example], 0, predictor.tokenizer, head.classes, *predictor.windows["ner"], Counter()
        )
    )
    tasks = torch.tensor([0])
    batch = collate(FeatureList(features), np.array([0]), tasks, predictor.tokenizer.pad_token_id)
    masses: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        predictor.model.backbone(
            batch.input_ids,
            batch.attention_mask,
            batch.token_types,
            predictor.model.prompt(tasks),  # type: ignore[misc,operator]
            masses,
        )
    assert found.keys() == masses.keys() == {0, 1}
    for layer, mass in masses.items():
        torch.testing.assert_close(torch.tensor(found[layer]), mass[0].mean(1))
    assert attention_to_prompt(with_prompt_of(predictor, None), row) == {}
    with pytest.raises(UserError, match="tokens"):
        attention_to_prompt(predictor, {"task": "ner"})


def test_another_predictor_shares_the_backbone(root: Path, predictor: Predictor) -> None:
    config = load_config(root / "ner-1")
    assert shares_backbone(config)
    before = results(predictor)
    beside = load_beside(predictor, {"ner": root / "ner-1"}, config.backbone)
    assert beside.model.backbone is predictor.model.backbone
    alone = load({"ner": root / "ner-1"})
    assert beside(ROWS[0]).result == alone(ROWS[0]).result != before[0]
    assert results(predictor) == before


def test_another_precision_than_that_of_the_shared_backbone_is_said(
    root: Path, predictor: Predictor, tmp_path: Path
) -> None:
    shutil.copytree(root / "ner-1", tmp_path / "int8")
    values = load_json(tmp_path / "int8/config.json")
    (tmp_path / "int8/config.json").write_text(json.dumps({**values, "precision": "int8"}))
    artifacts, params = {"ner": tmp_path / "int8"}, load_config(root / "ner-1").backbone
    said = [
        [
            line
            for line in load_beside(predictor, artifacts, params, dtype).warnings
            if "int8," in line
        ]
        for dtype in (None, torch.float32)
    ]
    assert len(said[0]) == 1
    assert "trained in int8, but computed in float32, the precision of the backbone" in said[0][0]
    assert not said[1], "the caller has set the precision"
