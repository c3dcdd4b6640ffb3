"""Import and export of deep prompts as prefix tuning adapters of peft, and export of LoRA factors.

peft, like P-tuning v2, stores a prompt as a table [P, 2 L H D] (see `unfold_table`) and passes it
to the model as a key/value cache. So the positions of the text start at P: this is the
`position_offset` of a prompt. Most of its classes ignore token types: this is `zero_token_types`.
No file is unpickled.
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
from pipeline.errors import UserError, first_line
from pipeline.files import atomic_folder, write_json
from pipeline.interop.tensors import read_tensors, shape_problems, table_width
from pipeline.model.backbone import Backbone
from pipeline.model.lora import import_peft, lora_config, lora_factors
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.model.prompt import DeepPrompt, unfold_table
from pipeline.pretrained.families import FAMILIES

TOLERANCE = 1e-4
"""Maximum difference between the hidden states of deep-prompt and of peft."""

_NO_CACHE = (
    "its model takes no key/value cache: peft fails on padded texts, and fails or ignores the "
    "prompt on other texts"
)
UNSUPPORTED_BY_PEFT = dict.fromkeys(
    ("albert", "deberta", "deberta-v2", "distilbert", "modernbert", "mpnet"), _NO_CACHE
)
"""`model_type` -> reason why prefix tuning of peft does not work on it.

Measured with peft 0.21.2; tests/pipeline/interop/test_interop.py checks it.
"""
NOT_COMPARED = frozenset({"gemma2", "mt5", "t5", "umt5"})
"""Families with a reference test whose prompts were not compared with those of peft."""
_UNSHIFTED = ("eurobert",)  # the model counts positions from 0, also with a cache
_USES_TOKEN_TYPES = {
    "SEQ_CLS": True,
    "TOKEN_CLS": True,
    "QUESTION_ANS": False,
    "FEATURE_EXTRACTION": False,
    "CAUSAL_LM": False,
}
"""`task_type` -> whether the class of peft for it passes token types to the model.

