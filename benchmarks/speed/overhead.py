"""What comes on top of a step: DeepSpeed's engine in each ZeRO stage (one rank), and drawing and padding a batch."""

from collections.abc import Iterator

from benchmarks.speed.setting import SEED, Corpus, Setting, corpus
from benchmarks.speed.step import TOKENS, batches_of, on
from benchmarks.speed.timing import against, alternate, table
from benchmarks.speed.ways import RATES, Step, ours, step_of
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.collectives import device
from pipeline.distributed.process_group import process_group
from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.training.engine import Engine

PLAIN = "plain loop"


def run(setting: Setting) -> Iterator[str]:
    """A table of the time of each beside the plain loop's."""
    found = corpus(setting, "ner")
    batches = [batch.to(device(Ranks())) for batch in batches_of(setting, found, TOKENS["ner"])]
    draw = TrainBatches([found.split.table], [RATE_SCALE], TOKENS["ner"], 1, SEED)
    with process_group(Ranks(), 600):
        ways = {PLAIN: on(step_of(ours(setting, found).to(device(Ranks()))), batches)}
        ways |= {
            f"engine, ZeRO stage {zero}": on(engine(setting, found, zero), batches)
            for zero in (0, 1, 2, 3)
        }
        ways["drawing and padding alone"] = lambda number: collate(
            found.split.table, draw.step(number)[0].rows, 0, found.pad_token_id
        )
        times = alternate(ways, setting.rounds, setting.calls)
    yield (
        f"A step of a deep prompt on {found.name}: batches of {TOKENS['ner']} tokens. Goals: the engine below 1.05, batches "
        "below 0.05."
    )
    yield ""
    yield from table(
        ("way", "ms a step", f"of the {PLAIN} (quartiles)", "by CPU time"),
        against(times, PLAIN, setting.calls),
    )


def engine(setting: Setting, found: Corpus, zero: int) -> Step:
    """The plain loop's step through DeepSpeed."""
    model = ours(setting, found)
    wrapped = Engine(
        model,
        {part: RATES[part] for part in ("prompt", "head")},
        0.0,
        1,
        1.0,
        Ranks(),
        Cluster(zero=zero),
    )

    def step(batch: Batch) -> None:
        wrapped.backward(model.heads.loss(wrapped(batch), batch))
        wrapped.step()

    return step
