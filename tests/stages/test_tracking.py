"""Curves in the real TensorBoard, MLflow and Weights & Biases.

Each step of a run appears exactly once, with any number of interruptions.
"""

import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.params import Tool
from pipeline.training.callbacks import TrainingRun
from stages.runtime.params import check_params
from stages.training import tracking
from stages.training.tracking import Tracking, tracker_factory
from tests.support.small_project import environment, make_project, python, write_params

CONFIG = {"epochs": 2.0, "init": "text"}


def train(tool: Tool, steps: Iterable[int], loss: float, key: str = "k1") -> None:
    """Report the steps of a run as training does, with a validation after step 3."""
    run, start_tracker = TrainingRun(6), tracker_factory(tool, "pretrain-all", key, CONFIG)
    with Tracking(start_tracker, pytest.fail) as tracking:
        for step in steps:
            run.add_step({"step": step, "loss": loss + step}, {}, 0.5, 80.0)
            tracking.step(run, 8, 100)
            if step == 3:
                run.validation.append({"step": step, "score": 70.0})
                tracking.validated(run)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_continues_a_resumed_run(place: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    train("tensorboard", range(1, 5), 100.0)
    train("tensorboard", range(3, 7), 200.0)
    train("tensorboard", range(1, 3), 300.0, key="k2")
    seen = event_accumulator.EventAccumulator(
        str(place / "logs/tensorboard/pretrain-all/k1")
    ).Reload()
    assert [(event.step, event.value) for event in seen.Scalars("loss")] == [
        (1, 101),
        (2, 102),
        (3, 203),
        (4, 204),
        (5, 205),
        (6, 206),
    ]
    assert [(event.step, event.value) for event in seen.Scalars("score")] == [(3, 70)]
    assert set(seen.Tags()["scalars"]) == {"loss", "score", "seconds", "peak_memory_mb"}


@pytest.mark.filterwarnings("ignore")
def test_mlflow_continues_a_resumed_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri(f"file:{place}/mlruns")
    train("mlflow", range(1, 5), 100.0)
    train("mlflow", range(3, 7), 200.0)
    train("mlflow", range(1, 3), 300.0, key="k2")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("deep-prompt").experiment_id
    (run,) = client.search_runs([experiment], "tags.key = 'k1'")
    assert len(client.search_runs([experiment])) == 2
    assert (run.info.run_name, run.info.status) == ("pretrain-all", "FINISHED")
    assert run.data.params == {"epochs": "2.0", "init": "text"}
    assert sorted(
        (metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss")
    ) == [(1, 101), (2, 102), (3, 103), (4, 104), (5, 205), (6, 206)], (
        "MLflow keeps the first value of a step; a repeated step has equal values"
    )


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_stores_a_run_under_its_key(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train("wandb", range(1, 5), 100.0)
    (folder,) = (place / "logs/wandb").glob("offline-run-*-k1")
    # The file has keys and JSON values in protobuf's binary format, as history and as summary.
    (log,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 20
    while b"104" not in log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)  # a separate process may still write after finish()
    for name, wanted in (("loss", ["101", "102", "103", "104"]), ("score", ["70"])):
        assert (
            list(
                dict.fromkeys(
                    re.findall(rf"{name}\W{{1,4}}(\d+)", log.read_bytes().decode("latin1"))
                )
            )
            == wanted
        )


@pytest.mark.parametrize("tool", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_tool_is_an_error_before_training(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=f"params.yaml: tracking: {tool} is not installed; pip install {tool}.*, or"
    ):
        tracker_factory(tool, "pretrain-all", "k1", CONFIG)


def test_the_param_tracking_reruns_no_stage(place: Path) -> None:
    pytest.importorskip("tensorboard")
    values = make_project(place / "project")
    write_params(place / "project", values | {"tracking": "tensorboard"})
    assert check_params(values, "params").tracking is None, "off by default"
    env = environment(place)
    stages = (
        "generate ner",
        "prepare world_ner",
        "featurize world_ner",
        "finetune head_only world_ner",
    )
    for words in stages:
        name, *arguments = words.split()
        done = python(place / "project", env, "-m", f"stages.{name}", *arguments)
        assert done.returncode == 0, done.stderr
    assert list((place / "project/logs/tensorboard/finetune-head_only-world_ner").glob("*/events*"))
    assert "tracking" not in (place / "project/dvc.yaml").read_text(encoding="utf-8").replace(
        "stages/training/tracking.py", ""
    )
