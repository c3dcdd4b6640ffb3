"""Training on CoNLL-2003, compared with transformers' Trainer and peft's prefix tuning.

Both train in float32, and both in bfloat16: Trainer by autocast, our loop with frozen weights of
that type.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.speed.methods import PRECISIONS, deep_prompt_model, peft_inputs, peft_model
from benchmarks.speed.setting import SEED, Corpus, Setting, load_corpus
from benchmarks.speed.step import CACHED, first_top_layer
from benchmarks.speed.timing import table
from pipeline import arms
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.process_group import process_group
from pipeline.evaluation.evaluate import decode, score
from pipeline.mixing.batches import IGNORE_INDEX, Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.prompt import DeepPrompt
from pipeline.params import TrainParams
from pipeline.training.callbacks import TrainingCallback
from pipeline.training.trainer import steps_of, train

EPOCHS = 3  # Trainer's default
NUM_VALIDATIONS = 10  # excluded from the times
# From peft's example of prefix tuning; Trainer's default of 5e-5 barely changes a random prefix.
PEFT_LEARNING_RATE = 1e-2
TOKENS_PER_BATCH = 256
CACHE_MB = 1000  # enough for all hidden states
VALIDATION_SENTENCES = 300
PEFT, DEEP_PROMPT = "peft prefix tuning, transformers' Trainer", "deep prompt, our loop"
TOP_HALF = "deep prompt in the top half, our loop"
COLUMNS = ("method", "rows/s", "rows/s by CPU", "tokens with padding / without", "F1", "best F1")


@dataclass
class TrainingLog:
    """The progress of a training.

    `seconds` are (wall-clock, CPU) seconds without validation; `scores` has (wall-clock seconds,
    CPU seconds, F1) of each validation. The clock runs between `start` and `pause`.
    """

    started: tuple[float, float] = (0.0, 0.0)
    seconds: tuple[float, float] = (0.0, 0.0)
    scores: list[tuple[float, float, float]] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0

    def start(self) -> None:
        """Start the clock."""
        self.started = (time.perf_counter(), time.process_time())

    def pause(self) -> None:
        """Stop the clock until `start`."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.seconds = (
            self.seconds[0] + wall - self.started[0],
            self.seconds[1] + cpu - self.started[1],
        )

    def validate(self, compute_f1: Callable[[], float]) -> float:
        """Record F1 while the clock is stopped."""
        self.pause()
        f1 = compute_f1()
        self.scores.append((*self.seconds, f1))
        self.start()
        return f1

    def seconds_to(self, f1: float) -> tuple[float, float] | None:
        """Return the seconds until F1 first reached this value; None if it never did."""
        return next(((wall, cpu) for wall, cpu, score in self.scores if score >= f1), None)


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of all methods, and the goals, in each precision."""
    train_corpus = load_corpus(setting, "ner", rows=setting.rows)
    validation = load_corpus(setting, "ner", "validation", VALIDATION_SENTENCES)
    for precision in PRECISIONS:
        yield (
            f"{len(train_corpus.eval_set.examples)} sentences of {train_corpus.name} in "
            f"{precision}, {EPOCHS} epochs; F1 on {len(validation.eval_set.examples)} validation "
            "sentences, excluded from the times."
        )
        yield ""
        yield from _tables(setting, train_corpus, validation, precision)


def _tables(
    setting: Setting, train_corpus: Corpus, validation: Corpus, precision: str
) -> Iterator[str]:
    top_layer = first_top_layer(setting)
    train_ours = partial(train_deep_prompt, setting, train_corpus, validation, precision)
    logs = {
        PEFT: train_peft(setting, train_corpus, validation, precision),
        DEEP_PROMPT: train_ours(),
        TOP_HALF: train_ours(top_layer),
        CACHED: train_ours(top_layer, CACHE_MB),
    }
    target = logs[PEFT].scores[-1][2]
    rows = [_table_row(name, log, target) for name, log in logs.items()]
    yield from table((*COLUMNS, f"s to F1 {target:.1f}"), rows)
    goals: list[tuple[str, ...]] = []
    for name in (DEEP_PROMPT, TOP_HALF, CACHED):
        goals += _goal_rows(name, logs[name], logs[PEFT], target)
    yield from table(("goal", "at least", "by clock", "by CPU time"), goals)


def _table_row(name: str, log: TrainingLog, target: float) -> tuple[str, ...]:
    wall, cpu = log.seconds
    seconds_to_target = log.seconds_to(target)
    scores = [score for *_, score in log.scores]
    return (
        name,
        f"{log.rows / wall:.1f}",
        f"{log.rows / cpu:.1f}",
        f"{log.padded_tokens / log.tokens:.2f}",
        f"{scores[-1]:.1f}",
        f"{max(scores):.1f}",
        "never" if seconds_to_target is None else f"{seconds_to_target[0]:.1f}",
    )


def _goal_rows(
    name: str, log: TrainingLog, peft_log: TrainingLog, target: float
) -> Iterator[tuple[str, ...]]:
    both = zip(log.seconds, peft_log.seconds, strict=True)
    speedups = [
        log.rows / seconds / (peft_log.rows / peft_seconds) for seconds, peft_seconds in both
    ]
    yield (f"rows per second relative to peft: {name}", "3", *_two_decimals(speedups))
    seconds_to_target = log.seconds_to(target)
    if seconds_to_target is None:
        cells = ["never", "never"]
    else:
        both = zip(seconds_to_target, peft_log.seconds, strict=True)
        cells = _two_decimals([peft_seconds / seconds for seconds, peft_seconds in both])
    yield (f"speedup to the last F1 of peft: {name}", "5", *cells)


def _two_decimals(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


def train_deep_prompt(
    setting: Setting,
    train_corpus: Corpus,
    validation: Corpus,
    precision: str,
    first_layer: int = 0,
    hidden_state_cache_mb: int = 0,
) -> TrainingLog:
    """Train as the stages train the arm deep_prompt.

    The prompt is initialized from text, batches have a token budget, and DeepSpeed's engine runs
    the steps.
    """
    log = TrainingLog()
    model = deep_prompt_model(setting, train_corpus, dtype=PRECISIONS[precision])
    features, pad_token_id = train_corpus.eval_set.table, train_corpus.pad_token_id
    batches = TrainBatches([features], [RATE_SCALE], TOKENS_PER_BATCH, 1, SEED)
    text = collate(features, batches.step(0)[0].rows, 0, pad_token_id)
    key_values = model.backbone.text_key_values(
        text.input_ids, text.attention_mask, text.token_types, setting.num_virtual_tokens
    )
    model.prompt = DeepPrompt(key_values[first_layer:], first_layer=first_layer)
    params = TrainParams(
        epochs=EPOCHS,
        head_lr=0.01,
        prompt_lr=0.05,
        tokens_per_micro_batch=TOKENS_PER_BATCH,
        num_validations=NUM_VALIDATIONS,
        hidden_state_cache_mb=hidden_state_cache_mb,
    )
    _count_rows_and_tokens(log, batches, steps_of(batches, EPOCHS))

    def validate(trained: Any) -> dict[str, float]:
        return {"ner": log.validate(lambda: span_f1(trained, validation))}

    with process_group(Ranks(), 600):
        log.start()
        train(
            model,
            arms.DEEP_PROMPT.name,
            batches,
            params,
            names=["ner"],
            pad_token_id=pad_token_id,
            validate=validate,
            checkpoints=Path(mkdtemp(dir=setting.scratch)),
            ranks=Ranks(),
            callback=TrainingCallback(),
            cluster=Cluster(),
        )
        log.pause()
    return log


def _count_rows_and_tokens(log: TrainingLog, batches: TrainBatches, steps: int) -> None:
    for number in range(steps):
        lengths = batches.tables[0].lengths[batches.step(number)[0].rows]
        log.rows += len(lengths)
        log.tokens += int(lengths.sum())
        log.padded_tokens += int(lengths.max()) * len(lengths)


class TransformersModel(nn.Module):
    """A model of transformers with the interface of `PromptedModel` for evaluation."""

    def __init__(self, model: Any, corpus: Corpus) -> None:
        super().__init__()
        self.model, self.head = model, corpus.eval_set.task.head
        self.heads = SimpleNamespace(classes=[len(corpus.eval_set.classes)])

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits [B, N, classes] at the batch's positions."""
        logits: Tensor = self.model(**peft_inputs(batch, self.head)).logits
        return logits.gather(1, batch.positions.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))


