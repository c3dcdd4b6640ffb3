"""The recipe in docs/serve.md reads the corrections of the server."""

import re
from pathlib import Path

import pytest

from deep_prompt.cli.main import main
from deep_prompt.serve.corrections import Corrections
from pipeline.artifacts.config import TaskHead
from tests.support.paths import ROOT

HEAD = TaskHead("token_classification", "classes", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))


def test_the_recipe_of_the_docs_reads_corrections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrections = Corrections(tmp_path)
    for number in range(60):
        name = "Ada" if number % 2 else "Bo"
        spans = [
            {"label": "PER", "start": 0, "end": len(name)},
            {"label": "LOC", "start": len(name) + 8, "end": len(name) + 12},
        ]
        text = f"{name} was in Bonn on day {number}."
        corrections.add("wikigold", HEAD, {"text": text, "spans": spans})
    page = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    new = re.sub(r"^   ", "", shown, flags=re.MULTILINE)
    replaced = {line.partition(":")[0] for line in new.splitlines()}
    old = (ROOT / "data_recipes/wikigold.yaml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in old if line.partition(":")[0] not in replaced]
    recipe = tmp_path / "wikigold_corrected.yaml"
    recipe.write_text("\n".join([*kept, new]).replace(", ORG, LOC, MISC", ", LOC"), "utf-8")
    main(["check", str(recipe), "--folder", str(tmp_path / "wikigold")])
    assert "There are no problems and no warnings." in capsys.readouterr().out
