"""Find the layers and positions of a model whose family has no reference test.

The facts come from forward passes of the model, not from its type. They say only how to attach a
prompt; `pipeline.model.attach_checks` then checks that the prompt works.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError, first_line
from pipeline.model.attention import AttentionCall
from pipeline.pretrained.families import Family

# Keyword arguments of an attention that `attend` computes, or that do not change the result.
_KNOWN_KEYWORDS = frozenset(
    {
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "deterministic",
        "dropout",
        "is_causal",
        "max_length_k",
        "max_length_q",
        "output_attentions",
        "output_hidden_states",
        "position_bias",
        "position_ids",
        "return_dict",
        "scaling",
        "sliding_window",  # the mask contains it
        "softcap",
        "use_cache",
    }
)
# The names of the modules for queries and values, alone or fused, in the order of preference.
_PROJECTIONS = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q", "v"),
    ("q_lin", "v_lin"),
    ("qkv_proj",),
    ("query_key_value",),
    ("Wqkv",),
    ("c_attn",),
)
_MAX_FIRST_POSITION = 4
_EQUAL = 1e-4  # relative to the largest value; other tokens or positions change it by 1e-2 and more

Run = Callable[..., Tensor]
"""A forward pass of one text: keyword arguments of the model -> hidden states [T, C]."""


def trace(model: Any, family: Family, run: Run) -> Family:
    """Return the complete record of the family of `model`, and number its attention modules.

    `run` makes a forward pass of one text, and adds the calls of the attention to the list `calls`;
    `last_token` replaces the last token of the text. Raises UserError if the forward pass fails, or
    if prompts cannot enter every layer.
    """
    model_type, calls = model.config.model_type, list[AttentionCall]()
    if getattr(model.config, "is_encoder_decoder", False):
        raise _refusal(model_type, "it is an encoder-decoder, which reads two texts")
    try:
        hidden = run(calls=calls)
    except Exception as error:  # of code that is not ours
        reason = first_line(error)
        raise _refusal(
            model_type, f"its forward pass of ids and mask fails: {type(error).__name__}: {reason}"
        ) from error
    problems = _problems(calls, model.config, hidden)
    if problems:
        raise _refusal(model_type, "; ".join(problems))
    _check_causal(model_type, family, run)
    modules = [call.module for call in calls]
    _number(modules, model_type)
    layers = _layer_list(model, modules)
    if layers is None:
        raise _refusal(model_type, "its layers are not the entries of one list of modules")
    positions, first_position = _find_positions(run)
    if positions == "absolute" and first_position != family.first_position:
        raise _refusal(
            model_type,
            f"the index of its first position is {first_position}, but the tokenizer assumes "
            f"{family.first_position}: correct it in pipeline/pretrained/families.py",
        )
    return replace(
        family,
        layers=layers,
        positions=positions,
        query_value=_find_projections(modules[0]),
        output_size=_output_size(model.get_submodule(layers), run),
    )


def _refusal(model_type: str, reason: str) -> UserError:
    return UserError(
        f"backbone: deep prompts do not work on this {model_type!r} model: {reason}; use another "
        "backbone"
    )


def _problems(calls: Sequence[AttentionCall], config: Any, hidden: Tensor) -> list[str]:
    """The reasons why prompts cannot enter the attention as the model calls it."""
    if not calls:
        return ["none of its layers calls the attention interface of transformers"]
    problems, num_layers = [], int(config.num_hidden_layers)
    if hidden.shape[1] != config.hidden_size:
        problems.append(
            f"its hidden states have {hidden.shape[1]} values, but hidden_size is "
            f"{config.hidden_size}"
        )
    if len({id(call.module) for call in calls}) < len(calls):
        problems.append("a layer calls its attention more than once in a forward pass")
    elif len(calls) != num_layers:
        problems.append(
            f"{len(calls)} attentions are called in {num_layers} layers (the others have no "
            "attention, an attention of their own, or one to other states)"
        )
    unknown = {name for call in calls for name in call.keywords} - _KNOWN_KEYWORDS
    if unknown:
        problems.append(f"its attention takes {', '.join(sorted(unknown))}, which prompts ignore")
    if any(call.key_shape[2] != call.query_shape[2] for call in calls):
        problems.append("its keys are not those of the tokens of the text")
    if any(call.key_shape != call.value_shape for call in calls):
        problems.append("its keys and values have different sizes")
    elif len({call.key_shape for call in calls}) > 1:
        problems.append("its layers have keys of different sizes")
    return problems


def _check_causal(model_type: str, family: Family, run: Run) -> None:
    """Raise UserError if the model is not causal, or not bidirectional, as the tokenizer assumes.

    A change of the last token changes the states of the other tokens, except in a causal model.
    """
    plain = run()
    if not _equal(run(), plain):
        raise _refusal(model_type, "two forward passes of the same text differ")
    causal = _equal(run(last_token=11)[:-1], plain[:-1])
    if causal != family.causal:
        kinds = ("bidirectional", "causal")
        raise _refusal(
            model_type,
            f"its attention is {kinds[causal]}, but the tokenizer assumes {kinds[family.causal]}: "
            "correct it in pipeline/pretrained/families.py",
        )


def _number(modules: Sequence[nn.Module], model_type: str) -> None:
    """Give each attention module the index of its layer, in the order of the calls."""
    indices = [getattr(module, "layer_idx", None) for module in modules]
    if indices not in ([None] * len(modules), list(range(len(modules)))):
        raise _refusal(model_type, f"its attentions have the layer indices {indices}")
    for index, module in enumerate(modules):
        module.layer_idx = index  # type: ignore[assignment]


def _layer_list(model: nn.Module, modules: Sequence[nn.Module]) -> str | None:
    """The path of the list whose entry i contains attention i; None if there is no such list."""
    names = {id(module): name for name, module in model.named_modules()}
    paths = [names[id(module)].split(".") for module in modules]
    for depth, part in enumerate(paths[0]):
        prefix = ".".join(paths[0][:depth])
        if part == "0" and isinstance(model.get_submodule(prefix), nn.ModuleList):
            expected = [[*paths[0][:depth], str(index)] for index in range(len(paths))]
            if [path[: depth + 1] for path in paths] == expected:
                return prefix
    return None


def _find_projections(attention: nn.Module) -> tuple[str, ...]:
    """The names of the modules that LoRA adapts; empty if they are not known."""
    names = {name.rpartition(".")[2] for name, _ in attention.named_modules()}
    return next((pair for pair in _PROJECTIONS if names.issuperset(pair)), ())


def _output_size(layers: Any, run: Run) -> int:
    """The size of the tuple that a layer returns, or 0."""
    sizes = list[int]()

    def record(_: nn.Module, __: Any, output: Any) -> None:
        sizes.append(len(output) if isinstance(output, tuple) else 0)

    hook = layers[0].register_forward_hook(record)
    try:
        run()
    finally:
        hook.remove()
    return sizes[0]


def _find_positions(run: Run) -> tuple[Any, int]:
    """The kind of the positions, and the index of the first one.

    A model that ignores `position_ids` counts as relative: positions cannot be shifted there.
    """
    plain = run()
    order = torch.arange(len(plain), device=plain.device)[None]
    try:
        stretched = run(position_ids=3 * order)
        if _equal(stretched, plain):
            return "relative", 0
        shifted = [
            first
            for first in range(_MAX_FIRST_POSITION + 1)
            if _equal(run(position_ids=order + first), plain)
        ]
    except (TypeError, ValueError):  # It has no such argument.
        return "relative", 0
    if len(shifted) > 1:
        return "rotary", 0
    return "absolute", shifted[0] if shifted else -1


def _equal(actual: Tensor, expected: Tensor) -> bool:
    return bool((actual - expected).abs().max() <= _EQUAL * expected.abs().max())
