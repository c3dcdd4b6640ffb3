"""Reference forward passes of all model families, written from the papers.

They use the weights of a model, but none of its code and none of this project's code. Each function
takes (model, ids, mask, types, prompt, position_offset) and returns hidden states [B, T, C].
`prompt` has the keys and values [2, H, P, D] of each layer. They precede the keys and values of the
text; every token attends to them, and they have no positions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Prompt = Sequence[Tensor] | Tensor | None


class Weights:
    """The weights of a model by name, and the basic operations on them."""

    def __init__(self, model: Any, eps: float) -> None:
        self.named, self.config, self.eps = dict(model.named_parameters()), model.config, eps

    def linear(self, name: str, values: Tensor) -> Tensor:
        """Multiply by a matrix [output, input] and add the bias, if any."""
        return self._add_bias(name, values @ self.named[f"{name}.weight"].T)

    def conv1d(self, name: str, values: Tensor) -> Tensor:
        """Multiply by a matrix [input, output] and add the bias."""
        return self._add_bias(name, values @ self.named[f"{name}.weight"])

    def norm(self, name: str, values: Tensor) -> Tensor:
        """Apply a layer norm."""
        return self._add_bias(name, self.rms_norm(name, values - values.mean(-1, keepdim=True)))

    def rms_norm(self, name: str, values: Tensor) -> Tensor:
        """Apply a norm without centering and bias."""
        root_mean_square = (values.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return values / root_mean_square * self.named[f"{name}.weight"]

    def _add_bias(self, name: str, values: Tensor) -> Tensor:
        bias = self.named.get(f"{name}.bias")
        return values if bias is None else values + bias


def gelu(values: Tensor) -> Tensor:
    """The exact GELU."""
    return values * (1 + torch.erf(values / math.sqrt(2))) / 2


def gelu_tanh(values: Tensor) -> Tensor:
    """The tanh approximation of GELU."""
    return values * (1 + torch.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))) / 2


def split_heads(values: Tensor, heads: int) -> Tensor:
    """Reshape [B, T, heads * D] to [B, heads, T, D]."""
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
    softcap: float | None = None,
) -> Tensor:
    """Return attention [B, T, heads * D] to the prompt of the layer and the text.

    `visible` [B, T, T] tells which tokens each token attends to; `bias` is added to their scores.
    `softcap` is the limit of all scores.
    """
    queries_per_key = query.shape[1] // key.shape[1]
    if prompt is not None:
        prompt_key, prompt_value = prompt[layer][:, None].repeat(1, key.shape[0], 1, 1, 1)
        key = torch.cat([prompt_key, key], dim=2)
        value = torch.cat([prompt_value, value], dim=2)
        prompt_visible = torch.ones(*visible.shape[:2], prompt_key.shape[2], dtype=torch.bool)
        visible = torch.cat([prompt_visible, visible], dim=2)
    key = key.repeat_interleave(queries_per_key, 1)
    value = value.repeat_interleave(queries_per_key, 1)
    scores = query @ key.transpose(2, 3) / (scale or math.sqrt(query.shape[-1]))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        length = bias.shape[-1]
        to_prompt, to_text = scores[..., :-length], scores[..., -length:]
        scores = torch.cat([to_prompt, to_text + bias], dim=-1)
    weights = scores.masked_fill(~visible.unsqueeze(1), -1e30).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def bidirectional(mask: Tensor) -> Tensor:
    """Every token attends to all real tokens [B, T, T]."""
    return mask.bool()[:, None, :].repeat(1, mask.shape[1], 1)


def causal(mask: Tensor, window: int | None = None) -> Tensor:
    """A token attends to itself and earlier tokens, at most `window` in all [B, T, T]."""
    distance = distances(mask.shape[1])
    allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return mask.bool()[:, None, :] & allowed


def distances(length: int) -> Tensor:
    """The distance i - j of each pair of tokens [T, T]."""
    return torch.arange(length)[:, None] - torch.arange(length)[None, :]


def rotate(
    values: Tensor, offset: int, theta: float, share: float = 1.0, pairs: bool = False
) -> Tensor:
    """Apply rotary positions (Su et al., 2021) to the first `share` of each head.

    A rotation takes one number of each half, or two neighbors (`pairs`).
    """
    size = int(values.shape[-1] * share)
    rotated, rest = values[..., :size], values[..., size:]
    frequencies = theta ** (-torch.arange(0, size, 2) / size)
    angles = (torch.arange(values.shape[2]) + offset)[:, None] * frequencies
    if pairs:
        left, right = rotated[..., 0::2], rotated[..., 1::2]
    else:
        left, right = rotated.chunk(2, dim=-1)
    new_left = left * angles.cos() - right * angles.sin()
    new_right = right * angles.cos() + left * angles.sin()
    rotated = torch.cat([new_left, new_right], dim=-1)
    if pairs:
        rotated = torch.stack([new_left, new_right], dim=-1).flatten(-2)
    return torch.cat([rotated, rest], dim=-1)


# BERT and families with its layers


def _post_norm_layer(
    w: Weights, block: str, hidden: Tensor, attended: Tensor, names: Sequence[str]
) -> Tensor:
    output, first_norm, inner, outer, second_norm = names
    hidden = w.norm(f"{block}.{first_norm}", hidden + w.linear(f"{block}.{output}", attended))
    return w.norm(
        f"{block}.{second_norm}",
        hidden + w.linear(f"{block}.{outer}", gelu(w.linear(f"{block}.{inner}", hidden))),
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
    """BERT (Devlin et al., 2019), RoBERTa and ELECTRA.

    In RoBERTa and related families the first position is the id of the padding token + 1. ELECTRA
    projects its embeddings. `soft` [P, E] is a soft prompt before the word embeddings; all its
    vectors have the first position.
    """
    w = Weights(model, model.config.layer_norm_eps)
    is_roberta = w.config.model_type in ("roberta", "xlm-roberta", "camembert")
    first_position = w.config.pad_token_id + 1 if is_roberta else 0
    words, num_soft = w.named["embeddings.word_embeddings.weight"][ids], 0
    positions = torch.arange(ids.shape[1]) + position_offset
    types = types if w.config.type_vocab_size > 1 else torch.zeros_like(types)
    if soft is not None:
        num_soft = soft.shape[0]
        words = torch.cat([soft.repeat(ids.shape[0], 1, 1), words], dim=1)
        positions = torch.cat([torch.zeros(num_soft, dtype=torch.long), positions])
        types = torch.cat([torch.zeros(ids.shape[0], num_soft, dtype=torch.long), types], dim=1)
        mask = torch.cat([torch.ones(ids.shape[0], num_soft, dtype=torch.long), mask], dim=1)
    hidden = words + w.named["embeddings.position_embeddings.weight"][positions + first_position]
    hidden = w.norm(
        "embeddings.LayerNorm", hidden + w.named["embeddings.token_type_embeddings.weight"][types]
    )
    if "embeddings_project.weight" in w.named:
        hidden = w.linear("embeddings_project", hidden)
    for layer in range(w.config.num_hidden_layers):
        block = f"encoder.layer.{layer}"
        query, key, value = (
            split_heads(
                w.linear(f"{block}.attention.self.{part}", hidden), w.config.num_attention_heads
            )
            for part in ("query", "key", "value")
        )
        hidden = _post_norm_layer(
            w,
            block,
            hidden,
            attend(query, key, value, bidirectional(mask), prompt, layer),
            BERT_NAMES,
        )
    return hidden[:, num_soft:]


def albert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """ALBERT (Lan et al., 2020): one layer, used repeatedly, with the tanh form of GELU."""
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
    block = "encoder.albert_layer_groups.0.albert_layers.0"
    for layer in range(w.config.num_hidden_layers):
        query, key, value = (
            split_heads(w.linear(f"{block}.attention.{part}", hidden), w.config.num_attention_heads)
            for part in ("query", "key", "value")
        )
        attended = attend(query, key, value, bidirectional(mask), prompt, layer)
        hidden = w.norm(
            f"{block}.attention.LayerNorm", hidden + w.linear(f"{block}.attention.dense", attended)
        )
        inner = w.linear(f"{block}.ffn_output", gelu_tanh(w.linear(f"{block}.ffn", hidden)))
        hidden = w.norm(f"{block}.full_layer_layer_norm", hidden + inner)
    return hidden


def distilbert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """DistilBERT (Sanh et al., 2019): the layers of BERT, without token types."""
    w = Weights(model, 1e-12)
    positions = w.named["embeddings.position_embeddings.weight"][
        torch.arange(ids.shape[1]) + position_offset
    ]
    hidden = w.norm(
        "embeddings.LayerNorm", w.named["embeddings.word_embeddings.weight"][ids] + positions
    )
    names = ("attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm")
    for layer in range(w.config.n_layers):
        block = f"transformer.layer.{layer}"
        query, key, value = (
            split_heads(w.linear(f"{block}.attention.{part}_lin", hidden), w.config.n_heads)
            for part in "qkv"
        )
        hidden = _post_norm_layer(
            w, block, hidden, attend(query, key, value, bidirectional(mask), prompt, layer), names
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
    """MPNet (Song et al., 2020): absolute positions, and a bias by the distance buckets of T5."""
    w = Weights(model, model.config.layer_norm_eps)
    count = ids.shape[1]
    positions = torch.arange(count) + position_offset + 2  # the padding token has the fixed id 1
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
        block = f"encoder.layer.{layer}"
        query, key, value = (
            split_heads(
                w.linear(f"{block}.attention.attn.{part}", hidden), w.config.num_attention_heads
            )
            for part in "qkv"
        )
        hidden = _post_norm_layer(
            w,
            block,
            hidden,
            attend(query, key, value, bidirectional(mask), prompt, layer, bias=bias),
            names,
        )
    return hidden


def _bucket(distance: int) -> int:
    """The bucket of a distance in T5 (Raffel et al., 2020, section 2.1).

    Each direction has 8 buckets for single distances, then 8 logarithmic buckets up to 128.
    """
    first, length = (16 if distance > 0 else 0), abs(distance)
    if length < 8:
        return first + length
    return first + min(15, 8 + int(math.log(length / 8) / math.log(128 / 8) * 8))


def deberta(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """DeBERTa (He et al., 2021, eq. 4).

    A score is the sum of content-to-content, content-to-position and position-to-content terms,
    divided by the square root of 3 D.
    """
    w = Weights(model, model.config.layer_norm_eps)
    count, heads = ids.shape[1], w.config.num_attention_heads
    hidden = w.named["embeddings.word_embeddings.weight"][ids]
    hidden = (
        hidden
        + w.named["embeddings.position_embeddings.weight"][torch.arange(count) + position_offset]
    )
    hidden = w.norm("embeddings.LayerNorm", hidden) * mask[..., None]
    limit = w.config.max_position_embeddings
    distance = distances(count)
    span = min(count, limit)
    table = w.named["encoder.rel_embeddings.weight"][limit - span : limit + span]
    for layer in range(w.config.num_hidden_layers):
        block = f"encoder.layer.{layer}.attention.self"
        size = hidden.shape[-1] // heads
        packed = (
            (hidden @ w.named[f"{block}.in_proj.weight"].T)
            .unflatten(-1, (heads, 3, size))
            .permute(3, 0, 2, 1, 4)
        )
        query = packed[0] + w.named[f"{block}.q_bias"].view(heads, 1, size)
        key, value = packed[1], packed[2] + w.named[f"{block}.v_bias"].view(heads, 1, size)
        scale = math.sqrt(3 * size)
        positions_key = split_heads((table @ w.named[f"{block}.pos_proj.weight"].T)[None], heads)[0]
        positions_query = split_heads(w.linear(f"{block}.pos_q_proj", table)[None], heads)[0]
        bias = _disentangled(
            query,
            key,
            positions_key,
            positions_query,
            (distance + span).clamp(0, 2 * span - 1),
            scale,
        )
        attended = attend(
            query, key, value, bidirectional(mask), prompt, layer, scale=scale, bias=bias
        )
        hidden = _post_norm_layer(w, f"encoder.layer.{layer}", hidden, attended, BERT_NAMES)
    return hidden


def _disentangled(
    query: Tensor,
    key: Tensor,
    positions_key: Tensor,
    positions_query: Tensor,
    index: Tensor,
    scale: float,
) -> Tensor:
    """The two terms with positions.

    They are the query of token i times the position key of the distance i - j, and the key of
    token j times the position query of that distance.
    """
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
    """DeBERTa v3 (He et al., 2023): logarithmic distance buckets.

    The normed table of the buckets is projected by the same matrices as the content.
    """
    assert not position_offset, "positions are relative"
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
        block = f"encoder.layer.{layer}.attention.self"
        query, key, value = (
            split_heads(w.linear(f"{block}.{part}_proj", hidden), heads)
            for part in ("query", "key", "value")
        )
        positions_query, positions_key = (
            split_heads(w.linear(f"{block}.{part}_proj", table)[None], heads)[0]
            for part in ("query", "key")
        )
        scale = math.sqrt(3 * query.shape[-1])
        bias = _disentangled(query, key, positions_key, positions_query, index, scale)
        attended = attend(
            query, key, value, bidirectional(mask), prompt, layer, scale=scale, bias=bias
        )
        hidden = _post_norm_layer(w, f"encoder.layer.{layer}", hidden, attended, BERT_NAMES)
    return hidden


def _log_bucket(distance: int, buckets: int, limit: int) -> int:
    """The signed bucket of a distance; each small distance has a separate bucket."""
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    share = math.log(abs(distance) / middle) / math.log((limit - 1) / middle)
    bucket = math.ceil(share * (middle - 1)) + middle
    return bucket if distance > 0 else -bucket


def modernbert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """ModernBERT (Warner et al., 2024): pre-norm, gated, rotary; most layers attend to a window."""
    w = Weights(model, model.config.norm_eps)
    hidden = w.norm("embeddings.norm", w.named["embeddings.tok_embeddings.weight"][ids])
    distance = distances(ids.shape[1]).abs()
    for layer in range(w.config.num_hidden_layers):
        block, kind = f"layers.{layer}", w.config.layer_types[layer]
        inner = hidden if layer == 0 else w.norm(f"{block}.attn_norm", hidden)
        packed = (
            w.linear(f"{block}.attn.Wqkv", inner)
            .unflatten(-1, (3, w.config.num_attention_heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        theta = w.config.rope_parameters[kind]["rope_theta"]
        query, key = (
            rotate(packed[0], position_offset, theta),
            rotate(packed[1], position_offset, theta),
        )
        visible = bidirectional(mask)
        if kind == "sliding_attention":
            visible = visible & (distance <= w.config.local_attention // 2)
        hidden = hidden + w.linear(
            f"{block}.attn.Wo", attend(query, key, packed[2], visible, prompt, layer)
        )
        value, gate = w.linear(f"{block}.mlp.Wi", w.norm(f"{block}.mlp_norm", hidden)).chunk(
            2, dim=-1
        )
        hidden = hidden + w.linear(f"{block}.mlp.Wo", gelu(value) * gate)
    return w.norm("final_norm", hidden)


# Decoders, and EuroBERT with the layers of a decoder


def llama(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Llama (Touvron et al., 2023) and related families.

    Qwen3 has norms of queries and keys. Mistral has an attention window. GLM rotates pairs of
    neighbors in half of each head, and has gate and up in one matrix. EuroBERT is bidirectional.
    """
    w = Weights(model, model.config.rms_norm_eps)
    config, glm = w.config, w.config.model_type == "glm"
    rope = config.rope_parameters
    share = rope.get("partial_rotary_factor", 1.0)
    visible = bidirectional(mask) if config.model_type == "eurobert" else causal(mask)
    if config.model_type == "mistral":
        visible = causal(mask, config.sliding_window)
    hidden = w.named["embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        block = f"layers.{layer}"
        inner = w.rms_norm(f"{block}.input_layernorm", hidden)
        query = split_heads(
            w.linear(f"{block}.self_attn.q_proj", inner), config.num_attention_heads
        )
        key, value = (
            split_heads(
                w.linear(f"{block}.self_attn.{part}_proj", inner), config.num_key_value_heads
            )
            for part in "kv"
        )
        if config.model_type == "qwen3":
            query, key = (
                w.rms_norm(f"{block}.self_attn.q_norm", query),
                w.rms_norm(f"{block}.self_attn.k_norm", key),
            )
        query, key = (
            rotate(part, position_offset, rope["rope_theta"], share, glm) for part in (query, key)
        )
        attended = attend(query, key, value, visible, prompt, layer)
        hidden = hidden + w.linear(f"{block}.self_attn.o_proj", attended)
        inner = w.rms_norm(f"{block}.post_attention_layernorm", hidden)
        if glm:
            gate, up = w.linear(f"{block}.mlp.gate_up_proj", inner).chunk(2, dim=-1)
        else:
            gate, up = (
                w.linear(f"{block}.mlp.gate_proj", inner),
                w.linear(f"{block}.mlp.up_proj", inner),
            )
        hidden = hidden + w.linear(f"{block}.mlp.down_proj", functional.silu(gate) * up)
    return w.rms_norm("norm", hidden)


def gpt2(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """GPT-2 (Radford et al., 2019), with matrices [input, output]."""
    w = Weights(model, model.config.layer_norm_epsilon)
    hidden = (
        w.named["wte.weight"][ids]
        + w.named["wpe.weight"][torch.arange(ids.shape[1]) + position_offset]
    )
    for layer in range(w.config.n_layer):
        block = f"h.{layer}"
        parts = w.conv1d(f"{block}.attn.c_attn", w.norm(f"{block}.ln_1", hidden)).chunk(3, dim=-1)
        query, key, value = (split_heads(part, w.config.n_head) for part in parts)
        hidden = hidden + w.conv1d(
            f"{block}.attn.c_proj", attend(query, key, value, causal(mask), prompt, layer)
        )
        inner = gelu_tanh(w.conv1d(f"{block}.mlp.c_fc", w.norm(f"{block}.ln_2", hidden)))
        hidden = hidden + w.conv1d(f"{block}.mlp.c_proj", inner)
    return w.norm("ln_f", hidden)


def gpt_neox(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """GPT-NeoX (Black et al., 2022).

    Attention and MLP are parallel, rotary positions apply to a part of each head, and query, key
    and value are grouped by head.
    """
    w = Weights(model, model.config.layer_norm_eps)
    rope, heads = w.config.rope_parameters, w.config.num_attention_heads
    hidden = w.named["embed_in.weight"][ids]
    for layer in range(w.config.num_hidden_layers):
        block = f"layers.{layer}"
        packed = w.linear(
            f"{block}.attention.query_key_value", w.norm(f"{block}.input_layernorm", hidden)
        )
        query, key, value = packed.unflatten(-1, (heads, 3, -1)).permute(3, 0, 2, 1, 4)
        query, key = (
            rotate(part, position_offset, rope["rope_theta"], rope["partial_rotary_factor"])
            for part in (query, key)
        )
        attended = w.linear(
            f"{block}.attention.dense", attend(query, key, value, causal(mask), prompt, layer)
        )
        inner = gelu(
            w.linear(
                f"{block}.mlp.dense_h_to_4h", w.norm(f"{block}.post_attention_layernorm", hidden)
            )
        )
        hidden = hidden + attended + w.linear(f"{block}.mlp.dense_4h_to_h", inner)
    return w.norm("final_layer_norm", hidden)


def gemma2(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """Gemma 2 (Gemma Team, 2024).

    The scores have a soft limit, every second layer has an attention window, and there are norms
    before and after attention and MLP. The scale of a norm is one plus its weight.
    """
    w = Weights(model, model.config.rms_norm_eps)
    w.named = {
        name: values + 1 if name.endswith("norm.weight") else values
        for name, values in w.named.items()
    }
    config, theta = w.config, w.config.rope_parameters["rope_theta"]
    hidden = w.named["embed_tokens.weight"][ids] * math.sqrt(config.hidden_size)
    for layer in range(config.num_hidden_layers):
        block = f"layers.{layer}"
        inner = w.rms_norm(f"{block}.input_layernorm", hidden)
        query, key, value = (
            split_heads(w.linear(f"{block}.self_attn.{part}_proj", inner), heads)
            for part, heads in (
                ("q", config.num_attention_heads),
                ("k", config.num_key_value_heads),
                ("v", config.num_key_value_heads),
            )
        )
        query, key = (rotate(part, position_offset, theta) for part in (query, key))
        attended = attend(
            query,
            key,
            value,
            causal(mask, config.sliding_window if layer % 2 == 0 else None),
            prompt,
            layer,
            scale=math.sqrt(config.query_pre_attn_scalar),
            softcap=config.attn_logit_softcapping,
        )
        attended = w.linear(f"{block}.self_attn.o_proj", attended)
        hidden = hidden + w.rms_norm(f"{block}.post_attention_layernorm", attended)
        inner = w.rms_norm(f"{block}.pre_feedforward_layernorm", hidden)
        gate = gelu_tanh(w.linear(f"{block}.mlp.gate_proj", inner))
        inner = w.linear(f"{block}.mlp.down_proj", gate * w.linear(f"{block}.mlp.up_proj", inner))
        hidden = hidden + w.rms_norm(f"{block}.post_feedforward_layernorm", inner)
    return w.rms_norm("norm", hidden)


def t5(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Prompt = None,
    position_offset: int = 0,
) -> Tensor:
    """The encoder of T5 (Raffel et al., 2020), and of mT5 and UMT5."""
    assert not position_offset, "positions are relative"
    w = Weights(model, model.config.layer_norm_epsilon)
    hidden = w.named["shared.weight"][ids]
    for layer in range(w.config.num_layers):
        block = f"encoder.block.{layer}.layer"
        bias = _t5_bias(w, "encoder", layer, ids.shape[1])
        hidden = _t5_attention(
            w, f"{block}.0", "SelfAttention", hidden, None, bidirectional(mask), prompt, layer, bias
        )
        hidden = _t5_mlp(w, f"{block}.1", hidden)
    return w.rms_norm("encoder.final_layer_norm", hidden)


def _t5_attention(
    w: Weights,
    block: str,
    name: str,
    hidden: Tensor,
    source: Tensor | None,
    visible: Tensor,
    prompt: Prompt,
    layer: int,
    bias: Tensor | None = None,
) -> Tensor:
    """An attention to the tokens themselves, or to the states of a source, with unscaled scores."""
    inner = w.rms_norm(f"{block}.layer_norm", hidden)
    keys = inner if source is None else source
    query, key, value = (
        split_heads(w.linear(f"{block}.{name}.{part}", states), w.config.num_heads)
        for part, states in (("q", inner), ("k", keys), ("v", keys))
    )
    attended = attend(query, key, value, visible, prompt, layer, scale=1.0, bias=bias)
    return hidden + w.linear(f"{block}.{name}.o", attended)


def _t5_mlp(w: Weights, block: str, hidden: Tensor) -> Tensor:
    """mT5 and UMT5 have a gated MLP."""
    inner, dense = w.rms_norm(f"{block}.layer_norm", hidden), f"{block}.DenseReluDense"
    if w.config.is_gated_act:
        inner = gelu_tanh(w.linear(f"{dense}.wi_0", inner)) * w.linear(f"{dense}.wi_1", inner)
    else:
        inner = w.linear(f"{dense}.wi", inner).relu()
    return hidden + w.linear(f"{dense}.wo", inner)


def _t5_bias(w: Weights, stack: str, layer: int, length: int) -> Tensor:
    """The bias [heads, T, T] of each distance. Layers share it, but not in UMT5."""
    name = "layer.0.SelfAttention.relative_attention_bias.weight"
    table = w.named.get(f"{stack}.block.{layer}.{name}", w.named[f"{stack}.block.0.{name}"])
    return table[_t5_buckets(length, w.config, stack == "decoder")].permute(2, 0, 1)


def _t5_buckets(length: int, config: Any, is_causal: bool) -> Tensor:
    """The bucket of each pair of tokens [T, T]: one half of the buckets for each direction.

    In a decoder, all buckets are for the tokens before.
    """
    size = config.relative_attention_num_buckets // (1 if is_causal else 2)
    exact, limit = size // 2, config.relative_attention_max_distance

    def bucket(distance: int) -> int:
        start = size if distance < 0 and not is_causal else 0
        length = max(0, distance) if is_causal else abs(distance)
        if length < exact:
            return start + length
        steps = math.log(length / exact) / math.log(limit / exact) * (size - exact)
        return start + min(size - 1, exact + int(steps))

    return torch.tensor([[bucket(i - j) for j in range(length)] for i in range(length)])


# Whole encoder-decoders


def whole_t5(
    model: Any, source_ids: Tensor, target_ids: Tensor, prompt: Sequence[Tensor] | Tensor
) -> Tensor:
    """The states of the decoder [1, N, C] for a source [1, S] and a target [1, N] (T5, mT5, UMT5).

    `prompt` has the keys and values [2, H, P, D] of the self-attentions of the encoder, and then of
    the self-attention and the cross-attention of each layer of the decoder.
    """
    w = Weights(model, model.config.layer_norm_epsilon)
    w.named["shared.weight"] = w.named["encoder.embed_tokens.weight"]
    mask, count = torch.ones_like(source_ids), target_ids.shape[1]
    states = t5(_Named(w), source_ids, mask, mask, prompt)
    hidden, visible = w.named["shared.weight"][target_ids], causal(torch.ones_like(target_ids))
    to_source = mask.bool()[:, None, :].repeat(1, count, 1)
    for layer in range(w.config.num_decoder_layers):
        block, index = f"decoder.block.{layer}.layer", w.config.num_layers + 2 * layer
        bias = _t5_bias(w, "decoder", layer, count)
        hidden = _t5_attention(
            w, f"{block}.0", "SelfAttention", hidden, None, visible, prompt, index, bias
        )
        hidden = _t5_attention(
            w, f"{block}.1", "EncDecAttention", hidden, states, to_source, prompt, index + 1
        )
        hidden = _t5_mlp(w, f"{block}.2", hidden)
    return w.rms_norm("decoder.final_layer_norm", hidden)


class _Named:
    """Weights in the form of a model."""

    def __init__(self, weights: Weights) -> None:
        self.config, self._named = weights.config, weights.named

    def named_parameters(self) -> Any:
        return self._named.items()


def whole_bart(
    model: Any, source_ids: Tensor, target_ids: Tensor, prompt: Sequence[Tensor] | Tensor
) -> Tensor:
    """BART (Lewis et al., 2020): post-norm layers, and learned positions from index 2 on.

    The arguments and the order of `prompt` are those of `whole_t5`.
    """
    w = Weights(model, 1e-5)
    mask, count = torch.ones_like(source_ids), target_ids.shape[1]
    states = _bart_embedded(w, "encoder", source_ids)
    for layer in range(w.config.encoder_layers):
        block = f"encoder.layers.{layer}"
        states = _bart_attention(
            w, block, "self_attn", states, states, bidirectional(mask), prompt, layer
        )
        states = _bart_mlp(w, block, states)
    hidden, visible = (
        _bart_embedded(w, "decoder", target_ids),
        causal(torch.ones_like(target_ids)),
    )
    to_source = mask.bool()[:, None, :].repeat(1, count, 1)
    for layer in range(w.config.decoder_layers):
        block, index = f"decoder.layers.{layer}", w.config.encoder_layers + 2 * layer
        hidden = _bart_attention(w, block, "self_attn", hidden, hidden, visible, prompt, index)
        hidden = _bart_attention(
            w, block, "encoder_attn", hidden, states, to_source, prompt, index + 1
        )
        hidden = _bart_mlp(w, block, hidden)
    return hidden


def _bart_embedded(w: Weights, stack: str, ids: Tensor) -> Tensor:
    positions = w.named[f"{stack}.embed_positions.weight"][torch.arange(ids.shape[1]) + 2]
    words = w.named["encoder.embed_tokens.weight"][ids]
    return w.norm(f"{stack}.layernorm_embedding", words + positions)


def _bart_attention(
    w: Weights,
    block: str,
    name: str,
    hidden: Tensor,
    keys: Tensor,
    visible: Tensor,
    prompt: Prompt,
    layer: int,
) -> Tensor:
    query, key, value = (
        split_heads(
            w.linear(f"{block}.{name}.{part}_proj", states), w.config.encoder_attention_heads
        )
        for part, states in (("q", hidden), ("k", keys), ("v", keys))
    )
    attended = attend(query, key, value, visible, prompt, layer)
    output = w.linear(f"{block}.{name}.out_proj", attended)
    return w.norm(f"{block}.{name}_layer_norm", hidden + output)


def _bart_mlp(w: Weights, block: str, hidden: Tensor) -> Tensor:
    inner = gelu(w.linear(f"{block}.fc1", hidden))
    return w.norm(f"{block}.final_layer_norm", hidden + w.linear(f"{block}.fc2", inner))


WHOLE_REFERENCES: dict[str, Callable[..., Tensor]] = {
    "bart": whole_bart,
    "mt5": whole_t5,
    "t5": whole_t5,
    "umt5": whole_t5,
}

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
    "gemma2": gemma2,
    "glm": llama,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": llama,
    "modernbert": modernbert,
    "mt5": t5,
    "mpnet": mpnet,
    "qwen2": llama,
    "qwen3": llama,
    "roberta": bert,
    "t5": t5,
    "umt5": t5,
    "xlm-roberta": bert,
}
