"""The files that a report reads."""

import json
from pathlib import Path
from typing import Any


def put(path: Path, content: Any) -> None:
    """Write a text, or another value as JSON, and make the folder of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
