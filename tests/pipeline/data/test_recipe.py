"""Recipes: those in data_recipes load, and each error has the key, the value and the remedy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.data.readers.conll_columns import Options
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import UserError
from pipeline.tasks import task_named
from tests.support.paths import ROOT

RECIPES = sorted((ROOT / "data_recipes").glob("*.yaml"))
NER = {
    "task": "token_classification",
    "license": "CC0",
    "source": "ours",
    "reader": "conll_columns",
    "options": {"columns": 2, "token": 0, "tag": 1, "tag_scheme": "iob2"},
    "files": {
        "train": "train.conll",
        "validation": "dev.conll",
        "test": ["test.conll", "more.conll"],
    },
    "labels": ["PER", "LOC"],
}
QA = {
    "task": "span_extraction",
    "license": "CC0",
    "source": "ours",
    "reader": "records",
    "options": {"fields": dict.fromkeys(["context", "question", "answers"])},
    "files": {"train": "a.jsonl", "test": "c.jsonl"},
    "carve_validation": 0.1,
}
HUB = {"id": "a/b", "revision": "0" * 40, "splits": {"train": "train", "test": "validation"}}


def load(folder: Path, values: Mapping[str, Any]) -> Recipe:
    path = folder / "ours.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(
            {key: value for key, value in values.items() if value is not None}, file
        )
    return load_recipe(path)


def refuse(folder: Path, values: Mapping[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(folder, values)
    return [problem.removeprefix(str(folder) + "/") for problem in caught.value.problems]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_project_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    task = task_named(recipe.task)
    assert bool(task.classes(recipe.labels)) == (task.head != "language_model")


def test_split_by_is_a_key_of_the_rows_of_a_carved_corpus(tmp_path: Path) -> None:
    squad = QA | {"reader": "squad_json", "options": {}, "split_by": "title"}
    assert load(tmp_path, squad).split_by == "title"  # only some rows have it
    recipe = load(tmp_path, QA | {"split_by": "context"})
    assert recipe.split_group({"where": "", "context": 3, "question": "q"}) == "3"
    assert refuse(tmp_path, QA | {"split_by": "titel"})[0].startswith(
        "ours.yaml: split_by: 'titel' is not a key of the rows; use one of answers, context"
    )
    assert refuse(tmp_path, NER | {"split_by": "tokens"}) == [
        "ours.yaml: split_by: no split is carved out of the training split; remove it"
    ]


def test_path_is_that_of_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, NER).location == str(tmp_path / "ours.yaml")
    assert refuse(tmp_path, NER | {"path": "x"}) == [
        "ours.yaml: key 'path' is not allowed, because it is that file; remove it"
    ]


def test_squad_recipes_carve_the_same_articles() -> None:
    first, second = (load_recipe(path) for path in RECIPES if path.stem in ("squad", "squad_v2"))
    assert (first.carve_validation, first.seed) == (second.carve_validation, second.seed)


def test_recipe_has_the_values_of_its_file(tmp_path: Path) -> None:
    recipe = load(tmp_path, NER)
    assert recipe.name == "ours"
    assert recipe.options == Options(2, 0, 1, "iob2")
    assert recipe.labels == ("PER", "LOC")
    assert [recipe.files.of(split) for split in ("train", "validation", "test")] == [
        ("train.conll",),
        ("dev.conll",),
        ("test.conll", "more.conll"),
    ]
    carved = load(tmp_path, QA | {"hub": HUB})
    assert carved.files.of("validation") == ()
    assert carved.hub is not None
    assert carved.hub.splits.of("test") == ("validation",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "token_clasification"},
            "ours.yaml: task: 'token_clasification' is unknown; "
            "did you mean 'token_classification'?",
        ),
        (
            {"reader": "conll_colums"},
            "ours.yaml: reader: 'conll_colums' is unknown; did you mean 'conll_columns'?",
        ),
        (
            {"reader": "squad_json", "options": None},
            "ours.yaml: reader: the rows of 'squad_json' have answers, context, id, question, "
            "but token_classification needs tokens, tags too; correct the reader",
        ),
        (
            {"reader": "records", "options": {"fields": dict.fromkeys(["tokens", "tag", "tags"])}},
            "ours.yaml: options: fields: 'tag' is not a key of a row of the task; did you mean "
            "'tags'",
        ),
        ({"licence": "CC0"}, "ours.yaml: unknown key 'licence'; did you mean 'license'?"),
        ({"license": None}, "ours.yaml: key 'license' is missing; add it (text)"),
        (
            {"name": "other"},
            "ours.yaml: key 'name' is not allowed, because the file name gives the name ('ours'); "
            "remove it",
        ),
        ({"labels": None}, "ours.yaml: labels: the task needs the list of its labels; add it"),
        (
            {"labels": ["PER", "LOC", "PER"]},
            "ours.yaml: labels: 'PER' occurs twice; remove one of them",
        ),
        (
            {"labels": ["B-PER"]},
            "ours.yaml: labels: 'B-PER' is a tag, not a label; "
            "leave out O and the prefixes B- and I-",
        ),
        (
            {"files": {"train": "a", "test": "b"}},
            "ours.yaml: files: validation is missing; add it, or carve_validation: 0.1 to carve "
            "it out of the training split",
        ),
        (
            {"files": {"train": 3, "validation": "b", "test": "b"}},
            "ours.yaml: files: train: found an integer 3, expected text or a",
        ),
        (
            {"files": {"train": "a", "dev": "b", "test": "b"}},
            "ours.yaml: files: unknown key 'dev'; use one of test, train, valid",
        ),
        (
            {"carve_validation": 0.1},
            "ours.yaml: carve_validation: files or hub already has a validation split; "
            "remove one of them",
        ),
        (
            {"carve_validation": 10},
            "ours.yaml: carve_validation: 10.0 is out of range; write a fraction between 0 and 1",
        ),
        (
            {"on_problem": "warn"},
            "ours.yaml: on_problem: 'warn' is not one of the allowed values; use one of drop, fail",
        ),
        (
            {"allow": ["unseen-lable"]},
            "ours.yaml: allow[0]: 'unseen-lable' is not one of the allowed values "
            "(conflicting-labels, nothing-to-learn, nothing-to-score, shared-row, split-group, "
            "unseen-label); "
            "did you mean 'unseen-label'?",
        ),
        (
            {"max_dropped": "many"},
            "ours.yaml: max_dropped: 'many' is not a fraction of the rows; "
            "write e.g. 0.1% or 0.001",
        ),
        (
            {"max_dropped": 1.5},
            "ours.yaml: max_dropped: 1.5 is not a fraction of the rows; write e.g. 0.1% or 0.001",
        ),
        (
            {"options": NER["options"] | {"separater": " "}},  # type: ignore[operator]
            "ours.yaml: options: unknown key 'separater'; did you mean 'separator'?",
        ),
        (
            {"options": None},
            "ours.yaml: options: key 'columns' is missing; add it (an integer or one of auto)",
        ),
        (
            {"metric": "f2"},
            "ours.yaml: metric: 'f2' is not a metric of token_classification; "
            "use one of f1, precision, recall",
        ),
        (
            {"words": {"PER": "who"}},
            "ours.yaml: words: token_classification does not use words; remove the key",
        ),
        (
            {"hub": HUB | {"revision": "main"}},
            "ours.yaml: hub: revision: 'main' is not a commit (40 hexadecimal digits)",
        ),
        ({"hub": HUB}, "ours.yaml: files: validation is missing"),
    ],
)
def test_errors_of_a_recipe_have_key_value_and_remedy(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert refuse(tmp_path, NER | changes)[0].startswith(message)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("bio", "iob2"),
        ("BIO", "iob2"),
        ("bio2", "iob2"),
        ("iob", "iob1"),
        ("iobes", "bioes"),
        ("biluo", "bilou"),
    ],
)
def test_other_names_of_tag_schemes_are_understood(name: str, scheme: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"columns": 2, "token": 0, "tag": 1, "tag_scheme": name}
    assert refuse(tmp_path, NER | {"options": options}) == [
        f"ours.yaml: options: tag_scheme: {name!r} is not one of the allowed values (auto, bilou, "
        f"bioes, brackets, iob1, iob2); did you mean {scheme!r}?"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"files": {"train": "a"}},
            "files: test is missing; "
            "add it, or carve_test: 0.1 to carve it out of the training split",
        ),
        (
            {"carve_test": 0.1},
            "carve_test: files or hub already has a test split; remove one of them",
        ),
        (
            {"files": {"train": "a"}, "carve_test": 1},
            "carve_test: 1.0 is out of range; write a fraction between 0 and 1",
        ),
        (
            {"files": {"train": "a"}, "carve_test": 0.5, "carve_validation": 0.5},
            "carve_validation and carve_test leave no training rows; decrease them",
        ),
    ],
)
def test_errors_of_carving_have_key_value_and_remedy(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert refuse(tmp_path, QA | changes)[0].startswith(f"ours.yaml: {message}")


def test_carved_splits_are_independent(tmp_path: Path) -> None:
    """A carved test split moves no validation row, and a greater fraction keeps all rows."""
    fractions = [(0.1, None), (0.1, 0.2), (0.3, 0.2)]
    groups: list[dict[str, set[str]]] = []
    for validation, test in fractions:
        files = {"train": "a"} | ({} if test else {"test": "c"})
        recipe = load(
            tmp_path, QA | {"files": files, "carve_validation": validation, "carve_test": test}
        )
        by_split: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
        for group in map(str, range(3000)):
            by_split[recipe.assign_split(group)].add(group)
        groups.append(by_split)
    assert groups[0]["validation"] == groups[1]["validation"] < groups[2]["validation"]
    assert groups[1]["test"] == groups[2]["test"]
    assert [len(groups[2][split]) for split in ("validation", "test")] == [
        pytest.approx(900, abs=90),
        pytest.approx(600, abs=90),
    ]


def test_errors_of_a_recipe_of_questions_have_key_and_remedy(tmp_path: Path) -> None:
    assert refuse(tmp_path, QA | {"labels": ["X"]}) == [
        "ours.yaml: labels: the task has no labels; remove the key"
    ]
    assert refuse(tmp_path, QA | {"options": {"colums": 2}}) == [
        "ours.yaml: options: unknown key 'colums'; did you mean 'columns'?"
    ]


def test_all_errors_of_a_recipe_are_reported_at_once(tmp_path: Path) -> None:
    problems = refuse(
        tmp_path, NER | {"task": "ner", "reader": "conll", "seed": "x", "source": None}
    )
    assert len(problems) == 4


def test_the_name_of_a_recipe_can_be_that_of_a_task(tmp_path: Path) -> None:
    path = tmp_path / "my corpus.yaml"
    YAML().dump(NER, path)
    with pytest.raises(UserError, match=r"the name 'my corpus' has other characters than letters"):
        load_recipe(path)
