"""The output does not depend on the chunks, the number of processes, or interruptions."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import chunks
from pipeline.data.chunks import split_into_chunks
from pipeline.data.prepare import CorpusError, prepare
from pipeline.data.readers import READERS, conll_columns, records
from pipeline.data.readers.base import Slice, Splits
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import Problems, UserError
from pipeline.sharding import Shard, in_this_process
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.base.row import Row
from stages.workers.processes import Processes

FILES = Splits("train.conll", "test.conll", "validation.conll")
NER = Recipe(
    "ours",
    "token_classification",
    "CC0",
    "made here",
    "conll_columns",
    FILES,
    conll_columns.Options(2, 0, 1, "iob2"),
    ("PER",),
    allow=("shared-row",),
)
QA = Recipe(
    "ours",
    "span_extraction",
    "CC0",
    "made here",
    "records",
    Splits("train.jsonl", "test.jsonl"),
    records.Options(dict.fromkeys(["id", "context", "question", "answers"])),
    carve_validation=0.3,
    allow=("shared-row",),
)


def sentences(count: int, name: str = "w") -> str:
    return "".join(
        f"{name}{i} B-PER\nran O\n" + ("sat O\n" * (i % 4)) + "\n" * (1 + i % 3)
        for i in range(count)
    )


def questions(numbers: Sequence[int], **changes: Any) -> str:
    return "".join(
        json.dumps(
            {
                "id": f"q{i}",
                "context": f"A cat {i // 3}.",
                "question": f"What {i}?",
                "answers": [{"text": "cat", "answer_start": 2}],
            }
            | changes
        )
        + "\n"
        for i in numbers
    )


@pytest.fixture
def ner(tmp_path: Path) -> Path:
    return write(
        tmp_path / "raw", train=sentences(200), validation=sentences(9, "v"), test=sentences(9, "t")
    )


def write(folder: Path, suffix: str = "conll", **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def examples_of(recipe: Recipe, folder: Path) -> list[Any]:
    task = task_named(recipe.task)
    return [
        example
        for split in ("train", "validation", "test")
        for example in read_examples(folder / f"{split}.parquet", task)
    ]


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.sampled_from([*"ab \t\r\n-é", "\n%\n", "\na O\n"])).map("".join),
    size=st.integers(1, 40),
)
def test_chunks_of_a_file_have_its_rows_and_problems(
    text: str, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For any text, valid or not, and any size of the chunks."""
    folder = tmp_path_factory.mktemp("chunks")
    write(folder, train=text, validation="", test="")
    path, reader = folder / "train.conll", READERS["conll_columns"]
    options = replace(NER.options, document_mark="%")
    file_problems, chunk_problems = Problems(1000), Problems(1000)
    rows = list(reader.read(path, options, file_problems))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", size)
        recipe = replace(NER, options=options)
        train = [chunk for chunk in split_into_chunks(recipe, folder) if chunk.split == "train"]
    stops = [chunk.stop for chunk in train]
    assert [chunk.start for chunk in train] == [0, *stops[:-1]][: len(train)]
    assert stops[-1] in (None, path.stat().st_size)
    chunk_rows: list[Row] = []
    for chunk in train:
        source = (
            path if chunk.stop is None else Slice(path, chunk.start, chunk.stop, chunk.first_line)
        )
        chunk_rows += reader.read(source, options, chunk_problems)
    assert chunk_rows == rows
    assert chunk_problems.kept == file_problems.kept
    assert chunk_problems.found == file_problems.found


def test_document_marks_are_boundaries_of_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without blank lines is not one chunk."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 20)
    write(tmp_path, train="#doc\na O\n" * 50, validation="", test="")
    marked = replace(NER, options=replace(NER.options, document_mark="#doc"))
    assert len(split_into_chunks(marked, tmp_path)) > 10
    assert len(split_into_chunks(NER, tmp_path)) == 3


@pytest.mark.parametrize(
    ("recipe", "suffix", "files"),
    [
        (
            NER,
            "conll",
            {"train": sentences(200), "validation": sentences(9, "v"), "test": sentences(9, "t")},
        ),
        (QA, "jsonl", {"train": questions(range(200)), "test": questions(range(300, 320))}),
    ],
)
def test_output_does_not_depend_on_chunks_or_processes(
    recipe: Recipe,
    suffix: str,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write(tmp_path / "raw", suffix, **files)
    prepare(recipe, folder, tmp_path / "whole")
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 500)
    monkeypatch.setattr("pipeline.data.prepare.CHUNK_BYTES", 500)
    assert len(split_into_chunks(recipe.resolve_auto(folder)[0], folder)) > 5
    prepare(recipe, folder, tmp_path / "one", tmp_path / "one.jsonl")
    prepare(
        recipe, folder, tmp_path / "two", tmp_path / "two.jsonl", tmp_path / "work", Processes(2)
    )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert not (tmp_path / "work").exists()
    assert (tmp_path / "whole/summary.json").read_bytes() == (
        tmp_path / "two/summary.json"
    ).read_bytes()
    assert examples_of(recipe, tmp_path / "whole") == examples_of(recipe, tmp_path / "two")


