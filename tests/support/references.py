"""Every family's forward pass written by hand from its weights: none of the project's code and none of the model's own is called.

Each function takes (model, ids, mask, types, prompt, position_offset) and gives hidden states [B, T, C]. `prompt` is each layer's
keys and values [2, H, P, D], which stand in front of the layer's own, seen by every token; they have no position.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Prompt = Sequence[Tensor] | Tensor | None


class Weights:
    """A model's weights by name, and what is done with them."""

    def __init__(self, model: Any, eps: float) -> None:
        self.named, self.config, self.eps = dict(model.named_parameters()), model.config, eps

    def linear(self, name: str, values: Tensor) -> Tensor:
        product = values @ self.named[f"{name}.weight"].T
        return product + self.named[f"{name}.bias"] if f"{name}.bias" in self.named else product

    def conv1d(self, name: str, values: Tensor) -> Tensor:
        return values @ self.named[f"{name}.weight"] + self.named[f"{name}.bias"]

    def norm(self, name: str, values: Tensor) -> Tensor:
        centered = values - values.mean(-1, keepdim=True)
        scaled = (
            centered
            / (centered.square().mean(-1, keepdim=True) + self.eps).sqrt()
            * self.named[f"{name}.weight"]
        )
        return scaled + self.named[f"{name}.bias"] if f"{name}.bias" in self.named else scaled

    def rms_norm(self, name: str, values: Tensor) -> Tensor:
        return (
            values
            / (values.square().mean(-1, keepdim=True) + self.eps).sqrt()
            * self.named[f"{name}.weight"]
        )


def gelu(values: Tensor) -> Tensor:
    return values * (1 + torch.erf(values / math.sqrt(2))) / 2


def gelu_new(values: Tensor) -> Tensor:
    return values * (1 + torch.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))) / 2


def heads_of(values: Tensor, heads: int) -> Tensor:
    """[B, T, heads * D] as [B, heads, T, D]."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    prompt: Prompt,
    layer: int,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Plain attention [B, T, heads * D] with the layer's prompt in front; `visible` [B, T, T] and `bias` are of the text."""
    shared = query.shape[1] // key.shape[1]
    if prompt is not None:
        front = prompt[layer][:, None].repeat(1, key.shape[0], 1, 1, 1)
        key, value = torch.cat([front[0], key], 2), torch.cat([front[1], value], 2)
        visible = torch.cat(
            [torch.ones(*visible.shape[:2], front.shape[3], dtype=torch.bool), visible], 2
        )
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scores = query @ key.transpose(2, 3) / (scale or math.sqrt(query.shape[-1]))
    if bias is not None:
        scores = torch.cat(
            [scores[..., : -bias.shape[-1]], scores[..., -bias.shape[-1] :] + bias], dim=-1
        )
    weights = scores.masked_fill(~visible.unsqueeze(1), -1e30).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def everything(mask: Tensor) -> Tensor:
    return mask.bool()[:, None, :].repeat(1, mask.shape[1], 1)


def before(mask: Tensor, window: int | None = None) -> Tensor:
    """What a causal token sees: itself and those before it, in a window at most so many."""
    distance = torch.arange(mask.shape[1])[:, None] - torch.arange(mask.shape[1])[None, :]
    seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return mask.bool()[:, None, :] & seen


def rotated(
    values: Tensor, offset: int, theta: float, share: float = 1.0, pairs: bool = False
) -> Tensor:
    """Rotary positions (Su et al. 2021) on the first `share` of each head; halves are turned together, or neighbors (`pairs`)."""
    size = int(values.shape[-1] * share)
    turned, rest = values[..., :size], values[..., size:]
    angles = (torch.arange(values.shape[2]) + offset)[:, None] * theta ** (
        -torch.arange(0, size, 2) / size
    )
    left, right = (turned[..., 0::2], turned[..., 1::2]) if pairs else turned.chunk(2, dim=-1)
    one, two = (
        left * angles.cos() - right * angles.sin(),
        right * angles.cos() + left * angles.sin(),
    )
    whole = torch.stack([one, two], dim=-1).flatten(-2) if pairs else torch.cat([one, two], dim=-1)
    return torch.cat([whole, rest], dim=-1)


