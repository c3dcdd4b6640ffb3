"""Edit a YAML file and keep its comments."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def edited_text(path: Path, edit: Callable[[Any], None]) -> str:
    """The text of a YAML file after `edit` has changed its document in place.

    Comments and quotes are kept.
    """
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10_000, True
    document = yaml.load(path.read_text(encoding="utf-8"))
    edit(document)
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()
