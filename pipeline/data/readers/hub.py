"""A corpus from the Hugging Face hub, pinned to a commit.

Only plain files are read; the code of a repository is never executed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.data.readers import records, superglue
from pipeline.data.readers.base import Splits
from pipeline.data.readers.class_names import class_names
from pipeline.data.readers.tables import has_columns
from pipeline.data.readers.tags import SchemeEvidence, SchemeOrAuto
from pipeline.errors import Problems, UserError
from pipeline.tasks.base.row import COMMON_KEYS, SPLITS, Row, RowKeys

ToRow = Callable[[dict[str, Any], Any, str, Problems], Row | None]
"""(record, options, where, problems) -> the row; adds a problem and returns None if invalid."""


@dataclass(frozen=True)
class Hub:
    """A data set on the hub: `id` ("owner/name"), commit, and the source of each split.

    `fields` maps the keys of a row to the columns of the data set if the names differ. `tag_scheme`
    is the scheme of its tags, if it has tags.
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
                f"revision: {self.revision!r} is not a commit (40 hexadecimal digits); "
                "name a commit, because a branch or tag can change"
            )


def read(
    hub: Hub,
    split: str,
    keys: RowKeys,
    problems: Problems,
    to_row: ToRow | None = None,
    options: Any = None,
) -> Iterator[Row]:
    """The rows of the hub's split `split`, streamed.

    A reader's `to_row` converts the records with its `options`, if they are the same as in its
    files. Without `to_row`, `records.row` converts them, with the required `keys`, the optional
    keys in `fields`, and `id` and `title` if the data set has these columns. Class numbers of
    labels and tags become names. Raises UserError if the split cannot be read.
    """
    row_options: Any = None
    for where, record, features in _records(hub, split):
        if row_options is None:
            row_options = _options(hub, keys, record, options if to_row else None)
            row_options = _checked(hub, row_options, record, features, where, problems)
            if row_options is None:
                return
        row = (to_row or records.row)(record, row_options, where, problems)
        if row is not None:
            yield row


def _checked(
    hub: Hub,
    options: Any,
    record: dict[str, Any],
    features: Mapping[str, Any],
    where: str,
    problems: Problems,
) -> Any:
    """The options with the names of class numbers; adds problems and returns None if they conflict.

    Columns that do not exist and names that contradict those of the data set are conflicts.
    """
    columns = list(hub.fields.values())
    if isinstance(options, records.FieldMapping):
        options = _with_class_names(hub, options, features, where, problems)
        if options is None:
            return None
        paths = [path or key for key, path in options.options.fields.items()]
        columns += [path if path in record else path.split(".")[0] for path in paths]
    elif isinstance(options, superglue.Options):
        names = class_names(features, hub.fields.get("label", "label"))
        if not superglue.has_class_names(options, names, where, problems):
            return None
    return options if has_columns(list(record), dict.fromkeys(columns), where, problems) else None


def resolve_auto(
    hub: Hub, keys: RowKeys, to_row: ToRow | None = None, options: Any = None
) -> tuple[Hub, Any, dict[str, Any]]:
    """Hub and options with `tag_scheme: auto` replaced by the scheme detected in all splits.

    Also returns the detected values by name.
    """
    mapping = options if to_row and isinstance(options, records.FieldMapping) else None
    requested = mapping.options.tag_scheme if mapping else hub.tag_scheme
    if requested != "auto" or "tags" not in keys.kinds.values():
        return hub, options, {}
    evidence = SchemeEvidence()
    for name in (name for split in SPLITS for name in hub.splits.of(split)):
        row_options: Any = None
        for where, record, features in _records(hub, name):
            if row_options is None:
                row_options = _options(hub, keys, record, options if to_row else None)
                named = _with_class_names(hub, row_options, features, where, Problems())
                row_options = named or row_options
            for tags in records.raw_tags(record, row_options, where):
                evidence.add(tags)
    scheme = evidence.scheme()
    resolved = mapping.with_options(tag_scheme=scheme) if mapping else options
    return replace(hub, tag_scheme=scheme), resolved, {"tag_scheme": scheme}


def _records(hub: Hub, split: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """For each record its position, its values, and the features of the data set in JSON's form.

    The values are also under the keys of a row, if `hub.fields` renames them. Raises UserError if
    the split cannot be read.
    """
    from datasets import load_dataset  # noqa: PLC0415  (slow import, needed only for the hub)

    where = f"hub:{hub.id}@{hub.revision[:8]}:{split}"
    try:
        data = load_dataset(hub.id, hub.config, revision=hub.revision, split=split, streaming=True)
        features = data.features.to_dict() if data.features else {}
        for number, record in enumerate(data):
            mapped = {key: record[column] for key, column in hub.fields.items() if column in record}
            yield f"{where}:{number}", record | mapped, features
    except (OSError, ValueError) as error:
        # Not a problem of the rows: a later run may reach the hub, so nothing may record it.
        raise UserError(
            f"{where}: cannot be read: {error}; "
            "check the network, and the recipe's hub id, revision, config and splits"
        ) from None


def _with_class_names(
    hub: Hub,
    mapping: records.FieldMapping,
    features: Mapping[str, Any],
    where: str,
    problems: Problems,
) -> records.FieldMapping | None:
    """As `records.with_class_names`; `hub.fields` may rename columns of the features."""
    renamed = {key: features[name] for key, name in hub.fields.items() if name in features}
    return records.with_class_names(mapping, {**features, **renamed}, where, problems)


def _options(hub: Hub, keys: RowKeys, record: dict[str, Any], options: Any) -> Any:
    """The options of the conversion from a record to a row; `options` if not None."""
    if options is not None:
        return options
    optional = [key for key in keys.optional if key in hub.fields]
    common = [key for key in COMMON_KEYS if hub.fields.get(key, key) in record]
    fields = {key: hub.fields.get(key) for key in (*keys.required, *optional, *common)}
    return records.for_task(records.Options(fields, tag_scheme=hub.tag_scheme), keys)
