"""The option `names` of a recipe: new names of labels, compared with the labels of the files."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.data.readers.class_names import add_class_names
from pipeline.data.readers.spans import LabeledSpan
from pipeline.errors import Problems

_OUTSIDE = "O"  # the new name of a label whose spans are ignored
_IGNORED = "spans named O"  # their name in `Problems.skipped`


class LabelNames:
    """The option `names` for the spans of a file, and which of the names the file has.

    `classes` has the names of class numbers in the file's metadata. If the recipe gives a number
    another name, a problem is added, and `is_valid` is False.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        classes: Sequence[list[str]],
        where: str,
        problems: Problems,
    ) -> None:
        merged = add_class_names(names, classes, where, problems)
        self.is_valid = merged is not None
        self._names, self._problems = merged or {}, problems
        self._recipe_names = names.keys()
        self._unmatched = set(names) - {name for column in classes for name in column}

    def rename(self, spans: Sequence[LabeledSpan]) -> list[LabeledSpan]:
        """The spans with new names of labels. Spans that are named O are skipped and counted."""
        self._unmatched -= {span.label for span in spans}
        renamed = [span._replace(label=self._names.get(span.label, span.label)) for span in spans]
        kept = [span for span in renamed if span.label != _OUTSIDE]
        self._problems.skipped[_IGNORED] += len(renamed) - len(kept)
        return kept

    def add_found(self) -> None:
        """Record the names that the file has."""
        add_found_names(self._recipe_names - self._unmatched, self._problems)


def add_found_names(names: Iterable[str], problems: Problems) -> None:
    """Record that a file has these names."""
    problems.found.update(map(_found_name, names))


def check_names(names: Iterable[str], things: str, where: str, problems: Problems) -> None:
    """Add a warning for the names that no file of the corpus has.

    `things` are what the names are renamed for, and `where` is the recipe.
    """
    unmatched = [name for name in names if not problems.found[_found_name(name)]]
    if unmatched:
        problems.add(
            where,
            f"names: no {things} is {', '.join(map(repr, unmatched))}; "
            "correct the names, or remove them",
            "unmatched-option",
        )


def _found_name(name: str) -> str:
    """The key of a name in `Problems.found`."""
    return f"names {name}"
