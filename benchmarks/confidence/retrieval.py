"""Augmented input: the training context nearest to a question is put before its context.

Jiang et al. (2021, section 4, input augmentation) retrieve evidence for a question. Here the
distance is the cosine of mean hidden states of the pretrained backbone, without prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.features.table import FeatureList
from pipeline.mixing.batches import collate
from pipeline.model.backbone import Backbone
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.span_extraction import Example

MAX_WORDS = 60  # of a training context
BATCH_SIZE = 32


class Retriever:
    """Training contexts, cut to MAX_WORDS words, and their embeddings [M, C]."""

    def __init__(self, contexts: Sequence[str], backbone: Backbone, tokenizer: Tokenizer) -> None:
        cut = (" ".join(context.split()[:MAX_WORDS]) for context in contexts)
        self._texts = list(dict.fromkeys(cut))
        self._backbone, self._tokenizer = backbone, tokenizer
        self._embeddings = self.embed(self._texts)

    def nearest(self, examples: Sequence[Example]) -> list[str]:
        """The nearest training context of each question, except for its own context."""
        cosines = self.embed([example.question for example in examples]) @ self._embeddings.T
        for row, example in enumerate(examples):
            own = [example.context.startswith(text[:80]) for text in self._texts]
            cosines[row, own] = -np.inf
        return [self._texts[column] for column in cosines.argmax(axis=1)]

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The mean hidden state of each text, at length 1 [len(texts), C]."""
        rows = [
            self._mean_states(texts[i : i + BATCH_SIZE]) for i in range(0, len(texts), BATCH_SIZE)
        ]
        return np.concatenate(rows)

    def _mean_states(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokenizer = self._tokenizer
        room = tokenizer.max_length - len(tokenizer.prefix) - len(tokenizer.suffix)
        features = [
            _feature([*tokenizer.prefix, *ids[:room], *tokenizer.suffix])
            for ids, _ in tokenizer.encode_texts(list(texts))
        ]
        batch = collate(FeatureList(features), np.arange(len(texts)), 0, tokenizer.pad_token_id)
        hidden = self._backbone(batch.input_ids, batch.attention_mask, batch.token_types, None)
        mask = batch.attention_mask.unsqueeze(-1)
        means = (hidden.float() * mask).sum(1) / mask.sum(1)
        embeddings: NDArray[np.float32] = torch.nn.functional.normalize(means, dim=1).numpy()
        return embeddings


def _feature(ids: Sequence[int]) -> Feature:
    return Feature(0, ids, [0] * len(ids), [0], [0], [0], [0], 0)


def augment(examples: Sequence[Example], texts: Sequence[str]) -> list[Example]:
    """The examples with a text before each context, without answers."""
    return [
        replace(example, context=f"{text} {example.context}", answers=())
        for example, text in zip(examples, texts, strict=True)
    ]


def own_positions(windows: Sequence[WindowLogits], text: str) -> Iterator[WindowLogits]:
    """The logits of "no answer" and of the context, without those of the text before it."""
    offset = len(text) + 1
    for window in windows:
        keep = window.begins >= offset
        keep[0] = True
        yield WindowLogits(
            window.begins[keep] - offset, window.ends[keep] - offset, window.logits[keep]
        )
