"""On paper: what many ranks have to tell each other every step, and what share of a measured step that would take."""

from collections.abc import Iterator
from statistics import median

from benchmarks.speed.setting import Setting, corpus
from benchmarks.speed.step import TOKENS, batches_of, on
from benchmarks.speed.timing import alternate, table
from benchmarks.speed.ways import fine_tuned, ours, step_of
from pipeline.model.prompted_model import PromptedModel

RANKS = (8, 64, 1024)
LINKS = {"10 Gbit/s Ethernet": (10e9 / 8, 50e-6), "100 Gbit/s InfiniBand": (100e9 / 8, 2e-6)}
"""Bytes a second, and seconds until the first one is there."""


def run(setting: Setting) -> Iterator[str]:
    """A table for the prompt's gradients and one's for the whole backbone's, from step times measured here."""
    found = corpus(setting, "ner")
    batches = batches_of(setting, found, TOKENS["ner"])
    models = {"deep prompt": ours(setting, found), "full fine-tuning": fine_tuned(setting, found)}
    times = alternate(
        {name: on(step_of(model), batches) for name, model in models.items()},
        setting.rounds,
        setting.calls,
    )
    took = {name: median(each.wall) / setting.calls for name, each in times.items()}
    yield (
        "A ring all-reduce of float32 gradients, not overlapped with the backward pass; the steps are those measured here, of "
        f"{TOKENS['ner']} tokens a rank: a faster device has shorter steps, and larger shares."
    )
    yield ""
    columns = (
        "way",
        "bytes to reduce",
        "ms a step",
        "link",
        *(f"{ranks:,} ranks: ms (efficiency)" for ranks in RANKS),
    )
    yield from table(
        columns,
        [
            (
                name,
                f"{size(model):,}",
                f"{1000 * took[name]:.0f}",
                link,
                *(_cell(size(model), took[name], link, ranks) for ranks in RANKS),
            )
            for name, model in models.items()
            for link in LINKS
        ],
    )


def size(model: PromptedModel) -> int:
    """Bytes of all gradients."""
    return sum(4 * parameter.numel() for parameter in model.trainable_state().values())


def ring(count: int, ranks: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce of `count` bytes: 2 (n - 1) messages, each of 1 / n of the bytes (Patarasuk and Yuan 2009)."""
    return 2 * (ranks - 1) * (count / ranks / bandwidth + latency)


def _cell(count: int, step: float, link: str, ranks: int) -> str:
    telling = ring(count, ranks, *LINKS[link])
    return f"{1000 * telling:.2f} ({100 * step / (step + telling):.1f} %)"
