"""Records of the hub that a reader makes rows of: SuperGLUE's copies, and users' own sets. No network: Parquet in a folder."""

from pathlib import Path
from typing import Any

import pytest
from test_readers_superglue import RECORDS, ROWS

from pipeline.errors import Problems, UserError
from pipeline.readers import READERS
from pipeline.readers.base import Row, Splits
from pipeline.readers.hub import Hub, read
from pipeline.readers.records import Options as Records
from pipeline.readers.superglue import Corpus, Options

SPLITS = Splits("train", "test")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write(folder: Path, records: list[dict[str, Any]], labels: list[str] | None = None) -> None:
    """A data set with one split, train; with `labels`, its label is a class number as the hub has them."""
    from datasets import ClassLabel, Dataset

    data = Dataset.from_list(records)
    if labels:
        data = data.cast_column("label", ClassLabel(names=labels))
    data.to_parquet(folder / "train.parquet")


def rows(folder: Path, reader: str, options: Any, **changes: Any) -> tuple[list[Row], list[str]]:
    problems = Problems()
    found = list(read(Hub(str(folder), "0" * 40, SPLITS, **changes), "train", (), problems, READERS[reader].row, options))
    try:
        problems.raise_if_any()
    except UserError as error:
        return found, [problem.removeprefix(f"hub:{folder}@00000000:") for problem in error.problems]
    return found, []


@pytest.mark.parametrize(("corpus", "labels"), [
    ("boolq", ["False", "True"]), ("cb", ["entailment", "contradiction", "neutral"]), ("copa", ["choice1", "choice2"]),
    ("multirc", ["False", "True"]), ("record", None), ("rte", ["entailment", "not_entailment"]), ("wic", ["False", "True"]),
    ("wsc", ["False", "True"]),
])
def test_superglue(folder: Path, corpus: Corpus, labels: list[str] | None) -> None:
    write(folder, [RECORDS[corpus]], labels)
    found, problems = rows(folder, "superglue", Options(corpus))
    assert not problems
    assert found == [{"where": f"hub:{folder}@00000000:train:0", **ROWS[corpus]}]


def test_what_is_wrong_is_left_out_and_named(folder: Path) -> None:
    write(folder, [RECORDS["rte"] | {"label": -1}, RECORDS["rte"]], ["entailment", "not_entailment"])
    found, problems = rows(folder, "superglue", Options("rte"))
    assert [row["where"].split(":")[-1] for row in found] == ["1"]
    assert [problem.split(";")[0] for problem in problems] == [
        "train:0: label: found int -1, expected entailment or not_entailment, or a number below 2"]
    found, problems = rows(folder, "superglue", Options("cb"), fields={"hypothesis": "idx"})
    assert found == []
    assert problems[0].startswith("train:0: hypothesis: found int '0', expected text")


def test_columns_are_renamed(folder: Path) -> None:
    write(folder, [{"sentence1": "a", "sentence2": "b", "label": 1}])
    found, problems = rows(folder, "superglue", Options("rte"), fields={"premise": "sentence1", "hypothesis": "sentence2"})
    assert not problems
    assert [(row["text"], row["text_pair"], row["label"]) for row in found] == [("a", "b", "not_entailment")]


def test_a_users_set(folder: Path) -> None:
    write(folder, [{"sentence": "Good.", "label": 1}, {"sentence": None, "label": 0}], ["negative", "positive"])
    found, problems = rows(folder, "records", Records({"text": "sentence", "label": None}, {"1": "positive"}))
    assert found == [{"where": f"hub:{folder}@00000000:train:0", "text": "Good.", "label": "positive"}]
    assert problems == ["train:1: sentence: found NoneType 'None', expected text; correct it, or the recipe's fields"]
