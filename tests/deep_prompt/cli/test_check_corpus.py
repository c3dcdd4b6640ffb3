"""`deep-prompt check`: problems and statistics of valid and invalid corpora, as text and HTML."""

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
from tests.support.small_project import make_backbone, make_encoder_decoder

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
def folder(tmp_path: Path) -> Path:
    """A folder with a recipe, valid raw files, and a backbone for its tokenizer."""
    (tmp_path / "ours.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "raw").mkdir()
    for split, size in (("train", 200), ("validation", 20), ("test", 20)):
        write_rows(
            tmp_path,
            split,
            [
                {"text": f"the {split} text number {n}", "label": ("yes", "no", "maybe")[n % 3]}
                for n in range(size)
            ],
        )
    make_backbone(tmp_path / "backbone", tmp_path / "raw")
    return tmp_path


def write_recipe(folder: Path, task: str, fields: str) -> None:
    """Replace the recipe by one of a task without labels."""
    recipe = RECIPE.replace("sequence_classification", task).replace("{text, label}", fields)
    (folder / "ours.yaml").write_text(recipe.split("labels:")[0], encoding="utf-8")


def write_rows(folder: Path, split: str, values: list[dict[str, Any]]) -> None:
    (folder / "raw" / f"{split}.jsonl").write_text(
        "".join(json.dumps(value) + "\n" for value in values), encoding="utf-8"
    )


def add_rows(folder: Path, split: str, *values: dict[str, Any]) -> None:
    lines = (folder / "raw" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    write_rows(folder, split, [*map(json.loads, lines), *values])


def check(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """Run the command: the exit code and the output."""
    code: Any = 0
    try:
        raw = ("--folder", str(folder / "raw"))
        main(["check", str(folder / "ours.yaml"), *raw, *map(str, arguments)])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_valid_corpus_has_statistics_and_a_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = ("--backbone", f"folder:{folder}/backbone")
    arguments = (*backbone, "--max-length", 8, "--stride", 2, "--html")
    code, output = check(folder, capsys, *arguments, folder / "out/page.html")
    assert code == 0
    assert "There are no problems" in output
    assert re.search(r"train *│ *200 *│ *1,000", output)
    html = (folder / "out/page.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 3
    assert "The corpus ours" in html
    assert "240 rows are valid" in html
    check(folder, capsys, *arguments, folder / "again.html")
    assert (folder / "again.html").read_text(encoding="utf-8") == html


def test_a_page_that_cannot_be_written_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = check(folder, capsys, "--html", folder / "ours.yaml/page.html")
    assert (code, "--html: " in output, "give another file" in output) == (1, True, True)


def test_texts_to_generate_are_counted_for_a_whole_encoder_decoder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(folder, "text_generation", "{source: text, references: label}")
    add_rows(folder, "train", {"text": "the text", "label": ["text", "the train text"]})
    make_encoder_decoder(folder / "bart", ["the train text number"], "bart")
    arguments = ("--backbone", f"folder:{folder}/bart", "--max-length", 48, "--stride", 2)
    arguments = (*arguments, "--max-answer-length", 16)
    code, output = check(folder, capsys, *arguments)
    assert (code, "with decoder: true in params.yaml" in output) == (1, True)
    code, output = check(folder, capsys, *arguments, "--decoder")
    assert (code, "Sub-words of the backbone's tokenizer" in output) == (0, True)


def test_choices_that_do_not_fit_into_a_window_fail(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(folder, "multiple_choice", "{context, question, choices, answers}")
    row = {"context": "the train text", "question": "number", "answers": ["a"]}
    for split in ("train", "validation", "test"):
        choices = ["a", "b"] * (6 if split == "test" else 1)
        write_rows(folder, split, [row | {"choices": choices}] * 3)
    arguments = ("--backbone", f"folder:{folder}/backbone", "--max-length")
    code, output = check(folder, capsys, *arguments, 64)
    assert code == 0, output
    code, output = check(folder, capsys, *arguments, 16)
    assert (code, "choices: 3\n" in output) == (1, True)
    assert "test: row test-0: choices: 12 choices need at least 24 tokens" in output


def test_the_valid_rows_of_a_corpus_with_problems_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_rows(
        folder,
        "train",
        {"text": " ", "label": "yes"},
        {"text": "a", "label": "perhaps"},
        {"text": "a\x99", "label": "no"},
    )
    code, output = check(folder, capsys, "--html", folder / "page.html")
    assert code == 1
    assert "empty-text: 1\n" in output
    assert "unknown-label: 1\n" in output
    assert "control-character-in-text: 1 (warning)" in output
    assert re.search(r"train *│ *201\b", output)
    assert "perhaps" in (folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("max_dropped", "code", "line"),
    [
        ("10%", 0, "dropped 1 of 241 rows (0.41 %; max_dropped allows 10 %)\n"),
        ("0.001", 1, "dropped 1 of 241 rows (0.41 %; max_dropped allows 0.1 %)\n"),
        (None, 1, ""),  # fail
    ],
)
def test_the_number_of_dropped_rows_is_stated(
    max_dropped: str | None,
    code: int,
    line: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if max_dropped is not None:
        recipe = f"{RECIPE}on_problem: drop\nmax_dropped: {max_dropped}\n"
        (folder / "ours.yaml").write_text(recipe, encoding="utf-8")
        assert "max_dropped" not in check(folder, capsys)[1]
    add_rows(folder, "train", {"text": " ", "label": "yes"})
    status, output = check(folder, capsys)
    assert (status, "max_dropped" in output) == (code, bool(line))
    assert line in output


def test_a_corpus_without_valid_rows_does_not_crash(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "validation", "test"):
        write_rows(folder, split, [{"text": "", "label": "yes"}] * 3)
    backbone = ("--backbone", f"folder:{folder}/backbone")
    arguments = (*backbone, "--max-length", 8, "--stride", 2, "--html", folder / "page.html")
    code, output = check(folder, capsys, *arguments)
    assert (code, "empty-text: 9" in output) == (1, True)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("values", "kind", "message"),
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
            "1 row are in the training split",
        ),
    ],
)
def test_warnings_do_not_fail(
    values: list[dict[str, Any]],
    kind: str,
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_rows(folder, "train", *values)
    code, output = check(
        folder, capsys, "--backbone", f"folder:{folder}/backbone", "--max-length", 16, "--stride", 2
    )
    assert code == 0
    assert f"{kind}: 1 (warning)" in output
    assert message in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-length", 4), "--max-length is 4"),
        (("--stride", 64), "--stride 64"),
        (("--backbone", "bert"), "backbone: source is 'bert'; write package:NAME/FOLDER"),
        (("--backbone", "folder:nowhere"), "has no config.json"),
    ],
)
def test_invalid_arguments_are_user_errors(
    arguments: tuple[object, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = check(folder, capsys, *arguments)
    assert code == 1
    assert message in output


QUESTIONS = """task: span_extraction
license: CC0
source: made here
reader: records
options: {fields: {id, context, question, answers}}
files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
"""


@pytest.fixture
def questions(folder: Path) -> Path:
    """The folder with a corpus of questions; one answer is inside a word, one has 12 words."""
    (folder / "ours.yaml").write_text(QUESTIONS, encoding="utf-8")
    context = "It lies in Newtownstreet, which is long and goes from the river up to the old gate."
    for split in ("train", "validation", "test"):
        texts = ["long", "own", "which is long and goes from the river up to the old"]
        write_rows(
            folder,
            split,
            [
                {
                    "id": f"{split}-{text[:5]}",
                    "context": f"{context} {split}",
                    "question": f"What is it, {number}?",
                    "answers": [{"text": text, "answer_start": context.index(text)}],
                }
                for number, text in enumerate(texts[: 3 if split == "train" else 1])
            ],
        )
    return folder


def test_the_score_of_a_perfect_model_is_stated_by_split(
    questions: Path, capsys: pytest.CaptureFixture[str], minilm_folder: Path
) -> None:
    backbone = ("--backbone", f"folder:{minilm_folder}", "--max-answer-length", 8)
    code, output = check(questions, capsys, *backbone, "--html", questions / "page.html")
    assert code == 0
    assert "low-ceiling: 1 (warning)" in output
    assert "it gets 2 of 3 rows wrong" in output
    assert "raise max_answer_length (8)" in output
    assert re.search(r"train *│ *3 *│ *2 *│ *\d\d\.\d *│ *33\.3", output)
    assert re.search(r"test *│ *1 *│ *0 *│ *100\.0 *│ *100\.0", output)
    assert "train-own" in output
    html = (questions / "page.html").read_text(encoding="utf-8")
    assert "Rows that a perfect model gets wrong" in html
    assert "train-which" in html
    code, output = check(questions, capsys, *backbone[:2])
    assert "it gets 1 of 3 rows wrong" in output


def test_a_task_without_answers_has_no_maximum_length(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = check(folder, capsys, "--max-answer-length", 8)
    assert code == 1
    assert "--max-answer-length is 8, but sequence_classification does not extract" in output


@pytest.mark.parametrize(
    ("metric", "warned"), [("", True), ("metric: mlqa_f1", False), ("metric: exact_match", False)]
)
def test_chinese_has_characters_unknown_tokens_and_a_metric_by_character(
    metric: str,
    warned: bool,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    minilm_folder: Path,
) -> None:
    (folder / "ours.yaml").write_text(QUESTIONS + metric, encoding="utf-8")
    for number, split in enumerate(("train", "validation", "test")):
        context = f"艾达{'一二三'[number]}住在波恩的旧城区。"
        row = {"id": split, "context": context, "question": "她住在哪里？"}
        write_rows(folder, split, [{**row, "answers": [{"text": "波恩", "answer_start": 5}]}])
    code, output = check(folder, capsys, "--backbone", f"folder:{minilm_folder}")
    assert code == 0
    assert "unknown-tokens: 3 (warning)" in output
    assert "sub-words are unknown to the backbone's tokenizer" in output
    assert "Rows and characters" in output
    assert re.search(r"train *│ *1 *│ *1[5-9]\b", output)
    assert ("word-metric: 1 (warning)" in output) == warned
    assert ("F1 by character, MLQA" in output) == ("mlqa" in metric)


def test_rare_labels_add_a_warning(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "ours.yaml")
    write_rows(
        folder,
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
        replace(recipe, allow=("shared-row",)), folder / "raw", tmp_path / "out", problems=problems
    )
    compute_statistics(tmp_path / "out", summary, None, 8, 0, problems)
    assert [problem.message.split(";")[0] for problem in problems.kept] == [
        f"label 'maybe' occurs {MIN_LABEL_COUNT - 1} times among 100 annotations"
    ]
    assert 0.5 < MAX_LABEL_FRACTION < 1


@pytest.mark.parametrize("kind", ["ner", "qa", "srl"])
def test_lengths_agree_with_the_features(kind: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A row has a single window exactly if all its sub-words fit into it.

    The corpus is small, so that all rows are tokenized.
    """
    write_corpus(kind, tmp_path / "raw", 100, 0)
    recipe = replace(
        load_recipe(ROOT / "data_recipes" / f"world_{kind}.yaml"),
        allow=("shared-row", "conflicting-labels", "unseen-label"),
    )
    summary, _ = prepare(recipe, tmp_path / "raw", tmp_path / "out")
    statistics = compute_statistics(tmp_path / "out", summary, tokenizer, 32, 8, Problems())
    for split, split_statistics in statistics.splits.items():
        num_rows = summary["rows"][split]
        assert len(split_statistics.num_tokens) == len(split_statistics.num_subwords) == num_rows
        assert int(split_statistics.num_tokens.sum()) == summary["tokens"][split]
        assert np.array_equal(split_statistics.num_windows > 1, split_statistics.num_subwords > 32)


def test_a_sample_of_rows_is_tokenized_if_there_are_many(
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


def test_check_without_a_backbone_does_not_import_torch(folder: Path) -> None:
    code = (
        "import sys; from deep_prompt.cli.main import main\n"
        f"main(['check', {str(folder / 'ours.yaml')!r}, '--folder', {str(folder / 'raw')!r}])\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.endswith("set()\n")


COLUMNS = """task: token_classification
license: CC0
source: made here
reader: conll_columns
options: {columns: 2, token: 0, tag: 1, tag_scheme: iob2, comment: "#"}
files: {train: train.conll, validation: validation.conll, test: test.conll}
labels: [PER]
"""


@pytest.mark.parametrize(
    ("comment", "tag", "code", "texts"),
    [
        (
            "# 1 en\n",
            "B-PER",
            0,
            ["There are no problems and no warnings. Skipped: comment lines 3."],
        ),
        ("#Expo O\n", "B-PER", 0, ["Skipped: comment lines 3.", "comment-or-token: 3 (warning)"]),
        ("", "B-PER", 0, ["ours: Errors: 0; warnings: 1.", "unmatched-option: 1 (warning)"]),
        ("# 1 en\n", "O", 1, ["nothing-to-learn: 1\n", "nothing-to-score: 2\n"]),
    ],
)
def test_skipped_lines_and_the_recipe_are_checked(
    comment: str,
    tag: str,
    code: int,
    texts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ours.yaml").write_text(COLUMNS, encoding="utf-8")
    (tmp_path / "raw").mkdir()
    for split in ("train", "validation", "test"):
        rows = "".join(f"{split}{n} {tag}\n\n" for n in range(MIN_LABEL_COUNT))
        (tmp_path / "raw" / f"{split}.conll").write_text(comment + rows, encoding="utf-8")
    status, output = check(tmp_path, capsys, "--html", tmp_path / "page.html")
    assert status == code
    assert all(text in output for text in texts), output
    assert ("There are no problems" in output) == (len(texts) == 1 and "no problems" in texts[0])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ("Skipped: comment lines 3." in page) == bool(comment)
