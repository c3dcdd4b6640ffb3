"""Every kind of problem, provoked by something small and broken; and the table of what is then said, docs/problems.md.

`make problems` writes the table. A kind that the code gives and no input here provokes is a failure: add an input.
"""

import ast
import contextlib
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.corpus_statistics import measure
from pipeline.data.prepare import CorpusError, prepare
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import WARNINGS, Problem, Problems, UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from tests.support.paths import ROOT

TABLE = ROOT / "docs/problems.md"
SENTENCE = "Ada\tB-PER\nwent\tO\nto\tO\nBonn\tB-LOC\n\n"
CONTEXT = "Ada went to Bonn in May."
PREFIX = "d\t{0}\t{1}\t{2}\t-\t-\t-\t-\t{3}\n"


class File(NamedTuple):
    """A train file of one of the embedded corpora, whose other files are sound."""

    corpus: str
    content: str | bytes


class Row(NamedTuple):
    """A row as readers give it; `labels` are the recipe's."""

    task: str
    values: dict[str, Any]
    labels: tuple[str, ...] = ("PER", "LOC")


class Ours(NamedTuple):
    """A corpus with a recipe of its own; each file is all of its splits."""

    task: str
    reader: str
    options: dict[str, Any]
    files: dict[str, bytes]


def texts(name: str, content: bytes) -> Ours:
    return Ours(
        "sequence_classification",
        "records",
        {"fields": {"text": None, "label": None}},
        {name: content},
    )


def props(**files: str) -> Ours:
    """CoNLL-2005 in two files."""
    options = {"token": 0, "first_predicate": 2, "words": {"props": "words"}}
    return Ours(
        "semantic_role_labeling",
        "conll_props",
        options,
        {name: text.encode() for name, text in files.items()},
    )


def question(**changes: object) -> str:
    sound = {
        "id": "1",
        "question": "Who went?",
        "context": CONTEXT,
        "answers": [{"text": "Ada", "answer_start": 0}],
    }
    return json.dumps(sound | changes) + "\n"


def predicate(*brackets: str, document: int = 1) -> str:
    words = ("Ada", "went", "home")
    return (
        "".join(
            PREFIX.format(document, number, words[number], cell)
            for number, cell in enumerate(brackets)
        )
        + "\n"
    )


def tagged(**changes: object) -> Row:
    return Row("token_classification", {"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"]} | changes)


def asked(**changes: object) -> Row:
    return Row(
        "span_extraction", {"question": "Who went?", "context": CONTEXT, "answers": []} | changes
    )


def argued(**changes: object) -> Row:
    return Row(
        "semantic_role_labeling",
        {"tokens": ["Ada", "ran"], "tags": ["O", "B-V"], "predicate": 1} | changes,
    )


def labeled(**changes: object) -> Row:
    return Row(
        "sequence_classification", {"text": CONTEXT, "label": "yes"} | changes, ("yes", "no")
    )


def chosen(**changes: object) -> Row:
    sound = {"context": CONTEXT, "question": "Who?", "choices": ["Ada", "Bo"], "answers": ["Ada"]}
    return Row("multiple_choice", sound | changes)


