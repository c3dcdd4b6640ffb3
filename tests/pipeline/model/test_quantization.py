"""Frozen weights in int8: less memory, nearly the same gradients, and refusals by name."""

import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.quantization import GRADIENT_BOUND
from pipeline.params import TrainParams
from tests.support import tiny

pytest.importorskip("torchao", reason="torchao is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def weight_bytes(model: torch.nn.Module) -> int:
    tensors = chain(model.parameters(), model.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with quiet_transformers():
        tiny.model("bert").save_pretrained(tmp_path)
    return tmp_path


def prompt_gradient(backbone: Backbone) -> torch.Tensor:
    prompt, inputs = tiny.prompt_for("deep", backbone), tiny.texts([9, 4, 7])
    hidden = backbone(*inputs, prompt()) * inputs[1][..., None]
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((hidden * direction).sum(), prompt.key_values)[0]


def test_gradients_are_within_the_bound_of_those_in_float32(folder: Path) -> None:
    exact, quantized = Backbone.load(folder), Backbone.load(folder, precision="int8")
    check = quantized.checks[-1]
    assert check.name == "prompt gradients in float32"
    assert check.passed
    assert check.difference > 0
    expected = prompt_gradient(exact)
    change = (prompt_gradient(quantized) - expected).norm() / expected.norm()
    assert 0 < float(change) < GRADIENT_BOUND


def test_the_real_minilm_takes_less_memory(minilm_folder: Path, minilm: Backbone) -> None:
    """Its linear modules, 10.6 of 22.6 million weights, take a quarter of the memory."""
    quantized = Backbone.load(minilm_folder, precision="int8")
    assert weight_bytes(minilm.model) >= 4 * minilm.num_parameters
    assert weight_bytes(quantized.model) < 0.66 * weight_bytes(minilm.model)
    assert quantized.checks[-1].difference < 0.06
    inputs = tiny.texts([9, 4])
    exact, hidden = minilm(*inputs)[inputs[1].bool()], quantized(*inputs)[inputs[1].bool()]
    assert hidden.dtype == torch.float32
    assert float((hidden - exact).norm() / exact.norm()) < 0.05


def test_a_prompt_trains_on_int8_weights(folder: Path) -> None:
    backbone = Backbone.load(folder, precision="int8")
    heads = Heads(["classes"], [3], backbone.hidden_size, 0)
    model = PromptedModel(backbone, tiny.prompt_for("deep", backbone), heads, False)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    prompt, inputs = model.prompt, tiny.texts([9, 4, 7])
    assert prompt is not None
    optimizer, target = torch.optim.Adam(prompt.parameters(), 0.05), torch.randn(3, 16)
    losses = []
    for _ in range(5):
        loss = (backbone(*inputs, prompt())[:, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)


def test_gradient_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    backbone = Backbone.load(folder, precision="int8")
    expected = prompt_gradient(backbone)
    backbone.checkpoint_layers()
    torch.testing.assert_close(prompt_gradient(backbone), expected)


def test_a_large_change_of_the_gradient_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.model.quantization.GRADIENT_BOUND", 1e-6)
    with pytest.raises(UserError, match=r"changes the gradient of a prompt .* more than 1e-06"):
        Backbone.load(folder, precision="int8")


def test_a_model_without_linear_modules_is_refused(tmp_path: Path) -> None:
    with quiet_transformers():
        tiny.model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="the backbone has no linear modules"):
        Backbone.load(tmp_path, precision="int8")


def test_int4_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UserError, match=r"precision is int4, but torchao packs int4 .*; use int8"):
        Backbone.load(folder, precision="int4")


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError, match=r"run pip install 'deep-prompt\[int8\]'"):
        Backbone.load(folder, precision="int8")


def test_trained_weights_in_int8_are_refused() -> None:
    with pytest.raises(ValueError, match="precision is int8, but only frozen weights can be int8"):
        TrainParams(epochs=1, head_lr=0.1, backbone_lr=0.1, precision="int8")
    with pytest.raises(ValueError, match="without LoRA factors on them; use float32 or bfloat16"):
        TrainParams(epochs=1, head_lr=0.1, lora_lr=0.1, precision="int8")
