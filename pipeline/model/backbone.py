"""A pretrained transformer, frozen or not, that takes a prompt: hidden states in, hidden states out."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.utils import logging as _logging

from pipeline.errors import UserError
from pipeline.model.attention import (
    ATTENTION,
    PromptAttention,
    Recorded,
    checkpoint_layers,
    install,
    layers_of,
    run_only_layers,
)
from pipeline.model.prompt import LayerPrompts, SoftPrompt
from pipeline.params import Precision
from pipeline.pretrained.families import family_of


class Backbone(nn.Module):
    """Hidden states of a pretrained model. Dropout is off, trained or not; weights are float32 unless loaded otherwise."""

    def __init__(self, model: Any, lm_head: nn.Module | None = None) -> None:
        """`model` must have been made with `attn_implementation=ATTENTION`. Raises UserError where prompts cannot work on it.

        `lm_head` is for verbalizers: a model with language modeling head that takes hidden states for its `inputs_embeds`.
        """
        super().__init__()
        self.config: Any = model.config
        self.family = family_of(self.config.model_type)
        if self.config._attn_implementation != ATTENTION:
            raise UserError(
                f"backbone: its attention is {self.config._attn_implementation!r}, which ignores prompts; "
                f"load it with attn_implementation={ATTENTION!r}"
            )
        self.model = model.eval()
        self.lm_head = lm_head
        self.hidden_size = int(self.config.hidden_size)
        self.token_types = int(getattr(self.config, "type_vocab_size", 0) or 0)
        self._context = install(self.model, self.family)
        self._check_prompts_work()

    @classmethod
    def load(
        cls, folder: Path, lm_head: bool = False, precision: Precision = "float32"
    ) -> "Backbone":
        """From a folder of save_pretrained; no network, no code from the folder. Raises UserError: unreadable, unsupported.

        With `lm_head` also the language modeling head, which must be among the weights.
        """
        with quiet_transformers():
            try:
                family = family_of(
                    AutoConfig.from_pretrained(folder, local_files_only=True).model_type
                )
                auto: Any = (
                    AutoModel
                    if not lm_head
                    else AutoModelForCausalLM
                    if family.causal
                    else AutoModelForMaskedLM
                )
                model, found = auto.from_pretrained(
                    folder,
                    attn_implementation=ATTENTION,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=getattr(torch, precision),
                    output_loading_info=True,
                )
            except (OSError, ValueError, KeyError) as error:
                raise UserError(
                    f"{folder}: no backbone can be read there: {str(error).splitlines()[0]}"
                ) from error
        body, head = _split_lm_head(model) if lm_head else (model, None)
        body.pooler = (
            None  # never read; as a parameter without a gradient it would break ranks apart
        )
        missing = [name for name in found["missing_keys"] if not name.startswith("pooler.")]
        if missing:
            what = (
                "a language modeling head, which a verbalizer needs"
                if lm_head
                else "all of a backbone"
            )
            raise UserError(
                f"{folder}: its weights are not {what}: {', '.join(sorted(missing)[:3])} are missing; use others"
            )
        return cls(body, head)

    def train(self, mode: bool = True) -> "Backbone":
        """Keep dropout off whatever the mode."""
        return super().train(False)

    @property
    def num_parameters(self) -> int:
        """Numbers in the backbone."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def embedding_size(self) -> int:
        """E, the size of the input embeddings; mostly C."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def positions(self) -> int:
        """How many tokens of text it has positions for."""
        return int(self.config.max_position_embeddings) - self.family.first_position

    def checkpoint_layers(self) -> None:
        """From now on compute each layer again in the backward pass: less memory, about a third more time, the same gradients."""
        checkpoint_layers(self.model, self.family, self._context)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_types: Tensor,
        prompt: LayerPrompts | SoftPrompt | None = None,
        prompt_attention: PromptAttention | None = None,
        cached_hidden: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, T, C] of `input_ids`, `attention_mask`, `token_types` [B, T] under a prompt, or one for each row.

        Into `prompt_attention`, where it is given, goes what each layer's attention gives to a deep prompt. Where what `self.lower_hidden_states` gives
        is given, the layers cached_hidden a deep prompt are not computed again.
        """
        if isinstance(prompt, SoftPrompt):
            return self._with_soft_prompt(
                prompt(), input_ids, attention_mask, self._extra(input_ids, token_types)
            )
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            **self._extra(input_ids, token_types, prompt),
        }
        if cached_hidden is not None:
            assert prompt is not None
            with run_only_layers(
                self.model, self.family, range(prompt.first_layer, self.num_layers), cached_hidden
            ):
                return self._hidden(prompt, prompt_attention=prompt_attention, **inputs)
        if prompt is not None and prompt.key_values.shape[4] == 0:
            prompt = None
        return self._hidden(prompt, prompt_attention=prompt_attention, **inputs)

    def lower_hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, prompt: LayerPrompts
    ) -> Tensor:
        """Hidden states [B, T, C] that the first layer with a prompt gets from those cached_hidden it: no prompt changes them."""
        with (
            torch.no_grad(),
            run_only_layers(self.model, self.family, range(prompt.first_layer)) as reached,
        ):
            self._hidden(
                input_ids=input_ids,
                attention_mask=attention_mask,
                **self._extra(input_ids, token_types, prompt),
            )
        return reached[0]

    def supports_lower_cache(self, prompt: LayerPrompts) -> bool:
        """Whether a forward from what `lower_hidden_states` gives, with zeros where it pads, is the plain one."""
        ids, mask = torch.arange(6).view(2, 3) + 1, torch.tensor([[1, 1, 1], [1, 1, 0]])
        inputs, real = (ids, mask, torch.zeros_like(ids)), mask.bool()
        if len(list(layers_of(self.model, self.family))) != self.num_layers:
            return False
        with torch.no_grad():
            plain = self(*inputs, prompt)[real]
            found = self(
                *inputs,
                prompt,
                cached_hidden=self.lower_hidden_states(*inputs, prompt) * mask.unsqueeze(-1),
            )[real]
        return torch.allclose(found, plain, rtol=0.0, atol=0.01 * float(plain.abs().max()))

    def word_logits(self, hidden: Tensor, label_token_ids: Sequence[int]) -> Tensor:
        """What the LM head gives to some words of the vocabulary [B, N, words], from hidden states [B, N, C]."""
        assert self.lm_head is not None, "load the backbone with its LM head"
        logits: Tensor = self.lm_head(inputs_embeds=hidden).logits
        return logits[..., list(label_token_ids)].float()

    def prompt_shape(self, count: int) -> tuple[int, ...]:
        """[L, 2, H, P, D] of a deep prompt of `count` virtual tokens in all layers."""
        return (self.num_layers, 2, self._key_value_shape[0], count, self._key_value_shape[1])

    def text_key_values(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, count: int
    ) -> Tensor:
        """Keys and values [L, 2, H, count, D] that the plain model gives the first `count` real tokens of some text [B, T].

        Raises UserError if the text is shorter.
        """
        recorded: Recorded = {}
        with torch.no_grad():
            self._hidden(
                None,
                recorded,
                input_ids=input_ids,
                attention_mask=attention_mask,
                **self._extra(input_ids, token_types),
            )
        real = attention_mask.bool()
        if int(real.sum()) < count:
            raise UserError(
                f"prompt: num_virtual_tokens is {count}, but the text to start from has {int(real.sum())} tokens; "
                "make it smaller, or use init: normal"
            )
        layers = [
            recorded[layer].transpose(2, 3)[:, real][:, :count].transpose(1, 2)
            for layer in range(self.num_layers)
        ]
        return torch.stack(layers).float()

    def text_embeddings(self, input_ids: Tensor, attention_mask: Tensor, count: int) -> Tensor:
        """Input embeddings [count, E] of the first `count` real tokens of some text [B, T]."""
        embedded: Tensor = self.model.get_input_embeddings()(
            input_ids[attention_mask.bool()][:count]
        )
        return embedded.detach().float()

    def _extra(
        self, input_ids: Tensor, token_types: Tensor, prompt: LayerPrompts | None = None
    ) -> dict[str, Any]:
        """What the model takes besides ids and mask: token types where it knows them, positions where a prompt shifts them."""
        extra = {"token_type_ids": token_types} if self.token_types > 1 else {}
        if prompt is not None and prompt.position_offsets is not None:
            offsets = (
                prompt.position_offsets
                if prompt.prompt_index is None
                else prompt.position_offsets[prompt.prompt_index]
            )
            positions = (
                torch.arange(input_ids.shape[1], device=input_ids.device)
                + self.family.first_position
            )
            extra["position_ids"] = (positions + offsets[:, None]).expand(input_ids.shape)
        return extra

    def _hidden(
        self,
        prompt: LayerPrompts | None = None,
        recorded: Recorded | None = None,
        prompt_attention: PromptAttention | None = None,
        **inputs: Any,
    ) -> Tensor:
        if self._context is None:
            given = {
                "deep_prompt": prompt,
                "recorded": recorded,
                "prompt_attention": prompt_attention,
            }
            inputs |= {name: value for name, value in given.items() if value is not None}
        else:
            self._context.deep_prompt, self._context.recorded, self._context.prompt_attention = (
                prompt,
                recorded,
                prompt_attention,
            )
        cache = {"use_cache": False} if self.family.causal else {}
        hidden: Tensor = self.model(**cache, **inputs).last_hidden_state
        return hidden

    def _with_soft_prompt(
        self, vectors: Tensor, input_ids: Tensor, attention_mask: Tensor, extra: dict[str, Any]
    ) -> Tensor:
        batch, length = input_ids.shape
        count = vectors.shape[0]
        embedded = self.model.get_input_embeddings()(input_ids)
        inputs = torch.cat([vectors.expand(batch, -1, -1).to(embedded.dtype), embedded], dim=1)
        if (
            self.family.positions == "absolute"
        ):  # the text keeps its positions; all virtual tokens share the first
            positions = torch.cat([torch.zeros(count, dtype=torch.long), torch.arange(length)]).to(
                input_ids.device
            )
            extra["position_ids"] = (positions + self.family.first_position).expand(batch, -1)
        if "token_type_ids" in extra:
            extra["token_type_ids"] = nn.functional.pad(extra["token_type_ids"], (count, 0))
        mask = nn.functional.pad(attention_mask, (count, 0), value=1)
        return self._hidden(inputs_embeds=inputs, attention_mask=mask, **extra)[:, count:]

    def _check_prompts_work(self) -> None:
        """Attach guards: a model may accept the attention's name and the prompt, and ignore both."""
        ids = torch.arange(3).view(1, 3) + 1
        mask = torch.ones_like(ids)
        recorded: Recorded = {}
        with torch.no_grad():
            plain = self._hidden(None, recorded, input_ids=ids, attention_mask=mask)
        family = self.config.model_type
        self.num_layers = int(self.config.num_hidden_layers) * int(
            getattr(self.config, "inner_group_num", 1)
        )
        if sorted(recorded) != list(range(self.num_layers)):
            raise UserError(
                f"backbone: a deep prompt reaches layers {sorted(recorded)} of this {family!r} model, not all "
                f"{self.num_layers}; its attention does not go through the interface"
            )
        # Of the first token alone: where all keys come twice, attention is what it was.
        key_values = torch.stack(
            [recorded[layer][:, 0, :, :1] for layer in range(self.num_layers)]
        ).requires_grad_()
        self._key_value_shape = (recorded[0].shape[2], recorded[0].shape[4])
        hidden = self._hidden(LayerPrompts(key_values[None]), input_ids=ids, attention_mask=mask)
        # One channel: a norm at the end makes the sum, and the sum of squares, of all channels constant.
        (gradient,) = torch.autograd.grad(hidden[..., 0].sum(), key_values, allow_unused=True)
        dead = [
            layer
            for layer in range(self.num_layers)
            if gradient is None or not bool(gradient[layer].abs().sum() > 0)
        ]
        if dead or torch.equal(hidden, plain):
            raise UserError(
                f"backbone: a deep prompt has no effect in layers {dead} of this {family!r} model; "
                "it cannot be trained"
            )


class _IdentityBody(nn.Module):
    """In place of a model's body: its hidden states are what it is given."""

    def forward(
        self, *_: Any, inputs_embeds: Tensor, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def _split_lm_head(model: Any) -> tuple[Any, nn.Module]:
    """A language model's body, and what is left of it: its head, the same way for every family."""
    body = model.base_model
    setattr(model, model.base_model_prefix, _IdentityBody())
    return body, model


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
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
