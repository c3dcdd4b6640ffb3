"""A pretrained transformer, frozen or trained, that takes a prompt and returns hidden states."""

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
    RecordedKeyValues,
    checkpoint_layers,
    install,
    layers_of,
    run_only_layers,
)
from pipeline.model.prompt import LayerPrompts, SoftPrompt
from pipeline.params import Precision
from pipeline.pretrained.families import family_of
from pipeline.pretrained.location import backbone_files


class Backbone(nn.Module):
    """Hidden states of a pretrained model, under a prompt or without.

    Dropout is always off, also when the backbone is trained. Weights are float32 by default.
    `files` has the hashes of the config and the tokenizer files (see `backbone_files`); it is empty
    if the model does not come from a folder.
    """

    def __init__(self, model: Any, lm_head: nn.Module | None = None) -> None:
        """Install the prompt attention in `model` and check that prompts have an effect.

        Load `model` with `attn_implementation=ATTENTION`. Verbalizers need `lm_head`: a module that
        takes hidden states as `inputs_embeds` and returns the logits of the vocabulary. Raises
        UserError if prompts do not work on `model`.
        """
        super().__init__()
        self.config: Any = model.config
        self.family = family_of(self.config.model_type)
        if self.config._attn_implementation != ATTENTION:
            raise UserError(
                f"backbone: its attention is {self.config._attn_implementation!r}, which ignores "
                f"prompts; load it with attn_implementation={ATTENTION!r}"
            )
        self.model = model.eval()
        self.lm_head = lm_head
        self.files: dict[str, str] = {}
        self.hidden_size = int(self.config.hidden_size)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.token_types = int(getattr(self.config, "type_vocab_size", 0) or 0)
        self._context = install(self.model, self.family)
        self._check_prompts_work()

    @classmethod
    def load(
        cls, folder: Path, lm_head: bool = False, precision: Precision = "float32"
    ) -> "Backbone":
        """Load a folder that `save_pretrained` wrote; no network access, no code from the folder.

        With `lm_head`, the folder must contain the weights of the language modeling head too.
        Raises UserError if the folder is unreadable or incomplete, or its model type unsupported.
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
                model, loading_info = auto.from_pretrained(
                    folder,
                    attn_implementation=ATTENTION,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=getattr(torch, precision),
                    output_loading_info=True,
                )
            except (OSError, ValueError, KeyError) as error:
                raise UserError(
                    f"{folder}: cannot load a backbone: {str(error).splitlines()[0]}; "
                    "give a folder that save_pretrained wrote, with safetensors"
                ) from error
        body, head = _split_lm_head(model) if lm_head else (model, None)
        # The pooler is unused. Its parameters would get no gradient, and ranks would diverge.
        body.pooler = None
        missing = [name for name in loading_info["missing_keys"] if not name.startswith("pooler.")]
        if missing:
            contents = (
                "a language modeling head, which a verbalizer needs"
                if lm_head
                else "a complete backbone"
            )
            raise UserError(
                f"{folder}: does not contain {contents}: {', '.join(sorted(missing)[:3])} missing; "
                "use other weights"
            )
        backbone = cls(body, head)
        backbone.files = backbone_files(folder)
        return backbone

    def train(self, mode: bool = True) -> "Backbone":
        """Ignore `mode`: dropout stays off."""
        return super().train(False)

    @property
    def embedding_size(self) -> int:
        """E, the size of the input embeddings; equal to C in most families."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def max_positions(self) -> int:
        """Maximum number of tokens of a text."""
        return int(self.config.max_position_embeddings) - self.family.first_position

    def checkpoint_layers(self) -> None:
        """Turn on gradient checkpointing: less memory, about a third more time, equal gradients."""
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
        """Hidden states [B, T, C] of the text, under a prompt or without.

        `input_ids`, `attention_mask` and `token_types` are [B, T]. `prompt` holds one prompt for
        all rows, or one per row. `prompt_attention` collects the attention to a deep prompt, layer
        by layer. `cached_hidden` [B, T, C] is the result of `lower_hidden_states`; with it, the
        layers below a deep prompt are not computed again.
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
        """Hidden states [B, T, C] at the input of the first layer with a prompt.

        They do not depend on the prompt, only on the text and the position offset.
        """
        with (
            torch.no_grad(),
            run_only_layers(self.model, self.family, range(prompt.first_layer)) as skipped_inputs,
        ):
            self._hidden(
                input_ids=input_ids,
                attention_mask=attention_mask,
                **self._extra(input_ids, token_types, prompt),
            )
        return skipped_inputs[0]

    def supports_lower_cache(self, prompt: LayerPrompts) -> bool:
        """Whether a forward pass from cached lower hidden states equals the plain forward pass.

        The check sets the cached states to zero at padding.
        """
        ids, mask = torch.arange(6).view(2, 3) + 1, torch.tensor([[1, 1, 1], [1, 1, 0]])
        inputs, real = (ids, mask, torch.zeros_like(ids)), mask.bool()
        if len(list(layers_of(self.model, self.family))) != self.num_layers:
            return False
        with torch.no_grad():
            plain = self(*inputs, prompt)[real]
            from_cache = self(
                *inputs,
                prompt,
                cached_hidden=self.lower_hidden_states(*inputs, prompt) * mask.unsqueeze(-1),
            )[real]
        return torch.allclose(from_cache, plain, rtol=0.0, atol=0.01 * float(plain.abs().max()))

    def word_logits(self, hidden: Tensor, label_token_ids: Sequence[int]) -> Tensor:
        """LM head logits [B, N, len(label_token_ids)] of `hidden` [B, N, C], in float32."""
        assert self.lm_head is not None, "load the backbone with its LM head"
        logits: Tensor = self.lm_head(inputs_embeds=hidden).logits
        return logits[..., list(label_token_ids)].float()

    def prompt_shape(self, count: int) -> tuple[int, ...]:
        """Shape [L, 2, H, P, D] of a deep prompt with P = `count` virtual tokens in all layers."""
        return (self.num_layers, 2, self._key_value_shape[0], count, self._key_value_shape[1])

    def text_key_values(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, count: int
    ) -> Tensor:
        """Keys and values [L, 2, H, count, D] of the first `count` real tokens of a text.

        The model runs without a prompt. `input_ids`, `attention_mask` and `token_types` are [B, T].
        Raises UserError if the text has fewer tokens.
        """
        recorded_key_values: RecordedKeyValues = {}
        with torch.no_grad():
            self._hidden(
                None,
                recorded_key_values,
                input_ids=input_ids,
                attention_mask=attention_mask,
                **self._extra(input_ids, token_types),
            )
        real = attention_mask.bool()
        if int(real.sum()) < count:
            raise UserError(
                f"prompt: num_virtual_tokens is {count}, but the text to start from has "
                f"{int(real.sum())} tokens; make it smaller, or use init: normal"
            )
        layers = [
            recorded_key_values[layer].transpose(2, 3)[:, real][:, :count].transpose(1, 2)
            for layer in range(self.num_layers)
        ]
        return torch.stack(layers).float()

    def text_embeddings(self, input_ids: Tensor, attention_mask: Tensor, count: int) -> Tensor:
        """Input embeddings [count, E] of the first `count` real tokens of a text [B, T]."""
        embedded: Tensor = self.model.get_input_embeddings()(
            input_ids[attention_mask.bool()][:count]
        )
        return embedded.detach().float()

    def _extra(
        self, input_ids: Tensor, token_types: Tensor, prompt: LayerPrompts | None = None
    ) -> dict[str, Any]:
        """Model inputs besides ids and mask.

        They are the token types, if the model has any, and the positions, if a prompt shifts them.
        """
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
        recorded_key_values: RecordedKeyValues | None = None,
        prompt_attention: PromptAttention | None = None,
        **inputs: Any,
    ) -> Tensor:
        if self._context is None:
            arguments = {
                "deep_prompt": prompt,
                "recorded_key_values": recorded_key_values,
                "prompt_attention": prompt_attention,
            }
            inputs |= {name: value for name, value in arguments.items() if value is not None}
        else:
            self._context.deep_prompt = prompt
            self._context.recorded_key_values = recorded_key_values
            self._context.prompt_attention = prompt_attention
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
        # The text keeps its positions; all virtual tokens share the first position.
        if self.family.positions == "absolute":
            positions = torch.cat([torch.zeros(count, dtype=torch.long), torch.arange(length)]).to(
                input_ids.device
            )
            extra["position_ids"] = (positions + self.family.first_position).expand(batch, -1)
        if "token_type_ids" in extra:
            extra["token_type_ids"] = nn.functional.pad(extra["token_type_ids"], (count, 0))
        mask = nn.functional.pad(attention_mask, (count, 0), value=1)
        return self._hidden(inputs_embeds=inputs, attention_mask=mask, **extra)[:, count:]

    def _check_prompts_work(self) -> None:
        """Raise UserError if a prompt does not reach every layer or has no effect in some layer.

        A model may accept the name of the attention and the prompt, and ignore both.
        """
        ids = torch.arange(3).view(1, 3) + 1
        mask = torch.ones_like(ids)
        recorded_key_values: RecordedKeyValues = {}
        with torch.no_grad():
            plain = self._hidden(None, recorded_key_values, input_ids=ids, attention_mask=mask)
        family = self.config.model_type
        self.num_layers = int(self.config.num_hidden_layers) * int(
            getattr(self.config, "inner_group_num", 1)
        )
        if sorted(recorded_key_values) != list(range(self.num_layers)):
            raise UserError(
                f"backbone: a deep prompt reaches layers {sorted(recorded_key_values)} of this "
                f"{family!r} model, not all {self.num_layers}; the other layers do not use the "
                "attention interface, so use another backbone"
            )
        # Only the first token: a copy of all keys and values would not change the attention.
        key_values = torch.stack(
            [recorded_key_values[layer][:, 0, :, :1] for layer in range(self.num_layers)]
        ).requires_grad_()
        self._key_value_shape = (recorded_key_values[0].shape[2], recorded_key_values[0].shape[4])
        hidden = self._hidden(LayerPrompts(key_values[None]), input_ids=ids, attention_mask=mask)
        # Only one channel: a final norm fixes the sum and the sum of squares over channels.
        (gradient,) = torch.autograd.grad(hidden[..., 0].sum(), key_values, allow_unused=True)
        ineffective = [
            layer
            for layer in range(self.num_layers)
            if gradient is None or not bool(gradient[layer].abs().sum() > 0)
        ]
        if ineffective or torch.equal(hidden, plain):
            raise UserError(
                f"backbone: a deep prompt has no effect in layers {ineffective} of this {family!r} "
                "model, so it cannot be trained; use another backbone"
            )


class _IdentityBody(nn.Module):
    """A replacement for the body of a language model; it returns its input embeddings."""

    def forward(
        self, *_: Any, inputs_embeds: Tensor, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def _split_lm_head(model: Any) -> tuple[Any, nn.Module]:
    """Split a language model into its body and a module with only its head."""
    body = model.base_model
    setattr(model, model.base_model_prefix, _IdentityBody())
    return body, model


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context manager: hide the progress bars and the reports of unused weights of transformers."""
    logs: Any = _logging
    level, had_progress_bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if had_progress_bar:
            logs.enable_progress_bar()
