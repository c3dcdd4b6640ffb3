"""deep-prompt export and import: prompts out to other libraries, and in from them."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from deep_prompt.cli.arguments import SOURCE, add_artifact_argument, backbone_at
from pipeline.arms import DEEP_PROMPT
from pipeline.errors import UserError
from pipeline.files import sha256
from stages.runtime.entry import log, log_wrote

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.params import BackboneParams


def add_export_arguments(parser: ArgumentParser) -> None:
    """The words of `export`."""
    parser.add_argument("--to", required=True, choices=("peft",), help="whose format")
    add_artifact_argument(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="the folder to write"
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="whose prompt, where tasks have factors of their own on a shared one",
    )
    parser.add_argument(
        "--base-model",
        metavar="NAME",
        help="what the written config names as its base model (default: the backbone's hub id or folder)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run peft itself (which must be installed) and ours on the same text, and compare hidden states",
    )


def export(given: Namespace) -> None:
    """Write an artifact's deep prompt, or its LoRA factors, as an adapter of peft (PREFIX_TUNING or LORA). Heads stay behind:
    peft has no such heads.
    """
    from pipeline.artifacts.artifact import load_into_backbone, load_prompt
    from pipeline.artifacts.config import load_config
    from pipeline.interop.peft import lora_to_peft, to_peft, verify
    from pipeline.model.backbone import Backbone
    from pipeline.model.prompt import DeepPrompt
    from pipeline.pretrained.location import locate

    config = load_config(given.artifact)
    folder = locate(config.backbone)
    backbone = Backbone.load(folder)
    prompt = load_prompt(given.artifact, config, config.backbone, backbone, given.task)
    deep_prompt = prompt if isinstance(prompt, DeepPrompt) else None
    base_model = given.base_model or _base_model(config.backbone, folder)
    if config.lora_rank:
        load_into_backbone(given.artifact, config, backbone)
        lora_to_peft(given.output, backbone, base_model)
    elif deep_prompt is not None:
        to_peft(given.output, deep_prompt, backbone, base_model)
    else:
        raise UserError(
            f"{given.artifact}: arm is {config.arm!r}, which has neither a deep prompt nor LoRA factors; "
            "export an artifact that has"
        )
    log_wrote(given.output)
    if given.verify:
        worst = verify(given.output, deep_prompt, backbone, folder, *_some_text(folder))
        log(f"verified: peft's hidden states and ours differ by {worst:.1e} at most")


def _some_text(folder: Path) -> tuple["Tensor", "Tensor"]:
    """Two sentences of unequal length as `input_ids` and `attention_mask`."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from pipeline.pretrained.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder)
    texts = tokenizer.texts(["Both must see the same in this sentence.", "And in this."])
    ids = [torch.tensor([*tokenizer.prefix, *text, *tokenizer.suffix]) for text, _ in texts]
    return pad_sequence(ids, True, tokenizer.pad_token_id), pad_sequence(
        [torch.ones_like(one) for one in ids], True
    )


def _base_model(params: "BackboneParams", folder: Path) -> str:
    kind, name = params.source.split(":", 1)
    return name.split("@")[0] if kind == "hub" else str(folder)


def add_import_arguments(parser: ArgumentParser) -> None:
    """The words of `import`."""
    parser.add_argument(
        "--from", required=True, dest="origin", choices=("peft", "ptuning_v2"), help="whose format"
    )
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="PATH",
        help="peft: the adapter's folder; ptuning_v2: the checkpoint's file, as safetensors",
    )
    parser.add_argument(
        "--backbone", required=True, metavar="SOURCE", help=f"what it was trained on: {SOURCE}"
    )
    parser.add_argument(
        "--sha256",
        metavar="HEX",
        help="of the backbone's model.safetensors; only a hub revision goes without",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="the artifact to write"
    )


def import_(given: Namespace) -> None:
    """Make an artifact of a prefix-tuning adapter of peft, or of a checkpoint of the P-tuning v2 repository. It has no heads: put
    it under artifacts/imported/NAME, and let a task in params.yaml `start: imported/NAME`.
    """
    from pipeline.artifacts.artifact import save_artifact
    from pipeline.artifacts.config import ArtifactConfig
    from pipeline.interop.peft import from_peft
    from pipeline.interop.ptuning_v2 import from_ptuning_v2
    from pipeline.model.backbone import Backbone
    from pipeline.model.heads import Heads
    from pipeline.model.prompted_model import PromptedModel
    from pipeline.pretrained.location import locate

    params = backbone_at(given.backbone, given.sha256)
    backbone = Backbone.load(locate(params))
    prompt = {"peft": from_peft, "ptuning_v2": from_ptuning_v2}[given.origin](given.input, backbone)
    names = {"peft": ("adapter_config.json", "adapter_model.safetensors"), "ptuning_v2": ("",)}[
        given.origin
    ]
    files = [given.input / name for name in names]
    config = ArtifactConfig(
        DEEP_PROMPT.name,
        params,
        backbone.config.model_type,
        backbone.hidden_size,
        heads={},
        prompt_shape=prompt.shape,
        first_layer=prompt.first_layer,
        position_offset=prompt.position_offset,
        provenance={
            "imported_from": given.origin,
            "files": {file.name: sha256(file) for file in files},
        },
    )
    unused = Heads(["classes"], [1], backbone.hidden_size, 0)
    save_artifact(
        given.output, PromptedModel(backbone, prompt, unused, train_backbone=False), config
    )
    log_wrote(given.output)
