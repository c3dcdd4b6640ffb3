"""Tasks that generate a text per example: windows of sources and references."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from pipeline.errors import UserError
from pipeline.tasks.base.capabilities import GeneratesText, HasUnits, Perturbable
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.task import Task

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_NEW_TOKENS = 64
MIN_SOURCE_TOKENS = 8  # of a window

E = TypeVar("E")
R = TypeVar("R")


class GenerationTask(
    Task[E, Sequence[str], R],
    GeneratesText[E],
    HasUnits[E, Sequence[str]],
    Perturbable[E],
):
    """Predictions are texts, one per example in the examples' order.

    A text has at most `max_answer_length` sub-words. A source that is too long loses its end, or
    its beginning with `keeps_end`.
    """

    has_labels = False
    head = "language_model"
    pipeline_tag = "text-generation"
    keeps_end: ClassVar[bool] = False

    def __init__(self, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.max_answer_length: int = max_new_tokens

    def configured(self, metric: str | None = None, max_answer_length: int | None = None) -> Self:
        """The task with another maximum length of texts. All metrics are always computed."""
        return type(self)(max_answer_length or self.max_answer_length)

    def featurize(
        self,
        examples: Sequence[E],
        first: int,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        max_length: int,
        stride: int,
        counts: Counter[str],
    ) -> Iterator[Feature]:
        """One window per reference: the source, a separator, the reference and the end token.

        The separator of an encoder-decoder ends the source and begins the target, which has token
        type 1. The source leaves room for `max_answer_length` tokens. A longer source or reference
        is cut and counted; a cut reference has no end token. Raises UserError if the backbone is an
        encoder, or if there is no room for a source.
        """
        self._check(tokenizer, max_length)
        sources = tokenizer.encode_texts([self.source(example) for example in examples])
        separator = _separator(tokenizer)
        room = max_length - self.max_answer_length - len(tokenizer.prefix + separator)
        for number, (example, (source, _)) in enumerate(zip(examples, sources, strict=True), first):
            counts["sources cut"] += len(source) > room
            kept = source[-room:] if self.keeps_end else source[:room]
            start = [*tokenizer.prefix, *kept, *separator]
            for ids, _ in tokenizer.encode_texts(self.references(example) or [""]):
                counts["references longer than max_answer_length"] += (
                    len(ids) > self.max_answer_length
                )
                target = [*ids, tokenizer.suffix[0]]
                counts["references cut"] += len(target) > max_length - len(start)
                target = target[: max_length - len(start)]
                yield target_feature(number, start, target, len(tokenizer.target_prefix))

    def _check(self, tokenizer: "Tokenizer", max_length: int) -> None:
        if not tokenizer.causal and not tokenizer.target_prefix:
            raise UserError(
                f"{self.name}: the backbone is an encoder, which cannot generate text; use a "
                "decoder with its LM head, such as SmolLM2 (`make decoder`), an encoder-decoder "
                "such as T5 or BART with decoder: true in params.yaml, or another task"
            )
        extra = len(tokenizer.prefix + _separator(tokenizer)) + MIN_SOURCE_TOKENS
        if self.max_answer_length + extra > max_length:
            raise UserError(
                f"{self.name}: max_answer_length is {self.max_answer_length} and max_length "
                f"{max_length}, which leaves no room for a source of {MIN_SOURCE_TOKENS} tokens; "
                f"raise max_length to at least {self.max_answer_length + extra}, or lower "
                "max_answer_length"
            )

    def decode(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> str:
        """The generated text."""
        return window_logits[0].text

    def predictions(
        self, examples: Sequence[E], decoded: Sequence[str], thresholds: Mapping[str, float]
    ) -> Sequence[str]:
        """The decoded texts."""
        return decoded


def _separator(tokenizer: "Tokenizer") -> list[int]:
    """The ids between a source and the text to generate."""
    if tokenizer.target_prefix:
        return [*tokenizer.suffix, *tokenizer.target_prefix]
    return tokenizer.middle


def target_feature(
    number: int, start: list[int], target: list[int], target_prefix: int = 0
) -> Feature:
    """The window of a target after a text; the last token of `start` predicts its first.

    The last `target_prefix` tokens of `start` are not of the text, but of the target. A row to
    predict may have an empty target; its window has a position for the first token.
    """
    size = max(1, len(target))
    ids = [*start, *target[:-1]]
    source = len(start) - target_prefix if target_prefix else len(ids)
    return Feature(
        example=number,
        input_ids=ids,
        token_types=[0] * source + [1] * (len(ids) - source),
        positions=range(len(start) - 1, len(start) - 1 + size),
        labels=target or [0],
        begins=range(size),
        ends=range(1, size + 1),
        label_count=size,
    )
