"""Training on CoNLL-2003: our batches and loop, against transformers' Trainer with peft's prefix tuning, on the same rows."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.speed.setting import SEED, Corpus, Setting, corpus
from benchmarks.speed.step import STORED, half
from benchmarks.speed.timing import table
from benchmarks.speed.ways import ours, peft_inputs, peft_model
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.process_group import process_group
from pipeline.evaluation.evaluate import decode, score
from pipeline.mixing.batches import IGNORE_INDEX, Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.prompt import DeepPrompt
from pipeline.params import TrainParams
from pipeline.training.trainer import TrainingRun, steps_of, train

EPOCHS, CHECKS = 3, 10  # Trainer's epochs; how often F1 is looked at, which is not in the times
RATE = (
    1e-2  # of peft's own example of prefix tuning; Trainer's 5e-5 leaves a random prefix as it was
)
BATCH_TOKENS = 256
ENOUGH = 1000  # megabytes
HELD_OUT = 300  # validation sentences
PEFT, OURS = "peft prefix tuning, transformers' Trainer", "deep prompt, our loop"
TOP = "deep prompt in the top half, our loop"


@dataclass
class Course:
    """How a training went: seconds (clock, CPU) without validation, and the F1 there was after so many of them."""

    started: tuple[float, float] = (0.0, 0.0)
    seconds: tuple[float, float] = (0.0, 0.0)
    scores: list[tuple[float, float, float]] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    padded: int = 0

    def begin(self) -> None:
        """The clock runs."""
        self.started = (time.perf_counter(), time.process_time())

    def pause(self) -> None:
        """It stands still until `begin`."""
        now = (time.perf_counter(), time.process_time())
        self.seconds = (
            self.seconds[0] + now[0] - self.started[0],
            self.seconds[1] + now[1] - self.started[1],
        )

    def check(self, score: Callable[[], float]) -> float:
        """F1, while the clock stands still."""
        self.pause()
        found = score()
        self.scores.append((*self.seconds, found))
        self.begin()
        return found

    def until(self, f1: float) -> tuple[float, float] | None:
        """Seconds until F1 was first as high; None: never."""
        return next(((wall, cpu) for wall, cpu, score in self.scores if score >= f1), None)


def run(setting: Setting) -> Iterator[str]:
    """A table of both ways, and the goals."""
    trained, held = (
        corpus(setting, "ner", rows=setting.rows),
        corpus(setting, "ner", "validation", HELD_OUT),
    )
    courses = {
        PEFT: by_peft(setting, trained, held),
        OURS: by_us(setting, trained, held),
        TOP: by_us(setting, trained, held, first_layer=half(setting)),
        STORED: by_us(
            setting, trained, held, first_layer=half(setting), hidden_state_cache_mb=ENOUGH
        ),
    }
    yield (
        f"{len(trained.split.examples)} sentences of {trained.name}, {EPOCHS} epochs; F1 on {len(held.split.examples)} of "
        "validation, looked at while the clock stood still."
    )
    yield ""
    target = courses[PEFT].scores[-1][2]
    columns = (
        "way",
        "rows/s",
        "rows/s by CPU",
        "tokens with padding / without",
        "F1",
        "best F1",
        f"s to F1 {target:.1f}",
    )
    yield from table(columns, [_row(name, course, target) for name, course in courses.items()])
    goals = [
        goal
        for name in (OURS, TOP, STORED)
        for goal in _goals(name, courses[name], courses[PEFT], target)
    ]
    yield from table(("goal", "at least", "by clock", "by CPU time"), goals)


def _row(name: str, course: Course, target: float) -> tuple[str, ...]:
    wall, cpu = course.seconds
    reached = course.until(target)
    scores = [score for *_, score in course.scores]
    return (
        name,
        f"{course.rows / wall:.1f}",
        f"{course.rows / cpu:.1f}",
        f"{course.padded / course.tokens:.2f}",
        f"{scores[-1]:.1f}",
        f"{max(scores):.1f}",
        "never" if reached is None else f"{reached[0]:.1f}",
    )


def _goals(name: str, mine: Course, theirs: Course, target: float) -> Iterator[tuple[str, ...]]:
    speeds = [
        mine.rows / a / (theirs.rows / b) for a, b in zip(mine.seconds, theirs.seconds, strict=True)
    ]
    yield (f"rows a second against peft's: {name}", "3", *(f"{speed:.2f}" for speed in speeds))
    reached = mine.until(target)
    shorter = (
        ("never",) * 2
        if reached is None
        else [f"{b / a:.2f}" for a, b in zip(reached, theirs.seconds, strict=True)]
    )
    yield (f"how many times sooner at peft's last F1: {name}", "5", *shorter)


def by_us(
    setting: Setting,
    trained: Corpus,
    held: Corpus,
    first_layer: int = 0,
    hidden_state_cache_mb: int = 0,
) -> Course:
    """As the stages train the arm deep_prompt: from real text, batches by tokens, DeepSpeed's engine."""
    course, model = Course(), ours(setting, trained)
    batches = TrainBatches([trained.split.table], [RATE_SCALE], BATCH_TOKENS, 1, SEED)
    text = collate(trained.split.table, batches.step(0)[0].rows, 0, trained.pad_token_id)
    start = model.backbone.text_key_values(
        text.input_ids, text.attention_mask, text.token_types, setting.virtual_tokens
    )
    model.prompt = DeepPrompt(start[first_layer:], first_layer=first_layer)
    params = TrainParams(
        epochs=EPOCHS,
        head_lr=0.01,
        prompt_lr=0.05,
        tokens_per_micro_batch=BATCH_TOKENS,
        num_validations=CHECKS,
        hidden_state_cache_mb=hidden_state_cache_mb,
    )
    course.rows, course.tokens, course.padded = _drawn(batches, steps_of(batches, EPOCHS))

    def validate(found: Any) -> dict[str, float]:
        return {"ner": course.check(lambda: f1(found, held))}

    with process_group(Ranks(), 600):
        course.begin()
        train(
            model,
            "deep_prompt",
            batches,
            params,
            names=["ner"],
            pad_token_id=trained.pad_token_id,
            validate=validate,
            checkpoints=Path(mkdtemp(dir=setting.scratch)),
            ranks=Ranks(),
            callback=Silent(),
            cluster=Cluster(),
        )
        course.pause()
    return course


