"""deep-prompt check: this project, or one corpus alone, before anyone trains."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deep_prompt.cli.check_project import check_project
from pipeline.errors import Problems, UserError
from stages.runtime.entry import log_wrote

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.data.corpus_statistics import Statistics
    from pipeline.pretrained.tokenizer import Tokenizer
    from pipeline.report.tables import Table

SHOWN = 30  # rows of a table


def words(parser: ArgumentParser) -> None:
    """The command's words."""
    parser.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        metavar="RECIPE",
        help="the corpus's recipe, data_recipes/NAME.yaml (default: check the project, its params and recipes)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where its files are (default: the recipe's pinned hub revision)",
    )
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help="whose tokenizer counts sub-words: folder:PATH, package:NAME/FOLDER or hub:ID@REVISION",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=128,
        metavar="N",
        help="sub-words of a window (default: %(default)s)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=32,
        metavar="N",
        help="by how many two windows overlap (default: %(default)s)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the page there too, with plots"
    )


def check(given: Namespace) -> None:
    """Without RECIPE, check params.yaml and all recipes of this project. With it, check that corpus alone: all its problems by kind with examples, and statistics of what is sound:
    rows, words, labels, lengths, and how much is longer than a window of the backbone's tokenizer.

    Nothing is kept but --html. Exits with 1 where `prepare` would; warnings do not count.
    """
    if given.recipe is None:
        check_project()
        return
    from pipeline.data.recipe import load_recipe

    if given.max_length < 8 or not 0 <= given.stride < given.max_length // 2:
        raise UserError(
            f"--max-length is {given.max_length} and --stride {given.stride}; at least 8, and less than half of it"
        )
    recipe = load_recipe(given.recipe)
    problems = Problems(shown=0)
    statistics, sound = _measured(recipe, given, problems)
    _print(recipe.name, statistics, problems)
    if given.html:
        from pipeline.report.corpus_page import write_page

        write_page(given.html, recipe.name, statistics, problems)
        log_wrote(given.html)
    if not sound:
        raise SystemExit(1)


def _measured(recipe: Any, given: Namespace, problems: Problems) -> "tuple[Statistics, bool]":
    """What is in the corpus, and whether `prepare` would take it as it is."""
    from pipeline.config import load_json
    from pipeline.data.corpus_statistics import measure
    from pipeline.data.prepare import CorpusError, prepare

    with TemporaryDirectory(prefix="deep-prompt-") as place:
        examples, sound = Path(place) / "examples", True
        try:
            prepare(recipe, given.folder, examples, gather=problems)
        except CorpusError:
            sound = False
        summary = load_json(examples / "summary.json")
        return measure(
            examples, summary, _tokenizer(given), given.max_length, given.stride, problems
        ), sound


def _tokenizer(given: Namespace) -> "Tokenizer | None":
    if given.backbone is None:
        return None
    from pipeline.pretrained.location import tokenizer_folder
    from pipeline.pretrained.tokenizer import Tokenizer

    tokenizer = Tokenizer(tokenizer_folder(given.backbone))
    if given.max_length > tokenizer.max_length:
        raise UserError(
            f"--max-length is {given.max_length}, but the backbone has {tokenizer.max_length} positions"
        )
    return tokenizer


def _print(name: str, statistics: "Statistics", problems: Problems) -> None:
    from rich.console import Console

    from pipeline.report.corpus_page import sections

    console = Console(highlight=False)
    for section in sections(statistics, problems):
        console.print(f"\n{name}: {section.title}. {section.text}", markup=False)
        if section.title == "Problems":
            console.print("\n".join(problems.summary()), markup=False, soft_wrap=True)
            continue
        for table in (*section.tables, *([section.folded] if section.folded else [])):
            console.print(_as_text(table))


def _as_text(table: "Table") -> Any:
    from rich.table import Table as Shown
    from rich.text import Text

    shown = Shown(title=table.caption, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(Text(column.text), justify="left" if number == 0 else "right")
    for row in table.rows[:SHOWN]:
        shown.add_row(
            *(Text(f"{cell.text} ({cell.note})" if cell.note else cell.text) for cell in row)
        )
    if len(table.rows) > SHOWN:
        shown.add_row(Text(f"and {len(table.rows) - SHOWN} more"))
    return shown
