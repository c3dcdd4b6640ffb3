"""A training step on a GPU: models as large as BERT-large and RoBERTa-large (random weights), bfloat16, compiled and not."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoModel, AutoModelForTokenClassification, BertConfig, RobertaConfig

from benchmarks.speed.setting import SEED, Setting
from benchmarks.speed.timing import table
from benchmarks.speed.ways import Step, peft_step, step_of
from pipeline.mixing.batches import Batch
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel

CLASSES = 9
DASH = "—"
TOKENS = 16_384  # of a batch
LENGTHS = (128, 384)
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
}
"""Dense bfloat16 operations a second, by NVIDIA's data sheets; the longest name that is in the device's counts."""


@dataclass(frozen=True)
class Shape:
    """A model's config, and the batches [rows, length] that it is trained on behind `virtual_tokens`."""

    name: str
    config: Any
    rows: int
    length: int
    virtual_tokens: int


def run(setting: Setting) -> Iterator[str]:
    """A table of each model and length; a line, where there is no GPU."""
    if not torch.cuda.is_available():
        yield "gpu: torch finds no CUDA device; not measured."
        yield ""
        return
    for length in LENGTHS:
        for name, config in (
            ("BERT-large", BertConfig(**LARGE)),
            (
                "RoBERTa-large",
                RobertaConfig(**LARGE, vocab_size=50_265, max_position_embeddings=514),
            ),
        ):
            yield from measured(
                Shape(name, config, TOKENS // length, length, setting.virtual_tokens),
                torch.device("cuda"),
                (None, "inductor"),
                setting.rounds,
            )


def measured(
    shape: Shape, device: torch.device, backends: tuple[str | None, ...], steps: int
) -> Iterator[str]:
    """A table of the ways to train, by each of torch.compile's backends (None: not compiled)."""
    kind = _kind(device)
    yield f"{shape.name}, {shape.rows} rows of {shape.length} tokens, bfloat16, on {kind}."
    yield ""
    yield from table(
        ("way", "compiled", "ms a step", "tokens/s", "of the device's peak", "peak memory"),
        [
            (name, backend or "no", *_one(shape, make, name == FULL, device, backend, steps))
            for name, make in WAYS.items()
            for backend in backends
        ],
    )


def _one(
    shape: Shape, make: "Make", full: bool, device: torch.device, backend: str | None, steps: int
) -> tuple[str, ...]:
    batch, step = _batch(shape).to(device), make(shape, device, backend)
    took = []
    for number in range(-2, steps):  # two warm up
        if number == 0 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= 0:
            took.append(time.perf_counter() - started)
    seconds = median(took)
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if device.type == "cuda" else DASH
    return (
        f"{1000 * seconds:.1f}",
        f"{shape.rows * shape.length / seconds:.0f}",
        share(operations(shape, full) / seconds, _kind(device)),
        memory,
    )


def _kind(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def operations(shape: Shape, full: bool) -> float:
    """Floating point operations of a step (a multiplication and an addition are two), without norms, softmax and the head.

    A token costs 2 (4 C^2 + 2 C F) a layer in products with weights and 4 K C in attention to K keys. Backward, the latter costs
    twice as much again; products with weights cost as much again for the gradient of their input, and, in full fine-tuning, once
    more for that of the weights. Below the first layer's prompt nothing needs a gradient.
    """
    config, tokens = shape.config, shape.rows * shape.length
    width, layers = config.hidden_size, config.num_hidden_layers
    products = tokens * 2 * (4 * width**2 + 2 * width * config.intermediate_size)
    keys = shape.length + (0 if full else shape.virtual_tokens)
    attention = tokens * 4 * keys * width
    if full:
        return layers * 3 * (products + attention)
    return layers * (2 * products + 3 * attention) - tokens * 2 * 3 * width**2


def share(rate: float, device: str) -> str:
    """Of the device's peak, as `41.3 %`; a dash for a device that is not in the table."""
    known = max((name for name in PEAKS if name in device), key=len, default=None)
    return DASH if known is None else f"{100 * rate / PEAKS[known]:.1f} %"


def _batch(shape: Shape) -> Batch:
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(5, shape.config.vocab_size, (shape.rows, shape.length), generator=generator)
    everywhere = torch.arange(shape.length).repeat(shape.rows, 1)
    return Batch(
        0,
        np.arange(shape.rows),
        ids,
        torch.ones_like(ids),
        torch.zeros_like(ids),
        everywhere,
        torch.ones_like(ids, dtype=torch.bool),
        torch.randint(0, CLASSES, ids.shape, generator=generator),
    )


def _model(shape: Shape, full: bool) -> PromptedModel:
    body = AutoModel.from_config(shape.config, attn_implementation=ATTENTION)
    backbone = Backbone(body if full else body.to(torch.bfloat16))
    prompt = (
        None if full else DeepPrompt(torch.randn(backbone.prompt_shape(shape.virtual_tokens)) * 0.1)
    )
    return PromptedModel(
        backbone,
        prompt,
        Heads(["classes"], [CLASSES], backbone.hidden_size, 0),
        train_backbone=full,
    )


def _ours(shape: Shape, device: torch.device, backend: str | None) -> Step:
    model = _model(shape, full=False).to(device)
    if backend is not None:
        model.backbone.compile(backend=backend)
    return step_of(model)


def _full(shape: Shape, device: torch.device, backend: str | None) -> Step:
    model = _model(shape, full=True).to(device)
    if backend is not None:
        model.backbone.compile(backend=backend)
    return _in_bfloat16(step_of(model), device)


def _peft(shape: Shape, device: torch.device, backend: str | None) -> Step:
    shape.config.num_labels = CLASSES
    stock = AutoModelForTokenClassification.from_config(shape.config, dtype=torch.bfloat16)
    model = peft.get_peft_model(
        stock,
        peft.PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=shape.virtual_tokens),
    ).to(device)
    if backend is not None:
        model.compile(backend=backend)
    return _in_bfloat16(peft_step(model, "classes"), device)


def _in_bfloat16(step: Step, device: torch.device) -> Step:
    """What is trained stays in float32 and is computed in bfloat16."""

    def cast(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            step(batch)

    return cast


Make = Callable[[Shape, torch.device, str | None], Step]
FULL = "full fine-tuning"
WAYS: dict[str, Make] = {FULL: _full, "deep prompt": _ours, "peft prefix tuning": _peft}
