"""A corpus becomes Parquet files and a summary; or all problems are reported, and nothing changes.

Problems within a row are tested with the tasks and readers.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.leakage import find_leaks
from pipeline.data.prepare import prepare
from pipeline.data.readers.base import Splits
from pipeline.data.readers.conll_columns import Options as Columns
from pipeline.data.readers.conll_props import Options as Props
from pipeline.data.readers.hub import Hub
from pipeline.data.readers.records import Options as Records
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import UserError
from pipeline.tasks import code_of, span_extraction, task_named, token_classification
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.base.row import SPLITS
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data"))
SHARED: Any = ("shared-row",)  # the splits of these small corpora share rows
CONLL = Splits("train.conll", "test.conll", "validation.conll")
NER = Recipe(
    "ours",
    "token_classification",
    "CC0",
    "made here",
    "conll_columns",
    CONLL,
    Columns(2, 0, 1, "iob2"),
    ("PER", "LOC"),
    allow=SHARED,
)
SRL = Recipe(
    "ours",
    "semantic_role_labeling",
    "CC0",
    "made here",
    "conll_props",
    CONLL,
    Props(1, 2, id_columns=(0,)),
    ("ARG0", "ARG1"),
    allow=SHARED,
)
QUESTION = Records(dict.fromkeys(["id", "context", "question", "answers"]))
QUESTION_WITH_TITLE = Records(dict.fromkeys(["id", "title", "context", "question", "answers"]))
QA = Recipe(
    "ours",
    "span_extraction",
    "CC0",
    "made here",
    "records",
    Splits("train.jsonl", "test.jsonl"),
    QUESTION,
    carve_validation=0.3,
    allow=SHARED,
)


def question(
    id: object, context: str = "A cat sat.", start: int = 2, **changes: object
) -> dict[str, object]:
    return {
        "id": id,
        "context": context,
        "question": "What?",
        "answers": [{"text": "cat", "answer_start": start}],
    } | changes


def write(folder: Path, **files: str | bytes | list[dict[str, object]]) -> Path:
    """Write a corpus's folder: text into train.conll for train=, questions into train.jsonl."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        if isinstance(content, list):
            (folder / f"{name}.jsonl").write_text(
                "".join(json.dumps(value) + "\n" for value in content), encoding="utf-8"
            )
        else:
            (folder / f"{name}.conll").write_bytes(
                content.encode() if isinstance(content, str) else content
            )
    return folder


def refuse(recipe: Recipe, folder: Path | None, output: Path) -> list[str]:
    """The problems without the folder's name. Checks that `output` and its parent do not change."""
    output.mkdir(exist_ok=True)
    (output / "summary.json").write_text("before")
    siblings = sorted(os.listdir(output.parent))
    with pytest.raises(UserError) as caught:
        prepare(recipe, folder, output)
    assert os.listdir(output) == ["summary.json"]
    assert (output / "summary.json").read_text() == "before"
    assert sorted(os.listdir(output.parent)) == siblings
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


@pytest.fixture
def ner(tmp_path: Path) -> Path:
    train, test = "Ada B-PER\nran O\n\nOslo B-LOC\n", "Oslo B-LOC\nBay I-LOC\n"
    return write(tmp_path / "raw", train=train, validation="Ada B-PER\n", test=test)


