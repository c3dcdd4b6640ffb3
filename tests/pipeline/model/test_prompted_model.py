"""The trained parameters of each arm, and its loss compared with a calculation by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.arms import ARMS, ArmName
from pipeline.mixing.batches import Batch, collate
from pipeline.model.heads import Heads
from pipeline.model.prompt import (
    DeepPrompt,
    PromptBank,
    SoftPrompt,
    normal_key_values,
    without_values,
)
from pipeline.model.prompted_model import PromptedModel, part_of
from pipeline.seeding import Ints
from tests.support import tiny

HEADS = {"heads.weight", "heads.bias"}
EACH_ARM = pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if arm.parts])


def batch(folder: Path, kind: str, rows: Ints | None = None, task: int | None = None) -> Batch:
    table = tiny.table(folder, kind, 12, 3)
    return collate(
        table,
        np.arange(6) if rows is None else rows,
        (0 if kind == "classes" else 1) if task is None else task,
        0,
    )


@EACH_ARM
def test_each_arm_trains_its_parameters(arm: ArmName) -> None:
    model = tiny.prompted(arm)
    prompts = {"deep": {"prompt.key_values"}, "soft": {"prompt.vectors"}, None: set[str]()}
    backbone = {f"backbone.model.{name}" for name, _ in model.backbone.model.named_parameters()}
    assert len(backbone) > 40
    inside = {
        "fine_tune": backbone,
        "lora": {name for name in backbone if ".lora_" in name},
    }
    assert set(model.trainable_state()) == (
        prompts[ARMS[arm].prompt] | HEADS | inside.get(arm, set())
    )
    assert list(model.trainable_state()) == list(tiny.prompted(arm).trainable_state())
    assert {part_of(name) for name in model.trainable_state()} == {*ARMS[arm].parts}


@EACH_ARM
@pytest.mark.parametrize("kind", ["classes", "positions"])
def test_every_trained_parameter_has_a_gradient_in_every_batch(
    arm: ArmName, kind: str, tmp_path: Path
) -> None:
    """This holds also for batches of a single task.

    Ranks average gradients, so ranks with different tasks need the same set of gradients.
    """
    model = tiny.prompted(arm)
    task_batch = batch(tmp_path, kind)
    model.heads.loss(model(task_batch), task_batch).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in model.trainable_state()), name
    gradient = model.heads.weight.grad
    assert gradient is not None
    task, other_task = (0, 1) if kind == "classes" else (1, 0)
    assert (gradient[task, : model.heads.classes[task]].abs().amax(-1) > 0).all()
    assert not gradient[other_task].any()
    if kind == "positions":
        assert not gradient[1, 2].any(), "the third class is padding"
        assert not model.heads.bias.grad.any(), (
            "the bias shifts all positions equally: its gradient would only be rounding errors"
        )


@pytest.mark.parametrize("arm", ["multitask", "deep_prompt", "soft_prompt", "head_only"])
def test_the_frozen_backbone_keeps_its_bytes(arm: ArmName, tmp_path: Path) -> None:
    model = tiny.prompted(arm)
    before = {name: value.numpy().tobytes() for name, value in model.backbone.state_dict().items()}
    trained = {name: value.detach().clone() for name, value in model.trainable_state().items()}
    adam = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for kind in ("classes", "positions", "classes"):
        task_batch = batch(tmp_path, kind)
        adam.zero_grad()
        model.heads.loss(model(task_batch), task_batch).backward()
        adam.step()
    assert {
        name: value.numpy().tobytes() for name, value in model.backbone.state_dict().items()
    } == before
    assert all(
        not torch.equal(value, trained[name]) for name, value in model.trainable_state().items()
    )


def test_the_loss_of_classes_equals_a_manual_calculation(tmp_path: Path) -> None:
    model = tiny.prompted("deep_prompt")
    task_batch = batch(tmp_path, "classes")
    logits = model(task_batch).detach()
    hidden = model.backbone(
        task_batch.input_ids, task_batch.attention_mask, task_batch.token_types, model.prompt()
    )
    expected = 0.0
    for row in range(6):
        for at in range(int(task_batch.position_mask[row].sum())):
            state = hidden[row, int(task_batch.positions[row, at])].detach()
            scores = (
                model.heads.weight[0].detach() @ state + model.heads.bias[0].detach()
            ).tolist()
            torch.testing.assert_close(logits[row, at], torch.tensor(scores), atol=1e-5, rtol=1e-5)
            expected += (
                math.log(sum(map(math.exp, scores))) - scores[int(task_batch.labels[row, at])]
            )
    assert model.heads.loss(model(task_batch), task_batch).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_the_loss_of_spans_equals_a_manual_calculation(tmp_path: Path) -> None:
    model = tiny.prompted("deep_prompt")
    task_batch = batch(tmp_path, "positions")
    logits = model(task_batch).detach()
    assert logits.shape == (*task_batch.positions.shape, 2)
    expected = 0.0
    for row in range(6):
        for end in (0, 1):
            scores = logits[row, : int(task_batch.position_mask[row].sum()), end].tolist()
            expected += (
                math.log(sum(map(math.exp, scores))) - scores[int(task_batch.labels[row, end])]
            ) / 2
    assert not task_batch.position_mask.all(), (
        "some rows are padded, and padding is not a candidate"
    )
    assert model.heads.loss(model(task_batch), task_batch).item() == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("kind", ["classes", "positions"])
def test_the_loss_of_a_row_does_not_depend_on_its_batch(kind: str, tmp_path: Path) -> None:
    model = tiny.prompted("deep_prompt")
    together = batch(tmp_path, kind)
    alone = [batch(tmp_path, kind, np.array([row])) for row in range(6)]
    total = sum(model.heads.loss(model(one), one).item() for one in alone)
    assert model.heads.loss(model(together), together).item() == pytest.approx(total, rel=1e-5)


def test_padding_classes_have_no_logits() -> None:
    heads = Heads(["classes", "positions"], [5, 2], 4, seed=0)
    assert heads.weight.shape == (2, 5, 4)
    with torch.no_grad():
        heads.bias[1, 2:] = 1e9
    assert heads(torch.randn(3, 7, 4), 0).shape == (3, 7, 5)
    assert heads(torch.randn(3, 7, 4), 1).shape == (3, 7, 2)


def test_rows_of_mixed_tasks_have_the_logits_of_their_head() -> None:
    heads = Heads(["classes", "positions"], [5, 2], 4, seed=0)
    torch.nn.init.normal_(heads.bias)
    hidden, tasks = torch.randn(4, 7, 4), torch.tensor([1, 0, 0, 1])
    mixed = heads(hidden, tasks)
    assert mixed.shape == (4, 7, 5)
    for row, task in enumerate(tasks.tolist()):
        alone = heads(hidden[row : row + 1], task)[0]
        torch.testing.assert_close(mixed[row, :, : heads.classes[task]], alone)


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_of_mixed_tasks_equals_each_task_alone(count: int, tmp_path: Path) -> None:
    """This holds with one prompt for all tasks, and with prompts of different lengths per task."""
    base = tiny.prompted("deep_prompt")
    prompts = [tiny.prompt_for("deep", base.backbone, 3 + 2 * n, seed=n) for n in range(count)]
    table, tasks = tiny.table(tmp_path, "positions", 12, 3), torch.tensor([1, 0, 0, 1, 0, 1])
    deep = [prompt for prompt in prompts if isinstance(prompt, DeepPrompt)]
    bank = PromptBank([deep[0], deep[-1]])
    model = PromptedModel(base.backbone, bank, base.heads, train_backbone=False)
    whole = collate(table, np.arange(6), tasks, 0)
    mixed = model(whole)
    for task, prompt in ((0, deep[0]), (1, deep[-1])):
        rows = np.flatnonzero(tasks.numpy() == task)
        task_batch = collate(table, rows, task, 0)
        alone = PromptedModel(base.backbone, prompt, base.heads, train_backbone=False)(task_batch)
        found = mixed[rows, : alone.shape[1], : alone.shape[2]]
        torch.testing.assert_close(
            found[task_batch.position_mask], alone[task_batch.position_mask], atol=1e-5, rtol=1e-5
        )
    with pytest.raises(AssertionError, match="mixes tasks"):
        model.heads.loss(mixed, whole)


def test_the_seed_determines_the_initial_heads() -> None:
    first = Heads(["classes"], [5], 4, seed=3)
    assert torch.equal(first.weight, Heads(["classes"], [5], 4, seed=3).weight)
    assert not torch.equal(first.weight, Heads(["classes"], [5], 4, seed=4).weight)
    assert not first.bias.any()


def test_a_saved_state_is_restored() -> None:
    first, second = tiny.prompted("deep_prompt", seed=0), tiny.prompted("deep_prompt", seed=1)
    second.load_trainable_state(
        {name: value.detach().clone() for name, value in first.trainable_state().items()}
    )
    for name, value in first.trainable_state().items():
        assert torch.equal(value, second.trainable_state()[name])
    with pytest.raises(AssertionError, match="another arm"):
        tiny.prompted("soft_prompt").load_trainable_state(dict(first.trainable_state()))


def test_a_prompt_copies_its_initial_values() -> None:
    values = torch.zeros(3, 2, 4, 5, 4)
    deep, soft = DeepPrompt(values), SoftPrompt(values[0, 0, 0])
    assert (deep.num_virtual_tokens, soft.num_virtual_tokens) == (5, 5)
    with torch.no_grad():
        deep.key_values.add_(1)
        soft.vectors.add_(1)
    assert not values.any()


def test_initial_key_values_of_each_kind() -> None:
    text = torch.randn(3, 2, 4, 5, 4)
    zero = without_values(text)
    assert torch.equal(zero[:, 0], text[:, 0])
    assert not zero[:, 1].any()
    assert text[:, 1].all(), "the text's keys and values stay"
    normal = normal_key_values((12, 2, 8, 32, 16), 5)
    assert (float(normal.std()), float(normal.mean())) == pytest.approx((0.02, 0.0), abs=1e-3)
    assert torch.equal(normal, normal_key_values((12, 2, 8, 32, 16), 5))
    assert not torch.equal(normal, normal_key_values((12, 2, 8, 32, 16), 6))


def test_a_frozen_backbone_requires_no_gradient() -> None:
    assert not any(
        parameter.requires_grad for parameter in tiny.prompted("deep_prompt").backbone.parameters()
    )
    model: PromptedModel = tiny.prompted("fine_tune")
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


def test_a_verbalizer_reads_the_lm_head_and_trains_only_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.prompted("deep_prompt")
    monkeypatch.setattr(
        base.backbone, "word_logits", lambda hidden, words: hidden[..., list(words)]
    )
    heads = Heads(["verbalizer"], [3], 16, seed=0, label_token_ids=[[4, 2, 7]])
    model = PromptedModel(base.backbone, base.prompt, heads, train_backbone=False)
    task_batch = batch(tmp_path, "classes")
    logits = model(task_batch)
    assert isinstance(model.prompt, DeepPrompt)
    hidden = model.backbone(
        task_batch.input_ids, task_batch.attention_mask, task_batch.token_types, model.prompt()
    )
    read = hidden.gather(1, task_batch.positions.unsqueeze(-1).expand(-1, -1, 16))
    torch.testing.assert_close(logits, read[..., [4, 2, 7]])
    heads.loss(logits, task_batch).backward()
    assert heads.weight.grad is not None
    assert not heads.weight.grad.any(), "ranks average this gradient, so it exists; it is 0"
    assert model.prompt.key_values.grad is not None
    assert model.prompt.key_values.grad.any()


@pytest.mark.parametrize("arm", ["multitask", "soft_prompt", "lora", "fine_tune"])
def test_a_language_model_is_trained_on_the_tokens_at_its_positions(
    arm: ArmName, tmp_path: Path
) -> None:
    model = tiny.prompted(arm, "gpt2", second="language_model")
    task_batch = batch(tmp_path, "language_model", task=1)
    logits = model(task_batch)
    assert logits.shape == (*task_batch.positions.shape, tiny.VOCABULARY)
    loss = model.heads.loss(logits, task_batch)
    expected = 0.0
    for row, ids in enumerate(task_batch.input_ids):
        length = int(task_batch.attention_mask[row].sum())
        target = [*ids[3:length].tolist(), tiny.END]
        probabilities = logits[row].detach().log_softmax(-1)
        expected -= sum(float(probabilities[i, token]) for i, token in enumerate(target))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    for name, parameter in model.trainable_state().items():
        assert parameter.grad is not None, name
        # LoRA's B starts at 0, so A has no gradient yet.
        moves = not name.startswith("heads.") and ".lora_A." not in name
        assert bool(parameter.grad.any()) == moves, name
    lm_head = {name for name in model.trainable_state() if ".lm_head." in name}
    assert not lm_head, "GPT-2 ties its LM head to the embeddings"
