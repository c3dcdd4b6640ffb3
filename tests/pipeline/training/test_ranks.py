"""Several ranks train like a single process.

This holds in every ZeRO stage, for every arm, and if the number of ranks changes on a resume.
"""

import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.arms import ArmName
from pipeline.config import load_json
from pipeline.distributed.cluster import Ranks
from pipeline.distributed.process_group import process_group
from pipeline.mixing.batches import sorted_rows
from pipeline.training.callbacks import TrainingRun
from tests.support import one_rank
from tests.support.small_project import ROOT, environment, python_of

SingleProcess = tuple[dict[str, Tensor], TrainingRun, list[list[float]]]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def run_ranks(folder: Path, world: int, *jobs: str) -> None:
    """Run the jobs one after another in `world` processes."""
    env = environment(folder) | {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "PYTHONPATH": str(ROOT),
    }
    processes = [
        subprocess.Popen(
            [python_of(env), "-m", "tests.support.one_rank", folder, *jobs],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(outputs)


def train_single_process(
    folder: Path, arm: ArmName, precision: str = "float32", cache_mb: int = 0
) -> SingleProcess:
    with process_group(Ranks(), 60):
        model, run = one_rank.run(folder, Ranks(), arm, precision=precision, cache_mb=cache_mb)
        values = {name: value.detach().clone() for name, value in model.trainable_state().items()}
        return values, run, one_rank.predict_rows(model, folder, Ranks())


@pytest.fixture(scope="module")
def single_process(tmp_path_factory: pytest.TempPathFactory) -> SingleProcess:
    """The values, the run and the predictions of a single process."""
    return train_single_process(tmp_path_factory.mktemp("single_process"), "multitask")


def assert_same(
    folder: Path, world: int, single_process: SingleProcess, atol: float = 2e-5
) -> None:
    """Assert that every rank has the values of a single process, up to the order of sums."""
    values, run, _ = single_process
    first, *others = (load_file(folder / f"{rank}.safetensors") for rank in range(world))
    assert first.keys() == values.keys()
    for name, value in values.items():
        assert all(torch.equal(first[name], other[name]) for other in others)
        torch.testing.assert_close(first[name], value, atol=atol, rtol=1e-3)
    for rank in range(world):
        for row, expected in zip(load_json(folder / f"{rank}.json"), run.train, strict=True):
            assert row == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def single_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> SingleProcess:
    """The run of a single process with backbone weights in bfloat16."""
    return train_single_process(tmp_path_factory.mktemp("bfloat16"), "multitask", "bfloat16")


OTHER_ARMS = ("soft_prompt", "fine_tune", "lora", "random_backbone")
STAGES = ("0", "1", "2", "3", "3 offload")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of all jobs that the tests need from two ranks."""
    folder = tmp_path_factory.mktemp("two_ranks")
    with process_group(Ranks(), 60):
        (folder / "1-to-2").mkdir()
        one_rank.run_job(folder / "1-to-2", Ranks(), "multitask", "0", "until=4")
    run_ranks(
        folder,
        2,
        *(f"stage-{stage.replace(' ', '-')} multitask {stage}" for stage in STAGES),
        *(f"bfloat16-{stage} multitask {stage} bfloat16" for stage in ("0", "1", "2", "3")),
        *(f"cached-{stage} multitask {stage} cached" for stage in ("0", "3")),
        *(f"{arm} {arm} 3" for arm in OTHER_ARMS),
        *(
            f"predict-{stage.replace(' ', '-')} multitask {stage} predict"
            for stage in ("0", "3", "3 offload")
        ),
        *(f"text-{stage} multitask {stage} text" for stage in ("0", "3")),
        *(f"text-{stage}-predict multitask {stage} predict text" for stage in ("0", "3")),
        "separate multitask 0 separate",
        "2-to-1 multitask 0 until=4",
        "1-to-2 multitask 1",
        "parted-to-1 multitask 3 until=4",
        "2-to-3 multitask 2 until=4",
        "2-to-3 multitask 3",
    )
    return folder


def test_in_some_step_the_ranks_have_different_tasks(
    single_process: SingleProcess, tmp_path: Path
) -> None:
    batches = one_rank.batches(tmp_path)
    tasks = [
        [micro.task for micro in batches.step(step)] for step in range(single_process[1].steps)
    ]
    assert any(step[0::2] == [0, 0] and step[1::2] == [1, 1] for step in tasks)


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_train_like_a_single_process(
    stage: str, single_process: SingleProcess, two_ranks: Path
) -> None:
    assert_same(two_ranks / f"stage-{stage.replace(' ', '-')}", 2, single_process)


@pytest.mark.parametrize("stage", ["0", "3"])
def test_two_ranks_train_like_a_single_process_with_the_hidden_state_cache(
    stage: str, two_ranks: Path, tmp_path: Path
) -> None:
    assert_same(
        two_ranks / f"cached-{stage}", 2, train_single_process(tmp_path, "multitask", cache_mb=1)
    )


def test_four_ranks_train_and_predict_like_a_single_process(
    single_process: SingleProcess, tmp_path: Path
) -> None:
    """The number of batches to predict is not a multiple of 4: one rank has an additional batch."""
    run_ranks(tmp_path, 4, "trained multitask 0", "untrained multitask 0 predict")
    assert_same(tmp_path / "trained", 4, single_process)
    expected = one_rank.predict_rows(one_rank.tiny.prompted("multitask"), tmp_path, Ranks())
    table = one_rank.tiny.table(tmp_path, "classes", 40, 1)
    assert len(list(sorted_rows(table, np.arange(40), one_rank.TOKENS))) % 4 == 1
    assert all(
        load_json(tmp_path / f"untrained/{rank}.predicted.json") == expected for rank in range(4)
    )


def test_ranks_train_on_the_rows_of_a_single_process(two_ranks: Path, tmp_path: Path) -> None:
    with process_group(Ranks(), 60):
        one_rank.run_job(tmp_path, Ranks(), "multitask", "0")
    rows = load_json(tmp_path / "0.rows.json")
    first, second = (load_json(two_ranks / f"stage-0/{rank}.rows.json") for rank in range(2))
    assert [micro for pair in zip(first, second, strict=True) for micro in pair] == rows


def test_ranks_with_different_checkpoints_are_refused(two_ranks: Path) -> None:
    for rank in range(2):
        assert (
            "the ranks would resume from the steps 0, 0 of 2 run(s); give all of them the same"
            in load_json(two_ranks / f"separate/{rank}.error.json")
        )


def test_bfloat16_gives_nearly_the_same_losses(
    single_process: SingleProcess, single_bfloat16: SingleProcess
) -> None:
    (_, run, _), (rounded, other, _) = single_process, single_bfloat16
    assert {value.dtype for value in rounded.values()} == {torch.float32}, (
        "trained values stay in float32"
    )
    assert [row["loss"] for row in other.train] == pytest.approx(
        [row["loss"] for row in run.train], rel=0.02
    )
    assert [row["loss"] for row in other.train] != [row["loss"] for row in run.train]


@pytest.mark.parametrize("stage", ["0", "1", "2", "3"])
def test_two_ranks_train_like_a_single_process_in_bfloat16(
    stage: str, single_bfloat16: SingleProcess, two_ranks: Path
) -> None:
    """Losses are equal up to bfloat16 precision.

    The order of sums depends on the memory addresses of the weights.
    """
    first, second = (load_json(two_ranks / f"bfloat16-{stage}/{rank}.json") for rank in range(2))
    assert first == second
    expected = [row["loss"] for row in single_bfloat16[1].train]
    assert [row["loss"] for row in first] == pytest.approx(expected, rel=0.01)
    assert first[0]["loss"] == pytest.approx(expected[0], rel=1e-3)


@pytest.mark.parametrize("arm", OTHER_ARMS)
def test_other_arms_train_the_same_in_zero_stage_3(
    arm: ArmName, two_ranks: Path, tmp_path: Path
) -> None:
    """The tolerance for fine_tune is larger.

    Some gradients of the backbone are nearly 0. AdamW divides by their size, so it amplifies
    rounding errors.
    """
    assert_same(
        two_ranks / arm,
        2,
        train_single_process(tmp_path, arm),
        atol=5e-4 if arm == "fine_tune" else 2e-5,
    )


@pytest.mark.parametrize("name", ["1-to-2", "2-to-3"])
def test_a_run_resumes_with_more_ranks_and_another_zero_stage(
    name: str, single_process: SingleProcess, two_ranks: Path
) -> None:
    assert not (two_ranks / name / "checkpoints/step-000000001").exists(), "the run resumed"
    assert_same(two_ranks / name, 2, single_process)


@pytest.mark.parametrize("name", ["2-to-1", "parted-to-1"])
def test_a_run_resumes_with_a_single_rank(
    name: str, single_process: SingleProcess, two_ranks: Path
) -> None:
    assert (two_ranks / name / "checkpoints/step-000000004").is_dir()
    with process_group(Ranks(), 60):
        one_rank.run_job(two_ranks / name, Ranks(), "multitask", "0")
    assert_same(two_ranks / name, 1, single_process)


@pytest.mark.parametrize("stage", ["0", "3"])
def test_generated_texts_equal_those_of_a_single_rank(
    stage: str, two_ranks: Path, tmp_path: Path
) -> None:
    """The number of batches is odd, and texts end after different numbers of tokens."""
    expected = one_rank.predict_rows(one_rank.model_of("multitask", True), tmp_path, Ranks())
    assert len(expected) == 25
    assert len({len(text) for text in expected}) > 1
    for rank in range(2):
        assert load_json(two_ranks / f"text-{stage}-predict/{rank}.predicted.json") == expected


def test_two_ranks_train_a_mixture_with_generated_text_like_a_single_process(
    two_ranks: Path, tmp_path: Path
) -> None:
    with process_group(Ranks(), 60):
        model, run = one_rank.run(tmp_path, Ranks(), "multitask", text=True)
    values = {name: value.detach().clone() for name, value in model.trainable_state().items()}
    for stage in ("0", "3"):
        assert_same(two_ranks / f"text-{stage}", 2, (values, run, []))


@pytest.mark.parametrize("stage", ["0", "3", "3 offload"])
def test_predictions_equal_those_of_a_single_rank_to_the_bit(
    stage: str, two_ranks: Path, tmp_path: Path
) -> None:
    expected = one_rank.predict_rows(one_rank.tiny.prompted("multitask"), tmp_path, Ranks())
    assert len(expected) == 40
    for rank in range(2):
        assert (
            load_json(two_ranks / f"predict-{stage.replace(' ', '-')}/{rank}.predicted.json")
            == expected
        )
