"""docs/formats.md: each recipe reads the files below it to the rows below them.

The page explains all options.
"""

import contextlib
import dataclasses
import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from pipeline.data.readers import READERS
from pipeline.data.readers.base import matching_files
from pipeline.data.readers.hub import Hub
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems, UserError
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.row import COMMON_KEYS, Row
from pipeline.words import RULES
from tests.support.paths import ROOT
from tests.support.raw import compress, messages_of, without_where

PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    """The lines of a recipe, the files below it, and their rows as JSON values."""

    recipe: str
    files: dict[str, str]
    rows: str


def examples() -> list[Example]:
    result: list[Example] = []
    for kind, name, text in re.findall(r"^```(\w+) ?(.*)\n((?:.*\n)*?)^```$", PAGE, re.MULTILINE):
        if kind == "yaml":
            result.append(Example(text, {}, ""))
        elif kind in ("text", "python"):
            result[-1].files[name] = text
        else:
            result[-1] = result[-1]._replace(rows=text)
    return result


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=[str(number) for number in range(len(EXAMPLES))])
def test_example_reads_to_its_rows(example: Example, tmp_path: Path) -> None:
    values = YAML(typ="safe").load(example.recipe) | {"license": "CC0", "source": "ours"}
    path = tmp_path / "ours.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)
    for name, text in example.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(compress(text.encode(), Path(name).suffix))
        if name.endswith(".py"):  # it writes binary files
            run_python(tmp_path / name)
    recipe, _ = load_recipe(path).resolve_auto(tmp_path)
    problems = Problems()
    rows: list[Row] = []
    for name in recipe.files.of("train"):
        for file in matching_files(tmp_path, name):
            rows += READERS[recipe.reader].read(file, recipe.options, problems)
    assert messages_of(problems) == []
    assert without_where(rows) == json_values(example.rows)


def run_python(path: Path) -> None:
    """Run a program of the page in its folder; skips the test if spaCy is missing."""
    if "spacy" in path.read_text(encoding="utf-8"):
        pytest.importorskip("spacy")
    with contextlib.chdir(path.parent):
        runpy.run_path(str(path))


def json_values(text: str) -> list[Any]:
    """The JSON values of a text; white space separates them."""
    values, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


def test_page_has_examples() -> None:
    assert len(EXAMPLES) > 12
    assert sum(bool(example.rows) for example in EXAMPLES) >= len(EXAMPLES) - 2


def exports() -> list[tuple[str, str]]:
    """The table of exports: the tool, and the lines of its recipe."""
    table = PAGE.split("| your tool's export | recipe |\n|---|---|\n")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", table, re.MULTILINE)
    assert len(rows) == len(table.splitlines()) > 12
    return rows


@pytest.mark.parametrize(("tool", "lines"), exports())
def test_recipe_of_an_export_is_valid(tool: str, lines: str, tmp_path: Path) -> None:
    """It is valid for at least one type of task."""
    values = {"license": "CC0", "source": "ours", "files": {"train": "train.jsonl"}}
    values |= {"carve_validation": 0.1, "carve_test": 0.1, "labels": ["a", "b"]}
    for code in re.findall(r"`((?:reader|options|files): .*?)`", lines):
        values |= YAML(typ="safe").load(code)
    if "reader" not in values:
        assert "hub:" in lines
        return
    problems = list[str]()
    for name in NAMES:
        path = tmp_path / f"{name}.yaml"
        with path.open("w", encoding="utf-8") as file:
            labeled = values if task_named(name).check_labels(("a", "b")) == [] else {}
            YAML(typ="safe").dump((labeled or values | {"labels": []}) | {"task": name}, file)
        try:
            load_recipe(path)
        except UserError as error:
            problems.append(str(error))
    assert len(problems) < len(NAMES), problems


@pytest.mark.parametrize("name", READERS)
def test_reader_has_a_section_with_all_its_options(name: str) -> None:
    section = re.search(rf"^## {name}\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE)
    assert section, f"docs/formats.md: no section {name}"
    for option in dataclasses.fields(READERS[name].options):
        assert f"`{option.name}`" in section[1], (
            f"docs/formats.md: {name}: {option.name} is not explained"
        )


def test_each_word_rule_is_explained() -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith("| `word_rule` |"))
    assert all(f"`{rule}`" in line for rule in RULES)


def test_table_of_keys_is_that_of_the_tasks() -> None:
    def cell(keys: Mapping[str, str]) -> str:
        return ", ".join(f"`{key}` ({kind})" for key, kind in keys.items())

    declared = {f"`{name}`": task_named(name).row_keys for name in NAMES}
    cells = {
        name: (cell(keys.inputs), cell(keys.targets), cell(keys.optional))
        for name, keys in declared.items()
    }
    cells["any"] = ("", "", cell(COMMON_KEYS))
    lines = [
        f"| {name} |" + "".join(f" {text} |" if text else " |" for text in row)
        for name, row in cells.items()
    ]
    missing = "\n".join(line for line in lines if line not in PAGE.splitlines())
    assert not missing, f"docs/formats.md: add to the table of keys:\n{missing}"


def test_section_of_the_hub_has_all_its_keys() -> None:
    section = PAGE.split("## The hub")[1]
    for option in dataclasses.fields(Hub):
        assert f"{option.name}:" in section
