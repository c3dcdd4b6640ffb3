"""Checks of deep prompts on every model family, against tests/support/references.py.

`make backbones` renders the table in docs/backbones.md from a run of this file: the docstring of a
test is the title of its column.
"""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.model import attention, family_attention
from pipeline.model.backbone import Backbone
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.model.prompt import DeepPrompt, LayerPrompts, stack_prompts
from pipeline.pretrained.families import FAMILIES, family_of
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.references import REFERENCES

TABLE = ROOT / "docs/backbones.md"
LENGTHS = [[7], [1], [6, 6, 6], [9, 4, 7, 1]]  # one row or several, with and without padding
# One family for each attention of `family_attention`; for the interface, causal or not.
ATTENTIONS = ("bert", "deberta", "deberta-v2", "llama", "mpnet")
ALL_FAMILIES = pytest.mark.parametrize("family", sorted(FAMILIES))


def texts(backbone: Backbone, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Random texts: ids, mask and token types."""
    return tiny.texts(lengths, pad_token_id=backbone.config.pad_token_id or 0)


def assert_close(actual: Tensor, expected: Tensor, mask: Tensor, tolerance: float = 1e-5) -> None:
    """Compare real tokens in float32, relative to the size of the states."""
    scale = max(1.0, float(expected.detach()[mask.bool()].abs().max()))
    torch.testing.assert_close(
        actual[mask.bool()] / scale, expected[mask.bool()] / scale, atol=tolerance, rtol=0.0
    )


def own_attention(family: str) -> str:
    """SDPA, unless the family defines its attention in eager mode only."""
    return "eager" if FAMILIES[family].route == "patched" or family == "gemma2" else "sdpa"


@ALL_FAMILIES
def test_hidden_states(family: str) -> None:
    """equals the reference"""
    backbone, reference = tiny.backbone(family), REFERENCES[family]
    prompt = tiny.prompt_for("deep", backbone)
    for lengths in LENGTHS:
        inputs = texts(backbone, lengths)
        mask = inputs[1]
        prompted, plain = backbone(*inputs, prompt()), backbone(*inputs)
        assert_close(prompted, reference(backbone.model, *inputs, prompt.key_values), mask)
        assert_close(plain, reference(backbone.model, *inputs), mask)
        # The prompt also reaches tokens outside of an attention window.
        changed = (prompted - plain).abs().amax(-1) > 1e-3
        assert changed[mask.bool()].all()


@ALL_FAMILIES
def test_gradients(family: str) -> None:
    """prompt gradients of every layer equal those of the reference"""
    backbone, reference = tiny.backbone(family), REFERENCES[family]
    prompt = tiny.prompt_for("deep", backbone)
    for lengths in LENGTHS:
        inputs = texts(backbone, lengths)
        actual = tiny.prompt_gradient(backbone(*inputs, prompt()), inputs[1], prompt)
        expected_hidden = reference(backbone.model, *inputs, prompt.key_values)
        expected = tiny.prompt_gradient(expected_hidden, inputs[1], prompt)
        scale = expected.abs().amax((1, 2, 3, 4), keepdim=True)
        assert (scale > 1e-4).all(), "the prompt of every layer has an effect"
        torch.testing.assert_close(actual / scale, expected / scale, atol=5e-5, rtol=0.0)


@ALL_FAMILIES
def test_empty_prompt(family: str) -> None:
    """P = 0 equals the plain model"""
    backbone = tiny.backbone(family)
    plain = tiny.model(family, attention=own_attention(family))
    empty = DeepPrompt(torch.zeros(backbone.prompt_shape(0)))
    for lengths in LENGTHS:
        ids, mask, types = inputs = texts(backbone, lengths)
        assert torch.equal(backbone(*inputs, empty()), backbone(*inputs))
        extra = {"token_type_ids": types} if backbone.token_types > 1 else {}
        expected = plain(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
        assert_close(backbone(*inputs), expected, mask, 2e-6)


@ALL_FAMILIES
def test_checkpointing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """gradient checkpointing gives the same gradients"""
    backbone = tiny.backbone(family)
    prompt, other = tiny.prompt_for("deep", backbone), tiny.prompt_for("deep", backbone, 5, seed=9)
    inputs = texts(backbone, [9, 4])
    expected = tiny.prompt_gradient(backbone(*inputs, prompt()), inputs[1], prompt)
    num_calls = 0
    inner = attention.masked_attention

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        return inner(*args, **kwargs)

    monkeypatch.setattr(attention, "masked_attention", counted)
    backbone.checkpoint_layers()
    backbone.checkpoint_layers()  # The second call changes nothing.
    actual = tiny.prompt_gradient(backbone(*inputs, prompt()), inputs[1], prompt)
    torch.testing.assert_close(actual, expected)
    assert num_calls == 2 * backbone.num_layers, "the backward pass computes each layer again"
    hidden = backbone(*inputs, prompt())
    backbone(*inputs, other())  # another forward pass before the backward pass
    torch.testing.assert_close(tiny.prompt_gradient(hidden, inputs[1], prompt), expected)


@ALL_FAMILIES
def test_compile(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """compiles without graph breaks, with equal outputs"""
    # Two layers have all kinds of layers of a family. The time is proportional to their number.
    monkeypatch.setitem(tiny.SIZES, "num_hidden_layers", 2)
    backbone = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", backbone)
    torch._dynamo.reset()
    cases = [("eager", True, [[6, 6], [9, 4]])]  # one graph for all lengths
    if family in ATTENTIONS:
        cases.append(("aot_eager", False, [[6, 6]]))  # the graph of the gradient too
    for backend, dynamic, batches in cases:
        compiled = torch.compile(
            lambda *inputs: backbone(*inputs, prompt()),
            fullgraph=True,
            dynamic=dynamic,
            backend=backend,
        )
        for lengths in batches:
            inputs = texts(backbone, lengths)
            assert_close(compiled(*inputs), backbone(*inputs, prompt()), inputs[1], 1e-6)


@ALL_FAMILIES
def test_bfloat16(family: str, tmp_path: Path) -> None:
    """loads and runs in bfloat16"""
    with quiet_transformers():
        tiny.model(family).save_pretrained(tmp_path)
    backbone = Backbone.load(tmp_path, precision="bfloat16")
    prompt = tiny.prompt_for("deep", backbone)
    inputs = texts(backbone, [40, 4])
    mask = inputs[1].bool()
    exact = tiny.backbone(family)(*inputs, prompt()).detach()[mask]
    hidden = backbone(*inputs, prompt())[mask]
    assert hidden.dtype == torch.bfloat16
    assert float((hidden.detach().float() - exact).norm() / exact.norm()) < 0.3
    (gradient,) = torch.autograd.grad(hidden.float().square().sum(), prompt.key_values)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    converted = tiny.backbone(family).convert(torch.bfloat16)
    assert torch.equal(converted(*inputs, prompt())[mask], hidden)


@ALL_FAMILIES
def test_mixed_batch(family: str) -> None:
    """a batch of rows with different prompts (lengths 4, 9, 0; upper layers) equals single rows"""
    backbone = tiny.backbone(family)
    upper = tiny.prompt_for("deep", backbone, 2, seed=8).key_values[1:]
    prompts = [
        tiny.prompt_for("deep", backbone, 4),
        tiny.prompt_for("deep", backbone, 9, seed=5),
        None,
        DeepPrompt(upper, first_layer=1),
    ]
    prompt_index = torch.tensor([1, 0, 2, 3, 1])
    for lengths in ([8, 8, 8, 8, 8], [9, 4, 7, 1, 5]):
        inputs = texts(backbone, lengths)
        mixed = backbone(*inputs, stack_prompts(prompts, prompt_index))
        for row, (index, length) in enumerate(zip(prompt_index.tolist(), lengths, strict=True)):
            row_inputs = [values[row : row + 1, :length] for values in inputs]
            prompt = prompts[index]
            single = backbone(*row_inputs, prompt and prompt())
            assert_close(mixed[row, :length], single[0], torch.ones(length))


@ALL_FAMILIES
def test_threads(family: str) -> None:
    """4 threads with one backbone get the states and gradients of their prompts"""
    backbone = tiny.backbone(family).requires_grad_(False)
    backbone.checkpoint_layers()
    inputs = texts(backbone, [9, 4])
    key_values = [tiny.prompt_for("deep", backbone, seed=seed).key_values for seed in range(3)]
    prompts = [DeepPrompt(values) for values in key_values]
    upper = DeepPrompt(key_values[0][1:], first_layer=1)
    cacheable = backbone.supports_lower_cache(upper())
    start = Barrier(4)

    def results(prompt: DeepPrompt | None) -> list[Tensor]:
        hidden = backbone(*inputs, prompt and prompt())
        if prompt is None:
            return [hidden]
        found = [hidden, tiny.prompt_gradient(hidden, inputs[1], prompt)]
        if cacheable:
            lower = backbone.lower_hidden_states(*inputs, upper())
            found.append(backbone(*inputs, upper(), cached_hidden=lower))
        return found

    def run(prompt: DeepPrompt | None) -> list[list[Tensor]]:
        start.wait()
        return [results(prompt) for _ in range(8)]

    requests = [*prompts, None]
    expected = [results(prompt) for prompt in requests]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(run, requests), expected, strict=True):
            torch.testing.assert_close(found, [alone] * 8)


def replica_of(module: nn.Module) -> nn.Module:
    """A replica as `torch.nn.parallel.replicate` makes it, with other weights."""
    replica = module._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
    for name, child in module.named_children():
        setattr(replica, name, replica_of(child))
    for name, parameter in module._parameters.items():
        setattr(replica, name, None if parameter is None else parameter * 1.1)
    assert isinstance(replica, nn.Module)
    return replica


@ALL_FAMILIES
def test_copies(family: str) -> None:
    """a copy, a replica, a second backbone and the inner model are independent of the first"""
    backbone = tiny.backbone(family).requires_grad_(False)
    backbone.checkpoint_layers()
    prompt, other = tiny.prompt_for("deep", backbone), tiny.prompt_for("deep", backbone, seed=9)
    inputs = texts(backbone, [9, 4])
    plain, prompted, under_other = (
        backbone(*inputs, *rest).detach() for rest in ((), (prompt(),), (other(),))
    )
    second, clone, replica = Backbone(backbone.model), copy.deepcopy(backbone), replica_of(backbone)
    restored = pickle.loads(pickle.dumps(backbone))
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.mul_(1.1)
    for _ in range(2):
        assert torch.equal(backbone(*inputs, prompt()), prompted)
        extra = {"token_type_ids": inputs[2]} if backbone.token_types > 1 else {}
        inner = backbone.model(input_ids=inputs[0], attention_mask=inputs[1], **extra)
        assert torch.equal(inner.last_hidden_state, plain)
        assert torch.equal(second(*inputs, other()), under_other)
        assert torch.equal(restored(*inputs, prompt()), prompted)
        changed = clone(*inputs, other())
        assert not torch.allclose(changed, under_other, atol=1e-2)
        assert_close(replica(*inputs, other()), changed, inputs[1])


@ALL_FAMILIES
def test_upper_layers(family: str) -> None:
    """a prompt in the upper layers only equals the reference, without a backward pass below"""
    backbone = tiny.backbone(family).requires_grad_(False)
    key_values = tiny.prompt_for("deep", backbone).key_values.detach()
    inputs = texts(backbone, [7, 4])
    prompt = DeepPrompt(key_values[2:], first_layer=2)
    query_requires_grad: list[bool] = []
    inner = attention.masked_attention

    def recording(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        query_requires_grad.append(query.requires_grad)
        return inner(module, query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "masked_attention", recording)
        hidden = backbone(*inputs, prompt())
    assert query_requires_grad == [False] * backbone.num_layers
    hidden[..., 0].sum().backward()
    assert prompt.key_values.grad is not None
    assert prompt.key_values.grad.abs().amax((1, 2, 3, 4)).gt(0).all()
    no_tokens = [layer[:, :, :0] for layer in key_values[:2]]
    expected = REFERENCES[family](backbone.model, *inputs, [*no_tokens, *key_values[2:]])
    assert_close(hidden, expected, inputs[1])


@ALL_FAMILIES
def test_position_offset(family: str) -> None:
    """position_offset, as in prompts of peft, equals the reference"""
    backbone = tiny.backbone(family)
    prompt = DeepPrompt(tiny.prompt_for("deep", backbone).key_values, position_offset=3)
    if FAMILIES[family].positions == "relative":
        pytest.skip("does not apply to relative positions")
    for lengths in ([7], [9, 4]):
        inputs = texts(backbone, lengths)
        expected = REFERENCES[family](backbone.model, *inputs, prompt.key_values, position_offset=3)
        assert_close(backbone(*inputs, prompt()), expected, inputs[1])


@ALL_FAMILIES
def test_all_positions(family: str) -> None:
    """a text can use all positions of the backbone"""
    backbone = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", backbone)
    max_length = tiny.SIZES["max_position_embeddings"] - FAMILIES[family].first_position
    inputs = texts(backbone, [max_length])
    expected = REFERENCES[family](backbone.model, *inputs, prompt.key_values)
    assert_close(backbone(*inputs, prompt()), expected, inputs[1], 2e-5)


@ALL_FAMILIES
def test_attach_checks(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fails to load if prompts do not reach every layer or have no effect"""
    inner = attention.attend

    def without_effect(*args: Any, deep_prompt: LayerPrompts | None = None, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    def without_layer_1(
        *args: Any, recorded_key_values: dict[int, Tensor] | None = None, **kwargs: Any
    ) -> Any:
        result = inner(*args, recorded_key_values=recorded_key_values, **kwargs)
        if recorded_key_values is not None:
            recorded_key_values.pop(1, None)
        return result

    messages = {
        without_effect: r"no effect in layers \[0, 1, 2\]",
        without_layer_1: r"reaches layers \[0, 2\]",
    }
    interface = attention.AttentionInterface._global_mapping
    for broken_attend, message in messages.items():
        if FAMILIES[family].route == "patched":
            monkeypatch.setattr(family_attention, "attend", broken_attend)
        else:
            monkeypatch.setitem(interface, attention.ATTENTION, broken_attend)
        with pytest.raises(UserError, match=message):
            tiny.backbone(family)


@ALL_FAMILIES
def test_attach_equalities(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fails to load if hidden states differ from its own attention, with padding, or from text"""
    inner, record = attention.attend, FAMILIES[family]

    def other_scale(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        return inner(module, 1.5 * query, *args, **kwargs)

    def no_padding(*args: Any, deep_prompt: LayerPrompts | None = None, **kwargs: Any) -> Any:
        module, query, key, value, mask = args
        if deep_prompt is not None and mask is not None and not record.causal:
            mask = torch.zeros_like(mask) if mask.dtype != torch.bool else torch.ones_like(mask)
        return inner(module, query, key, value, mask, deep_prompt=deep_prompt, **kwargs)

    def other_keys(*args: Any, deep_prompt: LayerPrompts | None = None, **kwargs: Any) -> Any:
        if deep_prompt is not None:
            deep_prompt = deep_prompt._replace(key_values=1.5 * deep_prompt.key_values)
        return inner(*args, deep_prompt=deep_prompt, **kwargs)

    messages = {
        other_scale: "without a prompt, the hidden states differ from those of its own attention",
        other_keys: "a text as a prompt differs from the text itself"
        if record.causal
        else "a prompt with the keys of the text itself has an effect",
    }
    if not record.causal:
        messages[no_padding] = "under a prompt, a padded text differs from the text alone"
    for broken_attend, message in messages.items():
        if record.route == "patched":
            monkeypatch.setattr(family_attention, "attend", broken_attend)
        else:
            interface = attention.AttentionInterface._global_mapping
            monkeypatch.setitem(interface, attention.ATTENTION, broken_attend)
        with pytest.raises(UserError, match=message):
            tiny.backbone(family)


@ALL_FAMILIES
def test_hooks_of_accelerate_are_refused(family: str) -> None:
    model = tiny.model(family)
    accelerate.hooks.add_hook_to_module(
        model.get_input_embeddings(), accelerate.hooks.AlignDevicesHook()
    )
    with pytest.raises(UserError, match=r"hooks of accelerate .* load it without device_map"):
        Backbone(model)
    accelerate.hooks.remove_hook_from_module(model, recurse=True)
    Backbone(model)


@pytest.mark.parametrize("family", ["fnet", "mamba", "rwkv"])
def test_a_family_without_attention_is_refused(family: str) -> None:
    with pytest.raises(UserError, match=f"do not work on '{family}' models") as caught:
        family_of(family)
    assert all(name in str(caught.value) for name in FAMILIES)


@ALL_FAMILIES
@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_another_attention_is_refused(family: str, other: str) -> None:
    if other == "sdpa":
        other = own_attention(family)
    with pytest.raises(UserError, match=f"its attention is '{other}', which ignores prompts"):
        Backbone(tiny.model(family, attention=other))


def test_committed_table_has_all_checks_and_no_failure() -> None:
    """`make backbones` renders the table; this test finds a table of other checks or families."""
    text = TABLE.read_text(encoding="utf-8")
    for name in FAMILIES:
        assert f"| {name} |" in text, f"{name} is missing: make backbones"
    checks = [
        value
        for name, value in globals().items()
        if name.startswith("test_") and hasattr(value, "pytestmark")
    ]
    for column in {check.__doc__ for check in checks} - {None}:
        assert column in text, f"{column!r} is missing: make backbones"
    assert "FAILED" not in text
