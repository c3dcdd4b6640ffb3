"""Text generation: a text that the frozen LM head of a backbone writes for a source text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import generation
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.generation import GenerationTask
from pipeline.tasks.shared.validation import check_name, check_text


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


class TextGeneration(GenerationTask[Example, Generated]):
    """A source text and its references."""

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
    metric_names = ("bleu", "rouge_l", "cider", "nist")
    metric_titles: ClassVar[Mapping[str, str]] = generation.TITLES
    glossary: ClassVar[Mapping[str, str]] = generation.GLOSSARY

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
