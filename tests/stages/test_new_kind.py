"""A new kind of task is a single file.

The example here implements only the required interface, and runs from raw rows to the report.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_project import (
    IN_ONE_PROCESS,
    TASK,
    environment,
    make_project,
    python,
    write_params,
)

KIND = '''"""Word length: whether a word is short or long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.metrics.base import Metrics
from pipeline.tasks.base.features import Feature
from pipeline.tasks.base.row import RowKeys
from pipeline.tasks.base.task import Task


@dataclass(frozen=True)
class Example:
    """A word, and its size ("" in a query)."""

    id: str
    word: str
    size: str


@dataclass(frozen=True)
class Size:
    """The size of a word."""

    size: str


class WordLength(Task[Example, Sequence[str], Size]):
    """Predictions are sizes, one per example in the examples' order."""

    example_type = Example
    schema = pa.schema([(name, pa.string()) for name in ("id", "word", "size")])
    row_keys = RowKeys(inputs={"word": "text"}, targets={"size": "label"})
    inputs, outputs = ("word",), ("size",)
    head = "classes"
    metric_names = ("right",)
    metric_titles = {"right": "sizes that are right"}
    glossary = {"size": "A word of six letters or more is long."}

    def example(self, row, labels, problems):
        if row["size"] in labels:
            return Example(row["id"], row["word"], row["size"])
        problems.add(row["where"], f"no size {row['size']!r}; correct it", "unknown-label")
        return None

    def example_for_prediction(self, row, problems):
        return Example(row["id"], str(row["word"]), "")

    def featurize(self, examples, first, tokenizer, classes, max_length, stride, counts):
        texts = tokenizer.encode_texts([example.word for example in examples])
        for number, (example, (pieces, _)) in enumerate(zip(examples, texts), first):
            ids = [*tokenizer.prefix, *pieces[: max_length - 4], *tokenizer.suffix]
            counts["words cut"] += len(pieces) > max_length - 4
            yield Feature(
                example=number,
                input_ids=ids,
                token_types=[0] * len(ids),
                positions=[tokenizer.summary_position(len(ids))],
                labels=[classes.index(example.size) if example.size else 0],
                begins=[0],
                ends=[1],
                label_count=1,
            )

    def decode(self, example, window_logits, classes):
        return classes[int(window_logits[0].logits[0].argmax())]

    def predictions(self, examples, decoded, thresholds):
        return decoded

    def score(self, examples, predictions, classes):
        right = sum(e.size == size for e, size in zip(examples, predictions))
        return Metrics({"right": 100.0 * right / len(examples), "words": len(examples)}, {})

    def result(self, example, window_logits, classes, thresholds):
        return Size(self.decode(example, window_logits, classes))


TASK = WordLength()
'''
RECIPE = """
task: word_length
license: CC0
source: made here
reader: records
options: {fields: {word: form, size: null}, names: {"1": long}}
files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}
labels: [short, long]
"""
STAGES = (
    "prepare sizes",
    "prepare world_srl",
    "featurize sizes",
    "featurize world_srl",
    "mixture_corpora all",
    "mix all",
    "pretrain all",
    "finetune multitask sizes",
    "finetune multitask sizes 8",
    "finetune head_only sizes",
    "evaluate multitask sizes",
    "evaluate multitask sizes 8",
    "evaluate head_only sizes",
    "release sizes",
    "probe multitask sizes",
    "report",
)
PREDICT = """
from pipeline.inference.loading import load
for prediction in load(["models/sizes"]).predict([{"word": "bo"}, {"word": "boooooooo"}]):
    print("predicted", prediction.result.size)
"""
OFF = "word_length does not support confidence, intervals or perturbation."


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with the new kind after all stages, and the output of the stages."""
    home = tmp_path_factory.mktemp("new_kind")
    folder = home / "project"
    values = make_project(folder)
    (folder / "pipeline/tasks/word_length.py").write_text(KIND, encoding="utf-8")
    (folder / "data_recipes/sizes.yaml").write_text(RECIPE, encoding="utf-8")
    write_corpus(folder / "data/raw/sizes")
    write_params(folder, params(values))
    done = python(folder, environment(home), "-c", IN_ONE_PROCESS + PREDICT, *STAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def write_corpus(folder: Path) -> None:
    """Write words of 2 to 9 letters; the label of a long word is an integer."""
    folder.mkdir()
    for split, letter in (("train", "a"), ("validation", "e"), ("test", "o")):
        words = [f"{first}{letter * n}" for n in range(1, 9) for first in "bcdfghkl"]
        rows = [{"form": word, "size": 1 if len(word) >= 6 else "short"} for word in words]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def params(values: dict[str, Any]) -> dict[str, Any]:
    sizes = {"source": "raw/sizes", "init_from": "pretrain/all", **TASK, "test_rows": 64}
    sizes["multitask"] = {
        "epochs": 40,
        "prompt_lr": 0.05,
        "head_lr": 0.02,
        "validation_rows": 64,
        "num_validations": 8,
    }
    return values | {
        "tasks": {"sizes": sizes, "world_srl": values["tasks"]["world_srl"]},
        "mixtures": {"all": values["mixtures"]["all"]},
        "pretrain": {"all": values["pretrain"]["all"]},
        "compare": {"arms": ["head_only"], "tasks": ["sizes"]},
        "repeat": {"arms": ["multitask"], "tasks": ["sizes"], "seeds": [8]},
        "probe": values["probe"] | {"tasks": ["sizes"], "out_of_domain": []},
    }


def test_the_score_agrees_with_the_predictions(project: tuple[Path, str]) -> None:
    folder, output = project
    metrics = json.loads((folder / "results/multitask/sizes/metrics.json").read_text())
    lines = (folder / "predictions/multitask/sizes/test.jsonl").read_text().splitlines()
    gold = (folder / "data/raw/sizes/test.jsonl").read_text().splitlines()
    right = [
        json.loads(line)["prediction"] == ("long" if len(json.loads(row)["form"]) >= 6 else "short")
        for line, row in zip(lines, gold, strict=True)
    ]
    assert (metrics["task"], metrics["primary"]) == ("word_length", "right")
    assert metrics["test"] == {"right": 100 * sum(right) / len(right), "words": len(right)}
    assert metrics["test"]["right"] > 70, "a constant prediction scores 50"
    assert re.findall(r"^predicted (.+)$", output, re.MULTILINE) == ["short", "long"]
    assert "pipeline_tag: other" in (folder / "models/sizes/README.md").read_text()


def test_the_report_names_the_optional_features_that_are_off(project: tuple[Path, str]) -> None:
    folder, output = project
    assert [path.name for path in (folder / "predictions/multitask/sizes").iterdir()] == [
        "test.jsonl"
    ]
    report = (folder / "report/report.md").read_text(encoding="utf-8")
    assert output.count(OFF) == 4, "three evaluations and a probe"
    assert report.count(OFF) == 2, "in the section of the task and in the section on probes"
    assert "sizes that are right" in report
    assert "**size**: A word of six letters or more is long." in report
    for word in ("confidence and mistakes", "**confidence**", "**AURC**", "**95 % interval**"):
        assert word not in report


def test_its_probe_reports_that_it_has_no_suite(project: tuple[Path, str]) -> None:
    folder, output = project
    assert f"no suite: {OFF}" in output
    suites = (folder / "results/probe/multitask/sizes/suites.tsv").read_text()
    assert suites == "suite\tscore\tloss\tchanged\n"
    assert len((folder / "results/probe/multitask/sizes/layers.tsv").read_text().splitlines()) == 3
    assert "sizes was not perturbed." in (folder / "report/report.md").read_text()
