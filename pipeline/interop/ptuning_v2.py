"""Checkpoints of P-tuning v2's repository (github.com/THUDM/P-tuning-v2) as deep prompts."""

from pathlib import Path

import torch
from torch.nn.functional import linear

from pipeline.errors import UserError
from pipeline.interop.tensors import read_tensors, shape_problems, table_width
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt, unfold_table

_PLAIN = {"embedding.weight"}
_PROJECTED = _PLAIN | {f"trans.{number}.{part}" for number in (0, 2) for part in ("weight", "bias")}


def from_ptuning_v2(file: Path, backbone: Backbone) -> DeepPrompt:
    """The prompt [L, 2, H, P, D] in a checkpoint of github.com/THUDM/P-tuning-v2, with or without projection, as safetensors.

    Only its `prefix_encoder` is read. Raises UserError: unreadable, pickled, no such tensors, what does not fit the backbone.
    """
    if backbone.family.positions == "rotary":
        raise UserError(
            f"{file}: P-tuning v2 has no {backbone.config.model_type!r} models, so nobody knows where the positions "
            "of the text began; use the backbone it was made for"
        )
    _, found = read_tensors(file, "prefix_encoder.")
    tensors = {name.split("prefix_encoder.")[1]: tensor for name, tensor in found.items()}
    if tensors.keys() not in (_PLAIN, _PROJECTED) or len(tensors) < len(found):
        raise UserError(
            f"{file}: of a prefix_encoder it holds {', '.join(sorted(found)) or 'nothing'}, expected "
            f"{', '.join(sorted(_PLAIN))} alone or {', '.join(sorted(_PROJECTED))}; give a model of P-tuning v2"
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
    numbers = {name: tensor.float() for name, tensor in tensors.items()}
    table = numbers["embedding.weight"]
    if projected:
        inside = torch.tanh(linear(table, numbers["trans.0.weight"], numbers["trans.0.bias"]))
        table = linear(inside, numbers["trans.2.weight"], numbers["trans.2.bias"])
    offset = (
        0 if backbone.family.positions == "relative" else count
    )  # distances stay what they are, wherever the text begins
    return DeepPrompt(unfold_table(table, backbone.prompt_shape(count)), position_offset=offset)
