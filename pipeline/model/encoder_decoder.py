"""An encoder-decoder as a model of rows: one row of tokens in, one row of hidden states out.

A row is a source and a target (token types 0 and 1), or a text alone (token type 0). The encoder
reads the source, and the decoder the target. A text alone is read by both, and the decoder reads it
shifted by one token, as in `BartForQuestionAnswering` and `T5ForQuestionAnswering` of transformers.
In both cases the hidden states are those of the decoder, at the positions of their tokens in the
row. So the tables, batches and heads of all tasks are those of any other backbone.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)

from pipeline.model.layers import with_modules
from pipeline.pretrained.families import decoder_start


@dataclass
class _BodyOutput(BaseModelOutputWithPastAndCrossAttentions):  # type: ignore[misc]
    """The output of any body. Language models with mixtures of experts read the router's too."""

    router_logits: None = None


class IdentityBody(nn.Module):
    """A replacement for the body of a language model; it returns its input embeddings."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _BodyOutput:
        """The output with `inputs_embeds` [B, T, C] as the last hidden states."""
        return _BodyOutput(last_hidden_state=inputs_embeds)


class Rows(NamedTuple):
    """Rows of T tokens, split for an encoder and a decoder.

    `source_ids` and `source_mask` are [B, S], `target_ids` and `target_mask` [B, N], all padded on
    the right. `starts` [B] is the position of the first target token in the row; it is 0 for a text
    alone, whose target is the text shifted by one token.
    """

    source_ids: Tensor
    source_mask: Tensor
    target_ids: Tensor
    target_mask: Tensor
    starts: Tensor

    def aligned(self, hidden: Tensor, length: int) -> Tensor:
        """The states [B, N, C] of the targets at their positions in rows [B, T, C]; 0 elsewhere."""
        order = torch.arange(length, device=hidden.device) - self.starts[:, None]
        index = order.clamp(0, hidden.shape[1] - 1)[..., None].expand(-1, -1, hidden.shape[2])
        return hidden.gather(1, index).masked_fill(order[..., None] < 0, 0)


def split_rows(
    input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, start_token_id: int
) -> Rows:
    """Split rows [B, T] into sources and targets. `start_token_id` begins the target of a text."""
    has_target = token_types.bool().any(dim=1)
    source_mask = attention_mask.masked_fill(token_types.bool(), 0)
    starts = source_mask.sum(dim=1) * has_target
    width = int(source_mask.sum(dim=1).max())
    order = torch.arange(int((attention_mask.sum(dim=1) - starts).max()), device=starts.device)
    index = (starts[:, None] + order).clamp(max=input_ids.shape[1] - 1)
    shifted = nn.functional.pad(input_ids[:, :-1], (1, 0), value=start_token_id)
    tokens = torch.where(has_target[:, None], input_ids, shifted)
    inside = starts[:, None] + order < attention_mask.sum(dim=1, keepdim=True)
    return Rows(
        input_ids[:, :width],
        source_mask[:, :width],
        tokens.gather(1, index),
        inside.to(attention_mask.dtype),
        starts,
    )


class EncoderDecoder(nn.Module):
    """The encoder and the decoder of a model of transformers, without its LM head."""

    def __init__(self, model: Any) -> None:
        """Take both from `model`. Raises UserError if its config has no first token of targets."""
        super().__init__()
        self.config: Any = model.config
        self.encoder, self.decoder = model.get_encoder(), model.get_decoder()
        self._supports_sdpa: bool = model._supports_sdpa
        self.start_token_id = decoder_start(self.config)

    def get_input_embeddings(self) -> Any:
        """The embeddings of the encoder; those of the decoder have the same weights."""
        return self.encoder.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        source_prefix: Tensor | None = None,
    ) -> BaseModelOutput:
        """Hidden states [B, T, C] of the target of each row; 0 at the tokens of a source.

        `input_ids`, `attention_mask` and `token_type_ids` are [B, T], padded on the right.
        `source_prefix` [P, E] precedes the input embeddings of the encoder.
        """
        rows = split_rows(input_ids, attention_mask, token_type_ids, self.start_token_id)
        source, source_mask = self.encode(rows.source_ids, rows.source_mask, source_prefix)
        hidden = self.decoder(
            input_ids=rows.target_ids,
            attention_mask=rows.target_mask,
            encoder_hidden_states=source,
            encoder_attention_mask=source_mask,
            use_cache=False,
        ).last_hidden_state
        return BaseModelOutput(last_hidden_state=rows.aligned(hidden, input_ids.shape[1]))

    def encode(
        self, source_ids: Tensor, source_mask: Tensor, source_prefix: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden states [B, P + S, C] and mask [B, P + S] of sources [B, S] after a prefix [P, E].

        P is 0 without a prefix.
        """
        if source_prefix is None:
            output = self.encoder(input_ids=source_ids, attention_mask=source_mask)
            return output.last_hidden_state, source_mask
        embedded = self.get_input_embeddings()(source_ids)
        prefix = source_prefix.to(embedded.dtype).expand(len(source_ids), -1, -1)
        mask = nn.functional.pad(source_mask, (prefix.shape[1], 0), value=1)
        output = self.encoder(
            inputs_embeds=torch.cat([prefix, embedded], dim=1), attention_mask=mask
        )
        return output.last_hidden_state, mask


class SequenceToSequenceHead(nn.Module):
    """The LM head of an encoder-decoder: a language model whose encoder and decoder do nothing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        names = {id(module): name for name, module in model.named_modules()}
        self._paths = names[id(model.get_encoder())], names[id(model.get_decoder())]
        self.model = with_modules(model, dict.fromkeys(self._paths, IdentityBody()))

    def forward(self, inputs_embeds: Tensor) -> Any:
        """The output for hidden states [B, N, C], with `logits` [B, N, vocabulary]."""
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=inputs_embeds),
            decoder_inputs_embeds=inputs_embeds,
        )

    def with_body(self, body: EncoderDecoder) -> Any:
        """The whole language model; it shares all weights with `body` and this head."""
        return with_modules(
            self.model, dict(zip(self._paths, (body.encoder, body.decoder), strict=True))
        )
