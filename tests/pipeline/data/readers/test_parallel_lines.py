"""The reader of parallel files: words, slot tags and intents, line by line."""

import os
from pathlib import Path

import pytest

from pipeline.data.readers import READERS
from pipeline.data.readers.parallel_lines import Options, companion_files
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.tasks.base.row import TAG_PROBLEMS, Row
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data")) / "dialogue" / "atis"
WORDS = "fly to new york\ncheap fares\n\n"
TAGS = "O O B-city I-city\nB-cost O\n\n"
INTENTS = "flight\nfare\n\n"


def read(folder: Path, words: str, tags: str, intents: str) -> tuple[list[Row], Problems]:
    for name, text in (("seq.in", words), ("seq.out", tags), ("label", intents)):
        (folder / name).write_text(text, encoding="utf-8")
    problems = Problems()
    rows = READERS["parallel_lines"].read(folder / "seq.in", Options(), problems)
    return list(rows), problems


def test_a_line_of_each_file_makes_a_row(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, WORDS, TAGS, INTENTS)
    assert not problems.counts
    assert rows == [
        {
            "where": f"{tmp_path}/seq.in:1",
            "tokens": ["fly", "to", "new", "york"],
            "tags": ["O", "O", "B-city", "I-city"],
            "intent": "flight",
        },
        {
            "where": f"{tmp_path}/seq.in:2",
            "tokens": ["cheap", "fares"],
            "tags": ["B-cost", "O"],
            "intent": "fare",
        },
    ]


@pytest.mark.parametrize(
    ("words", "tags", "intents", "where"),
    [
        (WORDS.replace("cheap fares", ""), TAGS, INTENTS, "seq.out:2"),
        (WORDS, TAGS, INTENTS.replace("fare", " "), "seq.in:2"),
        (WORDS, TAGS + "O O\n", INTENTS, "seq.out:4"),
        (WORDS.rstrip() + "\na b\n", TAGS.rstrip(), INTENTS.rstrip(), "seq.in:3"),
    ],
)
def test_files_with_different_lines_are_an_error(
    words: str, tags: str, intents: str, where: str, tmp_path: Path
) -> None:
    _, problems = read(tmp_path, words, tags, intents)
    assert (problems.counts, problems.hiding) == ({"uneven-files": 1}, 1)
    assert str(problems.kept[0]).startswith(f"{tmp_path}/{where}: ")


def test_tags_that_violate_iob2_reject_their_row(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, WORDS, TAGS.replace("O B-city", "O I-town"), INTENTS)
    assert not len(problems)
    assert [row["intent"] for row in rows if TAG_PROBLEMS not in row] == ["fare"]
    found = [problem for row in rows for problem in row.get(TAG_PROBLEMS, ())]
    assert [problem.kind for problem in found] == ["orphan-tag", "orphan-tag"]
    assert str(found[0]).startswith(f"{tmp_path}/seq.out:1: tag 'I-town' continues a span")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    read(tmp_path, WORDS, TAGS, INTENTS)
    (tmp_path / "label").unlink()
    problems, options = Problems(), Options()
    assert list(READERS["parallel_lines"].read(tmp_path / "seq.in", options, problems)) == []
    assert problems.counts == {"missing-file": 1}
    assert companion_files(tmp_path / "seq.in", options) == [tmp_path / "seq.out"]


@pytest.mark.parametrize("name", ["../label", "/etc/passwd", "a/label"])
def test_options_name_files_of_the_same_folder(name: str) -> None:
    with pytest.raises(ValueError, match="must be names of files in the folder"):
        Options(intents=name)


@pytest.mark.skipif(not DATA.exists(), reason="needs the corpora of DATA_ROOT/dialogue")
def test_atis_has_its_published_size() -> None:
    recipe, problems = load_recipe(ROOT / "data_recipes/atis.yaml"), Problems()
    rows = {
        split: [
            row
            for name in recipe.files.of(split)
            for row in READERS[recipe.reader].read(DATA / name, recipe.options, problems)
        ]
        for split in ("train", "validation", "test")
    }
    assert not problems.counts
    assert [len(split) for split in rows.values()] == [4478, 500, 893]
    assert len({row["intent"] for row in rows["train"]}) == 21
