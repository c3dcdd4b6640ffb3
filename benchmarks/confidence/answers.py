"""The n best answers of a model to questions: a JSON line per question, read as decisions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.analysis.calibration import Decisions, gather
from pipeline.metrics.answers import SQUAD
from pipeline.tasks.base.claims import Floats, softmax
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.span_extraction import SpanExtraction

Record = dict[str, Any]
"""The answers to one question: `texts` [K], best first, and `logits` [1 + K], "no answer" first.

`gold` are the accepted answers, `agreement` is that of `pipeline.analysis.agreement`, and
`question_words` and `context_words` count words.
"""
RUN_KEYS = ("arm", "model", "data", "split")
NO_AGREEMENT = 1.0  # of a model whose agreement is not measured
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


def record_of(task: Any, example: Any, windows: Sequence[WindowLogits]) -> Record:
    """The record of a question of span extraction or multiple choice, without agreement.

    A choice must be right, so "no answer" has the logit -inf.
    """
    if isinstance(task, SpanExtraction):
        decoded = task.decode(example, windows, ())
        ranked = [(candidate.score, candidate.text) for candidate in decoded.candidates]
        no_answer, gold = decoded.null_score, [text for text, _ in example.answers]
    else:
        logits = task.decision_logits(example, windows, ())[0].tolist()
        pairs = zip(logits, dict.fromkeys(example.choices), strict=True)
        ranked = sorted(pairs, key=lambda pair: -pair[0])
        no_answer, gold = -np.inf, list(example.answers)
    return {
        "id": example.id,
        "texts": [text for _, text in ranked],
        "logits": [no_answer, *(logit for logit, _ in ranked)],
        "gold": gold,
        "question_words": len(example.question.split()),
        "context_words": len(example.context.split()),
        "agreement": NO_AGREEMENT,
    }


def answers_of(records: Iterable[Record]) -> Answers:
    """The decisions for the best answer of each record. An answer is right if it is exact."""
    records = list(records)
    right = [
        bool(record["texts"])
        and any(SQUAD.exact_match(gold, record["texts"][0]) for gold in record["gold"])
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
