"""Hooks of mkdocs: pages made of code and of files outside docs/, and links between them."""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from docs.pages import arms, commands, figures, notebooks, params, results  # noqa: E402

COPIES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "zoo/open/README.md": "zoo.md",
    "benchmarks/RESULTS.md": "results/index.md",
    **notebooks.PAGES,
}
"""Files of the project -> their pages."""

_GENERATED = {
    "reference/params.md": params.page,
    "reference/commands.md": commands.page,
    "reference/arms.md": arms.page,
    "reference/figures.md": figures.page,
}
# A text, or an image as in badges, and its target.
_LINK = re.compile(r"(\[(?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*\])\(([^)\s]+)\)")
_BLOCK = re.compile(r"(?ms)(^```.*?^```$)")
_FENCE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    pages = {page: _text(ROOT / file) for file, page in COPIES.items()}
    pages |= results.pages(pages["results/index.md"])
    pages |= {name: page() for name, page in _GENERATED.items()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    (entry,) = (entry for entry in config.nav if "Results" in entry)
    entry["Results"] = [name for name in pages if name.startswith("results/")]
    return files


def _text(file: Path) -> str:
    if file.suffix == ".ipynb":
        return notebooks.markdown(file)
    return file.read_text(encoding="utf-8")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead the links of a page to pages, and show the file names of blocks as titles."""
    name = page.file.src_uri
    source = next((file for file, copy in COPIES.items() if copy == name), f"docs/{name}")
    if name.startswith("results/"):
        source = "benchmarks/RESULTS.md"
    folder = posixpath.dirname(source)

    def replace(match: re.Match[str]) -> str:
        return _link(match[1], match[2], folder, posixpath.dirname(name) or ".")

    return "".join(
        _FENCE.sub(r'```\1 title="\2"', part)
        if part.startswith("```")
        else _LINK.sub(replace, part)
        for part in _BLOCK.split(markdown)
    )


def _link(text: str, target: str, folder: str, page_folder: str) -> str:
    """A link of a file in `folder` of the project, for a page in `page_folder` of the site.

    A link to a file that has no page becomes its text.
    """
    path, _, heading = target.partition("#")
    if not path or "://" in target:
        return f"{text}({target})"
    file = posixpath.normpath(posixpath.join(folder, path))
    if file == "benchmarks/RESULTS.md" and heading:
        page = results.page_of(heading)
    elif file in COPIES:
        page = COPIES[file]
    elif file.startswith("docs/"):
        page = file.removeprefix("docs/")
    else:
        return text[1:-1]
    anchor = f"#{heading}" if heading else ""
    return f"{text}({posixpath.relpath(page, page_folder)}{anchor})"
