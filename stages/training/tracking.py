"""A run's curves in TensorBoard, MLflow or Weights & Biases too, where `tracking` in params.yaml names one.

A resumed run goes on in its own curves there, with no step twice.
"""

import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from pipeline.errors import UserError
from pipeline.params import Tool
from stages.runtime.paths import LOGS

PROJECT = "deep-prompt"


class Tracker(Protocol):
    """Where a run's figures go."""

    def log(self, row: Mapping[str, float]) -> None:
        """The figures of a step, whose number is in the key `step`."""

    def close(self) -> None:
        """Nothing more will come."""


def start_tracker(tool: Tool, run: str, key: str, config: Mapping[str, Any]) -> Tracker:
    """A tracker of the run named `run`; `key` tells it from runs with other params. Raises UserError where `tool` is absent."""
    if find_spec(tool) is None:
        package = "mlflow-skinny" if tool == "mlflow" else tool
        raise UserError(
            f"params.yaml: tracking: {tool} is not installed; pip install {package}, or remove the key"
        )
    kinds: dict[Tool, type[_TensorBoard | _MLflow | _WeightsAndBiases]] = {
        "tensorboard": _TensorBoard,
        "mlflow": _MLflow,
        "wandb": _WeightsAndBiases,
    }
    return kinds[tool](run, key, config)


class _TensorBoard:
    """In logs/tensorboard/RUN/KEY."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        self._folder, self._config = LOGS / "tensorboard" / run / key, config
        self._writer: Any = None

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            self._writer = SummaryWriter(
                self._folder, purge_step=step
            )  # what an interrupted run wrote from here on
            self._writer.add_text(
                "params",
                "\n".join(f"    {name}: {value}" for name, value in self._config.items()),
                step,
            )
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _MLflow:
    """On the server that MLFLOW_TRACKING_URI names, or as MLflow has it."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        import mlflow  # noqa: PLC0415

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        experiment = mlflow.set_experiment(PROJECT).experiment_id
        found = self._client.search_runs([experiment], f"tags.key = '{key}'")
        mine = (
            found[0]
            if found
            else self._client.create_run(experiment, run_name=run, tags={"key": key})
        )
        self._run, self._logged = mine.info.run_id, mine.data.metrics.get("step", 0.0)
        if not found:
            parameters = [mlflow.entities.Param(name, str(value)) for name, value in config.items()]
            self._client.log_batch(self._run, params=parameters)

    def log(self, row: Mapping[str, float]) -> None:
        if row["step"] > self._logged or "score" in row:
            now, step = int(1000 * time.time()), int(row["step"])
            metrics = [
                self._mlflow.entities.Metric(name, value, now, step) for name, value in row.items()
            ]
            self._client.log_batch(self._run, metrics, synchronous=False)

    def close(self) -> None:
        self._mlflow.flush_async_logging()
        self._client.set_terminated(self._run)


class _WeightsAndBiases:
    """In the project "deep-prompt"; WANDB_MODE=offline keeps it in logs/wandb."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        import wandb  # noqa: PLC0415

        LOGS.mkdir(exist_ok=True)
        self._run = wandb.init(
            project=PROJECT, name=run, id=key, resume="allow", config=dict(config), dir=str(LOGS)
        )

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        if step >= self._run.step:  # else it has it from before
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=step)

    def close(self) -> None:
        self._run.finish()
