"""The model card: the hub can read its metadata, and its text is true."""

import dataclasses
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.interop.model_card import CorpusCard, model_card
from pipeline.params import BackboneParams
from pipeline.tasks import NAMES, task_named

HUB = BackboneParams("hub:some/backbone@" + "a" * 40)
CORPORA = {
    "quiz": CorpusCard("CC BY 4.0", "a | b", "owner/quiz"),
    "other": CorpusCard("research only", "here"),
    "more": CorpusCard("CC BY 4.0", "there", "owner/quiz"),
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
    {"quiz": TaskHead("span_extraction", "positions", ("start", "end"))},
    prompt_shape=(2, 2, 4, 8, 16),
    first_layer=1,
    provenance={
        "pretrained_on": ["quiz", "other"],
        "seed": 7,
        "data": {"quiz": {"train": {"sha256": "d"}}},
    },
)


def card(config: ArtifactConfig = CONFIG, metrics: dict[str, Any] = METRICS) -> ModelCard:
    return ModelCard(model_card("quiz", config, metrics, CORPORA))


def test_the_hub_can_read_the_metadata() -> None:
    data = card().data
    assert (data.library_name, data.pipeline_tag, data.base_model) == (
        "deep-prompt",
        "question-answering",
        "some/backbone",
    )
    assert (data.license, data.license_name) == ("other", "that-of-the-corpora")
    assert data.datasets == ["owner/quiz"], "one entry for two corpora with the same copy"
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_split) == ("owner/quiz", "test")
    assert (result.metric_type, result.metric_value) == ("f1", 70.13)


@pytest.mark.parametrize(
    "part",
    [
        "8 virtual tokens in each of the layers 1 to 2, with 4 key/value heads of size 16",
        "100,000 parameters",
        "It is frozen",
        "Training changed 250 parameters, 0.25 % of the number in the backbone",
        "It takes no positions of the backbone",
        "| quiz | multi-task pretraining and tuning | CC BY 4.0 | a \\| b |",
        "| other | multi-task pretraining | research only | here |",
        "| percent | test (7 rows) | validation (4 rows) |",
        "| f1 (primary) | 70.13 | 71.00 |",
        "| exact_match | 61.01 | 60.00 |",
        "Threshold `no_answer`: -0.5123, chosen on the validation set",
        '{"task": "quiz", "question": "...", "context": "..."}',
        '"seed": 7',
        '"sha256": "d"',
        "import deep_prompt",
        'model = deep_prompt.load("quiz")',
        "share forward passes",
    ],
)
def test_the_card_states_the_properties_of_the_artifact(part: str) -> None:
    assert part in card().text


def test_the_card_names_a_local_backbone_with_its_hash() -> None:
    local = card(dataclasses.replace(CONFIG, backbone=BackboneParams("folder:here", "e" * 64)))
    assert local.data.base_model is None
    assert (
        f"`folder:here` (bert, 100,000 parameters, sha256 of the weights `{'e' * 64}`)"
        in local.text
    )


def test_the_card_states_the_options_of_the_prompt() -> None:
    assert "token types" not in card(CONFIG).text
    config = dataclasses.replace(CONFIG, position_offset=8, zero_token_types=True)
    text = " ".join(card(config).text.split())
    assert "shifts the text by 8 positions. All token types of the text are 0." in text


@pytest.mark.parametrize("name", NAMES)
def test_every_task_has_a_pipeline_tag(name: str) -> None:
    task = task_named(name)
    metrics = {
        **METRICS,
        "task": name,
        "primary": "x",
        "thresholds": {},
        "test": {"x": 1.0},
        "validation": {"x": 2.0},
    }
    config = dataclasses.replace(CONFIG, heads={"quiz": TaskHead(name, task.head, ("a",))})
    assert card(config, metrics).data.pipeline_tag == task.pipeline_tag
    assert "Threshold" not in card(config, metrics).text


def test_a_score_that_only_one_split_has_is_shown() -> None:
    """A subset of the rows, such as the unseen categories of WebNLG, may be in one split only."""
    test = {**METRICS["test"], "f1_unseen": 50.0}
    text = card(metrics={**METRICS, "test": test}).text
    assert "| f1_unseen | 50.00 | - |" in text


def test_the_card_of_a_trained_backbone_says_to_load_it_alone() -> None:
    text = card(dataclasses.replace(CONFIG, arm="fine_tune", prompt_shape=None)).text
    assert "This artifact includes its trained weights" in text
    assert "Load it alone: its backbone differs from the others" in text
    assert "share forward passes" not in text


def test_it_says_that_the_shared_prompt_has_not_seen_the_corpus() -> None:
    sentence = "The shared prompt has not seen quiz"
    unseen = {**CONFIG.provenance, "pretrained_on": ["other"]}
    unknown = {**CONFIG.provenance, "pretrained_on": []}
    assert sentence not in card().text
    assert sentence in card(dataclasses.replace(CONFIG, provenance=unseen)).text
    assert sentence not in card(dataclasses.replace(CONFIG, provenance=unknown)).text


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("token_classification", '{"task": "quiz", "text": "..."}'),
        ("semantic_role_labeling", '{"task": "quiz", "text": "...", "predicate": 0}'),
        (
            "multiple_choice",
            '{"task": "quiz", "context": "...", "question": "...", "choices": ["...", "..."]}',
        ),
    ],
)
def test_card_has_a_row_and_the_rule_for_words(name: str, row: str) -> None:
    rule = "treebank" if '"text"' in row else None
    head = TaskHead(name, "classes", ("a",), word_rule=rule)
    text = card(dataclasses.replace(CONFIG, heads={"quiz": head})).text
    assert row in text
    assert ("The rule `treebank` makes words of `text`" in text) == bool(rule)