# BERT and those with its layers


def _post_norm_layer(
    w: Weights, at: str, hidden: Tensor, mixed: Tensor, names: Sequence[str]
) -> Tensor:
    output, first_norm, inner, outer, second_norm = names
    hidden = w.norm(f"{at}.{first_norm}", hidden + w.linear(f"{at}.{output}", mixed))
    return w.norm(
        f"{at}.{second_norm}",
        hidden + w.linear(f"{at}.{outer}", gelu(w.linear(f"{at}.{inner}", hidden))),
    )


BERT_NAMES = (
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def bert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
    *,
    soft: Tensor | None = None,
) -> Tensor:
    """Devlin et al. 2019; RoBERTa's kind counts positions from its padding's number + 1, ELECTRA projects its embeddings.

    `soft` [P, E] goes in front of the word embeddings, all at the first position.
    """
    w = Weights(model, model.config.layer_norm_eps)
    first = (
        w.config.pad_token_id + 1
        if w.config.model_type in ("roberta", "xlm-roberta", "camembert")
        else 0
    )
    words, count = w.named["embeddings.word_embeddings.weight"][ids], 0
    positions = torch.arange(ids.shape[1]) + position_offset
    types = types if w.config.type_vocab_size > 1 else torch.zeros_like(types)
    if soft is not None:
        count = soft.shape[0]
        words = torch.cat([soft.repeat(ids.shape[0], 1, 1), words], dim=1)
        positions = torch.cat([torch.zeros(count, dtype=torch.long), positions])
        types = torch.cat([torch.zeros(ids.shape[0], count, dtype=torch.long), types], dim=1)
        mask = torch.cat([torch.ones(ids.shape[0], count, dtype=torch.long), mask], dim=1)
    hidden = words + w.named["embeddings.position_embeddings.weight"][positions + first]
    hidden = w.norm(
        "embeddings.LayerNorm", hidden + w.named["embeddings.token_type_embeddings.weight"][types]
    )
    if "embeddings_project.weight" in w.named:
        hidden = w.linear("embeddings_project", hidden)
    for layer in range(w.config.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            heads_of(w.linear(f"{at}.attention.self.{part}", hidden), w.config.num_attention_heads)
            for part in ("query", "key", "value")
        )
        hidden = _post_norm_layer(
            w, at, hidden, attend(query, key, value, everything(mask), prompt, layer), BERT_NAMES
        )
    return hidden[:, count:]


def albert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Lan et al. 2020: one layer, over and over; its activation is the tanh form of GELU."""
    w = Weights(model, model.config.layer_norm_eps)
    hidden = (
        w.named["embeddings.word_embeddings.weight"][ids]
        + w.named["embeddings.token_type_embeddings.weight"][types]
    )
    hidden = (
        hidden
        + w.named["embeddings.position_embeddings.weight"][
            torch.arange(ids.shape[1]) + position_offset
        ]
    )
    hidden = w.linear("encoder.embedding_hidden_mapping_in", w.norm("embeddings.LayerNorm", hidden))
    at = "encoder.albert_layer_groups.0.albert_layers.0"
    for layer in range(w.config.num_hidden_layers):
        query, key, value = (
            heads_of(w.linear(f"{at}.attention.{part}", hidden), w.config.num_attention_heads)
            for part in ("query", "key", "value")
        )
        mixed = attend(query, key, value, everything(mask), prompt, layer)
        hidden = w.norm(
            f"{at}.attention.LayerNorm", hidden + w.linear(f"{at}.attention.dense", mixed)
        )
        inner = w.linear(f"{at}.ffn_output", gelu_new(w.linear(f"{at}.ffn", hidden)))
        hidden = w.norm(f"{at}.full_layer_layer_norm", hidden + inner)
    return hidden


def distilbert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Sanh et al. 2019: BERT's layers without token types."""
    w = Weights(model, 1e-12)
    positions = w.named["embeddings.position_embeddings.weight"][
        torch.arange(ids.shape[1]) + position_offset
    ]
    hidden = w.norm(
        "embeddings.LayerNorm", w.named["embeddings.word_embeddings.weight"][ids] + positions
    )
    names = ("attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm")
    for layer in range(w.config.n_layers):
        at = f"transformer.layer.{layer}"
        query, key, value = (
            heads_of(w.linear(f"{at}.attention.{part}_lin", hidden), w.config.n_heads)
            for part in "qkv"
        )
        hidden = _post_norm_layer(
            w, at, hidden, attend(query, key, value, everything(mask), prompt, layer), names
        )
    return hidden


