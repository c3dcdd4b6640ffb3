"""LoRA factors compute eq. 3 in every family, and unsupported models are refused."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipeline.errors import UserError
from pipeline.mixing.batches import collate
from pipeline.model.backbone import Backbone
from pipeline.model.lora import add_lora, is_lora, lora_factors
from pipeline.pretrained.families import FAMILIES
from tests.support import tiny

RANK, ALPHA = 2, 3.0


def with_factors(family: str = "bert", seed: int = 2, large: bool = True) -> Backbone:
    """A backbone with factors. They are large enough to change the result if `large`."""
    backbone = tiny.backbone(family)
    add_lora(backbone, RANK, ALPHA, seed)
    generator = torch.Generator().manual_seed(seed)
    for factor in lora_factors(backbone).values() if large else ():
        factor.data = torch.randn(factor.shape, generator=generator)
    return backbone


def hidden(backbone: Backbone) -> Tensor:
    ids, mask, types = tiny.texts([9, 4, 7], pad_token_id=backbone.config.pad_token_id or 0)
    with torch.no_grad():
        return backbone(ids, mask, types)[mask.bool()]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_factors_add_their_product_to_the_weights(family: str) -> None:
    """The result equals that of a plain model with the weights W + (alpha / R) B A.

    W are the projections to queries and values.
    """
    backbone, plain = with_factors(family), tiny.backbone(family)
    before = hidden(plain)
    factors = lora_factors(backbone)
    projections = {name.split(".lora_")[0] for name in factors}
    assert {name.rpartition(".")[2] for name in projections} == {*plain.family.query_value}
    for name in projections:
        a, b = (factors[f"{name}.lora_{half}.weight"] for half in "AB")
        assert a.shape[0] == b.shape[1] == RANK
        projection = plain.model.get_submodule(name)
        product = (ALPHA / RANK) * (b @ a).detach()
        projection.weight.data += product.T if isinstance(projection, Conv1D) else product
    torch.testing.assert_close(hidden(backbone), hidden(plain), atol=1e-4, rtol=1e-4)
    assert float((hidden(backbone) - before).abs().max()) > 0.01


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
def test_initial_factors_do_not_change_the_hidden_states(family: str) -> None:
    backbone = with_factors(family, large=False)
    assert torch.equal(hidden(backbone), hidden(tiny.backbone(family)))
    assert backbone.num_parameters == tiny.backbone(family).num_parameters


def test_initial_factors_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    first = lora_factors(with_factors(large=False))
    expected_draw = torch.rand(1)
    torch.manual_seed(2)
    second = lora_factors(with_factors(large=False))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    torch.manual_seed(1)
    tiny.backbone()  # It draws from the global generator too.
    assert torch.equal(torch.rand(1), expected_draw), "the global generator is unchanged"
    other_seed = lora_factors(with_factors(seed=3, large=False))
    assert [name for name, value in first.items() if torch.equal(value, other_seed[name])] == [
        name for name in first if "lora_B" in name
    ]


def test_factors_of_a_bfloat16_backbone_are_float32() -> None:
    backbone = tiny.backbone()
    backbone.model.to(torch.bfloat16)
    add_lora(backbone, RANK, ALPHA, seed=2)
    assert {factor.dtype for factor in lora_factors(backbone).values()} == {torch.float32}
    assert hidden(backbone).dtype == torch.bfloat16


def test_gradient_checkpointing_does_not_change_the_gradients(tmp_path: Path) -> None:
    table = tiny.table(tmp_path, "classes", 12, 3)
    batch, gradients = collate(table, np.arange(6), 0, 0), []
    for checkpointed in (False, True):
        model = tiny.prompted("lora")
        if checkpointed:
            model.backbone.checkpoint_layers()
        model.heads.loss(model(batch), batch).backward()
        gradients.append({name: value.grad for name, value in model.trainable_state().items()})
    assert any(is_lora(name) for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name])


def refused(backbone: Backbone, *projections: str) -> str:
    backbone.family = replace(backbone.family, query_value=projections)
    with pytest.raises(UserError) as caught:
        add_lora(backbone, RANK, ALPHA, seed=2)
    (problem,) = caught.value.problems
    return problem


def test_an_unknown_projection_is_refused() -> None:
    problem = refused(tiny.backbone("roberta"), "q_proj", "v_proj")
    assert problem.startswith(
        "backbone: LoRA cannot reach the projections q_proj, v_proj of this 'roberta' model "
        "(peft finds none of them); use another backbone or another arm"
    )


def test_a_projection_without_a_call_is_refused() -> None:
    backbone = tiny.backbone()
    backbone.model.encoder.layer[1].unused = nn.Linear(16, 16)
    problem = refused(backbone, "query", "unused")
    assert "'bert' model (encoder.layer.1.unused is not called)" in problem


def test_a_missing_peft_is_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        UserError, match=r"peft is not installed; run pip install 'deep-prompt\[peft\]'"
    ):
        add_lora(tiny.backbone(), RANK, ALPHA, seed=2)
