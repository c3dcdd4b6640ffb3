"""A predictor under other prompts, and the attention to its prompts: probes of single rows."""

from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.inference.predictor import Predictor
from pipeline.model.attention import PromptAttention
from pipeline.model.attention_mass import AttentionMass
from pipeline.model.prompt import PromptBank
from pipeline.tasks.base.row import Row


def prompt_numbers(predictor: Predictor) -> dict[str, int | None]:
    """The number of the prompt of each task; equal numbers are the same prompt.

    None for all tasks of a predictor without deep prompts.
    """
    bank = predictor.model.prompt
    if not isinstance(bank, PromptBank) or bank.key_values is None:
        return dict.fromkeys(predictor.tasks)
    return dict(zip(predictor.tasks, bank.prompt_of_task.tolist(), strict=True))


def with_prompt_of(predictor: Predictor, task: str | None) -> Predictor:
    """A predictor whose tasks all have the prompt of `task` (None: no prompt).

    It shares backbone and heads with `predictor`, which must have deep prompts.
    """
    bank = predictor.model.prompt
    assert isinstance(bank, PromptBank)
    variant = Predictor(
        predictor.model.backbone,
        predictor.tokenizer,
        predictor.tasks,
        [None] * len(predictor.tasks),
        predictor.model.heads,
        list(predictor.windows.values()),
        predictor.device,
    )
    if task is not None:
        variant.model.prompt = _only(bank, list(predictor.tasks).index(task))
    return variant


def _only(bank: PromptBank, task: int) -> PromptBank:
    """A bank in which all tasks have the prompt of one of them."""
    copy = PromptBank([])
    copy.first_layer = bank.first_layer
    for name, buffer in bank.named_buffers():
        setattr(copy, name, buffer)
    copy.prompt_of_task = torch.full_like(bank.prompt_of_task, int(bank.prompt_of_task[task]))
    return copy


def attention_to_prompt(predictor: Predictor, row: Row) -> dict[int, list[float]]:
    """Layer -> for each head, the share of attention on the prompt, averaged over the row's tokens.

    Empty without a deep prompt. Raises UserError if the row is not valid, or if its task generates
    text or ranks candidates. No other thread may use the backbone at the same time.
    """
    attention = AttentionMass()
    masses: PromptAttention = {}

    def record(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        masses.clear()
        return args, {**kwargs, "prompt_attention": masses}

    def add(_module: Any, args: Any, _output: Any) -> None:
        attention.add(masses, backbone.query_masks(*args[1:3]))

    backbone = predictor.model.backbone
    hooks = (
        backbone.register_forward_pre_hook(record, with_kwargs=True),
        backbone.register_forward_hook(add),
    )
    try:
        list(predictor.predict([row]))
    finally:
        for hook in hooks:
            hook.remove()
    mean = attention.mean()
    if not mean and None not in prompt_numbers(predictor).values():
        raise UserError(
            f"{row.get('where', 'row')}: the attention on the prompt is not recorded while a text "
            "is generated or candidates are ranked; give a row of another task"
        )
    return mean
