"""Folders of `datasets.save_to_disk` as the files of a split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from pipeline.data.prepare import prepare
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import UserError
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples

NAMES = ["O", "B-PER", "I-PER"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A data set with three splits; the training split has three files and shuffled rows."""
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=NAMES)),
        }
    )
    splits = {}
    for split in ("train", "dev", "test"):
        columns = {
            "tokens": [["Ada", split, str(n)] for n in range(12)],
            "ner_tags": [[1, 2, 0]] * 12,
        }
        splits[split] = datasets.Dataset.from_dict(columns, features=features).shuffle(seed=1)
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved", num_shards={"train": 3})
    return tmp_path


def recipe(folder: Path, **files: str) -> Recipe:
    values = {
        "task": "token_classification",
        "license": "CC0",
        "source": "ours",
        "reader": "records",
        "options": {"fields": {"tokens": None, "tags": "ner_tags"}},
        "files": {"train": "saved/train", "validation": "saved/dev", "test": "saved/test"} | files,
        "labels": ["PER"],
    }
    (folder / "ours.yaml").write_text(json.dumps(values))
    return load_recipe(folder / "ours.yaml")


def test_rows_are_in_the_order_of_the_data_set(saved: Path) -> None:
    """Names of class numbers come from the features in the Arrow files."""
    summary, _ = prepare(recipe(saved), saved, saved / "out")
    assert summary["rows"] == {"train": 12, "validation": 12, "test": 12}
    assert summary["label_counts"]["train"] == {"PER": 12}
    task = task_named("token_classification")
    read = [example.tokens for example in read_examples(saved / "out/train.parquet", task)]
    assert read == list(map(tuple, datasets.load_from_disk(str(saved / "saved/train"))["tokens"]))


def edit_state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "saved/train/state.json"
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))

    return edit


@pytest.mark.parametrize(
    ("files", "damage", "part"),
    [
        (
            {"train": "saved"},
            lambda folder: None,
            "saved: it holds several splits; give each split of the recipe its folder "
            "(saved/train, saved/dev, saved/test)",
        ),
        (
            {},
            lambda folder: (folder / "saved/train/data-00001-of-00003.arrow").unlink(),
            "saved/train/data-00001-of-00003.arrow: no such file; download it",
        ),
        (
            {},
            lambda folder: (folder / "saved/train/state.json").unlink(),
            "saved/train: it is a folder that datasets.save_to_disk did not write; list its files",
        ),
        (
            {},
            lambda folder: (folder / "saved/train/state.json").write_text("["),
            "saved/train: it is a folder that datasets.save_to_disk did not write; list its files",
        ),
        (
            {},
            edit_state(lambda state: state.update(_indices_data_files=[{"filename": "i.arrow"}])),
            "saved/train: it selects rows by an index",
        ),
        (
            {},
            edit_state(lambda state: state.update(_data_files=[{"filename": "../../x.arrow"}])),
            "saved/train: it is a folder that datasets.save_to_disk did not write",
        ),
    ],
)
def test_another_folder_is_named_with_the_remedy(
    files: dict[str, str], damage: Callable[[Path], object], part: str, saved: Path
) -> None:
    damage(saved)
    with pytest.raises(UserError) as caught:
        prepare(recipe(saved, **files), saved, saved / "out")
    (problem,) = caught.value.problems
    assert problem.startswith(str(saved / part))
