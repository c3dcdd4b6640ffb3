"""Edit a YAML file and keep its comments."""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.representer import RoundTripRepresenter


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, not as an empty value."""


_Representer.add_representer(
    type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
)


def edited_text(path: Path, edit: Callable[[Any], None]) -> str:
    """The text of a YAML file after `edit` has changed its document in place.

    Comments, quotes and nulls are kept.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width, yaml.preserve_quotes = 10_000, True
    document = yaml.load(path.read_text(encoding="utf-8"))
    edit(document)
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()


def lines_of_anchors(path: Path) -> list[int]:
    """The lines of a YAML file that have an anchor (&) or an alias (*), from 1."""
    events = YAML(typ="safe", pure=True).parse(path.read_text(encoding="utf-8"))
    return [
        event.start_mark.line + 1 for event in events if getattr(event, "anchor", None) is not None
    ]


def set_keys(mapping: Any, values: Mapping[str, Any]) -> None:
    """Set keys of a mapping in the document, in place.

    A new key is inserted before the last key, because ruamel.yaml attaches the lines between two
    sections to the last key of the first section.
    """
    for key, value in values.items():
        if key in mapping:
            mapping[key] = value
        else:
            mapping.insert(max(0, len(mapping) - 1), key, value)


def flow_mapping(values: Mapping[str, Any]) -> Any:
    """A mapping that is written on one line."""
    mapping = CommentedMap(values)
    mapping.fa.set_flow_style()
    return mapping
