"""Record training curves in TensorBoard, MLflow or Weights & Biases.

`tracking` in params.yaml selects the tool. A resumed run continues its curves, each step once.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol

from pipeline.errors import UserError, first_line
from pipeline.params import Tool
from pipeline.training.callbacks import TrainingCallback, TrainingRun
from stages.runtime.paths import LOGS

PROJECT = "deep-prompt"


class Tracker(Protocol):
    """A tool that records the curves of a run."""

    def log(self, row: Mapping[str, float]) -> None:
        """Record the values of a step. The key `step` has its number."""

    def close(self) -> None:
        """Close the record of the run."""


class Tracking(TrainingCallback):
    """Sends each step and validation to a tracker, and closes it at the end of the block.

    The first step starts the tracker. If it fails, for example because its server is unreachable,
    training continues without it.
    """

    def __init__(self, start: Callable[[], Tracker], log: Callable[[str], None]) -> None:
        """`log` receives a line with the error if the tracker fails."""
        self._start, self._log = start, log
        self._tracker: Tracker | None = None
        self._failed = False

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tracker is not None:
            self._call(lambda tracker: tracker.close())

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Record a step."""
        self._call(lambda tracker: tracker.log(run.train[-1] | run.resource_usage[-1]))

    def validated(self, run: TrainingRun) -> None:
        """Record a validation."""
        self._call(lambda tracker: tracker.log(run.validation[-1]))

    def _call(self, method: Callable[[Tracker], None]) -> None:
        if self._failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._start()
            method(self._tracker)
        except Exception as error:
            self._failed = True
            self._log(f"tracking failed, training continues without it: {first_line(error)}")


def tracker_factory(
    tool: Tool, run: str, key: str, config: Mapping[str, Any]
) -> Callable[[], Tracker]:
    """A function that starts a tracker of the run named `run`.

    `key` identifies the params and inputs of the run.

    Raises UserError if `tool` is not installed.
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
    return partial(kinds[tool], run, key, config)


class _TensorBoard:
    """Writes to logs/tensorboard/RUN/KEY."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        self._folder, self._config = LOGS / "tensorboard" / run / key, config
        self._writer: Any = None

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            # Purge the steps from here on that an interrupted run has written.
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
    """Writes to the server at MLFLOW_TRACKING_URI, or to the default of MLflow."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        import mlflow  # noqa: PLC0415

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        experiment = mlflow.set_experiment(PROJECT).experiment_id
        previous = self._client.search_runs([experiment], f"tags.key = '{key}'")
        recorded = (
            previous[0]
            if previous
            else self._client.create_run(experiment, run_name=run, tags={"key": key})
        )
        self._run, self._logged = recorded.info.run_id, recorded.data.metrics.get("step", 0.0)
        if not previous:
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
    """Writes to the project "deep-prompt", or to logs/wandb if WANDB_MODE is offline."""

    def __init__(self, run: str, key: str, config: Mapping[str, Any]) -> None:
        import wandb  # noqa: PLC0415

        LOGS.mkdir(exist_ok=True)
        self._run = wandb.init(
            project=PROJECT, name=run, id=key, resume="allow", config=dict(config), dir=str(LOGS)
        )

    def log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        if step >= self._run.step:  # an interrupted run has recorded the earlier steps
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=step)

    def close(self) -> None:
        self._run.finish()
