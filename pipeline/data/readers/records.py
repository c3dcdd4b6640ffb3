"""One record per row, for any task: JSON lines, CSV, TSV or Parquet.

The recipe maps the keys of a row to the keys or columns of the file.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

from pipeline.data.readers.base import Source, abbreviate
from pipeline.data.readers.json_values import check, check_answers, decode
from pipeline.data.readers.tables import FORMATS, Dialect, Format, Quote, format_of, records
from pipeline.data.readers.tags import Scheme, SchemeEvidence, SchemeOrAuto, to_iob2
from pipeline.errors import Problems, did_you_mean
from pipeline.tasks.base.row import Row, RowKeys, ValueKind


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    """A label or an id as text; booleans as in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _list(convert_item: Callable[[Any], Any]) -> Callable[[Any], list[Any] | None]:
    def convert(value: Any) -> list[Any] | None:
        items = [convert_item(item) for item in value] if isinstance(value, list) else [None]
        return None if None in items else items

    return convert


def _span(value: Any) -> dict[str, int] | None:
    valid = (
        isinstance(value, dict)
        and value.keys() == _SPAN_KEYS
        and all(_integer(number) is not None for number in value.values())
    )
    return value if valid else None


_SPAN_KEYS = {"segment", "start", "end"}


class _Converter(NamedTuple):
    """`convert` returns a value of one kind, or None if it is of another kind.

    `expected` names the kind in messages.
    """

    convert: Callable[[Any], Any]
    expected: str


_CONVERTERS: dict[ValueKind, _Converter] = {  # `_answers` converts values of the kind answers
    "text": _Converter(_text, "text"),
    "name": _Converter(_name, "text or an integer"),
    "label": _Converter(_name, "text, an integer, or true or false"),
    "tags": _Converter(_list(_name), "a list of texts or integers"),
    "texts": _Converter(_list(_text), "a list of texts"),
    "integer": _Converter(_integer, "an integer"),
    "integers": _Converter(_list(_integer), "a list of integers"),
    "spans": _Converter(
        _list(_span), "a list of mappings, each with the integers segment, start and end"
    ),
}
# Instead of a key `answers` of the kind answers, `fields` may have these two.
_SINGLE_ANSWER: dict[str, ValueKind] = {"answer": "text", "answer_start": "integer"}


@dataclass(frozen=True)
class Options:
    """The mapping from the file's records to rows.

    `fields` has the keys of a row, and for each the file's key or column: a path with dots if it is
    nested (`text: passage.text`), nothing if the names are equal (`{text, label}`). Every record
    must have all of them.

    `names` renames labels and tags, e.g. {"0": no, "1": yes}; others keep their names. `tag_scheme`
    is the scheme of the renamed tags. Answers with offsets are a list of {text, answer_start}, or
    {text: [...], answer_start: [...]}. Instead of them, `answer` and `answer_start` have a single
    answer; an empty `answer` means "no answer".

    `format` is by default that of the file's extension (.jsonl, .ndjson, .json, .csv, .tsv,
    .parquet). CSV and TSV have a `delimiter`, and `columns`, the column names if the file has no
    header. `quote: double` accepts cells in double quotes, `none` reads quotes as text; `auto` is
    double for CSV and none for TSV, but a TSV cell in quotes is a problem. A list in a cell is
    JSON, or texts separated by `list_separator`.
    """

    fields: dict[str, str | None] = field(default_factory=lambda: {"text": None, "label": None})
    names: dict[str, str] = field(default_factory=dict)
    tag_scheme: SchemeOrAuto = "iob2"
    format: Format | None = None
    delimiter: str | None = None
    columns: tuple[str, ...] = ()
    quote: Quote = "auto"
    list_separator: str | None = None

    def __post_init__(self) -> None:
        problems = list[str]()
        if ("answer" in self.fields) != ("answer_start" in self.fields) or {
            "answer",
            "answers",
        } <= self.fields.keys():
            problems.append("fields: set either answers, or both answer and answer_start")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            problems.append(
                f"delimiter: {self.delimiter!r} must be one character other than a quote or a "
                "line ending; correct it"
            )
        if self.list_separator == "":
            problems.append("list_separator: it is empty; remove the key if lists are JSON")
        if problems:
            raise ValueError("; ".join(problems))


@dataclass(frozen=True)
class FieldMapping:
    """A recipe's options, and the kind of value of each key that the rows of its task may have."""

    options: Options
    kinds: dict[str, ValueKind]

    def __post_init__(self) -> None:
        problems = [
            f"fields: {key!r} is not a key of a row of the task{did_you_mean(key, self.kinds)}"
            for key in self.options.fields
            if key not in self.kinds
        ]
        if self.options.names and not self.keys_of("label", "tags"):
            problems.append(
                "names: fields has no label or tags to rename; add label to fields, or remove names"
            )
        if problems:
            raise ValueError("; ".join(problems))

    def keys_of(self, *kinds: ValueKind) -> list[str]:
        """The keys of `fields` with values of these kinds."""
        return [key for key in self.options.fields if self.kinds.get(key) in kinds]

    def with_options(self, **changes: Any) -> "FieldMapping":
        """The mapping with some options changed."""
        return replace(self, options=replace(self.options, **changes))


