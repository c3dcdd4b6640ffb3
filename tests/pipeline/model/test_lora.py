"""LoRA's factors: what they compute, in every family; and what cannot have any is refused."""

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
    """A backbone with factors, large enough to matter."""
    made = tiny.backbone(family)
    add_lora(made, RANK, ALPHA, seed)
    generator = torch.Generator().manual_seed(seed)
    for factor in lora_factors(made).values() if large else ():
        factor.data = torch.randn(factor.shape, generator=generator)
    return made


def hidden(made: Backbone) -> Tensor:
    ids, mask, types = tiny.texts([9, 4, 7], pad_token_id=made.config.pad_token_id or 0)
    with torch.no_grad():
        return made(ids, mask, types)[mask.bool()]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_factors_add_their_product_to_the_weights(family: str) -> None:
    """In every family: W + (alpha / R) B A, on queries and values, and so the plain model with these weights."""
    made, plain = with_factors(family), tiny.backbone(family)
    before = hidden(plain)
    factors = lora_factors(made)
    projections = {name.split(".lora_")[0] for name in factors}
    assert {name.rpartition(".")[2] for name in projections} == {*plain.family.query_value}
    for name in projections:
        a, b = (factors[f"{name}.lora_{half}.weight"] for half in "AB")
        assert a.shape[0] == b.shape[1] == RANK
        projection = plain.model.get_submodule(name)
        product = (ALPHA / RANK) * (b @ a).detach()
        projection.weight.data += product.T if isinstance(projection, Conv1D) else product
    torch.testing.assert_close(hidden(made), hidden(plain), atol=1e-4, rtol=1e-4)
    assert float((hidden(made) - before).abs().max()) > 0.01


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
def test_fresh_factors_change_nothing(family: str) -> None:
    made = with_factors(family, large=False)
    assert torch.equal(hidden(made), hidden(tiny.backbone(family)))
    assert made.num_parameters == tiny.backbone(family).num_parameters


def test_fresh_factors_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    one = lora_factors(with_factors(large=False))
    drawn = torch.rand(1)
    torch.manual_seed(2)
    other = lora_factors(with_factors(large=False))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    torch.manual_seed(1)
    tiny.backbone()  # seeds as well
    assert torch.equal(torch.rand(1), drawn), "whoever draws next is not disturbed"
    another = lora_factors(with_factors(seed=3, large=False))
    assert [name for name, value in one.items() if torch.equal(value, another[name])] == [
        name for name in one if "lora_B" in name
    ]


def test_factors_of_a_rounded_backbone_are_whole() -> None:
    made = tiny.backbone()
    made.model.to(torch.bfloat16)
    add_lora(made, RANK, ALPHA, seed=2)
    assert {factor.dtype for factor in lora_factors(made).values()} == {torch.float32}
    assert hidden(made).dtype == torch.bfloat16


def test_checkpointed_layers_give_the_same_gradients(tmp_path: Path) -> None:
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


def refused(made: Backbone, *projections: str) -> str:
    made.family = replace(made.family, query_value=projections)
    with pytest.raises(UserError) as caught:
        add_lora(made, RANK, ALPHA, seed=2)
    (problem,) = caught.value.problems
    return problem


def test_a_family_whose_projections_are_not_found_is_refused() -> None:
    problem = refused(tiny.backbone("roberta"), "q_proj", "v_proj")
    assert problem.startswith(
        "backbone: LoRA cannot reach the projections q_proj, v_proj of this 'roberta' model (peft finds none of them); "
        "use another backbone or another arm"
    )


def test_a_family_that_does_not_call_a_projection_is_refused() -> None:
    made = tiny.backbone()
    made.model.encoder.layer[1].unused = nn.Linear(16, 16)
    problem = refused(made, "query", "unused")
    assert "'bert' model (encoder.layer.1.unused is not called)" in problem


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        UserError, match=r"peft is not installed; run pip install 'deep-prompt\[peft\]'"
    ):
        add_lora(tiny.backbone(), RANK, ALPHA, seed=2)
