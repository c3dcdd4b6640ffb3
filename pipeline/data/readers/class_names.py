"""The names of class numbers in the features of the library `datasets`."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import Problems


def class_names(features: Mapping[str, Any], path: str) -> list[str]:
    """The names of the class numbers of a column, in order; empty if it has none.

    `features` is the JSON form of `datasets.Features`. `path` is the name of the column, or a path
    with dots to a value nested in mappings and lists. A column of class numbers, or of lists of
    them, has names.
    """
    if path in features:
        return _names(features[path])
    first, _, rest = path.partition(".")
    nested = _item(features.get(first))
    return class_names(nested, rest) if rest and isinstance(nested, Mapping) else []


def add_class_names(
    names: Mapping[str, str], classes: Iterable[list[str]], where: str, problems: Problems
) -> dict[str, str] | None:
    """The `names` of a recipe with those of the class numbers of some columns.

    `classes` has the names of the numbers of each column; the recipe may rename them. Adds a
    problem and returns None if the recipe gives a number another name.
    """
    by_number = {
        str(number): names.get(name, name)
        for column in classes
        for number, name in enumerate(column)
    }
    conflicts = [
        f"{number} is {name!r} in the file and {names[number]!r} in the recipe"
        for number, name in by_number.items()
        if names.get(number, name) != name
    ]
    if not conflicts:
        return {**by_number, **names}
    problems.add(
        where,
        f"names: the class numbers have other names in the file's metadata: "
        f"{', '.join(conflicts)[:300]}; remove these numbers from names in the recipe's "
        "options, or rename the file's names instead of its numbers",
        "class-name",
        hides=True,
    )
    return None


def _item(feature: Any) -> Any:
    """The feature of the items of a list of mappings; other features as they are."""
    if isinstance(feature, list) and feature:  # an old form of a list
        return feature[0]
    is_list = isinstance(feature, Mapping) and isinstance(feature.get("feature"), Mapping)
    return feature["feature"] if is_list and "_type" in feature else feature


def _names(feature: Any) -> list[str]:
    if isinstance(feature, list) and feature:  # an old form of a list
        return _names(feature[0])
    if not isinstance(feature, Mapping):
        return []
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if isinstance(names, list) else []
    return _names(feature.get("feature"))