def for_task(options: Options, keys: RowKeys) -> FieldMapping:
    """The options for a task with these keys. Raises ValueError if `fields` has another key."""
    single_answer = _SINGLE_ANSWER if keys.kinds.get("answers") == "answers" else {}
    return FieldMapping(options, {**keys.kinds, **single_answer})


def keys(options: Options) -> frozenset[str]:
    """The keys of all rows."""
    fields = frozenset(options.fields)
    return fields - {"answer", "answer_start"} | {"answers"} if "answer" in fields else fields


def chunk_boundary(path: Any, mapping: FieldMapping) -> Literal["lines"] | None:
    """JSON lines may be split between lines; tables may not: they have headers and line breaks."""
    return "lines" if format_of(path, mapping.options.format) == "jsonl" else None


def read(source: Source, mapping: FieldMapping, problems: Problems) -> Iterator[Row]:
    """Rows with the keys of `fields`. The tag scheme must not be auto: see `resolve_auto`."""
    unmatched = set(mapping.options.names)
    for where, record in _records(source, mapping, problems):
        result = row(record, mapping, where, problems)
        if result is not None:
            if unmatched:
                unmatched -= _original_names(record, mapping)
            yield result
    problems.found.update(
        _found_name(name) for name in mapping.options.names if name not in unmatched
    )


def _original_names(record: dict[str, Any], mapping: FieldMapping) -> set[str]:
    """The labels and tags of a record in the forms that `names` may have: see `_rename`."""
    values = (
        _value_at(record, mapping.options.fields[key] or key)
        for key in mapping.keys_of("label", "tags")
    )
    items = (item for value in values for item in (value if isinstance(value, list) else [value]))
    return {form for item in items for form in (str(item), str(_name(item)))}


def _found_name(name: str) -> str:
    """The key of an entry of `names` in `Problems.found`."""
    return f"names {name}"


def check_options(mapping: FieldMapping, where: str, problems: Problems) -> None:
    """Add a warning for the names that match no label or tag in the whole corpus.

    `problems` are those of all files. `where` is the recipe.
    """
    names = [name for name in mapping.options.names if not problems.found[_found_name(name)]]
    if names:
        problems.add(
            where,
            f"names: no label or tag is {', '.join(map(repr, names))}; "
            "correct the names, or remove them",
            "unmatched-option",
        )


def row(
    record: dict[str, Any], mapping: FieldMapping, where: str, problems: Problems
) -> Row | None:
    """The row of a record; adds problems and returns None if a value is missing or wrong."""
    result = _raw_row(record, mapping, where, problems)
    if result is None:
        return None
    before = len(problems)
    for key in mapping.keys_of("tags"):
        result[key], errors = to_iob2(result[key], cast(Scheme, mapping.options.tag_scheme))
        for position, message, kind in errors:
            problems.add(where, f"token {position}: {message}", kind)
    return None if len(problems) > before else result


def resolve_auto(
    mapping: FieldMapping, files: Iterable[Source]
) -> tuple[FieldMapping, dict[str, Any]]:
    """The mapping with `tag_scheme: auto` replaced by the detected scheme.

    `files` are all files of the corpus. Also returns the detected values by name.
    """
    if mapping.options.tag_scheme != "auto" or not mapping.keys_of("tags"):
        return mapping, {}
    evidence = SchemeEvidence()
    for source in files:
        for where, record in _records(source, mapping, Problems()):
            for tags in raw_tags(record, mapping, where):
                evidence.add(tags)
    scheme = evidence.scheme()
    return mapping.with_options(tag_scheme=scheme), {"tag_scheme": scheme}


def raw_tags(record: dict[str, Any], mapping: FieldMapping, where: str) -> list[list[str]]:
    """The tags of a record before the conversion to IOB2, a list per key; none if it is invalid."""
    result = _raw_row(record, mapping, where, Problems())
    return [result[key] for key in mapping.keys_of("tags")] if result else []


