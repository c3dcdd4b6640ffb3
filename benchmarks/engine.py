"""What DeepSpeed's engine costs a step, beside a plain loop: python -m benchmarks.engine [ROUNDS].

MiniLM-L6 with a deep prompt of 32 tokens, 8 rows of 64 tokens a micro-batch, one rank. In each round every way makes a few
steps in turn, so that a busy machine slows all of them alike.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.backbone import Backbone
from pipeline.batches import Batch
from pipeline.cluster import Cluster, Ranks
from pipeline.collective import device
from pipeline.engine import Engine
from pipeline.launch import joined
from pipeline.model import Heads, PromptedModel
from pipeline.optim import optimizer
from pipeline.prompt import DeepPrompt
from pipeline.source import locate
from stages.params import load_params

ROWS, TOKENS, PROMPT, STEPS, CLASSES = 8, 64, 32, 5, 9
RATES = {"prompt": 0.01, "head": 0.001}
Step = Callable[[Batch], None]


def made() -> PromptedModel:
    """A model as pretraining has it."""
    backbone = Backbone.load(locate(load_params().backbone))
    prompt = DeepPrompt(torch.randn(backbone.prompt_shape(PROMPT), generator=torch.Generator().manual_seed(1)) * 0.1)
    return PromptedModel(backbone, prompt, Heads(["classes"], [CLASSES], backbone.hidden_size, 0), train_backbone=False)


def plain() -> Step:
    """The loop that one would write by hand."""
    model = made().to(device(Ranks()))
    adam = optimizer(model.trainable_state().items(), RATES, 0.0)

    def step(batch: Batch) -> None:
        adam.zero_grad()
        model.heads.loss(model(batch), batch).backward()
        torch.nn.utils.clip_grad_norm_(model.trainable_state().values(), 1.0)
        adam.step()

    return step


def engine(zero: int) -> Step:
    """The same through DeepSpeed."""
    model = made()
    wrapped = Engine(model, RATES, 0.0, 1, 1.0, Ranks(), Cluster(zero=zero))

    def step(batch: Batch) -> None:
        wrapped.backward(model.heads.loss(wrapped(batch), batch))
        wrapped.step()

    return step


def main(rounds: int) -> None:
    """Print the median milliseconds of a step, and the ratio to the plain loop's."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (ROWS, TOKENS), generator=generator)
    everywhere = torch.arange(TOKENS).expand(ROWS, -1)
    batch = Batch(0, np.arange(ROWS), ids, torch.ones_like(ids), torch.zeros_like(ids), everywhere, torch.ones_like(ids).bool(),
                  torch.randint(0, CLASSES, (ROWS, TOKENS), generator=generator)).to(device(Ranks()))
    with joined(Ranks(), 600):
        ways = {"plain loop": plain()} | {f"ZeRO stage {zero}": engine(zero) for zero in (0, 1, 2, 3)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, step in ways.items():
                for _ in range(STEPS):
                    started = time.perf_counter()
                    step(batch)
                    if torch.cuda.is_available():
                        torch.cuda.synchronize()
                    if number:  # the first round warms up
                        times[name].append(1000 * (time.perf_counter() - started))
    base = times["plain loop"]
    for name, measured in times.items():
        ratios = [statistics.median(measured[at : at + STEPS]) / statistics.median(base[at : at + STEPS])
                  for at in range(0, len(base), STEPS)]
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        print(f"{name:14} {statistics.median(measured):7.1f} ms   {middle:.3f} of the plain loop ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
