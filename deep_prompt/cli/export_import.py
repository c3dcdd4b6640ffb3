"""deep-prompt export and import: exchange prompts with other libraries."""

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_prompt.cli.arguments import SOURCE, add_artifact_argument, backbone_at
from pipeline.arms import DEEP_PROMPT
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.files import sha256
from stages.runtime.entry import log, log_wrote

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.model.backbone import Backbone
    from pipeline.model.prompt import DeepPrompt
    from pipeline.params import BackboneParams


def add_export_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("--to", required=True, choices=("peft",), help="target format")
    add_artifact_argument(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="task whose prompt is exported, if the tasks have factors on a shared prompt",
    )
    parser.add_argument(
        "--base-model",
        metavar="NAME",
        help="base model in the written config (default: the backbone's hub id or folder)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run peft (extra `peft`) on the export and compare hidden states",
    )


def export(arguments: Namespace) -> None:
    """Write an artifact's deep prompt or LoRA factors as a peft adapter (PREFIX_TUNING or LORA).

    Heads are not exported, because peft has no such heads.
    """
    from pipeline.artifacts.artifact import (
        check_no_lora_beside_prompt,
        load_into_backbone,
        load_prompt,
    )
    from pipeline.artifacts.config import load_config
    from pipeline.interop.peft import lora_to_peft, to_peft, verify
    from pipeline.model.backbone import Backbone
    from pipeline.model.prompt import DeepPrompt
    from pipeline.pretrained.location import locate

    config = load_config(arguments.artifact)
    if arguments.task is not None and not config.factor_rank:
        raise UserError(
            f"--task: {arguments.artifact} has one prompt for all its tasks, without factors per "
            "task; leave out --task"
        )
    check_no_lora_beside_prompt(arguments.artifact, config)
    folder = locate(config.backbone)
    backbone = Backbone.load(folder, decoder=config.backbone.decoder)
    prompt = load_prompt(arguments.artifact, config, config.backbone, backbone, arguments.task)
    deep_prompt = prompt if isinstance(prompt, DeepPrompt) else None
    base_model = arguments.base_model or _base_model(config.backbone, folder)
    if config.lora_rank:
        load_into_backbone(arguments.artifact, config, backbone)
        lora_to_peft(arguments.output, backbone, base_model)
    elif deep_prompt is not None:
        to_peft(arguments.output, deep_prompt, backbone, base_model)
    else:
        raise UserError(
            f"{arguments.artifact}: arm is {config.arm!r}, without a deep prompt or LoRA factors; "
            "export an artifact of another arm"
        )
    log_wrote(arguments.output)
    if arguments.verify:
        difference = verify(arguments.output, deep_prompt, backbone, folder, *_sample_texts(folder))
        log(
            "verified: the hidden states of peft and deep-prompt differ by at most "
            f"{difference:.1e}"
        )


def _sample_texts(folder: Path) -> tuple["Tensor", "Tensor"]:
    """Two sentences of unequal length as `input_ids` and `attention_mask`."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from pipeline.pretrained.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder)
    texts = tokenizer.encode_texts(["Both must see the same in this sentence.", "And in this."])
    ids = [torch.tensor([*tokenizer.prefix, *text, *tokenizer.suffix]) for text, _ in texts]
    masks = [torch.ones_like(row) for row in ids]
    return pad_sequence(ids, True, tokenizer.pad_token_id), pad_sequence(masks, True)


def _base_model(params: "BackboneParams", folder: Path) -> str:
    kind, name = params.source.split(":", 1)
    return name.split("@")[0] if kind == "hub" else str(folder)


def add_import_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `import`."""
    parser.add_argument(
        "--from", required=True, dest="origin", choices=READERS, help="source format"
    )
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="PATH",
        help="folder of the adapter (peft), or checkpoint file as safetensors (ptuning_v2)",
    )
    parser.add_argument(
        "--backbone", required=True, metavar="SOURCE", help=f"backbone of the prompt: {SOURCE}"
    )
    parser.add_argument(
        "--sha256",
        metavar="HEX",
        help="hash of the backbone's model.safetensors; may be omitted for a hub revision only",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="artifact to write"
    )


