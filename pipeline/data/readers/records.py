"""Records of any task, one each row: JSON lines, CSV, TSV or Parquet, their keys or columns mapped to ours by the recipe."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

from pipeline.data.readers.base import Source, shown
from pipeline.data.readers.json_values import check, check_answers, decode
from pipeline.data.readers.tables import FORMATS, Cells, Format, Quote, format_of, records
from pipeline.data.readers.tags import Scheme, SchemeEvidence, SchemeOrAuto, to_iob2
from pipeline.errors import Problems, did_you_mean
from pipeline.tasks.base.row import Row


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    """A label or an id as text; true and false as JSON writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _list(of: Callable[[Any], Any]) -> Callable[[Any], list[Any] | None]:
    def convert(value: Any) -> list[Any] | None:
        items = [of(item) for item in value] if isinstance(value, list) else [None]
        return None if None in items else items

    return convert


def _span(value: Any) -> dict[str, int] | None:
    good = (
        isinstance(value, dict)
        and value.keys() == _SPAN
        and all(_integer(number) is not None for number in value.values())
    )
    return value if good else None


_SPAN = {"segment", "start", "end"}


class _Kind(NamedTuple):
    """What a key's value is: `of` makes it (None: it is of another kind), and `expected` says what was expected."""

    of: Callable[[Any], Any]
    expected: str


_TEXT = _Kind(_text, "text")
_NAME = _Kind(_name, "text or an integer")
_TEXTS = _Kind(_list(_text), "a list of texts")
_INTEGER = _Kind(_integer, "an integer")
_KINDS: dict[str, _Kind] = {
    "id": _NAME,
    "title": _NAME,
    "text": _TEXT,
    "text_pair": _TEXT,
    "spans": _Kind(
        _list(_span), "a list of mappings, each with the integers segment, start and end"
    ),
    "label": _Kind(_name, "text, an integer, or true or false"),
    "context": _TEXT,
    "question": _NAME,
    "choices": _TEXTS,
    "starts": _Kind(_list(_integer), "a list of integers"),
    "answers": _TEXTS,
    "answer": _TEXT,
    "answer_start": _INTEGER,
    "tokens": _TEXTS,
    "tags": _Kind(_list(_name), "a list of texts or integers"),
    "predicate": _INTEGER,
}


@dataclass(frozen=True)
class Options:
    """`fields` are the keys of a row, each with the key or column that the file has for it: where that is nested, the way to it
    with dots (`text: passage.text`); none where it is the same (`{text, label}`). Every record must have all of them.

    `names` renames labels and tags, e.g. {"0": no, "1": yes}; one that is not there stays as the file has it. `tag_scheme` is
    that of tags, then. Without `choices`, `answers` have offsets: a list of {text, answer_start}, or {text: [...], answer_start:
    [...]}; `answer` and `answer_start` in their stead are those of one, which is empty where there is none.

    `format` is told by the file's name (.jsonl, .ndjson, .json, .csv, .tsv, .parquet) if it is not said. CSV and TSV have a
    `delimiter`, and `columns`, their names, where the file does not begin with them. `quote: double` understands cells in double
    quotes, `none` takes quotes for text; auto is double for CSV, and none for TSV, where a cell that looks quoted is a problem
    then. A list in a cell is JSON, or texts with `list_separator` between them.
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
        bad = [
            f"fields: {key!r} is no key of a row{did_you_mean(key, _KINDS)}"
            for key in self.fields
            if key not in _KINDS
        ]
        if self.names and not {"label", "tags"} & self.fields.keys():
            bad.append("names: there is no label to rename; add label to fields, or remove names")
        if ("answer" in self.fields) != ("answer_start" in self.fields) or {
            "answer",
            "answers",
        } <= self.fields.keys():
            bad.append("fields: there is answers, or both answer and answer_start; correct them")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            bad.append(
                f"delimiter: {self.delimiter!r} is not one character, and no quote; correct it"
            )
        if self.list_separator == "":
            bad.append("list_separator: it is empty; leave it out where lists are JSON")
        if bad:
            raise ValueError("; ".join(bad))


def keys(options: Options) -> frozenset[str]:
    """The keys that every row has."""
    given = frozenset(options.fields)
    return given - {"answer", "answer_start"} | {"answers"} if "answer" in given else given


def cut(path: Any, options: Options) -> Literal["lines"] | None:
    """Where a file may be cut: JSON between lines; a table not at all, since it has a head, and lines within cells."""
    return "lines" if format_of(path, options.format) == "jsonl" else None


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows with the keys of `fields`. `options` are settled: `tag_scheme` is not auto."""
    for where, record in _records(source, options, problems):
        found = row(record, options, where, problems)
        if found is not None:
            yield found


def row(record: dict[str, Any], options: Options, where: str, problems: Problems) -> Row | None:
    """The row of one record; None, and a problem for each key that it lacks or that has another kind of value."""
    found = _raw(record, options, where, problems)
    if found is None or "tags" not in found:
        return found
    found["tags"], wrong = to_iob2(found["tags"], cast(Scheme, options.tag_scheme))
    for position, message, kind in wrong:
        problems.add(where, f"token {position}: {message}", kind)
    return None if wrong else found


def resolve_auto(options: Options, files: Iterable[Source]) -> tuple[Options, dict[str, Any]]:
    """The options with the tag scheme that all files fit best, where it is auto; and what that is, by name."""
    if options.tag_scheme != "auto" or "tags" not in options.fields:
        return options, {}
    evidence = SchemeEvidence()
    for source in files:
        for where, record in _records(source, options, Problems()):
            evidence.see(tags_of(record, options, where))
    scheme = evidence.scheme()
    return replace(options, tag_scheme=scheme), {"tag_scheme": scheme}