def _records(
    source: Source, mapping: FieldMapping, problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The position and the values of each record. The cells of CSV and TSV are parsed."""
    options = mapping.options
    kind = format_of(source, options.format)
    if kind is None:
        problems.add(
            str(source),
            "the file extension is not that of a known format; set format in the recipe's options: "
            f"{', '.join(FORMATS)}",
            "unknown-format",
            hides=True,
        )
        return
    nested = kind in ("jsonl", "parquet")
    columns = {
        (path or key).split(".")[0] if nested else path or key
        for key, path in options.fields.items()
    }
    dialect = Dialect(options.delimiter, options.columns, options.quote)
    for where, record in records(source, kind, sorted(columns), dialect, problems):
        yield where, record if nested else _parse_cells(record, mapping)


def _raw_row(
    record: dict[str, Any], mapping: FieldMapping, where: str, problems: Problems
) -> Row | None:
    """The row with its tags before the conversion to IOB2."""
    options = mapping.options
    result: Row = {"where": where}
    invalid = False
    for key, field_path in options.fields.items():
        path = field_path or key
        try:
            value = _value_at(record, path)
        except KeyError:
            problems.add(
                where,
                f"key {path!r} is missing; found {', '.join(record)[:200] or 'none'}: "
                "add it, or set its name in the recipe's fields",
                "missing-key",
            )
            invalid = True
            continue
        if key == "answer" or (key == "answer_start" and value is None):
            result[key] = value or None
            continue
        kind = mapping.kinds[key]
        result[key] = (
            _answers(value, where, problems)
            if kind == "answers"
            else _convert(kind, value, path, where, problems)
        )
        invalid |= result[key] is None
    if invalid:
        return None
    for key in mapping.keys_of("label", "tags"):
        value = _value_at(record, options.fields[key] or key)
        result[key] = _rename(result[key], value, options.names)
    return _with_single_answer(result, problems) if "answer" in result else result


def _convert(kind: ValueKind, value: Any, path: str, where: str, problems: Problems) -> Any:
    """The value of a key; adds a problem and returns None if it is of another kind."""
    convert, expected = _CONVERTERS[kind]
    result = convert(value)
    if result is None:
        problems.add(
            where,
            f"{path}: found {type(value).__name__} {abbreviate(value, 40)}, expected {expected}; "
            "correct it, or the recipe's fields",
            "not-an-integer" if kind == "integer" else "wrong-type",
        )
    return result


def _rename(name: Any, value: Any, names: dict[str, str]) -> Any:
    """The new name of a label, or a list of those of tags.

    `value` is the value in the file. str(value) is looked up too, because YAML's {true: yes} is
    loaded as {"True": "yes"}.
    """
    if isinstance(name, list):
        return [_rename(tag, raw_tag, names) for tag, raw_tag in zip(name, value, strict=True)]
    return names.get(str(value), names.get(name, name))


def _answers(value: Any, where: str, problems: Problems) -> list[dict[str, Any]] | None:
    """Answers with offsets, in either form; adds a problem and returns None for another form."""
    if isinstance(value, dict):  # the form of the hub
        if not check(value, f"{where}: answers", {"text": list, "answer_start": list}, problems):
            return None
        texts, starts = value["text"], value["answer_start"]
        if len(texts) != len(starts):
            problems.add(
                where,
                f"answers: {len(texts)} texts with {len(starts)} offsets; "
                "give each answer one text and one offset",
                "missing-answers",
            )
            return None
        value = [
            {"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)
        ]
    elif not check({"answers": value}, where, {"answers": list}, problems):
        return None
    if not check_answers(value, where, problems):
        return None
    return [{"text": answer["text"], "answer_start": answer["answer_start"]} for answer in value]


def _with_single_answer(result: Row, problems: Problems) -> Row | None:
    """Replace `answer` and `answer_start` by `answers`."""
    text, start = result.pop("answer"), result.pop("answer_start")
    if text is None:
        return result | {"answers": []}
    if start is None:
        problems.add(
            result["where"],
            f"answer {abbreviate(text, 40)} has no answer_start; "
            "correct it, or the recipe's fields",
            "not-an-integer",
        )
        return None
    if not isinstance(text, str):
        problems.add(
            result["where"],
            f"answer: found {type(text).__name__} {abbreviate(text, 40)}, expected text; "
            "correct it, or the recipe's fields",
            "wrong-type",
        )
        return None
    return result | {"answers": [{"text": text, "answer_start": start}]}


def _parse_cells(record: dict[str, Any], mapping: FieldMapping) -> dict[str, Any]:
    """The record with integers and lists parsed from text; invalid ones stay text."""
    separator = mapping.options.list_separator
    return record | {
        column or key: _parse_cell(mapping.kinds[key], record[column or key], separator)
        for key, column in mapping.options.fields.items()
    }


def _parse_cell(kind: ValueKind, cell: str, separator: str | None) -> Any:
    if kind == "integer":
        return int(cell) if re.fullmatch(r"-?[0-9]{1,18}", cell) else cell or None
    if kind in ("texts", "tags") and separator:
        return cell.split(separator) if cell else []
    if kind in ("texts", "tags", "integers", "spans", "answers"):
        try:
            return decode(cell)
        except ValueError:
            return cell
    return cell


def _value_at(record: Any, path: str) -> Any:
    """The value at a path with dots, or of a key with dots in its name. Raises KeyError."""
    if path in record:
        return record[path]
    for key in path.split("."):
        if not isinstance(record, dict):
            raise KeyError(key)
        record = record[key]
    return record
