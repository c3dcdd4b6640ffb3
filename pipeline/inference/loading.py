"""Load a predictor: the artifacts of one or many tasks on their common backbone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pipeline.arms import ARMS
from pipeline.artifacts.artifact import load_into_backbone
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.errors import UserError
from pipeline.inference.arguments import check_load_arguments
from pipeline.inference.artifact_set import (
    ServedArtifact,
    check_compatible,
    common_precision,
    merge_heads,
    precision_warnings,
    read_artifacts,
    warnings_of,
)
from pipeline.inference.predictor import Predictor
from pipeline.model.backbone import Backbone
from pipeline.model.precision import inference_precision
from pipeline.params import MIN_WINDOW, BackboneParams, is_window_size
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.task import LM_HEADS

DEFAULT_WINDOW = 512  # tokens of a window, if neither the caller nor the artifact sets a length


def load(
    artifacts: Mapping[str, Path | str] | Sequence[Path | str],
    backbone: BackboneParams | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    max_length: int | None = None,
    stride: int | None = None,
) -> Predictor:
    """Load a predictor for all tasks of some artifacts, which were trained on the same backbone.

    `artifacts` are folders. The name of a task is the name of its head. In a mapping, the key is
    the new name of an artifact's head, if it has only one head. `backbone` is another location of
    the backbone, with the same files. The backbone computes in `dtype`. By default, this is the
    precision that the artifacts were trained in; it is float32 if they differ, or if a device
    without native bfloat16 products would compute in bfloat16. Windows have at most `max_length`
    tokens and overlap by `stride`; by default, these are the values that each head was trained
    with. Raises UserError if an argument has a wrong type, or if an artifact is broken, does not
    fit the backbone, or is not compatible with another artifact.
    """
    check_load_arguments(artifacts, backbone, device, dtype, max_length=max_length, stride=stride)
    served = read_artifacts(artifacts)
    params = backbone or served[0].config.backbone
    check_compatible(served, None if backbone else params)
    folder = locate(params)
    lm_head = any(
        head.kind in LM_HEADS for artifact in served for head in artifact.heads_by_name.values()
    )
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # An artifact with other weights of the backbone is the only one (see `served_alone`).
    config = served[0].config
    recorded = common_precision(served) if dtype is None else "float32"
    loaded = Backbone.load(
        folder,
        lm_head,
        inference_precision(recorded, device),
        ARMS[config.arm].trains_backbone,
        decoder=config.backbone.decoder,
        random_seed=config.random_seed,
    )
    windows = (max_length, stride)
    predictor = _assemble(served, params, loaded, loaded.tokenizer, windows, device, dtype)
    if dtype is None:
        predictor.warnings += precision_warnings(served, loaded.precision, device)
    return predictor


def load_beside(
    predictor: Predictor,
    artifacts: Mapping[str, Path | str] | Sequence[Path | str],
    params: BackboneParams,
    dtype: torch.dtype | None = None,
    max_length: int | None = None,
) -> Predictor:
    """Load a predictor for other artifacts on the backbone of `predictor`; the two share it.

    The backbone keeps its precision. `params` is the backbone of `predictor`, and `dtype` the
    argument that it was loaded with. The caller checks `shares_backbone` for the artifacts of both.
    Raises the UserErrors of `load`.
    """
    served = read_artifacts(artifacts)
    check_compatible(served, params)
    backbone = predictor.model.backbone
    windows = (max_length, None)
    device = predictor.device
    result = _assemble(served, params, backbone, predictor.tokenizer, windows, device)
    if dtype is None:
        result.warnings += precision_warnings(served, backbone.precision, device)
    return result


def shares_backbone(config: ArtifactConfig) -> bool:
    """Whether a predictor of other artifacts can share its backbone with this artifact.

    The artifact must leave the backbone as it is, and need no LM head.
    """
    return not config.served_alone and not any(
        head.kind in LM_HEADS for head in config.heads.values()
    )


def _assemble(
    served: Sequence[ServedArtifact],
    params: BackboneParams,
    backbone: Backbone,
    tokenizer: Tokenizer,
    window_sizes: tuple[int | None, int | None],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Predictor:
    """The predictor of artifacts on a backbone, converted to `dtype` (None: not converted).

    `window_sizes` are those of `_window_sizes`.
    """
    heads = {name: head for artifact in served for name, head in artifact.heads_by_name.items()}
    prompts = [prompt for artifact in served for prompt in artifact.prompts(params, backbone)]
    # An artifact that changes the backbone is the only artifact (see `served_alone`).
    load_into_backbone(served[0].folder, served[0].config, backbone)
    if dtype is not None:
        backbone.convert(dtype)
    offset = max(artifact.config.position_offset for artifact in served)
    windows = [
        _window_sizes(head, *window_sizes, tokenizer.max_length - offset) for head in heads.values()
    ]
    merged = merge_heads(served, backbone.hidden_size)
    predictor = Predictor(backbone, tokenizer, heads, prompts, merged, windows, device)
    predictor.warnings = warnings_of(served)
    return predictor


def _window_sizes(
    head: TaskHead, max_length: int | None, stride: int | None, max_tokens: int
) -> tuple[int, int]:
    """Maximum length and overlap of the windows of a head.

    The defaults (None) are the values of the head's training, if known. The backbone has positions
    for `max_tokens` tokens of text. Raises UserError if the values are out of range.
    """
    if max_length is None:
        length = min(max_tokens, head.max_length or DEFAULT_WINDOW)
    else:
        length = int(max_length)
    if stride is not None:
        overlap = int(stride)
    elif length == head.max_length and head.stride is not None:
        overlap = head.stride
    else:
        overlap = length // 4
    if length > max_tokens or not is_window_size(length, overlap):
        raise UserError(
            f"max_length is {length} and stride {overlap}, and the backbone has positions for "
            f"{max_tokens} tokens of text; "
            f"give a max_length of {MIN_WINDOW} to {max_tokens} and a stride below half of it"
        )
    return length, overlap
