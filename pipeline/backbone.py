"""A pretrained transformer, frozen or not, that takes a prompt. The only module that knows model families.

Deep prompts enter through transformers' attention interface: an attention function registered under `ATTENTION` puts the
layer's prompt keys and values in front of its own, widens the mask, and calls SDPA. No module is replaced, no position is
shifted, gradient checkpointing and `torch.compile` see an ordinary model.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging as _logging

from pipeline.errors import UserError
from pipeline.prompt import DeepPrompt, SoftPrompt

ATTENTION = "deep_prompt"

# Families whose attention goes through the interface with a `layer_idx`, and for the soft prompt the position of the first
# token (None: rotary, which is relative, so that the order alone counts).
FIRST_POSITION: dict[str, int | None] = {
    "bert": 0, "electra": 0, "ernie": 0, "roberta": 2, "xlm-roberta": 2, "camembert": 2,
    "modernbert": None, "llama": None, "qwen2": None, "qwen3": None, "mistral": None,
}


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
            deep_prompt: Tensor | None = None, recorded: dict[int, Tensor] | None = None, **kwargs: Any) -> tuple[Tensor, None]:
    """SDPA with this layer's prompt in front.

    `query` [B, heads, T, D], `key` and `value` [B, H, T, D], `deep_prompt` [L, 2, H, P, D].
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    if recorded is not None:
        recorded[layer] = torch.stack([key, value])
    if deep_prompt is not None:
        prompt = deep_prompt[layer].unsqueeze(1).expand(-1, key.shape[0], -1, -1, -1)
        key, value = torch.cat([prompt[0], key], dim=2), torch.cat([prompt[1], value], dim=2)
        if attention_mask is not None:
            assert attention_mask.dtype == torch.bool, "the mask registered with this attention is boolean"
            attention_mask = nn.functional.pad(attention_mask, (prompt.shape[3], 0), value=True)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _mask(*args: Any, **kwargs: Any) -> Any:
    # A causal mask must be built even where SDPA could do without: `is_causal` would cut the prompt's columns off the keys.
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, _mask)


