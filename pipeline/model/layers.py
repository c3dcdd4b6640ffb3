"""The layers of a model: find, skip and checkpoint them, and replace modules of a model."""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.model.attention import call_with, current_arguments
from pipeline.pretrained.families import Family


def layers_of(model: Any, family: Family) -> Iterator[Any]:
    """The modules of the layers, in order. ALBERT calls each of them several times."""
    return (layer for _, layer in _named_layers(model, family))


def attentions_of(model: Any, family: Family) -> Iterator[Any]:
    """The attention modules of an encoder-decoder, in the order in which a forward pass calls them.

    These are the self-attentions of the encoder's layers, then the self-attention and the
    cross-attention of each layer of the decoder. A deep prompt has a layer for each of them.
    """
    for name, layer in _named_layers(model, family):
        is_decoder = name.startswith(f"{family.decoder_layers}.")
        for path in family.attentions[: 1 + is_decoder]:
            yield layer.get_submodule(path)


def only_layers(
    model: Any, family: Family, layer_indices: range, first_input: Tensor | None = None
) -> tuple[Any, list[Tensor]]:
    """A copy of `model` that runs only some layers; the other layers return their input.

    It shares the weights of `model` and the layers `layer_indices`. The first of these layers gets
    `first_input` [B, T, C] in place of its input, if it is not None. Returns the copy, and a list
    that collects the inputs [B, T, C] of the skipped layers, in order.
    """
    skipped_inputs = list[Tensor]()

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        skipped_inputs.append(hidden_states)
        if not family.output_size:
            return hidden_states
        return (hidden_states, *[None] * (family.output_size - 1))

    replacements = {}
    for layer_index, (name, layer) in enumerate(_named_layers(model, family)):
        if layer_index not in layer_indices:
            forward: Callable[..., Any] = skip
        elif layer_index == layer_indices.start and first_input is not None:
            forward = partial(_forward_from, layer, first_input)
        else:
            continue
        replacements[name] = copy.copy(layer)  # The model reads attributes of its layers.
        replacements[name].forward = forward
    return with_modules(model, replacements), skipped_inputs


def _named_layers(model: Any, family: Family) -> Iterator[tuple[str, Any]]:
    """The modules of the layers and their names in the model, in order; the encoder's first."""
    for stack in filter(None, (family.layers, family.decoder_layers)):
        for name, entry in model.get_submodule(stack).named_children():
            path = f"{stack}.{name}"
            if family.route != "shared":
                yield path, entry
                continue
            for inner, layer in entry.albert_layers.named_children():
                yield f"{path}.albert_layers.{inner}", layer


def with_modules(model: Any, replacements: Mapping[str, nn.Module]) -> Any:
    """A copy of `model` with other modules under some names; it shares everything else."""
    copies = {"": _copy_of_module(model)}
    for name, replacement in replacements.items():
        parent, path = copies[""], ""
        *parts, last = name.split(".")
        for part in parts:
            path += f".{part}"
            if path not in copies:
                copies[path] = _copy_of_module(parent.get_submodule(part))
                vars(parent)["_modules"][part] = copies[path]
            parent = copies[path]
        vars(parent)["_modules"][last] = replacement
    return copies[""]


def _copy_of_module(module: nn.Module) -> nn.Module:
    """A copy that has the same parameters and submodules; the submodules may be replaced."""
    result = copy.copy(module)
    vars(result)["_modules"] = dict(vars(module)["_modules"])
    return result


def _forward_from(
    layer: nn.Module, first_input: Tensor, _: Tensor, *args: Any, **kwargs: Any
) -> Any:
    return layer.forward(first_input, *args, **kwargs)


def checkpoint_layers(model: Any, family: Family) -> None:
    """Recompute the activations of each layer in the backward pass (gradient checkpointing).

    This saves memory and takes about a third more time. The implementation of transformers works
    in training mode only, hence with dropout, and some families do not support it.
    """
    for layer in layers_of(model, family):
        replace_forward(layer, _checkpointed)


def _checkpointed(module: Any, /, *args: Any, **kwargs: Any) -> Any:
    forward = type(module).replaced_class.forward
    # The backward pass may run in another thread, or after another forward pass.
    recompute = partial(call_with, current_arguments(), forward, module)
    return checkpoint(recompute, *args, use_reentrant=False, **kwargs)


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Replace the method `forward` of one module.

    The module becomes an instance of a subclass. A function in the module's `__dict__` would be
    bound to this module, and replicas of it would compute with its weights.
    """
    base: Any = type(module)
    if getattr(base, "new_forward", None) is not forward:
        module.__class__ = _subclass(base, forward)


@cache
def _subclass(base: type, forward: Callable[..., Any]) -> type:
    body: dict[str, Any] = {"forward": forward, "__reduce__": _reduce}
    # The base class may wrap `forward` in each subclass, so the function is kept too.
    body |= {"replaced_class": base, "new_forward": forward}
    return type(f"Prompted{base.__name__}", (base,), body)


def _reduce(module: Any) -> tuple[Any, ...]:
    """How to copy or pickle a module of `_subclass`; no module has the class under its name."""
    replaced = type(module)
    return _new_module, (replaced.replaced_class, replaced.new_forward), vars(module)


def _new_module(base: type, forward: Callable[..., Any]) -> Any:
    result_class: Any = _subclass(base, forward)
    return result_class.__new__(result_class)
