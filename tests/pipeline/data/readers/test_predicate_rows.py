"""conll_props with `rows: sentences`: a task that finds predicates."""

from pathlib import Path

import pytest

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems, UserError
from pipeline.tasks.base.row import Row
from tests.support.paths import ROOT
from tests.support.raw import messages_of

READER = READERS["conll_props"]
OPTIONS = {"token": 2, "first_predicate": 3, "id_columns": [0, 1], "rows": "sentences"}
FILE = """
d 0 She (A0*) (A0*)
d 0 came (V*) *
d 0 to * *
d 0 give * (V*
d 0 up * *)

d 1 Oh

d 2 go (V*) (V*)
"""


def read(text: str, folder: Path) -> tuple[list[Row], Problems]:
    path, problems = folder / "a.conll", Problems()
    path.write_text(text, encoding="utf-8")
    options = parse(READER.options, OPTIONS, "recipe")
    return list(READER.read(path, options, problems)), problems


def test_row_is_a_sentence_with_all_its_predicates(tmp_path: Path) -> None:
    rows, problems = read(FILE, tmp_path)
    assert messages_of(problems) == []
    assert [(row["id"], row["tags"]) for row in rows] == [
        ("d/0", ["O", "B-V", "O", "B-V", "O"]),  # the first token of "give up"
        ("d/1", ["O"]),
        ("d/2", ["B-V"]),
    ]
    assert rows[0]["tokens"] == ["She", "came", "to", "give", "up"]
    assert set(rows[0]) == {"where", "id", *READER.keys(parse(READER.options, OPTIONS, "r"))}
    assert problems.skipped_text() == "predicates at the token of another predicate 1"


def test_sentence_with_a_malformed_predicate_is_a_problem(tmp_path: Path) -> None:
    rows, problems = read("d 0 She (V*) *\n\nd 1 go (V*)\n", tmp_path)
    assert [row["id"] for row in rows] == ["d/1"]
    assert [problem.kind for problem in problems.kept] == ["not-one-predicate"]


@pytest.mark.parametrize("task", ["semantic_role_labeling", "token_classification"])
def test_rows_must_fit_the_task(task: str, tmp_path: Path) -> None:
    text = (ROOT / "data_recipes/propbank_ewt_predicates.yaml").read_text(encoding="utf-8")
    path = tmp_path / "ours.yaml"
    path.write_text(text.replace("token_classification", task), encoding="utf-8")
    if task == "token_classification":
        assert load_recipe(path).labels == ("V",)
        return
    with pytest.raises(UserError, match="needs predicate too"):
        load_recipe(path)


@pytest.mark.parametrize("rows", ["predicate", "all"])
def test_other_values_are_refused(rows: str) -> None:
    with pytest.raises(UserError, match="rows"):
        parse(READER.options, OPTIONS | {"rows": rows}, "recipe")
