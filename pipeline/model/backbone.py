"""A pretrained transformer, frozen or trained, that takes a prompt and returns hidden states."""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline.errors import UserError, did_you_mean
from pipeline.model.attach_checks import (
    Check,
    check_lm_head,
    check_prompts,
    key_values_of_text,
)
from pipeline.model.attention import (
    ATTENTION,
    NO_ARGUMENTS,
    AttentionCall,
    PromptArguments,
    PromptAttention,
    RecordedKeyValues,
    call_model,
)
from pipeline.model.encoder_decoder import (
    EncoderDecoder,
    split_rows,
)
from pipeline.model.family_attention import install, with_own_attention
from pipeline.model.layers import attentions_of, checkpoint_layers, layers_of, only_layers
from pipeline.model.pretrained_model import convert_parameters, load_model, split_lm_head
from pipeline.model.prompt import LayerPrompts, SoftPrompt
from pipeline.model.quantization import GRADIENT_BOUND, quantize, refuse_int4
from pipeline.model.scale_shift import ScaledModules, install_scale_shift
from pipeline.model.trace_family import trace
from pipeline.params import Precision
from pipeline.pretrained.families import ENCODER_DECODERS, Family, family_of
from pipeline.pretrained.location import backbone_files
from pipeline.pretrained.random_weights import RandomWeights
from pipeline.pretrained.tokenizer import Tokenizer


