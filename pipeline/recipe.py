"""A recipe: everything that is particular to one corpus, as values in data_recipes/NAME.yaml."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.config import load_yaml, parse
from pipeline.errors import UserError, did_you_mean
from pipeline.readers import READERS
from pipeline.readers.base import Splits
from pipeline.readers.hub import Hub

TaskName = Literal["token_classification", "semantic_role_labeling", "span_extraction"]

_FORMATS: dict[TaskName, tuple[str, ...]] = {
    "token_classification": ("conll_columns",),
    "semantic_role_labeling": ("conll2012_props",),
    "span_extraction": ("qa_jsonl", "squad_json"),
}


@dataclass(frozen=True)
class Recipe:
    """One corpus. `name` is the file's name; `files` are relative to the corpus's folder, which the recipe does not know.

    `options` are those of the reader (its `Options`). `labels` are entity types or role names, without B- and I-; span extraction
    has none. `carve_validation` is the share of train that becomes validation, for a corpus whose only other public split serves
    as test; `seed` draws it. `unseen_labels: keep` allows a label that validation or test have and train has not.
    """

    name: str
    task: TaskName
    license: str
    source: str
    reader: str
    files: Splits
    options: Any = None
    labels: tuple[str, ...] = ()
    carve_validation: float | None = None
    seed: int = 0
    unseen_labels: Literal["fail", "keep"] = "fail"
    hub: Hub | None = None

    def __post_init__(self) -> None:
        problems = [*self._check_reader(), *self._check_labels(), *self._check_validation()]
        if problems:
            raise ValueError("; ".join(problems))

    def _check_reader(self) -> list[str]:
        formats = _FORMATS[self.task]
        if self.reader in READERS and self.reader not in formats:
            return [f"reader: {self.reader!r} does not read {self.task}; readers that do: {', '.join(formats)}"]
        return []

    def _check_labels(self) -> list[str]:
        if self.task == "span_extraction":
            return ["labels: span_extraction has none; remove the key"] if self.labels else []
        if not self.labels:
            return [f"labels: {self.task} needs the list of its labels; add it"]
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        prefixed = [label for label in self.labels if label == "O" or label.startswith(("B-", "I-"))]
        return [*(f"labels: {label!r} is there twice; remove one" for label in twice),
                *(f"labels: {label!r} is a tag, not a label; leave out O and the prefixes B- and I-" for label in prefixed)]

    def _check_validation(self) -> list[str]:
        share, where = self.carve_validation, [splits for splits in (self.files, self.hub and self.hub.splits) if splits]
        if share is not None and not 0 < share < 1:
            return [f"carve_validation: {share} is not a share between 0 and 1"]
        if share is None and any(splits.validation is None for splits in where):
            return ["files: validation is missing; add it, or carve_validation: 0.1 to take it from train"]
        if share is not None and any(splits.validation is not None for splits in where):
            return ["carve_validation: there is a validation split already; remove one of the two"]
        return []


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`. Raises UserError with all problems: YAML, keys, types, unknown task or reader, or reader options."""
    values = load_yaml(path)
    problems: list[str] = []
    if "name" in values:
        problems.append(f"{path}: key 'name' is not allowed: the name is that of the file, {path.stem!r}; remove it")
    options = None
    if isinstance(reader := values.get("reader"), str):
        options = _options(reader, values.get("options", {}), str(path), problems)
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
