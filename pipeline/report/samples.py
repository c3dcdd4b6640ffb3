"""Samples of predictions beside their references."""

from collections.abc import Sequence

from pipeline.errors import shorten
from pipeline.report.collect import RunResult
from pipeline.report.tables import DASH, Cell, Table

MAX_TEXT_LENGTH = 300  # in characters


def table(runs: Sequence[RunResult]) -> Table | None:
    """Some inputs of the test split, the prediction of each arm, and the references."""
    shown = [run for run in runs if run.texts is not None and len(run.texts)]
    if not shown:
        return None
    by_arm = {
        run.arm: dict(zip(run.texts["id"], run.texts["text"], strict=True))
        for run in shown
        if run.texts is not None
    }
    samples = shown[0].texts
    assert samples is not None
    rows = tuple(
        (
            _cell(row["source"]),
            *(_cell(by_id.get(row["id"], DASH)) for by_id in by_arm.values()),
            _cell(row["references"]),
        )
        for _, row in samples.iterrows()
    )
    columns = ("source", *by_arm, "references")
    return Table("Samples of predictions, test", tuple(map(Cell, columns)), rows, prose=True)


def _cell(text: str) -> Cell:
    return Cell(shorten(text, MAX_TEXT_LENGTH) or "(empty)")
