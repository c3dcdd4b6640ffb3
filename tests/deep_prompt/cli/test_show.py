"""deep-prompt show: scores, the summary, and the resource usage of each run."""

from argparse import Namespace
from pathlib import Path

import pytest

from deep_prompt.cli.show import show
from pipeline.errors import UserError
from stages.training.resource_usage import load_resource_usage, write_resource_usage
from tests.support.report_inputs import put
from tests.support.small_project import params, write_params

TRAINED = ("pretrain/all", "pretrain/ner_only", "multitask/world_ner")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a report and the resource usage of three runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write_params(tmp_path, params("0" * 64))
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.md").write_text("# Report\n\nThe summary.\n\nMore.\n")
    for folder in TRAINED:
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / "train.tsv").write_text(f"{folder}\n")
        write_resource_usage(Path(folder), seconds=1234.5, peak_memory_mb=2345.6, ranks=2)
    return tmp_path


def test_a_run_is_shown_with_its_seconds_memory_and_ranks(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(Namespace())
    shown = capsys.readouterr().out
    rows = [line.strip("│ \n").split("│") for line in shown.splitlines() if "2,346 MB" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [folder, "1,234", "2,346 MB", "2"] for folder in TRAINED
    ]
    assert "multitask/world_srl" not in shown, "the task is not trained yet"
    assert "The summary." in shown


def test_a_run_from_the_cache_has_dashes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its resource usage is unknown or belongs to a later run with other params."""
    (project / "resource_usage/pretrain/all/run.json").unlink()
    (project / "runs/pretrain/ner_only/train.tsv").write_text("of other params\n")
    assert [load_resource_usage(Path(folder)) is None for folder in TRAINED] == [True, True, False]
    show(Namespace())
    lines = [line for line in capsys.readouterr().out.splitlines() if "pretrain/" in line]
    assert [line.count(" - ") for line in lines] == [3, 3]


def test_without_a_report_the_scores_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "report/report.md").unlink()
    show(Namespace())
    shown = capsys.readouterr().out
    assert "test, percent" in shown
    assert "report/report.md does not exist yet: `dvc repro` makes it" in shown


def test_only_scores_of_planned_runs_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that the params no longer have may have left a score."""
    scores = {"multitask/world_ner": 84.0, "head_only/world_ner": 51.0, "head_only/world_srl": 33.0}
    for folder, value in scores.items():
        parameters = {"trained": 1, "backbone": 100}
        values = {"primary": "f1", "test": {"f1": value}, "parameters": parameters}
        put(project / "results" / folder / "metrics.json", values)
    show(Namespace())
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines() if "%" in line]
    assert [[cell for cell in line if cell not in "│┃"] for line in lines] == [
        ["multitask", "84.0", "-", "1.00", "%"],
        ["head_only", "51.0", "-", "1.00", "%"],
    ]
    values = params("0" * 64)
    values["compare"]["tasks"] = []
    values["repeat"] |= {"arms": [], "tasks": []}
    write_params(project, values)
    show(Namespace())
    assert "head_only" not in capsys.readouterr().out


def test_a_malformed_file_is_named(project: Path) -> None:
    (project / "resource_usage/pretrain/all/run.json").write_text('{"seconds": "many"}')
    with pytest.raises(UserError, match=r"resource_usage/pretrain/all/run\.json: seconds: found"):
        show(Namespace())
