"""Records of JSON, Parquet or Arrow files, and the keys with their values."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.data.readers.base import Source
from pipeline.data.readers.class_names import class_names
from pipeline.data.readers.documents import LABEL_KEYS
from pipeline.data.readers.json_documents import is_document
from pipeline.data.readers.json_values import add_missing_id, integer, value_at
from pipeline.data.readers.tables import NESTED, Dialect, Record, features, format_of, records
from pipeline.errors import Problems, describe, did_you_mean

RecordFormat = Literal["jsonl", "json", "parquet", "arrow"]
_REMEDY = "correct it, or fields in the recipe's options"


class RecordKeys(NamedTuple):
    """Where the records of a file have their values.

    `defaults` has, for each value, the keys that may have it, in the order of preference. `fields`
    are those of a recipe: a key, or nothing if the names are equal. A key may be a path with dots.
    """

    defaults: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, str | None]
    format: RecordFormat | None

    def paths(self, name: str) -> tuple[str, ...]:
        """The keys that may have a value."""
        return (self.fields[name] or name,) if name in self.fields else self.defaults[name]

    @property
    def columns(self) -> list[str]:
        """The columns of a table with the values; an id only if the recipe has it."""
        names = [name for name in self.defaults if name != "id" or "id" in self.fields]
        return sorted({self.paths(name)[0].split(".")[0] for name in names})

    def value(self, name: str, record: Record, where: str, problems: Problems) -> Any:
        """A value of a record; adds a problem if it has none of the keys."""
        paths = self.paths(name)
        for path in paths:
            try:
                return value_at(record, path)
            except KeyError:
                continue
        found = ", ".join(map(str, record))[:200] or "none"
        problems.add(
            where,
            f"key {' or '.join(map(repr, paths))} is missing; found {found}: add it, or set its "
            "name in fields in the recipe's options",
            "missing-key",
        )
        return None

    def id(self, record: Record, where: str, problems: Problems) -> str | None:
        """The id of a record, text or an integer; None if it has none."""
        path = self.paths("id")[0]
        try:
            value = value_at(record, path)
        except KeyError:
            value = None
        if value is None and "id" in self.fields:
            add_missing_id(path, where, problems)
        number = integer(value)
        if value is None or isinstance(value, str) or number is not None:
            return value if number is None else str(number)
        add_wrong_type(path, value, "text or an integer", where, problems)
        return None

    def annotated(
        self, name: str, record: Record, where: str, problems: Problems
    ) -> tuple[Any, Any, str | None] | None:
        """The value `name` of a record, its spans and its id.

        Returns None, and adds problems, if a key is missing or the id is invalid.
        """
        before = len(problems)
        values = (
            self.value(name, record, where, problems),
            self.value("spans", record, where, problems),
            self.id(record, where, problems),
        )
        return values if len(problems) == before else None

    def check_spans(self, value: Any, where: str, problems: Problems) -> None:
        """Add a problem if the spans of a record are not a list."""
        if not isinstance(value, list):
            add_wrong_type(self.paths("spans")[0], value, "a list of spans", where, problems)


def unknown_fields(fields: Mapping[str, Any], allowed: tuple[str, ...]) -> list[str]:
    """The problems of a recipe's `fields` with other keys than the allowed ones."""
    return [
        f"fields: {key!r} is not one of its keys{did_you_mean(key, allowed)}"
        for key in fields
        if key not in allowed
    ]


def add_wrong_type(path: str, value: Any, expected: str, where: str, problems: Problems) -> None:
    """Add the problem that the value of a key is not of the expected kind."""
    problems.add(
        where,
        f"{path}: found {describe(value)}, expected {expected}; {_REMEDY}",
        "wrong-type",
    )


def read_records(
    source: Source, keys: RecordKeys, problems: Problems
) -> Iterator[tuple[str, Record]]:
    """The position and the values of each record of a file."""
    kind = format_of(source, keys.format)
    if kind not in NESTED:
        problems.add(
            str(source),
            "the file extension is not that of a known format; set format in the recipe's options: "
            f"{', '.join(sorted(NESTED))}",
            "unknown-format",
            hides=True,
        )
        return
    yield from records(source, kind, keys.columns, Dialect(None, (), "auto"), problems)


def classes_of_labels(source: Source, keys: RecordKeys) -> list[list[str]]:
    """The names of the class numbers of spans in the metadata of a table, by key of the label."""
    kind = format_of(source, keys.format)
    metadata = features(Path(str(source)), kind) if kind else {}
    paths = [f"{path}.{key}" for path in keys.paths("spans") for key in LABEL_KEYS]
    return [class_names(metadata, path) for path in paths]


def chunk_boundary(path: Path, keys: RecordKeys) -> Literal["lines"] | None:
    """JSON lines may be split between lines."""
    kind = format_of(path, keys.format)
    if kind not in ("jsonl", "json"):
        return None
    return None if kind == "json" and is_document(path, keys.columns) else "lines"
