"""Every family x every check: a deep prompt against references written by hand from the weights (tests/support/references.py).

`make backbones` renders the table in docs/backbones.md from a run of this file: a test's docstring is its column.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model import attention
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt, LayerPrompts, stack_prompts
from pipeline.pretrained.families import FAMILIES, family_of
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.references import REFERENCES

TABLE = ROOT / "docs/backbones.md"
LENGTHS = [[7], [1], [6, 6, 6], [9, 4, 7, 1]]  # one row and many, padded and not
EVERY = pytest.mark.parametrize("family", sorted(FAMILIES))


def texts(made: Backbone, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    return tiny.texts(lengths, pad_token_id=made.config.pad_token_id or 0)


def assert_close(found: Tensor, expected: Tensor, mask: Tensor, tolerance: float = 1e-5) -> None:
    """Float32 tolerance, relative to how large the states are."""
    scale = max(1.0, float(expected.detach()[mask.bool()].abs().max()))
    torch.testing.assert_close(
        found[mask.bool()] / scale, expected[mask.bool()] / scale, atol=tolerance, rtol=0.0
    )


def gradient_of(made: Backbone, inputs: tuple[Tensor, ...], prompt: DeepPrompt) -> Tensor:
    hidden = made(*inputs, prompt())
    direction = (
        torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)) * inputs[1][..., None]
    )
    return torch.autograd.grad((hidden * direction).sum(), prompt.key_values)[0]


@EVERY
def test_reference(family: str) -> None:
    """equals the reference"""
    made = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", made)
    for lengths in LENGTHS:
        inputs = texts(made, lengths)
        found, plain = made(*inputs, prompt()), made(*inputs)
        assert_close(found, REFERENCES[family](made.model, *inputs, prompt.key_values), inputs[1])
        assert_close(plain, REFERENCES[family](made.model, *inputs), inputs[1])
        moved = (found - plain).abs().amax(-1) > 1e-3
        assert moved[inputs[1].bool()].all(), (
            "the prompt reaches every token, also past a window of attention"
        )


@EVERY
def test_gradients(family: str) -> None:
    """gradients of every layer's prompt equal the reference's"""
    made = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", made)
    for lengths in LENGTHS:
        inputs = texts(made, lengths)
        found = gradient_of(made, inputs, prompt)
        reference = REFERENCES[family](made.model, *inputs, prompt.key_values)
        direction = (
            torch.randn(reference.shape, generator=torch.Generator().manual_seed(3))
            * inputs[1][..., None]
        )
        (expected,) = torch.autograd.grad((reference * direction).sum(), prompt.key_values)
        scale = expected.abs().amax((1, 2, 3, 4), keepdim=True)
        assert (scale > 1e-4).all(), "every layer's prompt counts"
        torch.testing.assert_close(found / scale, expected / scale, atol=5e-5, rtol=0.0)


@EVERY
def test_no_prompt(family: str) -> None:
    """P = 0 is exactly the plain model"""
    made = tiny.backbone(family)
    stock = tiny.model(family, attention="eager" if FAMILIES[family].route == "patched" else "sdpa")
    for lengths in LENGTHS:
        inputs = texts(made, lengths)
        empty = DeepPrompt(torch.zeros(made.prompt_shape(0)))
        assert torch.equal(made(*inputs, empty()), made(*inputs))
        extra = {"token_type_ids": inputs[2]} if made.token_types > 1 else {}
        found = stock(input_ids=inputs[0], attention_mask=inputs[1], **extra).last_hidden_state
        assert_close(made(*inputs), found, inputs[1], 2e-6)


@EVERY
def test_checkpointing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """gradient checkpointing gives the same gradients"""
    made = tiny.backbone(family)
    prompt, other = tiny.prompt_for("deep", made), tiny.prompt_for("deep", made, 5, seed=9)
    inputs = texts(made, [9, 4])
    plain = gradient_of(made, inputs, prompt)
    calls = []
    inner = attention.sdpa_attention_forward
    monkeypatch.setattr(
        attention,
        "sdpa_attention_forward",
        lambda *args, **kwargs: calls.append(1) or inner(*args, **kwargs),
    )
    made.checkpoint_layers()
    torch.testing.assert_close(gradient_of(made, inputs, prompt), plain)
    assert len(calls) == 2 * made.num_layers, "each layer is computed again for the backward"
    hidden = made(*inputs, prompt())
    made(*inputs, other())  # another forward before the backward
    direction = (
        torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)) * inputs[1][..., None]
    )
    torch.testing.assert_close(
        torch.autograd.grad((hidden * direction).sum(), prompt.key_values)[0], plain
    )


@EVERY
def test_compile(family: str) -> None:
    """compiles without graph breaks, to the same outputs"""
    made = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", made)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *inputs: made(*inputs, prompt()), fullgraph=True, backend="aot_eager"
    )
    for lengths in ([6, 6], [9, 4]):
        inputs = texts(made, lengths)
        assert_close(compiled(*inputs), made(*inputs, prompt()), inputs[1], 1e-6)


@EVERY
def test_bfloat16(family: str) -> None:
    """runs in bfloat16"""
    made = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", made)
    inputs = texts(made, [9, 4])
    exact = made(*inputs, prompt())
    rough = made.to(torch.bfloat16)(*inputs, prompt())
    assert rough.dtype == torch.bfloat16
    real = inputs[1].bool()
    assert float((rough.float() - exact).detach()[real].norm() / exact.detach()[real].norm()) < 0.3
    gradient = torch.autograd.grad(rough[real].float().square().sum(), prompt.key_values)[0]
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()


@EVERY
def test_mixed_batch(family: str) -> None:
    """one batch with prompts of lengths 4, 9, 0 and of upper layers only equals one row at a time"""
    made = tiny.backbone(family)
    upper = tiny.prompt_for("deep", made, 2, seed=8).key_values[1:]
    prompts = [
        tiny.prompt_for("deep", made, 4),
        tiny.prompt_for("deep", made, 9, seed=5),
        None,
        DeepPrompt(upper, first_layer=1),
    ]
    rows = torch.tensor([1, 0, 2, 3, 1])
    for lengths in ([8, 8, 8, 8, 8], [9, 4, 7, 1, 5]):
        inputs = texts(made, lengths)
        mixed = made(*inputs, stack_prompts(prompts, rows))
        for row, number in enumerate(rows.tolist()):
            cut = slice(row, row + 1), slice(0, lengths[row])
            own = prompts[number]
            alone = made(*(values[cut] for values in inputs), own and own())
            assert_close(mixed[row, : lengths[row]], alone[0], torch.ones(lengths[row]))


@EVERY
def test_upper_layers(family: str) -> None:
    """a prompt of the top layers alone: as the reference, and no backward below"""
    made = tiny.backbone(family).requires_grad_(False)
    whole = tiny.prompt_for("deep", made).key_values.detach()
    inputs = texts(made, [7, 4])
    prompt = DeepPrompt(whole[2:], first_layer=2)
    graph: dict[int, bool] = {}
    inner = attention.sdpa_attention_forward

    def watched(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        graph[len(graph)] = query.requires_grad
        return inner(module, query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "sdpa_attention_forward", watched)
        hidden = made(*inputs, prompt())
    assert graph == dict.fromkeys(range(made.num_layers), False), (
        "what enters the first layer with a prompt has no history"
    )
    hidden[..., 0].sum().backward()
    assert prompt.key_values.grad is not None
    assert prompt.key_values.grad.abs().amax((1, 2, 3, 4)).gt(0).all()
    expected = REFERENCES[family](made.model, *inputs, _only(whole, 2, made))
    assert_close(hidden, expected, inputs[1])


def _only(whole: Tensor, first: int, made: Backbone) -> Any:
    """The reference's prompt for the layers from `first` on: below, it has no virtual token."""
    return [
        whole[layer] if layer >= first else whole[layer][:, :, :0]
        for layer in range(made.num_layers)
    ]


