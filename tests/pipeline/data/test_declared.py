"""What a recipe declares, its labels and options, is compared with what the files have."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import chunks
from pipeline.data.prepare import CorpusError, prepare
from pipeline.data.readers import conll_columns, conll_props, records
from pipeline.data.readers.base import Splits
from pipeline.data.recipe import Recipe
from pipeline.errors import Problems

FILES = Splits("train.conll", "test.conll", "validation.conll")
LINES = Splits("train.jsonl", "test.jsonl", "validation.jsonl")
COLUMNS = conll_columns.Options(2, 0, 1, "iob2")
MISC = conll_columns.Options(3, 1, 2, "iob2", "\t", token_id=0, feature="NER")


def recipe(task: str, reader: str, files: Splits, options: Any, *labels: str) -> Recipe:
    return Recipe("ours", task, "CC0", "us", reader, files, options, labels)


NER = recipe("token_classification", "conll_columns", FILES, COLUMNS, "PER", "LOC")
SRL = recipe("semantic_role_labeling", "conll_props", FILES, conll_props.Options(0, 1), "V", "ARG0")
CLASSES = recipe("sequence_classification", "records", LINES, records.Options(), "yes", "no")
QA = recipe(
    "span_extraction",
    "records",
    LINES,
    records.Options(dict.fromkeys(["question", "context", "answers"])),
)
ADA, OSLO, NOBODY = "Ada@ B-PER\n\n", "Oslo@ B-LOC\n\n", "nobody@ O\n\n"


def check(
    recipe: Recipe, folder: Path, train: str, validation: str, test: str
) -> tuple[Problems, list[str]]:
    """All problems of the corpus; and the lines of the report, an error or not."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    texts = {"train": train, "validation": validation, "test": test}
    for split, text in texts.items():
        unique = text.replace("@", split)  # splits must not share rows
        (raw / recipe.files.of(split)[0]).write_text(unique, encoding="utf-8")
    problems = Problems()
    try:
        _, lines = prepare(recipe, raw, folder / "out", problems=problems)
    except CorpusError as error:
        lines = list(error.summary)
    return problems, lines


def label(name: str) -> str:
    return json.dumps({"text": f"@ is {name}", "label": name}) + "\n"


def question(*answers: str) -> str:
    found = [{"text": text, "answer_start": 0} for text in answers]
    return json.dumps({"question": "Who in @?", "context": "Ada ran.", "answers": found}) + "\n"


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (ADA, "label 'LOC' never occurs; the corpus has PER: correct the label, or remove it"),
        (
            ADA.replace("PER", "LOC"),
            "label 'PER' occurs 1 time in train but never in test, so its score is unknown",
        ),
    ],
)
def test_declared_label_that_never_occurs_adds_a_warning(
    test: str, message: str, tmp_path: Path
) -> None:
    train = ADA + OSLO if "LOC" in test else ADA
    problems, lines = check(NER, tmp_path, train, ADA, test)
    assert not len(problems)
    (problem,) = problems.kept
    assert problem.kind == "unused-label"
    assert problem.where == "data_recipes/ours.yaml"
    assert problem.message.startswith(message)
    assert lines[0] == "unused-label: 1 (warning)"


def test_corpus_with_all_labels_has_no_warning(tmp_path: Path) -> None:
    problems, lines = check(NER, tmp_path, ADA + OSLO, NOBODY + ADA, ADA + OSLO)
    assert (problems.counts, lines) == ({}, [])


NO_ROLES, ROLES = "Ada@ *\nran (V*)\n\n", "Ada@ (ARG0*)\nran (V*)\n\n"


