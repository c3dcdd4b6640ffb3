"""Text generation with the prompt's keys and values in front of every layer.

The loop over tokens is `generate` of transformers, on a copy of the language model whose body calls
the prompted backbone. The cache holds the keys and values of the text only. The attention puts the
prompt in front of them in every step, so the cache never contains the prompt.

In an encoder-decoder, the encoder reads the sources once, padded on the right as in training, and
the loop runs the decoder.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import BaseModelOutput

from pipeline.errors import UserError
from pipeline.model.attention import NO_ARGUMENTS, PromptArguments
from pipeline.model.backbone import Backbone
from pipeline.model.layers import with_modules
from pipeline.model.prompt import DeepPrompt, LayerPrompts, PromptBank, SoftPrompt
from pipeline.model.prompted_model import PromptedModel

_sampling_lock = threading.Lock()


@dataclass(frozen=True)
class Decoding:
    """How to choose the tokens of a text; the names are those of transformers.

    The default is greedy decoding. `num_beams` above 1 is beam search. With `do_sample`, tokens are
    drawn from the `top_p` most probable mass of the distribution at this `temperature`; `seed` and
    the batch determine them. `max_new_tokens` limits the text (None: the limit of its task).
    """

    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        limit = self.max_new_tokens
        checks = (
            ("num_beams", "a whole number above 0", _is_positive(self.num_beams, int)),
            ("temperature", "a number above 0", _is_positive(self.temperature, int | float)),
            (
                "top_p",
                "a number above 0 and at most 1",
                _is_positive(self.top_p, int | float) and self.top_p <= 1,
            ),
            ("max_new_tokens", "a whole number above 0", limit is None or _is_positive(limit, int)),
        )
        problems = [
            f"decoding: {name} is {getattr(self, name)!r}; give {expected}"
            for name, expected, valid in checks
            if not valid
        ]
        if not self.do_sample and (self.temperature, self.top_p) != (1.0, 1.0):
            problems.append(
                "decoding: temperature and top_p have no effect without do_sample (--sample); set "
                "it, or remove them"
            )
        if problems:
            raise UserError(*problems)


def _is_positive(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value > 0


GREEDY = Decoding()
_generation_config: Any = GenerationConfig  # transformers does not type it


def generate(
    model: PromptedModel,
    sources: Sequence[Sequence[int]],
    tasks: int | Tensor,
    end_token_id: int,
    max_new_tokens: int,
    decoding: Decoding = GREEDY,
    synced: bool = False,
    on_token: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """The token ids that follow each source, without the end token and what comes after it.

    `tasks` is the index of the task of all sources, or of each source [B]. A text ends at
    `end_token_id`, or after `max_new_tokens` tokens. The texts do not depend on the other sources
    of the batch, unless they are sampled. With `synced`, all ranks run equal numbers of forward
    passes, as ZeRO 3 requires; they must call this function together. `on_token` is called with
    each token of a single source, once it is chosen. A source of an encoder-decoder ends with the
    first tokens of the decoder, from the last `decoder_start_token_id` on.
    """
    backbone = model.backbone
    config = _generation_config(
        max_new_tokens=max_new_tokens,
        num_beams=decoding.num_beams,
        do_sample=decoding.do_sample,
        # Any id does for the padding, because the mask hides it and the texts end before it.
        pad_token_id=end_token_id,
        eos_token_id=end_token_id,
        **_sampling(decoding),
    )
    start = _start_of_decoder if backbone.is_encoder_decoder else _start_of_text
    with torch.no_grad(), _random_seed(decoding, backbone.device):
        write, inputs, skipped = start(model, sources, tasks, end_token_id, decoding.num_beams)
        output = write(
            **inputs,
            generation_config=config,
            synced_gpus=synced,
            streamer=_Stream(on_token, end_token_id) if on_token else None,
        )
    return [_until(row, end_token_id) for row in output[:, skipped:].tolist()]


class _Stream(BaseStreamer):  # type: ignore[misc]
    """Hands the tokens of a text over, without its source and the end token."""

    def __init__(self, on_token: Callable[[int], object], end: int) -> None:
        self._on_token, self._end, self._has_source = on_token, end, False

    def put(self, value: Tensor) -> None:
        """Take the source, and then one token at a time."""
        if self._has_source and (token := int(value.item())) != self._end:
            self._on_token(token)
        self._has_source = True

    def end(self) -> None:
        """Nothing is left to hand over."""


def _sampling(decoding: Decoding) -> dict[str, Any]:
    if not decoding.do_sample:
        return {}
    # transformers samples from the 50 most probable tokens only, unless top_k is 0.
    return {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}


@contextmanager
def _random_seed(decoding: Decoding, device: torch.device) -> Iterator[None]:
    """Seed the global generator, from which transformers samples; one thread at a time."""
    if not decoding.do_sample:
        yield
        return
    devices = [] if device.type == "cpu" else [device]
    with _sampling_lock, torch.random.fork_rng(devices, device_type=device.type):
        torch.manual_seed(decoding.seed)
        yield


_Start = tuple[Callable[..., Tensor], dict[str, Any], int]
"""`generate` of a language model, its inputs, and the number of given tokens in its output."""


def _start_of_text(
    model: PromptedModel,
    sources: Sequence[Sequence[int]],
    tasks: int | Tensor,
    fill: int,
    num_beams: int,
) -> _Start:
    """The loop of a decoder. The sources are padded on the left."""
    input_ids, mask = model.backbone.pad(sources, fill, "left")
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    return _language_model(model, tasks, num_beams).generate, inputs, input_ids.shape[1]


def _start_of_decoder(
    model: PromptedModel,
    sources: Sequence[Sequence[int]],
    tasks: int | Tensor,
    fill: int,
    num_beams: int,
) -> _Start:
    """The loop of an encoder-decoder, after a forward pass of its encoder."""
    backbone = model.backbone
    start_token_id = backbone.model.start_token_id
    count = sources[0][::-1].index(start_token_id) + 1  # the same in all sources
    source_ids, mask = backbone.pad([row[:-count] for row in sources], fill)
    target_ids, _ = backbone.pad([row[-count:] for row in sources], fill)
    prompts = _layer_prompts(model, tasks)
    states, mask = backbone.call_model(
        _arguments(prompts),
        backbone.model.encode,
        source_ids=source_ids,
        source_mask=mask,
        source_prefix=model.prompt() if isinstance(model.prompt, SoftPrompt) else None,
    )
    head: Any = backbone.lm_head
    language_model = _with_own_defaults(head.with_body(backbone.model))
    language_model.generation_config.decoder_start_token_id = start_token_id
    inputs = {
        "encoder_outputs": BaseModelOutput(last_hidden_state=states),
        "attention_mask": mask,
        "decoder_input_ids": target_ids,
    }
    repeated = _arguments(_repeat(prompts, num_beams))
    return partial(backbone.call_model, repeated, language_model.generate), inputs, count


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _language_model(model: PromptedModel, tasks: int | Tensor, num_beams: int) -> Any:
    """The language model of the backbone with prompts; it shares all weights."""
    lm_head: Any = model.backbone.lm_head
    assert lm_head is not None, "load the backbone with its LM head"
    body = prompted_body(model, tasks, num_beams)
    return _with_own_defaults(with_modules(lm_head, {lm_head.base_model_prefix: body}))


def _with_own_defaults(language_model: Any) -> Any:
    """The model without the defaults of its folder, such as sampling or a penalty."""
    language_model.generation_config = _generation_config()
    return language_model.eval()


def prompted_body(model: PromptedModel, tasks: int | Tensor, num_beams: int = 1) -> nn.Module:
    """The body of a language model, called as transformers calls it, under the model's prompts.

    `tasks` is the index of the task of all texts, or of each text [B]. A batch has `num_beams` rows
    for each text. Its inputs are `input_ids` [B, T], `attention_mask` of these and of the tokens in
    the cache, `position_ids` [B, T] and the cache `past_key_values`.
    """
    backbone, prompt = model.backbone, model.prompt
    if isinstance(prompt, SoftPrompt):
        return _SoftPromptedBody(backbone, prompt())
    return _PromptedBody(backbone, _repeat(_layer_prompts(model, tasks), num_beams))


def _layer_prompts(model: PromptedModel, tasks: int | Tensor) -> LayerPrompts | None:
    """The deep prompts of a batch; None if there are none."""
    prompt = model.prompt
    if not isinstance(prompt, DeepPrompt | PromptBank):
        return None
    prompts = prompt(_on_device(tasks, model.backbone))
    if prompts is not None and prompts.scale_shift is not None:
        model.backbone.scaled_modules()
    return None if prompts is not None and prompts.key_values.shape[4] == 0 else prompts


def _arguments(prompts: LayerPrompts | None) -> PromptArguments:
    return NO_ARGUMENTS if prompts is None else PromptArguments(prompts)


def _on_device(tasks: int | Tensor, backbone: Backbone) -> int | Tensor:
    return tasks if isinstance(tasks, int) else tasks.to(backbone.device)


def _repeat(prompts: LayerPrompts | None, num_beams: int) -> LayerPrompts | None:
    """The prompts for the beams of each row, which follow one another."""
    if prompts is None or prompts.prompt_index is None:
        return prompts
    return prompts._replace(prompt_index=prompts.prompt_index.repeat_interleave(num_beams))


class _Body(nn.Module):
    """A body of a language model that `generate` calls in place of the backbone's."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        # Not a submodule: `eval` and the search for parameters must not see it twice.
        self._backbone = (backbone,)

    @property
    def backbone(self) -> Backbone:
        return self._backbone[0]

    def output(self, arguments: PromptArguments, inputs: dict[str, Any], skipped: int = 0) -> Any:
        """The output of the backbone without its first `skipped` positions."""
        result = self.backbone.call_model(arguments, **inputs)
        # Autocast gives another type.
        result.last_hidden_state = result.last_hidden_state[:, skipped:].to(self.backbone.dtype)
        return result


