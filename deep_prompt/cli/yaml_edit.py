"""A YAML file with other values in it, for people to go on reading."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def rewritten(path: Path, change: Callable[[Any], None]) -> str:
    """The text of a YAML file after `change` has altered its document in place; its comments and quotes stay."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10_000, True
    document = yaml.load(path.read_text(encoding="utf-8"))
    change(document)
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()
