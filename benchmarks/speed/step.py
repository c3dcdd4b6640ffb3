"""A training step (forward, backward, clipping, AdamW) of each method, on the same batches.

Every method runs in float32 and in bfloat16. In bfloat16, the frozen weights of a deep prompt are
of that type; full fine-tuning and peft compute in it by autocast, with float32 weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from benchmarks.speed.methods import (
    PRECISIONS,
    Step,
    deep_prompt_model,
    fine_tuned_model,
    make_peft_step,
    make_step,
    peft_model,
    with_autocast,
)
from benchmarks.speed.setting import SEED, Corpus, Setting, load_corpus
from benchmarks.speed.timing import Method, Times, alternate, compare, ratio, table
from pipeline.config import load_json
from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.training.hidden_state_cache import HiddenStateCache

TOKENS_PER_BATCH_OF_TASK = {"ner": 512, "qa": 1536}
FINE_TUNING, TOP_HALF = "full fine-tuning", "deep prompt, top half"
CACHED = "the same, lower half cached"
PEFT, PEFT_NO_DROPOUT = "peft prefix tuning", "peft prefix tuning, dropout off"
GOALS = [
    ("deep prompt", FINE_TUNING, 0.72),
    ("deep prompt", PEFT, 0.60),
    ("deep prompt", PEFT_NO_DROPOUT, 0.75),
    (TOP_HALF, "deep prompt", 0.6),
    (CACHED, "deep prompt", 0.6),
]
GOAL_COLUMNS = (
    "goal",
    "at most",
    "float32 each: by clock",
    "by CPU time",
    "best precision each",
    "by clock",
    "by CPU time",
)
CPU = torch.device("cpu")
AllTimes = Mapping[tuple[str, str], Times]
"""(method, precision) -> its times."""


def run(setting: Setting) -> Iterator[str]:
    """Yield the tables of both corpora."""
    for kind, tokens in TOKENS_PER_BATCH_OF_TASK.items():
        corpus = load_corpus(setting, kind)
        batches = make_batches(setting, corpus, tokens)
        methods = {
            (name, precision): on_batches(make(setting, corpus, batches, dtype), batches)
            for precision, dtype in PRECISIONS.items()
            for name, make in METHODS.items()
        }
        times = alternate(methods, setting.rounds, setting.calls)
        for precision in PRECISIONS:
            yield (
                f"A step on {corpus.name} in {precision}: batches of {tokens} tokens, "
                f"{setting.num_virtual_tokens} virtual tokens."
            )
            yield ""
            columns = ("method", "ms per step", f"of {FINE_TUNING} (quartiles)", "by CPU time")
            in_precision = {name: times[name, precision] for name in METHODS}
            yield from table(columns, compare(in_precision, FINE_TUNING, setting.calls))
        yield from table(GOAL_COLUMNS, goal_rows(times))


def goal_rows(
    times: AllTimes, goals: Sequence[tuple[str, str, float]] = GOALS
) -> Iterator[tuple[str, ...]]:
    """Yield table rows of goals (method, base, ratio) and the measured ratios.

    The ratios are of both methods in float32, and of each in its faster precision.
    """
    for method, base, goal in goals:
        fastest = fastest_precision(times, method), fastest_precision(times, base)
        cells = []
        for precision, base_precision in (("float32", "float32"), fastest):
            own, other = times[method, precision], times[base, base_precision]
            cells += [ratio(own.wall, other.wall), ratio(own.cpu, other.cpu)]
        yield (f"{method} / {base}", str(goal), *cells[:2], " / ".join(fastest), *cells[2:])


def fastest_precision(times: AllTimes, method: str) -> str:
    """The precision in which a method takes the least CPU time."""
    return min(PRECISIONS, key=lambda precision: sum(times[method, precision].cpu))


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


def _cached_step(
    setting: Setting, corpus: Corpus, batches: list[Batch], dtype: torch.dtype
) -> Step:
    model = deep_prompt_model(setting, corpus, first_top_layer(setting), dtype)
    rows = np.unique(np.concatenate([batch.rows for batch in batches]))
    cache = HiddenStateCache(
        model, corpus.eval_set.table, rows, 0, corpus.pad_token_id, setting.scratch, CPU
    )
    step = make_step(model)
    return lambda batch: step(cache.attach(batch))


def _fine_tuning_step(
    setting: Setting, corpus: Corpus, batches: list[Batch], dtype: torch.dtype
) -> Step:
    return with_autocast(make_step(fine_tuned_model(setting, corpus)), CPU, dtype)


def _peft_step(setting: Setting, corpus: Corpus, dropout: bool, dtype: torch.dtype) -> Step:
    step = make_peft_step(peft_model(setting, corpus), corpus.eval_set.task.head, dropout)
    return with_autocast(step, CPU, dtype)


StepFactory = Callable[[Setting, Corpus, list[Batch], torch.dtype], Step]
METHODS: dict[str, StepFactory] = {
    FINE_TUNING: _fine_tuning_step,
    "deep prompt": lambda setting, corpus, _, dtype: make_step(
        deep_prompt_model(setting, corpus, dtype=dtype)
    ),
    TOP_HALF: lambda setting, corpus, _, dtype: make_step(
        deep_prompt_model(setting, corpus, first_top_layer(setting), dtype)
    ),
    CACHED: _cached_step,
    PEFT: lambda setting, corpus, _, dtype: _peft_step(setting, corpus, True, dtype),
    PEFT_NO_DROPOUT: lambda setting, corpus, _, dtype: _peft_step(setting, corpus, False, dtype),
}
