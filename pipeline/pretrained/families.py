"""The model families and their differences.

The facts about a family are here; the code for it is in `pipeline.model.family_attention`. A family
of `FAMILIES` is tested against a reference. Any other family on the attention interface of
transformers is "traced": `pipeline.model.trace_family` finds its layers and positions in the loaded
model, and `pipeline.model.attach_checks` admits it only if prompts are proven to work on that
model.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.errors import UserError


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    - `layers`: the attribute path from the model to its list of layers; of an encoder-decoder, to
      those of its encoder.
    - `route`: how a prompt enters the attention. "interface": through the attention interface of
      transformers. "numbered": the same, but this project sets the layer indices. "shared": one
      layer module is called several times. "patched": this project replaces the attention module.
      "traced": through the interface, with the layers as a forward pass calls them. "two stacks":
      through the interface, with this project's numbers for the attentions of encoder and decoder.
    - `positions`: "absolute" (learned; the index of the first token is `first_position`),
      "rotary", "relative" (a bias that depends on distances only), or "fixed" (learned, and the
      model counts them itself).
    - `causal`: a token attends only to itself and the tokens before it.
    - `query_value`: the names of the linear modules that compute a layer's queries and values. A
      fused module computes keys too.
    - `output_size`: a layer returns a tuple of this size that begins with its hidden states. 0: it
      returns the hidden states.
    - `encoder_only`: only the encoder of an encoder-decoder is loaded.
    - `decoder_layers`: the path to the layers of the decoder of a whole encoder-decoder.
    - `attentions`: the paths from a layer to its self-attention and its cross-attention, likewise.
    """

    layers: str
    route: Literal["interface", "numbered", "shared", "patched", "traced", "two stacks"] = (
        "interface"
    )
    positions: Literal["absolute", "rotary", "relative", "fixed"] = "absolute"
    first_position: int = 0
    causal: bool = False
    query_value: tuple[str, ...] = ("query", "value")
    output_size: int = 0
    encoder_only: bool = False
    decoder_layers: str = ""
    attentions: tuple[str, str] = ("", "")

    @property
    def can_shift(self) -> bool:
        """Whether a prompt can shift the positions of the text."""
        return self.positions in ("absolute", "rotary")


_BERT = Family("encoder.layer")
_ROBERTA = Family("encoder.layer", first_position=2)
_DECODER = Family("layers", positions="rotary", causal=True, query_value=("q_proj", "v_proj"))
_DEBERTA = Family(
    "encoder.layer", route="patched", query_value=("query_proj", "value_proj"), output_size=2
)
_T5 = Family(
    "encoder.block",
    positions="relative",
    query_value=("q", "v"),
    output_size=3,
    encoder_only=True,
)

FAMILIES: dict[str, Family] = {
    "albert": Family("encoder.albert_layer_groups", route="shared"),
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta": replace(_DEBERTA, query_value=("in_proj",)),
    "deberta-v2": replace(_DEBERTA, positions="relative"),
    "distilbert": Family("transformer.layer", route="numbered", query_value=("q_lin", "v_lin")),
    "electra": _BERT,
    "ernie": _BERT,
    "eurobert": Family("layers", positions="rotary", query_value=("q_proj", "v_proj")),
    "gemma2": _DECODER,
    "glm": _DECODER,
    "gpt2": Family("h", causal=True, query_value=("c_attn",)),
    "gpt_neox": replace(_DECODER, query_value=("query_key_value",)),
    "llama": _DECODER,
    "mistral": _DECODER,
    "modernbert": Family("layers", positions="rotary", query_value=("Wqkv",)),
    "mpnet": Family(
        "encoder.layer", "patched", first_position=2, query_value=("q", "v"), output_size=2
    ),
    "mt5": _T5,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "roberta": _ROBERTA,
    "t5": _T5,
    "umt5": replace(_T5, output_size=0),
    "xlm-roberta": _ROBERTA,
}

