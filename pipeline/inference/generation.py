"""Generated texts of a predictor: rows of different tasks share batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError, describe
from pipeline.mixing.batches import length_batches
from pipeline.model.generation import Decoding, generate
from pipeline.model.prompted_model import PromptedModel
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.capabilities import GeneratesText
from pipeline.tasks.base.features import Feature, source_tokens
from pipeline.tasks.base.task import Task

_INCOMPLETE = "\ufffd"  # what a tokenizer of bytes writes for a part of a character
Kinds = Sequence[Task[Any, Any, Any]]


def check_decoding(
    decoding: Any, on_text: Any, kinds: Kinds, windows: Mapping[str, tuple[int, int]]
) -> None:
    """Raise UserError if these settings do not fit the tasks.

    `windows` has the maximum length of the windows of each task, in the order of `kinds`.
    """
    if not isinstance(decoding, Decoding):
        raise UserError(f"decoding is {describe(decoding)}; give deep_prompt.Decoding(...)")
    if on_text is not None and decoding.num_beams > 1:
        raise UserError(
            f"decoding: num_beams is {decoding.num_beams}, but a beam search chooses no token "
            "before its end; set it to 1, or leave out on_text"
        )
    limit = decoding.max_new_tokens
    problems = [
        f"decoding: max_new_tokens is {limit}, but the windows of {name} have {length} tokens; "
        f"give at most {length // 2}, or load the artifact with a greater max_length"
        for kind, (name, (length, _)) in zip(kinds, windows.items(), strict=True)
        if isinstance(kind, GeneratesText) and limit is not None and limit > length // 2
    ]
    if problems:
        raise UserError(*problems)


class TextWriter:
    """Generates the texts of windows. `kinds` are the tasks with the limit of `decoding`."""

    def __init__(
        self,
        model: PromptedModel,
        tokenizer: Tokenizer,
        kinds: Kinds,
        decoding: Decoding,
        on_text: Callable[[str], object] | None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._decoding, self._on_text = decoding, on_text
        self.kinds = [
            kind.configured(max_answer_length=decoding.max_new_tokens)
            if isinstance(kind, GeneratesText)
            else kind
            for kind in kinds
        ]

    def generates(self, task: int) -> bool:
        """Whether the task with this index generates text."""
        return isinstance(self.kinds[task], GeneratesText)

    def texts(self, windows: Sequence[tuple[int, Feature]], batch_tokens: int) -> list[str]:
        """The text of each window, a task and a feature."""
        texts = [""] * len(windows)
        sources = [source_tokens(window.input_ids, window.positions) for _, window in windows]
        for limit, indices in self._batches(windows, sources, batch_tokens):
            pieces = _Pieces(self._tokenizer, self._on_text) if self._on_text else None
            generated = generate(
                self._model,
                [sources[index] for index in indices],
                torch.tensor([windows[index][0] for index in indices]),
                self._tokenizer.suffix[0],
                limit,
                self._decoding,
                on_token=pieces,
            )
            for index, ids in zip(indices, generated, strict=True):
                texts[index] = self._tokenizer.decode(ids)
                if pieces:
                    pieces.show(texts[index])
        return texts

    def _batches(
        self,
        windows: Sequence[tuple[int, Feature]],
        sources: Sequence[Sequence[int]],
        batch_tokens: int,
    ) -> Iterator[tuple[int, list[int]]]:
        """The maximum number of new tokens, and the window indices, of each batch.

        A batch has windows of one maximum, because it changes the result of a beam search.
        """
        limits = np.array([self.kinds[task].max_answer_length for task, _ in windows])
        for limit in sorted(set(limits.tolist())):
            indices = np.flatnonzero(limits == limit).tolist()
            if self._on_text:
                yield from ((limit, [index]) for index in indices)
                continue
            lengths = [len(sources[index]) for index in indices]
            for batch in length_batches(lengths, batch_tokens, limit):
                yield limit, [indices[number] for number in batch]


class _Pieces:
    """Calls `on_text` with the new characters of a text after each token."""

    def __init__(self, tokenizer: Tokenizer, on_text: Callable[[str], object]) -> None:
        self._tokenizer, self._on_text = tokenizer, on_text
        self._ids: list[int] = []
        self._shown = 0

    def __call__(self, token: int) -> None:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if not text.endswith(_INCOMPLETE):  # The next token may complete the character.
            self.show(text)

    def show(self, text: str) -> None:
        """Call `on_text` with the part of the text so far that it does not know yet."""
        if len(text) > self._shown:
            self._on_text(text[self._shown :])
            self._shown = len(text)
