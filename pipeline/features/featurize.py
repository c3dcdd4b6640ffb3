"""Conversion of examples to features, in shards whose bytes do not depend on the process."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import Problems
from pipeline.features.table import join_shards, write_shard
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.sharding import Executor, Shard, finish, in_this_process, key_of
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import count_examples, read_examples
from pipeline.tasks.base.features import Feature

EXAMPLES_PER_SHARD = 1 << 15
EXAMPLES_PER_BLOCK = 1024  # examples that are tokenized at once


def featurize(
    examples: Path,
    digest: str,
    output: Path,
    task: str,
    classes: Sequence[str],
    tokenizer: Tokenizer,
    max_length: int,
    stride: int,
    work: Path,
    run: Executor = in_this_process,
    code: str = "",
    max_answer_length: int | None = None,
) -> tuple[int, Counter[str]]:
    """Write the feature table `output` of one split (see `Task.featurize`).

    `examples` is the Parquet file of the split and `digest` its hash. The folder `work` keeps the
    shards, so an interrupted call can resume. `code` identifies the version of the code; shards of
    another version are made again. `max_answer_length` is that of the task. `run` makes the shards
    if there are several. Returns the number of rows and the counters of `Task.featurize`.
    """
    total = count_examples(examples)
    shards = []
    for number, first in enumerate(range(0, total, EXAMPLES_PER_SHARD)):
        last = min(first + EXAMPLES_PER_SHARD, total)
        arguments = (task, list(classes), max_length, stride, first, last, max_answer_length)
        shards.append(
            Shard(
                key_of(number, code, digest, tokenizer.digest, *arguments),
                featurize_shard,
                (examples, tokenizer, *arguments),
            )
        )
    results = finish(shards, work, run if len(shards) > 1 else in_this_process)
    rows = join_shards(
        [work / shard.key / "features.arrow" for shard in shards],
        [result["features"] for result in results],
        output,
    )
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result["counts"])
    return rows, counts


def featurize_shard(
    target: Path,
    examples: Path,
    tokenizer: Tokenizer,
    task: str,
    classes: Sequence[str],
    max_length: int,
    stride: int,
    first: int,
    last: int,
    max_answer_length: int | None = None,
) -> dict[str, Any]:
    """Write the features of the examples [first, last) of a Parquet file to target/features.arrow.

    Returns the summary of the shard for `join_shards`, and the counters of `Task.featurize`. Raises
    UserError with the ids of examples that do not fit into a window.
    """
    counts: Counter[str] = Counter()
    kind = task_named(task).configured(max_answer_length=max_answer_length)

    def features() -> Iterator[Feature]:
        rows, number = read_examples(examples, kind, range(first, last)), first
        while block := list(islice(rows, EXAMPLES_PER_BLOCK)):
            problems = Problems()
            for example in block:
                where = f"{examples}: row {example.id!r}"
                kind.check_window(example, tokenizer, max_length, where, problems)
            problems.raise_if_any()
            yield from kind.featurize(block, number, tokenizer, classes, max_length, stride, counts)
            number += len(block)

    return {"features": write_shard(features(), target / "features.arrow"), "counts": counts}
