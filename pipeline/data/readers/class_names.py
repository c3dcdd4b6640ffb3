"""The names of class numbers in the features of the library `datasets`."""

from collections.abc import Mapping
from typing import Any


def class_names(features: Mapping[str, Any], path: str) -> list[str]:
    """The names of the class numbers of a column, in order; empty if it has none.

    `features` is the JSON form of `datasets.Features`. `path` is the name of the column, or a path
    with dots to a nested value. A column of class numbers, or of lists of them, has names.
    """
    if path in features:
        return _names(features[path])
    first, _, rest = path.partition(".")
    nested = features.get(first)
    return class_names(nested, rest) if rest and isinstance(nested, Mapping) else []


def _names(feature: Any) -> list[str]:
    if isinstance(feature, list) and feature:  # an old form of a list
        return _names(feature[0])
    if not isinstance(feature, Mapping):
        return []
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if isinstance(names, list) else []
    return _names(feature.get("feature"))