class _PromptedBody(_Body):
    """The backbone under deep prompts, or without a prompt."""

    def __init__(self, backbone: Backbone, prompts: LayerPrompts | None) -> None:
        super().__init__(backbone)
        self.prompts = prompts

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        """The output for tokens [B, T] after those in the cache."""
        prompts = self.prompts
        if prompts is not None and prompts.position_offsets is not None:
            offsets = prompts.position_offsets
            if prompts.prompt_index is not None:
                offsets = offsets[prompts.prompt_index]
            inputs["position_ids"] = inputs["position_ids"] + offsets[:, None]
        return self.output(_arguments(prompts), {"input_ids": input_ids, **inputs})


class _SoftPromptedBody(_Body):
    """The backbone under a soft prompt, whose vectors precede the text in the first step.

    The cache then contains them, which `generate` need not know. The text has the positions of
    `Backbone.forward`: those of a text without prompt if they are learned, and shifted otherwise.
    """

    def __init__(self, backbone: Backbone, vectors: Tensor) -> None:
        super().__init__(backbone)
        self.vectors = vectors

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Any,
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """The output for tokens [B, T] after those in the cache."""
        count, is_first = len(self.vectors), past_key_values.get_seq_length() == 0
        embedded = self.backbone.model.get_input_embeddings()(input_ids)
        absolute = self.backbone.family.positions == "absolute"
        if not absolute:
            position_ids = position_ids + count
        if is_first:
            virtual = torch.zeros(count) if absolute else torch.arange(count)
            order = _after_padding(attention_mask, len(input_ids), count, embedded)
            embedded = _in_order(self.vectors.to(embedded.dtype), embedded, order)
            position_ids = _in_order(virtual.to(position_ids), position_ids, order)
        if attention_mask is not None:  # A row is zeros, then ones.
            attention_mask = nn.functional.pad(attention_mask, (0, count), value=1)
        inputs |= {
            "inputs_embeds": embedded,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
        }
        return self.output(NO_ARGUMENTS, inputs, count if is_first else 0)


def _after_padding(mask: Tensor | None, rows: int, count: int, embedded: Tensor) -> Tensor:
    """The order [B, P + T] that moves P virtual tokens from the front to the end of the padding.

    They must be next to the text, because a sliding window may hide distant tokens.
    """
    index = torch.arange(count + embedded.shape[1], device=embedded.device).expand(rows, -1)
    if mask is None:
        return index
    padding = (mask == 0).sum(dim=1, keepdim=True)
    moved = torch.where(index < padding + count, index - padding, index)
    return torch.where(index < padding, index + count, moved)


def _in_order(virtual: Tensor, text: Tensor, order: Tensor) -> Tensor:
    """Virtual values [P, ...] and those of the text [B, T, ...] in an order [B, P + T]."""
    joined = torch.cat(
        [virtual.expand(len(order), *virtual.shape), text.expand(len(order), *text.shape[1:])],
        dim=1,
    )
    return joined[torch.arange(len(order), device=order.device)[:, None], order]
