"""deep-prompt inspect: what an artifact is."""

import dataclasses
import json
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arms import ARMS
from pipeline.errors import UserError
from stages.runtime.entry import size_of

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.artifacts.config import ArtifactConfig
    from pipeline.params import BackboneParams


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("artifact", type=Path, metavar="DIR", help="the artifact's folder")
    parser.add_argument(
        "--json", action="store_true", help="print its config.json as it was read, for programs"
    )


def inspect(given: Namespace) -> None:
    """Show what an artifact is: arm, backbone, prompt, tasks and their classes, how much was trained, where it comes from."""
    from rich.console import Console

    from pipeline.artifacts.config import load_config

    config = load_config(given.artifact)
    if given.json:
        print(json.dumps(dataclasses.asdict(config), sort_keys=True, indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(_described(given.artifact, config))


def _described(folder: Path, config: "ArtifactConfig") -> "Table":
    from rich.table import Table
    from rich.text import Text

    lines = [
        ("arm", f"{config.arm} (format {config.format})"),
        (
            "backbone",
            f"{config.backbone.source}: {config.model_type}, hidden size {config.hidden_size}",
        ),
        ("sha256", config.backbone.sha256 or "not given; the hub's revision says which weights"),
        ("prompt", _prompt_in_words(config)),
        ("trained", _trained_in_words(folder, config)),
    ]
    if config.lora_rank:
        lines.append(("lora", f"factors of rank {config.lora_rank}, alpha {config.lora_alpha:g}"))
    for name, head in config.heads.items():
        limits = "".join(f"; {key} {value:.4g}" for key, value in head.thresholds.items())
        limits += f"; windows of {head.max_length} tokens" if head.max_length else ""
        lines.append(
            (
                f"task {name}",
                f"{head.type}, {len(head.classes)} {head.kind}: {', '.join(head.classes)}{limits}",
            )
        )
    lines += [
        (f"file {path.name}", size_of(path))
        for path in sorted(folder.glob("*.*"))
        if path.is_file()
    ]
    lines += [(key, _in_words(value)) for key, value in sorted(config.provenance.items())]
    table = Table(title=str(folder), show_header=False)
    for name, value in lines:
        table.add_row(
            Text(name, no_wrap=True), Text(value, overflow="fold")
        )  # Text: "[...]" in a value is no markup
    return table


def _prompt_in_words(config: "ArtifactConfig") -> str:
    if config.prompt_shape is None:
        return "none"
    if ARMS[config.arm].prompt == "soft":
        return f"{config.prompt_shape[0]} vectors in front of the input"
    layers, _, heads, count, size = config.prompt_shape
    said = [
        f"{count} virtual tokens in layers {config.first_layer} to {config.first_layer + layers - 1}",
        f"{heads} key/value heads of size {size}",
    ]
    extra = {
        "shifts the text by {} positions": config.position_offset,
        "computed by an MLP of {} units": config.projection_size,
        "factors of rank {} for each task": config.factor_rank,
    }
    return "; ".join(said + [text.format(value) for text, value in extra.items() if value])


def _trained_in_words(folder: Path, config: "ArtifactConfig") -> str:
    """Without the projection: once trained, it is only another way to write the prompt."""
    counts = {
        part: _numbers_in(folder / f"{part}.safetensors")
        for part in ("prompt", "factors", "lora", "heads", "backbone")
    }
    total, whole = sum(counts.values()), _backbone_numbers(config.backbone)
    share = f", {100 * total / whole:.2f} % of the backbone's {whole:,}" if whole else ""
    return f"{total:,} numbers{share} ({', '.join(f'{part} {count:,}' for part, count in counts.items() if count)})"


def _numbers_in(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return 0
    try:
        with safe_open(path, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  (it is no mapping)
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a safetensors file ({error}); make the artifact again"
        ) from None


def _backbone_numbers(params: "BackboneParams") -> int | None:
    """How many numbers a backbone has; None where its files are not on this machine."""
    import torch
    from transformers import AutoConfig, AutoModel

    from pipeline.pretrained.location import locate

    auto: Any = AutoModel
    if params.source.startswith("hub:"):  # it may be a download of gigabytes
        return None
    try:
        folder = locate(params)
    except UserError:
        return None
    with torch.device("meta"):  # shapes without numbers
        model: Any = auto.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    model.pooler = None  # as in pipeline.model.backbone
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{key} ({_in_words(inner)})" if isinstance(inner, dict) else f"{key} {_in_words(inner)}"
        for key, inner in value.items()
    )
