"""Estimated scaling: the time to exchange gradients between many ranks, against a measured step."""

from collections.abc import Iterator
from statistics import median

from benchmarks.speed.methods import deep_prompt_model, fine_tuned_model, make_step
from benchmarks.speed.setting import Setting, load_corpus
from benchmarks.speed.step import TOKENS_PER_BATCH_OF_TASK, make_batches, on_batches
from benchmarks.speed.timing import alternate, table
from pipeline.model.prompted_model import PromptedModel

NUM_RANKS = (8, 64, 1024)
LINKS = {"10 Gbit/s Ethernet": (10e9 / 8, 50e-6), "100 Gbit/s InfiniBand": (100e9 / 8, 2e-6)}
"""Bandwidth in bytes per second, and latency in seconds."""


def run(setting: Setting) -> Iterator[str]:
    """Yield a table for the gradients of a prompt and those of the whole backbone."""
    corpus, tokens = load_corpus(setting, "ner"), TOKENS_PER_BATCH_OF_TASK["ner"]
    batches = make_batches(setting, corpus, tokens)
    models = {
        "deep prompt": deep_prompt_model(setting, corpus),
        "full fine-tuning": fine_tuned_model(setting, corpus),
    }
    methods = {name: on_batches(make_step(model), batches) for name, model in models.items()}
    times = alternate(methods, setting.rounds, setting.calls)
    yield (
        "A ring all-reduce of float32 gradients, not overlapped with the backward pass. The steps "
        f"are those measured here, of {tokens} tokens per rank: a faster device has shorter steps "
        "and larger shares."
    )
    yield ""
    headers = [f"{ranks:,} ranks: ms (efficiency)" for ranks in NUM_RANKS]
    rows = []
    for name, model in models.items():
        seconds, size = median(times[name].wall) / setting.calls, gradient_bytes(model)
        for link in LINKS:
            cells = [_cell(size, seconds, link, ranks) for ranks in NUM_RANKS]
            rows.append((name, f"{size:,}", f"{1000 * seconds:.0f}", link, *cells))
    yield from table(("method", "bytes to reduce", "ms per step", "link", *headers), rows)


def gradient_bytes(model: PromptedModel) -> int:
    """Return the size of all gradients in bytes."""
    return sum(4 * parameter.numel() for parameter in model.trainable_state().values())


def ring_seconds(num_bytes: int, ranks: int, bandwidth: float, latency: float) -> float:
    """Return the seconds of a ring all-reduce among n ranks (Patarasuk and Yuan, 2009).

    It sends 2 (n - 1) messages, each with 1 / n of the bytes.
    """
    return 2 * (ranks - 1) * (num_bytes / ranks / bandwidth + latency)


def _cell(num_bytes: int, step_seconds: float, link: str, ranks: int) -> str:
    seconds = ring_seconds(num_bytes, ranks, *LINKS[link])
    return f"{1000 * seconds:.2f} ({100 * step_seconds / (step_seconds + seconds):.1f} %)"
