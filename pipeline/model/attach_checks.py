"""Checks that prompts act on a loaded model as they should.

A model may accept the name of the attention and the prompt, and ignore both, or add something to
its attention that a prompt does not get. The checks compare forward passes that must be equal. They
guard a family with a reference test against unusual configs. For any other family they are the
condition of admission: the texts are longer, the tolerance is smaller, and no check is skipped.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model.attention import RecordedKeyValues
from pipeline.model.prompt import LayerPrompts
from pipeline.pretrained.families import Family

ADMISSION_TOLERANCE = 1e-4
"""In float32. Equal computations in 24 layers differ by at most 1e-5 of the largest value."""
_MIN_EFFECT = 10 * ADMISSION_TOLERANCE  # of a prompt; with less, equal results prove nothing


class Check(NamedTuple):
    """Two computations that must be equal. `difference` is relative to the largest value."""

    name: str
    failure: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.difference <= self.tolerance


class CheckedModel(Protocol):
    """The part of a Backbone that the checks use."""

    config: Any
    family: Family
    model: Any
    num_layers: int

    def run_rows(
        self, rows: Sequence[Sequence[int]], prompt: LayerPrompts | None = None, **kwargs: Any
    ) -> list[Tensor]:
        """The hidden states [T, C] of each row (see Backbone.run_rows)."""
        ...

    def word_logits(self, hidden: Tensor, token_ids: Sequence[int] | None) -> Tensor:
        """LM head logits (see Backbone.word_logits)."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the input embeddings."""
        ...

    @property
    def max_positions(self) -> int:
        """Maximum number of tokens of a text."""
        ...


class _Texts(NamedTuple):
    """Token ids: `rows` of different lengths, and a text cut into `first` and `rest`."""

    rows: list[list[int]]
    first: list[int]
    rest: list[int]


def check_prompts(backbone: CheckedModel, own_model: Any) -> tuple[tuple[int, int], list[Check]]:
    """Return the number and size of the key/value heads, and the outcomes of the checks.

    `own_model` is the model with its own attention. Raises UserError if prompts do not reach every
    layer or have no effect, and with all checks that fail.
    """
    texts = _texts(backbone)
    text = texts.rows[0][:3]
    key_values, plain = _check_reach(backbone, text)
    # Only the first token: a copy of all keys and values would not change the attention.
    prompt = LayerPrompts(key_values[..., :1, :].requires_grad_())
    _check_effect(backbone, text, prompt, plain)
    with torch.no_grad():
        checks = list(_checks(backbone, own_model, texts, prompt))
        if is_traced(backbone):
            _check_size_of_effect(backbone, texts)
            _check_last_position(backbone, text[0])
    _raise_failed(backbone, checks)
    return (key_values.shape[3], key_values.shape[5]), checks


def check_lm_head(backbone: CheckedModel, expected: Tensor, tokens: Sequence[int]) -> Check:
    """Compare logits of hidden states with those of the whole language model, [T, vocabulary].

    Raises UserError if they differ, or if the head cannot compute logits of hidden states.
    """
    reason = ""
    with torch.no_grad():
        (hidden,) = backbone.run_rows([tokens])
        try:
            logits = backbone.word_logits(hidden[None], None)[0]
        except (AttributeError, TypeError) as error:
            # The head calls more of the body than its forward pass.
            logits = torch.full_like(expected, torch.nan)
            reason = f"cannot compute logits of hidden states without its body ({error})"
    check = _compare(backbone, "the language modeling head", "", [logits], [expected])
    if not check.passed:
        reason = reason or (
            "gives other logits for the hidden states than the whole model (difference "
            f"{check.difference:.2g})"
        )
        raise UserError(
            f"backbone: the language modeling head of this {backbone.config.model_type!r} model, "
            f"which verbalizers and text generation need, {reason}; use another backbone or "
            "another task"
        )
    return check


def is_traced(backbone: CheckedModel) -> bool:
    """Whether the family of the model has no reference test."""
    return backbone.family.route == "traced"


