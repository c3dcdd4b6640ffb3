"""The engine of a single process computes the same bits as DeepSpeed with one rank."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.arms import ArmName
from pipeline.config import load_json
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.process_group import process_group
from pipeline.training.engine import uses_deepspeed
from tests.support import one_rank


def train_with_deepspeed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arm: ArmName, *options: str
) -> None:
    with monkeypatch.context() as patch, process_group(Ranks(), 60):
        patch.setattr("pipeline.training.engine.uses_deepspeed", lambda *_: True)
        one_rank.run_job(folder, Ranks(), arm, "0", *options)


def assert_equal_runs(actual: Path, expected: Path) -> None:
    values, others = (load_file(folder / "0.safetensors") for folder in (actual, expected))
    assert values.keys() == others.keys()
    assert [name for name in values if not torch.equal(values[name], others[name])] == []
    assert load_json(actual / "0.json") == load_json(expected / "0.json")


@pytest.mark.parametrize("arm", ["multitask", "soft_prompt", "fine_tune", "lora"])
def test_a_single_process_trains_like_deepspeed_to_the_bit(
    arm: ArmName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients of some steps are clipped."""
    monkeypatch.setitem(one_rank.PARAMS, "max_grad_norm", 0.25)
    folders = [tmp_path / name for name in ("single", "deepspeed")]
    for folder in folders:
        folder.mkdir()
    one_rank.run_job(folders[0], Ranks(), arm, "0")
    train_with_deepspeed(folders[1], monkeypatch, arm)
    assert_equal_runs(*folders)
    norms = [row["gradient_norm"] for row in load_json(folders[0] / "0.json")]
    assert min(norms) < 0.25 < max(norms)


def test_a_run_resumes_with_another_engine_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("whole", "to-deepspeed", "from-deepspeed")]
    for folder in folders:
        folder.mkdir()
    one_rank.run_job(folders[0], Ranks(), "multitask", "0")
    one_rank.run_job(folders[1], Ranks(), "multitask", "0", "until=4")
    train_with_deepspeed(folders[1], monkeypatch, "multitask")
    train_with_deepspeed(folders[2], monkeypatch, "multitask", "until=4")
    one_rank.run_job(folders[2], Ranks(), "multitask", "0")
    for folder in folders[1:]:
        assert_equal_runs(folder, folders[0])


def test_a_single_process_does_not_load_deepspeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssertionError("DeepSpeed is loaded")

    monkeypatch.setattr("pipeline.training.deepspeed_engine.load_deepspeed", fail)
    monkeypatch.setattr("pipeline.distributed.process_group.load_deepspeed", fail)
    one_rank.run_job(tmp_path, Ranks(), "multitask", "0")
    assert uses_deepspeed(Ranks(0, 2, 0), Cluster())
    with pytest.raises(AssertionError, match="DeepSpeed is loaded"):
        one_rank.run_job(tmp_path, Ranks(), "multitask", "3")
