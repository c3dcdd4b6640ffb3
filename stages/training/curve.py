"""Write the training curve of a run to a file after each step, for example for `dvc plots`."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.training.callbacks import TrainingCallback, TrainingRun


class CurveFile(TrainingCallback):
    """Appends each step to a tab-separated file.

    The columns are those of train.tsv, then seconds and peak memory. After a resume the file is
    complete and has each step once. It shows a run in progress; the result of a run is train.tsv,
    which is written at the end.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """`names` are the tasks."""
        self._path, self._names = path, names if len(names) > 1 else []
        self._columns: list[str] = []

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Append the last step.

        The first call writes all steps so far, and replaces the file of an interrupted run.
        """
        first = len(run.train) - 1
        if not self._columns:
            by_task = [
                f"{quantity}_{name}" for name in self._names for quantity in ("loss", "share")
            ]
            shared = [name for name in run.train[-1] if name not in by_task]
            self._columns = [*shared, *by_task, *run.resource_usage[-1]]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("\t".join(self._columns) + "\n", encoding="utf-8")
            first = 0
        with self._path.open("a", encoding="utf-8") as file:
            for step in range(first, len(run.train)):
                row = run.train[step] | run.resource_usage[step]
                cells = [f"{row[name]:.6g}" if name in row else "" for name in self._columns]
                file.write("\t".join(cells) + "\n")
