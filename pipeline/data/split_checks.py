"""Checks of whole splits and files: what is empty, or lacks labels and annotations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.chunked_corpus import ChunkedCorpus
from pipeline.data.readers.conll_props import WITHOUT_PREDICATES
from pipeline.data.recipe import Recipe
from pipeline.errors import Problems, abbreviate, listed, quantity
from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import TagsWords
from pipeline.tasks.base.row import SPLITS
from pipeline.tasks.shared.validation import MAX_SENTENCE_WORDS

MAX_LISTED_NAMES = 8  # in a message
MAX_WORDS_OF_SINGLE_SENTENCE = 30  # of a file; a longer one adds a warning


@dataclass
class SplitCounts:
    """The numbers of kept rows, tokens and labels by split."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    labels: dict[str, Counter[str]] = field(
        default_factory=lambda: {split: Counter() for split in SPLITS}
    )

    def add(self, result: dict[str, Any]) -> None:
        """Add the result of `read_chunk`."""
        for split in SPLITS:
            self.rows[split] += result["kept"][split]
            self.tokens[split] += result["tokens"][split]
            self.labels[split].update(result["labels"][split])

    def remove(self, split: str, corpus: ChunkedCorpus, example: Any) -> None:
        """Remove an example that `add` has counted."""
        task, labels = corpus.task, corpus.recipe.labels
        self.rows[split] -= 1
        self.tokens[split] -= task.num_tokens(example)
        self.labels[split].subtract(task.declared_labels(example, labels))
        self.labels[split] += Counter()  # removes zeros


def check_splits(corpus: ChunkedCorpus, counts: SplitCounts, problems: Problems) -> None:
    """Add the problems of whole splits: empty splits, labels and annotations that are missing.

    Under `fail`, splits with rejected rows are not checked, because these may be the cause.
    """
    recipe = corpus.recipe
    incomplete = set()
    if recipe.on_problem == "fail":
        results = zip(corpus.chunks, corpus.results, strict=True)
        incomplete = {chunk.split for chunk, result in results if result["dropped"]}
    complete = [
        split
        for split in SPLITS
        if (split if recipe.files.of(split) else "train") not in incomplete
    ]
    for split in complete:
        if counts.rows[split]:
            _check_annotations(recipe, split, counts, problems)
        else:
            _add_empty_split(corpus, split, counts, problems)
    if "train" in complete and counts.rows["train"]:
        _check_unseen_labels(corpus, counts, problems)
    if len(complete) == len(SPLITS):
        _check_unused_labels(recipe, counts, problems)


def _add_empty_split(
    corpus: ChunkedCorpus, split: str, counts: SplitCounts, problems: Problems
) -> None:
    names = corpus.recipe.files.of(split)
    carved = [other for other in SPLITS if corpus.recipe.carved_fraction(other)]
    if not names:
        message = _empty_carved_split_message(corpus, counts, split)
    elif split == "train" and any(counts.rows[other] for other in carved):
        message = _emptied_split_message(corpus, counts, names, carved)
    else:
        message = f"split {split!r} ({', '.join(names)}) is empty; correct files"
    problems.add(corpus.recipe.location, message, "empty-split", hides=True)


def _check_annotations(recipe: Recipe, split: str, counts: SplitCounts, problems: Problems) -> None:
    """Add a problem if a split has too few different labels to learn from or to score."""
    task = task_named(recipe.task)
    expected = task.expected_labels(recipe.labels)
    found = [label for label in expected if counts.labels[split][label]]
    labels = (
        f"only {listed(found, MAX_LISTED_NAMES)} of the labels"
        if found
        else f"none of the labels ({listed(expected, MAX_LISTED_NAMES)})"
    )
    rows = quantity(counts.rows[split], "row")
    fact = f"split {split!r}: {labels} occurs in {rows}, so nothing can be"
    remedy = "correct labels, options or files, or set allow:"
    if expected and split == "train" and len(found) < task.min_train_labels:
        problems.add(
            recipe.location,
            f"{fact} learned from it; {remedy} [nothing-to-learn]",
            "nothing-to-learn",
            hides="nothing-to-learn" not in recipe.allow,
        )
    elif expected and split != "train" and not found:
        problems.add(
            recipe.location,
            f"{fact} scored on it; {remedy} [nothing-to-score]",
            "nothing-to-score",
            hides="nothing-to-score" not in recipe.allow,
        )


