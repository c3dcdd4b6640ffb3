"""Scales and shifts of a prompt: folded into the weights of a copy, they must give the same."""

import copy
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pipeline.artifacts.artifact import load_prompt, save_artifact
from pipeline.artifacts.config import ArtifactConfig
from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.layers import layers_of
from pipeline.model.prompt import DeepPrompt, PromptBank, stack_prompts
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.quantization import Int8Linear
from pipeline.model.scale_shift import by_module, new_scale_shift
from pipeline.params import BackboneParams
from pipeline.pretrained.families import FAMILIES
from tests.support import tiny

WITH_OWN_LAYERS = sorted(set(FAMILIES) - {"albert"})
PARAMS = BackboneParams("folder:model", "0" * 64)


def prompt_for(
    backbone: Backbone, seed: int = 1, layers: range | None = None, shift: bool = True
) -> DeepPrompt:
    layers = layers or range(backbone.num_layers)
    generator = torch.Generator().manual_seed(seed)
    values = new_scale_shift(backbone.scaled_modules(), layers)
    values.copy_(torch.randn(values.shape, generator=generator) * 0.3)
    values[:, 1] *= shift
    key_values = torch.randn(backbone.prompt_shape(3), generator=generator)
    return DeepPrompt(
        key_values[layers.start : layers.stop], first_layer=layers.start, scale_shift=values
    )


def folded(backbone: Backbone, prompt: DeepPrompt) -> Backbone:
    """A copy of the backbone with the scales and shifts in its weights."""
    result = copy.deepcopy(backbone)
    values = prompt.scale_shift()
    assert values is not None
    layers = dict(enumerate(layers_of(result.model, result.family)))
    for name, (scale, shift) in by_module(
        values.detach(), backbone.scaled_modules(), prompt.first_layer
    ).items():
        layer, module_name = name.split(".", 1)
        module = layers[int(layer)].get_submodule(module_name)
        transposed = type(module).__name__ == "Conv1D"  # GPT-2
        for kind, parameter in module.named_parameters(recurse=False):
            with torch.no_grad():
                factor = 1 + scale
                is_matrix = parameter.dim() == 2 and not transposed
                origin = -1.0 if type(module).__name__ == "Gemma2RMSNorm" else 0.0
                parameter.sub_(origin).mul_(factor[:, None] if is_matrix else factor).add_(origin)
                if kind == "bias":
                    parameter.add_(shift)
        assert not shift.any() or module.bias is not None
    return result


def run(backbone: Backbone, prompt: DeepPrompt, inputs: tuple[Tensor, ...]) -> Tensor:
    return backbone(*inputs, prompt())[inputs[1].bool()]


