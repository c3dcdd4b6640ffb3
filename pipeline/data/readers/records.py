"""One record per row, for any task: JSON, CSV, TSV, Parquet or Arrow.

The recipe maps the keys of a row to the keys or columns of the file.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from pipeline.data.readers.base import Source
from pipeline.data.readers.cells import parse_list
from pipeline.data.readers.class_names import add_class_names, class_names
from pipeline.data.readers.json_documents import is_document
from pipeline.data.readers.json_values import add_missing_id, value_at
from pipeline.data.readers.label_names import add_found_names, check_names
from pipeline.data.readers.offset_units import convert_offsets
from pipeline.data.readers.record_values import convert_value, label_text
from pipeline.data.readers.tables import (
    FORMATS,
    NESTED,
    Dialect,
    Format,
    Quote,
    Record,
    features,
    format_of,
    records,
)
from pipeline.data.readers.tags import Scheme, SchemeEvidence, SchemeOrAuto, to_iob2
from pipeline.errors import Problem, Problems, abbreviate, did_you_mean
from pipeline.tasks.base.row import COMMON_KEYS, TAG_PROBLEMS, Row, RowKeys, ValueKind
from pipeline.tasks.base.task import is_text_list
from pipeline.tasks.shared.offsets import OffsetUnit

_match_integer = re.compile(r"-?[0-9]{1,18}(\.0)?").fullmatch  # pandas writes 2.0
# Instead of a key `answers` of the kind answers, `fields` may have these two.
_SINGLE_ANSWER: dict[str, ValueKind] = {"answer": "text", "answer_start": "integer"}


@dataclass(frozen=True)
class Options:
    """The mapping from the file's records to rows.

    `fields` has the keys of a row, and for each the file's key or column: a path with dots if it is
    nested (`text: passage.text`), nothing if the names are equal (`{text, label}`). Every record
    must have all of them.

    `names` renames labels and tags, e.g. {"0": no, "1": yes}; others keep their names. Names of
    class numbers in the metadata of a Parquet or Arrow file apply first. `tag_scheme` is the scheme
    of the renamed tags. Answers with offsets are a list of {text, answer_start}, or {text: [...],
    answer_start: [...]}. Instead of them, `answer` and `answer_start` have a single answer; an
    empty `answer` means "no answer". `offsets` is the unit of all offsets.

    With `group_by`, a file has one token per record: adjacent records with the same value in this
    column, or with none, are the tokens of one row. A file must not have the same value again in
    later records; equal values in two files are two rows.

    `format` is by default that of the file's extension (.jsonl, .ndjson, .json, .csv, .tsv,
    .parquet, .arrow). CSV and TSV have a `delimiter`, and `columns`, the column names if the file
    has no header. `quote: double` accepts cells in double quotes, `none` reads quotes as text;
    `auto` is double for CSV and none for TSV, but a TSV cell in quotes is a problem. A list in a
    cell is JSON, in Python's or numpy's notation, or texts separated by `list_separator`.
    """

    fields: dict[str, str | None] = field(default_factory=lambda: {"text": None, "label": None})
    names: dict[str, str] = field(default_factory=dict)
    tag_scheme: SchemeOrAuto = "iob2"
    offsets: OffsetUnit = "characters"
    group_by: str | None = None
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
        if self.list_separator is not None and self.group_by is not None:
            problems.append("list_separator: group_by already makes lists; remove one of the keys")
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
        if problems and self.options.fields == Options().fields:
            problems = [
                f"fields: its default ({', '.join(self.options.fields)}) does not fit the task; "
                f"set it, with keys of the task's rows ({', '.join(self.kinds)})"
            ]
        if self.options.names and not self.keys_of("label", "tags"):
            problems.append(
                "names: fields has no label or tags to rename; add label to fields, or remove names"
            )
        if self.options.group_by is not None and not self.keys_of("texts", "tags"):
            problems.append(
                "group_by: fields has no lists to make of the records of a group; add tokens to "
                "fields, or remove group_by"
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


def chunk_boundary(path: Path, mapping: FieldMapping) -> Literal["lines"] | None:
    """JSON lines may be split between lines; tables may not: they have headers and line breaks.

    Nor may a row of several records, or a single JSON value.
    """
    kind = format_of(path, mapping.options.format)
    if kind not in ("jsonl", "json") or mapping.options.group_by is not None:
        return None
    return None if kind == "json" and is_document(path, _columns(mapping, kind)) else "lines"


def read(source: Source, mapping: FieldMapping, problems: Problems) -> Iterator[Row]:
    """Rows with the keys of `fields`. The tag scheme must not be auto: see `resolve_auto`."""
    metadata = _features_of(source, mapping)
    named = with_class_names(mapping, metadata, str(source), problems)
    if named is None:
        return
    unmatched = set(mapping.options.names) - _names_in(metadata, mapping)
    for where, record in _records(source, named, problems):
        result = row(record, named, where, problems)
        if result is not None:
            if unmatched:
                unmatched -= _original_names(record, mapping)
            yield result
    add_found_names(mapping.options.names.keys() - unmatched, problems)


def _original_names(record: dict[str, Any], mapping: FieldMapping) -> set[str]:
    """The labels and tags of a record in the forms that `names` may have: see `_rename`."""
    values = (
        value_at(record, mapping.options.fields[key] or key)
        for key in mapping.keys_of("label", "tags")
    )
    forms = set[str]()
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            forms |= {str(item), *_forms(str(label_text(item)))}
    return forms


def check_options(mapping: FieldMapping, where: str, problems: Problems) -> None:
    """Add a warning for the names that match no label or tag in the whole corpus.

    `problems` are those of all files. `where` is the recipe.
    """
    check_names(mapping.options.names, "label or tag", where, problems)


def with_class_names(
    mapping: FieldMapping, metadata: Mapping[str, Any], where: str, problems: Problems
) -> FieldMapping | None:
    """The mapping with the names of class numbers in the features of `datasets`.

    Adds a problem and returns None if the recipe gives a number another name. (A recipe may rename
    the metadata's names.)
    """
    paths = [mapping.options.fields[key] or key for key in mapping.keys_of("label", "tags")]
    classes = [class_names(metadata, path) for path in paths]
    names = add_class_names(mapping.options.names, classes, where, problems)
    return None if names is None else mapping.with_options(names=names)


def _features_of(source: Source, mapping: FieldMapping) -> Mapping[str, Any]:
    """The features of `datasets` in the metadata of a file; empty if it has none."""
    kind = format_of(source, mapping.options.format)
    return features(Path(str(source)), kind) if kind else {}


def _names_in(metadata: Mapping[str, Any], mapping: FieldMapping) -> set[str]:
    """The class names of labels and tags in the features of `datasets`."""
    paths = (mapping.options.fields[key] or key for key in mapping.keys_of("label", "tags"))
    return {name for path in paths for name in class_names(metadata, path)}


def row(
    record: dict[str, Any], mapping: FieldMapping, where: str, problems: Problems
) -> Row | None:
    """The row of a record; adds problems and returns None if a value is missing or wrong."""
    with problems.in_one_row():
        result = _raw_row(record, mapping, where, problems)
        if result is None:
            return None
        before = len(problems)
        for key in mapping.keys_of("tags"):
            result[key], errors = to_iob2(result[key], cast(Scheme, mapping.options.tag_scheme))
            if errors:
                result[TAG_PROBLEMS] = [
                    Problem(kind, where, f"token {position}: {message}")
                    for position, message, kind in errors
                ]
        convert_offsets(result, mapping.options.offsets, problems)
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
        metadata = _features_of(source, mapping)
        named = with_class_names(mapping, metadata, str(source), Problems()) or mapping
        for where, record in _records(source, named, Problems()):
            for tags in raw_tags(record, named, where):
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
    dialect = Dialect(options.delimiter, options.columns, options.quote)

    def open_records(problems: Problems) -> Iterator[tuple[str, Record]]:
        return records(source, kind, _columns(mapping, kind), dialect, problems)

    result = (
        open_records(problems)
        if options.group_by is None
        else _grouped(open_records, options.group_by, mapping, problems)
    )
    for where, record in result:
        yield where, record if kind in NESTED else _parse_cells(record, mapping, where, problems)


def _columns(mapping: FieldMapping, kind: Format) -> list[str]:
    """The columns of the file that rows need; for a nested key, its first part."""
    paths = [path or key for key, path in mapping.options.fields.items()]
    if kind in NESTED:
        paths = [path.split(".")[0] for path in paths]
    return sorted({*paths, *filter(None, [mapping.options.group_by])})


def _grouped(
    open_records: Callable[[Problems], Iterator[tuple[str, Record]]],
    column: str,
    mapping: FieldMapping,
    problems: Problems,
) -> Iterator[tuple[str, Record]]:
    """One record per group of adjacent records, with a list of the values of texts and tags.

    A record without a value in `column` belongs to the group before it. Other values are those of
    the group's first record. A group is skipped if a record that could not be read belongs to it,
    or may belong to it: both groups beside such a record are skipped.
    """
    lists = [mapping.options.fields[key] or key for key in mapping.keys_of("texts", "tags")]
    group: Record = {}
    group_value: Any = None
    hashes = array("q")  # of the values of the groups
    position, valid, num_problems = "", True, len(problems)
    for where, record in open_records(problems):
        damaged = len(problems) > num_problems  # before this record
        valid = valid and not damaged
        value = record.get(column)
        starts_group = value not in (None, "", group_value)
        if not group and not starts_group:
            problems.add(
                where,
                f"{column} is empty in the first record, so its group is unknown; fill it in, or "
                "correct group_by in the recipe's options",
                "missing-group",
            )
        if starts_group:
            if group and valid:
                yield position, group
            position, valid, group_value = where, not damaged, value
            hashes.append(hash(repr(value)))
            group = record | {name: [] for name in lists if name in record}
        for name in lists:
            if name in group:
                group[name].append(record.get(name))
        num_problems = len(problems)
    if group and valid and len(problems) == num_problems:
        yield position, group
    _check_adjacent(hashes, open_records, column, problems)


def _check_adjacent(
    hashes: "array[int]",
    open_records: Callable[[Problems], Iterator[tuple[str, Record]]],
    column: str,
    problems: Problems,
) -> None:
    """Add a problem if groups of a file begin several times, so that their rows are incomplete.

    `hashes` are those of the values of the groups in their order. The positions of the first such
    group are found by reading the file again.
    """
    values = np.frombuffer(hashes, "i8")
    order = np.argsort(values, kind="stable")
    repeats = order[1:][values[order][1:] == values[order][:-1]]
    if not len(repeats):
        return
    again, num_groups = int(repeats.min()), len(np.unique(values[repeats]))
    begin = int(np.flatnonzero(values == values[again])[0])
    starts = _group_starts(open_records(Problems()), column)
    first, value = next(islice(starts, begin, None))
    second, _ = next(islice(starts, again - begin - 1, None))
    problems.add(
        second,
        f"the group {abbreviate(value, 40)} of {column} began at {first} and begins again after "
        f"other groups, so each part would be a row (such groups in the file: {num_groups}); sort "
        f"the file by {column}, with the records of a group in their order; if its values begin "
        "again in each document, set allow: [split-group] in the recipe",
        "split-group",
        hides=True,  # the first part of the group was already read as a row
    )


def _group_starts(records: Iterator[tuple[str, Record]], column: str) -> Iterator[tuple[str, Any]]:
    """The position and the value of each group."""
    group_value: Any = None
    for where, record in records:
        if record.get(column) not in (None, "", group_value):
            group_value = record[column]
            yield where, group_value


def _raw_row(
    record: dict[str, Any], mapping: FieldMapping, where: str, problems: Problems
) -> Row | None:
    """The row with its tags before the conversion to IOB2."""
    options, before = mapping.options, len(problems)
    result: Row = {"where": where}
    for key, field_path in options.fields.items():
        path = field_path or key
        try:
            value = value_at(record, path)
        except KeyError:
            problems.add(
                where,
                f"key {path!r} is missing; found {', '.join(record)[:200] or 'none'}: "
                "add it, or set its name in the recipe's fields",
                "missing-key",
            )
            continue
        if value is None and key in COMMON_KEYS:
            if key == "id":
                add_missing_id(path, where, problems)
            continue
        if key in _SINGLE_ANSWER and (value is None or value == ""):  # no answer
            result[key] = None
            continue
        result[key] = convert_value(key, mapping.kinds[key], value, path, where, problems)
    if len(problems) > before:
        return None
    for key in mapping.keys_of("label", "tags"):
        value = value_at(record, options.fields[key] or key)
        result[key] = _rename(result[key], value, options.names)
    return _with_single_answer(result, problems) if "answer" in result else result


def _rename(name: Any, value: Any, names: dict[str, str]) -> Any:
    """The new name of a label, or a list of those of tags.

    `value` is the value in the file. str(value) is looked up too, because YAML's {true: yes} is
    loaded as {"True": "yes"}; and 2.0 is also looked up as 2.
    """
    if isinstance(name, list):
        return [_rename(tag, raw_tag, names) for tag, raw_tag in zip(name, value, strict=True)]
    return next((names[form] for form in (str(value), *_forms(name)) if form in names), name)


def _forms(name: str) -> tuple[str, ...]:
    """The forms of a label that `names` may have: 2.0 is also 2."""
    return (name, name.removesuffix(".0")) if _match_integer(name) else (name,)


def _with_single_answer(result: Row, problems: Problems) -> Row | None:
    """Replace `answer` and `answer_start` by `answers`."""
    text, start = result.pop("answer"), result.pop("answer_start")
    if text is None and start is not None and start > 0:  # 0 and -1 are fillers
        problems.add(
            result["where"],
            f"answer_start is {start}, but the answer is empty; fill it in, or empty answer_start "
            "if the context has no answer",
            "missing-answers",
        )
        return None
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
    return result | {"answers": [{"text": text, "answer_start": start}]}


def _parse_cells(record: Record, mapping: FieldMapping, where: str, problems: Problems) -> Record:
    """The record with integers and lists parsed from text; invalid ones stay text.

    An empty id is none. Lists in the notation of Python or numpy add a warning.
    """
    parsed: Record = {}
    for key, column in mapping.options.fields.items():
        name = column or key
        cell = record[name]
        if isinstance(cell, str):  # a list if records are grouped
            parsed[name] = _parse_cell(key, cell, mapping, f"{where}: {name}", problems)
    return record | parsed


def _parse_cell(key: str, cell: str, mapping: FieldMapping, where: str, problems: Problems) -> Any:
    kind, separator = mapping.kinds[key], mapping.options.list_separator
    if key in COMMON_KEYS:
        return cell or None
    if kind == "integer":
        return int(cell.removesuffix(".0")) if _match_integer(cell) else cell
    if kind in ("texts", "tags", "references") and separator:
        return cell.split(separator) if cell else []
    if kind in ("texts", "tags", "label_lists", "integers", "spans", "answers"):
        return parse_list(cell, where, problems)
    if kind == "references" and cell.lstrip().startswith("["):
        # A text may begin with a bracket, too.
        texts = parse_list(cell, where, problems)
        return texts if is_text_list(texts) else cell
    return cell
