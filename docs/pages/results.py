"""The pages of benchmarks/RESULTS.md: one page per question, and a front page."""

import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/RESULTS.md"
_SECTION = re.compile(r"(?m)^(?=## )")


def pages(text: str) -> dict[str, str]:
    """Page -> its Markdown, for each section of RESULTS.md and for the front page."""
    front, *sections = _SECTION.split(text)
    found = {f"results/{slug(_title(section))}.md": section[1:] for section in sections}
    # Links are relative to RESULTS.md, and lead to its headings.
    titles = map(_title, sections)
    listed = [f"- [{title}](RESULTS.md#{slug(title)})" for title in titles]
    return {"results/index.md": front + "\n".join(listed) + "\n", **found}


def page_of(heading: str) -> str:
    """The page that has the heading with the anchor `heading`."""
    for section in _SECTION.split(RESULTS.read_text(encoding="utf-8"))[1:]:
        headings = re.findall(r"(?m)^##+ (.+)$", section)
        if heading in map(slug, headings):
            return f"results/{slug(_title(section))}.md"
    return "results/index.md"


def slug(title: str) -> str:
    """The anchor of a heading, as on GitHub and in mkdocs."""
    return re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")


def _title(section: str) -> str:
    return section.splitlines()[0].removeprefix("## ")
