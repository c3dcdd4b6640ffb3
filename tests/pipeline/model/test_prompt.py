"""Prompts: each part against its formula, computed by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.arms import ARMS, PRETRAIN_PARAMS
from pipeline.mixing.batches import collate
from pipeline.model.prompt import DeepPrompt, Projection, TaskFactors, stack_prompts
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams, unused_keys
from tests.support import tiny

SHAPE = (3, 2, 4, 5, 4)
WIDTH = 3 * 2 * 4 * 4


def prompt_with_projection(seed: int = 1) -> DeepPrompt:
    embedding = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    return DeepPrompt(torch.zeros(SHAPE), projection=Projection(embedding, 7, WIDTH, seed))


def prompt_with_factors(rank: int = 2) -> DeepPrompt:
    shared = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return DeepPrompt(shared, factors=TaskFactors(2, 5, rank, WIDTH, seed=3))


def model_of(prompt: DeepPrompt) -> PromptedModel:
    model = tiny.prompted("multitask")
    return PromptedModel(model.backbone, prompt, model.heads, train_backbone=False)


def test_a_projection_equals_its_formula() -> None:
    prompt = prompt_with_projection().requires_grad_(False)
    mlp = prompt.projection
    assert mlp is not None
    for token in range(5):
        hidden = [
            float(torch.tanh(mlp.inner.weight[unit] @ mlp.embedding[token] + mlp.inner.bias[unit]))
            for unit in range(7)
        ]
        row = [
            float(mlp.outer.weight[out] @ torch.tensor(hidden) + mlp.outer.bias[out])
            for out in range(WIDTH)
        ]
        expected = torch.tensor(row).view(3, 2, 4, 4)  # layer, key or value, head, element
        torch.testing.assert_close(prompt.materialize()[:, :, :, token], expected)


def test_the_seed_of_a_projection_determines_its_output() -> None:
    assert torch.equal(
        prompt_with_projection().materialize(), prompt_with_projection().materialize()
    )
    assert not torch.equal(
        prompt_with_projection().materialize(), prompt_with_projection(2).materialize()
    )


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        (
            prompt_with_projection(),
            {
                "prompt.projection.embedding",
                "prompt.projection.inner.weight",
                "prompt.projection.inner.bias",
                "prompt.projection.outer.weight",
                "prompt.projection.outer.bias",
            },
        ),
        (prompt_with_factors(), {"prompt.key_values", "prompt.factors.u", "prompt.factors.v"}),
        (
            DeepPrompt(torch.zeros(SHAPE), dropout=0.5, first_layer=0, position_offset=5),
            {"prompt.key_values"},
        ),
    ],
)
def test_the_trainable_parameters_have_a_gradient_in_every_micro_batch(
    prompt: DeepPrompt, names: set[str], tmp_path: Path
) -> None:
    model = model_of(prompt)
    assert set(model.trainable_state()) == names | {"heads.weight", "heads.bias"}
    for task, kind in enumerate(("classes", "positions")):
        model.zero_grad()
        batch = collate(tiny.table(tmp_path, kind, 12, 3), np.arange(6), task, 0)
        model.heads.loss(model(batch), batch).backward()
        with_gradient = {
            name for name, parameter in model.named_parameters() if parameter.grad is not None
        }
        assert with_gradient == set(model.trainable_state())


def test_factors_start_as_a_no_op_and_change_only_the_prompt_of_their_task() -> None:
    prompt = prompt_with_factors()
    assert torch.equal(prompt.materialize(0), prompt.materialize())
    assert torch.equal(prompt.materialize(1), prompt.materialize())
    factors = prompt.factors
    assert factors is not None
    with torch.no_grad():
        factors.v[1] = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(5))
    assert torch.equal(prompt.materialize(0), prompt.materialize())
    for token in range(5):
        scale = 1 + sum(factors.u[1, token, r] * factors.v[1, r] for r in range(2))
        torch.testing.assert_close(
            prompt.materialize(1)[:, :, :, token],
            prompt.materialize()[:, :, :, token] * scale.view(3, 2, 4, 4),
        )


def test_factors_have_a_gradient_in_the_first_step() -> None:
    prompt = prompt_with_factors()
    prompt.materialize(0).square().sum().backward()
    assert prompt.factors is not None
    assert prompt.factors.v.grad is not None
    assert (prompt.factors.v.grad[0].abs() > 0).all()
    assert not prompt.factors.v.grad[1].any(), "the factors of another task"


def test_the_model_applies_the_factors_of_the_batchs_task(tmp_path: Path) -> None:
    prompt = prompt_with_factors()
    assert prompt.factors is not None
    torch.nn.init.normal_(prompt.factors.v)
    model = model_of(prompt)
    batch = collate(tiny.table(tmp_path, "positions", 12, 3), np.arange(6), 1, 0)
    with_task_prompt = model_of(DeepPrompt(prompt.materialize(1)))
    with_shared_prompt = model_of(DeepPrompt(prompt.materialize()))
    torch.testing.assert_close(model(batch), with_task_prompt(batch))
    assert not torch.allclose(model(batch), with_shared_prompt(batch), atol=1e-3)


def test_dropout_applies_in_training_only() -> None:
    prompt = DeepPrompt(torch.ones(SHAPE), dropout=0.25)
    torch.manual_seed(1)
    dropped = prompt().key_values
    kept = dropped != 0
    assert 0.6 < float(kept.float().mean()) < 0.9
    assert torch.equal(dropped[kept], torch.full_like(dropped[kept], 1 / 0.75)), (
        "the mean stays the same"
    )
    torch.manual_seed(1)
    assert torch.equal(prompt().key_values, dropped)
    assert torch.equal(prompt.eval()().key_values, torch.ones(1, *SHAPE))
    assert torch.equal(prompt.train().materialize(), torch.ones(SHAPE)), (
        "the saved prompt has no dropout"
    )


def test_prompts_of_different_shapes_are_stacked_with_a_mask() -> None:
    short = DeepPrompt(torch.randn(3, 2, 4, 2, 4))
    upper = DeepPrompt(
        torch.randn(1, 2, 4, 3, 4), first_layer=2, position_offset=3, zero_token_types=True
    )
    prompt_index = torch.tensor([0, 2, 1])
    stacked = stack_prompts([short, None, upper], prompt_index)
    assert stacked is not None
    assert stacked.key_values.shape == (3, 3, 2, 4, 3, 4)
    assert stacked.prompt_index is prompt_index
    assert torch.equal(stacked.key_values[0, :, :, :, :2], short.materialize())
    assert torch.equal(stacked.key_values[2, 2], upper.materialize()[0])
    assert stacked.token_mask is not None
    assert stacked.token_mask.tolist() == [
        [[True, True, False]] * 3,
        [[False] * 3] * 3,
        [[False] * 3, [False] * 3, [True] * 3],
    ]
    assert stacked.position_offsets is not None
    assert stacked.position_offsets.tolist() == [0, 0, 3]
    assert stacked.zero_token_types is not None
    assert stacked.zero_token_types.tolist() == [False, False, True]


def test_prompts_of_equal_shape_need_no_mask() -> None:
    stacked = stack_prompts(
        [DeepPrompt(torch.randn(SHAPE)), DeepPrompt(torch.randn(SHAPE))], torch.tensor([0, 1])
    )
    assert stacked is not None
    assert set(stacked[3:]) == {None}
    assert (
        stack_prompts([None, DeepPrompt(torch.zeros(3, 2, 4, 0, 4))], torch.tensor([0, 1])) is None
    )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", range(6)), (2, range(4, 6)), (6, range(6)), ((1, 3), range(1, 3))],
)
def test_prompt_layers_select_layers(layers: object, expected: range) -> None:
    params = TrainParams(1.0, 0.1, prompt_layers=layers)  # type: ignore[arg-type]
    assert params.layers(6) == expected


@pytest.mark.parametrize("layers", [0, 7, -1, (3, 3), (4, 7), (2,), (-1, 2)])
def test_prompt_layers_outside_the_backbone_are_refused(layers: object) -> None:
    params = TrainParams(1.0, 0.1, prompt_layers=layers)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"but the backbone has layers 0 to 5; give all, the number of top layers"
    ):
        params.layers(6)


def test_unused_keys_lists_the_params_that_an_arm_ignores() -> None:
    keys = [
        "epochs",
        "num_virtual_tokens",
        "init",
        "projection_size",
        "prompt_dropout",
        "factor_rank",
        "hidden_state_cache_mb",
        "lora_rank",
    ]
    taken = {name: unused_keys(arm.params, keys) for name, arm in ARMS.items()}
    assert taken["multitask"] == ["factor_rank", "init", "num_virtual_tokens"]
    assert taken["deep_prompt"] == ["factor_rank", "lora_rank"]
    assert taken["soft_prompt"] == sorted({*keys} - {"epochs", "num_virtual_tokens"})
    assert taken["fine_tune"] == taken["head_only"] == sorted(keys[1:])
    assert taken["lora"] == sorted({*keys} - {"epochs", "lora_rank"})
    assert taken["random_backbone"] == taken["deep_prompt"]
    assert taken["untrained"] == sorted(keys)
    assert unused_keys(PRETRAIN_PARAMS, keys) == ["lora_rank"]
