"""The notebooks as pages, with the outputs that they keep."""

from pathlib import Path

from nbconvert import MarkdownExporter

_FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PAGES = {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in _FOLDER.glob("*.ipynb")}
"""Notebook -> its page."""


def markdown(path: Path) -> str:
    """A notebook as Markdown. Its plots are HTML, so that it needs no other file."""
    text, resources = MarkdownExporter().from_filename(str(path))
    assert not resources["outputs"], f"{path} has an image that would be a file"
    return str(text)
