"""Rows of the hub's records: SuperGLUE's copies and other data sets, from Parquet in a folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.data.readers.base import Splits
from pipeline.data.readers.hub import Hub, read, resolve_auto
from pipeline.data.readers.records import Options as Records
from pipeline.data.readers.records import for_task
from pipeline.data.readers.superglue import Corpus, Options
from pipeline.errors import Problems, UserError
from pipeline.tasks import task_named
from pipeline.tasks.base.row import TAG_PROBLEMS, Row, RowKeys
from tests.pipeline.data.readers.test_superglue import RECORDS, ROWS
from tests.support.raw import messages_of, without_where

SPLITS = Splits("train", "test")
TEXTS, QUESTIONS, TAGS = (
    task_named(name).row_keys
    for name in ("sequence_classification", "span_extraction", "token_classification")
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write(folder: Path, records: list[dict[str, Any]], labels: list[str] | None = None) -> None:
    """Write a data set with the split train; with `labels`, its label is a class number."""
    from datasets import ClassLabel, Dataset

    data = Dataset.from_list(records)
    if labels:
        data = data.cast_column("label", ClassLabel(names=labels))
    data.to_parquet(folder / "train.parquet")


def rows(folder: Path, reader: str, options: Any, **changes: Any) -> tuple[list[Row], list[str]]:
    """The rows and the problems of the data set; the problems omit its name."""
    hub, problems = Hub(str(folder), "0" * 40, SPLITS, **changes), Problems()
    options = READERS[reader].for_task(options, TEXTS)
    result = list(read(hub, "train", TEXTS, problems, READERS[reader].row, options))
    prefix = f"hub:{folder}@00000000:"
    return result, [message.removeprefix(prefix) for message in messages_of(problems)]


@pytest.mark.parametrize(
    ("corpus", "labels"),
    [
        ("boolq", ["False", "True"]),
        ("cb", ["entailment", "contradiction", "neutral"]),
        ("copa", ["choice1", "choice2"]),
        ("multirc", ["False", "True"]),
        ("record", None),
        ("rte", ["entailment", "not_entailment"]),
        ("wic", ["False", "True"]),
        ("wsc", ["False", "True"]),
    ],
)
def test_superglue_is_read_from_the_hub(
    folder: Path, corpus: Corpus, labels: list[str] | None
) -> None:
    write(folder, [RECORDS[corpus]], labels)
    result, problems = rows(folder, "superglue", Options(corpus))
    assert not problems
    assert result == [{"where": f"hub:{folder}@00000000:train:0", **ROWS[corpus]}]


def test_labels_of_superglue_in_another_order_are_an_error(folder: Path) -> None:
    write(folder, [RECORDS["rte"]], ["not_entailment", "entailment"])
    result, problems = rows(folder, "superglue", Options("rte"))
    assert result == []
    assert problems == [
        "train:0: label: the class numbers have the names not_entailment, entailment, but the "
        "labels of rte are entailment, not_entailment; correct corpus in the recipe's options, "
        "or use another copy of the data set"
    ]


def test_invalid_records_are_reported_and_skipped(folder: Path) -> None:
    write(
        folder, [RECORDS["rte"] | {"label": -1}, RECORDS["rte"]], ["entailment", "not_entailment"]
    )
    result, problems = rows(folder, "superglue", Options("rte"))
    assert [row["where"].split(":")[-1] for row in result] == ["1"]
    assert [problem.split(";")[0] for problem in problems] == [
        "train:0: label: found an integer -1, expected entailment or not_entailment, or a number "
        "below 2"
    ]
    write(folder, [RECORDS["cb"]])
    result, problems = rows(folder, "superglue", Options("cb"), fields={"hypothesis": "idx"})
    assert result == []
    assert problems[0].startswith("train:0: hypothesis: found an integer 0, expected text")


def test_fields_rename_columns(folder: Path) -> None:
    write(folder, [{"sentence1": "a", "sentence2": "b", "label": 1}])
    fields = {"premise": "sentence1", "hypothesis": "sentence2"}
    result, problems = rows(folder, "superglue", Options("rte"), fields=fields)
    assert not problems
    assert [(row["text"], row["text_pair"], row["label"]) for row in result] == [
        ("a", "b", "not_entailment")
    ]


def test_reader_of_records_reads_any_data_set(folder: Path) -> None:
    write(
        folder,
        [{"sentence": "Good.", "label": 1}, {"sentence": None, "label": 0}],
        ["negative", "positive"],
    )
    options = Records({"text": "sentence", "label": None}, {"1": "positive"})
    result, problems = rows(folder, "records", options)
    assert result == [
        {"where": f"hub:{folder}@00000000:train:0", "text": "Good.", "label": "positive"}
    ]
    assert problems == [
        "train:1: sentence: found nothing, expected text; correct it, or the recipe's fields"
    ]


@pytest.mark.parametrize("revision", ["main", "v1.0", "7b6d24c", "G" * 40])
def test_revision_must_be_a_commit(revision: str) -> None:
    splits = {"train": "train", "test": "test"}
    with pytest.raises(UserError, match=f"revision: '{revision}' is not a commit"):
        parse(Hub, {"id": "a/b", "revision": revision, "splits": splits}, "r")


@pytest.fixture
def questions(folder: Path) -> Path:
    """A data set with questions and tags."""
    answers = [{"text": ["cat"], "answer_start": [2]}, {"text": [], "answer_start": []}]
    pq.write_table(
        pa.table(
            {
                "qid": [1, 2],
                "context": ["A cat."] * 2,
                "question": ["Who?"] * 2,
                "answers": answers,
                "tokens": [["a"], ["b", "c"]],
                "tags": [["O"], ["I-A", "I-A"]],
            }
        ),
        folder / "train.parquet",
    )
    return folder


def test_rows_have_the_keys_of_the_task(questions: Path) -> None:
    problems = Problems()
    hub = Hub(
        str(questions), "0" * 40, Splits("train", "test"), fields={"id": "qid"}, tag_scheme="iob1"
    )
    rows = list(read(hub, "train", QUESTIONS, problems))
    assert [(row["id"], row["answers"]) for row in rows] == [
        ("1", [{"text": "cat", "answer_start": 2}]),
        ("2", []),
    ]
    rows = list(read(hub, "train", TAGS, problems))
    assert [row["tags"] for row in rows] == [["O"], ["B-A", "I-A"]]
    assert not len(problems)


def test_missing_columns_and_splits_are_reported(questions: Path) -> None:
    hub = Hub(str(questions), "0" * 40, Splits("train", "test"), fields={"question": "query"})
    problems, keys = Problems(), RowKeys({"question": "name"}, {"tags": "tags"})
    assert list(read(hub, "train", keys, problems)) == []
    assert "train:0: column 'query' is missing" in messages_of(problems)[0]
    with pytest.raises(UserError, match="test: cannot be read: Bad split: test"):
        list(read(hub, "test", keys, problems))


def test_tags_must_fit_the_tag_scheme(questions: Path) -> None:
    hub, problems = Hub(str(questions), "0" * 40, Splits("train", "test")), Problems()
    first, second = read(hub, "train", TAGS, problems)
    assert first == {"tokens": ["a"], "tags": ["O"], "where": f"hub:{questions}@00000000:train:0"}
    assert [problem.kind for problem in second[TAG_PROBLEMS]] == ["orphan-tag"]
    assert not len(problems)


def test_auto_tag_scheme_is_detected(questions: Path) -> None:
    hub = Hub(str(questions), "0" * 40, Splits("train"), tag_scheme="auto")
    resolved, _, detected = resolve_auto(hub, TAGS)
    assert (resolved.tag_scheme, detected) == ("iob1", {"tag_scheme": "iob1"})
    mapping = for_task(Records(dict.fromkeys(["tokens", "tags"]), tag_scheme="auto"), TAGS)
    _, mapping, detected = resolve_auto(hub, TAGS, READERS["records"].row, mapping)
    assert (mapping.options.tag_scheme, detected) == ("iob1", {"tag_scheme": "iob1"})
    assert resolve_auto(hub, QUESTIONS) == (hub, None, {})


def test_class_numbers_become_names(folder: Path) -> None:
    from datasets import ClassLabel, Dataset, List

    names = ["O", "B-A", "I-A"]
    data = Dataset.from_list([{"tokens": ["a", "b"], "ner": [1, 2], "label": 1}])
    data = data.cast_column("ner", List(ClassLabel(names=names))).cast_column(
        "label", ClassLabel(names=["no", "yes"])
    )
    data.to_parquet(folder / "train.parquet")
    hub = Hub(str(folder), "0" * 40, SPLITS, fields={"tags": "ner"})
    problems = Problems()
    assert [row["tags"] for row in read(hub, "train", TAGS, problems)] == [["B-A", "I-A"]]
    hub, keys = Hub(str(folder), "0" * 40, SPLITS), RowKeys({}, {"label": "label"})
    assert [row["label"] for row in read(hub, "train", keys, problems)] == ["yes"]
    assert not len(problems)


@pytest.mark.parametrize("reader", ["records", "conll_columns"])
@pytest.mark.parametrize("fields", [{}, {"tags": "ner"}])
def test_class_names_are_found_by_the_fields_of_hub_and_options(
    folder: Path, reader: str, fields: dict[str, str]
) -> None:
    if reader == "conll_columns" and not fields:
        return
    from datasets import ClassLabel, Dataset, List

    data = Dataset.from_list([{"tokens": ["a", "b"], "ner": [1, 2]}])
    data = data.cast_column("ner", List(ClassLabel(names=["O", "B-A", "I-A"])))
    data.to_parquet(folder / "train.parquet")
    hub, problems = Hub(str(folder), "0" * 40, SPLITS, fields=fields), Problems()
    mapping = for_task(Records({"tokens": None, "tags": "ner"}), TAGS)
    rows = list(read(hub, "train", TAGS, problems, READERS[reader].row, mapping))
    assert ([row["tags"] for row in rows], len(problems)) == ([["B-A", "I-A"]], 0)
    wrong = mapping.with_options(names={"1": "I-A", "2": "B-A"})
    assert list(read(hub, "train", TAGS, problems, READERS["records"].row, wrong)) == []
    assert problems.counts == {"class-name": 1}


def test_column_that_only_hub_fields_name_must_exist(questions: Path) -> None:
    hub, problems = Hub(str(questions), "0" * 40, SPLITS, fields={"id": "uid"}), Problems()
    assert list(read(hub, "train", QUESTIONS, problems)) == []
    assert "column 'uid' is missing" in messages_of(problems)[0]


def test_null_ids_are_reported(folder: Path) -> None:
    write(folder, [{"text": "a", "label": "x", "id": None}, {"text": "b", "label": "x", "id": 3}])
    problems = Problems()
    rows = list(read(Hub(str(folder), "0" * 40, SPLITS), "train", TEXTS, problems))
    assert [row.get("id") for row in rows] == [None, "3"]
    assert problems.counts == {"missing-id": 1}


def test_optional_keys_are_read_only_if_fields_has_them(folder: Path) -> None:
    """A column may have the name of an optional key by accident; id and title are exceptions."""
    write(folder, [{"text": "a", "hypothesis": "b", "label": "x", "question": "q", "title": "t"}])
    hub = Hub(str(folder), "0" * 40, SPLITS, fields={"text_pair": "hypothesis"})
    problems = Problems()
    assert without_where(list(read(hub, "train", TEXTS, problems))) == [
        {"text": "a", "text_pair": "b", "label": "x", "title": "t"}
    ]
    assert not len(problems)
