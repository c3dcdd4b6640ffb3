"""The page of the report's tables and plots, from the code that makes them."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.arms import MULTITASK

_REPORT = Path(__file__).resolve().parents[2] / "pipeline/report"
_PAGES = {
    "The report of a run": ("render", "tables", "samples", "confidence", "mixtures", "probes"),
    "The page of `deep-prompt tune`": ("tuning_page",),
    "The page of `deep-prompt check --html`": ("corpus_page",),
}
"""Heading -> the modules of pipeline/report, in the order of their sections."""

_WORDS = {
    "OURS": MULTITASK.name,
    "arm": "ARM",
    "compared": "PROMPTS",
    "key": "PARAM",
    "kind": "KIND",
    "mixture.name": "MIXTURE",
    "name": "METRIC",
    "run.arm": "ARM",
    "task": "TASK",
    "title": "VALUE",
    "transfer.task": "TASK",
    "unit": "words",
    "unit.capitalize()": "Words",
}
"""Expression in a caption -> the word for it on the page."""


class Figure(NamedTuple):
    """A table or plot: its caption, with NAMES for what varies, and the docstring of its code."""

    caption: str
    kind: str
    text: str


def page() -> str:
    """A table of all figures by page, as Markdown."""
    parts = [
        "# Figures of the report",
        "Captions are those of the code; words in capitals vary. A figure without data is left "
        "out. [Read the report](../howto/read-the-report.md) explains the scores and intervals.",
    ]
    for heading, modules in _PAGES.items():
        rows = [
            f"| {figure.caption} | {figure.kind} | {figure.text} |"
            for module in modules
            for figure in figures(module)
        ]
        parts += [
            f"## {heading}",
            "\n".join(["| figure | kind | content |", "|---|---|---|", *rows]),
        ]
    return "\n\n".join(parts) + "\n"


def figures(module: str) -> Iterator[Figure]:
    """The figures that a module of pipeline/report makes."""
    tree = ast.parse((_REPORT / f"{module}.py").read_text(encoding="utf-8"))
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        text = " ".join((ast.get_docstring(function) or "").split())
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or (kind := _kind(call.func)) is None:
                continue
            if caption := _caption(call.args[0]):
                yield Figure(caption, kind, text)


def _kind(function: ast.expr) -> str | None:
    """The kind of figure that a function makes; None if it makes none."""
    if isinstance(function, ast.Name):
        return {"Table": "table", "_losses": "bars"}.get(function.id)
    if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "plots":
        return function.attr.replace("_", " ")
    return None


def _caption(argument: ast.expr) -> str | None:
    """The caption in an argument; None if the argument is not a text."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    if isinstance(argument, ast.JoinedStr):
        return "".join(
            _WORDS[ast.unparse(part.value)]
            if isinstance(part, ast.FormattedValue)
            else str(ast.literal_eval(part))
            for part in argument.values
        )
    return None
