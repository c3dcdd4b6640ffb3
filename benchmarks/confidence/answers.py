"""The n best answers of a model to questions: a JSON line per question, read as decisions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.analysis.calibration import Decisions, gather
from pipeline.metrics.answers import exact_match
from pipeline.tasks.base.claims import Floats, softmax

Record = dict[str, Any]
"""The answers to one question: `texts` [K], best first, and `logits` [1 + K], "no answer" first.

`gold` are the accepted answers, `agreement` is that of `pipeline.analysis.agreement`, and
`question_words` and `context_words` count words.
"""
RUN_KEYS = ("arm", "model", "data", "split")
FEATURES = (
    "log_probability",
    "margin",
    "entropy",
    "no_answer",
    "answer_words",
    "question_words",
    "context_words",
    "agreement",
)


@dataclass(frozen=True)
class Answers:
    """The answers to N questions: a decision for each, and `features` [N, F], as in FEATURES."""

    decisions: Decisions
    features: Floats

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Any) -> "Answers":
        """The answers with these row numbers, or where a mask is true."""
        decisions = self.decisions
        return Answers(
            Decisions(decisions.logits[rows], decisions.taken[rows], decisions.right[rows]),
            self.features[rows],
        )


def read_records(path: Path) -> dict[tuple[str, ...], list[Record]]:
    """The records by the values of RUN_KEYS."""
    runs: dict[tuple[str, ...], list[Record]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            runs.setdefault(tuple(record[key] for key in RUN_KEYS), []).append(record)
    return runs


def answers_of(records: Iterable[Record]) -> Answers:
    """The decisions for the best answer of each record. An answer is right if it is exact."""
    records = list(records)
    right = [
        bool(record["texts"])
        and any(exact_match(gold, record["texts"][0]) for gold in record["gold"])
        for record in records
    ]
    decisions = gather(
        [np.array([record["logits"]]) for record in records],
        [min(1, len(record["texts"])) for record in records],
        right,
    )
    features = [_features(record) for record in records]
    return Answers(decisions, np.array(features).reshape(-1, len(FEATURES)))


def _features(record: Record) -> Sequence[float]:
    """Uncertainty of the model, and lengths (Jiang et al. 2021, section 4, post-hoc methods).

    Their perplexity of the input needs a language model, so it is left out.
    """
    probabilities = softmax(np.array(record["logits"]))
    no_answer, best, second = (*probabilities, 0.0, 0.0)[:3]
    entropy = -float((probabilities * np.log(np.maximum(probabilities, 1e-12))).sum())
    return (
        float(np.log(max(best, 1e-12))),
        best - second,
        entropy,
        no_answer,
        len(record["texts"][0].split()) if record["texts"] else 0,
        record["question_words"],
        record["context_words"],
        record["agreement"],
    )
