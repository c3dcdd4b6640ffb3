"""Checks of features: the score of a perfect model, and the share of unknown tokens.

A perfect model outputs the labels of the features. Its score is below 100 where windows, sub-words
or decoding cannot express an annotation: an answer inside a word or longer than the maximum, a
label in no window, tags that no decoder returns. No training can exceed it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Problems, quantity, shorten
from pipeline.metrics.base import Formula, apply_formula
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, RanksCandidates
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.task import HeadKind, Task, in_order

if TYPE_CHECKING:  # prepare imports this package and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MIN_CEILING = 99.0  # percent; a lower score of a perfect model adds a warning
MAX_UNKNOWN = 0.02  # of the tokens; more unknown tokens add a warning
MAX_WORST_ROWS = 5
MAX_NAMED_ROWS = 3  # in a message
MAX_QUOTED = 60  # characters of a text in a message
NOTHING = "nothing"  # in place of a missed annotation


class MissedRow(NamedTuple):
    """A row that a perfect model would get wrong.

    `score` is its primary metric in percent. `error` has the wrong parts of the prediction.
    """

    score: float
    id: str
    error: str


@dataclass(frozen=True)
class FeatureReport:
    """The results of `FeatureChecks` for one split.

    `ceiling` has the metrics of a perfect model in percent. It is empty for kinds of task without
    units and confidence, and for those that rank candidates. `num_missed` counts the rows with a
    wrong prediction, and `worst` has those with the lowest score. `num_unknown` of the `num_tokens`
    tokens are unknown; the row `most_unknown` has the most.
    """

    rows: int
    ceiling: Mapping[str, float]
    num_missed: int
    worst: tuple[MissedRow, ...]
    num_tokens: int
    num_unknown: int
    most_unknown: str

    @property
    def unknown_fraction(self) -> float:
        """The fraction of unknown tokens."""
        return self.num_unknown / max(1, self.num_tokens)


class FeatureChecks:
    """Checks the features of a split block by block. Memory does not depend on their number."""

    def __init__(
        self,
        task: Task[Any, Any, Any],
        classes: Sequence[str],
        primary: str,
        tokenizer: "Tokenizer",
    ) -> None:
        self._task, self._classes, self._primary = task, classes, primary
        self._tokenizer = tokenizer
        self._sums: dict[str, float] = {}
        self._formulas: dict[str, Formula] = {}
        self._worst: list[MissedRow] = []
        self._rows = self._missed = self._tokens = self._unknown = 0
        self._most_unknown = (0, "")

    def add(self, examples: Sequence[Any], windows: Sequence[Sequence[Feature]]) -> None:
        """Add examples, each with its windows."""
        self._rows += len(examples)
        for example, features in zip(examples, windows, strict=True):
            self._count_tokens(example, features)
        task = self._task
        if isinstance(task, RanksCandidates):  # A perfect model finds each object.
            return
        if examples and isinstance(task, HasUnits) and isinstance(task, HasConfidence):
            self._add_predictions(examples, windows)

    def _count_tokens(self, example: Any, features: Sequence[Feature]) -> None:
        unknown = 0
        for feature in features:
            counts = self._tokenizer.count_tokens(feature.input_ids)
            self._tokens += counts.text
            unknown += counts.unknown
        self._unknown += unknown
        if unknown > self._most_unknown[0]:
            self._most_unknown = unknown, str(example.id)

    def _add_predictions(
        self, examples: Sequence[Any], windows: Sequence[Sequence[Feature]]
    ) -> None:
        task, classes = self._task, self._classes
        decoded = [
            task.decode(
                example,
                [_perfect_window(feature, len(classes), task.head) for feature in features],
                classes,
            )
            for example, features in zip(examples, windows, strict=True)
        ]
        thresholds = task.fit_thresholds(examples, decoded)
        predictions = task.predictions(examples, decoded, thresholds)
        assert isinstance(task, HasUnits)
        counts = task.counts(examples, predictions, classes)
        for name, values in counts.columns.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.sum())
        self._formulas = self._formulas or counts.formulas
        for example, answer, prediction in zip(
            examples, decoded, in_order(examples, predictions), strict=True
        ):
            assert isinstance(task, HasConfidence)
            if not all(task.decisions(example, prediction, classes)[1]):
                single = task.predictions([example], [answer], thresholds)
                score = task.score([example], single, classes).overall.get(self._primary, 0.0)
                self._add_missed(
                    MissedRow(score, str(example.id), _error(task, example, prediction))
                )

    def _add_missed(self, row: MissedRow) -> None:
        self._missed += 1
        self._worst = sorted([*self._worst, row], key=lambda row: row.score)[:MAX_WORST_ROWS]

    def report(self) -> FeatureReport:
        """The results so far."""
        sums = {name: np.array([value]) for name, value in self._sums.items()}
        ceiling = {
            name: float(apply_formula(self._formulas[name], sums)[0])
            for name in self._task.metric_names
            if name in self._formulas
        }
        return FeatureReport(
            self._rows,
            ceiling,
            self._missed,
            tuple(self._worst),
            self._tokens,
            self._unknown,
            self._most_unknown[1],
        )


def add_warnings(
    where: str, report: FeatureReport, task: Task[Any, Any, Any], primary: str, problems: Problems
) -> None:
    """Warn of a low score of a perfect model, and of many unknown tokens."""
    score = report.ceiling.get(primary, 100.0)
    if report.num_missed and score < MIN_CEILING:
        rows = report.worst[:MAX_NAMED_ROWS]
        worst = "; ".join(f"{row.id}: {row.error}" if row.error else row.id for row in rows)
        length = task.max_answer_length
        lengths = f"max_answer_length ({length}) or max_length" if length else "max_length"
        problems.add(
            where,
            f"a perfect model would score {primary} {score:.1f}, because it gets "
            f"{report.num_missed} of {quantity(report.rows, 'row')} wrong ({worst}); correct these "
            f"rows, or raise {lengths} if their texts are longer",
            "low-ceiling",
        )
    if report.unknown_fraction > MAX_UNKNOWN:
        problems.add(
            where,
            f"{100 * report.unknown_fraction:.1f} % of {report.num_tokens} sub-words are unknown "
            f"to the backbone's tokenizer (most of them in the row {report.most_unknown}), so the "
            "model cannot read them; choose a backbone for the language of the text, or check the "
            "encoding of the files",
            "unknown-tokens",
        )


def _perfect_window(feature: Feature, num_classes: int, head: HeadKind) -> WindowLogits:
    """A window with logits [N, classes] that are 1 at its labels, and 0 elsewhere."""
    logits: NDArray[np.float32] = np.zeros((len(feature.begins), num_classes), np.float32)
    if head == "positions":  # a position for each class
        logits[feature.labels, np.arange(num_classes)] = 1.0
    else:
        logits[np.arange(len(feature.labels)), feature.labels] = 1.0
    return WindowLogits(np.asarray(feature.begins), np.asarray(feature.ends), logits)


def _error(task: HasConfidence[Any], example: Any, prediction: Any) -> str:
    """The wrong claims of a prediction, each with the annotation."""
    claims = [claim for claim in task.claims(example, prediction) if not claim.right]
    return ", ".join(
        f"{_quote(claim.predicted or NOTHING)} instead of {_quote(claim.gold)}" for claim in claims
    )


def _quote(text: str) -> str:
    return repr(shorten(text, MAX_QUOTED))