@pytest.mark.parametrize(
    ("recipe", "annotated", "empty"),
    [(NER, ADA + OSLO, NOBODY), (SRL, ROLES, NO_ROLES), (QA, question("Ada"), question())],
)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_split_without_annotation_is_refused(
    recipe: Recipe, annotated: str, empty: str, split: str, tmp_path: Path
) -> None:
    """An argument V is part of the input, and a constant "no answer" is no annotation."""
    files = dict.fromkeys(("train", "validation", "test"), annotated) | {split: empty}
    problems, _ = check(recipe, tmp_path, **files)
    kind = "nothing-to-learn" if split == "train" else "nothing-to-score"
    assert problems.counts[kind] == 1
    message = next(str(problem) for problem in problems.kept if problem.kind == kind)
    assert f"split {split!r}: none of the labels (" in message
    with pytest.raises(CorpusError, match=kind):
        prepare(recipe, tmp_path / "raw", tmp_path / "refused")
    allow: Any = (kind, "unseen-label")
    prepare(replace(recipe, allow=allow), tmp_path / "raw", tmp_path / "allowed")


def test_questions_without_answers_have_nothing_to_learn(tmp_path: Path) -> None:
    """The recipe has no labels, so none is unused."""
    problems, _ = check(QA, tmp_path, question(), question(), question())
    assert problems.counts == {"nothing-to-learn": 1, "nothing-to-score": 2}


def test_classification_with_a_single_label_has_nothing_to_learn(tmp_path: Path) -> None:
    problems, _ = check(CLASSES, tmp_path, label("yes"), label("yes"), label("yes"))
    assert problems.counts == {"nothing-to-learn": 1, "unused-label": 1}
    assert problems.kept[0].message.startswith(
        "split 'train': only yes of the labels occurs in 1 row, so nothing can be learned from it;"
    )
    both = label("yes") + label("no")
    problems, _ = check(CLASSES, tmp_path, both, label("yes"), both)
    assert problems.counts == {}


def test_annotations_are_not_checked_in_splits_with_rejected_rows(tmp_path: Path) -> None:
    """The rejected rows may have the annotations."""
    problems, _ = check(NER, tmp_path, ADA + OSLO, ADA, "Ada@ S-PER\n\n" + NOBODY)
    assert problems.counts == {"ill-formed-tag": 1}


def token(number: int, word: str, features: str) -> str:
    return f"{number}\t{word}\t{features}\n"


