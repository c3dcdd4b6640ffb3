"""featurize@TASK: examples + the backbone's tokenizer -> features."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.examples import read_examples
from pipeline.features import Feature, write_features
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.source import locate
from pipeline.task import Task
from pipeline.tasks import task_named
from pipeline.tokenizer import Tokenizer
from stages.command import run, say, say_read, say_wrote
from stages.params import TaskParams, load_params, task_of

BLOCK = 1024  # examples tokenized at once
SPLITS = ("train", "validation", "test")


def featurize(name: str) -> None:
    """Write data/features/NAME: {train,validation,test}.arrow and summary.json."""
    params = load_params()
    limits = task_of(params, name)
    source = Path("data/examples") / name
    described = load_json(source / "summary.json")
    task, classes = task_named(described["task"]), described["classes"]
    tokenizer = Tokenizer(locate(params.backbone))
    if limits.max_length > tokenizer.max_length:
        raise UserError(f"params.yaml: tasks.{name}.max_length is {limits.max_length}, but the backbone has "
                        f"{tokenizer.max_length} positions; make it smaller")
    words = tokenizer.single_words([described["words"][label] for label in classes]) if described["words"] else []
    say_read(source)
    output = Path("data/features") / name
    with atomic_folder(output) as folder:
        summary: dict[str, Any] = {key: described[key] for key in ("task", "code", "classes", "primary")}
        summary |= {"words": words, "pad": tokenizer.pad, "splits": {},
                    "windows": {"max_length": limits.max_length, "stride": limits.stride}}
        for split in SPLITS:
            counts: Counter[str] = Counter()
            file = folder / f"{split}.arrow"
            features = _features(source / f"{split}.parquet", task, tokenizer, classes, limits, counts)
            rows = write_features(features, file)
            happened = {what: count for what, count in counts.items() if count}
            summary["splits"][split] = {"examples": described["rows"][split], "features": rows, "sha256": sha256(file),
                                        "examples_sha256": sha256(source / f"{split}.parquet"), "counts": happened}
            say(f"{split}: {described['rows'][split]} examples, {rows} features"
                + "".join(f"; {what}: {count}" for what, count in happened.items()))
        write_json(folder / "summary.json", summary)
    say_wrote(output)


def _features(path: Path, task: Task[Any, Any, Any], tokenizer: Tokenizer, classes: Sequence[str], params: TaskParams,
              counts: Counter[str]) -> Iterator[Feature]:
    examples, first = read_examples(path, task), 0
    while block := list(islice(examples, BLOCK)):
        yield from task.featurize(block, first, tokenizer, classes, params.max_length, params.stride, counts)
        first += len(block)


if __name__ == "__main__":
    run(featurize)
