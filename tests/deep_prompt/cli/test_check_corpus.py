"""deep-prompt check: problems and statistics of one corpus, as text and as HTML, in good and bad state."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deep_prompt.cli.main import main
from pipeline.data.corpus_statistics import (
    LONG_TEXT_WINDOWS,
    MAX_LABEL_FRACTION,
    MIN_LABEL_COUNT,
    compute_statistics,
)
from pipeline.data.prepare import prepare
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.world import write_corpus
from tests.support.paths import ROOT
from tests.support.small_project import make_backbone

RECIPE = """task: sequence_classification
license: CC0
source: made here
reader: records
options: {fields: {text, label}}
allow: [shared-row]
files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
labels: ["yes", "no", maybe]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A recipe, sound files of it, and a backbone's tokenizer."""
    (tmp_path / "ours.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "raw").mkdir()
    for split, size in (("train", 200), ("validation", 20), ("test", 20)):
        rows(
            tmp_path,
            split,
            [
                {"text": f"the {split} text number {n}", "label": ("yes", "no", "maybe")[n % 3]}
                for n in range(size)
            ],
        )
    make_backbone(tmp_path / "backbone", tmp_path / "raw")
    return tmp_path


def rows(place: Path, split: str, values: list[dict[str, Any]]) -> None:
    (place / "raw" / f"{split}.jsonl").write_text(
        "".join(json.dumps(value) + "\n" for value in values), encoding="utf-8"
    )


def add(place: Path, split: str, *values: dict[str, Any]) -> None:
    path = place / "raw" / f"{split}.jsonl"
    rows(place, split, [*map(json.loads, path.read_text(encoding="utf-8").splitlines()), *values])


def check(place: Path, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Any, str]:
    """The exit code and what was printed."""
    code: Any = 0
    try:
        main(["check", str(place / "ours.yaml"), "--folder", str(place / "raw"), *map(str, words)])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr()
    return code, said.out + said.err


def test_a_sound_corpus(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--backbone", f"folder:{place}/backbone", "--max-length", 8, "--stride", 2, "--html")
    code, said = check(place, capsys, *words, place / "out/page.html")
    assert code == 0
    assert "There are no problems" in said
    assert re.search(r"train +│ +200 +│ +1,000", said)
    html = (place / "out/page.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 3
    assert "The corpus ours" in html
    assert "240 rows are valid" in html
    check(place, capsys, *words, place / "again.html")
    assert (place / "again.html").read_text(encoding="utf-8") == html


def test_a_corpus_with_problems_is_counted_as_far_as_it_is_sound(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(
        place,
        "train",
        {"text": " ", "label": "yes"},
        {"text": "a", "label": "perhaps"},
        {"text": "a\x99", "label": "no"},
    )
    code, said = check(place, capsys, "--html", place / "page.html")
    assert code == 1
    assert "empty-text: 1\n" in said
    assert "unknown-label: 1\n" in said
    assert "control-character-in-text: 1 (warning)" in said
    assert re.search(r"train +│ +201 ", said)
    assert "perhaps" in (place / "page.html").read_text(encoding="utf-8")


def test_nothing_sound_is_no_crash(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "validation", "test"):
        rows(place, split, [{"text": "", "label": "yes"}] * 3)
    code, said = check(
        place,
        capsys,
        "--backbone",
        f"folder:{place}/backbone",
        "--max-length",
        8,
        "--stride",
        2,
        "--html",
        place / "page.html",
    )
    assert (code, "empty-text: 9" in said) == (1, True)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("values", "kind", "part"),
    [
        ([{"text": "a b", "label": "yes"}] * 20_000, "class-imbalance", "'yes' is"),
        (
            [{"text": "word " * (LONG_TEXT_WINDOWS * 16 + 5), "label": "no"}],
            "long-text",
            "times max_length",
        ),
        (
            [{"text": "the test text number 7", "label": "no"}],
            "train-text-held-out",
            "1 rows are in the training split",
        ),
    ],
)
def test_warnings_never_fail(
    values: list[dict[str, Any]],
    kind: str,
    part: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add(place, "train", *values)
    code, said = check(
        place, capsys, "--backbone", f"folder:{place}/backbone", "--max-length", 16, "--stride", 2
    )
    assert code == 0
    assert f"{kind}: 1 (warning)" in said
    assert part in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-length", 4), "--max-length is 4"),
        (("--stride", 64), "--stride 64"),
        (("--backbone", "bert"), "backbone bert: not a valid source; write package:NAME/FOLDER"),
        (("--backbone", "folder:nowhere"), "has no config.json"),
    ],
)
def test_a_users_mistake(
    words: tuple[object, ...], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = check(place, capsys, *words)
    assert code == 1
    assert message in said


def test_rare_labels_are_warned_of(place: Path, tmp_path: Path) -> None:
    recipe = load_recipe(place / "ours.yaml")
    rows(
        place,
        "train",
        [
            {
                "text": f"text {n}",
                "label": "maybe" if n < MIN_LABEL_COUNT - 1 else ("yes", "no")[n % 2],
            }
            for n in range(100)
        ],
    )
    problems = Problems()
    summary, _ = prepare(
        replace(recipe, allow=("shared-row",)), place / "raw", tmp_path / "out", problems=problems
    )
    compute_statistics(tmp_path / "out", summary, None, 8, 0, problems)
    assert [problem.message.split(";")[0] for problem in problems.kept] == [
        f"label 'maybe' occurs {MIN_LABEL_COUNT - 1} times among 100 annotations"
    ]
    assert 0.5 < MAX_LABEL_FRACTION < 1


@pytest.mark.parametrize("kind", ["ner", "qa", "srl"])
def test_lengths_are_those_of_the_features(kind: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A row is in one window exactly if all its sub-words fit into one; and the sampled rows are all rows here."""
    write_corpus(kind, tmp_path / "raw", 100, 0)
    recipe = replace(
        load_recipe(ROOT / "data_recipes" / f"world_{kind}.yaml"),
        allow=("shared-row", "conflicting-labels", "unseen-label"),
    )
    summary, _ = prepare(recipe, tmp_path / "raw", tmp_path / "out")
    found = compute_statistics(tmp_path / "out", summary, tokenizer, 32, 8, Problems())
    for split, counted in found.splits.items():
        assert len(counted.num_tokens) == len(counted.num_subwords) == summary["rows"][split]
        assert int(counted.num_tokens.sum()) == summary["tokens"][split]
        assert np.array_equal(counted.num_windows > 1, counted.num_subwords > 32)


def test_rows_are_sampled_where_there_are_many(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.corpus_statistics.MAX_TOKENIZED_ROWS", 30)
    write_corpus("ner", tmp_path / "raw", 100, 0)
    recipe = load_recipe(ROOT / "data_recipes" / "world_ner.yaml")
    summary, _ = prepare(
        replace(recipe, allow=("shared-row", "conflicting-labels")),
        tmp_path / "raw",
        tmp_path / "out",
    )
    train = compute_statistics(tmp_path / "out", summary, tokenizer, 32, 8, Problems()).splits[
        "train"
    ]
    assert (len(train.num_tokens), len(train.num_subwords)) == (100, 25)


def test_check_loads_no_torch_without_a_backbone(place: Path) -> None:
    code = (
        "import sys; from deep_prompt.cli.main import main\n"
        f"main(['check', {str(place / 'ours.yaml')!r}, '--folder', {str(place / 'raw')!r}])\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("set()\n")
