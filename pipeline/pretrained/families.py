"""The supported model families and their differences.

The facts about a family are here; the code for it is in `pipeline.model.attention`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import UserError


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    - `layers`: the attribute path from the model to its list of layers.
    - `route`: how a prompt enters the attention. "interface": through the attention interface of
      transformers. "numbered": the same, but this project sets the layer indices. "shared": one
      layer module is called several times. "patched": this project replaces the attention module.
    - `positions`: "absolute" (learned; the index of the first token is `first_position`),
      "rotary", or "relative" (a bias that depends on distances only).
    - `causal`: a token attends only to itself and the tokens before it.
    - `query_value`: the names of the linear modules that compute a layer's queries and values. A
      fused module computes keys too.
    """

    layers: str
    route: Literal["interface", "numbered", "shared", "patched"] = "interface"
    positions: Literal["absolute", "rotary", "relative"] = "absolute"
    first_position: int = 0
    causal: bool = False
    query_value: tuple[str, ...] = ("query", "value")


_BERT = Family("encoder.layer")
_ROBERTA = Family("encoder.layer", first_position=2)
_DECODER = Family("layers", positions="rotary", causal=True, query_value=("q_proj", "v_proj"))

FAMILIES: dict[str, Family] = {
    "albert": Family("encoder.albert_layer_groups", route="shared"),
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta": Family("encoder.layer", route="patched", query_value=("in_proj",)),
    "deberta-v2": Family(
        "encoder.layer",
        route="patched",
        positions="relative",
        query_value=("query_proj", "value_proj"),
    ),
    "distilbert": Family("transformer.layer", route="numbered", query_value=("q_lin", "v_lin")),
    "electra": _BERT,
    "ernie": _BERT,
    "eurobert": Family("layers", positions="rotary", query_value=("q_proj", "v_proj")),
    "glm": _DECODER,
    "gpt2": Family("h", causal=True, query_value=("c_attn",)),
    "gpt_neox": replace(_DECODER, query_value=("query_key_value",)),
    "llama": _DECODER,
    "mistral": _DECODER,
    "modernbert": Family("layers", positions="rotary", query_value=("Wqkv",)),
    "mpnet": Family("encoder.layer", route="patched", first_position=2, query_value=("q", "v")),
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}

_ENCODER_DECODER = "an encoder-decoder: self-attention and cross-attention share layer indices"
_ALIBI = "ALiBi needs a position for every key, and prompts have no positions"
_REFUSED = {
    "t5": _ENCODER_DECODER,
    "mt5": _ENCODER_DECODER,
    "bart": _ENCODER_DECODER,
    "mbart": _ENCODER_DECODER,
    "bloom": _ALIBI,
    "mpt": _ALIBI,
    "mamba": "it has no attention",
}


def family_of(model_type: str) -> Family:
    """Return the record of a family.

    Raises UserError if the family is not supported, with the reason and the supported families.
    """
    if model_type not in FAMILIES:
        raise UserError(
            f"backbone: deep prompts do not work on {model_type!r} models ({refusal(model_type)}); "
            f"use one of {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def refusal(model_type: str) -> str:
    """Return the reason why a family is not supported."""
    return _REFUSED.get(model_type, "it is not tested against a reference")
