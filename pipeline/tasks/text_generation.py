"""Text generation: a text that the frozen LM head of a backbone writes for a source text."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from pipeline.errors import Problems, UserError
from pipeline.metrics import generation
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.capabilities import GeneratesText, HasUnits, Perturbable
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task
from pipeline.tasks.shared.validation import check_name, check_text

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_NEW_TOKENS = 64
MIN_SOURCE_TOKENS = 8  # of a window


@dataclass(frozen=True)
class Example:
    """A source and its references, the annotated texts; a row to predict has none.

    Examples of the same `subset` are also scored by themselves ("": no subset).
    """

    id: str
    source: str
    references: tuple[str, ...]
    subset: str


@dataclass(frozen=True)
class Generated:
    """A generated text. It has no confidence: its probability says little about its quality."""

    text: str

    def __str__(self) -> str:
        return self.text


class TextGeneration(
    Task[Example, Sequence[str], Generated],
    GeneratesText[Example],
    HasUnits[Example, Sequence[str]],
    Perturbable[Example],
):
    """Predictions are texts, one per example in the examples' order.

    A text has at most `max_answer_length` sub-words.
    """

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("references", pa.list_(pa.string())),
            ("subset", pa.string()),
        ]
    )
    row_keys = RowKeys(
        inputs={"source": "text"},
        targets={"references": "references"},
        optional={"subset": "name"},
    )
    inputs = ("source",)
    outputs = ("references",)
    head = "language_model"
    metric_names = ("bleu", "rouge_l", "cider", "nist")
    metric_titles: ClassVar[Mapping[str, str]] = generation.TITLES
    glossary: ClassVar[Mapping[str, str]] = generation.GLOSSARY
    pipeline_tag = "text-generation"

    def __init__(self, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.max_answer_length: int = max_new_tokens

    def configured(
        self, metric: str | None = None, max_answer_length: int | None = None
    ) -> "TextGeneration":
        """The task with another maximum length of texts. All metrics are always computed."""
        return TextGeneration(max_answer_length or self.max_answer_length)

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels: the task has no labels."""
        return ["the task has no labels; remove the key"] if labels else []

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The source and at least one reference. No text may be empty."""
        before = len(problems)
        if not row["references"]:
            problems.add(
                row["where"],
                "references is an empty list; add a text to generate, or remove the row",
                "empty-references",
            )
        for reference in row["references"]:
            check_text("references", reference, row["where"], problems)
        example = _example(row, tuple(row["references"]), problems)
        return example if len(problems) == before else None

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The source, without references."""
        return _example(row, (), problems)

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The example with an edited source."""
        return replace(example, source=edit.text(example.source)[0])

    def source(self, example: Example) -> str:
        """The source."""
        return example.source

    def references(self, example: Example) -> tuple[str, ...]:
        """The references."""
        return example.references

    def featurize(
        self,
        examples: Sequence[Example],
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
        is cut at its end and counted; a cut reference has no end token. Raises UserError if the
        backbone is an encoder, or if there is no room for a source.
        """
        self._check(tokenizer, max_length)
        sources = tokenizer.encode_texts([example.source for example in examples])
        separator = _separator(tokenizer)
        room = max_length - self.max_answer_length - len(tokenizer.prefix + separator)
        for number, (example, (source, _)) in enumerate(zip(examples, sources, strict=True), first):
            counts["sources cut"] += len(source) > room
            start = [*tokenizer.prefix, *source[:room], *separator]
            for ids, _ in tokenizer.encode_texts(example.references or [""]):
                counts["references longer than max_answer_length"] += (
                    len(ids) > self.max_answer_length
                )
                target = [*ids, tokenizer.suffix[0]]
                counts["references cut"] += len(target) > max_length - len(start)
                target = target[: max_length - len(start)]
                yield _feature(number, start, target, len(tokenizer.target_prefix))

    def _check(self, tokenizer: "Tokenizer", max_length: int) -> None:
        if not tokenizer.causal and not tokenizer.target_prefix:
            raise UserError(
                "text_generation: the backbone is an encoder, which cannot generate text; use a "
                "decoder with its LM head, such as SmolLM2 (`make decoder`), an encoder-decoder "
                "such as T5 or BART with decoder: true in params.yaml, or another task"
            )
        extra = len(tokenizer.prefix + _separator(tokenizer)) + MIN_SOURCE_TOKENS
        if self.max_answer_length + extra > max_length:
            raise UserError(
                f"text_generation: max_answer_length is {self.max_answer_length} and max_length "
                f"{max_length}, which leaves no room for a source of {MIN_SOURCE_TOKENS} tokens; "
                f"raise max_length to at least {self.max_answer_length + extra}, or lower "
                "max_answer_length"
            )

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> str:
        """The generated text."""
        return window_logits[0].text

    def predictions(
        self, examples: Sequence[Example], decoded: Sequence[str], thresholds: Mapping[str, float]
    ) -> Sequence[str]:
        """The decoded texts."""
        return decoded

    def score(
        self, examples: Sequence[Example], predictions: Sequence[str], classes: Sequence[str]
    ) -> Metrics:
        """BLEU, NIST, ROUGE-L and CIDEr, BLEU of each subset, and slot errors in E2E's notation."""
        return generation.score(
            [example.source for example in examples],
            [example.references for example in examples],
            predictions,
            [example.subset for example in examples],
        )

    def counts(
        self, examples: Sequence[Example], predictions: Sequence[str], classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each text for ROUGE-L and the slot error rate; BLEU has none."""
        return generation.counts(
            [example.id for example in examples],
            [example.source for example in examples],
            [example.references for example in examples],
            predictions,
        )

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Generated:
        """The generated text."""
        return Generated(self.decode(example, window_logits, classes))


TASK = TextGeneration()


def _example(row: Row, references: tuple[str, ...], problems: Problems) -> Example | None:
    where, before, subset = row["where"], len(problems), row.get("subset")
    check_text("source", row["source"], where, problems)
    if subset is not None:
        check_name("subset", subset, where, problems)
    if len(problems) > before:
        return None
    return Example(row["id"], row["source"], references, "" if subset is None else str(subset))


def _separator(tokenizer: "Tokenizer") -> list[int]:
    """The ids between a source and the text to generate."""
    if tokenizer.target_prefix:
        return [*tokenizer.suffix, *tokenizer.target_prefix]
    return tokenizer.middle


def _feature(number: int, start: list[int], target: list[int], target_prefix: int) -> Feature:
    """The window of a text after its source; the last token of `start` predicts its first.

    The last `target_prefix` tokens of `start` are not of the source, but of the target.
    """
    positions = range(len(start) - 1, len(start) - 1 + len(target))
    ids = [*start, *target[:-1]]
    source = len(start) - target_prefix if target_prefix else len(ids)
    return Feature(
        example=number,
        input_ids=ids,
        token_types=[0] * source + [1] * (len(ids) - source),
        positions=positions,
        labels=target,
        begins=range(len(target)),
        ends=range(1, len(target) + 1),
        label_count=len(target),
    )
