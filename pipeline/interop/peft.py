"""Deep prompts from and to other libraries: prefix tuning of peft, and checkpoints of P-tuning v2's repository.

Both keep a prompt as a table [P, 2 L H D] whose rows are layer, key or value, head, number. They hand it to the model as a cache
of keys and values, so that the text's positions begin at P: that is a prompt's `position_offset`. No file is ever unpickled.
"""

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config import load_json, parse
from pipeline.errors import UserError
from pipeline.files import atomic_folder, write_json
from pipeline.interop.tensors import read_tensors, shape_problems, table_width
from pipeline.model.backbone import Backbone, quiet_transformers
from pipeline.model.prompt import DeepPrompt, unfold_table

TOLERANCE = 1e-4
"""How far hidden states may be from peft's."""

_NO_CACHE = "its model takes no cache of keys and values: peft fails on padded texts, and fails or ignores the prompt on others"
UNKNOWN_TO_PEFT = dict.fromkeys(
    ("albert", "deberta", "deberta-v2", "distilbert", "modernbert", "mpnet"), _NO_CACHE
)
"""`model_type` -> why peft's prefix tuning does not work on it; measured with peft 0.21.2 and held by tests/pipeline/interop/test_interop.py."""
_NOT_SHIFTED = ("eurobert",)  # under peft: it counts positions from 0, whatever is in its cache


@dataclass(frozen=True)
class _PeftConfig:
    """adapter_config.json as peft 0.21.2 writes it, key for key; older ones lack some."""

    num_virtual_tokens: int
    num_layers: int
    num_attention_heads: int
    token_dim: int
    num_transformer_submodules: Literal[1] = 1
    encoder_hidden_size: int | None = None
    prefix_projection: bool = False  # of the training; what is saved is always computed
    base_model_name_or_path: str | None = None
    inference_mode: bool = True
    task_type: str | None = (
        "FEATURE_EXTRACTION"  # without any, peft would load the adapter and leave it out of the forward pass
    )
    peft_type: str = "PREFIX_TUNING"
    peft_version: str | None = "0.21.2"
    auto_mapping: Any = None
    init_weights: Any = None
    modules_to_save: Any = None
    revision: str | None = None


def from_peft(folder: Path, backbone: Backbone) -> DeepPrompt:
    """The prompt [L, 2, H, P, D] of a prefix tuning adapter saved by peft, number for number; a head beside it stays behind.

    Raises UserError: files missing or pickled, another method, shapes that do not fit the backbone, a backbone that was trained
    too, or on which peft does something else.
    """
    path, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not path.is_file():
        raise UserError(
            f"{folder}: holds no adapter_config.json; give the folder that peft's save_pretrained wrote"
        )
    values = load_json(path)
    if (
        isinstance(values, dict) and values.get("peft_type") != "PREFIX_TUNING"
    ):  # first: other methods have other keys
        raise UserError(
            f"{path}: peft_type is {values.get('peft_type')!r}; only PREFIX_TUNING makes a deep prompt"
        )
    config = parse(_PeftConfig, values, str(path))
    names, tensors = read_tensors(weights, "prompt_embeddings")
    shape = backbone.prompt_shape(config.num_virtual_tokens)
    fits = {
        "num_layers": shape[0],
        "num_attention_heads": shape[2],
        "token_dim": shape[2] * shape[4],
    }
    problems = [
        f"{path}: {name} is {getattr(config, name)}, the backbone has {value}; use the backbone it was made for"
        for name, value in fits.items()
        if getattr(config, name) != value
    ]
    problems += shape_problems(
        weights, tensors, {"prompt_embeddings": (config.num_virtual_tokens, table_width(backbone))}
    )
    body = tuple(f".{name}" for name, _ in backbone.model.named_parameters())
    if trained := [name for name in names if name.endswith(body)]:
        problems.append(
            f"{weights}: holds weights of the backbone too ({trained[0]}, modules_to_save is "
            f"{config.modules_to_save}); it is no prompt for a frozen backbone, train one without modules_to_save"
        )
    problems += _unlike_peft(backbone)
    if problems:
        raise UserError(*problems)
    return DeepPrompt(
        unfold_table(tensors["prompt_embeddings"].float(), shape),
        position_offset=_shift(backbone, shape[3]),
    )


