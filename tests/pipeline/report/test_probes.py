"""The report's sections on probes: they show the numbers of the files and omit missing probes."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.report import probes
from pipeline.report.render import Section
from tests.support.report_inputs import put

ARMS, TASKS = ("multitask", "fine_tune"), ("ner", "qa")
SHIFTS = [("ner", "tweets")]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The outputs of the probes.

    Two arms were probed on a task, one of them with a deep prompt in layers 1 and 2. There is also
    an out-of-domain result and a transfer result.
    """
    for arm, typos in (("multitask", 70.0), ("fine_tune", 82.5)):
        folder = tmp_path / "probe" / arm / "ner"
        put(folder / "metrics.json", {"primary": "f1", "rows": 100, "score": 80.0, "loss": {}})
        put(
            folder / "suites.tsv",
            f"suite\tscore\tloss\tchanged\ntypos\t{typos}\t{80 - typos}\t90\n"
            "white_space\t80\t0\t0\n",
        )
        put(folder / "layers.tsv", "layer\tscore\tloss\n")
    put(
        tmp_path / "probe/multitask/ner/layers.tsv",
        "layer\tscore\tloss\thead_0\thead_1\n1\t60.0\t20.0\t0.25\t0.75\n2\t79.0\t1.0\t0.1\t0.2\n",
    )
    put(
        tmp_path / "out_of_domain/multitask/ner-on-tweets/metrics.json",
        {"in_domain": 85.0, "out_of_domain": 45.5, "loss": 39.5, "rows": 100},
    )
    put(
        tmp_path / "transfer/ner/metrics.json",
        {"primary": "f1", "scores": {"multitask/ner": 80.0, "none": 31.25}},
    )
    put(
        tmp_path / "transfer/ner/cosines.tsv",
        "prompt\tlayer\tcosine\tcosine_added\nmultitask/ner\t0\t1\t1\npretrain/all\t0\t0.97\t\n",
    )
    return tmp_path


def texts(section: Section, table: int = 0) -> dict[str, list[tuple[str, str]]]:
    """The text and the note of each cell, by the first cell of the row."""
    return {
        row[0].text: [(cell.text, cell.note) for cell in row[1:]]
        for row in section.tables[table].rows
    }


def test_every_number_comes_from_the_files(results: Path) -> None:
    robustness, prompts, transfer = probes.sections(results, ARMS, TASKS, SHIFTS)
    assert texts(robustness) == {
        "multitask": [("80.0", ""), ("70.0", "−10.0"), ("80.0", "same input")],
        "fine_tune": [("80.0", ""), ("82.5", "+2.5"), ("80.0", "same input")],
    }
    assert [cell.text for cell in robustness.tables[0].columns] == [
        "arm",
        "unchanged",
        "typos",
        "white space",
    ]
    assert texts(robustness, 1) == {
        "multitask": [("85.0", ""), ("45.5", "−39.5")],
        "fine_tune": [("—", ""), ("—", "")],
    }
    assert texts(prompts) == {
        "1": [("60.0", "−20.0"), ("0.50", "")],
        "2": [("79.0", "−1.0"), ("0.15", "")],
    }
    assert texts(transfer) == {"ner": [("80.0", ""), ("31.2", "")]}


def test_every_plot_has_a_text_alternative_with_its_numbers(results: Path) -> None:
    texts_by_caption = {
        plot.caption: plot.text
        for section in probes.sections(results, ARMS, TASKS, SHIFTS)
        for plot in section.plots
    }
    assert texts_by_caption == {
        "ner: points lost by suite": (
            "typos multitask 10.0, fine_tune -2.5; white space multitask 0.0, fine_tune 0.0"
        ),
        "ner, multitask: attention mass on the prompt": (
            "layer 1: 0.25 to 0.75; layer 2: 0.10 to 0.20"
        ),
        "ner: points lost without the prompt in a layer": "1 multitask 20.0; 2 multitask 1.0",
        "ner: cosine of its prompt and those of others": (
            "multitask/ner: 1.00 to 1.00; pretrain/all: 0.97 to 0.97"
        ),
        "ner: cosine of the change of its prompt by tuning and those of others": (
            "multitask/ner: 1.00 to 1.00"
        ),
    }


def test_plots_are_vector_drawings_without_images(results: Path) -> None:
    for section in probes.sections(results, ARMS, TASKS, SHIFTS):
        assert not [plot.caption for plot in section.plots if "<image" in plot.svg]


def test_without_probes_there_are_no_sections(tmp_path: Path) -> None:
    assert probes.sections(tmp_path, ARMS, TASKS, []) == []


def test_an_error_names_the_malformed_file(results: Path) -> None:
    put(results / "probe/multitask/ner/suites.tsv", "suite\tscore\nx\t1\n")
    with pytest.raises(UserError, match=r"probe/multitask/ner/suites.tsv: no column loss, changed"):
        probes.sections(results, ARMS, TASKS, [])
