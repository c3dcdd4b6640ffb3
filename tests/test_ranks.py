"""Several processes train as one: in every ZeRO stage, for every arm, and when their number changes on the way."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import one_rank
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.cluster import Ranks
from pipeline.config import load_json
from pipeline.launch import joined
from pipeline.params import Arm
from pipeline.trainer import Run

TESTS = Path(__file__).parent
Alone = tuple[dict[str, Tensor], Run, list[list[float]]]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def together(folder: Path, world: int, arm: str, *words: str) -> None:
    """Train in so many processes."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
                   "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    processes = [subprocess.Popen([sys.executable, TESTS / "one_rank.py", folder, arm, *words],
                                  env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(world)]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(outputs)


def trained_alone(folder: Path, arm: Arm, precision: str = "float32") -> Alone:
    with joined(Ranks(), 60):
        model, run = one_rank.run(folder, Ranks(), arm, precision=precision)
        values = {name: value.detach().clone() for name, value in model.trainable_state().items()}
        return values, run, one_rank.predicted(model, folder, Ranks())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What one process makes of it."""
    return trained_alone(tmp_path_factory.mktemp("alone"), "multitask")


def assert_same(folder: Path, world: int, alone: Alone) -> None:
    """Every rank ended where one process did, within what sums in another order make of it."""
    values, run, _ = alone
    first, *others = (load_file(folder / f"{rank}.safetensors") for rank in range(world))
    assert first.keys() == values.keys()
    for name, value in values.items():
        assert all(torch.equal(first[name], other[name]) for other in others)
        torch.testing.assert_close(first[name], value, atol=2e-5, rtol=1e-3)
    for rank in range(world):
        for row, expected in zip(load_json(folder / f"{rank}.json"), one_rank.curve(run), strict=True):
            assert row == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def alone_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The same, with the backbone's weights in bfloat16."""
    return trained_alone(tmp_path_factory.mktemp("bfloat16"), "multitask", "bfloat16")


def test_in_some_step_each_rank_has_a_task_of_its_own(alone: Alone, tmp_path: Path) -> None:
    batches = one_rank.batches(tmp_path)
    tasks = [[micro.task for micro in batches.step(step)] for step in range(alone[1].steps)]
    assert any(step[0::2] == [0, 0] and step[1::2] == [1, 1] for step in tasks)


@pytest.mark.parametrize(("world", "words"), [(2, ("0",)), (2, ("1",)), (2, ("2",)), (2, ("3",)), (2, ("3", "offload")),
                                              (4, ("0",))])
def test_many_ranks_train_as_one(world: int, words: tuple[str, ...], alone: Alone, tmp_path: Path) -> None:
    together(tmp_path, world, "multitask", *words)
    assert_same(tmp_path, world, alone)


def test_bfloat16_learns_nearly_the_same(alone: Alone, alone_bfloat16: Alone) -> None:
    (_, run, _), (rounded, other, _) = alone, alone_bfloat16
    assert {value.dtype for value in rounded.values()} == {torch.float32}, "what is trained is not rounded"
    assert [row["loss"] for row in other.train] == pytest.approx([row["loss"] for row in run.train], rel=0.02)
    assert [row["loss"] for row in other.train] != [row["loss"] for row in run.train]


@pytest.mark.parametrize("zero", ["0", "1", "2"])
def test_two_ranks_train_as_one_in_bfloat16(zero: str, alone_bfloat16: Alone, tmp_path: Path) -> None:
    together(tmp_path, 2, "multitask", zero, "bfloat16")
    assert_same(tmp_path, 2, alone_bfloat16)


def test_bfloat16_with_all_weights_parted(alone_bfloat16: Alone, tmp_path: Path) -> None:
    """Equal to the digits of bfloat16 only: gathered weights lie elsewhere in memory, and sums come in another order."""
    together(tmp_path, 2, "multitask", "3", "bfloat16")
    first, second = (load_json(tmp_path / f"{rank}.json") for rank in range(2))
    assert first == second
    expected = [row["loss"] for row in alone_bfloat16[1].train]
    assert [row["loss"] for row in first] == pytest.approx(expected, rel=0.01)
    assert first[0]["loss"] == pytest.approx(expected[0], rel=1e-3)


@pytest.mark.parametrize("arm", ["soft_prompt", "fine_tune"])
def test_other_arms_with_all_weights_parted(arm: Arm, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    expected = trained_alone(tmp_path / "alone", arm)
    together(tmp_path / "two", 2, arm, "3")
    assert_same(tmp_path / "two", 2, expected)


@pytest.mark.parametrize(("first", "then"), [((2, "0"), (1, "0")), ((1, "0"), (2, "1")), ((2, "2"), (2, "3")),
                                             ((2, "3"), (1, "1"))])
def test_it_goes_on_in_another_number_of_ranks_and_another_stage(first: tuple[int, str], then: tuple[int, str], alone: Alone,
                                                                 tmp_path: Path) -> None:
    together(tmp_path, first[0], "multitask", first[1], "until=4")
    assert (tmp_path / "checkpoints/step-000000004").is_dir()
    together(tmp_path, then[0], "multitask", then[1])
    assert_same(tmp_path, then[0], alone)


@pytest.mark.parametrize(("world", "words"), [(2, ("0",)), (3, ("0",)), (2, ("3",)), (2, ("3", "offload"))])
def test_predictions_are_one_ranks_to_the_bit(world: int, words: tuple[str, ...], tmp_path: Path) -> None:
    expected = one_rank.predicted(one_rank.tiny.prompted("multitask"), tmp_path, Ranks())
    assert len(expected) == 40
    together(tmp_path, world, "multitask", *words, "predict")
    for rank in range(world):
        assert load_json(tmp_path / f"{rank}.predicted.json") == expected