BROKEN: tuple[File | Row | Ours, ...] = (
    File("ner", SENTENCE + "Ada\n"),  # a column is missing
    File("ner", SENTENCE + "\tO\n"),
    File("ner", SENTENCE + "Ada\tS-PER\n"),
    File("ner", SENTENCE + "Ada\tI-PER\n"),
    File("ner", SENTENCE + "Ada\tB-PRE\n"),
    File("ner", SENTENCE.encode() + b"caf\xe9\tO\n"),
    File("ner", SENTENCE.encode("utf-16")),
    File("ner", "\n"),
    File("ner", SENTENCE.replace("LOC", "PER")),  # validation has LOC
    File("ner", SENTENCE + SENTENCE.replace("B-PER", "O")),  # the same words, other tags
    File("ner", SENTENCE + "a\x00b\tO\n"),
    File("ner", SENTENCE + "\u200b\tO\n"),
    File("qa", "{'id': 1}\n"),
    File("qa", "[" * 100_000 + "\n"),
    File("qa", "[1]\n"),
    File("qa", question() + '{"id": "2"}\n'),
    File("qa", question() + question()),  # an id twice
    File("qa", question(question=["Who?"])),
    File("qa", question(answers=[{"text": "Ada", "answer_start": "0"}])),
    File("qa", question(answers=[{"text": "Ada", "answer_start": 3}])),
    File("qa", question(answers=None)),
    File("qa", question(context="\ud800 Ada", answers=[])),
    File("srl", predicate("(ARG0*)", "(V*)", "*")[:-3] + "\n"),
    File("srl", predicate("(ARG0*)", "V", "*")),
    File("srl", predicate("(ARG0*", "(V*)", "*)")),
    File("srl", predicate("(ARG0*", "*", "*")),
    File("srl", predicate("*)", "(V*)", "*")),
    File("srl", predicate("(ARG0*)", "*", "*")),
    File("srl", predicate("(ARG9*)", "(V*)", "*")),
    texts("a.csv", b"text,labl\nAda ran,yes\n"),
    texts("a.csv", b"text,label,text\nAda ran,yes,Ada\n"),
    texts("a.parquet", b"PAR1"),
    texts("a.txt", b"Ada ran"),
    texts("a.jsonl.gz", gzip.compress(b'{"text": "Ada"}\n')[:-9]),
    props(props="- (V*)\n"),
    props(props="ran (V*)\n\n", words="Ada\nran\n"),
    props(props="ran (V*)\nran (V*)\n", words="Ada\nran\n"),
    Ours(
        "multiple_choice",
        "superglue",
        {"corpus": "copa"},
        {
            "a.jsonl": json.dumps(
                {
                    "premise": "Ada ran.",
                    "choice1": "a",
                    "choice2": "b",
                    "question": "why",
                    "label": 0,
                    "idx": 0,
                }
            ).encode()
        },
    ),
    tagged(tokens="Ada ran"),
    tagged(tags=["O"]),
    tagged(tags=["B-PER", "PER"]),
    tagged(tags=["B-PRE", "O"]),
    tagged(tokens=["Ada", " "]),
    tagged(tokens=["Ada", "a\x00b"]),
    tagged(tokens=["Ada", "\u200b"]),
    tagged(tokens=["Ada", "\ud800"]),
    argued(predicate=0),
    argued(tags=["B-V", "B-V"]),
    asked(question=""),
    asked(context=" "),
    asked(question=3),
    asked(context="e\u0301", answers=[{"text": "e", "answer_start": 0}]),
    asked(context="a\x99b"),
    asked(answers=None),
    asked(answers=[{"text": "Ada", "answer_start": "0"}]),
    asked(answers=[{"text": "Ada", "answer_start": 1}]),
    asked(answers=[{"text": "", "answer_start": 1}]),
    asked(context="Cafe\u0301 Roma", answers=[{"text": "Roma", "answer_start": 5}]),
    labeled(text=""),
    labeled(text_pair=" "),
    labeled(label="maybe"),
    labeled(spans=[1]),
    labeled(spans=[{"segment": 0, "start": 5, "end": 99}]),
    chosen(choices=["Ada"]),
    chosen(answers=["Cy"]),
    chosen(starts=[0, 5]),
    chosen(starts=["0", "5"]),
)
LABELS = ("yes", "no", "maybe")
ODD = [
    {"text": f"{CONTEXT} {'word ' * 80 * (n == 7)}{n}", "label": LABELS[2 * (n == 3)]}
    for n in range(60)
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Problem]:
    """The first problem of each kind, in the order of `BROKEN`."""
    first: dict[str, Problem] = {}
    for broken in BROKEN:
        for problem in (
            _of_row(broken)
            if isinstance(broken, Row)
            else _of_files(broken, tmp_path_factory.mktemp("files"))
        ):
            first.setdefault(problem.kind, problem)
    for problem in _of_statistics(tmp_path_factory.mktemp("statistics"), tokenizer):
        first.setdefault(problem.kind, problem)
    return first


def _of_files(broken: File | Ours, place: Path) -> list[Problem]:
    if isinstance(broken, Ours):
        for name, content in broken.files.items():
            (place / name).write_bytes(content)
        name = next(iter(broken.files))
        values = {
            "task": broken.task,
            "license": "CC0",
            "source": "made here",
            "reader": broken.reader,
            "options": broken.options,
            "files": {"train": name},
            "carve_validation": 0.2,
            "carve_test": 0.2,
        }
        if broken.task != "multiple_choice":
            values["labels"] = ["yes", "no"]
        (place.parent / "ours.yaml").write_text(json.dumps(values))
        return _said(load_recipe(place.parent / "ours.yaml"), place)
    sound = {
        "ner": SENTENCE,
        "qa": question(id="v"),
        "srl": predicate("(ARG0*)", "(V*)", "*", document=2),
    }[broken.corpus]
    recipe = load_recipe(ROOT / "data_recipes" / f"world_{broken.corpus}.yaml")
    for split in ("train", "validation", "test"):
        text = sound.replace('"v"', f'"{split}"').replace("d\t2", f"{split}\t2")
        content = broken.content if split == "train" else text
        (place / recipe.files.of(split)[0]).write_bytes(
            content if isinstance(content, bytes) else _encoded(content)
        )
    return _said(recipe, place)


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _said(recipe: Recipe, place: Path) -> list[Problem]:
    problems = Problems()
    with contextlib.suppress(CorpusError):
        prepare(recipe, place, place / "out", gather=problems)
    return [
        problem._replace(
            where=problem.where.replace(f"{place}/", ""),
            message=problem.message.replace(f"{place}/", ""),
        )
        for problem in problems.kept
    ]