def import_(arguments: Namespace) -> None:
    """Make an artifact from a prefix-tuning adapter of peft or a checkpoint of P-tuning v2.

    The artifact has no heads. Write it to artifacts/imported/NAME, and set `init_from:
    imported/NAME` for a task in params.yaml. Warnings name unknown keys of the adapter, and another
    base model than --backbone.
    """
    from pipeline.artifacts.artifact import save_artifact
    from pipeline.artifacts.config import ArtifactConfig
    from pipeline.model.backbone import Backbone
    from pipeline.model.heads import Heads
    from pipeline.model.prompted_model import PromptedModel
    from pipeline.pretrained.location import locate

    params = backbone_at(arguments.backbone, arguments.sha256)
    folder = locate(params)
    _check_no_decoder(folder, arguments.backbone)
    backbone = Backbone.load(folder)
    with _printed_warnings():
        prompt, provenance = READERS[arguments.origin](arguments, backbone)
    config = ArtifactConfig(
        DEEP_PROMPT.name,
        params,
        backbone.config.model_type,
        backbone.hidden_size,
        heads={},
        backbone_files=backbone.files,
        prompt_shape=prompt.shape,
        first_layer=prompt.first_layer,
        position_offset=prompt.position_offset,
        zero_token_types=prompt.zero_token_types,
        provenance={"imported_from": arguments.origin, **provenance},
    )
    heads = Heads(["classes"], [1], backbone.hidden_size, 0)
    save_artifact(
        arguments.output, PromptedModel(backbone, prompt, heads, train_backbone=False), config
    )
    log_wrote(arguments.output)


def _check_no_decoder(folder: Path, source: str) -> None:
    """Raise UserError if the backbone is an encoder-decoder."""
    from pipeline.pretrained.families import ENCODER_DECODERS

    model_type = load_json(folder / "config.json").get("model_type")
    if model_type in ENCODER_DECODERS:
        raise UserError(
            f"--backbone {source}: {model_type!r} is an encoder-decoder, and prompts "
            "of encoder-decoders were not compared with those of peft and P-tuning v2, so none "
            "can be imported; use another backbone, or train the prompt here"
        )


@contextmanager
def _printed_warnings() -> Iterator[None]:
    """Print the warnings of the block on stderr, also if it fails: they may explain why."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            yield
        finally:
            for warning in caught:
                print(f"warning: {warning.message}", file=sys.stderr)


def _read_peft(arguments: Namespace, backbone: "Backbone") -> tuple["DeepPrompt", dict[str, Any]]:
    """The prompt of an adapter of peft, and its provenance: its files and its base model."""
    from pipeline.interop.peft import from_peft

    prompt = from_peft(arguments.input, backbone)
    files = [arguments.input / "adapter_config.json", arguments.input / "adapter_model.safetensors"]
    return prompt, {"files": _hashes(files), **_adapter_base_model(arguments)}


def _read_ptuning_v2(
    arguments: Namespace, backbone: "Backbone"
) -> tuple["DeepPrompt", dict[str, Any]]:
    """The prompt of a checkpoint of P-tuning v2, and its provenance: the file."""
    from pipeline.interop.ptuning_v2 import from_ptuning_v2

    return from_ptuning_v2(arguments.input, backbone), {"files": _hashes([arguments.input])}


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: sha256(file) for file in files}


def _adapter_base_model(arguments: Namespace) -> dict[str, str]:
    """The base model in the config of an adapter of peft, if any.

    Warns if it has another name than the backbone. It may be the same model in another folder, so
    only the last part of the name counts.
    """
    path = arguments.input / "adapter_config.json"
    name = load_json(path).get("base_model_name_or_path")
    if not name:
        return {}
    source = arguments.backbone
    if source.startswith("hub:"):
        source = source.split("@")[0]
    if Path(name).name != Path(source.split(":", 1)[1]).name:
        warnings.warn(
            f"{path}: base_model_name_or_path is {name!r}, but --backbone is "
            f"{arguments.backbone!r}; check that both have the same weights",
            stacklevel=1,
        )
    return {"base_model_name_or_path": name}


READERS = {"peft": _read_peft, "ptuning_v2": _read_ptuning_v2}
"""Source format -> a function that reads a prompt and its provenance."""