Read from peft 0.21.2; tests/pipeline/interop/test_interop.py checks it.
"""


@dataclass(frozen=True)
class _PeftConfig:
    """The keys of adapter_config.json as of peft 0.21.2; older versions lack some of them."""

    num_virtual_tokens: int
    num_layers: int
    num_attention_heads: int
    token_dim: int
    num_transformer_submodules: Literal[1] = 1
    encoder_hidden_size: int | None = None
    prefix_projection: bool = False  # in training; the file always contains its output
    base_model_name_or_path: str | None = None
    inference_mode: bool = True
    task_type: str | None = "FEATURE_EXTRACTION"  # with None, peft ignores the adapter
    peft_type: str = "PREFIX_TUNING"
    peft_version: str | None = "0.21.2"
    auto_mapping: Any = None
    init_weights: Any = None
    modules_to_save: Any = None
    revision: str | None = None


def from_peft(folder: Path, backbone: Backbone) -> DeepPrompt:
    """Read the prompt [L, 2, H, P, D] of a prefix tuning adapter of peft, without its head.

    Warns of each unknown key in adapter_config.json (UserWarning). Raises UserError if files are
    missing, unreadable or pickles, if the adapter is of another method, includes backbone weights
    or does not fit the backbone, or if the prompt does not work the same under peft on this
    backbone.
    """
    path, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not path.is_file():
        raise UserError(
            f"{folder}: has no adapter_config.json; "
            "give the folder that save_pretrained of peft wrote"
        )
    values = load_json(path)
    # Check the method before the keys: other methods have other keys.
    if isinstance(values, dict) and values.get("peft_type") != "PREFIX_TUNING":
        raise UserError(
            f"{path}: peft_type is {values.get('peft_type')!r}, and only PREFIX_TUNING is a deep "
            "prompt; give a prefix tuning adapter"
        )
    config = _parse_config(values, path)
    names, tensors = read_tensors(weights, "prompt_embeddings")
    shape = backbone.prompt_shape(config.num_virtual_tokens)
    expected = {
        "num_layers": shape[0],
        "num_attention_heads": shape[2],
        "token_dim": shape[2] * shape[4],
    }
    problems = [
        f"{path}: {name} is {getattr(config, name)}, but the backbone has {value}; "
        "use the backbone it was made for"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    problems += shape_problems(
        weights, tensors, {"prompt_embeddings": (config.num_virtual_tokens, table_width(backbone))}
    )
    backbone_names = tuple(f".{name}" for name, _ in backbone.model.named_parameters())
    if trained := [name for name in names if name.endswith(backbone_names)]:
        problems.append(
            f"{weights}: contains weights of the backbone ({trained[0]}; modules_to_save is "
            f"{config.modules_to_save}), but a deep prompt needs a frozen backbone; "
            "train an adapter without modules_to_save"
        )
    problems += _backbone_problems(backbone)
    if problems:
        raise UserError(*problems)
    return DeepPrompt(
        unfold_table(tensors["prompt_embeddings"].float(), shape),
        position_offset=_peft_offset(backbone, shape[3]),
        zero_token_types=backbone.token_types > 1
        and not _USES_TOKEN_TYPES.get(str(config.task_type), True),
    )


def _parse_config(values: Any, path: Path) -> _PeftConfig:
    """Parse the content of adapter_config.json; an unknown key causes a warning."""
    if isinstance(values, dict):
        known = {field.name for field in dataclasses.fields(_PeftConfig)}
        for key in sorted(values.keys() - known):
            warnings.warn(
                f"{path}: unknown key {key!r} is {str(values[key])[:40]!r}, and the import ignores "
                "it; correct its spelling, or compare the predictions with those of peft",
                stacklevel=3,
            )
        values = {key: values[key] for key in values if key in known}
    return parse(_PeftConfig, values, str(path))


def to_peft(folder: Path, prompt: DeepPrompt, backbone: Backbone, base_model_name: str) -> None:
    """Write an adapter for `peft.PeftModel.from_pretrained`, on `AutoModel` of `base_model_name`.

    The hidden states under peft are the same, except for text pairs: the class of peft for a model
    without head drops `token_type_ids`. peft may shift the text by another number of positions than
    the prompt does. With rotary positions, the keys are rotated to correct this. Raises UserError
    with all reasons why the prompt would not work the same under peft.
    """
    shape = backbone.prompt_shape(prompt.num_virtual_tokens)
    shift = _peft_offset(backbone, prompt.num_virtual_tokens) - prompt.position_offset
    problems = _backbone_problems(backbone) or _shift_problems(prompt, backbone, shift)
    last = prompt.first_layer + prompt.shape[0] - 1
    if (prompt.first_layer, last) != (0, shape[0] - 1):
        problems.append(
            f"prompt: covers layers {prompt.first_layer} to {last} of 0 to {shape[0] - 1}, but "
            "peft needs all layers; train a prompt with prompt_layers: all"
        )
    if prompt.shape[1:] != shape[1:]:
        problems.append(
            f"prompt: its shape is {prompt.shape}, but the backbone needs {shape}; "
            "use the backbone it was made for"
        )
    if prompt.scale_shift_units is not None:
        problems.append(
            "prompt: has scales and shifts, and prefix tuning of peft has none; train a prompt "
            "with scale_shift: false"
        )
    if problems:
        raise UserError(*problems)
    with torch.no_grad():
        key_values = prompt.materialize().float()
        if shift:
            keys = _rotate_keys(key_values[:, 0], backbone, shift)
            key_values = torch.stack([keys, key_values[:, 1]], dim=1)
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
    with atomic_folder(folder) as output:
        write_json(output / "adapter_config.json", dataclasses.asdict(config))
        save_file(
            {"prompt_embeddings": table}, output / "adapter_model.safetensors", {"format": "pt"}
        )


def lora_to_peft(folder: Path, backbone: Backbone, base_model_name: str) -> None:
    """Write the LoRA factors in a backbone as a peft adapter.

    Load it with `peft.PeftModel.from_pretrained`. Under peft,
    `AutoModel.from_pretrained(base_model_name)` then has the same hidden states. Raises UserError
    if the backbone is a whole encoder-decoder.
    """
    if backbone.is_encoder_decoder:
        raise UserError(
            f"backbone: factors of whole {backbone.config.model_type!r} models were not compared "
            "with those of peft; use a backbone without decoder: true"
        )
    config = lora_config(backbone) | {
        "base_model_name_or_path": base_model_name,
        "inference_mode": True,
    }
    factors = {
        f"base_model.model.{name}": factor.detach().float().cpu().contiguous()
        for name, factor in lora_factors(backbone).items()
    }
    with atomic_folder(folder) as output:
        write_json(output / "adapter_config.json", config)
        save_file(factors, output / "adapter_model.safetensors", {"format": "pt"})


def verify(
    folder: Path,
    prompt: DeepPrompt | None,
    backbone: Backbone,
    backbone_folder: Path,
    input_ids: Tensor,
    attention_mask: Tensor,
) -> float:
    """Run an export under peft; return the maximum difference of its hidden states.

    The export is of `prompt`, or (None) of the LoRA factors in `backbone`. peft loads its model
    from `backbone_folder`. `input_ids` and `attention_mask` [B, T] are padded on the right; T + P
    must not exceed the positions of the backbone. The maximum is over real tokens; it is divided by
    the maximum absolute hidden state if that exceeds 1. Raises UserError if peft is not installed,
    cannot load or run the export, or differs by more than `TOLERANCE`.
    """
    with torch.no_grad(), warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        library = import_peft()
        # Check the files first: in place of a missing file, peft loads a pickle or asks the Hub.
        if prompt is None:
            read_tensors(folder / "adapter_model.safetensors", "lora_")
        else:
            from_peft(folder, backbone)
        hidden = backbone(
            input_ids, attention_mask, torch.zeros_like(input_ids), prompt and prompt()
        )
        try:
            plain_model = (
                type(backbone.model)
                .from_pretrained(
                    backbone_folder,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=torch.float32,
                )
                .to(input_ids.device)
            )
            peft: Any = library.PeftModel.from_pretrained(
                plain_model, str(folder), torch_device=str(input_ids.device)
            ).eval()
            peft_hidden = peft(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        except Exception as error:  # the type of the error depends on the model
            reason = first_line(error)
            raise UserError(
                f"{folder}: peft cannot run it on {backbone_folder}: {reason}; "
                "export it again, with the backbone it was made for"
            ) from error
    real = attention_mask.bool()
    scale = hidden[real].abs().max().clamp(min=1.0)
    difference = float((peft_hidden - hidden)[real].abs().max() / scale)
    if not difference <= TOLERANCE:  # also True for NaN
        raise UserError(
            f"{folder}: the hidden states of peft differ from ours by {difference:.2g}, more than "
            f"{TOLERANCE}; export it again, and check that {backbone_folder} is the backbone "
            "it was made for"
        )
    return difference


def _peft_offset(backbone: Backbone, count: int) -> int:
    """Number of positions by which peft shifts the text."""
    return 0 if backbone.config.model_type in _UNSHIFTED else count


def _backbone_problems(backbone: Backbone) -> list[str]:
    """Reasons why prompts on this backbone do not work the same under peft."""
    family, window = backbone.config.model_type, getattr(backbone.config, "sliding_window", None)
    if family in UNSUPPORTED_BY_PEFT:
        return [
            f"backbone: prefix tuning of peft does not work on {family!r} models "
            f"({UNSUPPORTED_BY_PEFT[family]}); use another backbone"
        ]
    if family in NOT_COMPARED or backbone.family.route in ("traced", "two stacks"):
        compared = FAMILIES.keys() - UNSUPPORTED_BY_PEFT.keys() - NOT_COMPARED
        return [
            f"backbone: prompts of {family!r} models were not compared with those of peft; use "
            f"one of {', '.join(sorted(compared))}"
        ]
    if window is not None:
        return [
            f"backbone: sliding_window is {window}; under peft, tokens beyond the window do not "
            "see the prompt, but here all tokens see it; if prompt and text together are never "
            "longer than the window, set sliding_window to null in the backbone's config.json"
        ]
    return []


def _shift_problems(prompt: DeepPrompt, backbone: Backbone, shift: int) -> list[str]:
    """Reasons why rotated keys cannot correct a further shift of the text by `shift` positions."""
    if not shift:
        return []
    offset = prompt.position_offset
    problem = f"prompt: shifts the text by {offset} positions, but peft by {offset + shift}"
    if backbone.family.positions != "rotary":
        return [
            f"{problem}, and the export cannot correct this without rotary positions; "
            "train a prompt with shift_positions: true"
        ]
    kind = backbone.model.rotary_emb.rope_type
    if kind in ("dynamic", "longrope"):
        return [
            f"{problem}, and with rope_type {kind!r} the angles depend on the length of the text; "
            "train a prompt with shift_positions: true"
        ]
    return []


def _rotate_keys(keys: Tensor, backbone: Backbone, shift: int) -> Tensor:
    """Rotate keys [L, H, P, D] by `shift` positions, with the rotary embedding of the backbone."""
    rotary = backbone.model.rotary_emb
    cos, sin = rotary(keys, torch.tensor([[shift]], device=keys.device))
    # Families differ: they pair halves or neighbors of a head, or rotate only a part of it.
    rotate = sys.modules[type(backbone.model).__module__].apply_rotary_pos_emb
    scaling = rotary.attention_scaling  # the queries of the text already include it
    rotated: Tensor = rotate(keys, keys, cos / scaling, sin / scaling)[1]
    return rotated