def span_f1(model: Any, corpus: Corpus) -> float:
    """Return the F1 of spans."""
    decoded = decode(model, corpus.eval_set, 0, corpus.pad_token_id)
    return score(corpus.eval_set, decoded, {}).overall["f1"]


class _Validation(TrainerCallback):  # type: ignore[misc]
    """Computes F1 at regular steps and after the last step."""

    def __init__(self, log: TrainingLog, compute_f1: Callable[[], float]) -> None:
        self._log, self._compute_f1 = log, compute_f1

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate if it is due."""
        interval = max(1, state.max_steps // NUM_VALIDATIONS)
        if state.global_step % interval == 0 or state.global_step == state.max_steps:
            self._log.validate(self._compute_f1)


def train_peft(
    setting: Setting, train_corpus: Corpus, validation: Corpus, precision: str
) -> TrainingLog:
    """Train as in transformers' example of token classification.

    It has Trainer's defaults, its collator, and batches of 8 in random order.
    """
    os.environ.pop("LOCAL_RANK", None)  # otherwise accelerate expects several processes
    log, model = TrainingLog(), peft_model(setting, train_corpus)
    pad_rows = DataCollatorForTokenClassification(AutoTokenizer.from_pretrained(setting.backbone))

    def collator(rows: list[Any]) -> Any:
        batch = pad_rows(rows)
        log.rows += len(rows)
        log.tokens += int(batch["attention_mask"].sum())
        log.padded_tokens += batch["input_ids"].numel()
        return batch

    arguments = TrainingArguments(
        mkdtemp(dir=setting.scratch),
        num_train_epochs=EPOCHS,
        learning_rate=PEFT_LEARNING_RATE,
        seed=SEED,
        use_cpu=True,
        bf16=precision == "bfloat16",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    evaluated = TransformersModel(model, validation)
    trainer = Trainer(
        model,
        arguments,
        data_collator=collator,
        train_dataset=_records(train_corpus),
        callbacks=[_Validation(log, lambda: span_f1(evaluated, validation))],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.start()
        trainer.train()
        log.pause()
    return log


def _records(corpus: Corpus) -> Any:
    """Return rows as in transformers' example, with a label at the first token of each word."""
    features = corpus.eval_set.table
    records = []
    for row in map(int, corpus.eval_set.rows):
        input_ids = features.column("input_ids", row)
        labels = np.full(len(input_ids), IGNORE_INDEX)
        labels[features.column("positions", row)] = features.column("labels", row)
        records.append(
            {
                "input_ids": input_ids.tolist(),
                "attention_mask": [1] * len(input_ids),
                "labels": labels.tolist(),
                "token_type_ids": [0] * len(input_ids),
            }
        )
    return records