def to_peft(folder: Path, prompt: DeepPrompt, backbone: Backbone, base_model_name: str) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` loads onto `AutoModel.from_pretrained(base_model_name)`.

    Hidden states are then the same, text pairs aside: peft's class for a model without head drops `token_type_ids`. A prompt that
    shifts the text by another number of positions than peft does is made up for where positions are rotary: its keys are turned.
    Raises UserError with all reasons why the prompt would not be the same under peft.
    """
    shape = backbone.prompt_shape(prompt.num_virtual_tokens)
    by = _shift(backbone, prompt.num_virtual_tokens) - prompt.position_offset
    problems = _unlike_peft(backbone) or _unmovable(prompt, backbone, by)
    last = prompt.first_layer + prompt.shape[0] - 1
    if (prompt.first_layer, last) != (0, shape[0] - 1):
        problems.append(
            f"prompt: it is in layers {prompt.first_layer} to {last} of 0 to {shape[0] - 1}, and peft's are in all; "
            "train one with prompt_layers: all"
        )
    if prompt.shape[1:] != shape[1:]:
        problems.append(
            f"prompt: its shape is {prompt.shape}, the backbone takes {shape}; use the backbone it was made for"
        )
    if problems:
        raise UserError(*problems)
    with torch.no_grad():
        key_values = prompt.materialize().float()
        if by:
            key_values = torch.stack(
                [_turned(key_values[:, 0], backbone, by), key_values[:, 1]], dim=1
            )
        table = key_values.permute(3, 0, 1, 2, 4).flatten(1).cpu().contiguous()
    width = shape[2] * shape[4]
    config = _PeftConfig(
        prompt.num_virtual_tokens,
        shape[0],
        shape[2],
        width,
        encoder_hidden_size=width,
        base_model_name_or_path=base_model_name,
    )
    with atomic_folder(folder) as beside:
        write_json(beside / "adapter_config.json", dataclasses.asdict(config))
        save_file(
            {"prompt_embeddings": table}, beside / "adapter_model.safetensors", {"format": "pt"}
        )


def verify(
    folder: Path,
    prompt: DeepPrompt,
    backbone: Backbone,
    backbone_folder: Path,
    input_ids: Tensor,
    attention_mask: Tensor,
) -> float:
    """Run peft itself with an exported prompt, and ours: the largest difference of their hidden states at real tokens.

    `backbone_folder` is where peft's model is loaded from; `input_ids` and `attention_mask` [B, T] are padded on the right, and
    leave P of the backbone's positions free. Differences are divided by the largest hidden state where that is above 1.
    Raises UserError: peft is not installed, cannot load or run the export, or differs by more than TOLERANCE.
    """
    with torch.no_grad(), warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        try:
            from peft import PeftModel  # noqa: PLC0415  (an extra, and slow to import)
        except ImportError as error:
            raise UserError(
                "peft is not installed, and only it can verify an export; pip install 'deep-prompt[peft]'"
            ) from error
        from_peft(
            folder, backbone
        )  # before peft reads it: for a file that is missing, peft would take a pickle, or ask the hub
        ours = backbone(input_ids, attention_mask, torch.zeros_like(input_ids), prompt())
        try:
            stock = (
                type(backbone.model)
                .from_pretrained(
                    backbone_folder,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=torch.float32,
                )
                .to(input_ids.device)
            )
            peft: Any = PeftModel.from_pretrained(
                stock, str(folder), torch_device=str(input_ids.device)
            ).eval()
            theirs = peft(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        except Exception as error:  # peft fails in as many ways as there are models
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{folder}: peft cannot run it on {backbone_folder}: {reason}; export it again, onto its own backbone"
            ) from error
    real = attention_mask.bool()
    difference = float((theirs - ours)[real].abs().max() / ours[real].abs().max().clamp(min=1.0))
    if not difference <= TOLERANCE:  # NaN is no success
        raise UserError(
            f"{folder}: peft's hidden states differ from ours by {difference:.2g}, more than {TOLERANCE}; "
            f"export it again, and check that {backbone_folder} is the backbone it was made for"
        )
    return difference


def _shift(backbone: Backbone, count: int) -> int:
    """By how many positions the text is shifted under peft."""
    return 0 if backbone.config.model_type in _NOT_SHIFTED else count


def _unlike_peft(backbone: Backbone) -> list[str]:
    """Why prompts on a backbone cannot be the same under peft, if so."""
    family, window = backbone.config.model_type, getattr(backbone.config, "sliding_window", None)
    if family in UNKNOWN_TO_PEFT:
        return [
            f"backbone: peft's prefix tuning does not work on {family!r} models ({UNKNOWN_TO_PEFT[family]}); use another"
        ]
    if window is not None:
        return [
            f"backbone: sliding_window is {window}, and peft hides a prompt from tokens past it where ours is seen by all; "
            "where a prompt and its text are never longer, set sliding_window to null in the backbone's config.json"
        ]
    return []


def _unmovable(prompt: DeepPrompt, backbone: Backbone, by: int) -> list[str]:
    """Why keys cannot make up for a text that is shifted `by` more positions than in training, if so."""
    if not by:
        return []
    what = f"prompt: it shifts the text by {prompt.position_offset} positions, and peft by {prompt.position_offset + by}"
    if backbone.family.positions != "rotary":
        return [
            f"{what}; with learned positions the two are not the same, train one with shift_positions: true"
        ]
    kind = backbone.model.rotary_emb.rope_type
    if kind in ("dynamic", "longrope"):
        return [
            f"{what}; with rope_type {kind!r} the text's angles depend on its length, train one with shift_positions: true"
        ]
    return []


def _turned(keys: Tensor, backbone: Backbone, by: int) -> Tensor:
    """Keys [L, H, P, D] as seen from a text that is `by` positions further on, by the backbone's own rotary embedding."""
    rotary = backbone.model.rotary_emb
    cos, sin = rotary(keys, torch.tensor([[by]], device=keys.device))
    # The family's own function: some turn halves, some turn neighbors, some only a part.
    rotate = sys.modules[type(backbone.model).__module__].apply_rotary_pos_emb
    scaling = rotary.attention_scaling  # is in the text's queries already
    turned: Tensor = rotate(keys, keys, cos / scaling, sin / scaling)[1]
    return turned
