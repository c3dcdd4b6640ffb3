"""Probing of a trained model: new examples, attention to the deep prompt, ablation by layer."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureTable, write_features
from pipeline.mixing.batches import collate, sorted_rows
from pipeline.model.attention import PromptAttention
from pipeline.model.attention_mass import AttentionMass
from pipeline.model.prompt import DeepPrompt, LayerPrompts
from pipeline.model.prompted_model import PromptedModel, eval_mode
from pipeline.pretrained.tokenizer import Tokenizer


@contextmanager
def featurized(
    examples: Sequence[Any], template: EvalSet, tokenizer: Tokenizer, max_length: int, stride: int
) -> Iterator[EvalSet]:
    """Within the context, an evaluation set of other examples of the task of `template`.

    Their features are in a temporary folder.
    """
    task, classes = template.task, template.classes
    with TemporaryDirectory() as folder:
        path = Path(folder, "features")
        write_features(
            task.featurize(examples, 0, tokenizer, classes, max_length, stride, Counter()), path
        )
        table = FeatureTable(path)
        yield EvalSet(task, classes, examples, table, np.arange(len(table)))


def input_bytes(split: EvalSet) -> list[bytes]:
    """The backbone's input for each example: the token ids of its windows, as bytes."""
    inputs: dict[int, bytes] = {}
    for row in split.rows:
        number = int(split.table.examples[row])
        inputs[number] = (
            inputs.get(number, b"") + b"|" + split.table.column("input_ids", int(row)).tobytes()
        )
    return list(inputs.values())


@contextmanager
def without_layer(prompt: DeepPrompt, layer: int) -> Iterator[None]:
    """Within the context, hide the prompt from layer `layer` of the backbone."""
    hook = prompt.register_forward_hook(lambda _module, _inputs, output: _hide(output, layer))
    try:
        yield
    finally:
        hook.remove()


def _hide(prompts: LayerPrompts, layer: int) -> LayerPrompts:
    """The prompts with all virtual tokens masked in one layer, without its scales and shifts."""
    count, layers, _, _, tokens, _ = prompts.key_values.shape
    mask = prompts.token_mask
    if mask is None:
        mask = prompts.key_values.new_ones(count, layers, tokens, dtype=torch.bool)
    visible = torch.arange(layers, device=mask.device) != layer - prompts.first_layer
    scale_shift = prompts.scale_shift
    if scale_shift is not None:
        scale_shift = scale_shift * visible[:, None, None]
    return prompts._replace(token_mask=mask & visible[:, None], scale_shift=scale_shift)


def attention_mass(
    model: PromptedModel, split: EvalSet, pad_token_id: int, batch_tokens: int = 2048
) -> dict[int, list[float]]:
    """Layer -> for each head, the share of attention on the deep prompt, averaged over real tokens.

    Uniform attention would give P / (P + T) for P virtual and T real tokens. `model` must have a
    deep prompt.
    """
    assert isinstance(model.prompt, DeepPrompt)
    device, attention = next(model.parameters()).device, AttentionMass()
    with torch.no_grad(), eval_mode(model):
        for rows in sorted_rows(split.table, split.rows, batch_tokens):
            batch = collate(split.table, rows, 0, pad_token_id).to(device)
            prompt_attention: PromptAttention = {}
            model.backbone(
                batch.input_ids,
                batch.attention_mask,
                batch.token_types,
                model.prompt(0),
                prompt_attention,
            )
            masks = model.backbone.query_masks(batch.attention_mask, batch.token_types)
            attention.add(prompt_attention, masks)
    return attention.mean()


def tuning_change(prompt: DeepPrompt, start: DeepPrompt) -> DeepPrompt:
    """The difference between a tuned prompt and its initialization.

    This is a task vector (Ilharco et al., ICLR 2023).
    """
    assert (prompt.shape, prompt.first_layer) == (start.shape, start.first_layer), (
        "tuning keeps the shape of a prompt"
    )
    return DeepPrompt(prompt.materialize() - start.materialize(), first_layer=prompt.first_layer)


def cosines(first: DeepPrompt, second: DeepPrompt) -> dict[int, float]:
    """Layer -> the cosine of the keys and values of two prompts, flattened to one vector.

    Covers the layers of both prompts. Empty if their numbers of virtual tokens differ. Token i is
    compared with token i, so the cosine is meaningful only for prompts with a shared
    initialization.
    """
    if first.num_virtual_tokens != second.num_virtual_tokens:
        return {}
    left, right = (
        {
            prompt.first_layer + index: layer.detach().double().flatten()
            for index, layer in enumerate(prompt.materialize())
        }
        for prompt in (first, second)
    )
    shared = sorted(left.keys() & right.keys())
    return {
        layer: float(torch.cosine_similarity(left[layer], right[layer], dim=0)) for layer in shared
    }
