"""A corpus from the Hugging Face hub, pinned to a commit, from plain files only: no repository's code is ever run."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import Problems
from pipeline.readers.base import Row, Splits
from pipeline.readers.tags import Scheme, to_iob2

ToRow = Callable[[dict[str, Any], Any, str, Problems], Row | None]
"""From one record to its row, as a reader does it: (record, options, where, problems); None, and a problem, where it is wrong."""


@dataclass(frozen=True)
class Hub:
    """A data set's `id` ("owner/name"), the commit that is read, and which of its splits make up ours.

    `fields` maps our keys to its columns where they differ. `tag_scheme` is that of its tags, if it has tags.
    """

    id: str
    revision: str
    splits: Splits
    config: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    tag_scheme: Scheme = "iob2"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision: {self.revision!r} is not a commit (40 hexadecimal digits); a branch or tag can change")


def read(hub: Hub, split: str, keys: tuple[str, ...], problems: Problems, to_row: ToRow | None = None,
         options: Any = None) -> Iterator[Row]:
    """Rows with `keys`, and with `id` and `title` where there are such columns, streamed from the hub's split named `split`.

    Tags stored as class numbers become names; answers stored as lists of texts and of offsets become one mapping each. With a
    reader's `to_row` and its `options`, that makes the rows instead; `fields` then maps the columns that it knows.
    """
    from datasets import load_dataset  # noqa: PLC0415  (slow to import, and needed only for the hub)

    place = f"hub:{hub.id}@{hub.revision[:8]}:{split}"
    try:
        data = load_dataset(hub.id, hub.config, revision=hub.revision, split=split, streaming=True)
        tags = (data.features or {}).get(hub.fields.get("tags", "tags"))
        names = getattr(getattr(tags, "feature", None), "names", None)
        for number, record in enumerate(data):
            where = f"{place}:{number}"
            if to_row is None:
                row = _row(record, hub, keys, where, problems)
                if row is None:
                    return
                yield from _tagged(row, names, hub.tag_scheme, problems) if "tags" in row else [row]
            elif (row := to_row(_renamed(record, hub), options, where, problems)) is not None:
                yield row
    except (OSError, ValueError) as error:
        problems.add(place, f"cannot be read: {error}; check the network, and the recipe's hub id, revision, config and splits",
                     "unreadable", hides=True)


def _renamed(record: dict[str, Any], hub: Hub) -> dict[str, Any]:
    return record | {key: record[column] for key, column in hub.fields.items() if column in record}


def _row(record: dict[str, Any], hub: Hub, keys: tuple[str, ...], where: str, problems: Problems) -> Row | None:
    columns = {key: hub.fields.get(key, key) for key in (*keys, "id", "title")}
    missing = [columns[key] for key in keys if columns[key] not in record]
    if missing:
        problems.add(where, f"no column {', '.join(missing)}; found {', '.join(record)}: map them in the recipe's hub.fields",
                     "missing-key", hides=True)
        return None
    row = {key: record[column] for key, column in columns.items() if record.get(column) is not None} | {"where": where}
    row |= {key: str(row[key]) for key in ("id", "title") if key in row}
    if isinstance(row.get("answers"), dict):
        answers = row["answers"]
        row["answers"] = [{"text": text, "answer_start": start}
                          for text, start in zip(answers["text"], answers["answer_start"], strict=True)]
    return row


def _tagged(row: Row, names: list[str] | None, scheme: Scheme, problems: Problems) -> Iterator[Row]:
    tags = [names[tag] if names and isinstance(tag, int) else str(tag) for tag in row["tags"]]
    tags, wrong = to_iob2(tags, scheme)
    for position, message in wrong:
        problems.add(row["where"], f"token {position}: {message}")
    if not wrong:
        yield row | {"tags": tags}