def _drawn(batches: TrainBatches, steps: int) -> tuple[int, int, int]:
    """Rows, tokens without padding, tokens with padding."""
    every = [batches.step(number)[0].rows for number in range(steps)]
    lengths = [batches.tables[0].lengths[rows] for rows in every]
    return (
        sum(map(len, every)),
        sum(int(each.sum()) for each in lengths),
        sum(int(each.max()) * len(each) for each in lengths),
    )


class Silent:
    """A callback that shows nothing."""

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Nothing."""

    def validated(self, run: TrainingRun) -> None:
        """Nothing."""

    def log(self, line: str) -> None:
        """Nothing."""


class Stock(nn.Module):
    """A model of transformers, read as ours are."""

    def __init__(self, model: Any, held: Corpus) -> None:
        super().__init__()
        self.model, self.head = model, held.split.task.head
        self.heads = SimpleNamespace(classes=[len(held.split.classes)])

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, N, classes] at the batch's positions."""
        logits: Tensor = self.model(**peft_inputs(batch, self.head)).logits
        return logits.gather(1, batch.positions.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))


def f1(model: Any, held: Corpus) -> float:
    """Of spans."""
    return score(held.split, decode(model, held.split, 0, held.pad_token_id), {}).overall["f1"]


class _Checks(TrainerCallback):
    """F1 now and then, and what Trainer's collator made."""

    def __init__(self, course: Course, score: Callable[[], float]) -> None:
        self._course, self._score = course, score

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Every twelfth of the steps, and after the last."""
        every = max(1, state.max_steps // CHECKS)
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            self._course.check(self._score)


def by_peft(setting: Setting, trained: Corpus, held: Corpus) -> Course:
    """As transformers' example of token classification does it: Trainer's defaults, its collator, batches of 8 as they come."""
    os.environ.pop("LOCAL_RANK", None)  # accelerate would take this process for one of several
    course, model = Course(), peft_model(setting, trained)
    pad_rows = DataCollatorForTokenClassification(AutoTokenizer.from_pretrained(setting.backbone))

    def collator(rows: list[Any]) -> Any:
        made = pad_rows(rows)
        course.rows += len(rows)
        course.tokens += int(made["attention_mask"].sum())
        course.padded += made["input_ids"].numel()
        return made

    arguments = TrainingArguments(
        mkdtemp(dir=setting.scratch),
        num_train_epochs=EPOCHS,
        learning_rate=RATE,
        seed=SEED,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collator,
        train_dataset=_records(trained),
        callbacks=[_Checks(course, lambda: f1(Stock(model, held), held))],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        course.begin()
        trainer.train()
        course.pause()
    return course


def _records(found: Corpus) -> Any:
    """Rows as transformers' example makes them: a label at each word's first token."""
    made = []
    for number in found.split.rows:
        ids, positions, labels = (
            found.split.table.column(name, int(number))
            for name in ("input_ids", "positions", "labels")
        )
        own = [IGNORE_INDEX] * len(ids)
        for position, label in zip(positions.tolist(), labels.tolist(), strict=True):
            own[position] = label
        made.append(
            {
                "input_ids": ids.tolist(),
                "attention_mask": [1] * len(ids),
                "labels": own,
                "token_type_ids": [0] * len(ids),
            }
        )
    return made