def test_corpus_of_token_classification_is_prepared(ner: Path, tmp_path: Path) -> None:
    summary, _ = prepare(NER, ner, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == [
        "summary.json",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    assert (
        json.loads((tmp_path / "out" / "summary.json").read_text())
        == summary
        == {
            "name": "ours",
            "task": "token_classification",
            "code": code_of("token_classification"),
            "words": {},
            "primary": "f1",
            "labels": ["PER", "LOC"],
            "classes": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
            "rows": {"train": 2, "validation": 1, "test": 1},
            "tokens": {"train": 3, "validation": 1, "test": 2},
            "label_counts": {
                "train": {"PER": 1, "LOC": 1},
                "validation": {"PER": 1},
                "test": {"LOC": 1},
            },
            "problems": {"unused-label": 1},  # test has no PER
            "dropped": 0,
            "detected": {},
            "optional_inputs": {},
            "word_rule": "treebank",
            "word_agreement": dict.fromkeys(("treebank", "punctuation", "spaces"), 100.0)
            | {"characters": 0.0},
        }
    )
    examples = list(
        read_examples(tmp_path / "out" / "train.parquet", task_named("token_classification"))
    )
    assert examples == [
        token_classification.Example("train-0", ("Ada", "ran"), ("B-PER", "O")),
        token_classification.Example("train-1", ("Oslo",), ("B-LOC",)),
    ]
    metrics = task_named("token_classification").score(examples, [["B-PER", "O"], ["O"]], ())
    assert metrics.overall["recall"] == 50.0


def test_auto_options_are_detected_over_all_splits(ner: Path, tmp_path: Path) -> None:
    """The test split alone would be IOB1."""
    write(ner, test="Oslo I-LOC\n", validation="Ada B-PER\n\nran O\n\nAda B-PER\n")
    auto = replace(NER, options=Columns("auto", 0, 1, "auto", "auto"))
    assert refuse(auto, ner, tmp_path / "out")[0].startswith(
        "test.conll:1: tag 'I-LOC' continues a span that has not begun"
    )
    write(ner, test="Oslo B-LOC\nBay I-LOC\n")
    summary, _ = prepare(auto, ner, tmp_path / "out")
    assert summary.pop("detected") == {"columns": 2, "separator": None, "tag_scheme": "iob2"}
    explicit, _ = prepare(NER, ner, tmp_path / "explicit")
    assert summary == {key: value for key, value in explicit.items() if key != "detected"}


def test_equal_inputs_give_equal_bytes(ner: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        prepare(NER, ner, tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_output_is_replaced(ner: Path, tmp_path: Path) -> None:
    write(tmp_path / "out", stale="old")
    prepare(NER, ner, tmp_path / "out")
    assert not (tmp_path / "out" / "stale.conll").exists()


def test_corpus_of_semantic_role_labeling_is_prepared(tmp_path: Path) -> None:
    sentence = "{0} She (ARG0*) (ARG0*)\n{0} has (V*) *\n{0} to (ARG1* *\n{0} go *) (V*)\n"
    folder = write(
        tmp_path / "raw",
        **{split: sentence.format(split) for split in ("train", "validation", "test")},
    )
    summary, _ = prepare(SRL, folder, tmp_path / "out")
    assert summary["rows"] == {"train": 2, "validation": 2, "test": 2}
    assert summary["classes"] == ["O", "B-ARG0", "I-ARG0", "B-ARG1", "I-ARG1", "B-V", "I-V"]
    assert summary["label_counts"]["train"] == {"ARG0": 2, "ARG1": 1, "V": 2}
    task = task_named("semantic_role_labeling")
    examples = list(read_examples(tmp_path / "out" / "test.parquet", task))
    assert [(example.id, example.predicate) for example in examples] == [
        ("test/0", 1),
        ("test/1", 3),
    ]
    metrics = task.score(examples, [example.tags for example in examples], ()).overall
    assert (metrics["f1"], metrics["correct"]) == (100.0, 3)


def test_corpus_of_span_extraction_is_prepared(tmp_path: Path) -> None:
    rows = [question(i, context=f"A cat sat {i}.") for i in range(20)]
    folder = write(
        tmp_path / "raw",
        train=rows,
        test=[question("t", question="Why?", answers=[]), question("u")],
    )
    summary, _ = prepare(
        replace(QA, allow=("unseen-label", "shared-row")), folder, tmp_path / "out"
    )
    assert summary["classes"] == ["start", "end"]
    assert summary["label_counts"]["test"] == {"answerable": 1, "unanswerable": 1}
    task = task_named("span_extraction")
    examples = list(read_examples(tmp_path / "out" / "test.parquet", task))
    assert examples[1] == span_extraction.Example(
        "u", "What?", "A cat sat.", (span_extraction.Answer("cat", 2),)
    )
    assert task.score(examples, {"t": "", "u": "dog"}, ()).overall["exact_match"] == 50.0


def splits_by_id(output: Path) -> dict[str, str]:
    """The split of each question."""
    task = task_named("span_extraction")
    return {
        example.id: split
        for split in SPLITS
        for example in read_examples(output / f"{split}.parquet", task)
    }


def test_articles_stay_in_one_split_when_rows_are_added(tmp_path: Path) -> None:
    rows = [question(i, context=f"A cat sat {i}.", title=f"article {i % 10}") for i in range(30)]
    recipe = replace(QA, options=QUESTION_WITH_TITLE)
    folder = write(tmp_path / "raw", train=rows[:20], test=[question("t", title="T")])
    prepare(recipe, folder, tmp_path / "out")
    before = splits_by_id(tmp_path / "out")
    assert set(before.values()) == set(SPLITS)
    assert all(before[str(i)] == before[str(i + 10)] for i in range(10))
    write(tmp_path / "raw", train=[*rows[20:], *rows[:20]])
    prepare(recipe, folder, tmp_path / "out")
    assert before.items() <= splits_by_id(tmp_path / "out").items()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_rows_keep_their_split_when_rows_are_added(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Validation and test are both carved; the new rows have any positions."""
    folder = tmp_path_factory.mktemp("splits")
    recipe = replace(
        QA,
        files=Splits("train.jsonl"),
        carve_validation=0.3,
        carve_test=0.3,
        seed=data.draw(st.integers(0, 99)),
    )
    contexts = data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True))
    rows = [
        question(number, context=f"A cat sat {number}.") for number in (*range(-40, 0), *contexts)
    ]
    splits = []
    for number, train in enumerate((rows[:40], data.draw(st.permutations(rows)))):
        prepare(recipe, write(folder / "raw", train=train), folder / f"{number}")
        splits.append(splits_by_id(folder / f"{number}"))
    assert splits[0].items() <= splits[1].items()
    assert len(splits[1]) == len(rows)


def test_null_titles_are_split_by_context(tmp_path: Path) -> None:
    rows = [question(n, f"A cat sat {n % 15}.", title=None) for n in range(30)]
    folder = write(tmp_path / "raw", train=rows, test=[question("t", title="T")])
    prepare(replace(QA, options=QUESTION_WITH_TITLE), folder, tmp_path / "out")
    splits = splits_by_id(tmp_path / "out")
    assert set(splits.values()) == set(SPLITS)
    assert all(splits[str(n)] == splits[str(n + 15)] for n in range(15))


def test_one_group_is_reported_and_split_by_chooses_another(tmp_path: Path) -> None:
    rows = [question(n, f"A cat sat {n % 15}.", title="Document") for n in range(30)]
    folder = write(tmp_path / "raw", train=rows, test=[question("t", title="T")])
    recipe = replace(QA, options=QUESTION_WITH_TITLE, path="elsewhere/ours.yaml")
    assert refuse(recipe, folder, tmp_path / "out") == [
        "elsewhere/ours.yaml: split 'validation' (0.3 of the training split) is empty, because all "
        "30 rows are one group, 'Document', and a group stays in one split; set split_by in the "
        "recipe to another key (question or context), or add a file of the validation split"
    ]
    prepare(replace(recipe, split_by="context"), folder, tmp_path / "out")
    splits = splits_by_id(tmp_path / "out")
    assert set(splits.values()) == set(SPLITS)
    assert all(splits[str(n)] == splits[str(n + 15)] for n in range(15))


def test_file_that_is_not_text_is_one_problem(ner: Path, tmp_path: Path) -> None:
    """Not one per chunk."""
    content = "Ada B-PER\n\n" * 300_000
    write(ner, train=content.encode("utf-16"))
    assert refuse(NER, ner, tmp_path / "out") == [
        "train.conll:1: the file is UTF-16; convert it with iconv -f utf-16 -t utf-8"
    ]


def test_contexts_stay_in_one_split_without_titles(tmp_path: Path) -> None:
    rows = [question(i, context=f"A cat sat {i % 15}.") for i in range(30)]
    prepare(QA, write(tmp_path / "raw", train=rows, test=[question("t")]), tmp_path / "out")
    splits = splits_by_id(tmp_path / "out")
    assert all(splits[str(i)] == splits[str(i + 15)] for i in range(15))


def test_missing_files_are_reported_at_once(ner: Path, tmp_path: Path) -> None:
    (ner / "train.conll").unlink()
    (ner / "test.conll").unlink()
    assert refuse(NER, ner, tmp_path / "out") == [
        f"{name}.conll: no such file; download it (made here), or correct files in the recipe"
        for name in ("train", "test")
    ]
    assert refuse(NER, tmp_path / "none", tmp_path / "out") == [
        f"{tmp_path}/none: no such folder; put the corpus 'ours' there (made here)"
    ]
    assert refuse(NER, ner / "validation.conll", tmp_path / "out") == [
        f"{ner}/validation.conll: is a file; give the folder of the corpus 'ours', in which the "
        "recipe names the files"
    ]


def test_file_in_two_splits_is_refused(ner: Path, tmp_path: Path) -> None:
    recipe = replace(
        NER, files=Splits(("train.conll", "t*.conll"), "test.conll", "validation.conll")
    )
    assert refuse(recipe, ner, tmp_path / "out") == [
        "test.conll: the recipe's files include it in train and test, but splits must not share "
        "rows; give each split its own file, or replace test by carve_test: 0.1 to carve it out of "
        "the training split",
        "train.conll: the recipe's files include it in train and train; list it only once",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": "Ada B-PER\nran\n"},
            "train.conll:2: 1 column, expected 2: 'ran'; "
            "correct the line, or the recipe's separator",
        ),
        (
            {"train": b"Ada B-PER\n\ncaf\xe9 B-LOC\n"},
            "train.conll:3: byte 4, 0xe9, is not UTF-8; convert the file",
        ),
        (
            {"train": "Ada S-PER\n"},
            "train.conll:1: tag 'S-PER' is not valid in IOB2, which has O, B-TYPE, I-TYPE; "
            "set tag_scheme: bioes, or correct the tag",
        ),
        (
            {"train": "Ada B-PER\nOslo B-LOC\nran O\nto B-LOCC\nOslo I-LOCC\n"},
            "train.conll:1: token 3 'to' has label 'LOCC', ",
        ),
        (
            {"train": "Oslo B-LOC\n"},
            "validation.conll:1: label 'PER' does not occur in the training split, so it cannot be "
            "learned; correct it, or set allow: [unseen-label] in the recipe",
        ),
        (
            {"validation": "\n\n"},
            "data_recipes/ours.yaml: split 'validation' (validation.conll) is empty; correct files",
        ),
        (
            {"train": ""},
            "data_recipes/ours.yaml: split 'train' (train.conll) is empty; correct files",
        ),
    ],
)
def test_invalid_corpus_is_refused(
    ner: Path, tmp_path: Path, changes: dict[str, str | bytes], message: str
) -> None:
    assert refuse(NER, write(ner, **changes), tmp_path / "out")[0].startswith(message)


def test_message_of_an_unknown_label_has_the_known_labels(ner: Path, tmp_path: Path) -> None:
    problem = refuse(NER, write(ner, test="Oslo B-LOCC\n"), tmp_path / "out")[0]
    assert problem.endswith(
        "token 0 'Oslo' has label 'LOCC', which is not in the recipe's labels (PER, LOC); correct "
        "it (did you mean 'LOC'?), or add it there"
    )


def test_a_sentence_with_invalid_tags_has_its_unknown_labels_reported(
    ner: Path, tmp_path: Path
) -> None:
    folder = write(ner, test="Oslo S-PRE\nran I-ORG\nBonn B-CITY\n\nAda B-PER\n")
    messages = refuse(NER, folder, tmp_path / "out")
    assert [message.partition("; ")[0] for message in messages] == [
        "test.conll:1: tag 'S-PRE' is not valid in IOB2, which has O, B-TYPE, I-TYPE",
        "test.conll:2: tag 'I-ORG' continues a span that has not begun, which IOB2 does not allow",
        "test.conll:1: token 1 'ran' has label 'ORG', which is not in the recipe's labels (PER, "
        "LOC)",
        "test.conll:1: token 2 'Bonn' has label 'CITY', which is not in the recipe's labels (PER, "
        "LOC)",
    ]


def test_a_row_without_the_key_of_the_metric_is_refused(tmp_path: Path) -> None:
    recipe = replace(
        QA,
        task="sequence_classification",
        options=Records(dict.fromkeys(["text", "label"])),
        carve_validation=None,
        files=Splits("train.jsonl", "test.jsonl", "validation.jsonl"),
        labels=("no", "yes"),
        metric="exact_match",
    )
    rows: list[dict[str, object]] = [
        {"text": f"{label} text", "label": label, "question": label} for label in recipe.labels
    ]
    folder = write(tmp_path / "raw", train=rows, validation=rows, test=rows)
    problems = refuse(recipe, folder, tmp_path / "out")
    assert len(problems) == 6
    assert problems[0] == (
        "train.jsonl:1: key 'question' is missing, and the recipe has metric: exact_match, which "
        "needs it; add it, or remove metric"
    )
    fields = Records(dict.fromkeys(["text", "label", "question"]))
    prepare(replace(recipe, options=fields), folder, tmp_path / "out")


def test_unseen_labels_can_be_allowed(ner: Path, tmp_path: Path) -> None:
    write(ner, train="Oslo B-LOC\n")
    summary, _ = prepare(replace(NER, allow=("unseen-label", "shared-row")), ner, tmp_path / "out")
    assert summary["label_counts"]["validation"] == {"PER": 1}


def test_only_independent_problems_are_reported(ner: Path, tmp_path: Path) -> None:
    # PER is missing in the training split because of the invalid line; the empty split is another
    # problem.
    write(ner, train="Ada B-PER O\n", test="")
    problems = refuse(NER, ner, tmp_path / "out")
    assert [problem.split(": ")[0] for problem in problems] == [
        "train.conll:1",
        "data_recipes/ours.yaml",
    ]


def test_number_of_messages_is_limited(ner: Path, tmp_path: Path) -> None:
    problems = refuse(NER, write(ner, train="a\tb O\n\n" * 50), tmp_path / "out")
    assert len(problems) == 21
    assert problems[-1] == "and 30 more"


def test_ids_must_be_unique(tmp_path: Path) -> None:
    recipe = replace(
        QA, carve_validation=None, files=Splits("train.jsonl", "test.jsonl", "validation.jsonl")
    )
    folder = write(
        tmp_path / "raw",
        train=[question(1), question(2), question(1)],
        validation=[question(3)],
        test=[question(2)],
    )
    assert refuse(recipe, folder, tmp_path / "out") == [
        "train.jsonl:3: id '1' is already the id of train.jsonl:1; "
        "ids must be unique in a split: change one, or remove id from the rows (or from fields in "
        "the recipe's options), so that they are numbered",
    ]


def ids(output: Path, recipe: Recipe) -> dict[str, list[str]]:
    """The ids of each split."""
    task = task_named(recipe.task)
    return {
        split: [example.id for example in read_examples(output / f"{split}.parquet", task)]
        for split in SPLITS
    }


def test_ids_that_are_unique_only_in_a_split_get_its_name(tmp_path: Path) -> None:
    recipe = replace(
        QA, carve_validation=None, files=Splits("train.jsonl", "test.jsonl", "validation.jsonl")
    )
    contents: dict[str, Any] = {
        "train": [question(0), question(1, "A cat ran."), question(None, "A cat ate.")],
        "validation": [question(5, "A cat sits.")],
        "test": [question(0, "A cat lay.")],
    }
    summary, _ = prepare(recipe, write(tmp_path / "raw", **contents), tmp_path / "out")
    assert summary["problems"] == {"missing-id": 1, "id-in-two-splits": 1}
    assert ids(tmp_path / "out", recipe) == {
        "train": ["train-0", "train-1", "train-2"],
        "validation": ["validation-5"],
        "test": ["test-0"],
    }
    contents["test"][0]["id"] = "t"
    summary, _ = prepare(recipe, write(tmp_path / "raw", **contents), tmp_path / "out")
    assert summary["problems"] == {"missing-id": 1}
    assert ids(tmp_path / "out", recipe) == {
        "train": ["0", "1", "train-2"],
        "validation": ["5"],
        "test": ["t"],
    }


def test_ids_of_numbered_rows_are_not_those_of_other_rows(tmp_path: Path) -> None:
    recipe = replace(
        QA, carve_validation=None, files=Splits("train.jsonl", "test.jsonl", "validation.jsonl")
    )
    contents: dict[str, Any] = {
        "train": [question(None), question("train-0", "A cat ran."), question("train--0")],
        "validation": [question(7, "A cat sits.")],
        "test": [question(8, "A cat lay.")],
    }
    summary, _ = prepare(recipe, write(tmp_path / "raw", **contents), tmp_path / "out")
    assert summary["problems"] == {"missing-id": 1}
    assert ids(tmp_path / "out", recipe)["train"] == ["train---0", "train-0", "train--0"]
    # The prefixes of two splits make the id of a numbered row.
    contents["train"] = [question(5), question(None), question(1, "A cat ran.")]
    contents["validation"] = [question(5, "A cat sits.")]
    summary, _ = prepare(recipe, write(tmp_path / "raw", **contents), tmp_path / "out")
    assert summary["problems"] == {"missing-id": 1, "id-in-two-splits": 1}
    assert ids(tmp_path / "out", recipe) == {
        "train": ["train-5", "train--1", "train-1"],
        "validation": ["validation-5"],
        "test": ["test-8"],
    }


def test_an_id_in_the_form_of_another_splits_numbers_gets_its_split(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "raw",
        train=[question(None), question(1, "A cat ran.")],
        validation=[question(2, "A cat sits.")],
        test=[question("train-0", "A cat lay.")],
    )
    files = Splits("train.jsonl", "test.jsonl", "validation.jsonl")
    recipe = replace(QA, carve_validation=None, files=files)
    _, lines = prepare(recipe, folder, tmp_path / "out")
    assert any(
        f"test.jsonl:1: id 'train-0' is also the new id of {folder}/train.jsonl:1" in line
        for line in lines
    )
    assert ids(tmp_path / "out", recipe) == {
        "train": ["train-0", "train-1"],
        "validation": ["validation-2"],
        "test": ["test-train-0"],
    }


def test_ids_of_a_carved_split_have_the_name_of_their_file(tmp_path: Path) -> None:
    rows = [question(n, f"A cat sat {n}.") for n in range(20)]
    folder = write(tmp_path / "raw", train=rows, test=[question(0, "A cat ran.")])
    prepare(QA, folder, tmp_path / "out")
    found = ids(tmp_path / "out", QA)
    assert sorted(found["train"] + found["validation"]) == sorted(f"train-{n}" for n in range(20))
    assert found["validation"]
    assert found["test"] == ["test-0"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            question(1, start=4),
            "answer 'cat' has answer_start 4, but the context has 't s' there; "
            "it starts at 2: correct",
        ),
        (
            question(1, context="cat or a cat", start=8),
            "answer 'cat' has answer_start 8, but the context has ' ca' there; it starts",
        ),
        (
            question(1, start=-8),
            "answer 'cat' has answer_start -8, but the context has 'A c' there; it starts at 2",
        ),
        (
            question(1, context="A dog sat."),
            "answer 'cat' has answer_start 2, but the context has 'dog' there; "
            "it does not occur in the context: correct",
        ),
        (
            question(1, context="A Cat sat."),
            "answer 'cat' has answer_start 2, but the context has 'Cat' there; it does not occur "
            "in the context, the two differ only in case: write 'Cat'",
        ),
        (
            question(1, answers=[{"text": "", "answer_start": 0}]),
            "answer '' is empty; if the question has no answer, set answers to []",
        ),
        (question(1, question=" "), "question is empty: ' '; fill it in, or remove the row"),
        (
            question(1, context="", answers=[]),
            "context is empty: ''; fill it in, or remove the row",
        ),
    ],
)
def test_invalid_questions_are_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    folder = write(tmp_path / "raw", train=[question(0), row], test=[question("t")])
    assert refuse(QA, folder, tmp_path / "out")[0].startswith(f"train.jsonl:2: {message}")


def test_empty_carved_split_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", train=[question(0)], test=[question("t")])
    assert refuse(replace(QA, carve_validation=1e-9), folder, tmp_path / "out") == [
        "data_recipes/ours.yaml: split 'validation' (1e-09 of the training split) is empty; "
        "correct carve_validation or seed"
    ]


def test_training_rows_that_are_all_carved_are_one_problem(tmp_path: Path) -> None:
    """The labels that the empty training split lacks are not reported."""
    recipe = Recipe(
        "ours",
        "sequence_classification",
        "public domain",
        "nowhere",
        "records",
        Splits("train.jsonl", "test.jsonl"),
        Records(),
        labels=("a", "b"),
        carve_validation=1 - 1e-9,
    )
    rows: list[dict[str, object]] = [
        {"text": f"text {number}", "label": label} for number, label in enumerate("ab")
    ]
    message = (
        "data_recipes/ours.yaml: split 'train' (train.jsonl) is empty, because "
        "carve_validation: 0.999999999 took {rows}; add rows, reduce the fraction, or change seed"
    )
    test: list[dict[str, object]] = [{"text": "a test", "label": "b"}]
    folder = write(tmp_path / "raw", train=rows, test=test)
    assert refuse(recipe, folder, tmp_path / "out") == [message.format(rows="all 2 rows")]
    folder = write(tmp_path / "raw", train=rows[:1], test=test)
    assert refuse(recipe, folder, tmp_path / "out") == [message.format(rows="its only row")]
    folder = write(tmp_path / "raw", train=[question(n, title="T") for n in range(2)])
    folder = write(folder, test=[question("t", title="U")])
    questions = replace(QA, options=QUESTION_WITH_TITLE, carve_validation=1 - 1e-9)
    (problem,) = refuse(questions, folder, tmp_path / "out")
    assert "is empty, because all 2 rows are one group, 'T', and a group stays" in problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tags": ["B-V"]},
            "2 tokens with 1 tag; each token needs one tag, and a sentence needs at least one "
            "token",
        ),
        (
            {"predicate": 1},
            "predicate 1 of 2 tokens, but B-V is at [0]; "
            "set predicate to the first token of the only span V",
        ),
        ({"predicate": 7}, "predicate 7 of 2 tokens, but B-V is at [0]"),
        ({"tags": ["O", "O"]}, "predicate 0 of 2 tokens, but B-V is at no token"),
        ({"tags": ["B-V", "B-ARG9"]}, "token 1 'b' has label 'ARG9', "),
    ],
)
def test_invalid_predicates_are_refused(changes: dict[str, Any], message: str) -> None:
    from pipeline.errors import Problems

    problems = Problems()
    row = {
        "id": "1",
        "where": "f:1",
        "tokens": ["a", "b"],
        "predicate": 0,
        "tags": ["B-V", "O"],
    } | changes
    assert task_named("semantic_role_labeling").example(row, SRL.labels, problems) is None
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert str(caught.value).startswith(f"f:1: {message}")


def test_corpus_is_read_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for split, size in (("train", 20), ("validation", 3)):
        rows = [
            {
                "id": f"{split} {i}",
                "title": f"T{i}",
                "context": "A cat.",
                "question": "What?",
                "answers": {"text": ["cat"], "answer_start": [2]},
            }
            for i in range(size)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / f"{split}.parquet")
    hub = Hub(str(tmp_path / "set"), "0" * 40, Splits("train", "validation"))
    recipe, work = replace(QA, hub=hub, options=QUESTION_WITH_TITLE), tmp_path / "work"
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("datasets.load_dataset", Mock(side_effect=ConnectionError("no route")))
        with pytest.raises(UserError, match="cannot be read: no route; check the network"):
            prepare(recipe, None, output, work=work)
    # An unreachable hub is not recorded in the finished chunks.
    rows = prepare(recipe, None, output, work=work)[0]["rows"]
    assert (rows["train"] + rows["validation"], rows["test"]) == (20, 3)
    assert refuse(QA, None, tmp_path / "none") == [
        "data_recipes/ours.yaml: hub is missing; add it, or set a folder as the corpus's source in "
        "params.yaml (--folder of `deep-prompt check`)"
    ]


def with_partial_train_file(recipe: Recipe) -> Recipe:
    """SQuAD's recipe for the shortened training file of the test data."""
    train = str(recipe.files.train).replace(".json", "-part.json")
    return replace(recipe, files=Splits(train, recipe.files.test))


def entities(summary: dict[str, Any]) -> list[int]:
    return [
        sum(summary["label_counts"][split].values()) for split in ("train", "validation", "test")
    ]


@pytest.mark.parametrize(
    ("corpus", "folder", "rows", "check"),
    [
        (
            "conll2003",
            "ner/conll2003",
            [14041, 3250, 3453],
            lambda s: entities(s) == [23499, 5942, 5648],
        ),
        ("wnut17", "ner/wnut17", [3394, 1009, 1287], lambda s: entities(s) == [1975, 836, 1079]),
        (
            "propbank_ewt",
            "srl/ewt",
            [40423, 4960, 4795],
            lambda s: len(set().union(*s["label_counts"].values())) == 60,
        ),
        (
            "squad",
            "qa/squad",
            [11877, 0, 10570],
            lambda s: set().union(*s["label_counts"].values()) == {"answerable"},
        ),
        (
            "squad_v2",
            "qa/squad_v2",
            [4719, 0, 11873],
            lambda s: s["label_counts"]["test"]["unanswerable"] == 5945,
        ),
    ],
)
def test_public_corpora_have_their_published_sizes(
    corpus: str,
    folder: str,
    rows: list[int],
    check: Callable[[dict[str, Any]], bool],
    tmp_path: Path,
) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is absent")
    recipe = load_recipe(ROOT / "data_recipes" / f"{corpus}.yaml")
    if recipe.carve_validation:
        recipe = with_partial_train_file(recipe)
    summary, _ = prepare(recipe, DATA / folder, tmp_path / "out")
    train, validation, test = (summary["rows"][split] for split in ("train", "validation", "test"))
    if recipe.carve_validation:
        assert validation > 400
        train, validation = train + validation, 0
    assert [train, validation, test] == rows
    assert check(summary)


@pytest.mark.parametrize(
    ("corpus", "folder", "rows"),
    [
        ("cb", "CB", [225, 56]),
        ("copa", "COPA", [373, 100]),
        ("rte", "RTE", [2490, 277]),
        ("rte_words", "RTE", [2490, 277]),
        ("wic", "WiC", [5428, 638]),
        ("wsc", "WSC", [554, 104]),
    ],
)
def test_superglue_is_complete_and_its_carved_validation_split_is_disjoint(
    corpus: str, folder: str, rows: list[int], tmp_path: Path
) -> None:
    raw = DATA / "classification" / folder
    if not raw.is_dir():
        pytest.skip(f"{raw} is absent")
    recipe = load_recipe(ROOT / "data_recipes" / f"{corpus}.yaml")
    counts = prepare(recipe, raw, tmp_path / "out")[0]["rows"]
    assert [counts["train"] + counts["validation"], counts["test"]] == rows
    task = task_named(recipe.task)

    def texts(_: str, split: str) -> Iterator[str]:
        return (
            task.text(example)
            for example in read_examples(tmp_path / "out" / f"{split}.parquet", task)
        )

    assert not [
        leak
        for leak in find_leaks([corpus], texts).pairs
        if leak["split"] == "validation" and leak["equal"]
    ]


def test_validation_splits_of_both_squads_have_the_same_articles(tmp_path: Path) -> None:
    contexts = {}
    for name in ("squad", "squad_v2"):
        if not (DATA / "qa" / name).is_dir():
            pytest.skip(f"{DATA / 'qa' / name} is absent")
        recipe = with_partial_train_file(load_recipe(ROOT / "data_recipes" / f"{name}.yaml"))
        prepare(recipe, DATA / "qa" / name, tmp_path / name)
        for split in ("train", "validation"):
            examples = read_examples(
                tmp_path / name / f"{split}.parquet", task_named("span_extraction")
            )
            contexts[name, split] = {example.context for example in examples}
    assert contexts["squad", "train"].isdisjoint(contexts["squad_v2", "validation"])
    assert contexts["squad", "validation"].isdisjoint(contexts["squad_v2", "train"])
    assert contexts["squad", "validation"] & contexts["squad_v2", "validation"]


@pytest.mark.parametrize("kind", ["ner", "qa", "srl"])
def test_generated_corpora_are_prepared_completely(kind: Any, tmp_path: Path) -> None:
    from pipeline.world import write_corpus

    sizes = write_corpus(kind, tmp_path / "raw", 300, 0)
    summary, _ = prepare(
        load_recipe(ROOT / "data_recipes" / f"world_{kind}.yaml"),
        tmp_path / "raw",
        tmp_path / "out",
    )
    assert all(summary["rows"][split] >= size for split, size in sizes.items())
