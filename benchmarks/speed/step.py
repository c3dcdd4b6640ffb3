"""A training step (forward, backward, clipping, AdamW) of each method, on the same batches."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.speed.methods import (
    Step,
    deep_prompt_model,
    fine_tuned_model,
    make_peft_step,
    make_step,
    peft_model,
)
from benchmarks.speed.setting import SEED, Corpus, Setting, load_corpus
from benchmarks.speed.timing import Method, Times, alternate, compare, ratio, table
from pipeline.config import load_json
from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.training.hidden_state_cache import HiddenStateCache

TOKENS_PER_BATCH = {"ner": 512, "qa": 1536}
FINE_TUNING, TOP_HALF = "full fine-tuning", "deep prompt, top half"
CACHED = "the same, lower half cached"
PEFT, PEFT_NO_DROPOUT = "peft prefix tuning", "peft prefix tuning, dropout off"
GOALS = [
    ("deep prompt", FINE_TUNING, 0.72),
    ("deep prompt", PEFT, 0.85),
    ("deep prompt", PEFT_NO_DROPOUT, 0.85),
    (TOP_HALF, "deep prompt", 0.6),
    (CACHED, "deep prompt", 0.6),
]


def run(setting: Setting) -> Iterator[str]:
    """Yield the tables of both corpora."""
    for kind, tokens in TOKENS_PER_BATCH.items():
        corpus = load_corpus(setting, kind)
        batches = make_batches(setting, corpus, tokens)
        methods = {
            name: on_batches(make(setting, corpus, batches), batches)
            for name, make in METHODS.items()
        }
        times = alternate(methods, setting.rounds, setting.calls)
        yield (
            f"A step on {corpus.name}: batches of {tokens} tokens, "
            f"{setting.num_virtual_tokens} virtual tokens."
        )
        yield ""
        columns = ("method", "ms per step", f"of {FINE_TUNING} (quartiles)", "by CPU time")
        yield from table(columns, compare(times, FINE_TUNING, setting.calls))
        yield from table(("goal", "at most", "by clock", "by CPU time"), goal_rows(times))


def goal_rows(times: dict[str, Times]) -> Iterator[tuple[str, ...]]:
    """Yield table rows of the goals and the measured ratios."""
    for method, base, goal in GOALS:
        yield (
            f"{method} / {base}",
            str(goal),
            ratio(times[method].wall, times[base].wall),
            ratio(times[method].cpu, times[base].cpu),
        )


def make_batches(setting: Setting, corpus: Corpus, tokens: int) -> list[Batch]:
    """Return the training batches of all rounds, drawn as in pretraining."""
    features = corpus.eval_set.table
    draw = TrainBatches([features], [RATE_SCALE], tokens, 1, SEED)
    return [
        collate(features, draw.step(number)[0].rows, 0, corpus.pad_token_id)
        for number in range(setting.rounds * setting.calls)
    ]


def on_batches(step: Step, batches: list[Batch]) -> Method:
    """Return a method that runs the step on the batch with a number."""
    return lambda number: step(batches[number])


def first_top_layer(setting: Setting) -> int:
    """Return the first layer of the backbone's top half."""
    return int(load_json(setting.backbone / "config.json")["num_hidden_layers"]) // 2


def _cached_step(setting: Setting, corpus: Corpus, batches: list[Batch]) -> Step:
    model = deep_prompt_model(setting, corpus, first_top_layer(setting))
    rows = np.unique(np.concatenate([batch.rows for batch in batches]))
    cache = HiddenStateCache(
        model,
        corpus.eval_set.table,
        rows,
        0,
        corpus.pad_token_id,
        setting.scratch,
        torch.device("cpu"),
    )
    step = make_step(model)
    return lambda batch: step(cache.attach(batch))


def _peft_step(setting: Setting, corpus: Corpus, dropout: bool) -> Step:
    return make_peft_step(peft_model(setting, corpus), corpus.eval_set.task.head, dropout)


StepFactory = Callable[[Setting, Corpus, list[Batch]], Step]
METHODS: dict[str, StepFactory] = {
    FINE_TUNING: lambda setting, corpus, _: make_step(fine_tuned_model(setting, corpus)),
    "deep prompt": lambda setting, corpus, _: make_step(deep_prompt_model(setting, corpus)),
    TOP_HALF: lambda setting, corpus, _: make_step(
        deep_prompt_model(setting, corpus, first_top_layer(setting))
    ),
    CACHED: _cached_step,
    PEFT: lambda setting, corpus, _: _peft_step(setting, corpus, dropout=True),
    PEFT_NO_DROPOUT: lambda setting, corpus, _: _peft_step(setting, corpus, dropout=False),
}
