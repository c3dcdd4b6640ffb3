"""The ways to train that are compared: deep prompts of ours, full fine-tuning, and peft's prefix tuning."""

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

RATES = {"prompt": 0.01, "head": 0.001, "backbone": 1e-4}
Step = Callable[[Batch], object]


def ours(setting: Setting, corpus: Corpus, first_layer: int = 0) -> PromptedModel:
    """A deep prompt in the layers from `first_layer` on."""
    backbone = Backbone.load(setting.backbone)
    shape = backbone.prompt_shape(setting.virtual_tokens)
    values = (
        torch.randn(
            (shape[0] - first_layer, *shape[1:]), generator=torch.Generator().manual_seed(1)
        )
        * 0.1
    )
    return PromptedModel(
        backbone,
        DeepPrompt(values, first_layer=first_layer),
        _heads(backbone, corpus),
        train_backbone=False,
    )


def fine_tuned(setting: Setting, corpus: Corpus) -> PromptedModel:
    """The whole backbone."""
    backbone = Backbone.load(setting.backbone)
    return PromptedModel(backbone, None, _heads(backbone, corpus), train_backbone=True)


def _heads(backbone: Backbone, corpus: Corpus) -> Heads:
    return Heads([corpus.split.task.head], [len(corpus.split.classes)], backbone.hidden_size, 0)


def peft_model(setting: Setting, corpus: Corpus) -> Any:
    """Prefix tuning of peft at its defaults, in front of transformers' own class for the task."""
    tagging = corpus.split.task.head == "classes"
    auto = AutoModelForTokenClassification if tagging else AutoModelForQuestionAnswering
    stock = auto.from_pretrained(
        setting.backbone,
        local_files_only=True,
        **({"num_labels": len(corpus.split.classes)} if tagging else {}),
    )
    return peft.get_peft_model(
        stock,
        peft.PrefixTuningConfig(
            task_type="TOKEN_CLS" if tagging else "QUESTION_ANS",
            num_virtual_tokens=setting.virtual_tokens,
        ),
    )


def step_of(model: PromptedModel) -> Step:
    """Forward, backward, clipping and AdamW, as an arm of ours has it."""
    trained = model.trainable_state()
    adam = optimizer(trained.items(), {part: RATES[part] for part in _parts(model)}, 0.0)

    def step(batch: Batch) -> None:
        adam.zero_grad()
        model.heads.loss(model(batch), batch).backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        adam.step()

    return step


def _parts(model: PromptedModel) -> tuple[str, ...]:
    return ("backbone", "head") if model.prompt is None else ("prompt", "head")


def peft_step(model: Any, head: HeadKind, dropout: bool = True) -> Step:
    """The same with peft's model: in training mode, which has the backbone's dropout, or without."""
    model.train(dropout)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=RATES["prompt"], weight_decay=0.0, fused=True)

    def step(batch: Batch) -> None:
        adam.zero_grad()
        model(**peft_inputs(batch, head)).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()

    return step


def peft_inputs(batch: Batch, head: HeadKind) -> dict[str, Tensor]:
    """A batch as transformers' classes take it: a label for each token, or the tokens where the answer starts and ends."""
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_types,
    }
    if head == "positions":
        start, end = batch.positions.gather(1, batch.labels).unbind(1)
        return inputs | {"start_positions": start, "end_positions": end}
    labels = torch.full_like(batch.input_ids, IGNORE_INDEX)
    rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(batch.positions)
    labels[rows[batch.position_mask], batch.positions[batch.position_mask]] = batch.labels[
        batch.position_mask
    ]
    return inputs | {"labels": labels}
