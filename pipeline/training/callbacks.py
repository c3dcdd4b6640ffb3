"""The record of a training run, and callbacks of the training loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Scores = dict[str, float]
Consumed = dict[str, dict[str, int]]
"""The counts of each task, by unit (see `TrainBatches.count`)."""


def total(consumed: Consumed, unit: str) -> int:
    """The count of a unit over all tasks."""
    return sum(counts[unit] for counts in consumed.values())


@dataclass
class TrainingRun:
    """The record of a run: its curves, its best score, and its totals.

    The record is complete after a resume, too. `steps` is the planned number of steps. `pruned`
    tells whether a callback ended the run before its last step. `consumed` has the totals of all
    steps. `resource_usage` has one row per row of `train`: seconds of
    training so far, over all resumes, and peak memory in MB. These rows and `seconds`, the total,
    are measured. Everything else is a function of the run's inputs.
    """

    steps: int
    train: list[dict[str, float]] = field(default_factory=list)
    resource_usage: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best_step: int = 0
    consumed: Consumed = field(default_factory=dict)
    seconds: float = 0.0
    pruned: bool = False

    def add_step(
        self, row: dict[str, float], consumed: Consumed, seconds: float, peak_memory_mb: float
    ) -> None:
        """Add a step: its row of `train`, what it consumed, and the measurements after it."""
        self.train.append(row)
        for name, counts in consumed.items():
            totals = self.consumed.setdefault(name, dict.fromkeys(counts, 0))
            for unit, count in counts.items():
                totals[unit] += count
        self.resource_usage.append({"seconds": seconds, "peak_memory_mb": peak_memory_mb})
        self.seconds = seconds

    def has_validation(self, step: int) -> bool:
        """Whether the values after step `step` have been scored."""
        return bool(self.validation) and self.validation[-1]["step"] == step

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Add the score of each task; returns whether their mean is the best so far."""
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

    def validations_since_best(self) -> int:
        """The number of validations after the best one."""
        return sum(row["step"] > self.best_step for row in self.validation)


class TrainingCallback:
    """Shows a run, records it, or ends it early. A subclass overrides the methods that it needs."""

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Called after each step; the step is the last row of `run.train`.

        `rows` and `tokens` are the numbers of rows and tokens of the step.
        """

    def validated(self, run: TrainingRun) -> None:
        """Called after each validation; it is the last row of `run.validation`."""

    def should_prune(self, run: TrainingRun) -> bool:
        """Whether to end the run now; called after each validation before the last step."""
        return False

    def log(self, line: str) -> None:
        """Called with each message for the user."""


class CallbackList(TrainingCallback):
    """Calls several callbacks in order. Any of them can end the run."""

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
