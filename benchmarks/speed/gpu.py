"""A training step on a GPU: BERT-large and RoBERTa-large with random weights, in bfloat16."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import peft
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModel, AutoModelForTokenClassification, BertConfig, RobertaConfig

from benchmarks.speed.methods import Step, make_peft_step, make_step, with_autocast
from benchmarks.speed.setting import SEED, Setting
from benchmarks.speed.timing import table
from pipeline.mixing.batches import Batch
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel

NUM_CLASSES = 9
UNKNOWN = "—"
TOKENS_PER_BATCH = 16_384
LENGTHS = (128, 384)
NUM_WARMUP_STEPS = 2
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
PEAK_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
}
"""Dense bfloat16 operations per second (NVIDIA's data sheets), by part of the device's name."""
COLUMNS = (
    "method",
    "compiled",
    "ms per step",
    "tokens/s",
    "of the device's peak",
    "peak memory",
    "attention kernel",
)


_KERNEL = re.compile(
    "aten::_scaled_dot_product_(attention_math|(?:flash|efficient|cudnn)_attention(?:_for_cpu)?)"
)
Backends = tuple[str | None, ...]


@dataclass(frozen=True)
class Shape:
    """A model's config, and the batches [rows, length] that it trains on with a prompt."""

    name: str
    config: Any
    rows: int
    length: int
    num_virtual_tokens: int


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of each model and length, or a line if there is no GPU."""
    if not torch.cuda.is_available():
        yield "gpu: torch finds no CUDA device; not measured."
        yield ""
        return
    roberta = RobertaConfig(**LARGE, vocab_size=50_265, max_position_embeddings=514)
    # A compilation takes about a minute, and the layers of the two models are the same.
    models: list[tuple[str, Any, Backends]] = [
        ("BERT-large", BertConfig(**LARGE), (None, "inductor")),
        ("RoBERTa-large", roberta, (None,)),
    ]
    for length in LENGTHS:
        for name, config, backends in models:
            rows = TOKENS_PER_BATCH // length
            shape = Shape(name, config, rows, length, setting.num_virtual_tokens)
            yield from measure(shape, torch.device("cuda"), backends, setting.rounds)


def measure(shape: Shape, device: torch.device, backends: Backends, steps: int) -> Iterator[str]:
    """Yield a table of the methods with each backend of torch.compile (None: not compiled)."""
    yield (
        f"{shape.name}, {shape.rows} rows of {shape.length} tokens, bfloat16, "
        f"on {_device_name(device)}."
    )
    yield ""
    rows = []
    for name, make in GPU_METHODS.items():
        for backend in backends:
            cells = _measure_method(shape, make, name == FINE_TUNING, device, backend, steps)
            rows.append((name, backend or "no", *cells))
    yield from table(COLUMNS, rows)


def _measure_method(
    shape: Shape,
    make: "GpuStepFactory",
    train_backbone: bool,
    device: torch.device,
    backend: str | None,
    steps: int,
) -> tuple[str, ...]:
    on_gpu = device.type == "cuda"
    batch, step = _random_batch(shape).to(device), make(shape, device, backend)
    times = []
    for number in range(-NUM_WARMUP_STEPS, steps):
        if number == 0 and on_gpu:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        step(batch)
        if on_gpu:
            torch.cuda.synchronize()
        if number >= 0:
            times.append(time.perf_counter() - started)
    seconds = median(times)
    flops = step_operations(shape, train_backbone) / seconds
    return (
        f"{1000 * seconds:.1f}",
        f"{shape.rows * shape.length / seconds:.0f}",
        share_of_peak(flops, _device_name(device)),
        f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if on_gpu else UNKNOWN,
        attention_kernels(lambda: step(batch)),
    )


def attention_kernels(call: Callable[[], object]) -> str:
    """The kernels of scaled dot-product attention that a call runs, such as `flash_attention`."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    operations = {event.key for event in profiler.key_averages()}
    kernels = {match[1] for match in map(_KERNEL.fullmatch, operations) if match}
    return ", ".join(sorted(kernels)) or UNKNOWN


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def step_operations(shape: Shape, train_backbone: bool) -> float:
    """Return the floating point operations of a step, without norms, softmax and the head.

    A multiply-add counts as two operations. With hidden size C and feed-forward size F, a token
    costs 2 (4 C^2 + 2 C F) per layer in products with weights, and 4 K C in attention to K keys.
    The backward pass costs twice as much again for attention. For products with weights it costs
    as much again for the gradient of their input and, in full fine-tuning, once more for the
    gradient of the weights. Nothing below the prompt of the first layer needs a gradient.
    """
    config, tokens = shape.config, shape.rows * shape.length
    width, layers = config.hidden_size, config.num_hidden_layers
    products = tokens * 2 * (4 * width**2 + 2 * width * config.intermediate_size)
    keys = shape.length + (0 if train_backbone else shape.num_virtual_tokens)
    attention = tokens * 4 * keys * width
    if train_backbone:
        return float(layers * 3 * (products + attention))
    return float(layers * (2 * products + 3 * attention) - tokens * 2 * 3 * width**2)


def share_of_peak(flops: float, device: str) -> str:
    """Return the share of the device's peak, such as `41.3 %`; a dash for an unknown device."""
    matches = [name for name in PEAK_FLOPS if name in device]
    if not matches:
        return UNKNOWN
    return f"{100 * flops / PEAK_FLOPS[max(matches, key=len)]:.1f} %"


def _random_batch(shape: Shape) -> Batch:
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(5, shape.config.vocab_size, (shape.rows, shape.length), generator=generator)
    return Batch(
        0,
        np.arange(shape.rows),
        ids,
        attention_mask=torch.ones_like(ids),
        token_types=torch.zeros_like(ids),
        positions=torch.arange(shape.length).repeat(shape.rows, 1),
        position_mask=torch.ones_like(ids, dtype=torch.bool),
        labels=torch.randint(0, NUM_CLASSES, ids.shape, generator=generator),
    )


def _model(shape: Shape, train_backbone: bool) -> PromptedModel:
    body = AutoModel.from_config(shape.config, attn_implementation=ATTENTION)
    backbone = Backbone(body if train_backbone else body.to(torch.bfloat16))
    prompt = None
    if not train_backbone:
        key_values = torch.randn(backbone.prompt_shape(shape.num_virtual_tokens)) * 0.1
        prompt = DeepPrompt(key_values)
    heads = Heads(["classes"], [NUM_CLASSES], backbone.hidden_size, 0)
    return PromptedModel(backbone, prompt, heads, train_backbone=train_backbone)


def _gpu_deep_prompt_step(shape: Shape, device: torch.device, backend: str | None) -> Step:
    model = _model(shape, train_backbone=False).to(device)
    if backend is not None:
        model.backbone.compile(backend=backend)
    return make_step(model)


def _gpu_fine_tuning_step(shape: Shape, device: torch.device, backend: str | None) -> Step:
    model = _model(shape, train_backbone=True).to(device)
    if backend is not None:
        model.backbone.compile(backend=backend)
    return with_autocast(make_step(model), device, torch.bfloat16)


def _gpu_peft_step(shape: Shape, device: torch.device, backend: str | None) -> Step:
    shape.config.num_labels = NUM_CLASSES
    body = AutoModelForTokenClassification.from_config(shape.config, dtype=torch.bfloat16)
    config = peft.PrefixTuningConfig(
        task_type="TOKEN_CLS", num_virtual_tokens=shape.num_virtual_tokens
    )
    model = peft.get_peft_model(body, config).to(device)
    if backend is not None:
        model.compile(backend=backend)
    return with_autocast(make_peft_step(model, "classes"), device, torch.bfloat16)


GpuStepFactory = Callable[[Shape, torch.device, str | None], Step]
FINE_TUNING = "full fine-tuning"
GPU_METHODS: dict[str, GpuStepFactory] = {
    FINE_TUNING: _gpu_fine_tuning_step,
    "deep prompt": _gpu_deep_prompt_step,
    "peft prefix tuning": _gpu_peft_step,
}
