"""The training methods to compare: deep prompts, full fine-tuning, and peft's prefix tuning."""

from collections.abc import Callable
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification

from benchmarks.speed.setting import Corpus, Setting
from pipeline.mixing.batches import IGNORE_INDEX, Batch
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.tasks.base.task import HeadKind
from pipeline.training.optim import optimizer

LEARNING_RATES = {"prompt": 0.01, "head": 0.001, "backbone": 1e-4}
Step = Callable[[Batch], object]


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def deep_prompt_model(
    setting: Setting, corpus: Corpus, first_layer: int = 0, dtype: torch.dtype = torch.float32
) -> PromptedModel:
    """Return a model with a deep prompt in the layers from `first_layer` on.

    The weights of the backbone are of type `dtype`.
    """
    backbone = Backbone.load(setting.backbone).convert(dtype)
    num_layers, *shape = backbone.prompt_shape(setting.num_virtual_tokens)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn((num_layers - first_layer, *shape), generator=generator) * 0.1
    prompt = DeepPrompt(values, first_layer=first_layer)
    return PromptedModel(backbone, prompt, _heads(backbone, corpus), train_backbone=False)


def fine_tuned_model(setting: Setting, corpus: Corpus) -> PromptedModel:
    """Return a model that trains the whole backbone."""
    backbone = Backbone.load(setting.backbone)
    return PromptedModel(backbone, None, _heads(backbone, corpus), train_backbone=True)


def _heads(backbone: Backbone, corpus: Corpus) -> Heads:
    eval_set = corpus.eval_set
    return Heads([eval_set.task.head], [len(eval_set.classes)], backbone.hidden_size, 0)


def peft_model(setting: Setting, corpus: Corpus) -> Any:
    """Return peft's prefix tuning with its defaults, for transformers' model class of the task."""
    tagging = corpus.eval_set.task.head == "classes"
    auto_class = AutoModelForTokenClassification if tagging else AutoModelForQuestionAnswering
    options = {"num_labels": len(corpus.eval_set.classes)} if tagging else {}
    model = auto_class.from_pretrained(setting.backbone, local_files_only=True, **options)
    config = peft.PrefixTuningConfig(
        task_type="TOKEN_CLS" if tagging else "QUESTION_ANS",
        num_virtual_tokens=setting.num_virtual_tokens,
    )
    return peft.get_peft_model(model, config)


def make_step(model: PromptedModel) -> Step:
    """Return a training step as in the arms: forward, backward, gradient clipping and AdamW."""
    trained = model.trainable_state()
    parts = ("backbone", "head") if model.prompt is None else ("prompt", "head")
    adam = optimizer(trained.items(), {part: LEARNING_RATES[part] for part in parts}, 0.0)

    def step(batch: Batch) -> None:
        adam.zero_grad()
        torch.autograd.backward(model.heads.loss(model(batch), batch))
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        adam.step()

    return step


def make_peft_step(model: Any, head: HeadKind, dropout: bool = True) -> Step:
    """Return the same step for a model of peft, with or without the backbone's dropout."""
    model.train(dropout)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=LEARNING_RATES["prompt"], weight_decay=0.0, fused=True)

    def step(batch: Batch) -> None:
        adam.zero_grad()
        model(**peft_inputs(batch, head)).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()

    return step


def with_autocast(step: Step, device: torch.device, dtype: torch.dtype) -> Step:
    """Return a step that computes in `dtype`; trained parameters stay in float32."""

    def cast_step(batch: Batch) -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            step(batch)

    return cast_step


def peft_inputs(batch: Batch, head: HeadKind) -> dict[str, Tensor]:
    """Convert a batch to the arguments of transformers' models.

    These take a label per token, or the first and last token of the answer.
    """
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_types,
    }
    if head == "positions":
        start, end = batch.positions.gather(1, batch.labels).unbind(1)
        return inputs | {"start_positions": start, "end_positions": end}
    mask = batch.position_mask
    labels = torch.full_like(batch.input_ids, IGNORE_INDEX)
    rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(batch.positions)
    labels[rows[mask], batch.positions[mask]] = batch.labels[mask]
    return inputs | {"labels": labels}
