"""deep-prompt check: check the project, or one corpus, before training."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deep_prompt.cli.arguments import SOURCE, output_errors
from deep_prompt.cli.check_project import check_project, is_generated
from pipeline.errors import Problems, UserError, closest
from stages.runtime.entry import log, log_wrote
from stages.runtime.params import load_params
from stages.runtime.paths import PARAMS, recipe_of

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.data.corpus_statistics import Statistics
    from pipeline.params import Params
    from pipeline.pretrained.tokenizer import Tokenizer
    from pipeline.report.tables import Table

MAX_SHOWN_ROWS = 30  # of a table
DEFAULT_MAX_LENGTH = 128


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        metavar="RECIPE",
        help="recipe of a corpus, data_recipes/NAME.yaml, or the name of a task (default: check "
        "the whole project)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="folder of the corpus (default: that of the task in params.yaml, else the recipe's "
        "pinned hub revision)",
    )
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help=f"count sub-words with the tokenizer of this backbone: {SOURCE} (default: that of "
        "params.yaml if it is on this machine and the task is there)",
    )
    parser.add_argument(
        "--decoder",
        action="store_true",
        help="with --backbone: it is a whole encoder-decoder, which text generation needs",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="maximum sub-words per window (default: that of the task in params.yaml, else 128)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="overlap of adjacent windows, in sub-words (default: that of the task, with its "
        "--max-length; else a quarter of --max-length)",
    )
    parser.add_argument(
        "--max-answer-length",
        type=int,
        metavar="N",
        help="maximum sub-words of a predicted answer (default: that of the task in params.yaml, "
        "else 30)",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with plots")


def check(arguments: Namespace) -> None:
    """Without RECIPE, check params.yaml and all recipes of the project.

    With RECIPE, check that corpus: list its problems by kind with examples, and describe its valid
    rows: words, labels, lengths, and with a backbone the number of rows longer than a window, the
    share of unknown tokens, and the score of a perfect model. No file is written except the page of
    --html. The exit code is 1 if `prepare` or `featurize` would fail; warnings do not count.
    """
    if arguments.recipe is None:
        check_project()
        return
    from pipeline.data.recipe import load_recipe
    from pipeline.params import MIN_WINDOW, is_window_size
    from pipeline.tasks import check_answer_length

    is_option = arguments.max_answer_length is not None
    _complete_from_params(arguments)
    max_length, stride = arguments.max_length, arguments.stride
    if not is_window_size(max_length, stride):
        raise UserError(
            f"--max-length is {max_length} and --stride {stride}; give a --max-length of at least "
            f"{MIN_WINDOW} and a --stride below half of it"
        )
    recipe = load_recipe(arguments.recipe)
    key = f"{PARAMS}: tasks.{recipe.name}.max_answer_length"
    key = "--max-answer-length" if is_option else key
    check_answer_length(key, recipe.task, arguments.max_answer_length)
    problems = Problems(max_shown=0, allowed=recipe.allow)
    statistics, dropped, is_valid = _measure(recipe, arguments, problems)
    _print(recipe.name, statistics, problems, dropped)
    if arguments.html:
        from pipeline.report.corpus_page import write_page

        with output_errors("--html", arguments.html):
            write_page(arguments.html, recipe.name, statistics, problems)
        log_wrote(arguments.html)
    if not is_valid:
        raise SystemExit(1)


def _complete_from_params(arguments: Namespace) -> None:
    """Set the recipe and the options that are not given.

    Without --folder, they are those of the task in params.yaml if it has the recipe's task.
    """
    name = arguments.recipe.stem
    if str(arguments.recipe) == name:
        arguments.recipe = recipe_of(name)
    if not arguments.recipe.exists():
        match = closest(name, (path.stem for path in arguments.recipe.parent.glob("*.yaml")))
        hint = f"; did you mean {match!r}?" if match else ""
        raise UserError(f"{arguments.recipe}: no such file; create it, or correct the name{hint}")
    is_recipe_of_task = arguments.recipe.resolve() == recipe_of(name).resolve()
    if arguments.folder is None and is_recipe_of_task and PARAMS.exists():
        params = load_params()
        if name in params.tasks:
            _complete_from_task(arguments, params, name)
    if arguments.max_length is None:
        arguments.max_length = DEFAULT_MAX_LENGTH
    if arguments.stride is None:
        arguments.stride = arguments.max_length // 4


def _complete_from_task(arguments: Namespace, params: "Params", name: str) -> None:
    """Set the folder, and the options that are not given, to those of a task in params.yaml."""
    from pipeline.pretrained.location import tokenizer_folder
    from stages.prepare import HUB

    task = params.tasks[name]
    if task.source != HUB:
        arguments.folder = folder = Path(params.data_root, task.source)
        if is_generated(params, folder) and not folder.is_dir():
            raise UserError(f"{folder}: no such folder; run `dvc repro generate@{folder.name}`")
        log(f"checking {folder}, the source of {name} in {PARAMS}")
    if arguments.max_length is None:
        arguments.max_length = task.max_length
        arguments.stride = task.stride if arguments.stride is None else arguments.stride
    if arguments.max_answer_length is None:
        arguments.max_answer_length = task.max_answer_length
    if arguments.backbone is None:
        backbone = params.backbone
        try:
            tokenizer_folder(backbone.source, download=False)
        except UserError:
            log(
                f"sub-words are not counted: the backbone {backbone.source} of {PARAMS} is not on "
                "this machine; install or download it, or give another with --backbone"
            )
        else:
            arguments.backbone = backbone.source
            arguments.decoder = arguments.decoder or backbone.decoder
            log(f"counting sub-words with the tokenizer of {backbone.source}")


def _measure(
    recipe: Any, arguments: Namespace, problems: Problems
) -> "tuple[Statistics, str, bool]":
    """The statistics of a corpus, and whether `prepare` and `featurize` would accept it.

    Also returns the text about dropped rows.
    """
    from pipeline.config import load_json
    from pipeline.data.corpus_statistics import compute_statistics
    from pipeline.data.prepare import CorpusError, dropped_text, prepare

    with TemporaryDirectory(prefix="deep-prompt-") as folder:
        examples, is_valid = Path(folder) / "examples", True
        try:
            prepare(recipe, arguments.folder, examples, problems=problems)
        except CorpusError:
            is_valid = False
        summary = load_json(examples / "summary.json")
        tokenizer, num_problems = _load_tokenizer(arguments), len(problems)
        statistics = compute_statistics(
            examples,
            summary,
            tokenizer,
            arguments.max_length,
            arguments.stride,
            problems,
            arguments.max_answer_length,
        )
        is_valid = is_valid and len(problems) == num_problems
        return statistics, dropped_text(recipe, summary), is_valid


def _load_tokenizer(arguments: Namespace) -> "Tokenizer | None":
    if arguments.backbone is None:
        return None
    from pipeline.pretrained.location import tokenizer_folder
    from pipeline.pretrained.tokenizer import Tokenizer

    tokenizer = Tokenizer(tokenizer_folder(arguments.backbone), arguments.decoder)
    if arguments.max_length > tokenizer.max_length:
        raise UserError(
            f"--max-length is {arguments.max_length}, but the backbone has "
            f"{tokenizer.max_length} positions; lower it, or max_length of the task, to at most "
            "that number"
        )
    return tokenizer


def _print(name: str, statistics: "Statistics", problems: Problems, dropped: str) -> None:
    from rich.console import Console

    from pipeline.report.corpus_page import problem_counts, sections

    console = Console(highlight=False)
    for section in sections(statistics, problems):
        if section.examples:  # for the page only
            continue
        is_problems = section.title == "Problems"
        title = f"{section.title}."
        if is_problems:  # without problems, the text of the section is enough
            title = problem_counts(problems) if problems.counts else ""
        heading = " ".join(filter(None, (f"{name}:", title, section.text)))
        console.print(f"\n{heading}", markup=False)
        if is_problems:
            lines = [*problems.summary(), *filter(None, [dropped])]
            console.print("\n".join(lines), markup=False, soft_wrap=True)
            continue
        folded = [section.folded] if section.folded else []
        for table in (*section.tables, *folded):
            console.print(_rich_table(table))


def _rich_table(table: "Table") -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    rich_table = RichTable(title=table.caption, title_justify="left", padding=0)
    for index, column in enumerate(table.columns):
        rich_table.add_column(
            Text(column.text), justify="left" if index == 0 else "right", overflow="fold"
        )
    for row in table.rows[:MAX_SHOWN_ROWS]:
        rich_table.add_row(
            *(Text(f"{cell.text} ({cell.note})" if cell.note else cell.text) for cell in row)
        )
    if len(table.rows) > MAX_SHOWN_ROWS:
        rich_table.add_row(Text(f"and {len(table.rows) - MAX_SHOWN_ROWS} more"))
    return rich_table
