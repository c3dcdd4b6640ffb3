"""Import of checkpoints of P-tuning v2 (github.com/THUDM/P-tuning-v2)."""

from pathlib import Path

import torch
from torch.nn.functional import linear

from pipeline.errors import UserError
from pipeline.interop.tensors import read_tensors, shape_problems, table_width
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt, unfold_table

_PLAIN = {"embedding.weight"}
_PROJECTED = _PLAIN | {"trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias"}


def from_ptuning_v2(file: Path, backbone: Backbone) -> DeepPrompt:
    """Read the prompt [L, 2, H, P, D] of a P-tuning v2 checkpoint, with or without projection.

    `file` is in safetensors format; only the tensors of its `prefix_encoder` are read. Raises
    UserError if the file is unreadable or a pickle, if it lacks these tensors, or if they do not
    fit the backbone.
    """
    if backbone.family.positions == "rotary" or backbone.is_encoder_decoder:
        raise UserError(
            f"{file}: P-tuning v2 has no {backbone.config.model_type!r} models, so the position of "
            "the first text token is unknown; use the backbone it was made for"
        )
    _, prefix_tensors = read_tensors(file, "prefix_encoder.")
    tensors = {name.split("prefix_encoder.")[1]: tensor for name, tensor in prefix_tensors.items()}
    if tensors.keys() not in (_PLAIN, _PROJECTED) or len(tensors) < len(prefix_tensors):
        raise UserError(
            f"{file}: its prefix_encoder has {', '.join(sorted(prefix_tensors)) or 'no tensors'}, "
            f"expected {', '.join(sorted(_PLAIN))} alone or {', '.join(sorted(_PROJECTED))}; "
            "give a checkpoint of P-tuning v2"
        )
    table, width, size = tensors["embedding.weight"], table_width(backbone), backbone.hidden_size
    count = table.shape[0] if table.ndim else 0
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (count, width)}
    if projected := "trans.0.bias" in tensors:
        inner = tensors["trans.0.bias"].numel()
        shapes = {
            "embedding.weight": (count, size),
            "trans.0.weight": (inner, size),
            "trans.0.bias": (inner,),
            "trans.2.weight": (width, inner),
            "trans.2.bias": (width,),
        }
    if problems := shape_problems(file, tensors, shapes):
        raise UserError(*problems)
    float_tensors = {name: tensor.float() for name, tensor in tensors.items()}
    table = float_tensors["embedding.weight"]
    if projected:
        hidden = torch.tanh(
            linear(table, float_tensors["trans.0.weight"], float_tensors["trans.0.bias"])
        )
        table = linear(hidden, float_tensors["trans.2.weight"], float_tensors["trans.2.bias"])
    # A shift of the text does not change relative distances.
    offset = 0 if backbone.family.positions == "relative" else count
    return DeepPrompt(unfold_table(table, backbone.prompt_shape(count)), position_offset=offset)
