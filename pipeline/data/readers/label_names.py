"""The option `names` of a recipe: new names of labels, compared with the labels of the files."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.data.readers.spans import Span
from pipeline.errors import Problems

_OUTSIDE = "O"  # the new name of a label whose spans are ignored
_IGNORED = "spans named O"  # their name in `Problems.skipped`


def rename_spans(spans: Sequence[Span], names: Mapping[str, str], problems: Problems) -> list[Span]:
    """The spans with new names of labels. Spans that are named O are skipped and counted."""
    renamed = [span._replace(label=names.get(span.label, span.label)) for span in spans]
    kept = [span for span in renamed if span.label != _OUTSIDE]
    problems.skipped[_IGNORED] += len(renamed) - len(kept)
    return kept


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