class Backbone(nn.Module):
    """Hidden states of a pretrained model, under a prompt or without.

    Dropout is always off, also when the backbone is trained. Weights are float32 by default.
    `folder` is the folder of the model, and `files` has the hashes of its config and tokenizer
    files (see `backbone_files`); None and empty if the model does not come from a folder.
    `precision` is that of `load`. `random_weights` describes the weights if they are random (None:
    they are pretrained).
    """

    def __init__(self, model: Any, lm_head: nn.Module | None = None) -> None:
        """Install the prompt attention in `model` and check that prompts have an effect.

        Load `model` with `attn_implementation=ATTENTION`. An encoder-decoder with its decoder
        becomes an `EncoderDecoder`. The heads in `LM_HEADS` need `lm_head`: a module that takes
        hidden states as `inputs_embeds` and returns the logits of the vocabulary. To generate text,
        it must be the module of `split_lm_head`. Raises UserError if prompts do not work on
        `model`.
        """
        super().__init__()
        self.config: Any = model.config
        self.is_encoder_decoder = (
            hasattr(model, "decoder") and self.config.model_type in ENCODER_DECODERS
        )
        if self.is_encoder_decoder and not isinstance(model, EncoderDecoder):
            model = EncoderDecoder(model)
        self.family = family_of(self.config.model_type, self.is_encoder_decoder)
        if self.config._attn_implementation != ATTENTION:
            raise UserError(
                f"backbone: its attention is {self.config._attn_implementation!r}, which ignores "
                f"prompts; load it with attn_implementation={ATTENTION!r}"
            )
        if any(hasattr(module, "_hf_hook") for module in model.modules()):
            raise UserError(
                "backbone: its modules have hooks of accelerate (device_map, or an offload to CPU "
                "or disk), and these do not hand prompts to the attention; load it without "
                "device_map, or remove them with "
                "accelerate.hooks.remove_hook_from_module(model, recurse=True)"
            )
        self.model = model.eval()
        self.lm_head = lm_head
        self.files: dict[str, str] = {}
        self.folder: Path | None = None
        self.random_weights: RandomWeights | None = None
        self.precision: Precision = "float32"
        self.autocast: torch.dtype | None = None
        self._scaled_modules: ScaledModules | None = None
        for name in ("hidden_size", "num_hidden_layers"):
            if not hasattr(self.config, name):
                raise UserError(
                    f"backbone: deep prompts do not work on this {self.config.model_type!r} model: "
                    f"its config has no {name}; use another backbone"
                )
        self.hidden_size = int(self.config.hidden_size)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.token_types = int(getattr(self.config, "type_vocab_size", 0) or 0)
        self.num_layers = int(self.config.num_hidden_layers) * int(
            getattr(self.config, "inner_group_num", 1)
        )
        if self.is_encoder_decoder:
            self.token_types = 2  # source and target
            self.num_layers = len(list(attentions_of(self.model, self.family)))
        own_model = with_own_attention(self.model, self.family)
        if self.family.route == "traced":
            self.family = self._trace()
        install(self.model, self.family)
        self._key_value_shape, self.checks = check_prompts(self, own_model)

    @classmethod
    def load(
        cls,
        folder: Path,
        lm_head: bool = False,
        precision: Precision = "float32",
        trained: bool = False,
        decoder: bool = False,
        random_seed: int | None = None,
    ) -> "Backbone":
        """Load a folder that `save_pretrained` wrote; no network access, no code from the folder.

        With `lm_head`, the folder must contain the weights of the language modeling head too. The
        weights of a `trained` backbone are float32; it computes in `precision` by autocast. With
        `decoder`, the folder has an encoder-decoder, which is loaded as a whole. With
        `random_seed`, the weights of the folder are not read: those of the backbone and of the
        language modeling head are random (see `random_model`), whatever `precision` is. Raises
        UserError if the folder is unreadable or incomplete, its model type unsupported, or
        `precision` unknown.
        """
        if precision not in get_args(Precision):
            raise UserError(
                f"precision is {precision!r}{did_you_mean(precision, get_args(Precision))}"
            )
        if precision == "int4":
            refuse_int4()
        in_bfloat16 = precision == "bfloat16"
        dtype = torch.bfloat16 if in_bfloat16 and not trained else torch.float32
        model, family, missing, random_weights = load_model(
            folder, lm_head, decoder, dtype, random_seed
        )
        expected_logits = _logits(model) if lm_head and family.route == "traced" else None
        body, head = split_lm_head(model) if lm_head else (model, None)
        # The pooler is unused. Its parameters would get no gradient, and ranks would diverge. Some
        # models call it in any case.
        if getattr(body, "pooler", None) is not None:
            body.pooler = nn.Identity()
        missing = [name for name in missing if not name.startswith("pooler.")]
        if missing:
            contents = (
                "a language modeling head, which verbalizers and text generation need"
                if lm_head
                else "a complete backbone"
            )
            raise UserError(
                f"{folder}: does not contain {contents}: {', '.join(sorted(missing)[:3])} missing; "
                "use other weights"
            )
        backbone = cls(body, head)
        if expected_logits is not None:
            backbone.checks.append(check_lm_head(backbone, expected_logits, _LM_HEAD_TEXT))
        backbone.folder, backbone.files = folder, backbone_files(folder)
        backbone.precision, backbone.random_weights = precision, random_weights
        if in_bfloat16 and trained:
            backbone.autocast = torch.bfloat16
        if precision == "int8":
            backbone.checks.append(backbone._quantize())
        return backbone.convert(dtype)

    def _trace(self) -> Family:
        """The complete record of a family without reference test."""
        if self.model.dtype != torch.float32:
            raise UserError(
                f"backbone: this {self.config.model_type!r} model has weights of type "
                f"{self.model.dtype}, and the checks of its family need float32; load it in "
                "float32, and convert the Backbone with `convert`"
            )

        def run(last_token: int = 9, **arguments: Any) -> Tensor:
            with torch.no_grad():
                return self.run_rows([[4, 5, 6, 7, 8, last_token]], **arguments)[0]

        return trace(self.model, self.family, run)

    def _quantize(self) -> Check:
        """Store the weights as int8, and compare the gradient of a prompt with the one before."""
        first, *rows = _random_texts(self.model.get_input_embeddings().weight.shape[0])
        with torch.no_grad():
            key_values = key_values_of_text(self, first)
        prompt = LayerPrompts(key_values.requires_grad_())

        def gradient() -> Tensor:
            hidden = torch.cat(self.run_rows(rows, prompt))
            direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
            return torch.autograd.grad((hidden * direction).sum(), prompt.key_values)[0]

        change = quantize(self.model, gradient)
        return Check("prompt gradients in float32", "", change, GRADIENT_BOUND)

    def train(self, mode: bool = True) -> "Backbone":
        """Ignore `mode`: dropout stays off."""
        return super().train(False)

    def convert(self, dtype: torch.dtype) -> "Backbone":
        """Convert the weights to `dtype`, with the same result as `load` with this precision.

        Buffers keep their type: the frequencies of rotary positions need float32.
        """
        convert_parameters(self, dtype)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights and hidden states. Under autocast, the latter may differ."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the input embeddings, where a forward pass starts."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def embedding_size(self) -> int:
        """E, the size of the input embeddings; equal to C in most families."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def max_positions(self) -> int:
        """Maximum number of tokens of a text; huge if the config has no limit."""
        positions = getattr(self.config, "max_position_embeddings", None) or sys.maxsize
        return int(positions) - self.family.first_position

    def scaled_modules(self) -> ScaledModules:
        """The modules whose outputs a prompt may scale and shift.

        The first call makes the modules do so. Raises UserError if the layers share their modules,
        or if the backbone is a whole encoder-decoder.
        """
        if self.is_encoder_decoder:
            raise UserError(
                "backbone: decoder is true, but a layer of a decoder has two layers of a prompt, "
                "so its scales and shifts are not defined; set scale_shift: false"
            )
        if self._scaled_modules is None:
            with torch.no_grad():
                self._scaled_modules = install_scale_shift(self.model, self.family, self.run_rows)
        return self._scaled_modules

    def checkpoint_layers(self) -> None:
        """Turn on gradient checkpointing: less memory, about a third more time, equal gradients."""
        checkpoint_layers(self.model, self.family)

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
        layers below a deep prompt are not computed again. In a whole encoder-decoder, tokens of
        type 1 are the target (see `pipeline.model.encoder_decoder`).
        """
        if isinstance(prompt, SoftPrompt):
            return self._with_soft_prompt(
                prompt(), input_ids, attention_mask, self._extra(input_ids, token_types)
            )
        if prompt is not None and prompt.scale_shift is not None:
            self.scaled_modules()  # Otherwise, a model without them would ignore them.
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            **self._extra(input_ids, token_types, prompt),
        }
        if cached_hidden is not None:
            assert prompt is not None
            upper, _ = only_layers(
                self.model, self.family, range(prompt.first_layer, self.num_layers), cached_hidden
            )
            arguments = PromptArguments(prompt, prompt_attention=prompt_attention)
            return self._hidden(arguments, upper, **inputs)
        if prompt is not None and prompt.key_values.shape[4] == 0:
            prompt = None
        return self._hidden(PromptArguments(prompt, prompt_attention=prompt_attention), **inputs)

    def lower_hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, prompt: LayerPrompts
    ) -> Tensor:
        """Hidden states [B, T, C] at the input of the first layer with a prompt.

        They do not depend on the prompt, only on the text and the position offset.
        """
        lower, skipped_inputs = only_layers(self.model, self.family, range(prompt.first_layer))
        with torch.no_grad():
            self._hidden(
                model=lower,
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

    def query_masks(self, attention_mask: Tensor, token_types: Tensor) -> list[Tensor]:
        """For each layer, the mask [B, queries] of the real tokens that attend in it.

        Only in an encoder-decoder, they are not all tokens [B, T].
        """
        if not self.is_encoder_decoder:
            return [attention_mask] * self.num_layers
        rows = split_rows(attention_mask, attention_mask, token_types, 0)
        in_encoder = int(self.config.num_hidden_layers)
        in_decoder = self.num_layers - in_encoder
        return [rows.source_mask] * in_encoder + [rows.target_mask] * in_decoder

    def word_logits(self, hidden: Tensor, token_ids: Sequence[int] | None) -> Tensor:
        """LM head logits [B, N, len(token_ids)] of `hidden` [B, N, C], in float32.

        They are [B, N, vocabulary] if `token_ids` is None.
        """
        assert self.lm_head is not None, "load the backbone with its LM head"
        logits: Tensor = self.lm_head(inputs_embeds=hidden.to(self.dtype)).logits
        return (logits if token_ids is None else logits[..., list(token_ids)]).float()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in the folder of the model."""
        assert self.folder is not None, "the backbone has no folder"
        return Tokenizer(self.folder, self.is_encoder_decoder)

    def prompt_shape(self, count: int) -> tuple[int, ...]:
        """Shape [L, 2, H, P, D] of a deep prompt with P = `count` virtual tokens in all layers."""
        return (self.num_layers, 2, self._key_value_shape[0], count, self._key_value_shape[1])

    def text_key_values(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, count: int
    ) -> Tensor:
        """Keys and values [L, 2, H, count, D] of the first `count` real tokens of a text.

        The model runs without a prompt. `input_ids`, `attention_mask` and `token_types` are [B, T].
        Encoder and decoder of an encoder-decoder both read the whole text, also if it has a target.
        Raises UserError if the text has fewer tokens.
        """
        _check_text_length(attention_mask, count)
        recorded_key_values: RecordedKeyValues = {}
        if self.is_encoder_decoder:
            token_types = torch.zeros_like(token_types)
        with torch.no_grad():
            self._hidden(
                PromptArguments(recorded_key_values=recorded_key_values),
                input_ids=input_ids,
                attention_mask=attention_mask,
                **self._extra(input_ids, token_types),
            )
        real = attention_mask.bool()
        layers = [
            recorded_key_values[layer].transpose(2, 3)[:, real][:, :count].transpose(1, 2)
            for layer in range(self.num_layers)
        ]
        return torch.stack(layers).float()

    def text_embeddings(self, input_ids: Tensor, attention_mask: Tensor, count: int) -> Tensor:
        """Input embeddings [count, E] of the first `count` real tokens of a text [B, T].

        Raises UserError if the text has fewer tokens.
        """
        _check_text_length(attention_mask, count)
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
        if prompt is None:
            return extra
        zero_types, offsets = (
            values if values is None or prompt.prompt_index is None else values[prompt.prompt_index]
            for values in (prompt.zero_token_types, prompt.position_offsets)
        )
        if extra and zero_types is not None:
            extra["token_type_ids"] = token_types.masked_fill(zero_types[:, None], 0)
        if offsets is not None:
            positions = (
                torch.arange(input_ids.shape[1], device=input_ids.device)
                + self.family.first_position
            )
            extra["position_ids"] = (positions + offsets[:, None]).expand(input_ids.shape)
        return extra

    def _hidden(
        self, arguments: PromptArguments = NO_ARGUMENTS, model: Any = None, **inputs: Any
    ) -> Tensor:
        """The output of `model` (None: the whole model)."""
        cache = {"use_cache": False} if self.family.causal else {}
        hidden: Tensor = self.call_model(arguments, model, **cache, **inputs).last_hidden_state
        return hidden

    def call_model(self, arguments: PromptArguments, model: Any = None, **inputs: Any) -> Any:
        """Call `model` (None: the whole model) with its own inputs, under the prompts.

        Returns its own output.
        """
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return call_model(
                self.model if model is None else model, self.family, arguments, **inputs
            )

    def _with_soft_prompt(
        self, vectors: Tensor, input_ids: Tensor, attention_mask: Tensor, extra: dict[str, Any]
    ) -> Tensor:
        if self.is_encoder_decoder:
            return self._hidden(
                input_ids=input_ids, attention_mask=attention_mask, source_prefix=vectors, **extra
            )
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

    def pad(
        self, rows: Sequence[Sequence[int]], fill: int, side: str = "right"
    ) -> tuple[Tensor, Tensor]:
        """The ids and the mask [B, T] of texts, padded with the id `fill` on one side."""
        ids = [torch.tensor(row, device=self.device) for row in rows]
        mask = [torch.ones_like(row) for row in ids]
        return pad_sequence(ids, True, fill, side), pad_sequence(mask, True, 0, side)

    def run_rows(
        self,
        rows: Sequence[Sequence[int]],
        prompt: LayerPrompts | None = None,
        recorded_key_values: RecordedKeyValues | None = None,
        model: Any = None,
        calls: list[AttentionCall] | None = None,
        **inputs: Tensor,
    ) -> list[Tensor]:
        """The hidden states [T, C] of the tokens of each row, padded to one batch.

        `model` replaces the model (see `only_layers`); `inputs` are further arguments for it.
        """
        # Any id of the vocabulary does, because the mask hides it: pad_token_id may be -1.
        input_ids, mask = self.pad(rows, rows[0][0])
        extra = self._extra(input_ids, torch.zeros_like(input_ids), prompt)
        hidden = self._hidden(
            PromptArguments(prompt, recorded_key_values, calls=calls),
            model,
            input_ids=input_ids,
            attention_mask=mask,
            **extra | inputs,
        )
        return [states[: len(row)] for states, row in zip(hidden, rows, strict=True)]


def _random_texts(num_embeddings: int) -> list[list[int]]:
    """Token ids of 5 texts. Few or neighboring ids would be special tokens in some vocabularies."""
    generator = torch.Generator().manual_seed(0)
    texts: list[list[int]] = torch.randint(num_embeddings, (5, 16), generator=generator).tolist()
    return texts


_LM_HEAD_TEXT = range(4, 10)


def _logits(model: Any) -> Tensor:
    """The logits [T, vocabulary] of a text, from a language model with its head."""
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=torch.tensor([_LM_HEAD_TEXT])).logits
    return logits[0]


def _check_text_length(attention_mask: Tensor, count: int) -> None:
    """Raise UserError if a text has fewer real tokens than a prompt that starts from it."""
    num_tokens = int(attention_mask.sum())
    if num_tokens < count:
        raise UserError(
            f"prompt: num_virtual_tokens is {count}, but the text to start from has {num_tokens} "
            "tokens; make it smaller, or (not for a soft prompt) use init: normal"
        )
