"""Run a model on questions and write its n best answers, one JSON line per question."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from benchmarks.confidence.answers import RUN_KEYS, Record, read_records, record_of
from benchmarks.confidence.retrieval import Retriever, augment, own_positions
from benchmarks.confidence.tuning import OBJECTIVES, tune
from benchmarks.learning import with_train_rows
from pipeline.analysis.agreement import agreement
from pipeline.analysis.probing import featurized
from pipeline.arms import ArmName
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import EvalSet, decode, window_logits
from pipeline.evaluation.splits import SUBSET_SEED, load_eval_set
from pipeline.mixing.batches import TrainBatches
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.seeding import permute
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.span_extraction import TASK, Example
from pipeline.training.setup import TaskData
from stages.evaluation.load_model import load_model
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES
from stages.training.run import load_backbone

TOKENS_PER_BATCH = 512  # in tuning
RATE_FACTOR = 0.3  # the learning rate of tuning, relative to that of training
EXTRA_LENGTH = 96  # tokens of a window for the text before the context
MAX_CONTEXTS = 500  # to retrieve from
MODELS = ("plain", "augmented", *OBJECTIVES)
"""The model as it is, with augmented input, and tuned."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of questions: for the fits, for the measurement, and for tuning."""

    validation: int
    test: int
    train: int


class Collector:
    """The model of an arm on a task, and the questions of this task and of others."""

    def __init__(self, arm: ArmName, task: str, params: Params, sizes: Sizes) -> None:
        self._arm, self._name, self._params, self._sizes = arm, task, params, sizes
        self._training = params.training(arm, task)
        self._summary = load_json(FEATURES / task / "summary.json")
        self._tokenizer = Tokenizer(locate(params.backbone))

    def collect(self, out: Path, others: Sequence[str], models: Sequence[str]) -> None:
        """Append the answers of `models` that `out` does not have yet.

        Raises UserError if a model does not apply to the kind of the task.
        """
        self._check(models)
        splits = [(self._name, "validation"), *((name, "test") for name in (self._name, *others))]
        ways = {"plain": self._plain, "augmented": self._augmented}
        for name in models:
            done = read_records(out)
            missing = [split for split in splits if (self._arm, name, *split) not in done]
            if missing:
                model = self._tuned(name) if name in OBJECTIVES else self._load()
                for data, split in missing:
                    run = dict(zip(RUN_KEYS, (self._arm, name, data, split), strict=True))
                    records = ways.get(name, self._records)(model, self._split(data, split))
                    _append(out, (run | record for record in records))

    def _check(self, models: Sequence[str]) -> None:
        kind = self._summary["task"]
        allowed = {"span_extraction": MODELS, "multiple_choice": ("plain",)}.get(kind, ())
        wrong = [name for name in models if name not in allowed]
        if wrong:
            raise UserError(
                f"{self._name} is {kind}, which has no {', '.join(wrong)}; "
                f"choose {', '.join(allowed) or 'a task with questions'}"
            )

    def _load(self) -> PromptedModel:
        artifact, classes = ARTIFACTS / self._arm / self._name, tuple(self._summary["classes"])
        return load_model(artifact, {self._name: classes}, self._params)

    def _split(self, name: str, split: str) -> EvalSet:
        limit = self._sizes.validation if split == "validation" else self._sizes.test
        summary = load_json(FEATURES / name / "summary.json")
        return load_eval_set(FEATURES / name, EXAMPLES / name, summary, split, limit)

    def _tuned(self, objective: str) -> PromptedModel:
        data = TaskData.load(FEATURES / self._name, EXAMPLES / self._name, 1)
        data = with_train_rows(data, self._sizes.train)
        batches = TrainBatches([data.train], [RATE_SCALE], TOKENS_PER_BATCH, 1, self._params.seed)
        rates = self._training.learning_rates(self._arm)
        tuned_rates = {part: RATE_FACTOR * rate for part, rate in rates.items() if part != "head"}
        model = self._load()
        tune(model, batches, tuned_rates, OBJECTIVES[objective], self._summary["pad_token_id"])
        return model

    def _plain(self, model: PromptedModel, questions: EvalSet) -> Iterator[Record]:
        """The records with the agreement of answers to paraphrases."""
        records = list(self._records(model, questions))
        predictions = {record["id"]: next(iter(record["texts"]), "") for record in records}
        answer = partial(self._answer, model, questions)
        values = agreement(questions, predictions, np.arange(len(records)), answer)
        if values is None:
            yield from records
        else:
            for record, value in zip(records, values, strict=True):
                yield record | {"agreement": float(value)}

    def _answer(
        self, model: PromptedModel, questions: EvalSet, examples: Sequence[Example]
    ) -> dict[str, str]:
        with self._new(questions, examples) as new:
            decoded = decode(model, new, 0, self._summary["pad_token_id"])
        return dict(questions.task.predictions(examples, decoded, {}))

    def _new(
        self, questions: EvalSet, examples: Sequence[Example], extra_length: int = 0
    ) -> AbstractContextManager[EvalSet]:
        windows = self._summary["windows"]
        max_length = min(windows["max_length"] + extra_length, self._tokenizer.max_length)
        return featurized(examples, questions, self._tokenizer, max_length, windows["stride"])

    def _augmented(self, model: PromptedModel, questions: EvalSet) -> Iterator[Record]:
        texts = self._retriever.nearest(questions.examples)
        examples = augment(questions.examples, texts)
        with self._new(questions, examples, EXTRA_LENGTH) as new:
            logits = window_logits(model, new, 0, self._summary["pad_token_id"])
            for example, text, windows in zip(questions.examples, texts, logits, strict=True):
                yield record_of(questions.task, example, list(own_positions(windows, text)))

    @cached_property
    def _retriever(self) -> Retriever:
        backbone = load_backbone(self._params.backbone, [], self._training.precision)
        examples = read_examples(EXAMPLES / self._name / "train.parquet", TASK)
        contexts = list(dict.fromkeys(example.context for example in examples))
        rows = permute(np.arange(min(MAX_CONTEXTS, len(contexts))), len(contexts), SUBSET_SEED)
        return Retriever([contexts[row] for row in rows], backbone, self._tokenizer)

    def _records(self, model: PromptedModel, questions: EvalSet) -> Iterator[Record]:
        logits = window_logits(model, questions, 0, self._summary["pad_token_id"])
        for example, windows in zip(questions.examples, logits, strict=True):
            yield record_of(questions.task, example, windows)


def _append(out: Path, records: Iterable[Record]) -> None:
    """Append all records at once, so that a killed run leaves no part of a split."""
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    with out.open("a", encoding="utf-8") as file:
        file.write(lines)