def test_feature_that_no_token_has_is_an_error(tmp_path: Path) -> None:
    text = token(1, "Ada@", "Gloss=Ada|ner=B-PER") + token(2, "ran", "_")
    ours = replace(NER, options=MISC, labels=("PER",))
    problems, _ = check(ours, tmp_path, text, text, text)
    assert problems.counts == {
        "absent-feature": 1,
        "nothing-to-learn": 1,
        "nothing-to-score": 2,
        "unused-label": 1,
    }
    message = next(problem.message for problem in problems.kept if "feature" in problem.kind)
    assert "no token has the feature 'NER' in column 2, which has Gloss, ner" in message
    with pytest.raises(CorpusError, match="no token has the feature 'NER'"):
        prepare(ours, tmp_path / "raw", tmp_path / "refused")
    valid = text.replace("ner=", "NER=")
    problems, _ = check(ours, tmp_path, valid, valid, valid)
    assert problems.counts == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"comment": "%"}, "comment: no line is skipped because it begins with '%'"),
        ({"document_mark": "#doc"}, "document_mark: no line is skipped because it begins with"),
        ({"token_id": 0}, "token_id: no line has an id (1, 1-2 or 1.1) in column 0"),
    ],
)
def test_option_that_matches_nothing_adds_a_warning(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    ours = replace(NER, options=replace(COLUMNS, **options))
    problems, lines = check(ours, tmp_path, ADA + OSLO, ADA, ADA + OSLO)
    assert problems.counts == {"unmatched-option": 1}
    assert problems.kept[0].message.startswith(message)
    assert lines[0] == "unmatched-option: 1 (warning)"


@pytest.mark.parametrize("options", [{"comment": "%"}, {"document_mark": "%"}])
def test_option_that_matches_in_one_split_is_not_reported(
    options: dict[str, Any], tmp_path: Path
) -> None:
    for ours in (
        replace(NER, options=replace(COLUMNS, **options)),
        replace(SRL, options=replace(SRL.options, **options)),
    ):
        text = ADA + OSLO if ours.task == NER.task else ROLES
        problems, lines = check(ours, tmp_path, text, text, f"% id 1 en\n{text}")
        assert problems.counts == {}
        assert lines == (["skipped: comment lines 1"] if "comment" in options else [])
        problems, _ = check(ours, tmp_path, text, text, text)
        assert problems.counts == {"unmatched-option": 1}


def test_names_that_match_no_label_add_a_warning(tmp_path: Path) -> None:
    names = {"1": "yes", "True": "yes", "0": "no", "2": "maybe"}
    ours = replace(CLASSES, options=records.Options(names=names))
    rows = [{"text": f"@ {n}", "label": value} for n, value in enumerate([1, 0, True, "no"])]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    problems, _ = check(ours, tmp_path, text, text, text)
    assert problems.counts["unmatched-option"] == 1
    messages = [problem.message for problem in problems.kept]
    assert any("names: no label or tag is '2'; correct" in message for message in messages)


def test_names_match_labels_in_all_their_forms(tmp_path: Path) -> None:
    """As the renaming does: booleans as in JSON, and 1.0 as 1."""
    for number, (names, labels) in enumerate(
        [({"true": "yes", "false": "no"}, [True, False]), ({"1": "yes", "0": "no"}, ["1.0", 0])]
    ):
        ours = replace(CLASSES, options=records.Options(names=names))
        rows = [{"text": f"@ {n}", "label": value} for n, value in enumerate(labels)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        folder = tmp_path / str(number)
        folder.mkdir()
        problems, _ = check(ours, folder, text, text, text)
        assert not problems.counts["unmatched-option"]


def test_a_row_with_several_errors_is_one_dropped_row(tmp_path: Path) -> None:
    answers = [{"text": "x", "answer_start": start} for start in ("a", "b", "c")]
    rows = [
        {"question": f"Who {n}?", "context": "Ada ran. @", "answers": answers if n == 9 else []}
        for n in range(10)
    ]
    rows[0]["answers"] = [{"text": "Ada", "answer_start": 0}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    ours = replace(QA, on_problem="drop", max_dropped="10%")
    _, lines = check(ours, tmp_path, text, text, text)
    assert not any("would be dropped" in line for line in lines)


def test_a_long_sentence_is_warned_of_once(tmp_path: Path) -> None:
    long = "".join(f"word{n} O\n" for n in range(300)) + "Ada@ B-PER\n\n"
    problems, _ = check(NER, tmp_path, long, ADA + OSLO, ADA + OSLO)
    assert problems.counts["long-sentence"] == 1


def test_options_are_compared_with_all_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result does not depend on the size of the chunks."""
    text = "".join(f"1\tname{n}\tGloss=x\n\n" for n in range(40))
    last = "# id\n1-2\tA\t_\n1\tAda@\tNER=B-PER\n2\tran\t_\n\n"
    ours = replace(NER, options=replace(MISC, comment="#"), labels=("PER",))
    results = []
    for size in (1 << 20, 50):
        monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
        monkeypatch.setattr("pipeline.data.prepare.CHUNK_BYTES", size)
        problems, lines = check(ours, tmp_path, text + last, last, last)
        results.append((problems.kept, problems.counts, lines))
    assert results[0] == results[1]
    assert results[0][1] == {}
    assert results[0][2] == ["skipped: comment lines 3, multiword ranges (1-2) 3"]


@pytest.mark.parametrize("size", [30, 31])
def test_file_with_a_single_long_sentence_adds_a_warning(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 20)
    sentence = ADA.strip() + "\nran O" * (size - 1) + "\n\n" * 20
    ours = replace(NER, labels=("PER",))
    problems, _ = check(ours, tmp_path, sentence, ADA, ADA)
    assert problems.counts == ({"long-sentence": 1} if size > 30 else {})
    if size > 30:
        assert problems.kept[0].where.endswith("train.conll")
        assert "the whole file is one sentence of 31 words" in problems.kept[0].message
    problems, _ = check(ours, tmp_path, sentence + ADA, ADA, ADA)
    assert problems.counts == {}