def mpnet(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Song et al. 2020: absolute positions from the padding's number + 1, and T5's buckets of distances as a bias."""
    w = Weights(model, model.config.layer_norm_eps)
    count = ids.shape[1]
    positions = (
        torch.arange(count) + position_offset + 2
    )  # MPNet's embeddings fix the padding's number at 1
    hidden = (
        w.named["embeddings.word_embeddings.weight"][ids]
        + w.named["embeddings.position_embeddings.weight"][positions]
    )
    hidden = w.norm("embeddings.LayerNorm", hidden)
    buckets = torch.tensor(
        [[_bucket(key - query) for key in range(count)] for query in range(count)]
    )
    bias = w.named["encoder.relative_attention_bias.weight"][buckets].permute(2, 0, 1)
    names = (
        "attention.attn.o",
        "attention.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    )
    for layer in range(w.config.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            heads_of(w.linear(f"{at}.attention.attn.{part}", hidden), w.config.num_attention_heads)
            for part in "qkv"
        )
        hidden = _post_norm_layer(
            w,
            at,
            hidden,
            attend(query, key, value, everything(mask), prompt, layer, bias=bias),
            names,
        )
    return hidden


def _bucket(distance: int) -> int:
    """T5's bucket of a distance (Raffel et al. 2020, section 2.1): 8 near ones each way, then logarithmic up to 128."""
    side, far = (16 if distance > 0 else 0), abs(distance)
    if far < 8:
        return side + far
    return side + min(15, 8 + int(math.log(far / 8) / math.log(128 / 8) * 8))


def deberta(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """He et al. 2021, eq. 4: content to content, content to position and position to content, over the root of 3 D."""
    w = Weights(model, model.config.layer_norm_eps)
    count, heads = ids.shape[1], w.config.num_attention_heads
    hidden = w.named["embeddings.word_embeddings.weight"][ids]
    hidden = (
        hidden
        + w.named["embeddings.position_embeddings.weight"][torch.arange(count) + position_offset]
    )
    hidden = w.norm("embeddings.LayerNorm", hidden) * mask[..., None]
    limit = w.config.max_position_embeddings
    distance = torch.arange(count)[:, None] - torch.arange(count)[None, :]
    span = min(count, limit)
    table = w.named["encoder.rel_embeddings.weight"][limit - span : limit + span]
    for layer in range(w.config.num_hidden_layers):
        at = f"encoder.layer.{layer}.attention.self"
        size = hidden.shape[-1] // heads
        packed = (
            (hidden @ w.named[f"{at}.in_proj.weight"].T)
            .unflatten(-1, (heads, 3, size))
            .permute(3, 0, 2, 1, 4)
        )
        query = packed[0] + w.named[f"{at}.q_bias"].view(heads, 1, size)
        key, value = packed[1], packed[2] + w.named[f"{at}.v_bias"].view(heads, 1, size)
        scale = math.sqrt(3 * size)
        positions_key = heads_of((table @ w.named[f"{at}.pos_proj.weight"].T)[None], heads)[0]
        positions_query = heads_of(w.linear(f"{at}.pos_q_proj", table)[None], heads)[0]
        bias = _disentangled(
            query,
            key,
            positions_key,
            positions_query,
            (distance + span).clamp(0, 2 * span - 1),
            scale,
        )
        mixed = attend(query, key, value, everything(mask), prompt, layer, scale=scale, bias=bias)
        hidden = _post_norm_layer(w, f"encoder.layer.{layer}", hidden, mixed, BERT_NAMES)
    return hidden


def _disentangled(
    query: Tensor,
    key: Tensor,
    positions_key: Tensor,
    positions_query: Tensor,
    index: Tensor,
    scale: float,
) -> Tensor:
    """The two terms with positions: token i's query with the key of the distance i - j, token j's key with its query."""
    rows = []
    for i in range(query.shape[2]):
        to_position = torch.einsum("bhd,hkd->bhk", query[:, :, i], positions_key[:, index[i]])
        from_position = torch.einsum("bhkd,hkd->bhk", key, positions_query[:, index[i]])
        rows.append((to_position + from_position) / scale)
    return torch.stack(rows, dim=2)


def deberta_v2(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """DeBERTa v3 (He et al. 2023): distances in logarithmic buckets, whose normed table goes through the content's matrices."""
    assert not position_offset, "its positions are relative"
    w = Weights(model, model.config.layer_norm_eps)
    count, heads, span = ids.shape[1], w.config.num_attention_heads, w.config.position_buckets
    hidden = (
        w.norm("embeddings.LayerNorm", w.named["embeddings.word_embeddings.weight"][ids])
        * mask[..., None]
    )
    table = w.norm("encoder.LayerNorm", w.named["encoder.rel_embeddings.weight"])
    limit = w.config.max_position_embeddings
    index = torch.tensor(
        [[_log_bucket(i - j, span, limit) + span for j in range(count)] for i in range(count)]
    )
    index = index.clamp(0, 2 * span - 1)
    for layer in range(w.config.num_hidden_layers):
        at = f"encoder.layer.{layer}.attention.self"
        query, key, value = (
            heads_of(w.linear(f"{at}.{part}_proj", hidden), heads)
            for part in ("query", "key", "value")
        )
        positions_query, positions_key = (
            heads_of(w.linear(f"{at}.{part}_proj", table)[None], heads)[0]
            for part in ("query", "key")
        )
        scale = math.sqrt(3 * query.shape[-1])
        bias = _disentangled(query, key, positions_key, positions_query, index, scale)
        mixed = attend(query, key, value, everything(mask), prompt, layer, scale=scale, bias=bias)
        hidden = _post_norm_layer(w, f"encoder.layer.{layer}", hidden, mixed, BERT_NAMES)
    return hidden


def _log_bucket(distance: int, buckets: int, limit: int) -> int:
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    far = (
        math.ceil(math.log(abs(distance) / middle) / math.log((limit - 1) / middle) * (middle - 1))
        + middle
    )
    return far if distance > 0 else -far


def modernbert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Warner et al. 2024: pre-norm, gated, rotary, most layers see a window only."""
    w = Weights(model, model.config.norm_eps)
    hidden = w.norm("embeddings.norm", w.named["embeddings.tok_embeddings.weight"][ids])
    distance = (torch.arange(ids.shape[1])[:, None] - torch.arange(ids.shape[1])[None, :]).abs()
    for layer in range(w.config.num_hidden_layers):
        at, kind = f"layers.{layer}", w.config.layer_types[layer]
        inner = hidden if layer == 0 else w.norm(f"{at}.attn_norm", hidden)
        packed = (
            w.linear(f"{at}.attn.Wqkv", inner)
            .unflatten(-1, (3, w.config.num_attention_heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        theta = w.config.rope_parameters[kind]["rope_theta"]
        query, key = (
            rotated(packed[0], position_offset, theta),
            rotated(packed[1], position_offset, theta),
        )
        visible = everything(mask)
        if kind == "sliding_attention":
            visible = visible & (distance <= w.config.local_attention // 2)
        hidden = hidden + w.linear(
            f"{at}.attn.Wo", attend(query, key, packed[2], visible, prompt, layer)
        )
        value, gate = w.linear(f"{at}.mlp.Wi", w.norm(f"{at}.mlp_norm", hidden)).chunk(2, dim=-1)
        hidden = hidden + w.linear(f"{at}.mlp.Wo", gelu(value) * gate)
    return w.norm("final_norm", hidden)


# Decoders, and EuroBERT, which has a decoder's layers


def llama(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Touvron et al. 2023, with what its kin have in addition: norms of queries and keys (Qwen3), a window (Mistral), neighbors
    turned on half of each head and gate and up in one matrix (GLM), everything seen (EuroBERT).
    """
    w = Weights(model, model.config.rms_norm_eps)
    config, glm = w.config, w.config.model_type == "glm"
    rope = config.rope_parameters
    share = rope.get("partial_rotary_factor", 1.0)
    visible = everything(mask) if config.model_type == "eurobert" else before(mask)
    if config.model_type == "mistral":
        visible = before(mask, config.sliding_window)
    hidden = w.named["embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        at = f"layers.{layer}"
        inner = w.rms_norm(f"{at}.input_layernorm", hidden)
        query = heads_of(w.linear(f"{at}.self_attn.q_proj", inner), config.num_attention_heads)
        key, value = (
            heads_of(w.linear(f"{at}.self_attn.{part}_proj", inner), config.num_key_value_heads)
            for part in "kv"
        )
        if config.model_type == "qwen3":
            query, key = (
                w.rms_norm(f"{at}.self_attn.q_norm", query),
                w.rms_norm(f"{at}.self_attn.k_norm", key),
            )
        query, key = (
            rotated(part, position_offset, rope["rope_theta"], share, glm) for part in (query, key)
        )
        mixed = attend(query, key, value, visible, prompt, layer)
        hidden = hidden + w.linear(f"{at}.self_attn.o_proj", mixed)
        inner = w.rms_norm(f"{at}.post_attention_layernorm", hidden)
        if glm:
            gate, up = w.linear(f"{at}.mlp.gate_up_proj", inner).chunk(2, dim=-1)
        else:
            gate, up = w.linear(f"{at}.mlp.gate_proj", inner), w.linear(f"{at}.mlp.up_proj", inner)
        hidden = hidden + w.linear(f"{at}.mlp.down_proj", functional.silu(gate) * up)
    return w.rms_norm("norm", hidden)


def gpt2(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Radford et al. 2019; its matrices are the other way around."""
    w = Weights(model, model.config.layer_norm_epsilon)
    hidden = (
        w.named["wte.weight"][ids]
        + w.named["wpe.weight"][torch.arange(ids.shape[1]) + position_offset]
    )
    for layer in range(w.config.n_layer):
        at = f"h.{layer}"
        parts = w.conv1d(f"{at}.attn.c_attn", w.norm(f"{at}.ln_1", hidden)).chunk(3, dim=-1)
        query, key, value = (heads_of(part, w.config.n_head) for part in parts)
        hidden = hidden + w.conv1d(
            f"{at}.attn.c_proj", attend(query, key, value, before(mask), prompt, layer)
        )
        inner = gelu_new(w.conv1d(f"{at}.mlp.c_fc", w.norm(f"{at}.ln_2", hidden)))
        hidden = hidden + w.conv1d(f"{at}.mlp.c_proj", inner)
    return w.norm("ln_f", hidden)


def gpt_neox(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Black et al. 2022: attention and MLP side by side, rotary on a part of each head, query, key and value by head."""
    w = Weights(model, model.config.layer_norm_eps)
    rope, heads = w.config.rope_parameters, w.config.num_attention_heads
    hidden = w.named["embed_in.weight"][ids]
    for layer in range(w.config.num_hidden_layers):
        at = f"layers.{layer}"
        packed = w.linear(
            f"{at}.attention.query_key_value", w.norm(f"{at}.input_layernorm", hidden)
        )
        query, key, value = packed.unflatten(-1, (heads, 3, -1)).permute(3, 0, 2, 1, 4)
        query, key = (
            rotated(part, position_offset, rope["rope_theta"], rope["partial_rotary_factor"])
            for part in (query, key)
        )
        mixed = w.linear(
            f"{at}.attention.dense", attend(query, key, value, before(mask), prompt, layer)
        )
        inner = gelu(
            w.linear(f"{at}.mlp.dense_h_to_4h", w.norm(f"{at}.post_attention_layernorm", hidden))
        )
        hidden = hidden + mixed + w.linear(f"{at}.mlp.dense_4h_to_h", inner)
    return w.norm("final_layer_norm", hidden)


REFERENCES: dict[str, Callable[..., Tensor]] = {
    "albert": albert,
    "bert": bert,
    "camembert": bert,
    "deberta": deberta,
    "deberta-v2": deberta_v2,
    "distilbert": distilbert,
    "electra": bert,
    "ernie": bert,
    "eurobert": llama,
    "glm": llama,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": llama,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "qwen2": llama,
    "qwen3": llama,
    "roberta": bert,
    "xlm-roberta": bert,
}
