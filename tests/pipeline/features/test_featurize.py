"""Features made in shards, by any number of processes, are those made in one go."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.prepare import prepare
from pipeline.data.recipe import load_recipe
from pipeline.features import featurize as module
from pipeline.features.featurize import featurize
from pipeline.features.table import LISTS, NUMBERS, FeatureTable
from pipeline.files import sha256
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.sharding import Executor, in_this_process
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples
from pipeline.world import write_corpus
from stages.workers.processes import Processes
from tests.support.paths import ROOT


@pytest.fixture(scope="module", params=["ner", "srl", "qa"])
def corpus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, list[str]]:
    """A generated corpus: its task, the examples of its train split, its classes."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(request.param, folder / "raw", 60, 3)
    recipe = load_recipe(ROOT / "data_recipes" / f"world_{request.param}.yaml")
    summary, _ = prepare(recipe, folder / "raw", folder / "examples")
    return recipe.task, folder / "examples/train.parquet", summary["classes"]


def made(
    corpus: tuple[str, Path, list[str]],
    tokenizer: Tokenizer,
    folder: Path,
    run: Executor = in_this_process,
    max_length: int = 40,
) -> tuple[FeatureTable, Counter[str]]:
    task, examples, classes = corpus
    folder.mkdir()
    rows, counts = featurize(
        examples,
        sha256(examples),
        folder / "table",
        task,
        classes,
        tokenizer,
        max_length,
        8,
        folder / "work",
        run,
    )
    table = FeatureTable(folder / "table")
    assert len(table) == rows
    return table, counts


def columns(table: FeatureTable) -> dict[str, list[Any]]:
    found = {name: getattr(table, name).tolist() for name in NUMBERS}
    return found | {
        name: [table.column(name, row).tolist() for row in range(len(table))] for name in LISTS
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_are_those_of_the_task(
    corpus: tuple[str, Path, list[str]], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    task, examples, classes = corpus
    table, counts = made(corpus, tokenizer, tmp_path / "made")
    wanted: Counter[str] = Counter()
    rows = list(read_examples(examples, task_named(task)))
    features = list(task_named(task).featurize(rows, 0, tokenizer, classes, 40, 8, wanted))
    found = columns(table)
    assert found["examples"] == [feature.example for feature in features]
    assert found["lengths"] == [len(feature.input_ids) for feature in features]
    for name in LISTS:
        assert found[name] == [list(getattr(feature, name)) for feature in features]
    assert +counts == +wanted
    assert (table.tokens, table.longest) == (sum(found["lengths"]), max(found["lengths"]))


def test_shards_and_processes_change_no_byte(
    corpus: tuple[str, Path, list[str]],
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, counts = made(corpus, tokenizer, tmp_path / "whole")
    monkeypatch.setattr(module, "SHARD_EXAMPLES", 9)
    alone, alone_counts = made(corpus, tokenizer, tmp_path / "alone")
    two, two_counts = made(corpus, tokenizer, tmp_path / "two", Processes(2))
    assert len(list((tmp_path / "alone/table").glob("*.arrow"))) > 5
    assert columns(alone) == columns(two) == columns(whole)
    assert contents(tmp_path / "alone/table") == contents(tmp_path / "two/table")
    assert +alone_counts == +two_counts == +counts


def test_other_windows_are_other_shards(
    corpus: tuple[str, Path, list[str]], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """What lies there of a run with other params is not taken for this one's."""
    task, examples, classes = corpus
    tables = []
    for length in (40, 12):
        output = tmp_path / str(length)
        featurize(
            examples,
            sha256(examples),
            output,
            task,
            classes,
            tokenizer,
            length,
            2,
            tmp_path / "work",
        )
        tables.append(FeatureTable(output))
    assert tables[0].longest > 12 >= tables[1].longest


def test_a_process_that_featurizes_loads_no_torch(tmp_path: Path) -> None:
    """It would be half of its memory, and most of its start."""
    check = (
        "import sys, pipeline.features.featurize, stages.workers.processes; "
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
