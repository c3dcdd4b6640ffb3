"""Statistics of a corpus before training: rows, tokens, labels, lengths in sub-words; warnings."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.data.leakage import find_leaks
from pipeline.data.word_rules import describe_words
from pipeline.errors import Problems, quantity
from pipeline.metrics.base import UNSPACED
from pipeline.seeding import Ints
from pipeline.tasks import task_of_summary
from pipeline.tasks.base.capabilities import ShowsSpans, TagsWords
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.base.feature_checks import FeatureChecks, FeatureReport, add_warnings
from pipeline.tasks.base.features import Feature
from pipeline.tasks.base.marked_text import MarkedText
from pipeline.tasks.base.row import SPLITS
from pipeline.tasks.base.task import Task, num_words

if TYPE_CHECKING:  # transformers is slow to import, and only needed with a backbone
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_TOKENIZED_ROWS = 20_000  # rows of a split to tokenize, at equal distances
BLOCK_ROWS = 512
UNLIMITED_LENGTH = 1 << 30
LONG_TEXT_WINDOWS = 4  # a longer text adds a warning
MAX_MARKED_EXAMPLES = 8
MIN_LABEL_COUNT = 5  # annotations of a label in the training split; fewer add a warning
WORD_METRIC, CHARACTER_METRICS = "f1", ("mlqa_f1", "cmrc2018_f1")
MAX_LABEL_FRACTION = 0.95  # of all annotations in the training split; more adds a warning


@dataclass(frozen=True)
class SplitStatistics:
    """The statistics of one split.

    `num_tokens` is by row [R]; `labels` are counts, the most frequent first. `num_subwords`
    (special tokens included) and `num_windows` are by tokenized row [S]. `truncations`
    counts the tokenized rows that are truncated or split, by kind of effect. `features` has the
    score of a perfect model and the unknown tokens; None without a tokenizer.
    """

    num_tokens: Ints
    labels: Mapping[str, int]
    num_subwords: Ints
    num_windows: Ints
    truncations: Mapping[str, int]
    features: FeatureReport | None


@dataclass(frozen=True)
class Statistics:
    """The statistics of a corpus by split.

    `primary` is the name of the primary metric. `max_length` is the length of a window; None
    without a tokenizer. `unit` is the unit of `num_tokens`: words, or characters in texts without
    spaces. `words` is a sentence on the rule that makes words of text; "" for tasks without tokens.
    `examples` are the first training examples with their annotation.
    """

    name: str
    task: str
    primary: str
    splits: Mapping[str, SplitStatistics]
    max_length: int | None
    unit: Literal["words", "characters"]
    words: str
    examples: tuple[MarkedText, ...]


def compute_statistics(
    folder: Path,
    summary: Mapping[str, Any],
    tokenizer: "Tokenizer | None",
    max_length: int,
    stride: int,
    problems: Problems,
    max_answer_length: int | None = None,
) -> Statistics:
    """The statistics of the examples in `folder`, an output of `prepare`; adds warnings.

    `summary` is the content of its summary.json. `max_length`, `stride` and `max_answer_length`
    (None: the default of the task) are in sub-words.
    """
    task = task_of_summary({**summary, "max_answer_length": max_answer_length})
    name = str(summary["name"])
    splits = {
        split: _split_statistics(
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
    if not task.collects_labels:  # Collected labels are candidates, most of them rare.
        _warn_of_imbalance(name, splits["train"].labels, problems)
    _warn_of_leaks(name, folder, task, problems)
    primary, unit = _primary(task, summary), _unit(folder / "train.parquet", task)
    if (
        unit == "characters"
        and primary == WORD_METRIC
        and CHARACTER_METRICS[0] in task.metric_names
    ):
        problems.add(
            name,
            f"the texts are written without spaces, but the metric {primary} compares words "
            "between spaces, so it is nearly exact match; set metric: "
            f"{' or '.join(CHARACTER_METRICS)} in the recipe",
            "word-metric",
        )
    return Statistics(
        name,
        str(summary["task"]),
        primary,
        splits,
        max_length if tokenizer else None,
        unit,
        describe_words(summary),
        tuple(_marked_examples(folder / "train.parquet", task)),
    )


def _marked_examples(path: Path, task: Task[Any, Any, Any]) -> Iterator[MarkedText]:
    """The first examples, each below its id; none for kinds of task without spans."""
    if not isinstance(task, ShowsSpans):
        return
    for example in islice(read_examples(path, task), MAX_MARKED_EXAMPLES):
        first, *others = task.marked_texts(task.shown_texts(example), task.annotation(example))
        yield replace(first, title=f"{example.id}: {first.title}".removesuffix(": "))
        yield from others


def _unit(path: Path, task: Task[Any, Any, Any]) -> Literal["words", "characters"]:
    """The unit of `Task.num_tokens`, by the first texts of the split."""
    if isinstance(task, TagsWords):
        return "words"
    texts = [task.text(example) for example in islice(read_examples(path, task), BLOCK_ROWS)]
    num_characters = sum(len(UNSPACED.findall(text)) for text in texts)
    return "characters" if 2 * num_characters > sum(map(num_words, texts)) else "words"


def _primary(task: Task[Any, Any, Any], summary: Mapping[str, Any]) -> str:
    return str(summary.get("primary") or task.metric_names[0])


def _split_statistics(
    path: Path,
    split: str,
    task: Task[Any, Any, Any],
    summary: Mapping[str, Any],
    tokenizer: "Tokenizer | None",
    max_length: int,
    stride: int,
    problems: Problems,
) -> SplitStatistics:
    step = max(1, -(-int(summary["rows"][split]) // MAX_TOKENIZED_ROWS))
    num_tokens, num_subwords, num_windows = list[int](), list[int](), list[int]()
    truncations: Counter[str] = Counter()
    classes, primary = summary["classes"], _primary(task, summary)
    checks = FeatureChecks(task, classes, primary, tokenizer) if tokenizer else None
    examples = enumerate(read_examples(path, task))
    while block := list(islice(examples, BLOCK_ROWS)):
        num_tokens += [task.num_tokens(example) for _, example in block]
        sample = [example for number, example in block if number % step == 0]
        if tokenizer is None or checks is None or not sample:
            continue
        unlimited = task.featurize(sample, 0, tokenizer, classes, UNLIMITED_LENGTH, 0, Counter())
        lengths: list[list[int]] = [[] for _ in sample]  # one per turn, or per reference
        for feature in unlimited:
            lengths[feature.example].append(len(feature.input_ids))
        windows: list[list[Feature]] = [[] for _ in sample]
        for feature in task.featurize(
            sample, 0, tokenizer, classes, max_length, stride, truncations
        ):
            windows[feature.example].append(feature)
        checks.add(sample, windows)
        num_subwords += map(sum, lengths)
        num_windows += map(len, windows)
        for example, length in zip(sample, map(max, lengths), strict=True):
            task.check_window(
                example, tokenizer, max_length, f"{split}: row {example.id}", problems
            )
            if length > LONG_TEXT_WINDOWS * max_length:
                problems.add(
                    f"{split}: row {example.id}",
                    f"the text has {length} sub-words, {length / max_length:.0f} times max_length "
                    f"({max_length}); split it, or raise max_length",
                    "long-text",
                )
    report = checks.report() if checks else None
    if report:
        add_warnings(f"{summary['name']}: {split}", report, task, primary, problems)
    labels = summary["label_counts"][split]
    return SplitStatistics(
        np.array(num_tokens, np.int64),
        dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
        np.array(num_subwords, np.int64),
        np.array(num_windows, np.int64),
        +truncations,
        report,
    )


def _warn_of_imbalance(name: str, counts: Mapping[str, int], problems: Problems) -> None:
    """Warn of labels that almost never, or almost always, occur in the training split."""
    total = sum(counts.values())
    for label, count in counts.items():
        if count < MIN_LABEL_COUNT:
            problems.add(
                f"{name}: train",
                f"label {label!r} occurs {quantity(count, 'time')} among "
                f"{quantity(total, 'annotation')}; fewer than {MIN_LABEL_COUNT} are too few to "
                "learn from: add annotations, or merge it with another label",
                "class-imbalance",
            )
        elif len(counts) > 1 and count > MAX_LABEL_FRACTION * total:
            problems.add(
                f"{name}: train",
                f"label {label!r} is {100 * count / total:.1f} % of {total} annotations, so a "
                "constant prediction scores well; judge by the F1 of the other labels",
                "class-imbalance",
            )


def _warn_of_leaks(name: str, folder: Path, task: Task[Any, Any, Any], problems: Problems) -> None:
    """Warn of held-out texts that are also in the corpus's training split."""

    def texts(_: str, split: str) -> Iterator[str]:
        return (task.text(example) for example in read_examples(folder / f"{split}.parquet", task))

    for leak in find_leaks([name], texts).pairs:
        problems.add(
            f"{name}: {leak['split']}",
            f"the texts of {quantity(leak['rows'], 'row')} are in the training split "
            f"({leak['equal']} equal, {leak['contained']} contained), for example "
            f"{leak['examples'][0]!r}, so scores on them are inflated; remove them from it",
            "train-text-held-out",
        )
