"""Tokenize words and texts into sub-word ids, with the special tokens of one or two segments."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UserError, first_line
from pipeline.pretrained.families import decoder_start, family_of

MAX_CACHED_WORDS = 200_000  # enough for the vocabulary of most corpora
WORDS_PER_LINE = 64  # tokenized as one sentence, at little more than the cost of one word


class TokenCounts(NamedTuple):
    """The number of tokens of a text without special tokens, and how many of them are unknown."""

    text: int
    unknown: int


class Tokenizer:
    """The fast tokenizer of a backbone, with the functions needed for features.

    - `prefix`, `middle`, `suffix`: the ids before the first segment, between two segments, and at
      the end ([CLS], [SEP], [SEP]). If the template of a causal backbone has no middle or suffix,
      they are its end-of-text token.
    - `second_type`: the token type of a second segment (0 if the backbone has one type only).
    - `marker`, `second_marker`: the ids of "*" and "#", which mark words in a text.
    - `mask_token_id`: None if the backbone is causal or has no mask token.
    - `max_length`: the number of tokens that the backbone has positions for.
    - `causal`: whether a token attends only to itself and the tokens before it.
    - `target_prefix`: the first ids of each target of a whole encoder-decoder: the first token of
      its decoder, and the prefix of a text. Empty for other backbones.
    """

    def __init__(self, folder: Path, decoder: bool = False) -> None:
        """Load the tokenizer; with `decoder`, that of a whole encoder-decoder.

        Raises UserError if `folder` has no fast tokenizer, or no such model, or if the first token
        of the decoder also begins each text.
        """
        # Otherwise tokenizers warns in every process that is forked after this one used it.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        # transformers imports torch, and a process with a copy of this object does not need it.
        from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415

        try:
            pretrained = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, add_prefix_space=True
            )
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise UserError(
                f"{folder}: cannot load a tokenizer: {reason}; "
                "give a folder that save_pretrained wrote"
            ) from error
        if not pretrained.is_fast:
            raise UserError(
                f"{folder}: the tokenizer is not a fast tokenizer (tokenizer.json), so it has no "
                "offsets; convert it"
            )
        self._fast: Any = pretrained.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # "[SEP]" in a text is plain text
        self.prefix, self.middle, self.suffix, second_type = self._template()
        # The templates of Llama and ModernBERT have token types, but the backbones ignore them.
        self.second_type = second_type if (getattr(config, "type_vocab_size", 0) or 0) > 1 else 0
        unknown, end = pretrained.unk_token_id, pretrained.eos_token_id
        self.unk_token_id = int(unknown if unknown is not None else end)
        # The unknown token of a byte-level tokenizer is its end-of-text token, and no text has it.
        self._has_unknown = unknown is not None and unknown != end
        self.pad_token_id = int(pretrained.pad_token_id or 0)
        family = family_of(config.model_type, decoder)
        self.target_prefix = self._target_prefix(folder, config) if decoder else []
        self.causal = family.causal
        self.mask_token_id: int | None = None if family.causal else pretrained.mask_token_id
        positions = getattr(config, "max_position_embeddings", None) or pretrained.model_max_length
        self.max_length = int(positions) - family.first_position
        if self.causal or decoder:
            separator = [self.unk_token_id if end is None else int(end)]
            self.middle, self.suffix = self.middle or separator, self.suffix or separator
        self._check_embeddings(folder, getattr(config, "vocab_size", None))
        self._pieces: dict[str, list[int]] = {}
        self.marker, self.second_marker = self.encode_words([["*", "#"]])[0]

    @property
    def digest(self) -> str:
        """The hash of everything that determines the ids."""
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        text = f"{self._fast.to_str()}\n{sorted(public.items())}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_embeddings(self, folder: Path, vocab_size: int | None) -> None:
        """Raise UserError if the backbone has no embedding for an id that batches may have.

        Other added tokens may have higher ids: they are read as plain text.
        """
        special = {self.unk_token_id, self.pad_token_id, *self.prefix, *self.middle, *self.suffix}
        highest = max(*special, self._fast.get_vocab_size(with_added_tokens=False) - 1)
        if vocab_size and highest >= vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has the id {highest} "
                f"({self._fast.id_to_token(highest)!r}), but vocab_size of config.json is "
                f"{vocab_size}, so the backbone has no embedding for it; use the tokenizer and the "
                "weights of the same model, or add embeddings (resize_token_embeddings of "
                "transformers)"
            )

    def _target_prefix(self, folder: Path, config: Any) -> list[int]:
        start = decoder_start(config)
        if start in self.prefix:  # `generate` finds the target by this token.
            raise UserError(
                f"{folder}: decoder_start_token_id of config.json is {start}, which also begins "
                "each text of the tokenizer, so a target has no first token of its own; use "
                "another backbone"
            )
        return [start, *self.prefix]

    def _template(self) -> tuple[list[int], list[int], list[int], int]:
        pair = self._fast.encode("a", "a")
        ids, special, types = list(pair.ids), pair.special_tokens_mask, pair.type_ids
        inside = [i for i, flag in enumerate(special) if not flag]
        gaps = [i for i in range(inside[0], inside[-1]) if special[i]]
        middle = ids[gaps[0] : gaps[-1] + 1] if gaps else []
        return ids[: inside[0]], middle, ids[inside[-1] + 1 :], int(types[inside[-1]])

    def summary_position(self, length: int) -> int:
        """Return the position whose hidden state represents a whole text of `length` tokens.

        It is the first position, or the last in a causal backbone. In a whole encoder-decoder, it
        is the last too, as in `BartForSequenceClassification` and `T5ForSequenceClassification`.
        """
        return length - 1 if self.causal or self.target_prefix else 0

    def count_tokens(self, ids: Iterable[int]) -> TokenCounts:
        """Count the tokens of one window of text."""
        special = {
            *self.prefix,
            *self.middle,
            *self.suffix,
            *self.target_prefix,
            self.mask_token_id,
        }
        text = [id for id in map(int, ids) if id not in special]
        return TokenCounts(len(text), text.count(self.unk_token_id) if self._has_unknown else 0)

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Tokenize each word of each sentence into sub-word ids.

        The ids of a word do not depend on the words around it. Equal words share one list: do not
        modify it. A word without sub-words (empty, or only control characters) becomes the
        unknown token.
        """
        if len(self._pieces) > MAX_CACHED_WORDS:
            self._pieces = {}
        cache = self._pieces
        new_words = list({word for words in sentences for word in words if word not in cache})
        starts = range(0, len(new_words), WORDS_PER_LINE)
        lines = [new_words[start : start + WORDS_PER_LINE] for start in starts]
        encodings = self._fast.encode_batch(lines, is_pretokenized=True, add_special_tokens=False)
        for words, encoding in zip(lines, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in words]
            for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
                pieces[word].append(piece)
            cache.update(
                zip(words, (piece or [self.unk_token_id] for piece in pieces), strict=True)
            )
        return [[cache[word] for word in words] for words in sentences]

    def vocabulary_ids(self, words: Sequence[str]) -> list[int]:
        """Return the vocabulary id of each word.

        Raises UserError with all words that have several sub-words or the id of another word.
        """
        pieces = self.encode_words([words])[0]
        ids = [piece[0] for piece in pieces]
        problems = []
        for index, (word, piece) in enumerate(zip(words, pieces, strict=True)):
            if len(piece) > 1 or piece == [self.unk_token_id]:
                reason = f"has {len(piece)} sub-words" if len(piece) > 1 else "is unknown"
                problems.append(
                    f"the recipe's words: {word!r} {reason} in the backbone's vocabulary; "
                    "choose a word that is one sub-word"
                )
            if ids[index] in ids[:index]:
                problems.append(
                    f"the recipe's words: {word!r} has the same vocabulary id as another word; "
                    "choose a different word"
                )
        if problems:
            raise UserError(*problems)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens and without space around it."""
        text: str = self._fast.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def encode_texts(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Tokenize each text into sub-word ids and their (start, end) offsets in characters."""
        encodings = self._fast.encode_batch(list(texts), add_special_tokens=False)
        return [
            (list(encoding.ids), [(int(a), int(b)) for a, b in encoding.offsets])
            for encoding in encodings
        ]