class Backbone(nn.Module):
    """Hidden states of a pretrained model. Dropout is off, trained or not; weights are float32 unless loaded otherwise."""

    def __init__(self, model: Any) -> None:
        """`model` must have been made with `attn_implementation=ATTENTION`. Raises UserError where prompts cannot work on it."""
        super().__init__()
        self.model = model.eval()
        self.config: Any = model.config
        if self.config.model_type not in FIRST_POSITION:
            raise UserError(f"backbone: deep prompts are not known to work on {self.config.model_type!r} models; "
                            f"use one of {', '.join(sorted(FIRST_POSITION))}")
        self.hidden_size = int(self.config.hidden_size)
        self.num_layers = int(self.config.num_hidden_layers)
        self.token_types = int(getattr(self.config, "type_vocab_size", 0) or 0)
        self._check_prompts_work()

    @classmethod
    def load(cls, folder: Path) -> "Backbone":
        """From a folder of save_pretrained; no network, no code from the folder. Raises UserError: unreadable, unsupported."""
        with _quiet_transformers():
            try:
                model = AutoModel.from_pretrained(folder, attn_implementation=ATTENTION, local_files_only=True,
                                                  use_safetensors=True, dtype=torch.float32)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{folder}: no backbone can be read there: {str(error).splitlines()[0]}") from error
        model.pooler = None  # never read; as a parameter without a gradient it would break ranks apart
        return cls(model)

    def train(self, mode: bool = True) -> "Backbone":
        """Keep dropout off whatever the mode."""
        return super().train(False)

    @property
    def num_parameters(self) -> int:
        """Numbers in the backbone."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor,
                prompt: DeepPrompt | SoftPrompt | None = None) -> Tensor:
        """Hidden states [B, T, C] of `input_ids`, `attention_mask`, `token_types` [B, T] under a prompt."""
        extra: dict[str, Any] = {"token_type_ids": token_types} if self.token_types > 1 else {}
        if isinstance(prompt, SoftPrompt):
            return self._with_soft_prompt(prompt.vectors, input_ids, attention_mask, extra)
        if prompt is not None:
            extra["deep_prompt"] = prompt.key_values
        return self._hidden(input_ids=input_ids, attention_mask=attention_mask, **extra)

    def prompt_shape(self, count: int) -> tuple[int, ...]:
        """[L, 2, H, P, D] of a deep prompt of `count` virtual tokens."""
        return (self.num_layers, 2, self._key_value_shape[0], count, self._key_value_shape[1])

    def text_key_values(self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, count: int) -> Tensor:
        """Keys and values [L, 2, H, count, D] that the plain model gives the first `count` real tokens of some text [B, T].

        Raises UserError if the text is shorter.
        """
        recorded: dict[int, Tensor] = {}
        extra = {"token_type_ids": token_types} if self.token_types > 1 else {}
        with torch.no_grad():
            self._hidden(input_ids=input_ids, attention_mask=attention_mask, recorded=recorded, **extra)
        real = attention_mask.bool()
        if int(real.sum()) < count:
            raise UserError(f"prompt: num_virtual_tokens is {count}, but the text to start from has {int(real.sum())} tokens; "
                            "make it smaller, or use init: normal")
        layers = [recorded[layer].transpose(2, 3)[:, real][:, :count].transpose(1, 2) for layer in range(self.num_layers)]
        return torch.stack(layers)

    def text_embeddings(self, input_ids: Tensor, attention_mask: Tensor, count: int) -> Tensor:
        """Input embeddings [count, C] of the first `count` real tokens of some text [B, T]."""
        embedded: Tensor = self.model.get_input_embeddings()(input_ids[attention_mask.bool()][:count])
        return embedded.detach()

    def _hidden(self, **inputs: Any) -> Tensor:
        hidden: Tensor = self.model(use_cache=False, **inputs).last_hidden_state
        return hidden

    def _with_soft_prompt(self, vectors: Tensor, input_ids: Tensor, attention_mask: Tensor, extra: dict[str, Any]) -> Tensor:
        batch, length = input_ids.shape
        count = vectors.shape[0]
        embedded = self.model.get_input_embeddings()(input_ids)
        inputs = torch.cat([vectors.expand(batch, -1, -1).to(embedded.dtype), embedded], dim=1)
        first = FIRST_POSITION[self.config.model_type]
        if first is not None:  # the text keeps its positions; all virtual tokens share the first
            positions = torch.cat([torch.zeros(count, dtype=torch.long), torch.arange(length)]).to(input_ids.device) + first
            extra["position_ids"] = positions.expand(batch, -1)
        if "token_type_ids" in extra:
            extra["token_type_ids"] = nn.functional.pad(extra["token_type_ids"], (count, 0))
        mask = nn.functional.pad(attention_mask, (count, 0), value=1)
        return self._hidden(inputs_embeds=inputs, attention_mask=mask, **extra)[:, count:]

    def _check_prompts_work(self) -> None:
        """Attach guards: a model may accept the attention's name and the prompt, and ignore both."""
        ids = torch.arange(3).view(1, 3) + 1
        mask, types = torch.ones_like(ids), torch.zeros_like(ids)
        recorded: dict[int, Tensor] = {}
        with torch.no_grad():
            plain = self._hidden(input_ids=ids, attention_mask=mask, recorded=recorded)
        family = self.config.model_type
        if sorted(recorded) != list(range(self.num_layers)):
            raise UserError(f"backbone: a deep prompt reaches layers {sorted(recorded)} of this {family!r} model, not all "
                            f"{self.num_layers}; its attention does not go through the interface")
        # Of the first token alone: where all keys come twice, attention is what it was.
        prompt = DeepPrompt(torch.stack([recorded[layer][:, 0, :, :1] for layer in range(self.num_layers)]))
        self._key_value_shape = (recorded[0].shape[2], recorded[0].shape[4])
        hidden = self.forward(ids, mask, types, prompt)
        # One channel: a norm at the end makes the sum, and the sum of squares, of all channels constant.
        (gradient,) = torch.autograd.grad(hidden[..., 0].sum(), prompt.key_values)
        dead = [layer for layer in range(self.num_layers) if not bool(gradient[layer].abs().sum() > 0)]
        if dead or torch.equal(hidden, plain):
            raise UserError(f"backbone: a deep prompt has no effect in layers {dead} of this {family!r} model; "
                            "it cannot be trained")


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No weight-loading bar and no report of unused pooler weights on a user's terminal."""
    logs: Any = _logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
