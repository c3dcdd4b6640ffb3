"""Overheads of a step: DeepSpeed's engine in each ZeRO stage (one rank), and batch construction."""

from collections.abc import Iterator
from typing import Literal

from benchmarks.speed.methods import LEARNING_RATES, Step, deep_prompt_model, make_step
from benchmarks.speed.setting import SEED, Corpus, Setting, load_corpus
from benchmarks.speed.step import TOKENS_PER_BATCH_OF_TASK, make_batches, on_batches
from benchmarks.speed.timing import alternate, compare, table
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.collectives import device
from pipeline.distributed.process_group import process_group
from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.training.engine import Engine

PLAIN = "plain loop"


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of times relative to the plain loop."""
    corpus, tokens = load_corpus(setting, "ner"), TOKENS_PER_BATCH_OF_TASK["ner"]
    features = corpus.eval_set.table
    batches = [batch.to(device(Ranks())) for batch in make_batches(setting, corpus, tokens)]
    draw = TrainBatches([features], [RATE_SCALE], tokens, 1, SEED)
    with process_group(Ranks(), 600):
        model = deep_prompt_model(setting, corpus).to(device(Ranks()))
        methods = {PLAIN: on_batches(make_step(model), batches)}
        for zero in (0, 1, 2, 3):
            step = make_engine_step(setting, corpus, zero)
            methods[f"engine, ZeRO stage {zero}"] = on_batches(step, batches)
        methods["drawing and padding alone"] = lambda number: collate(
            features, draw.step(number)[0].rows, 0, corpus.pad_token_id
        )
        times = alternate(methods, setting.rounds, setting.calls)
    yield (
        f"A step of a deep prompt on {corpus.name}: batches of {tokens} tokens. "
        "Goals: the engine below 1.05, batches below 0.05."
    )
    yield ""
    columns = ("method", "ms per step", f"of the {PLAIN} (quartiles)", "by CPU time")
    yield from table(columns, compare(times, PLAIN, setting.calls))


def make_engine_step(setting: Setting, corpus: Corpus, zero: Literal[0, 1, 2, 3]) -> Step:
    """Return the step of the plain loop with DeepSpeed."""
    model = deep_prompt_model(setting, corpus)
    rates = {part: LEARNING_RATES[part] for part in ("prompt", "head")}
    engine = Engine(model, rates, 0.0, 1, 1.0, Ranks(), Cluster(zero=zero))

    def step(batch: Batch) -> None:
        engine.backward(model.heads.loss(engine(batch), batch))
        engine.step()

    return step
