"""The pages of the site that docs/pages makes of code."""

import dataclasses
import re
from pathlib import Path

import pytest

from pipeline.arms import ARMS
from pipeline.params import TrainParams
from pipeline.report import probes, write_report
from stages.runtime.params import load_params
from tests.support.paths import ROOT

pytest.importorskip("mkdocs", reason="needs the extra `docs`")
pytest.importorskip("nbconvert", reason="needs the extra `docs`")
from docs.pages import arms, commands, figures, hooks, notebooks, params, results

RESULTS = ROOT / "results"


def rows(section: str) -> dict[str, list[str]]:
    """Key -> the other cells of its row, of a section of the page of params."""
    text = params.page().partition(f"## {section}\n")[2].partition("\n## ")[0]
    table = re.findall(r"(?m)^\| `(\w+)` \| (.*) \|$", text)
    return {key: cells.split(" | ") for key, cells in table}


def test_params_have_type_default_and_the_arms_that_use_them() -> None:
    found = rows("`arms.ARM`")
    prompts = "`deep_prompt`, `soft_prompt`, `random_backbone`"
    assert found["num_virtual_tokens"] == ["integer", "`32`", prompts]
    assert found["micro_batches_per_step"] == ["integer", "`1`", "all arms that train"]
    assert found["validation_rows"] == ["integer", "`500`", "all arms"]
    assert found["backbone_lr"] == ["number or null", "`null`", "`fine_tune`"]
    shared = rows("`pretrain.NAME`")
    assert shared["balance_losses"] == ["true or false", "`false`", "the shared prompt"]
    assert "lora_rank" not in shared
    assert found.keys() | shared.keys() == {key.name for key in dataclasses.fields(TrainParams)}


def test_params_have_the_stages_that_read_them() -> None:
    tasks = rows("`tasks.NAME`")
    assert tasks["max_length"][-1].startswith("`featurize`")
    assert "`prepare`" not in tasks["max_length"][-1]
    assert rows("Top level")["tracking"][-1] == "nothing"
    assert "`mix`" in rows("`mixtures.NAME`")["cap"][-1]


def test_every_command_and_arm_has_a_section() -> None:
    from deep_prompt.cli.main import COMMANDS

    text = commands.page()
    assert all(f"## {command.name}\n" in text for command in COMMANDS)
    assert "usage: deep-prompt predict" in text
    assert all(f"## `{arm}`" in arms.page() for arm in ARMS)


def test_the_figures_of_a_report_are_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of the results in git has tables and plots of most sections."""
    monkeypatch.chdir(ROOT)
    project = load_params()
    probed = probes.sections(RESULTS, project.probe.arms, project.probe.tasks, ())
    planned = {arm: project.tasks_of(arm) for arm in project.compared_arms}
    write_report(
        RESULTS,
        tmp_path,
        ROOT / "runs",
        [],
        tuple(project.tasks),
        planned,
        tmp_path,
        extra_sections=probed,
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    captions = re.findall(r"<(?:caption|figcaption)>(.*?)</", html)
    assert len(captions) > 15
    listed = re.findall(r"(?m)^\| (.+?) \| ([a-z ]+) \| (.*) \|$", figures.page())
    patterns = [re.sub("[A-Z]{3,}", ".+", re.escape(caption)) for caption, _, _ in listed]
    for caption in captions:
        assert any(re.fullmatch(pattern, caption) for pattern in patterns), caption
    assert len(listed) > 35
    assert all(text for _, _, text in listed), "the code of a figure has a docstring"


def test_notebooks_are_pages_with_their_outputs() -> None:
    (path,) = (ROOT / "notebooks").glob("predict.ipynb")
    text = notebooks.markdown(path)
    assert "[PER" in text or "<mark" in text
    assert hooks.COPIES["notebooks/predict.ipynb"] == "notebooks/predict.md"


def test_results_are_a_front_page_and_a_page_for_each_section() -> None:
    text = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    pages = results.pages(text)
    sections = re.findall(r"(?m)^## (.+)$", text)
    assert len(pages) == len(sections) + 1
    assert pages["results/learning-on-real-corpora.md"].startswith("# Learning on real corpora\n")
    assert "## Questions" in pages["results/learning-on-real-corpora.md"]
    assert all(section in pages["results/index.md"] for section in sections)
    assert results.page_of("balanced-losses") == "results/learning-on-real-corpora.md"


@pytest.mark.parametrize(
    ("link", "folder", "page_folder", "expected"),
    [
        ("formats.md#records", "docs", ".", "[x](formats.md#records)"),
        ("docs/howto/predict.md", "", ".", "[x](howto/predict.md)"),
        ("../../README.md#install", "docs/get-started", "get-started", "[x](../index.md#install)"),
        ("../benchmarks/RESULTS.md", "docs", ".", "[x](results/index.md)"),
        (
            "../../benchmarks/RESULTS.md#questions",
            "docs/explanation",
            "explanation",
            "[x](../results/learning-on-real-corpora.md#questions)",
        ),
        ("../../pipeline/words.py", "docs/howto", "howto", "x"),
        ("https://arxiv.org/abs/2110.07602", "docs", ".", "[x](https://arxiv.org/abs/2110.07602)"),
    ],
)
def test_links_lead_to_pages(link: str, folder: str, page_folder: str, expected: str) -> None:
    assert hooks._link("[x]", link, folder, page_folder) == expected
