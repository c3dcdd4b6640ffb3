"""A trained deep prompt on a model of transformers, for a training loop of one's own."""

from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.model.attention import ATTENTION, PromptArguments, call_with
from pipeline.model.backbone import Backbone
from pipeline.model.layers import checkpoint_layers
from pipeline.model.prompt import DeepPrompt, normal_key_values
from pipeline.pretrained.families import Family


class PromptedTransformer(nn.Module):
    """A model of transformers under a deep prompt; the prompt is all that is trained.

    `attach` makes it. `forward` has the arguments and results of `model`, which is frozen and stays
    in evaluation mode: dropout is off. `prompt.key_values` [L, 2, H, P, D] are the trained values.
    To train a part of the model too, such as a new classifier, call its `requires_grad_()`.

    `state_dict` has the trained values only, so checkpoints are small.
    """

    def __init__(self, model: Any, family: Family, prompt: DeepPrompt) -> None:
        super().__init__()
        self.model, self.prompt = model.requires_grad_(False).eval(), prompt
        self.family, self.config = family, model.config
        module: Any = self  # torch declares no types of these methods
        module.register_state_dict_post_hook(_keep_trained)
        module.register_load_state_dict_post_hook(_expect_trained)

    def train(self, mode: bool = True) -> "PromptedTransformer":
        """Set the mode of the prompt; the model stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        """Recompute each layer in the backward pass: less memory, about a third more time.

        It turns off the cache of keys and values, which a recomputed layer would extend again.
        """
        for module in self.model.modules():  # Encoder and decoder have configs of their own.
            if hasattr(getattr(module, "config", None), "use_cache"):
                module.config.use_cache = False
        checkpoint_layers(self.model.base_model, self.family)


def attach(
    model: Any,
    num_virtual_tokens: int = 32,
    *,
    input_ids: Tensor | None = None,
    seed: int = 0,
) -> PromptedTransformer:
    """A deep prompt of P = `num_virtual_tokens` tokens in all layers of a model of transformers.

    `model` is any class with a supported body (docs/backbones.md), such as
    AutoModelForTokenClassification. Its parameters are frozen, and its attention takes prompts from
    then on; without the prompt it computes what it did before. The prompt starts with the keys and
    values of the text `input_ids` [1, T], with T >= P, or with normal values of `seed` if
    `input_ids` is None.

    Raises UserError if P is not positive, if `model` is not of transformers, or if prompts do not
    work on it.
    """
    if num_virtual_tokens < 1:
        raise UserError(f"num_virtual_tokens is {num_virtual_tokens}; give a number above 0")
    if not hasattr(model, "base_model"):
        raise UserError(f"model is a {type(model).__name__}; give a model of transformers")
    body = model.base_model
    for module in body.modules():
        if hasattr(getattr(module, "config", None), "_attn_implementation"):
            module.config._attn_implementation = ATTENTION
    backbone = Backbone(body)
    if input_ids is None:
        key_values = normal_key_values(backbone.prompt_shape(num_virtual_tokens), seed)
    else:
        ones, zeros = torch.ones_like(input_ids), torch.zeros_like(input_ids)
        key_values = backbone.text_key_values(input_ids, ones, zeros, num_virtual_tokens)
    model_class: Any = type(model)
    return _class_for(model_class)(
        model, backbone.family, DeepPrompt(key_values.to(backbone.device))
    )


@cache
def _class_for(model_class: Any) -> type[PromptedTransformer]:
    """The subclass whose `forward` has the signature of a model's, which Trainer reads."""

    @wraps(model_class.forward)
    def forward(self: PromptedTransformer, *args: Any, **inputs: Any) -> Any:
        return call_with(PromptArguments(self.prompt()), self.model, *args, **inputs)

    name, body = f"Prompted{model_class.__name__}", {"forward": forward}
    return type(name, (PromptedTransformer,), body)


def _keep_trained(module: nn.Module, state: dict[str, Any], prefix: str, _: dict[str, Any]) -> None:
    """Remove the frozen values from a state dict of `module`."""
    trained = {f"{prefix}{name}" for name, p in module.named_parameters() if p.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]


def _expect_trained(module: nn.Module, keys: Any) -> None:
    """Do not count the frozen values as missing in a state dict that is loaded."""
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    keys.missing_keys[:] = [
        key for key in keys.missing_keys if any(key.endswith(name) for name in trained)
    ]
