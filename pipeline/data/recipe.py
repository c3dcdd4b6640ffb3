"""A recipe: the description of one corpus, as values in a YAML file (data_recipes/NAME.yaml)."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import Any, Literal

from pipeline.config import NAME, load_yaml, parse
from pipeline.data.readers import READERS, hub
from pipeline.data.readers.base import Splits, matching_files
from pipeline.data.readers.hub import Hub
from pipeline.errors import UserError, did_you_mean
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.row import SPLITS, Row


@dataclass(frozen=True)
class Recipe:
    """One corpus.

    - `name` is the name of the YAML file, `path` its path. `files` are relative to the corpus's
      folder, which is not part of the recipe. `options` are the options of the `reader`.
    - `labels` are entity types or role names, without B- and I-, or the classes of texts. Tasks
      with answers from the text have none. `words` has, for each label, its word for the backbone's
      LM head (verbalized classification). `metric` is the primary metric; None is the task's.
    - `carve_validation` and `carve_test` are the fractions of the training split that become the
      validation and the test split, for a corpus without such a split (or whose only other public
      split is the test set). `seed` determines these rows. Rows with the same value of their key
      `split_by` stay in one split; None is the choice of the task (title, context or text).
    - `on_problem: drop` drops rows with problems, at most `max_dropped` of all rows (a fraction, or
      text: 0.1%). `allow` names the kinds of problem that the corpus is known to have: they are
      reported, and the rows are kept.
    """

    name: str
    task: str
    license: str
    source: str
    reader: str
    files: Splits
    options: Any = None
    labels: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    metric: str | None = None
    carve_validation: float | None = None
    carve_test: float | None = None
    seed: int = 0
    split_by: str | None = None
    on_problem: Literal["fail", "drop"] = "fail"
    max_dropped: float | str = "0.1%"
    allow: tuple[
        Literal[
            "unseen-label",
            "conflicting-labels",
            "shared-row",
            "nothing-to-learn",
            "nothing-to-score",
            "split-group",
        ],
        ...,
    ] = ()
    hub: Hub | None = None
    path: str = ""

    def __post_init__(self) -> None:
        problems = [*self._check_task(), *self._check_carving(), *self._check_policy()]
        if problems:
            raise ValueError("; ".join(problems))

    def _check_task(self) -> list[str]:
        if self.task not in NAMES:  # `load_recipe` reports it
            return []
        task = task_named(self.task)
        problems = [f"labels: {problem}" for problem in task.check_labels(self.labels)]
        if self.metric is not None and self.metric not in task.metric_names:
            problems.append(
                f"metric: {self.metric!r} is not a metric of {self.task}"
                f"{did_you_mean(self.metric, task.metric_names)}"
            )
        if task.head != "verbalizer" and self.words:
            problems.append(f"words: {self.task} does not use words; remove the key")
        if task.head == "verbalizer" and set(self.words) != set(self.labels):
            problems.append(
                f"words: found {', '.join(self.words) or 'none'}; "
                f"give each label a word: {', '.join(self.labels)}"
            )
        return problems

    def _check_carving(self) -> list[str]:
        sources = [splits for splits in (self.files, self.hub and self.hub.splits) if splits]
        problems = []
        for split in ("validation", "test"):
            fraction = self._carve_value(split)
            if fraction is not None and not 0 < fraction < 1:
                problems.append(
                    f"carve_{split}: {fraction} is out of range; write a fraction between 0 and 1"
                )
            elif fraction is None and any(not splits.of(split) for splits in sources):
                problems.append(
                    f"files: {split} is missing; "
                    f"add it, or carve_{split}: 0.1 to carve it out of the training split"
                )
            elif fraction is not None and any(splits.of(split) for splits in sources):
                problems.append(
                    f"carve_{split}: files or hub already has a {split} split; remove one of them"
                )
        if self.carved_fraction("validation") + self.carved_fraction("test") >= 1:
            problems.append("carve_validation and carve_test leave no training rows; decrease them")
        if self.split_by is not None and not (self.carve_validation or self.carve_test):
            problems.append("split_by: no split is carved out of the training split; remove it")
        return problems

    @property
    def location(self) -> str:
        """The file of the recipe, for messages."""
        return self.path or f"data_recipes/{self.name}.yaml"

    def _carve_value(self, split: str) -> float | None:
        return {"validation": self.carve_validation, "test": self.carve_test}.get(split)

    def carved_fraction(self, split: str) -> float:
        """The fraction of the training split that becomes part of `split`."""
        return self._carve_value(split) or 0.0

    def split_group(self, row: Row) -> str:
        """The group of a row: its `split_by`; the choice of the task if the row has none."""
        value = None if self.split_by is None else row.get(self.split_by)
        return task_named(self.task).split_group(row) if value is None else str(value)

    def assign_split(self, group: str) -> str:
        """The split of a training row, by a hash of the seed and the row's group.

        Additional rows do not change the split of other rows, and a change of one fraction does not
        change the rows of the other.
        """
        digest = hashlib.sha256(f"{self.seed}\n{group}".encode(errors="surrogatepass")).digest()
        number = int.from_bytes(digest[:8], "big")
        if number < self.carved_fraction("validation") * 2**64:
            return "validation"
        return "test" if 2**64 - 1 - number < self.carved_fraction("test") * 2**64 else "train"

    def resolve_auto(self, folder: Path | None) -> tuple["Recipe", dict[str, Any]]:
        """The recipe with options for its task, each auto replaced by the detected value.

        The files are those in `folder`, or the splits of the hub if it is None. Also returns the
        detected values by name.

        Raises UserError if `files` has the same file twice.
        """
        reader, keys = READERS[self.reader], task_named(self.task).row_keys
        options = reader.for_task(self.options, keys)
        if folder is None:
            assert self.hub is not None
            resolved, options, detected = hub.resolve_auto(self.hub, keys, reader.row, options)
            return replace(self, hub=resolved, options=options), detected
        splits: dict[Path, list[str]] = {}
        for split in SPLITS:
            for name in self.files.of(split):
                for path in matching_files(folder, name):
                    splits.setdefault(path, []).append(split)
        duplicates = {path: names for path, names in splits.items() if len(names) > 1}
        if duplicates:
            raise UserError(*starmap(_duplicate_message, sorted(duplicates.items())))
        options, detected = reader.resolve_auto(options, splits)
        return replace(self, options=options), detected

    @property
    def max_dropped_fraction(self) -> float:
        """`max_dropped` as a fraction. Raises ValueError if it is not a number."""
        text = str(self.max_dropped)
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)

    def _check_policy(self) -> list[str]:
        try:
            valid = 0 <= self.max_dropped_fraction < 1
        except ValueError:
            valid = False
        if valid:
            return []
        return [
            f"max_dropped: {self.max_dropped!r} is not a fraction of the rows; "
            "write e.g. 0.1% or 0.001"
        ]


def _duplicate_message(path: Path, splits: list[str]) -> str:
    """The message for a file that `files` has in these splits, or several times in one split."""
    message = f"{path}: the recipe's files include it in {' and '.join(splits)}"
    held_out = list(dict.fromkeys(splits))[-1]
    if held_out == splits[0]:
        return f"{message}; list it only once"
    return (
        f"{message}, but splits must not share rows; give each split its own file, or replace "
        f"{held_out} by carve_{held_out}: 0.1 to carve it out of the training split"
    )


def load_recipe(path: Path) -> Recipe:
    """The recipe in the file `path`.

    Raises UserError with all problems: of YAML, keys, types, task, reader and reader options.
    """
    values = load_yaml(path)
    problems: list[str] = []
    if not NAME.fullmatch(path.stem):
        problems.append(
            f"{path}: the name {path.stem!r} has other characters than letters, digits, _ and -; "
            "rename the file"
        )
    if "name" in values:
        problems.append(
            f"{path}: key 'name' is not allowed, because the file name gives the name "
            f"({path.stem!r}); remove it"
        )
    if "path" in values:
        problems.append(f"{path}: key 'path' is not allowed, because it is that file; remove it")
    task = values.get("task")
    if isinstance(task, str) and task not in NAMES:
        problems.append(f"{path}: task: {task!r} is unknown{did_you_mean(task, NAMES)}")
    options = None
    if isinstance(reader := values.get("reader"), str):
        options = _load_options(reader, values.get("options", {}), path, problems)
        if options is not None and task in NAMES:
            problems += _check_keys(reader, options, str(task), path)
            problems += _check_split_by(reader, options, values.get("split_by"), path)
    try:
        recipe = parse(Recipe, {**values, "name": path.stem, "path": str(path)}, str(path))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    return replace(recipe, options=options)


def _check_keys(reader: str, options: Any, task: str, path: Path) -> list[str]:
    """The problems if the keys of the reader's rows are not those of the task."""
    keys, declared, problems = READERS[reader].keys(options), task_named(task).row_keys, []
    try:
        READERS[reader].for_task(options, declared)
    except ValueError as error:
        problems.append(f"{path}: options: {error}")
    missing = [key for key in declared.required if key not in keys]
    if missing:
        problems.append(
            f"{path}: reader: the rows of {reader!r} have {', '.join(sorted(keys))}, "
            f"but {task} needs {', '.join(missing)} too; "
            f"correct the reader, its options or the task{_spans_hint(missing, keys)}"
        )
    return problems


def _spans_hint(missing: list[str], keys: Collection[str]) -> str:
    """The remedy if the rows are texts, but the task needs words."""
    is_text = "tokens" in missing and "text" in keys
    return "; the reader offsets makes words of texts with spans" if is_text else ""


def _check_split_by(reader: str, options: Any, key: object, path: Path) -> list[str]:
    keys = READERS[reader].keys(options) | READERS[reader].optional_keys
    if not isinstance(key, str) or key in keys:
        return []
    return [f"{path}: split_by: {key!r} is not a key of the rows{did_you_mean(key, keys)}"]


def _load_options(reader: str, values: object, path: Path, problems: list[str]) -> Any:
    if reader not in READERS:
        problems.append(f"{path}: reader: {reader!r} is unknown{did_you_mean(reader, READERS)}")
        return None
    try:
        return parse(READERS[reader].options, values, f"{path}: options")
    except UserError as error:
        problems += error.problems
        return None
