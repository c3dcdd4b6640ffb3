"""The record of a training run, and callbacks that follow it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Scores = dict[str, float]


@dataclass
class TrainingRun:
    """The record of a run, beside the trained values: its curves, which are complete after a resume
    too, and its best score.

    `steps` is the planned number. `pruned` says that a callback ended the run before its last step.
    `resource_usage` has a row per row of `train`: seconds of training so far, over all resumes, and
    peak memory in MB. They and `seconds`, the total, are measured; everything else is a function of
    the run's inputs.
    """

    steps: int
    train: list[dict[str, float]] = field(default_factory=list)
    resource_usage: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best_step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    pruned: bool = False

    def add_step(self, row: dict[str, float], seconds: float, peak_memory_mb: float) -> None:
        """Add a row of `train` and the measurements at its end."""
        self.train.append(row)
        self.resource_usage.append({"seconds": seconds, "peak_memory_mb": peak_memory_mb})
        self.seconds = seconds

    def validated(self, step: int) -> bool:
        """Whether the values after this step have been scored."""
        return bool(self.validation) and self.validation[-1]["step"] == step

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Add each task's score; returns whether their mean is the best so far."""
        mean = sum(scores.values()) / len(scores)
        self.validation.append(
            {
                "step": step,
                "score": mean,
                **{f"score_{name}": score for name, score in scores.items()},
            }
        )
        if mean <= self.best_score:
            return False
        self.best_score, self.best_step = mean, step
        return True

    def without_best(self) -> int:
        """The number of validations since the best."""
        return sum(row["step"] > self.best_step for row in self.validation)


class TrainingCallback:
    """Follows a run: shows it, records it, or ends it early. A subclass overrides what it needs."""

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Called after each step, which is the last of `run.train`; it trained on that many rows
        and tokens.
        """

    def validated(self, run: TrainingRun) -> None:
        """Called after each validation, which is the last of `run.validation`."""

    def should_prune(self, run: TrainingRun) -> bool:
        """Asked after each validation but that of the last step: whether to end the run here."""
        return False

    def log(self, line: str) -> None:
        """Called with each message for the user."""


class CallbackList(TrainingCallback):
    """Several callbacks, called in order; any of them can end the run."""

    def __init__(self, callbacks: Sequence[TrainingCallback]) -> None:
        self._callbacks = tuple(callbacks)

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """See `TrainingCallback`."""
        for callback in self._callbacks:
            callback.step(run, rows, tokens)

    def validated(self, run: TrainingRun) -> None:
        """See `TrainingCallback`."""
        for callback in self._callbacks:
            callback.validated(run)

    def should_prune(self, run: TrainingRun) -> bool:
        """See `TrainingCallback`."""
        return any(callback.should_prune(run) for callback in self._callbacks)

    def log(self, line: str) -> None:
        """See `TrainingCallback`."""
        for callback in self._callbacks:
            callback.log(line)
