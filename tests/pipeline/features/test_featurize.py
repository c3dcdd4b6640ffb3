"""Featurization: the table does not depend on the number of shards and processes."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.prepare import prepare
from pipeline.data.recipe import load_recipe
from pipeline.errors import UserError
from pipeline.features import featurize as featurize_module
from pipeline.features.featurize import featurize
from pipeline.features.table import LIST_COLUMNS, NUMBER_COLUMNS, FeatureTable
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
    """A generated corpus: its task, the examples of its training split, its classes."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(request.param, folder / "raw", 60, 3)
    recipe = load_recipe(ROOT / "data_recipes" / f"world_{request.param}.yaml")
    summary, _ = prepare(recipe, folder / "raw", folder / "examples")
    return recipe.task, folder / "examples/train.parquet", summary["classes"]


def featurized(
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
    numbers = {name: getattr(table, name).tolist() for name in NUMBER_COLUMNS}
    return numbers | {
        name: [table.column(name, row).tolist() for row in range(len(table))]
        for name in LIST_COLUMNS
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_table_holds_the_features_of_the_task(
    corpus: tuple[str, Path, list[str]], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    task, examples, classes = corpus
    table, counts = featurized(corpus, tokenizer, tmp_path / "a")
    expected: Counter[str] = Counter()
    rows = list(read_examples(examples, task_named(task)))
    features = list(task_named(task).featurize(rows, 0, tokenizer, classes, 40, 8, expected))
    actual = columns(table)
    assert actual["examples"] == [feature.example for feature in features]
    assert actual["lengths"] == [len(feature.input_ids) for feature in features]
    for name in LIST_COLUMNS:
        assert actual[name] == [list(getattr(feature, name)) for feature in features]
    assert +counts == +expected
    assert (table.tokens, table.longest) == (sum(actual["lengths"]), max(actual["lengths"]))


def test_the_bytes_of_a_table_do_not_depend_on_the_number_of_processes(
    corpus: tuple[str, Path, list[str]],
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsharded, unsharded_counts = featurized(corpus, tokenizer, tmp_path / "unsharded")
    monkeypatch.setattr(featurize_module, "EXAMPLES_PER_SHARD", 9)
    single, single_counts = featurized(corpus, tokenizer, tmp_path / "single")
    parallel, parallel_counts = featurized(corpus, tokenizer, tmp_path / "parallel", Processes(2))
    assert len(list((tmp_path / "single/table").glob("*.arrow"))) > 5
    assert columns(single) == columns(parallel) == columns(unsharded)
    assert contents(tmp_path / "single/table") == contents(tmp_path / "parallel/table")
    assert +single_counts == +parallel_counts == +unsharded_counts


def test_examples_that_do_not_fit_into_a_window_are_named(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    kind, examples = task_named("multiple_choice"), tmp_path / "train.parquet"
    rows = [
        {"id": str(count), "context": "x", "question": "y", "starts": [], "answers": ["a"]}
        | {"choices": ["a"] * count}
        for count in (2, 30, 40)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=kind.schema), examples)
    with pytest.raises(UserError) as caught:
        featurized(("multiple_choice", examples, ["choice"]), tokenizer, tmp_path / "table")
    first, second = caught.value.problems
    assert first.startswith(f"{examples}: row '30': choices: 30 choices need at least 60 tokens")
    assert "row '40'" in second


def test_shards_of_other_params_are_not_reused(
    corpus: tuple[str, Path, list[str]], tokenizer: Tokenizer, tmp_path: Path
) -> None:
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


def test_a_worker_process_does_not_import_torch(tmp_path: Path) -> None:
    """The import would take half of its memory and most of its start time."""
    code = (
        "import sys, pipeline.features.featurize, stages.workers.processes; "
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert process.stdout == "set()\n"
