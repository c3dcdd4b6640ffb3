"""The cache of lower hidden states: a forward pass from it equals the full forward pass.

This holds for every family except those with shared layers, which are refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from pipeline.distributed.cluster import Ranks
from pipeline.distributed.process_group import process_group
from pipeline.errors import Stopped, UserError
from pipeline.features.table import FeatureTable
from pipeline.mixing.batches import Batch, collate
from pipeline.model import attention
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams
from pipeline.pretrained.families import FAMILIES
from pipeline.training.hidden_state_cache import HiddenStateCache, make_hidden_state_cache
from pipeline.training.setup import check_hidden_state_cache
from pipeline.training.trainer import _stop_caching
from tests.support import tiny

# ALBERT calls one layer several times; the first layer of T5 hands a bias to the others.
UNCACHEABLE_FAMILIES = ["albert", "mt5", "t5"]
CACHEABLE_FAMILIES = sorted(FAMILIES.keys() - UNCACHEABLE_FAMILIES)
CPU = torch.device("cpu")
ROWS = [[3], [0, 1, 2, 3, 4], [20, 7, 11]]  # of the table; batches of several rows are padded


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FeatureTable:
    return tiny.table(tmp_path_factory.mktemp("tables"), "classes", 40, 1)


def model_of(family: str, first: int = 1, offset: int = 0) -> PromptedModel:
    """A tiny model with a prompt from layer `first` on."""
    model = tiny.prompted("multitask", family)
    model.prompt = DeepPrompt(
        model.prompt.key_values[first:], first_layer=first, position_offset=offset
    )
    return model


def make_cache(model: PromptedModel, table: FeatureTable, folder: Path) -> HiddenStateCache:
    return HiddenStateCache(
        model, table, np.arange(len(table)), 0, pad_token_id_of(model), folder, CPU
    )


def pad_token_id_of(model: PromptedModel) -> int:
    return model.backbone.config.pad_token_id or 0


def batches(model: PromptedModel, table: FeatureTable) -> list[Batch]:
    return [collate(table, np.array(rows), 0, pad_token_id_of(model)) for rows in ROWS]


def loss_and_gradients(model: PromptedModel, batch: Batch) -> tuple[Tensor, ...]:
    """The loss and its gradients."""
    loss = model.heads.loss(model(batch), batch)
    return loss, *torch.autograd.grad(loss, list(model.trainable_state().values()))


def assert_same(
    model: PromptedModel, table: FeatureTable, folder: Path, tolerance: float = 2e-5
) -> None:
    """Assert that losses and gradients of all batches are the same with and without the cache."""
    cache = make_cache(model, table, folder)
    for batch in batches(model, table):
        for found, expected in zip(
            loss_and_gradients(model, cache.attach(batch)),
            loss_and_gradients(model, batch),
            strict=True,
        ):
            scale = float(expected.detach().abs().max())
            assert scale > 0
            torch.testing.assert_close(found / scale, expected / scale, atol=tolerance, rtol=0.0)


@pytest.mark.parametrize("family", CACHEABLE_FAMILIES)
def test_losses_and_gradients_do_not_change_with_the_cache(
    family: str, table: FeatureTable, tmp_path: Path
) -> None:
    for first in (1, 2):
        model = model_of(family, first)
        assert model.backbone.supports_lower_cache(model.prompt())
        assert_same(model, table, tmp_path)
    assert list(tmp_path.iterdir()) == [], "the cache file is unlinked while it is open"


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
def test_the_cache_holds_shifted_positions(
    family: str, table: FeatureTable, tmp_path: Path
) -> None:
    model = model_of(family, offset=3)
    batch = batches(model, table)[1]
    assert (
        not torch.allclose(
            model_of(family).lower_hidden_states(batch), model.lower_hidden_states(batch)
        )
        or FAMILIES[family].positions == "rotary"
    )
    assert_same(model, table, tmp_path)


@pytest.mark.parametrize("family", ["bert", "llama", "mpnet"])
def test_the_cache_is_in_bfloat16_if_the_backbone_is(
    family: str, table: FeatureTable, tmp_path: Path
) -> None:
    model = model_of(family)
    model.backbone.model.to(torch.bfloat16)
    assert model.backbone.supports_lower_cache(model.prompt())
    assert (
        make_cache(model, table, tmp_path).attach(batches(model, table)[0]).cached_hidden.dtype
        == torch.bfloat16
    )
    assert_same(model, table, tmp_path, 0.05)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "llama"])
def test_the_cache_works_with_gradient_checkpointing(
    family: str, table: FeatureTable, tmp_path: Path
) -> None:
    model = model_of(family)
    batch = batches(model, table)[1]
    expected = loss_and_gradients(model, batch)
    model.backbone.checkpoint_layers()
    assert_same(model, table, tmp_path)
    for found, value in zip(
        loss_and_gradients(model, make_cache(model, table, tmp_path).attach(batch)),
        expected,
        strict=True,
    ):
        torch.testing.assert_close(found, value, atol=2e-4, rtol=1e-3)


def test_the_cache_includes_the_convolution_after_the_first_deberta_layer(
    table: FeatureTable, tmp_path: Path
) -> None:
    """The convolution is not in the list of layers.

    So the cache must hold the input of the next layer, not the output of the previous layer.
    """
    config = tiny.config("deberta-v2")
    config.conv_kernel_size, config.conv_act = 3, "gelu"
    torch.manual_seed(0)
    model = model_of("deberta-v2")
    model.backbone = Backbone(
        transformers.AutoModel.from_config(config, attn_implementation=ATTENTION)
    ).requires_grad_(False)
    assert model.backbone.model.encoder.conv is not None
    assert_same(model, table, tmp_path)


def test_lower_layers_are_not_recomputed(
    table: FeatureTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("bert", 2)
    batch = batches(model, table)[1]
    cache, layers = make_cache(model, table, tmp_path), []
    inner = attention.masked_attention

    def counted(module: Any, *args: Any, **kwargs: Any) -> Any:
        layers.append(module.layer_idx)
        return inner(module, *args, **kwargs)

    monkeypatch.setattr(attention, "masked_attention", counted)
    model(cache.attach(batch))
    model.lower_hidden_states(batch)
    model(batch)
    assert layers == [2, 0, 1, 0, 1, 2]


def test_cached_values_do_not_depend_on_the_requested_batch(
    table: FeatureTable, tmp_path: Path
) -> None:
    """The values are equal to the bit, because the cache computes them in fixed batches."""
    model = model_of("bert")
    cache, second_cache = make_cache(model, table, tmp_path), make_cache(model, table, tmp_path)
    wide = cache.attach(collate(table, np.arange(40), 0, 0)).cached_hidden
    for row in (31, 5):
        single = second_cache.attach(collate(table, np.array([row]), 0, 0)).cached_hidden[0]
        assert torch.equal(wide[row, : len(single)], single)
        assert not wide[row, len(single) :].any(), "padding is 0"


@pytest.mark.parametrize("family", UNCACHEABLE_FAMILIES)
def test_a_model_whose_upper_layers_need_more_is_refused(family: str) -> None:
    model = model_of(family)
    params = TrainParams(epochs=1.0, head_lr=0.1, hidden_state_cache_mb=5)
    with pytest.raises(
        UserError,
        match=r"arms.multitask: hidden_state_cache_mb is 5, "
        rf"but the upper layers of this '{family}' model",
    ):
        check_hidden_state_cache("arms.multitask", model.prompt, model.backbone, params)


def test_a_model_is_unsupported_if_its_layers_ignore_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of("bert")
    monkeypatch.setattr(
        "pipeline.model.layers._forward_from",
        lambda forward, cached, hidden, *args, **kwargs: forward(hidden, *args, **kwargs),
    )
    assert not model.backbone.supports_lower_cache(model.prompt())


def test_caching_stops_between_batches_on_request(table: FeatureTable, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with process_group(Ranks(), 60.0), pytest.raises(Stopped, match="while caching"):
        HiddenStateCache(
            model_of("bert"),
            table,
            np.arange(len(table)).repeat(200),
            0,
            0,
            tmp_path,
            CPU,
            lambda: _stop_caching(next(asked), Ranks()),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "fits"), [(torch.float32, False), (torch.bfloat16, True)])
def test_hidden_states_above_the_size_limit_are_computed_in_every_step(
    dtype: torch.dtype,
    fits: bool,
    table: FeatureTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "tokens", 20_000)  # hidden size 16
    lines: list[str] = []
    params = TrainParams(epochs=1.0, head_lr=0.1, hidden_state_cache_mb=1)
    model = model_of("bert")
    model.backbone.convert(dtype)
    attach = make_hidden_state_cache(
        model, [table], params, 0, tmp_path, CPU, lines.append, lambda: None
    )
    batch = collate(table, np.arange(3), 0, 0)
    assert lines == (
        []
        if fits
        else [
            "the output of the lower layers takes 1.3 MB, but hidden_state_cache_mb is 1; "
            "computing it in every step"
        ]
    )
    assert (attach(batch).cached_hidden is not None) == fits
    assert lines[-1].startswith(
        "caching the output of the lower layers on disk: 0.6 MB"
        if fits
        else "the output of the lower layers takes"
    )
