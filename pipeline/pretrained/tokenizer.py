"""Words and texts to sub-word ids, and the special tokens around one or two segments."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from pipeline.errors import UserError
from pipeline.pretrained.families import family_of

REMEMBERED = 200_000  # words whose sub-words are kept in memory: those of most text
TOGETHER = 64  # words that are tokenized as one sentence, which costs little more than one word


class Tokenizer:
    """A backbone's fast tokenizer, reduced to what features need.

    `prefix`, `middle` and `suffix` are the ids before the first segment, between two, and at the end ([CLS], [SEP], [SEP];
    a causal backbone's template may lack the latter two, then they are its end-of-text token); `second_type` is the token type
    of a second segment (0 where the backbone has one type); `marker` and `second_marker` set words off by text; `mask` is what
    stands for a word to be guessed (None: the backbone guesses the next one); `max_length` is how many tokens the backbone has
    positions for; in a `causal` backbone a token's state knows only what is before it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError where `folder` holds no fast tokenizer."""
        from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415  (it loads torch, and a copy of a tokenizer needs none)

        try:
            known = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, add_prefix_space=True
            )
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: no tokenizer can be read there: {str(error).splitlines()[0]}"
            ) from error
        if not known.is_fast:
            raise UserError(
                f"{folder}: its tokenizer is not a fast one (tokenizer.json), which gives no offsets; convert it"
            )
        self._fast: Any = known.backend_tokenizer
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # "[SEP]" in a user's text is text
        self.prefix, self.middle, self.suffix, second_type = self._template()
        # Llama's and ModernBERT's templates number the segments, but those backbones read no numbers.
        self.second_type = second_type if (getattr(config, "type_vocab_size", 0) or 0) > 1 else 0
        unknown = known.unk_token_id
        self.unknown = int(unknown if unknown is not None else known.eos_token_id)
        self.pad_token_id = int(known.pad_token_id or 0)
        family = family_of(config.model_type)
        self.causal = family.causal
        self.mask: int | None = None if family.causal else known.mask_token_id
        positions = int(getattr(config, "max_position_embeddings", None) or known.model_max_length)
        self.max_length = positions - family.first_position
        if self.causal:
            end = known.eos_token_id
            self.middle, self.suffix = (
                ids or [self.unknown if end is None else int(end)]
                for ids in (self.middle, self.suffix)
            )
        self._pieces: dict[str, list[int]] = {}
        self.marker, self.second_marker = self.words([["*", "#"]])[0]

    @property
    def digest(self) -> str:
        """A hash of all that ids depend on."""
        rest = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return hashlib.sha256(f"{self._fast.to_str()}\n{sorted(rest.items())}".encode()).hexdigest()

    def _template(self) -> tuple[list[int], list[int], list[int], int]:
        pair = self._fast.encode("a", "a")
        ids, special, types = list(pair.ids), pair.special_tokens_mask, pair.type_ids
        inside = [i for i, flag in enumerate(special) if not flag]
        gaps = [i for i in range(inside[0], inside[-1]) if special[i]]
        middle = ids[gaps[0] : gaps[-1] + 1] if gaps else []
        return ids[: inside[0]], middle, ids[inside[-1] + 1 :], int(types[inside[-1]])

    def summary(self, length: int) -> int:
        """The position whose state stands for a whole text of `length` tokens: the first; a causal backbone's last."""
        return length - 1 if self.causal else 0

    def words(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Sub-word ids of every word, not to be changed: equal words share them, since no word depends on those around it.

        A word that leaves none (empty, or all control characters) becomes the unknown token.
        """
        if len(self._pieces) > REMEMBERED:
            self._pieces = {}
        known = self._pieces
        new = list({word for words in sentences for word in words if word not in known})
        lines = [new[start : start + TOGETHER] for start in range(0, len(new), TOGETHER)]
        encodings = self._fast.encode_batch(lines, is_pretokenized=True, add_special_tokens=False)
        for words, encoding in zip(lines, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in words]
            for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
                pieces[word].append(piece)
            known.update(zip(words, (piece or [self.unknown] for piece in pieces), strict=True))
        return [[known[word] for word in words] for words in sentences]

    def single_words(self, words: Sequence[str]) -> list[int]:
        """The vocabulary's number of each word. Raises UserError with all that it cuts into several, or that are the same."""
        pieces = self.words([words])[0]
        bad = [
            f"word {word!r} is {len(piece)} sub-words of the backbone's vocabulary; choose a word that is one"
            for word, piece in zip(words, pieces, strict=True)
            if len(piece) > 1 or piece == [self.unknown]
        ]
        ids = [piece[0] for piece in pieces]
        bad += [
            f"word {word!r} is to the backbone the same as another; choose another"
            for i, word in enumerate(words)
            if ids[i] in ids[:i]
        ]
        if bad:
            raise UserError(*(f"{problem} in the recipe's words" for problem in bad))
        return ids

    def texts(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Sub-word ids of every text, each with its (start, end) in characters of the text."""
        encodings = self._fast.encode_batch(list(texts), add_special_tokens=False)
        return [
            (list(encoding.ids), [(int(a), int(b)) for a, b in encoding.offsets])
            for encoding in encodings
        ]
