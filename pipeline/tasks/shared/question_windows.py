"""Windows of a context after a question, and the tokens of a span of the context."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.tasks.base.features import windows

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

Encoding = tuple[list[int], list[tuple[int, int]]]
"""The sub-word ids of a text, and the characters [start, end) of each sub-word."""


class QuestionWindow(NamedTuple):
    """The tokens [start, end) of a context after its question.

    The first of them is at `position` of `input_ids`.
    """

    start: int
    end: int
    position: int
    input_ids: list[int]
    token_types: list[int]


def encode_questions(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: "Tokenizer"
) -> Iterator[tuple[list[int], Encoding]]:
    """The ids of each question, and its encoded context."""
    # A context has many questions, so it is tokenized once.
    unique = list(dict.fromkeys(contexts))
    encoded = dict(zip(unique, tokenizer.encode_texts(unique), strict=True))
    for (ids, _), context in zip(tokenizer.encode_texts(questions), contexts, strict=True):
        yield ids, encoded[context]


def question_windows(
    question: Sequence[int],
    context: Sequence[int],
    tokenizer: "Tokenizer",
    max_length: int,
    stride: int,
    counts: Counter[str],
) -> Iterator[QuestionWindow]:
    """The windows of a context. A question longer than half a window is cut.

    `counts` counts these questions, and the contexts with several windows.
    """
    limit = max_length // 2
    counts["questions cut"] += len(question) > limit
    head = [*tokenizer.prefix, *question[:limit], *tokenizer.middle]
    room = max_length - len(head) - len(tokenizer.suffix)
    context_windows = windows([1] * len(context), room, stride)
    counts["contexts in several windows"] += len(context_windows) > 1
    for window in context_windows:
        second = [*context[window.start : window.end], *tokenizer.suffix]
        yield QuestionWindow(
            window.start,
            window.end,
            len(head),
            head + second,
            [0] * len(head) + [tokenizer.second_type] * len(second),
        )


def tokens_inside(
    offsets: Sequence[tuple[int, int]], start: int, end: int
) -> tuple[int, int] | None:
    """The first and the last token in the characters [start, end); None if there is none.

    `offsets` are the characters [begin, stop) of each token.
    """
    tokens = [token for token, (begin, stop) in enumerate(offsets) if begin < end and stop > start]
    return (tokens[0], tokens[-1]) if tokens else None
