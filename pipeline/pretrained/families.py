"""The model families that prompts are known to work on, and how each differs.

All that is known of a family is here and in `pipeline.model.attention`, which has what each needs in code.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    `layers` is where its list of layers is, seen from the model. `route` is how a prompt gets into its attention: by the
    attention "interface"; by the interface, with the layers "numbered" by us; through a "shared" layer that is called many times;
    or by an attention of ours in place of its own ("patched"). `positions` of tokens are "absolute" (learned, the first is
    `first_position`), "rotary", or "relative" (a bias that knows distances only). A `causal` token sees only those before it.
    """

    layers: str
    route: Literal["interface", "numbered", "shared", "patched"] = "interface"
    positions: Literal["absolute", "rotary", "relative"] = "absolute"
    first_position: int = 0
    causal: bool = False


_BERT = Family("encoder.layer")
_ROBERTA = Family("encoder.layer", first_position=2)
_DECODER = Family("layers", positions="rotary", causal=True)

FAMILIES: dict[str, Family] = {
    "albert": Family("encoder.albert_layer_groups", route="shared"),
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta": Family("encoder.layer", route="patched"),
    "deberta-v2": Family("encoder.layer", route="patched", positions="relative"),
    "distilbert": Family("transformer.layer", route="numbered"),
    "electra": _BERT,
    "ernie": _BERT,
    "eurobert": Family("layers", positions="rotary"),
    "glm": _DECODER,
    "gpt2": Family("h", causal=True),
    "gpt_neox": _DECODER,
    "llama": _DECODER,
    "mistral": _DECODER,
    "modernbert": Family("layers", positions="rotary"),
    "mpnet": Family("encoder.layer", route="patched", first_position=2),
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

_REFUSED = {
    "t5": "an encoder-decoder: self-attention and cross-attention share their layers' numbers",
    "mt5": "an encoder-decoder: self-attention and cross-attention share their layers' numbers",
    "bart": "an encoder-decoder: self-attention and cross-attention share their layers' numbers",
    "mbart": "an encoder-decoder: self-attention and cross-attention share their layers' numbers",
    "bloom": "ALiBi gives every key a position, and a prompt has none",
    "mpt": "ALiBi gives every key a position, and a prompt has none",
    "mamba": "it has no attention",
}


def family_of(model_type: str) -> Family:
    """What is known of a family. Raises UserError where prompts do not work on it, with the reason and the families that work."""
    if model_type not in FAMILIES:
        raise UserError(
            f"backbone: deep prompts do not work on {model_type!r} models ({refusal(model_type)}); "
            f"use one of {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def refusal(model_type: str) -> str:
    """Why prompts do not work on a family."""
    return _REFUSED.get(model_type, "nobody has tested it against a reference")
