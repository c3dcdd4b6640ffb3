"""What is in one corpus, counted before anyone trains: rows, words, labels, lengths in sub-words, and what is odd about them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.leakage import find_leaks
from pipeline.errors import Problems
from pipeline.seeding import Ints
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.base.row import SPLITS
from pipeline.tasks.base.task import Task

if TYPE_CHECKING:  # for its type only: without a backbone there is none
    from pipeline.pretrained.tokenizer import Tokenizer

TOKENIZED = 20_000  # rows of a split whose sub-words are counted, evenly spread over it
BLOCK = 512
UNCUT = 1 << 30
FAR = 4  # windows: a text longer than that is warned of
RARE = 5  # annotations of a label in train: fewer are too few to learn from
DOMINANT = 0.95  # of all annotations in train


@dataclass(frozen=True)
class SplitStatistics:
    """One split: `words` of each row [R], `labels`, and of the rows that were tokenized [S] the sub-words, special ones included.

    `happened` is what does not fit into a window, in words, with how many of the tokenized rows it happens to.
    """

    words: Ints
    labels: Mapping[str, int]
    pieces: Ints
    windows: Ints
    happened: Mapping[str, int]


@dataclass(frozen=True)
class Statistics:
    """A corpus by split; `max_length` is the length of a window, where a tokenizer was given."""

    name: str
    task: str
    splits: Mapping[str, SplitStatistics]
    max_length: int | None


def measure(
    folder: Path,
    summary: Mapping[str, Any],
    tokenizer: "Tokenizer | None",
    max_length: int,
    stride: int,
    problems: Problems,
) -> Statistics:
    """The statistics of what `prepare` wrote into `folder`; what is odd is added to `problems`, as warnings."""
    task, name = task_named(summary["task"]), str(summary["name"])
    splits = {
        split: _split(
            folder / f"{split}.parquet",
            split,
            task,
            summary,
            tokenizer,
            max_length,
            stride,
            problems,
        )
        for split in SPLITS
    }
    _imbalance(name, splits["train"].labels, problems)
    _own_leaks(name, folder, task, problems)
    return Statistics(name, str(summary["task"]), splits, max_length if tokenizer else None)


def _split(
    path: Path,
    split: str,
    task: Task[Any, Any, Any],
    summary: Mapping[str, Any],
    tokenizer: "Tokenizer | None",
    max_length: int,
    stride: int,
    problems: Problems,
) -> SplitStatistics:
    every = max(1, -(-int(summary["rows"][split]) // TOKENIZED))
    words, pieces, windows = list[int](), list[int](), list[int]()
    happened: Counter[str] = Counter()
    examples = enumerate(read_examples(path, task))
    while block := list(islice(examples, BLOCK)):
        words += [task.num_tokens(example) for _, example in block]
        chosen = [example for number, example in block if number % every == 0]
        if tokenizer is not None and chosen:
            classes = summary["classes"]
            lengths = [
                len(one.input_ids)
                for one in task.featurize(chosen, 0, tokenizer, classes, UNCUT, 0, Counter())
            ]
            cut = Counter(
                one.example
                for one in task.featurize(
                    chosen, 0, tokenizer, classes, max_length, stride, happened
                )
            )
            pieces += lengths
            windows += [cut[number] for number in range(len(chosen))]
            for example, length in zip(chosen, lengths, strict=True):
                if length > FAR * max_length:
                    problems.add(
                        f"{split}: row {example.id}",
                        f"its text has {length} sub-words, {length / max_length:.0f} "
                        f"times max_length, {max_length}; split it, or raise max_length",
                        "long-text",
                    )
    counts = summary["label_counts"][split]
    return SplitStatistics(
        np.array(words, np.int64),
        dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        np.array(pieces, np.int64),
        np.array(windows, np.int64),
        +happened,
    )


def _imbalance(name: str, counts: Mapping[str, int], problems: Problems) -> None:
    """Warn of labels that are almost never, or almost always, in train."""
    total = sum(counts.values())
    for label, count in counts.items():
        if count < RARE:
            problems.add(
                f"{name}: train",
                f"label {label!r} is there {count} times among {total} annotations; fewer than {RARE} "
                "are too few to learn from: add some, or merge it with another",
                "class-imbalance",
            )
        elif len(counts) > 1 and count > DOMINANT * total:
            problems.add(
                f"{name}: train",
                f"label {label!r} is {100 * count / total:.1f} % of {total} annotations; who always "
                "says so is nearly always right: look at F1 of the others",
                "class-imbalance",
            )


def _own_leaks(name: str, folder: Path, task: Task[Any, Any, Any], problems: Problems) -> None:
    def texts(_: str, split: str) -> Iterator[str]:
        return (task.text(example) for example in read_examples(folder / f"{split}.parquet", task))

    for leak in find_leaks([name], texts).pairs:
        problems.add(
            f"{name}: {leak['split']}",
            f"the texts of {leak['rows']} rows are in train ({leak['equal']} equal, "
            f"{leak['contained']} contained), for example {leak['examples'][0]!r}; scores on them flatter",
            "train-text-held-out",
        )
