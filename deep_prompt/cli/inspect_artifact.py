"""deep-prompt inspect: describe an artifact."""

import dataclasses
import json
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_prompt.cli.arguments import artifact
from pipeline.arms import ARMS
from pipeline.errors import UserError, listed, quantity
from stages.runtime.entry import size_of

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.artifacts.config import ArtifactConfig
    from pipeline.artifacts.scores import TestScore
    from pipeline.params import BackboneParams

MAX_LISTED_CLASSES = 200


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "artifact",
        type=artifact,
        metavar="DIR",
        help="folder of the artifact, zoo:NAME, or hub:OWNER/NAME@REVISION",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the config of the artifact as JSON"
    )


def inspect(arguments: Namespace) -> None:
    """Show an artifact: arm, backbone, prompt, tasks with classes and test scores, provenance.

    --json has the whole provenance; the table has the names of the corpora of the initial prompt.
    """
    from rich.console import Console

    from pipeline.artifacts.config import load_config

    config = load_config(arguments.artifact)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(config), sort_keys=True, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        console.print(_description_table(arguments.artifact, config))
        # Below the table, whose column is too narrow for it on a terminal of 80 columns.
        digest = config.backbone.sha256 or "none; the hub revision identifies the weights"
        console.print(f"sha256: {digest}", soft_wrap=True)


def _description_table(folder: Path, config: "ArtifactConfig") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from pipeline.artifacts.scores import load_scores

    lines = [
        ("arm", f"{config.arm} (format {config.format})"),
        (
            "backbone",
            f"{config.backbone.source}: {config.model_type}"
            f"{' with its decoder' * config.backbone.decoder}, hidden size {config.hidden_size}",
        ),
        (
            "config and tokenizer",
            f"hashes of {', '.join(config.backbone_files) or 'no file (not compared)'}",
        ),
        ("precision", config.precision),
        ("prompt", _describe_prompt(config)),
        ("trained", _describe_trained(folder, config)),
    ]
    if config.random_weights:
        facts = f"seed {config.random_seed}, drawn by {config.random_weights.versions}"
        lines.append(("random weights", facts))
    if config.lora_rank:
        lines.append(("lora", f"factors of rank {config.lora_rank}, alpha {config.lora_alpha:g}"))
    scores = load_scores(folder).tasks
    for name, head in config.heads.items():
        details = "".join(f"; {key} {value:.4g}" for key, value in head.thresholds.items())
        details += f"; windows of {head.max_length} tokens" if head.max_length else ""
        if head.max_answer_length:
            details += f"; answers of at most {quantity(head.max_answer_length, 'token')}"
        details += f"; words of text by the rule {head.word_rule!r}" if head.word_rule else ""
        classes = f", {len(head.classes)} {head.kind}: {listed(head.classes, MAX_LISTED_CLASSES)}"
        lines.append((f"task {name}", f"{head.type}{classes if head.classes else ''}{details}"))
        if name in scores:
            lines.append((f"score {name}", _describe_score(scores[name])))
    lines += [
        (f"file {path.name}", size_of(path))
        for path in sorted(folder.glob("*.*"))
        if path.is_file()
    ]
    lines += _describe_provenance(config.provenance)
    table = Table(title=str(folder), show_header=False)
    for name, value in lines:
        # A Text shows "[...]" in a value as it is, not as markup.
        table.add_row(Text(name, no_wrap=True), Text(value, overflow="fold"))
    return table


def _describe_prompt(config: "ArtifactConfig") -> str:
    if config.prompt_shape is None:
        return "none"
    if ARMS[config.arm].prompt == "soft":
        return f"{config.prompt_shape[0]} vectors in front of the input"
    layers, _, heads, count, size = config.prompt_shape
    last_layer = config.first_layer + layers - 1
    facts = [
        f"{count} virtual tokens in layers {config.first_layer} to {last_layer}",
        f"{heads} key/value heads of size {size}",
    ]
    optional = {
        "shifts the text by {} positions": config.position_offset,
        "sets all token types to 0": config.zero_token_types,
        "computed by an MLP of {} units": config.projection_size,
        "factors of rank {} for each task": config.factor_rank,
        "scales and shifts of the layers' outputs": config.scale_shift,
    }
    return "; ".join(facts + [text.format(value) for text, value in optional.items() if value])


def _describe_score(score: "TestScore") -> str:
    interval = "" if score.interval is None else " ({:.2f} to {:.2f})".format(*score.interval)
    return f"{score.metric} {score.value:.2f}{interval} on {score.rows:,} test rows"


def _describe_trained(folder: Path, config: "ArtifactConfig") -> str:
    """The number of trained values, without the projection, which only computes the prompt."""
    counts = {
        part: _num_values(folder / f"{part}.safetensors")
        for part in ("prompt", "scale_shift", "factors", "lora", "heads", "backbone")
    }
    total, backbone = sum(counts.values()), _num_backbone_values(config.backbone)
    share = f", {100 * total / backbone:.2f} % of the backbone's {backbone:,}" if backbone else ""
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items() if count)
    return f"{total:,} values{share} ({parts})" if parts else "nothing"


def _num_values(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return 0
    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a safetensors file ({error}); make the artifact again"
        ) from None


def _num_backbone_values(params: "BackboneParams") -> int | None:
    """The number of values in a backbone; None if its files are not on this machine."""
    import torch
    from transformers import AutoConfig

    from pipeline.model.pretrained_model import auto_class_of
    from pipeline.pretrained.families import family_of
    from pipeline.pretrained.location import locate

    if params.source.startswith("hub:"):  # perhaps a download of gigabytes
        return None
    try:
        folder = locate(params)
    except UserError:
        return None
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    auto_class = auto_class_of(family_of(config.model_type, params.decoder), lm_head=False)
    with torch.device("meta"):  # shapes without values
        model: Any = auto_class.from_config(config)
    model.pooler = None  # as in pipeline.model.backbone
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _describe_provenance(provenance: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A line per key and per corpus.

    --json also has the hashes of corpora, and the data of the artifact that training began with.
    """
    lines: list[tuple[str, str]] = []
    for key, value in sorted(provenance.items()):
        if key == "data" and isinstance(value, dict) and prefix:
            lines.append((f"{prefix}data", listed(value, MAX_LISTED_CLASSES)))
        elif key == "data" and isinstance(value, dict):
            lines += [
                (f"{prefix}data {name}", _describe_splits(splits)) for name, splits in value.items()
            ]
        elif key == "init_from" and isinstance(value, dict):
            lines += _describe_provenance(value, f"{prefix}{key} ")
        else:
            lines.append((prefix + key, _describe_value(value)))
    return lines


def _describe_splits(splits: Any) -> str:
    if not isinstance(splits, dict):
        return _describe_value(splits)
    return "; ".join(
        f"{name}: {_describe_value(_without_hashes(values))}"
        for name, values in sorted(splits.items(), key=lambda item: item[0] != "train")
    )


def _without_hashes(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {
        key: value for key, value in values.items() if value != {} and not key.endswith("sha256")
    }


def _describe_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_describe_value, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    return (
        "none"
        if not value
        else ", ".join(
            f"{key} ({_describe_value(inner)})"
            if isinstance(inner, dict)
            else f"{key} {_describe_value(inner)}"
            for key, inner in value.items()
        )
    )