def tags_of(record: dict[str, Any], options: Options, where: str) -> list[str]:
    """The tags of a record in the scheme that it has; none where it is not sound."""
    found = _raw(record, options, where, Problems())
    return found["tags"] if found else []


def _records(
    source: Source, options: Options, problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The file's records; what is text in a table's cells and should not be is made of it."""
    kind = format_of(source, options.format)
    if kind is None:
        problems.add(
            str(source),
            "the name does not say which format it is; set format in the recipe's options: "
            f"{', '.join(FORMATS)}",
            "unknown-format",
            hides=True,
        )
        return
    columns = {
        (own or key).split(".")[0] if kind in ("jsonl", "parquet") else own or key
        for key, own in options.fields.items()
    }
    style = Cells(options.delimiter, options.columns, options.quote)
    for where, record in records(source, kind, sorted(columns), style, problems):
        yield where, _uncelled(record, options) if kind in ("csv", "tsv") else record


def _raw(record: dict[str, Any], options: Options, where: str, problems: Problems) -> Row | None:
    """The row, with its tags in the scheme that the record has."""
    found: Row = {"where": where}
    bad = False
    for key, own in options.fields.items():
        path = own or key
        try:
            value = _at(record, path)
        except KeyError:
            problems.add(
                where,
                f"key {path!r} is missing; found {', '.join(record)[:200] or 'none'}: "
                "add it, or say in the recipe's fields what it is called",
                "missing-key",
            )
            bad = True
            continue
        if key == "answer" or (key == "answer_start" and value is None):
            found[key] = value or None
            continue
        has_offsets = key == "answers" and "choices" not in options.fields
        found[key] = (
            _answers(value, where, problems)
            if has_offsets
            else _valued(key, value, path, where, problems)
        )
        bad |= found[key] is None
    if bad:
        return None
    for key in ("label", "tags"):
        if key in found:
            found[key] = _renamed(
                found[key], _at(record, options.fields[key] or key), options.names
            )
    return _with_one_answer(found, problems) if "answer" in found else found


def _valued(key: str, value: Any, path: str, where: str, problems: Problems) -> Any:
    kind, expected = _KINDS[key]
    made = kind(value)
    if made is None:
        problems.add(
            where,
            f"{path}: found {type(value).__name__} {shown(value, 40)}, expected {expected}; "
            "correct it, or the recipe's fields",
            "not-an-integer" if kind is _integer else "wrong-type",
        )
    return made


def _renamed(name: Any, value: Any, names: dict[str, str]) -> Any:
    """A label, or tags, by their new names. str(value), too: YAML's {true: yes} has become {"True": "yes"}."""
    if isinstance(name, list):
        return [_renamed(one, own, names) for one, own in zip(name, value, strict=True)]
    return names.get(str(value), names.get(name, name))


def _answers(value: Any, where: str, problems: Problems) -> list[dict[str, Any]] | None:
    """Answers with offsets, in either of their two forms; None, and a problem, where they are in neither."""
    if isinstance(value, dict):  # as the hub has them
        if not check(value, f"{where}: answers", {"text": list, "answer_start": list}, problems):
            return None
        if len(value["text"]) != len(value["answer_start"]):
            problems.add(
                where,
                f"answers: {len(value['text'])} texts with {len(value['answer_start'])} offsets; each answer has "
                "one of both",
                "missing-answers",
            )
            return None
        value = [
            {"text": text, "answer_start": start}
            for text, start in zip(value["text"], value["answer_start"], strict=True)
        ]
    elif not check({"answers": value}, where, {"answers": list}, problems):
        return None
    if not check_answers(value, where, problems):
        return None
    return [{"text": answer["text"], "answer_start": answer["answer_start"]} for answer in value]


def _with_one_answer(found: Row, problems: Problems) -> Row | None:
    text, start = found.pop("answer"), found.pop("answer_start")
    if text is None:
        return found | {"answers": []}
    if not isinstance(text, str) or start is None:
        what = (
            f"answer: found {type(text).__name__} {shown(text, 40)}, expected text"
            if start is not None
            else (f"answer {shown(text, 40)} has no answer_start")
        )
        problems.add(
            found["where"],
            f"{what}; correct it, or the recipe's fields",
            "wrong-type" if start is not None else "not-an-integer",
        )
        return None
    return found | {"answers": [{"text": text, "answer_start": start}]}


def _uncelled(record: dict[str, Any], options: Options) -> dict[str, Any]:
    """A record of texts with integers and lists made of those that are to be such; what makes none stays text, and is refused."""
    return record | {
        own or key: _of_cell(key, record[own or key], options)
        for key, own in options.fields.items()
        if own or key in record
    }


def _of_cell(key: str, cell: str, options: Options) -> Any:
    lists = {"tokens", "tags", "choices"} | ({"answers"} if "choices" in options.fields else set())
    if key in ("predicate", "answer_start"):
        return int(cell) if re.fullmatch(r"-?[0-9]{1,18}", cell) else cell or None
    if key in lists and options.list_separator:
        return cell.split(options.list_separator) if cell else []
    if key in lists | {"spans", "starts", "answers"}:
        try:
            return decode(cell)
        except ValueError:
            return cell
    return cell


def _at(record: Any, path: str) -> Any:
    """The value that a dotted path leads to, or a key of that very name. Raises KeyError where there is none."""
    if path in record:
        return record[path]
    for key in path.split("."):
        if not isinstance(record, dict):
            raise KeyError(key)
        record = record[key]
    return record
