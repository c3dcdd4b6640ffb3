"""The reader of T-REx: facts, and the templates of their relations."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.leakage import find_leaks
from pipeline.data.prepare import prepare
from pipeline.data.readers import READERS
from pipeline.data.readers.trex_jsonl import SKIPPED_FACTS, Options
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row
from pipeline.tasks.knowledge_probing import TASK, Example
from pipeline.tasks.shared.cloze_templates import template_problem
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data")) / "knowledge" / "trex"
ALL = Options()
BORN = {"relation": "P19", "label": "born", "type": "N-1", "template": "[X] was born in [Y] ."}
BORN |= {"paraphrases": ["[X] is from [Y].", "[X] was born in [Y].", "[Y] bore [X]."]}
ADA = {"relation": "P19", "subject": "Ada", "object": "London"}


def read(
    folder: Path, *facts: object, relations: list[Any] | None = None, options: Options = ALL
) -> tuple[list[Row], Problems]:
    problems = Problems()
    for name, values in (
        ("facts", facts),
        ("relations", [BORN] if relations is None else relations),
    ):
        text = "\n".join(map(json.dumps, values))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    reader = READERS["trex_jsonl"]
    rows = list(reader.read(folder / "facts.jsonl", options, problems))
    reader.check_options(options, "recipe", problems)
    return rows, problems


def test_a_fact_makes_a_row_with_the_templates_of_its_relation(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, ADA)
    assert not problems.counts
    assert rows == [
        {
            "where": f"{tmp_path}/facts.jsonl:1",
            **ADA,
            "template": "[X] was born in [Y].",
            "paraphrases": ["[X] is from [Y].", "[Y] bore [X]."],
        }
    ]


def test_facts_of_other_relations_are_skipped_and_counted(tmp_path: Path) -> None:
    other = {**ADA, "relation": "P20"}
    options = Options(relations=("P19", "P36"))
    rows, problems = read(tmp_path, ADA, other, other, options=options)
    assert len(rows) == 1
    assert problems.skipped == {SKIPPED_FACTS: 2}
    assert problems.counts == {"unmatched-option": 1}
    assert "no fact has the relation 'P36'" in problems.kept[0].message


@pytest.mark.parametrize(
    ("fact", "relations", "kind"),
    [
        ({**ADA, "relation": "P20"}, None, "unknown-relation"),
        ({**ADA, "object": 7}, None, "wrong-type"),
        ({"relation": "P19", "subject": "Ada"}, None, "missing-key"),
        (ADA, [{"relation": "P19", "paraphrases": []}], "missing-key"),
        (ADA, [{**BORN, "paraphrases": [3]}], "wrong-type"),
    ],
)
def test_invalid_lines_are_problems(
    tmp_path: Path, fact: object, relations: list[Any] | None, kind: str
) -> None:
    rows, problems = read(tmp_path, fact, relations=relations)
    assert not rows
    assert kind in problems.counts


def test_a_relation_has_one_line(tmp_path: Path) -> None:
    other = {**BORN, "template": "[X] is from [Y]."}
    rows, problems = read(tmp_path, ADA, relations=[BORN, other])
    assert rows[0]["template"] == "[X] was born in [Y]."
    assert problems.counts == {"repeated-relation": 1}
    assert problems.kept[0].message.endswith(
        "relation 'P19' is in an earlier line too; remove one of the two"
    )


def test_facts_without_a_file_of_relations_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text(json.dumps(ADA))
    problems = Problems()
    assert not list(READERS["trex_jsonl"].read(tmp_path / "facts.jsonl", Options(), problems))
    assert problems.counts == {"missing-file": 1}
    assert problems.hiding


@pytest.fixture(scope="module")
def trex() -> dict[str, list[Example]]:
    """The examples of the real corpus by split."""
    if not DATA.is_dir():
        pytest.skip(f"no T-REx in {DATA}")
    recipe = load_recipe(ROOT / "data_recipes/trex.yaml")
    reader, problems, result = READERS[recipe.reader], Problems(), dict[str, list[Example]]()
    for split in ("train", "validation", "test"):
        (name,) = recipe.files.of(split)
        rows = reader.read(DATA / name, recipe.options, problems)
        examples = [TASK.example({"id": "", **row}, (), problems) for row in rows]
        result[split] = [example for example in examples if example is not None]
    assert not problems.counts
    return result


def test_the_real_corpus_is_read_as_a_whole(trex: dict[str, list[Example]]) -> None:
    sizes = {split: len(examples) for split, examples in trex.items()}
    assert sizes == {"train": 31115, "validation": 7777, "test": 29411}
    by_relation = {example.relation: example for example in trex["test"]}
    assert len(by_relation) == 41
    texts = [text for example in by_relation.values() for text in example.paraphrases]
    counts = Counter(template_problem(text) is None for text in texts)
    assert counts[False] == 67, "these ask for what precedes their subject"


def test_no_fact_of_the_real_corpus_is_in_two_splits(tmp_path: Path) -> None:
    """7 facts of train and 4 of dev are in test too, and 398 others of train are in dev."""
    if not DATA.is_dir():
        pytest.skip(f"no T-REx in {DATA}")
    recipe = load_recipe(ROOT / "data_recipes/trex.yaml")
    summary, lines = prepare(recipe, DATA, tmp_path / "trex")
    assert summary["rows"] == {"train": 31115 - 405, "validation": 7777 - 4, "test": 29411}
    assert summary["problems"] == {"shared-row": 409}
    assert lines[0] == "shared-row: 409"
    assert len(summary["classes"]) == 18012 + 41, "objects and templates"


def test_mix_finds_the_facts_of_test_in_training(trex: dict[str, list[Example]]) -> None:
    """7 facts of train and 4 of dev are in test too; some others differ in case only."""
    facts = {
        split: [(e.relation, e.subject, e.object) for e in examples]
        for split, examples in trex.items()
    }
    test = set(facts["test"])
    assert sum(fact in test for fact in facts["train"]) == 7
    assert sum(fact in test for fact in facts["validation"]) == 4

    def leaks(train: str) -> dict[str, int]:
        splits = {"train": train, "validation": "none", "test": "test"}
        found = find_leaks(["trex"], lambda _, split: map(TASK.text, trex.get(splits[split], ())))
        (pair,) = found.pairs
        assert pair["split"] == "test"
        texts = [facts[train][row] for row in found.train_rows["trex"]]
        return {
            "all": len(texts),
            "exact": sum(fact in test for fact in texts),
            "contained": pair["contained"],
        }

    assert leaks("train") == {"all": 9, "exact": 7, "contained": 0}
    assert leaks("validation") == {"all": 5, "exact": 4, "contained": 0}
