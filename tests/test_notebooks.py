"""The notebooks run, and print the outputs that they keep."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="needs the extra `dev`")
from tests.support.notebooks import NOTEBOOKS, execute, read


def printed(notebook: Any) -> list[str]:
    """The text of each output, except that of predictions: their probabilities have all digits."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [output.get("text") or output["data"]["text/plain"] for output in outputs]
    return ["a prediction" if "Prediction(" in text else text for text in texts]


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["predict", "report_and_probe", "your_own_corpus"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_kept_outputs_are_those_of_a_run(path: Path) -> None:
    kept = read(path)
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"
    assert printed(execute(path)) == printed(kept)
