"""Random weights in place of pretrained ones: all of them, and the same on every load."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from tests.support import tiny

FAMILIES = {
    "bert": "AutoModelForMaskedLM",
    "deberta-v2": "AutoModelForMaskedLM",
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "phi3": "AutoModelForCausalLM",  # without a reference test
}


def pretrained(family: str, folder: Path) -> Path:
    """A folder with a model whose constants (norms and biases) have changed in training."""
    config: Any = transformers.Phi3Config(**tiny.SIZES) if family == "phi3" else tiny.config(family)
    torch.manual_seed(0)
    auto: Any = getattr(transformers, FAMILIES[family])
    model = auto.from_config(config, attn_implementation=ATTENTION)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder


def weights(backbone: Backbone) -> dict[str, Tensor]:
    """The weights of the backbone and of its LM head."""
    return dict(backbone.named_parameters())


@pytest.mark.parametrize("lm_head", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_random_and_the_same_on_every_load(
    family: str, lm_head: bool, tmp_path: Path
) -> None:
    folder = pretrained(family, tmp_path)
    original = weights(Backbone.load(folder, lm_head))
    first, second, other = (Backbone.load(folder, lm_head, random_seed=seed) for seed in (7, 7, 8))
    assert first.random_weights == second.random_weights
    assert first.random_weights is not None
    assert first.random_weights.seed == 7
    assert other.random_weights is not None
    assert other.random_weights.sha256 != first.random_weights.sha256
    assert weights(first).keys() == original.keys()
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name
        assert not torch.equal(value, original[name]), name
        is_constant = value.unique().numel() == 1
        assert is_constant == (value.ndim == 1), name
        assert is_constant or not torch.equal(value, weights(other)[name]), name
    if lm_head:
        token_ids = [5, 9, 3]
        hidden = first(*tiny.texts([6]))
        assert not torch.equal(
            first.word_logits(hidden, token_ids), other.word_logits(hidden, token_ids)
        )


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied(tied: bool, tmp_path: Path) -> None:
    config = tiny.config("llama")
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    model: Any = Backbone.load(tmp_path, lm_head=True, random_seed=7)
    assert (model.lm_head.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_the_weights_do_not_depend_on_the_precision_or_other_random_numbers(tmp_path: Path) -> None:
    """The type in the config, that of pretrained weights, does not matter either."""
    folder = pretrained("bert", tmp_path)
    exact = Backbone.load(folder, random_seed=7)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    rounded = Backbone.load(folder, precision="bfloat16", random_seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert rounded.random_weights == exact.random_weights
    for name, value in weights(exact).items():
        assert torch.equal(value.bfloat16(), weights(rounded)[name]), name
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}))
    assert Backbone.load(folder, random_seed=7).random_weights == exact.random_weights


def test_a_pretrained_backbone_has_no_record_of_random_weights(tmp_path: Path) -> None:
    assert Backbone.load(pretrained("bert", tmp_path)).random_weights is None