def _of_row(broken: Row) -> list[Problem]:
    problems = Problems()
    task_named(broken.task).example(
        {"id": "1", "where": "train.jsonl:1"} | broken.values, broken.labels, problems
    )
    return problems.kept


def _of_statistics(place: Path, tokenizer: Tokenizer) -> list[Problem]:
    """What is odd about a corpus that is sound."""
    splits = {
        "train": ODD,
        "validation": ODD[:2],
        "test": [{"text": "Nothing of this is there.", "label": "yes"}],
    }
    task = task_named("sequence_classification")
    counts: dict[str, dict[str, int]] = {split: {} for split in splits}
    for split, values in splits.items():
        made = [
            task.example({"id": f"{split}-{n}", "where": "", **value}, LABELS, Problems())
            for n, value in enumerate(values)
        ]
        for value in values:
            counts[split][value["label"]] = counts[split].get(value["label"], 0) + 1
        pq.write_table(
            pa.Table.from_pylist([task.record(one) for one in made], schema=task.schema),
            place / f"{split}.parquet",
        )
    problems = Problems()
    summary = {
        "task": "sequence_classification",
        "name": "ours",
        "classes": list(LABELS),
        "label_counts": counts,
        "rows": {split: len(values) for split, values in splits.items()},
    }
    measure(place, summary, tokenizer, 16, 4, problems)
    return problems.kept


# Which kinds the code has


def kinds() -> set[str]:
    """What stands as the kind in a call of `add`, or as `kind` of anything; * for a part that is computed."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
    ]
    constants = {
        target.id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set[str]()
    for call in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = [one.value for one in call.keywords if one.arg == "kind"]
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add" and len(call.args) > 1:
            given += call.args[2:3]
        elif isinstance(call.func, ast.Name) and call.func.id == "_Check":
            given += call.args[:1]
        found.update(*(_texts(constants.get(getattr(one, "id", ""), one)) for one in given))
    return {kind for kind in found if "-" in kind or kind == "choices"}


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values
        )


def test_every_kind_in_the_code_is_provoked(found: dict[str, Problem]) -> None:
    missing = {
        kind
        for kind in kinds()
        if not any(re.fullmatch(kind.replace("*", ".+"), one) for one in found)
    }
    assert not missing, f"add an input to BROKEN for each of {', '.join(sorted(missing))}"


def test_the_search_for_kinds_finds_some() -> None:
    """Checks the tool."""
    assert {
        "answer-offset",
        "predicate-count",
        "predicate-position",
        "empty-*",
        "long-text",
    } <= kinds()
    assert not {kind for kind in kinds() if not re.fullmatch(r"[a-z*]+(-[a-z*]+)*", kind)}


def test_warnings_are_kinds(found: dict[str, Problem]) -> None:
    assert found.keys() >= WARNINGS


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: str(BROKEN.index(broken)))
def test_a_broken_row_is_told_and_not_made(broken: File | Row | Ours) -> None:
    if isinstance(broken, Row):
        problems = Problems()
        made = task_named(broken.task).example(
            {"id": "1", "where": "f:1"} | broken.values, broken.labels, problems
        )
        assert (made is None) == bool(len(problems))
        assert problems.counts
        if made is None:
            with pytest.raises(UserError):
                problems.raise_if_any()


def cell(text: str) -> str:
    """Text as code in a cell of a Markdown table."""
    shown = text if len(text) <= 260 else f"{text[:259]}…"
    return (
        f"`` {shown} ``".replace("|", "\\|").replace("\n", " ")
        if "`" in text
        else f"`{shown}`".replace("|", "\\|")
    )


def table(found: dict[str, Problem]) -> str:
    lines = [
        "# Problems",
        "",
        "What is looked for in a corpus, by kind, and what is then said: rendered by `make problems` from inputs that",
        "provoke each (tests/pipeline/data/test_problems.py): do not edit. An error keeps a corpus from being prepared; a warning is",
        "shown and counted, and never fails.",
        "",
        "| kind | severity | for example |",
        "|---|---|---|",
    ]
    for kind, problem in sorted(found.items(), key=lambda item: (item[0] in WARNINGS, item[0])):
        severity = "warning" if kind in WARNINGS else "error"
        lines.append(f"| {kind} | {severity} | {cell(f'{problem.where}: {problem.message}')} |")
    return "\n".join(lines) + "\n"


def test_the_table_in_the_docs_is_up_to_date(
    found: dict[str, Problem], request: pytest.FixtureRequest
) -> None:
    path = request.config.getoption("problem_table")
    if path is not None:
        path.write_text(table(found), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table(found), "run `make problems`"