@pytest.mark.parametrize("family", WITH_OWN_LAYERS)
def test_they_equal_a_change_of_the_weights(family: str) -> None:
    backbone = tiny.backbone(family)
    has_biases = all(
        hasattr(layer.get_submodule(name), "bias") and layer.get_submodule(name).bias is not None
        for layer, sizes in zip(
            layers_of(backbone.model, backbone.family), backbone.scaled_modules(), strict=True
        )
        for name in sizes
    )
    inputs = tiny.texts([7, 4], pad_token_id=backbone.config.pad_token_id or 0)
    for layers in (range(backbone.num_layers), range(1, backbone.num_layers)):
        prompt = prompt_for(backbone, layers=layers, shift=has_biases)
        without = DeepPrompt(prompt.key_values.detach(), first_layer=layers.start)
        expected = run(folded(backbone, prompt), without, inputs)
        torch.testing.assert_close(run(backbone, prompt, inputs), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(run(backbone, without, inputs), expected, atol=1e-2)


@pytest.mark.parametrize("family", WITH_OWN_LAYERS)
def test_rows_of_a_batch_have_those_of_their_prompts(family: str) -> None:
    backbone = tiny.backbone(family)
    upper = range(1, backbone.num_layers)
    prompts = [
        prompt_for(backbone),
        None,
        tiny.prompt_for("deep", backbone),
        prompt_for(backbone, seed=2, layers=upper),
    ]
    index = torch.tensor([3, 0, 1, 2, 0])
    lengths = [7, 2, 5, 6, 4]
    inputs = tiny.texts(lengths, pad_token_id=backbone.config.pad_token_id or 0)
    mixed = backbone(*inputs, stack_prompts(prompts, index))
    bank = PromptBank(prompts)(index)
    torch.testing.assert_close(backbone(*inputs, bank), mixed)
    for row, (chosen, length) in enumerate(zip(index.tolist(), lengths, strict=True)):
        prompt = prompts[chosen]
        alone = backbone(*(x[row : row + 1, :length] for x in inputs), prompt and prompt())
        torch.testing.assert_close(mixed[row, :length], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", WITH_OWN_LAYERS)
def test_all_of_them_are_trained(family: str) -> None:
    backbone = tiny.backbone(family).requires_grad_(False)
    scaled = backbone.scaled_modules()
    prompt = DeepPrompt(
        torch.randn(backbone.prompt_shape(3)),
        scale_shift=new_scale_shift(scaled, range(backbone.num_layers)),
    )
    inputs = tiny.texts([5])
    plain = backbone(*inputs, DeepPrompt(prompt.key_values.detach())())
    hidden = backbone(*inputs, prompt())
    torch.testing.assert_close(hidden, plain, msg="they have no effect at the start")
    assert prompt.scale_shift_units is not None
    (gradient,) = torch.autograd.grad(hidden.pow(3).sum(), prompt.scale_shift_units)
    for name, (scale, shift) in by_module(gradient, scaled, 0).items():
        assert scale.any(), name
        assert shift.any(), name


def test_gradient_checkpointing_and_threads() -> None:
    backbone = tiny.backbone().requires_grad_(False)
    prompts = [prompt_for(backbone, seed) for seed in range(4)]
    inputs = tiny.texts([7, 4])

    def gradient(prompt: DeepPrompt) -> Tensor:
        units = prompt.scale_shift_units
        assert units is not None
        return torch.autograd.grad(run(backbone, prompt, inputs).square().sum(), units)[0]

    expected = [gradient(prompt) for prompt in prompts]
    backbone.checkpoint_layers()
    actual: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i: actual.update({i: gradient(prompts[i])}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, value in enumerate(expected):
        torch.testing.assert_close(actual[index], value)


def test_shared_layers_are_refused() -> None:
    with pytest.raises(UserError, match=r"'albert' model share .* set scale_shift: false"):
        tiny.backbone("albert").scaled_modules()


def test_linear_modules_in_int8_have_the_same_as_in_float32() -> None:
    backbone, expected = tiny.backbone(), tiny.backbone().scaled_modules()
    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            scale = module.weight.abs().amax(1, keepdim=True) / 127
            weight = SimpleNamespace(qdata=(module.weight / scale).round().char(), scale=scale)
            backbone.model.set_submodule(name, Int8Linear(weight, module.bias))
    assert backbone.scaled_modules() == expected


def test_an_artifact_has_them_by_name_of_the_module(tmp_path: Path) -> None:
    backbone = tiny.backbone()
    prompt = prompt_for(backbone, layers=range(1, backbone.num_layers))
    model = PromptedModel(backbone, prompt, Heads(["classes"], [2], 16, 0), train_backbone=False)
    config = ArtifactConfig(
        arm="deep_prompt",
        backbone=PARAMS,
        model_type="bert",
        hidden_size=16,
        heads={},
        prompt_shape=prompt.shape,
        first_layer=1,
        scale_shift=True,
    )
    save_artifact(tmp_path / "artifact", model, config)
    loaded = load_prompt(tmp_path / "artifact", config, PARAMS, tiny.backbone())
    assert isinstance(loaded, DeepPrompt)
    values, expected = loaded.scale_shift(), prompt.scale_shift()
    assert values is not None
    assert expected is not None
    assert torch.equal(values, expected)
    (tmp_path / "artifact" / "scale_shift.safetensors").write_bytes(
        (tmp_path / "artifact" / "prompt.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match=r"scale_shift\.safetensors: does not fit the backbone"):
        load_prompt(tmp_path / "artifact", config, PARAMS, tiny.backbone())
