"""The precision that `auto` stands for, on devices that multiply bfloat16 and on others."""

from typing import get_args

import pytest
import torch

from pipeline.model.precision import (
    inference_precision,
    multiplies_bfloat16,
    slow_precision,
    training_precision,
)
from pipeline.params import Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def cpu_flags(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The flags of the CPU, which a test may change."""
    flags = {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    return flags


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_multiplies_bfloat16_by_one_of_two_extensions(
    flag: str, cpu_flags: dict[str, bool]
) -> None:
    assert not multiplies_bfloat16(CPU)
    cpu_flags[flag] = True
    assert multiplies_bfloat16(CPU)


def test_a_cpu_of_another_architecture_has_none_of_the_flags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert not multiplies_bfloat16(CPU)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((10, 0), True)]
)
def test_a_gpu_multiplies_bfloat16_from_capability_8_on(
    capability: tuple[int, int],
    expected: bool,
    cpu_flags: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capabilities = {GPU: capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device])
    assert multiplies_bfloat16(GPU) == expected


def test_auto_is_bfloat16_for_a_frozen_backbone_where_the_device_multiplies_it(
    cpu_flags: dict[str, bool],
) -> None:
    assert training_precision("auto", False, CPU) == "float32"
    cpu_flags["amx_bf16"] = True
    assert training_precision("auto", False, CPU) == "bfloat16"
    assert training_precision("auto", True, CPU) == "float32"


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_precision_that_the_params_name_is_kept_in_training(
    precision: Precision, cpu_flags: dict[str, bool]
) -> None:
    for trained in (False, True):
        assert training_precision(precision, trained, CPU) == precision


def test_bfloat16_is_called_slow_where_the_device_does_not_multiply_it(
    cpu_flags: dict[str, bool],
) -> None:
    found = {precision: slow_precision(precision, CPU) for precision in get_args(Precision)}
    assert found.pop("bfloat16") == (
        "warning: this CPU has no instructions for bfloat16, so float32 is several times faster; "
        "set precision: auto (or float32) in params.yaml"
    )
    assert set(found.values()) == {""}
    cpu_flags["amx_bf16"] = True
    assert slow_precision("bfloat16", CPU) == ""


def test_only_bfloat16_is_replaced_in_inference_where_the_device_does_not_multiply_it(
    cpu_flags: dict[str, bool],
) -> None:
    found = {precision: inference_precision(precision, CPU) for precision in get_args(Precision)}
    assert found == {"float32": "float32", "bfloat16": "float32", "int8": "int8", "int4": "int4"}
    cpu_flags["avx512_bf16"] = True
    assert inference_precision("bfloat16", CPU) == "bfloat16"
