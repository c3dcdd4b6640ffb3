"""The model card: metadata as the hub reads it, and text that says only what is so."""

import dataclasses
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.interop.model_card import Corpus, model_card
from pipeline.params import BackboneParams
from pipeline.tasks import NAMES, task_named

HUB = BackboneParams("hub:some/backbone@" + "a" * 40)
CORPORA = {
    "mine": Corpus("CC BY 4.0", "a | b", "owner/mine"),
    "other": Corpus("research only", "here"),
    "more": Corpus("CC BY 4.0", "there", "owner/mine"),
}
METRICS: dict[str, Any] = {
    "primary": "f1",
    "task": "span_extraction",
    "thresholds": {"no_answer": -0.51234},
    "parameters": {"trained": 250, "backbone": 100_000},
    "rows": {"train": 9, "validation": 4, "test": 7},
    "test": {"exact_match": 61.006, "f1": 70.126, "total": 7},
    "validation": {"exact_match": 60.0, "f1": 71.0, "total": 4},
}
CONFIG = ArtifactConfig(
    "multitask",
    HUB,
    "bert",
    32,
    {"mine": TaskHead("span_extraction", "positions", ("start", "end"))},
    prompt_shape=(2, 2, 4, 8, 16),
    first_layer=1,
    provenance={
        "pretrained_on": ["mine", "other"],
        "seed": 7,
        "data": {"mine": {"train": {"sha256": "d"}}},
    },
)


def card(config: ArtifactConfig = CONFIG, metrics: dict[str, Any] = METRICS) -> ModelCard:
    return ModelCard(model_card("mine", config, metrics, CORPORA))


def test_the_hub_reads_the_metadata() -> None:
    data = card().data
    assert (data.library_name, data.pipeline_tag, data.base_model) == (
        "deep-prompt",
        "question-answering",
        "some/backbone",
    )
    assert (data.license, data.license_name) == ("other", "that-of-the-corpora")
    assert data.datasets == ["owner/mine"], "once, though two corpora are of it"
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_split) == ("owner/mine", "test")
    assert (result.metric_type, result.metric_value) == ("f1", 70.13)


@pytest.mark.parametrize(
    "part",
    [
        "8 virtual tokens of 4 key/value heads of size 16 in each of the layers 1 to 2",
        "100,000 numbers",
        "Trained were 250 numbers, 0.25 % of it",
        "takes none of the backbone's positions",
        "| mine | multi-task pretraining and tuning | CC BY 4.0 | a \\| b |",
        "| other | multi-task pretraining | research only | here |",
        "| percent | test (7 rows) | validation (4 rows) |",
        "| f1 (primary) | 70.13 | 71.00 |",
        "| exact_match | 61.01 | 60.00 |",
        "Threshold `no_answer`: -0.5123, chosen on validation",
        '{"task": "mine", "question": "...", "context": "..."}',
        '"seed": 7',
        '"sha256": "d"',
        'load(["mine"])',
    ],
)
def test_it_says_what_it_is(part: str) -> None:
    assert part in card().text


def test_a_backbone_off_the_hub_is_named_with_its_hash() -> None:
    local = card(dataclasses.replace(CONFIG, backbone=BackboneParams("folder:here", "e" * 64)))
    assert local.data.base_model is None
    assert (
        f"`folder:here` (bert, 100,000 numbers, sha256 of its weights `{'e' * 64}`)" in local.text
    )


def test_a_prompt_that_shifts_the_text_is_said_to() -> None:
    assert (
        "shifts the text by 8 positions"
        in card(dataclasses.replace(CONFIG, position_offset=8)).text
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_task_has_a_name_on_the_hub(name: str) -> None:
    task = task_named(name)
    metrics = {
        **METRICS,
        "task": name,
        "primary": "x",
        "thresholds": {},
        "test": {"x": 1.0},
        "validation": {"x": 2.0},
    }
    config = dataclasses.replace(CONFIG, heads={"mine": TaskHead(name, task.head, ("a",))})
    assert card(config, metrics).data.pipeline_tag == task.pipeline_tag
    assert "Threshold" not in card(config, metrics).text