def in_reverse_order(shards: Sequence[Shard], into: Path) -> None:
    in_this_process(shards[::-1], into)


def test_interrupted_run_resumes_with_the_same_bytes(
    ner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished shards are kept, damaged shards are made again."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 500)
    monkeypatch.setattr("pipeline.data.prepare.CHUNK_BYTES", 500)
    prepare(NER, ner, tmp_path / "uninterrupted")
    keys: list[str] = []

    def interrupted_after(count: int) -> Callable[[Sequence[Shard], Path], None]:
        def run(shards: Sequence[Shard], into: Path) -> None:
            for shard in shards[:count]:
                keys.append(shard.key)
                shard.make(into)
            if count < len(shards):
                raise KeyboardInterrupt

        return run

    total = len(split_into_chunks(NER, ner))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            prepare(NER, ner, tmp_path / "out", None, tmp_path / "work", interrupted_after(2))
    damaged = tmp_path / "work/chunks" / keys[0] / "examples.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    prepare(NER, ner, tmp_path / "out", None, tmp_path / "work", interrupted_after(total))
    assert len(keys) == total + 1
    assert keys.count(keys[0]) == 2
    assert contents(tmp_path / "uninterrupted") == contents(tmp_path / "out")
    prepare(NER, ner, tmp_path / "out", None, tmp_path / "work", in_reverse_order)
    assert contents(tmp_path / "uninterrupted") == contents(tmp_path / "out")


def test_missing_shards_are_reported(
    ner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.prepare.CHUNK_BYTES", 1)
    with pytest.raises(UserError, match=r"3 of 3 shards .* are missing or have changed"):
        prepare(NER, ner, tmp_path / "out", None, tmp_path / "work", lambda shards, into: None)


INVALID = "x\n\n"  # a line with too few columns


def test_every_problem_is_a_line_of_json(
    ner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        ner,
        train=sentences(100) + INVALID * 30 + sentences(100, "m"),
        test=sentences(5, "t") + INVALID,
    )
    contents_by_size = []
    for size in (1 << 20, 300):
        monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
        with pytest.raises(CorpusError) as caught:
            prepare(NER, ner, tmp_path / "out", tmp_path / "problems.jsonl")
        contents_by_size.append((tmp_path / "problems.jsonl").read_text(encoding="utf-8"))
        assert caught.value.summary[0] == "column-count: 31"
    assert contents_by_size[0] == contents_by_size[1]
    assert not (tmp_path / "out").exists()
    problems = [json.loads(line) for line in contents_by_size[0].splitlines()]
    lines = (ner / "train.conll").read_text().split("\n")
    assert len(problems) == 31
    for problem in problems[:-1]:
        assert problem.keys() == {"kind", "where", "message"}
        assert lines[int(problem["where"].rpartition(":")[2]) - 1] == "x"


@pytest.mark.parametrize(
    ("max_dropped", "accepted"), [("10%", True), (0.1, True), ("5%", False), (0.0, False)]
)
def test_at_most_max_dropped_rows_are_dropped(
    max_dropped: Any, accepted: bool, ner: Path, tmp_path: Path
) -> None:
    """19 of 237 rows are invalid: 8 %."""
    write(ner, train=sentences(100) + INVALID * 19 + sentences(100, "m"))
    recipe = replace(NER, on_problem="drop", max_dropped=max_dropped)
    if not accepted:
        with pytest.raises(CorpusError) as caught:
            prepare(recipe, ner, tmp_path / "out")
        assert caught.value.problems[0] == (
            "data_recipes/ours.yaml: 19 of 237 rows would be dropped, "
            f"but max_dropped is {max_dropped}: correct the corpus"
        )
        return
    summary, lines = prepare(recipe, ner, tmp_path / "out")
    assert summary["rows"] == {"train": 200, "validation": 9, "test": 9}
    assert (summary["dropped"], summary["problems"]) == (19, {"column-count": 19})
    assert lines[0] == "column-count: 19"
    assert len(lines) == 5, "the kind, three examples, and the number of dropped rows"
    assert lines[-1] == "dropped 19 of 237 rows (8.0 %; max_dropped allows 10 %)"


def test_later_of_two_duplicate_rows_is_dropped(tmp_path: Path) -> None:
    repeated_id = questions([3]).replace("q3", "q1")
    conflict = questions([2], answers=[{"text": "A", "answer_start": 0}]).replace("q2", "q9")
    shared = questions([4]).replace("q4", "t4")
    folder = write(
        tmp_path / "raw",
        "jsonl",
        train=questions(range(8)) + repeated_id + conflict,
        validation=questions([20]),
        test=questions(range(30, 33)) + shared,
    )
    files = Splits("train.jsonl", "test.jsonl", "validation.jsonl")
    recipe = replace(
        QA, carve_validation=None, files=files, on_problem="drop", max_dropped=0.5, allow=()
    )
    summary, lines = prepare(recipe, folder, tmp_path / "out")
    (conflict_line,) = [line for line in lines if "other labels" in line]
    assert "; correct one of them, put the answers of both in one row, or set" in conflict_line
    assert summary["problems"] == {"duplicate-id": 1, "conflicting-labels": 1, "shared-row": 1}
    assert summary["rows"] == {"train": 7, "validation": 1, "test": 4}
    assert summary["label_counts"]["train"] == {"answerable": 7}
    assert summary["dropped"] == 3
    assert [example.id for example in examples_of(recipe, tmp_path / "out")][:7] == [
        f"q{i}" for i in (0, 1, 2, 3, 5, 6, 7)
    ], "train loses the rows that it shares with test"


def test_a_test_row_is_kept_if_a_training_row_with_other_labels_is_dropped(tmp_path: Path) -> None:
    other_answer = [{"text": "A", "answer_start": 0}]
    folder = write(
        tmp_path / "raw",
        "jsonl",
        train=questions(range(8)),
        validation=questions([20]),
        test=questions(range(30, 33)) + questions([4], answers=other_answer).replace("q4", "t4"),
    )
    files = Splits("train.jsonl", "test.jsonl", "validation.jsonl")
    recipe = replace(QA, carve_validation=None, files=files, on_problem="drop", max_dropped=0.5)
    summary, _ = prepare(replace(recipe, allow=()), folder, tmp_path / "out")
    assert summary["rows"] == {"train": 7, "validation": 1, "test": 4}
    assert summary["problems"] == {"shared-row": 1}
    # If splits may share rows, the training row is wrong, not the test row.
    summary, _ = prepare(replace(recipe, allow=("shared-row",)), folder, tmp_path / "out")
    assert summary["rows"] == {"train": 7, "validation": 1, "test": 4}
    assert summary["problems"] == {"shared-row": 1, "conflicting-labels": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [', "not valid JSON"),
        ('{"data": [{"paragraphs": [{}]}]}', "context"),
        ('{"data": [{}]}', "paragraphs"),
    ],
)
def test_problems_that_hide_rows_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", "json", train=text, test=json.dumps({"data": []}))
    recipe = replace(
        QA,
        reader="squad_json",
        files=Splits("train.json", "test.json"),
        on_problem="drop",
        max_dropped=0.9,
    )
    with pytest.raises(CorpusError) as caught:
        prepare(recipe, folder, tmp_path / "out")
    assert "some problems cannot be fixed by dropping rows" in caught.value.problems[0]
    assert any(message in problem for problem in caught.value.problems)


def test_rows_with_undecodable_bytes_are_dropped(ner: Path, tmp_path: Path) -> None:
    (ner / "train.conll").write_bytes(
        sentences(50).encode()
        + b"caf\xe9 B-PER\n\n"
        + "a\ufffdb B-PER\n\n".encode()  # a valid row
        + sentences(50, "m").encode()
    )
    summary, _ = prepare(replace(NER, on_problem="drop", max_dropped="1%"), ner, tmp_path / "out")
    assert (summary["rows"]["train"], summary["dropped"]) == (101, 1)
    texts = ["".join(example.tokens) for example in examples_of(NER, tmp_path / "out")]
    assert "a\ufffdb" in texts
    assert not [text for text in texts if "caf" in text]


def test_names_of_sentences_may_begin_again_if_the_recipe_allows_it(tmp_path: Path) -> None:
    def table(words: str) -> str:
        lines = ["n,tokens,tags"]
        for number, word in enumerate(words.split()):
            lines.append(f"{number % 2},{word},{'B-PER' if word.istitle() else 'O'}")
        return "\n".join(lines) + "\n"

    texts = {"train": "Ada ran Bo sat", "validation": "Cy lay", "test": "Di fell"}
    folder = write(tmp_path / "raw", "csv", **{name: table(text) for name, text in texts.items()})
    (tmp_path / "ours.yaml").write_text(
        """task: token_classification
license: CC0
source: here
reader: records
options: {fields: {tokens, tags}, group_by: n}
files: {train: train.csv, validation: validation.csv, test: test.csv}
labels: [PER]
"""
    )
    recipe = load_recipe(tmp_path / "ours.yaml")
    with pytest.raises(UserError, match=r"set allow: \[split-group\] in the recipe"):
        prepare(recipe, folder, tmp_path / "out")
    summary, _ = prepare(replace(recipe, allow=("split-group",)), folder, tmp_path / "out")
    assert summary["rows"] == {"train": 4, "validation": 2, "test": 2}
