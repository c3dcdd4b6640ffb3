"""A training step: forward, backward, clipping, AdamW. Ours against full fine-tuning and against peft, on the same batches."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.speed.setting import SEED, Corpus, Setting, corpus
from benchmarks.speed.timing import Times, against, alternate, ratio, table
from benchmarks.speed.ways import Step, fine_tuned, ours, peft_model, peft_step, step_of
from pipeline.config import load_json
from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.training.hidden_state_cache import HiddenStateCache

TOKENS = {"ner": 512, "qa": 1536}  # of a batch
TUNED, TOP, STORED = "full fine-tuning", "deep prompt, top half", "the same, lower half stored"
PEFT, STILL = "peft prefix tuning", "peft prefix tuning, dropout off"
GOALS = [
    ("deep prompt", TUNED, 0.72),
    ("deep prompt", PEFT, 0.85),
    ("deep prompt", STILL, 0.85),
    (TOP, "deep prompt", 0.6),
    (STORED, "deep prompt", 0.6),
]


def run(setting: Setting) -> Iterator[str]:
    """Tables of both corpora."""
    for kind, tokens in TOKENS.items():
        found = corpus(setting, kind)
        batches = batches_of(setting, found, tokens)
        times = alternate(
            {name: on(make(setting, found, batches), batches) for name, make in WAYS.items()},
            setting.rounds,
            setting.calls,
        )
        yield f"A step on {found.name}: batches of {tokens} tokens, {setting.virtual_tokens} virtual tokens."
        yield ""
        yield from table(
            ("way", "ms a step", f"of {TUNED} (quartiles)", "by CPU time"),
            against(times, TUNED, setting.calls),
        )
        yield from table(("goal", "at most", "by clock", "by CPU time"), goals(times))


def goals(times: dict[str, Times]) -> Iterator[tuple[str, ...]]:
    """Rows of a table: what was aimed at, and what came of it."""
    for way, base, most in GOALS:
        yield (
            f"{way} / {base}",
            str(most),
            ratio(times[way].wall, times[base].wall),
            ratio(times[way].cpu, times[base].cpu),
        )


def batches_of(setting: Setting, found: Corpus, tokens: int) -> list[Batch]:
    """As many as are trained on, as pretraining would draw them."""
    table, draw = (
        found.split.table,
        TrainBatches([found.split.table], [RATE_SCALE], tokens, 1, SEED),
    )
    return [
        collate(table, draw.step(number)[0].rows, 0, found.pad_token_id)
        for number in range(setting.rounds * setting.calls)
    ]


def on(step: Step, batches: list[Batch]) -> Callable[[int], object]:
    """The step on the batch of a number."""
    return lambda number: step(batches[number])


def half(setting: Setting) -> int:
    """The first layer of the backbone's top half."""
    return int(load_json(setting.backbone / "config.json")["num_hidden_layers"]) // 2


def _stored(setting: Setting, found: Corpus, batches: list[Batch]) -> Step:
    model = ours(setting, found, half(setting))
    rows = np.unique(np.concatenate([batch.rows for batch in batches]))
    stored = HiddenStateCache(
        model, found.split.table, rows, 0, found.pad_token_id, setting.scratch, torch.device("cpu")
    )
    step = step_of(model)
    return lambda batch: step(stored.attach(batch))


Make = Callable[[Setting, Corpus, list[Batch]], Step]
WAYS: dict[str, Make] = {
    TUNED: lambda setting, found, _: step_of(fine_tuned(setting, found)),
    "deep prompt": lambda setting, found, _: step_of(ours(setting, found)),
    TOP: lambda setting, found, _: step_of(ours(setting, found, half(setting))),
    STORED: _stored,
    PEFT: lambda setting, found, _: peft_step(peft_model(setting, found), found.split.task.head),
    STILL: lambda setting, found, _: peft_step(
        peft_model(setting, found), found.split.task.head, dropout=False
    ),
}
