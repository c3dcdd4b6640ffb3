"""Records of the hub that a reader makes rows of: SuperGLUE's copies, and users' own sets. No network: Parquet in a folder."""

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
from pipeline.data.readers.superglue import Corpus, Options
from pipeline.errors import Problems, UserError
from pipeline.tasks.base.row import Row
from tests.pipeline.data.readers.test_superglue import RECORDS, ROWS

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
    found = list(
        read(
            Hub(str(folder), "0" * 40, SPLITS, **changes),
            "train",
            (),
            problems,
            READERS[reader].row,
            options,
        )
    )
    try:
        problems.raise_if_any()
    except UserError as error:
        return found, [
            problem.removeprefix(f"hub:{folder}@00000000:") for problem in error.problems
        ]
    return found, []


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
def test_superglue(folder: Path, corpus: Corpus, labels: list[str] | None) -> None:
    write(folder, [RECORDS[corpus]], labels)
    found, problems = rows(folder, "superglue", Options(corpus))
    assert not problems
    assert found == [{"where": f"hub:{folder}@00000000:train:0", **ROWS[corpus]}]


def test_what_is_wrong_is_left_out_and_named(folder: Path) -> None:
    write(
        folder, [RECORDS["rte"] | {"label": -1}, RECORDS["rte"]], ["entailment", "not_entailment"]
    )
    found, problems = rows(folder, "superglue", Options("rte"))
    assert [row["where"].split(":")[-1] for row in found] == ["1"]
    assert [problem.split(";")[0] for problem in problems] == [
        "train:0: label: found int -1, expected entailment or not_entailment, or a number below 2"
    ]
    found, problems = rows(folder, "superglue", Options("cb"), fields={"hypothesis": "idx"})
    assert found == []
    assert problems[0].startswith("train:0: hypothesis: found int '0', expected text")


def test_columns_are_renamed(folder: Path) -> None:
    write(folder, [{"sentence1": "a", "sentence2": "b", "label": 1}])
    found, problems = rows(
        folder,
        "superglue",
        Options("rte"),
        fields={"premise": "sentence1", "hypothesis": "sentence2"},
    )
    assert not problems
    assert [(row["text"], row["text_pair"], row["label"]) for row in found] == [
        ("a", "b", "not_entailment")
    ]


def test_a_users_set(folder: Path) -> None:
    write(
        folder,
        [{"sentence": "Good.", "label": 1}, {"sentence": None, "label": 0}],
        ["negative", "positive"],
    )
    found, problems = rows(
        folder, "records", Records({"text": "sentence", "label": None}, {"1": "positive"})
    )
    assert found == [
        {"where": f"hub:{folder}@00000000:train:0", "text": "Good.", "label": "positive"}
    ]
    assert problems == [
        "train:1: sentence: found NoneType 'None', expected text; correct it, or the recipe's fields"
    ]


def test_hub_needs_a_commit() -> None:
    for revision in ("main", "v1.0", "7b6d24c", "G" * 40):
        with pytest.raises(UserError, match=f"revision: '{revision}' is not a commit"):
            parse(
                Hub,
                {"id": "a/b", "revision": revision, "splits": {"train": "train", "test": "test"}},
                "r",
            )


@pytest.fixture
def questions(folder: Path) -> Path:
    """Flat questions, and tags, in one set."""
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


def test_hub(questions: Path) -> None:
    problems = Problems()
    hub = Hub(
        str(questions), "0" * 40, Splits("train", "test"), fields={"id": "qid"}, tag_scheme="iob1"
    )
    rows = list(read(hub, "train", ("question", "context", "answers"), problems))
    assert [(row["id"], row["answers"]) for row in rows] == [
        ("1", [{"text": "cat", "answer_start": 2}]),
        ("2", []),
    ]
    rows = list(read(hub, "train", ("tokens", "tags"), problems))
    assert [row["tags"] for row in rows] == [["O"], ["B-A", "I-A"]]
    assert not len(problems)


def test_broken_hub(questions: Path) -> None:
    hub = Hub(str(questions), "0" * 40, Splits("train", "test"), fields={"question": "query"})
    problems = Problems()
    for split in ("train", "test"):
        assert list(read(hub, split, ("question", "tags"), problems)) == []
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert "train:0: there is no column 'query'" in caught.value.problems[0]
    assert "test: cannot be read: Bad split: test" in caught.value.problems[1]
    problems = Problems()
    assert list(
        read(
            Hub(str(questions), "0" * 40, Splits("train", "test")),
            "train",
            ("tokens", "tags"),
            problems,
        )
    ) == [{"tokens": ["a"], "tags": ["O"], "where": f"hub:{questions}@00000000:train:0"}]
    assert len(problems) == 1  # an orphan I- tag is not IOB2


def test_auto(questions: Path) -> None:
    hub = Hub(str(questions), "0" * 40, Splits("train"), tag_scheme="auto")
    settled, _, said = resolve_auto(hub, ("tokens", "tags"))
    assert (settled.tag_scheme, said) == ("iob1", {"tag_scheme": "iob1"})
    options = Records(dict.fromkeys(["tokens", "tags"]), tag_scheme="auto")
    _, by, said = resolve_auto(hub, ("tokens", "tags"), READERS["records"].row, options)
    assert (by.tag_scheme, said) == ("iob1", {"tag_scheme": "iob1"})
    assert resolve_auto(hub, ("question",)) == (hub, None, {})


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
    assert [row["tags"] for row in read(hub, "train", ("tokens", "tags"), problems)] == [
        ["B-A", "I-A"]
    ]
    assert [
        row["label"]
        for row in read(Hub(str(folder), "0" * 40, SPLITS), "train", ("label",), problems)
    ] == ["yes"]
    assert not len(problems)
