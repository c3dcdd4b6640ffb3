"""Examples to features, a shard at a time: whoever makes shard i of n, its bytes are the same."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.features.table import join_shards, write_shard
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.sharding import Executor, Shard, finish, in_this_process, key_of
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import count_examples, read_examples
from pipeline.tasks.base.features import Feature

SHARD_EXAMPLES = 1 << 15
BLOCK = 1024  # examples tokenized at once


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
) -> tuple[int, Counter[str]]:
    """Make the table of features `output` of one split's Parquet file, whose hash is `digest`; see `Task.featurize`.

    Returns how many rows it has, and what happened in its making. Shards that are done lie in `work`; `run` makes them, where
    there are several.
    """
    total = count_examples(examples)
    shards = []
    for number, first in enumerate(range(0, total, SHARD_EXAMPLES)):
        how = (task, list(classes), max_length, stride, first, min(first + SHARD_EXAMPLES, total))
        shards.append(
            Shard(
                key_of(number, digest, tokenizer.digest, *how),
                featurize_shard,
                (examples, tokenizer, *how),
            )
        )
    about = finish(shards, work, run if len(shards) > 1 else in_this_process)
    rows = join_shards(
        [work / shard.key / "features.arrow" for shard in shards],
        [each["features"] for each in about],
        output,
    )
    counts: Counter[str] = Counter()
    for each in about:
        counts.update(each["counts"])
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
) -> dict[str, Any]:
    """Write features.arrow, the features of examples [first, last) of a Parquet file; returns what `join_shards` wants to know,
    and what happened.
    """
    counts: Counter[str] = Counter()

    def features() -> Iterator[Feature]:
        found, number = read_examples(examples, task_named(task), range(first, last)), first
        while block := list(islice(found, BLOCK)):
            yield from task_named(task).featurize(
                block, number, tokenizer, classes, max_length, stride, counts
            )
            number += len(block)

    return {"features": write_shard(features(), target / "features.arrow"), "counts": counts}