_WHOLE_T5 = Family(
    "encoder.block",
    route="two stacks",
    positions="relative",
    query_value=("q", "v"),
    decoder_layers="decoder.block",
    attentions=("layer.0.SelfAttention", "layer.1.EncDecAttention"),
)

ENCODER_DECODERS: dict[str, Family] = {
    "bart": Family(
        "encoder.layers",
        route="two stacks",
        positions="fixed",
        query_value=("q_proj", "v_proj"),
        decoder_layers="decoder.layers",
        attentions=("self_attn", "encoder_attn"),
    ),
    "mt5": _WHOLE_T5,
    "t5": _WHOLE_T5,
    "umt5": _WHOLE_T5,
}
"""Encoder-decoders that are loaded as a whole (`decoder: true`), also with a reference test."""

# Families without a reference test. The tokenizer needs two facts before the model is loaded.
# `pipeline.model.trace_family` compares them with the model, and finds the others.
_TRACED = Family("", route="traced", query_value=())
_TRACED_FIRST_POSITION = {
    "data2vec-text": 2,
    "esm": 2,
    "lilt": 2,
    "markuplm": 2,
    "roberta-prelayernorm": 2,
    "xlm-roberta-xl": 2,
    "xmod": 2,
}
# Exceptions to the rule that a family with a causal language model, and no masked one, is causal.
_TRACED_CAUSAL = {
    "bert-generation": False,
    "clip_text_model": True,
    "glm4v_moe_text": True,
    "glm4v_text": True,
    "glm_image_text": True,
    "glm_ocr_text": True,
    "granite_docling_text": True,
    "mistral4": True,
    "muse_glimmer_text": True,
    "muse_spark_text": True,
    "qwen2_5_vl_text": True,
    "qwen2_vl_text": True,
    "qwen3_vl_moe_text": True,
    "qwen3_vl_text": True,
}

_NO_ATTENTION = "it has no attention"
_REFUSED = {
    "falcon_mamba": _NO_ATTENTION,
    "fnet": _NO_ATTENTION,
    "mamba": _NO_ATTENTION,
    "mamba2": _NO_ATTENTION,
    "rwkv": _NO_ATTENTION,
    "xlstm": _NO_ATTENTION,
}


def family_of(model_type: str, decoder: bool = False) -> Family:
    """Return the record of a family; with `decoder`, that of a whole encoder-decoder.

    The record of a family without reference test is incomplete: see `pipeline.model.trace_family`.
    Raises UserError if the family has no attention, or is not an encoder-decoder with `decoder`.
    """
    if decoder:
        if model_type not in ENCODER_DECODERS:
            raise UserError(
                f"backbone: decoder is true, but {model_type!r} is not one of the encoder-decoders "
                f"{', '.join(ENCODER_DECODERS)}; remove it, or use another backbone"
            )
        return ENCODER_DECODERS[model_type]
    if model_type in _REFUSED:
        raise UserError(
            f"backbone: deep prompts do not work on {model_type!r} models "
            f"({_REFUSED[model_type]}); use one of {', '.join(sorted(FAMILIES))}, or another model "
            "with attention in every layer (`deep-prompt check-backbone SOURCE` checks it)"
        )
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    return replace(
        _TRACED,
        causal=_TRACED_CAUSAL.get(model_type, _has_only_causal_head(model_type)),
        first_position=_TRACED_FIRST_POSITION.get(model_type, 0),
    )


def decoder_start(config: Any) -> int:
    """The id of the first token that the decoder of an encoder-decoder reads, by its `config`.

    Raises UserError if the config has none.
    """
    token_id = getattr(config, "decoder_start_token_id", None)
    if token_id is None:
        raise UserError(
            f"backbone: the config.json of this {config.model_type!r} model has no "
            "decoder_start_token_id, the first token of each target; add it"
        )
    return int(token_id)


def _has_only_causal_head(model_type: str) -> bool:
    """Whether transformers has a causal language model of this type, and no masked one."""
    from transformers.models.auto import modeling_auto  # noqa: PLC0415  (slow, rarely needed)

    return (
        model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