def _check_unseen_labels(corpus: ChunkedCorpus, counts: SplitCounts, problems: Problems) -> None:
    """Add a problem for each label of a held-out split that the training split does not have.

    Labels that are collected from all splits may be new in a held-out split.
    """
    recipe = corpus.recipe
    if corpus.task.collects_labels:
        return
    held_out = set(counts.labels["validation"]) | set(counts.labels["test"])
    for label in sorted(held_out - set(counts.labels["train"])):
        first = (result["first_held_out"].get(label) for result in corpus.results)
        problems.add(
            next(where for where in first if where is not None),
            f"label {label!r} does not occur in the training split, so it cannot be learned; "
            "correct it, or set allow: [unseen-label] in the recipe",
            "unseen-label",
            hides="unseen-label" not in recipe.allow,
        )


def _check_unused_labels(recipe: Recipe, counts: SplitCounts, problems: Problems) -> None:
    """Warn of the recipe's labels that no split has, or that the test split does not have.

    Labels that only the training split lacks are errors: see `_check_unseen_labels`.
    """
    expected = [
        label
        for label in task_named(recipe.task).expected_labels(recipe.labels)
        if label in recipe.labels
    ]
    found = [label for label in expected if any(c[label] for c in counts.labels.values())]
    is_scored = any(counts.labels["test"][label] for label in expected)
    for label in expected:
        train, test = counts.labels["train"][label], counts.labels["test"][label]
        if label not in found:
            problems.add(
                recipe.location,
                f"label {label!r} never occurs; the corpus has "
                f"{listed(found, MAX_LISTED_NAMES) or 'no label'}: correct the label, or remove it "
                "from labels",
                "unused-label",
            )
        elif train and not test and is_scored:
            problems.add(
                recipe.location,
                f"label {label!r} occurs {quantity(train, 'time')} in train but never in test, so "
                "its score is unknown; add test rows with this label",
                "unused-label",
            )


def check_long_sentences(corpus: ChunkedCorpus, problems: Problems) -> None:
    """Warn of files with a single, long sentence, which may lack boundaries of sentences.

    The check of rows warns of even longer sentences. A file with skipped sentences has several.
    """
    if not isinstance(corpus.task, TagsWords):
        return
    rows, tokens = Counter[str](), Counter[str]()
    for chunk, result in zip(corpus.chunks, corpus.results, strict=True):
        skipped = result["problems"]["skipped"].get(WITHOUT_PREDICATES, 0)
        rows[chunk.name] += result["rows"] + result["dropped"] + skipped
        tokens[chunk.name] += sum(result["tokens"].values())
    for name, count in rows.items():
        if count == 1 and MAX_WORDS_OF_SINGLE_SENTENCE < tokens[name] <= MAX_SENTENCE_WORDS:
            problems.add(
                name,
                f"the whole file is one sentence of {tokens[name]} words; if these are several "
                "sentences, separate them, e.g. by blank lines",
                "long-sentence",
            )


def _empty_carved_split_message(corpus: ChunkedCorpus, counts: SplitCounts, split: str) -> str:
    recipe, num_rows = corpus.recipe, counts.rows["train"]
    message = f"split {split!r} ({recipe.carved_fraction(split)} of the training split) is empty"
    group = _only_group(corpus)
    if group is None or num_rows < 2:
        return f"{message}; correct carve_{split} or seed"
    reason = _group_message(corpus, num_rows, group)
    return f"{message}, because {reason} a file of the {split} split"


def _emptied_split_message(
    corpus: ChunkedCorpus, counts: SplitCounts, names: Sequence[str], carved: Sequence[str]
) -> str:
    """The message if all rows of the training split went to the splits that are carved out."""
    recipe, num_rows = corpus.recipe, sum(counts.rows[other] for other in carved)
    keys = ", ".join(f"carve_{other}: {recipe.carved_fraction(other)}" for other in carved)
    message = f"split 'train' ({', '.join(names)}) is empty, because "
    group = _only_group(corpus)
    if group is not None and num_rows > 1:
        return f"{message}{_group_message(corpus, num_rows, group)} rows of other groups"
    return (
        f"{message}{keys} took {'its only row' if num_rows == 1 else f'all {num_rows} rows'}; add "
        "rows, reduce the fraction, or change seed"
    )


def _only_group(corpus: ChunkedCorpus) -> str | None:
    """The group of all rows that may be split; None if they have several groups."""
    groups = {group for result in corpus.results for group in result["groups"]}
    return groups.pop() if len(groups) == 1 else None


def _group_message(corpus: ChunkedCorpus, num_rows: int, group: str) -> str:
    keys = " or ".join(corpus.task.row_keys.inputs)
    return (
        f"all {num_rows} rows are one group, {abbreviate(group, 60)}, and a group stays in one "
        f"split; set split_by in the recipe to another key ({keys}), or add"
    )
