"""Probing: attention mass and prompts without a layer equal the references; cosines by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.analysis.probing import (
    attention_mass,
    cosines,
    featurized,
    input_bytes,
    tuning_change,
    without_layer,
)
from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureList
from pipeline.model.attention import PromptAttention
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.pretrained.families import FAMILIES
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import token_classification as ner
from tests.support import references, tiny

EVERY_FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))
SHAPE = (3, 2, 4, 5, 4)


def masses_by_hand(
    family: str,
    model: Any,
    inputs: tuple[Tensor, ...],
    prompt: DeepPrompt,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[int, Tensor]:
    """The attention mass of the prompt in the reference: layer -> [B, heads, T].

    The output of attention is the mass if the values of the prompt are 1 and those of the text 0.
    """
    found: dict[int, Tensor] = {}
    plain = references.attend

    def watched(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor,
        keys: Any,
        layer: int,
        **more: Any,
    ) -> Tensor:
        ones = [torch.stack([each[0], torch.ones_like(each[1])]) for each in keys]
        mass = plain(query, key, torch.zeros_like(value), visible, ones, layer, **more)
        found[layer] = references.split_heads(mass, query.shape[1])[..., 0]
        return plain(query, key, value, visible, keys, layer, **more)

    monkeypatch.setattr(references, "attend", watched)
    references.REFERENCES[family](model, *inputs, prompt.key_values)
    return found


@EVERY_FAMILY
def test_the_attention_mass_of_a_prompt_equals_the_reference(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", backbone)
    assert isinstance(prompt, DeepPrompt)
    inputs = tiny.texts([9, 4, 7], pad_token_id=backbone.config.pad_token_id or 0)
    masses: PromptAttention = {}
    with torch.no_grad():
        hidden = backbone(*inputs, prompt(), masses)
        expected = masses_by_hand(family, backbone.model, inputs, prompt, monkeypatch)
        assert torch.equal(backbone(*inputs, prompt()), hidden), (
            "recording the mass changes no result"
        )
    assert sorted(masses) == sorted(expected) == list(range(backbone.num_layers))
    real = inputs[1].bool()
    for layer, mass in masses.items():
        torch.testing.assert_close(
            mass.transpose(1, 2)[real], expected[layer].transpose(1, 2)[real], atol=1e-5, rtol=1e-4
        )


@EVERY_FAMILY
@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_without_its_prompt_equals_the_reference(family: str, layer: int) -> None:
    backbone = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", backbone)
    assert isinstance(prompt, DeepPrompt)
    inputs = tiny.texts([9, 4, 7], pad_token_id=backbone.config.pad_token_id or 0)
    parts = [
        values[:, :, :0] if number == layer else values
        for number, values in enumerate(prompt.key_values)
    ]
    with torch.no_grad():
        with without_layer(prompt, layer):
            found = backbone(*inputs, prompt())
        expected = references.REFERENCES[family](backbone.model, *inputs, parts)
    real = inputs[1].bool()
    torch.testing.assert_close(found[real], expected[real], atol=3e-5, rtol=1e-4)


def test_without_layer_counts_from_the_first_layer_of_the_backbone() -> None:
    backbone = tiny.backbone()
    upper = DeepPrompt(
        torch.randn(2, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0)), first_layer=1
    )
    inputs = tiny.texts([5, 3])
    with torch.no_grad():
        whole = backbone(*inputs, upper())
        with without_layer(upper, 2):
            found = backbone(*inputs, upper())
        expected = backbone(*inputs, DeepPrompt(upper.key_values[:1], first_layer=1)())
        assert torch.equal(backbone(*inputs, upper()), whole), (
            "the prompt is removed only inside the block"
        )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, whole)


def test_the_mean_attention_mass_ignores_padding(tmp_path: Path) -> None:
    """The mean is the same for a padded batch and for batches of one row."""
    model = tiny.prompted("multitask")
    table = tiny.table(tmp_path, "classes", 5, seed=0)
    split = EvalSet(ner.TASK, ("O", "B-X", "I-X"), [None] * 5, table, np.arange(5))
    assert isinstance(model.prompt, DeepPrompt)
    sums, tokens = torch.zeros(3, 4), 0
    for row in range(5):
        ids = torch.from_numpy(table.column("input_ids", row).astype(np.int64))[None]
        masses: PromptAttention = {}
        with torch.no_grad():
            model.backbone(ids, torch.ones_like(ids), torch.zeros_like(ids), model.prompt(), masses)
        sums += torch.stack([masses[layer][0].sum(-1) for layer in range(3)])
        tokens += ids.shape[1]
    for batch_tokens in (1, 1000):
        found = attention_mass(model, split, 0, batch_tokens)
        torch.testing.assert_close(
            torch.tensor([found[layer] for layer in range(3)]), sums / tokens
        )


def test_layers_below_the_prompt_have_no_attention_mass(tmp_path: Path) -> None:
    base = tiny.prompted("multitask")
    upper = DeepPrompt(
        torch.randn(1, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0)), first_layer=2
    )
    model = PromptedModel(base.backbone, upper, base.heads, train_backbone=False)
    split = EvalSet(
        ner.TASK,
        ("O", "B-X", "I-X"),
        [None] * 5,
        tiny.table(tmp_path, "classes", 5, seed=0),
        np.arange(5),
    )
    assert list(attention_mass(model, split, 0)) == [2]


def test_equal_scores_share_attention_evenly(tmp_path: Path) -> None:
    """With a query of zeros, the attention mass of the prompt is P / (P + T)."""
    model = tiny.prompted("multitask")
    with torch.no_grad():
        for layer in model.backbone.model.encoder.layer:
            layer.attention.self.query.weight.zero_()
            layer.attention.self.query.bias.zero_()
    table = tiny.table(tmp_path, "classes", 1, seed=0)
    found = attention_mass(
        model, EvalSet(ner.TASK, ("O", "B-X", "I-X"), [None], table, np.arange(1)), 0
    )
    torch.testing.assert_close(
        torch.tensor(list(found.values())), torch.full((3, 4), 3 / (3 + table.longest))
    )


def test_cosines_equal_manual_results() -> None:
    values = torch.zeros(2, 2, 1, 1, 2)
    values[0, 0, 0, 0] = torch.tensor([3.0, 4.0])
    values[1, 1, 0, 0] = torch.tensor([1.0, 0.0])
    other = torch.zeros_like(values)
    other[0, 0, 0, 0] = torch.tensor([4.0, 3.0])
    other[1, 1, 0, 0] = torch.tensor([-2.0, 0.0])
    assert cosines(DeepPrompt(values), DeepPrompt(other)) == pytest.approx({0: 24 / 25, 1: -1.0})
    assert cosines(DeepPrompt(values, first_layer=1), DeepPrompt(other)) == pytest.approx(
        {1: 0.0}
    ), "only layer 1 has both prompts"


def test_added_is_the_difference_of_prompts() -> None:
    start = DeepPrompt(torch.full(SHAPE, 2.0), first_layer=1)
    change = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    found = tuning_change(DeepPrompt(start.key_values + change, first_layer=1), start)
    torch.testing.assert_close(found.key_values.detach(), change)
    assert found.first_layer == 1


def test_prompts_with_different_lengths_or_layers_have_no_cosine() -> None:
    prompt = DeepPrompt(torch.ones(SHAPE))
    assert cosines(prompt, DeepPrompt(torch.ones(3, 2, 4, 6, 4))) == {}
    assert cosines(prompt, DeepPrompt(torch.ones(SHAPE), first_layer=3)) == {}


def test_readings_are_equal_if_the_backbone_ignores_the_difference(
    tokenizer: Tokenizer,
) -> None:
    """An uncased backbone ignores case. A sentence in several windows is one reading."""

    def read(sentence: str) -> list[bytes]:
        words = tuple(sentence.split())
        examples = [
            ner.Example("a", words, ("O",) * len(words)),
            ner.Example("b", words[:1], ("O",)),
        ]
        template = EvalSet(ner.TASK, ("O",), [], FeatureList([]), np.arange(0))
        with featurized(examples, template, tokenizer, 8, 2) as split:
            return input_bytes(split)

    long, short = read("the cat saw the dog and the dog saw the cat")
    assert read("THE CAT SAW THE DOG AND THE DOG SAW THE CAT") == [long, short]
    other = read("the cat saw the dog and the dog saw the man")
    assert (other[0] == long, other[1] == short) == (False, True)
