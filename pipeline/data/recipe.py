"""A recipe: everything that is particular to one corpus, as values in data_recipes/NAME.yaml."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.config import load_yaml, parse
from pipeline.data.readers import READERS
from pipeline.data.readers.base import Splits, paths
from pipeline.data.readers.hub import Hub
from pipeline.data.readers.hub import resolve_auto as settle_hub
from pipeline.errors import UserError, did_you_mean
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.row import SPLITS


@dataclass(frozen=True)
class Recipe:
    """One corpus. `name` is the file's name; `files` are relative to the corpus's folder, which the recipe does not know.

    `options` are those of the reader (its `Options`). `labels` are entity types or role names, without B- and I-, or what texts
    are classified as; tasks that choose from the text have none. `words` are the words that labels are read as by the backbone's
    LM head (verbalized classification). `metric` is the figure that runs are compared by, if not the task's usual one.
    `carve_validation` and `carve_test` are the shares of train that become validation and test, for a corpus that has no such
    split of its own (or whose only other public one serves as test); `seed` draws them. `on_problem: drop` leaves unsound rows
    out, up to `max_dropped` of all rows (a share, or text: 0.1%). `allow` names the kinds of problem that the corpus is known to
    have: they are reported, and its rows stay.
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
    on_problem: Literal["fail", "drop"] = "fail"
    max_dropped: float | str = "0.1%"
    allow: tuple[Literal["unseen-label", "conflicting-labels", "shared-row"], ...] = ()
    hub: Hub | None = None

    def __post_init__(self) -> None:
        problems = [*self._check_task(), *self._check_carving(), *self._check_policy()]
        if problems:
            raise ValueError("; ".join(problems))

    def _check_task(self) -> list[str]:
        if self.task not in NAMES:  # `load_recipe` says so
            return []
        task = task_named(self.task)
        problems = [f"labels: {problem}" for problem in task.check_labels(self.labels)]
        if self.metric is not None and self.metric not in task.metric_names:
            problems.append(
                f"metric: {self.metric!r} is none of {self.task}{did_you_mean(self.metric, task.metric_names)}"
            )
        if task.head != "verbalizer" and self.words:
            problems.append(f"words: {self.task} reads no words; remove the key")
        if task.head == "verbalizer" and set(self.words) != set(self.labels):
            problems.append(
                f"words: found {', '.join(self.words) or 'none'}; give each label a word: {', '.join(self.labels)}"
            )
        return problems

    def _check_carving(self) -> list[str]:
        where = [splits for splits in (self.files, self.hub and self.hub.splits) if splits]
        problems = []
        for split, share in (("validation", self.carve_validation), ("test", self.carve_test)):
            if share is not None and not 0 < share < 1:
                problems.append(f"carve_{split}: {share} is not a share between 0 and 1")
            elif share is None and any(not splits.of(split) for splits in where):
                problems.append(
                    f"files: {split} is missing; add it, or carve_{split}: 0.1 to take it from train"
                )
            elif share is not None and any(splits.of(split) for splits in where):
                problems.append(
                    f"carve_{split}: there is a {split} split already; remove one of the two"
                )
        if self.share("validation") + self.share("test") >= 1:
            problems.append(
                "carve_validation and carve_test leave nothing to train on; make them smaller"
            )
        return problems

    def share(self, split: str) -> float:
        """The share of train that becomes part of `split`."""
        return {"validation": self.carve_validation, "test": self.carve_test}.get(split) or 0.0

    def assign_split(self, group: str) -> str:
        """The split that a row of train becomes part of, by a hash of the seed and the row's group.

        So rows that are added move no others, and neither share moves the rows of the other.
        """
        digest = hashlib.sha256(f"{self.seed}\n{group}".encode(errors="surrogatepass")).digest()
        drawn = int.from_bytes(digest[:8], "big")
        if drawn < self.share("validation") * 2**64:
            return "validation"
        return "test" if 2**64 - 1 - drawn < self.share("test") * 2**64 else "train"

    def settled(self, folder: Path | None) -> tuple["Recipe", dict[str, Any]]:
        """The recipe with what its files in `folder`, or its hub's splits, are where it says auto; and what that is, by name.

        Raises UserError where its files name one file twice.
        """
        reader, keys = READERS[self.reader], task_named(self.task).keys
        if folder is None:
            assert self.hub is not None
            found_hub, options, found = settle_hub(self.hub, keys, reader.row, self.options)
            return replace(self, hub=found_hub, options=options), found
        files = [
            path
            for split in SPLITS
            for name in self.files.of(split)
            for path in paths(folder, name)
        ]
        twice = sorted({str(path) for path in files if files.count(path) > 1})
        if twice:
            raise UserError(
                *(
                    f"{path}: the recipe's files name it twice, perhaps in two splits; correct them"
                    for path in twice
                )
            )
        options, found = reader.resolve_auto(self.options, files)
        return replace(self, options=options), found

    @property
    def max_dropped_fraction(self) -> float:
        """`max_dropped` as a share. Raises ValueError where it is none."""
        text = str(self.max_dropped)
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)

    def _check_policy(self) -> list[str]:
        try:
            good = 0 <= self.max_dropped_fraction < 1
        except ValueError:
            good = False
        return (
            []
            if good
            else [f"max_dropped: {self.max_dropped!r} is no share of the rows; write 0.1% or 0.001"]
        )


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`. Raises UserError with all problems: YAML, keys, types, unknown task or reader, or reader options."""
    values = load_yaml(path)
    problems: list[str] = []
    if "name" in values:
        problems.append(
            f"{path}: key 'name' is not allowed: the name is that of the file, {path.stem!r}; remove it"
        )
    name = values.get("task")
    if isinstance(name, str) and name not in NAMES:
        problems.append(f"{path}: task: {name!r} is unknown{did_you_mean(name, NAMES)}")
    options = None
    if isinstance(reader := values.get("reader"), str):
        options = _options(reader, values.get("options", {}), str(path), problems)
        if options is not None and name in NAMES:
            given = READERS[reader].keys(options)
            lacking = [key for key in task_named(str(name)).keys if key not in given]
            if lacking:
                problems.append(
                    f"{path}: reader: {reader!r} gives {', '.join(sorted(given))}, but {name} needs "
                    f"{', '.join(lacking)} too; correct the reader, its options or the task"
                )
    try:
        recipe = parse(Recipe, {**values, "name": path.stem}, str(path))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    return replace(recipe, options=options)


def _options(reader: str, values: object, where: str, problems: list[str]) -> Any:
    if reader not in READERS:
        problems.append(f"{where}: reader: {reader!r} is unknown{did_you_mean(reader, READERS)}")
        return None
    try:
        return parse(READERS[reader].options, values, f"{where}: options")
    except UserError as error:
        problems += error.problems
        return None