@EVERY
def test_shifted_positions(family: str) -> None:
    """position_offset as peft's prompts have it (absolute and rotary positions)"""
    made = tiny.backbone(family)
    prompt = DeepPrompt(tiny.prompt_for("deep", made).key_values, position_offset=3)
    if FAMILIES[family].positions == "relative":
        pytest.skip("positions are relative: nothing can shift them")
    for lengths in ([7], [9, 4]):
        inputs = texts(made, lengths)
        expected = REFERENCES[family](made.model, *inputs, prompt.key_values, position_offset=3)
        assert_close(made(*inputs, prompt()), expected, inputs[1])


@EVERY
def test_whole_context(family: str) -> None:
    """a text as long as the backbone has positions keeps them all"""
    made = tiny.backbone(family)
    prompt = tiny.prompt_for("deep", made)
    room = 64 - FAMILIES[family].first_position
    inputs = texts(made, [room])
    assert_close(
        made(*inputs, prompt()),
        REFERENCES[family](made.model, *inputs, prompt.key_values),
        inputs[1],
        2e-5,
    )


@EVERY
def test_attach_guards(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """refused at attach where prompts do not reach every layer, or have no effect"""

    def deaf(*args: Any, deep_prompt: LayerPrompts | None = None, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    def forgetful(
        *args: Any, recorded_key_values: dict[int, Tensor] | None = None, **kwargs: Any
    ) -> Any:
        result = inner(*args, recorded_key_values=recorded_key_values, **kwargs)
        if recorded_key_values is not None:
            recorded_key_values.pop(1, None)
        return result

    inner = attention.attend
    for stand_in, message in (
        (deaf, r"no effect in layers \[0, 1, 2\]"),
        (forgetful, r"reaches layers \[0, 2\]"),
    ):
        if FAMILIES[family].route == "patched":
            monkeypatch.setattr(attention, "attend", stand_in)
            with pytest.raises(UserError, match=message):
                tiny.backbone(family)
        else:
            monkeypatch.setitem(
                attention.AttentionInterface._global_mapping, attention.ATTENTION, stand_in
            )
            with pytest.raises(UserError, match=message):
                tiny.backbone(family)


@pytest.mark.parametrize("family", ["t5", "bart", "bloom", "nomic_bert"])
def test_refused(family: str) -> None:
    """not supported"""
    with pytest.raises(UserError, match=f"do not work on '{family}' models") as caught:
        family_of(family)
    assert all(name in str(caught.value) for name in FAMILIES)


@EVERY
@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_another_attention_is_refused(family: str, other: str) -> None:
    if other == "sdpa" and FAMILIES[family].route == "patched":
        other = "eager"
    with pytest.raises(UserError, match=f"its attention is '{other}', which ignores prompts"):
        Backbone(tiny.model(family, attention=other))


def test_the_committed_table_is_of_these_checks() -> None:
    """Rendered by `make backbones`, not typed: here only that it is not of older checks, and has no failure."""
    text = TABLE.read_text(encoding="utf-8")
    for name in FAMILIES:
        assert f"| {name} |" in text, f"{name} is missing: make backbones"
    checks = [
        value
        for name, value in globals().items()
        if name.startswith("test_") and hasattr(value, "pytestmark")
    ]
    for column in {check.__doc__ for check in checks} - {None, "not supported"}:
        assert column in text, f"{column!r} is missing: make backbones"
    assert "FAILED" not in text
