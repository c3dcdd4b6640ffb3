"""A corpus from the Hugging Face hub, pinned to a commit, from plain files only: no repository's code is ever run."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.data.readers import records
from pipeline.data.readers.base import Splits
from pipeline.data.readers.tables import has_columns
from pipeline.data.readers.tags import SchemeEvidence, SchemeOrAuto
from pipeline.errors import Problems
from pipeline.tasks.base.row import SPLITS, Row

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
    tag_scheme: SchemeOrAuto = "iob2"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision: {self.revision!r} is not a commit (40 hexadecimal digits); a branch or tag can change"
            )


def read(
    hub: Hub,
    split: str,
    keys: Sequence[str],
    problems: Problems,
    to_row: ToRow | None = None,
    options: Any = None,
) -> Iterator[Row]:
    """The rows of the hub's split named `split`, streamed.

    A reader's `to_row` and its `options` make them, where its files have the same records; else that of `records` does, with
    `keys`, and with `id` and `title` where there are such columns. It gives class numbers of labels and tags their names.
    """
    by: Any = None
    for where, record, names in _records(hub, split, problems):
        if by is None:
            by = _options(hub, keys, record, names, options if to_row else None)
            if isinstance(by, records.Options) and not has_columns(
                list(record),
                [(own or key).split(".")[0] for key, own in by.fields.items()],
                where,
                problems,
            ):
                return
        row = (to_row or records.row)(record, by, where, problems)
        if row is not None:
            yield row


def resolve_auto(
    hub: Hub, keys: Sequence[str], to_row: ToRow | None = None, options: Any = None
) -> tuple[Hub, Any, dict[str, Any]]:
    """Hub and options with the tag scheme that all splits fit best, where that of the rows is auto; and what that is, by name."""
    asked = (
        options.tag_scheme if to_row and isinstance(options, records.Options) else hub.tag_scheme
    )
    if asked != "auto" or "tags" not in keys:
        return hub, options, {}
    evidence = SchemeEvidence()
    for name in (name for split in SPLITS for name in hub.splits.of(split)):
        for where, record, names in _records(hub, name, Problems()):
            tags = records.tags_of(
                record, _options(hub, keys, record, names, options if to_row else None), where
            )
            evidence.see(tags)
    scheme = evidence.scheme()
    settled = replace(options, tag_scheme=scheme) if to_row else options
    return replace(hub, tag_scheme=scheme), settled, {"tag_scheme": scheme}


def _records(
    hub: Hub, split: str, problems: Problems
) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Where each record is, the record, by our names too, and what class numbers of its labels or tags stand for."""
    from datasets import load_dataset  # noqa: PLC0415  (slow to import, and needed only for the hub)

    place = f"hub:{hub.id}@{hub.revision[:8]}:{split}"
    try:
        data = load_dataset(hub.id, hub.config, revision=hub.revision, split=split, streaming=True)
        names = _class_names(hub, data.features or {})
        for number, record in enumerate(data):
            mapped = {key: record[column] for key, column in hub.fields.items() if column in record}
            yield f"{place}:{number}", record | mapped, names
    except (OSError, ValueError) as error:
        problems.add(
            place,
            f"cannot be read: {error}; check the network, and the recipe's hub id, revision, config and splits",
            "unreadable",
            hides=True,
        )


def _class_names(hub: Hub, features: Mapping[str, Any]) -> dict[str, str]:
    for key in ("tags", "label"):
        feature = features.get(hub.fields.get(key, key))
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            return {str(number): name for number, name in enumerate(names)}
    return {}


def _options(
    hub: Hub, keys: Sequence[str], record: dict[str, Any], names: dict[str, str], given: Any
) -> Any:
    """The options by which a record becomes a row."""
    if given is None:
        optional = [
            key for key in ("id", "title") if record.get(hub.fields.get(key, key)) is not None
        ]
        given = records.Options(
            {key: hub.fields.get(key) for key in (*keys, *optional)}, tag_scheme=hub.tag_scheme
        )
    return (
        replace(given, names=names | given.names)
        if isinstance(given, records.Options) and names
        else given
    )
