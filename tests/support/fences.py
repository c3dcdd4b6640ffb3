"""The fenced blocks of a Markdown page, for tests that run them."""

import re
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"(?m)^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, the file name after the language (or None), and its text."""

    language: str
    file: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order. Each has a language."""
    text = page.read_text(encoding="utf-8")
    found = [Block(language, file or None, body) for language, file, body in _FENCE.findall(text)]
    assert 2 * len(found) == len(re.findall(r"(?m)^```", text)), f"{page}: a fence has no language"
    return found


def block(page: Path, language: str, containing: str = "") -> str:
    """The text of the only block of a language with some content."""
    (found,) = (b.text for b in blocks(page) if b.language == language and containing in b.text)
    return found
