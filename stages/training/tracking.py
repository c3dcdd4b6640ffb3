"""A run's curves in TensorBoard, MLflow or Weights & Biases, where `tracking` in params.yaml names
one of them.

A resumed run continues its curves there, with no step twice.
"""

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol

from pipeline.errors import UserError
from pipeline.params import Tool
from pipeline.training.callbacks import TrainingCallback, TrainingRun
from stages.runtime.paths import LOGS

PROJECT = "deep-prompt"


class Tracker(Protocol):
    """A tool that records a run's curves."""

    def log(self, row: Mapping[str, float]) -> None:
        """Record the figures of a step; its number is in the key `step`."""

    def close(self) -> None:
        """End the record."""


class Tracking(TrainingCallback):
    """Hands each step and validation to a tracker while its block runs.

    A tracker that fails, for instance because its server is away, costs its curves and not the
    training.
    """

    def __init__(self, tracker: Tracker, log: Callable[[str], None]) -> None:
        """`log` is called with the error of a tracker that fails."""
        self._tracker: Tracker | None = tracker
        self._log = log

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(lambda tracker: tracker.close())

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Record a step."""
        self._call(lambda tracker: tracker.log(run.train[-1] | run.resource_usage[-1]))

    def validated(self, run: TrainingRun) -> None:
        """Record a validation."""
        self._call(lambda tracker: tracker.log(run.validation[-1]))

    def _call(self, tell: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            tell(self._tracker)
        except Exception as error:
            self._tracker = None
            self._log(f"tracking has ended: {(str(error) or type(error).__name__).splitlines()[0]}")


def start_tracker(tool: Tool, run: str, key: str, config: Mapping[str, Any]) -> Tracker:
    """A tracker of the run named `run`; `key` differs between runs with other params.

    Raises UserError where `tool` is not installed.
    """
    if find_spec(tool) is None:
        package = "mlflow-skinny" if tool == "mlflow" else tool
        raise UserError(
            f"params.yaml: tracking: {tool} is not installed; pip install {package}, or remove the "
            "key"
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

            # Purge what an interrupted run wrote from this step on.
            self._writer = SummaryWriter(self._folder, purge_step=step)
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
    """On the server that MLFLOW_TRACKING_URI names, or MLflow's default."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        import mlflow  # noqa: PLC0415

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        experiment = mlflow.set_experiment(PROJECT).experiment_id
        found = self._client.search_runs([experiment], f"tags.key = '{key}'")
        recorded = (
            found[0]
            if found
            else self._client.create_run(experiment, run_name=run, tags={"key": key})
        )
        self._run, self._logged = recorded.info.run_id, recorded.data.metrics.get("step", 0.0)
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
    """In the project "deep-prompt"; WANDB_MODE=offline keeps the record in logs/wandb."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        import wandb  # noqa: PLC0415

        LOGS.mkdir(exist_ok=True)
        self._run = wandb.init(
            project=PROJECT, name=run, id=key, resume="allow", config=dict(config), dir=str(LOGS)
        )

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        if step >= self._run.step:  # else the step was recorded before an interruption
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=step)

    def close(self) -> None:
        self._run.finish()
