"""deep-prompt check-backbone: check that deep prompts work on a backbone."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deep_prompt.cli.arguments import SOURCE
from pipeline.errors import UserError

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.model.backbone import Backbone
    from pipeline.pretrained.tokenizer import Tokenizer

Loaded = TypeVar("Loaded")
_WEIGHTS = "model.safetensors"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", metavar="SOURCE", help=f"the backbone: {SOURCE}")
    parser.add_argument(
        "--lm-head",
        action="store_true",
        help="load the language modeling head too, which verbalizers need",
    )
    parser.add_argument(
        "--decoder",
        action="store_true",
        help="load the whole encoder-decoder, which text generation needs, not only its encoder",
    )


def check_backbone(arguments: Namespace) -> None:
    """Check that deep prompts work on a backbone, and show what is known about it.

    These are the checks of every load: a prompt reaches all layers and has a gradient there; plain
    outputs equal those of the model's own attention; padding changes nothing; the text's own keys,
    given twice, change nothing; in a causal model, a text as a prompt equals the text itself. A
    family that is not in docs/backbones.md's first table is admitted by them. A failed check ends
    the command with status 1 and the difference.
    """
    from rich.console import Console

    from pipeline.model.backbone import Backbone
    from pipeline.pretrained.tokenizer import Tokenizer

    folder, problems = _folder(arguments.source), list[str]()
    if not arguments.source.startswith("hub:") and not (folder / _WEIGHTS).is_file():
        raise UserError(
            f"backbone {arguments.source}: {folder / _WEIGHTS} is missing; save the weights as one "
            f"{_WEIGHTS}"
        )
    tokenizer = _load(lambda: Tokenizer(folder, arguments.decoder), problems)
    backbone = _load(
        lambda: Backbone.load(folder, arguments.lm_head, decoder=arguments.decoder), problems
    )
    if tokenizer is None or backbone is None:
        raise UserError(*problems)
    console = Console(highlight=False)
    console.print(_facts(arguments.source, folder, backbone, tokenizer))
    console.print(_checks(backbone))
    console.print("Deep prompts work on this backbone. In params.yaml:")
    decoder = ", decoder: true" if arguments.decoder else ""
    print(f"backbone: {{source: '{arguments.source}'{_sha256(arguments.source, folder)}{decoder}}}")


def _folder(source: str) -> Path:
    from pipeline.params import BackboneParams
    from pipeline.pretrained.location import locate, tokenizer_folder

    folder = tokenizer_folder(source)
    return locate(BackboneParams(source)) if source.startswith("hub:") else folder


def _load(load: Callable[[], Loaded], problems: list[str]) -> Loaded | None:
    """The result of `load`; None, and the problems are added, if it raises a UserError."""
    try:
        return load()
    except UserError as error:
        problems += error.problems
        return None


def _facts(source: str, folder: Path, backbone: "Backbone", tokenizer: "Tokenizer") -> "Table":
    from rich.table import Table
    from rich.text import Text

    family, name = backbone.family, backbone.config.model_type
    layers, _, heads, _, size = backbone.prompt_shape(1)
    if backbone.is_encoder_decoder:
        attention, stacks = "bidirectional in the encoder, causal in the decoder", "attentions"
    else:
        attention, stacks = "causal" if family.causal else "bidirectional", "layers"
    lines = {
        "family": f"{name}: "
        + (
            "admitted by the checks below"
            if family.route == "traced"
            else "compared with a reference"
        ),
        "attention": f"{attention}, {family.positions} positions",
        "size": f"{backbone.num_parameters:,} parameters, {layers} {stacks}, hidden size "
        f"{backbone.hidden_size}",
        "deep prompt": f"{layers * 2 * heads * size:,} values per virtual token "
        f"({heads} key/value heads of size {size})",
        "scale_shift": _scale_shift(backbone),
        "lora": ", ".join(family.query_value) or "no known projections, so not supported",
        "tokenizer": f"at most {tokenizer.max_length:,} tokens",
    }
    table = Table(title=source, show_header=False)
    for key, value in lines.items():
        table.add_row(Text(key), Text(value, overflow="fold"))
    return table


def _scale_shift(backbone: "Backbone") -> str:
    """The number of scales and shifts of a prompt, or the reason why the backbone has none."""
    try:
        scaled = backbone.scaled_modules()
    except UserError as error:
        return f"not supported: {error}"
    return f"{2 * sum(sum(sizes.values()) for sizes in scaled):,} values"


def _sha256(source: str, folder: Path) -> str:
    """The key `sha256` for params.yaml; empty for a hub revision, which identifies the weights."""
    from pipeline.config import load_json
    from pipeline.files import sha256
    from pipeline.pretrained.gguf import RECORD

    if source.startswith("hub:"):
        return ""
    is_gguf = (folder / RECORD).is_file()
    digest = load_json(folder / RECORD)["sha256"] if is_gguf else sha256(folder / _WEIGHTS)
    return f", sha256: {digest}"


def _checks(backbone: "Backbone") -> "Table":
    from rich.table import Table

    table = Table(title="Checks (differences relative to the largest value)")
    for column in ("equal hidden states", "difference", "allowed"):
        table.add_column(column, justify="left" if column.startswith("equal") else "right")
    for check in backbone.checks:
        table.add_row(check.name, f"{check.difference:.1e}", f"{check.tolerance:.1e}")
    return table