def _texts(backbone: CheckedModel) -> _Texts:
    """Ordinary tokens: a pretrained model may compute noise for special ones, which are the first.

    In bfloat16, the noise of SmolLM2 for the tokens 1 to 6 is as large as its hidden states.
    """
    num_embeddings = backbone.model.get_input_embeddings().weight.shape[0]
    order = torch.randperm(num_embeddings, generator=torch.Generator().manual_seed(0)).tolist()
    special = {0, 1, 2, 3, getattr(backbone.config, "pad_token_id", None)}
    tokens = [token for token in order if token not in special][:12]
    if is_traced(backbone):
        return _Texts([tokens, tokens[3:8], tokens[5:6]], tokens[:6], tokens[6:])
    return _Texts([tokens[:5], tokens[:2]], tokens[:2], tokens[2:4])


def _check_reach(backbone: CheckedModel, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Raise UserError if a prompt does not reach every layer.

    Returns the keys and values [1, L, 2, H, T, D] and hidden states [T, C] of a text.
    """
    recorded_key_values: RecordedKeyValues = {}
    with torch.no_grad():
        (hidden,) = backbone.run_rows([tokens], recorded_key_values=recorded_key_values)
    family = backbone.config.model_type
    if sorted(recorded_key_values) != list(range(backbone.num_layers)):
        raise UserError(
            f"backbone: a deep prompt reaches layers {sorted(recorded_key_values)} of this "
            f"{family!r} model, not all {backbone.num_layers}; the other layers do not use the "
            "attention interface, so use another backbone"
        )
    if not bool(hidden.isfinite().all()):
        raise UserError(
            f"backbone: hidden states of this {family!r} model are not finite in "
            f"{hidden.dtype}; download the weights again, or load them in float32"
        )
    return _as_prompt(recorded_key_values), hidden


def _check_effect(
    backbone: CheckedModel, tokens: Sequence[int], prompt: LayerPrompts, plain: Tensor
) -> None:
    """Raise UserError if a prompt has no effect in some layer. `plain` is without prompt."""
    (hidden,) = backbone.run_rows([tokens], prompt)
    # Only one channel: a final norm fixes the sum and the sum of squares over channels.
    (gradient,) = torch.autograd.grad(hidden[..., 0].sum(), prompt.key_values, allow_unused=True)
    ineffective = [
        layer
        for layer in range(backbone.num_layers)
        if gradient is None or not bool(gradient[0, layer].abs().sum() > 0)
    ]
    if ineffective or torch.equal(hidden, plain):
        raise UserError(
            f"backbone: a deep prompt has no effect in layers {ineffective} of this "
            f"{backbone.config.model_type!r} model, so it cannot be trained; use another backbone"
        )


def _checks(
    backbone: CheckedModel, own_model: Any, texts: _Texts, prompt: LayerPrompts
) -> Iterator[Check]:
    """The outcomes of all checks."""
    traced = is_traced(backbone)
    plain = backbone.run_rows(texts.rows)
    # Some models cannot run with weights of several types, but run here.
    if traced or len({parameter.dtype for parameter in own_model.parameters()}) == 1:
        yield _compare(
            backbone,
            "its own attention",
            "without a prompt, the hidden states differ from those of its own attention",
            plain,
            backbone.run_rows(texts.rows, model=own_model),
        )
    for kind, value in (("without a prompt", None), ("under a prompt", prompt)):
        alone = [backbone.run_rows([row], value)[0] for row in texts.rows]
        failure = f"{kind}, a padded text differs from the text alone"
        padded = backbone.run_rows(texts.rows, value)
        yield _compare(backbone, f"padding {kind}", failure, padded, alone)
    yield _check_own_keys(backbone, texts.first)
    window = getattr(backbone.config, "sliding_window", None)
    if backbone.family.causal and (
        traced or window is None or window >= len(texts.first + texts.rest)
    ):
        yield _check_text_as_prompt(backbone, texts)


def _check_own_keys(backbone: CheckedModel, first: list[int]) -> Check:
    """A prompt with the keys of the text itself changes nothing.

    A copy of all keys and values keeps the average, except with a bias or a causal mask. There, the
    text has only one token.
    """
    family = backbone.family
    exact = not (family.causal or family.encoder_only or family.route in ("patched", "two stacks"))
    text = first if exact else first[:1]
    copied = backbone.run_rows([text], LayerPrompts(key_values_of_text(backbone, text)))
    failure = "a prompt with the keys of the text itself has an effect"
    return _compare(backbone, "its own keys twice", failure, copied, backbone.run_rows([text]))


def _check_text_as_prompt(backbone: CheckedModel, texts: _Texts) -> Check:
    """In a causal model, the keys of a text as a prompt equal the text itself."""
    key_values = key_values_of_text(backbone, texts.first)
    offset = torch.tensor([len(texts.first)], device=key_values.device)
    prompt = LayerPrompts(key_values, position_offsets=offset)
    whole = backbone.run_rows([texts.first + texts.rest])[0][len(texts.first) :]
    failure = "a text as a prompt differs from the text itself"
    actual = backbone.run_rows([texts.rest], prompt)
    return _compare(backbone, "a text as a prompt", failure, actual, [whole])


def _check_size_of_effect(backbone: CheckedModel, texts: _Texts) -> None:
    """Raise UserError if the effect of a prompt is too small for the other checks to detect."""
    prompt = LayerPrompts(key_values_of_text(backbone, texts.first))
    prompted, plain = backbone.run_rows([texts.rest], prompt), backbone.run_rows([texts.rest])
    difference = _relative_difference(torch.cat(prompted), torch.cat(plain))
    if not difference >= _MIN_EFFECT:  # also True for NaN
        raise UserError(
            f"backbone: a text as a prompt changes the hidden states of this "
            f"{backbone.config.model_type!r} model by only {difference:.2g} of the largest value, "
            f"less than {_MIN_EFFECT:g}, so no check can prove that prompts work; use another "
            "backbone"
        )


def _check_last_position(backbone: CheckedModel, token: int) -> None:
    """Raise UserError if the model has fewer learned positions than its config says."""
    if backbone.family.positions != "absolute" or backbone.device.type != "cpu":
        return  # An index out of range aborts the whole process on a GPU.
    last_position = backbone.family.first_position + backbone.max_positions - 1
    try:
        backbone.run_rows([[token]], position_ids=torch.tensor([[last_position]]))
    except IndexError:
        raise UserError(
            f"backbone: this {backbone.config.model_type!r} model has no position {last_position}, "
            "the last one according to its config; correct max_position_embeddings in its "
            "config.json"
        ) from None


def _raise_failed(backbone: CheckedModel, checks: Sequence[Check]) -> None:
    """Raise UserError with all checks that failed."""
    kind = "causal" if backbone.family.causal else "bidirectional"
    model = f"this {backbone.config.model_type!r} model"
    problems = [
        f"backbone: {check.failure} by {check.difference:.2g} of the largest value: "
        + (
            f"{model} is not admitted (at most {check.tolerance:g}), because it does not compute "
            f"plain {kind} attention to prompt and text; use another backbone"
            if is_traced(backbone)
            else f"{model} does not compute the {kind} attention of its family; reset is_decoder "
            "and is_causal in its config.json if they are set, or use another backbone"
        )
        for check in checks
        if not check.passed
    ]
    if problems:
        raise UserError(*problems)


def _compare(
    backbone: CheckedModel,
    name: str,
    failure: str,
    actual: Sequence[Tensor],
    expected: Sequence[Tensor],
) -> Check:
    """Compare the hidden states of rows.

    Equal computations in 24 layers differ by at most 1e-5 in float32 and 0.07 in bfloat16.
    """
    tolerance = 4 * torch.finfo(actual[0].dtype).eps ** 0.5
    if is_traced(backbone):
        tolerance = ADMISSION_TOLERANCE
    return Check(
        name, failure, _relative_difference(torch.cat([*actual]), torch.cat([*expected])), tolerance
    )


def _relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The maximum difference, relative to the largest value."""
    return float((actual - expected).abs().max() / expected.abs().max())


def key_values_of_text(backbone: CheckedModel, tokens: list[int]) -> Tensor:
    """Keys and values [1, L, 2, H, T, D] of a text without a prompt."""
    recorded_key_values: RecordedKeyValues = {}
    backbone.run_rows([tokens], recorded_key_values=recorded_key_values)
    return _as_prompt(recorded_key_values)


def _as_prompt(recorded_key_values: RecordedKeyValues) -> Tensor:
    """Keys and values [1, L, 2, H, T, D] of the only text of a forward pass."""
    layers = [recorded_key_values[layer][:, 0] for layer in sorted(recorded_key_values)]
    return torch.stack(layers)[None]
