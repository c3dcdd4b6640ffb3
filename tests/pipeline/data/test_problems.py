"""A small invalid input for each kind of problem, and the table of messages, docs/problems.md.

`make problems` writes the table. The tests fail if the code has a kind of problem that no input
here causes.
"""

import ast
import contextlib
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.corpus_statistics import compute_statistics
from pipeline.data.prepare import CorpusError, prepare
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import WARNINGS, Problem, Problems, UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.row import SPLITS
from tests.support.paths import ROOT

TABLE = ROOT / "docs/problems.md"
SENTENCE = "Ada\tB-PER\nwent\tO\nto\tO\nBonn\tB-LOC\n\n"
CONTEXT = "Ada went to Bonn in May."


class File(NamedTuple):
    """A training file of a generated corpus; its other files are valid."""

    corpus: str
    content: str | bytes


class Row(NamedTuple):
    """A row from a reader; `labels` are the recipe's."""

    task: str
    values: dict[str, Any]
    labels: tuple[str, ...] = ("PER", "LOC")


class Corpus(NamedTuple):
    """A corpus with its recipe's values. The first of the files has all splits."""

    task: str
    reader: str
    options: dict[str, Any]
    files: dict[str, bytes]


def texts(name: str, content: bytes) -> Corpus:
    options = {"fields": {"text": None, "label": None}}
    return Corpus("sequence_classification", "records", options, {name: content})


def table_with_metadata() -> bytes:
    """Parquet whose class numbers have other names than in `CLASSES`."""
    feature = {"names": ["yes", "no"], "_type": "ClassLabel"}
    metadata = json.dumps({"info": {"features": {"label": feature}}}).encode()
    table = pa.table({"text": ["Ada ran"], "label": [0]})
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), file)
    return file.getvalue()


CLASSES = {"fields": {"text": None, "label": None}, "names": {"0": "no", "1": "yes"}}


def tokens(content: bytes, **options: object) -> Corpus:
    """Sentences in CSV."""
    fields = {"fields": {"tokens": None, "tags": None}}
    return Corpus("token_classification", "records", fields | options, {"a.csv": content})


def props(**files: str) -> Corpus:
    """CoNLL-2005 in two files."""
    options = {"token": 0, "first_predicate": 2, "words": {"props": "words"}}
    contents = {name: text.encode() for name, text in files.items()}
    return Corpus("semantic_role_labeling", "conll_props", options, contents)


def columns(text: str, **options: object) -> Corpus:
    """Tokens and tags, with ids in the first column if `token_id` is set."""
    token = len(options.keys() & {"token_id"})
    layout = {"columns": token + 2, "token": token, "tag": token + 1, "tag_scheme": "iob2"}
    files = {"a.conll": text.encode()}
    return Corpus("token_classification", "conll_columns", layout | options, files)


def text_row(**changes: object) -> Row:
    return Row("text_generation", {"source": "Ada", "references": ["Ada ran."]} | changes, ())


def dialogue_row(**changes: object) -> Row:
    """A dialogue of one turn."""
    turn = {"system": [""], "user": ["Yes."], "labels": [["a=yes"]]}
    return Row("dialogue_state_tracking", turn | changes, ("a=yes", "a=no"))


def fact_row(**changes: object) -> Row:
    fact = {"subject": "Ada", "relation": "P19", "object": "London"}
    return Row("knowledge_probing", fact | {"template": "[X] was born in [Y]."} | changes, ())


def facts(content: bytes, num_relations: int = 1) -> Corpus:
    """Facts, and as many equal lines of relations."""
    relation = b'{"relation": "P19", "template": "[X] was born in [Y].", "paraphrases": []}'
    files = {"a.jsonl": content, "relations.jsonl": b"\n".join([relation] * num_relations)}
    return Corpus("knowledge_probing", "trex_jsonl", {}, files)


def webnlg(content: bytes) -> Corpus:
    return Corpus("text_generation", "webnlg_xml", {}, {"a.xml": content})


def skipped_predicate() -> Corpus:
    """`first_predicate` is the second of two predicates' columns."""
    options = {"token": 0, "first_predicate": 2}
    text = b"went (V*) (yes*)\nran * (V*)\n"
    return Corpus("semantic_role_labeling", "conll_props", options, {"a.conll": text})


TEXT = "Ada Lee left New York-based Bo."


def spans(*spans: tuple[int, int, str], **options: object) -> Corpus:
    """A text with spans of characters."""
    content = json.dumps({"text": TEXT, "spans": spans}).encode()
    return Corpus("token_classification", "offsets", options, {"a.jsonl": content})


def cut(on_partial: str) -> Corpus:
    """A span that ends inside a word."""
    return spans((13, 21, "yes"), word_rule="treebank", on_partial=on_partial)


def overlap(on_overlap: str) -> Corpus:
    """A span inside another one."""
    return spans((0, 12, "yes"), (4, 7, "no"), on_overlap=on_overlap)


def brat(annotation: str) -> Corpus:
    files = {"a.ann": annotation.encode(), "a.txt": TEXT.encode()}
    return Corpus("token_classification", "offsets", {"dialect": "brat"}, files)


def export(dialect: str, record: dict[str, Any], **options: object) -> Corpus:
    files = {"a.json": json.dumps([record]).encode()}
    return Corpus("token_classification", "offsets", {"dialect": dialect, **options}, files)


WRONG_TOKENS = {"text": "Ada", "spans": [], "tokens": [{"text": "Ada", "start": 1, "end": 3}]}
TWO_ANNOTATIONS = {"data": {"text": "Ada"}, "annotations": [{"result": []}, {"result": []}]}


def copa(**changes: object) -> Corpus:
    record = {
        "premise": "Ada ran.",
        "choice1": "a",
        "choice2": "b",
        "question": "cause",
        "label": 0,
        "idx": 0,
    }
    content = json.dumps(record | changes).encode()
    return Corpus("multiple_choice", "superglue", {"corpus": "copa"}, {"a.jsonl": content})


def question(**changes: object) -> str:
    valid = {
        "id": "1",
        "question": "Who went?",
        "context": CONTEXT,
        "answers": [{"text": "Ada", "answer_start": 0}],
    }
    return json.dumps(valid | changes) + "\n"


def predicate(*brackets: str, document: int = 1, mark: str = "go.01") -> str:
    """A sentence with one predicate, "went", in the columns of PropBank."""
    lines = []
    for number, (word, cell) in enumerate(zip(("Ada", "went", "home"), brackets, strict=True)):
        columns = ["d", str(document), str(number), word, *["-"] * 3]
        lines.append("\t".join([*columns, mark if word == "went" else "-", cell]))
    return "\n".join(lines) + "\n\n"


def tags_row(**changes: object) -> Row:
    return Row("token_classification", {"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"]} | changes)


def question_row(**changes: object) -> Row:
    valid = {"question": "Who went?", "context": CONTEXT, "answers": []}
    return Row("span_extraction", valid | changes)


def predicate_row(**changes: object) -> Row:
    valid = {"tokens": ["Ada", "ran"], "tags": ["O", "B-V"], "predicate": 1}
    return Row("semantic_role_labeling", valid | changes)


def label_row(**changes: object) -> Row:
    valid = {"text": CONTEXT, "label": "yes"}
    return Row("sequence_classification", valid | changes, ("yes", "no"))


def choices_row(**changes: object) -> Row:
    valid = {"context": CONTEXT, "question": "Who?", "choices": ["Ada", "Bo"], "answers": ["Ada"]}
    return Row("multiple_choice", valid | changes)


INVALID: tuple[File | Row | Corpus, ...] = (
    File("ner", SENTENCE + "Ada\n"),  # a missing column
    File("ner", SENTENCE + "\tO\n"),
    File("ner", SENTENCE + "Ada\tS-PER\n"),
    File("ner", SENTENCE + "Ada\tI-PER\n"),
    File("ner", SENTENCE + "Ada\tB-PRE\n"),
    File("ner", SENTENCE.encode() + b"caf\xe9\tO\n"),
    File("ner", SENTENCE.encode("utf-16")),
    File("ner", "\n"),
    File("ner", SENTENCE.replace("LOC", "PER")),  # only validation has LOC
    File("ner", SENTENCE + SENTENCE.replace("B-PER", "O")),  # the same tokens with other tags
    File("ner", SENTENCE + "a\x00b\tO\n"),
    File("ner", SENTENCE + "\u200b\tO\n"),
    File("ner", SENTENCE + "\ufeffBo\tB-PER\n"),  # two files joined
    File("ner", SENTENCE.replace("B-PER", "O").replace("B-LOC", "O")),
    File("ner", "went\tO\n" * 300),  # a sentence of hundreds of words
    File("qa", "{'id': 1}\n"),
    File("qa", "[" * 100_000 + "\n"),
    File("qa", "[1]\n"),
    File("qa", question() + '{"id": "2"}\n'),
    File("qa", question() + question()),  # a repeated id
    File("qa", question(id=None)),
    File("qa", question(id="validation")),  # an id of two splits
    File("qa", question(question=["Who?"])),
    File("qa", question(answers=[{"text": "Ada", "answer_start": "0"}])),
    File("qa", question(answers=[{"text": "Ada", "answer_start": 3}])),
    File("qa", question(answers=None)),
    File("qa", question(context="\ud800 Ada", answers=[])),
    File("srl", predicate("(ARG0*)", "V", "*")),
    File("srl", predicate("(ARG0*)", "(V*)", "*")[:-3] + "\n"),
    File("srl", predicate("(ARG0*)", "(V*)", "*", mark="-")),
    File("srl", predicate("*", "(V*)", "*")),
    File("srl", predicate("(ARG0*", "(V*)", "*)")),
    File("srl", predicate("(ARG0*", "*", "*")),
    File("srl", predicate("*)", "(V*)", "*")),
    File("srl", predicate("(ARG0*)", "*", "*")),
    File("srl", predicate("(ARG9*)", "(V*)", "*")),
    texts("a.csv", b"text,labl\nAda ran,yes\n"),
    texts("a.csv", b"text,label,text\nAda ran,yes,Ada\n"),
    texts("a.csv", b'text,label\n"Ada" ran,yes\n'),
    texts("a.parquet", b"PAR1"),
    texts("a.arrow", b"Ada ran"),
    texts("a.jsonl", b"[\n"),
    texts("a.csv", b"PK\x03\x04"),
    Corpus("sequence_classification", "records", CLASSES, {"a.parquet": table_with_metadata()}),
    tokens(b"tokens,tags\n\"['Ada', 'ran']\",\"['B-yes' 'O']\"\n"),
    tokens(b"n,tokens,tags\n,Ada,O\n", group_by="n"),
    tokens(b"n,tokens,tags\n1,Ada,O\n2,Bo,O\n1,ran,O\n", group_by="n"),
    tokens(b"tokens,tags\n[],1\n"),
    texts("a.txt", b"Ada ran"),
    texts("a.jsonl.gz", gzip.compress(b'{"text": "Ada"}\n')[:-9]),
    props(props="- (V*)\n"),
    props(props="ran (V*)\n\n", words="Ada\nran\n"),
    props(props="ran (V*)\nran (V*)\n", words="Ada\nran\n"),
    Corpus(
        "token_classification",
        "conll_columns",
        {"columns": 2, "token": 0, "tag": 1, "tag_scheme": "bioes"},
        {"a.conll": b"Ada B-yes\n"},
    ),
    columns("# new document\nAda B-yes\n# new sentence\nBo B-no\n", comment="#"),
    columns("in O\n\n#Oslo B-yes\nand O\n", comment="#"),
    columns("Ada B-yes\n", comment="%"),
    columns("Ada B-yes\n\n" + "".join(f"went{n} O\n\n" for n in range(20))),
    columns("1 Ada B-yes\n1-2 Ada-Bo B-no\n2 Bo B-no\n1 Cy B-no\n", token_id=0),
    columns("1 Ada ner=B-yes\n", token_id=0, feature="NER"),
    skipped_predicate(),
    Corpus(
        "span_extraction",
        "records",
        {"fields": dict.fromkeys(["question", "context", "answers"]), "offsets": "utf16"},
        {
            "a.jsonl": question(
                context="\U0001f600 Ada", answers=[{"text": "Ada", "answer_start": 1}]
            ).encode()
        },
    ),
    cut("error"),
    cut("trim"),
    cut("expand"),
    cut("split"),
    overlap("error"),
    overlap("split"),
    overlap("drop"),
    brat("T1\tyes 0 3\tBob\n"),
    brat("T1\tyes 0 3;13 16\tAda New\n"),
    brat("T1 yes 0 3 Ada\n"),
    export("label_studio", TWO_ANNOTATIONS),
    export("prodigy", WRONG_TOKENS, word_rule="tokens"),
    Corpus("token_classification", "offsets", {"dialect": "spacy"}, {"a.spacy": b"Ada"}),
    copa(question="why"),
    tags_row(tokens="Ada ran"),
    tags_row(tags=["O"]),
    tags_row(tags=["B-PER", "PER"]),
    tags_row(tags=["B-PRE", "O"]),
    tags_row(tokens=["Ada", " "]),
    tags_row(tokens=["Ada", "a\x00b"]),
    tags_row(tokens=["Ada", "\u200b"]),
    tags_row(tokens=["Ada", "\ud800"]),
    tags_row(tokens=["A\u200bda", "ran"]),
    tags_row(tokens=["[WORD]", "ran"]),
    tags_row(tokens=["[WORD]", "[WORD]"]),
    predicate_row(predicate=0),
    predicate_row(tags=["B-V", "B-V"]),
    question_row(question=""),
    question_row(context=" "),
    question_row(question=3),
    question_row(context="e\u0301", answers=[{"text": "e", "answer_start": 0}]),
    question_row(context="a\x99b"),
    question_row(answers=None),
    question_row(answers=[{"text": "Ada", "answer_start": "0"}]),
    question_row(answers=[{"text": "Ada", "answer_start": 1}]),
    question_row(answers=[{"text": "", "answer_start": 1}]),
    question_row(answers=[{"text": "nn", "answer_start": 12}]),
    question_row(context="Cafe\u0301 Roma", answers=[{"text": "Roma", "answer_start": 5}]),
    text_row(source=" "),
    text_row(references=[]),
    fact_row(subject=" "),
    fact_row(object=""),
    fact_row(object="[X] [Y]"),
    fact_row(relation="a=b"),
    fact_row(template=None),
    fact_row(template="[Y] bore [X]."),
    facts(b'{"relation": "P91", "subject": "Ada", "object": "London"}'),
    facts(b'{"relation": "P19", "subject": "Ada", "object": "London"}', num_relations=2),
    dialogue_row(user=[]),
    dialogue_row(user=[" "]),
    dialogue_row(labels=[["a=yes", "a=no"]]),
    dialogue_row(labels=[["a"]])._replace(task="dialogue_state_generation", labels=()),
    dialogue_row(system=["", "Why?"], user=["Yes.", "So."], labels=[["a=yes"], []])._replace(
        task="dialogue_state_generation", labels=()
    ),
    webnlg(b"<benchmark>"),
    webnlg(b"<!DOCTYPE a><benchmark/>"),
    label_row(text=""),
    label_row(text_pair=" "),
    label_row(label="maybe"),
    label_row(spans=[1]),
    label_row(spans=[{"segment": 0, "start": 5, "end": 99}]),
    choices_row(choices=["Ada"]),
    choices_row(choices=["Ada", "Ada"]),
    choices_row(answers=["Cy"]),
    choices_row(starts=[0, 5]),
    choices_row(starts=["0", "5"]),
)
LABELS = ("yes", "no", "maybe")
# Valid rows with warnings: a long text and a rare label.
ROWS_WITH_WARNINGS = [
    {"text": f"{CONTEXT} {'word ' * 80 * (n == 7)}{n}", "label": LABELS[2 * (n == 3)]}
    for n in range(60)
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Problem]:
    """The first problem of each kind, in the order of `INVALID`."""
    problems: list[Problem] = []
    for invalid in INVALID:
        if isinstance(invalid, Row):
            problems += _problems_of_row(invalid).kept
        else:
            problems += _problems_of_files(invalid, tmp_path_factory.mktemp("files"))
    problems += _problems_of_statistics(tmp_path_factory.mktemp("statistics"), tokenizer)
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.kind, problem)
    return first


def _problems_of_files(invalid: File | Corpus, folder: Path) -> list[Problem]:
    if isinstance(invalid, Corpus):
        return _problems_of_recipe(_write_corpus(invalid, folder), folder)
    valid = {
        "ner": SENTENCE,
        "qa": question(id="v"),
        "srl": predicate("(ARG0*)", "(V*)", "*", document=2),
    }[invalid.corpus]
    recipe = load_recipe(ROOT / "data_recipes" / f"world_{invalid.corpus}.yaml")
    for split in ("train", "validation", "test"):
        text = valid.replace('"v"', f'"{split}"').replace("d\t2", f"{split}\t2")
        content = invalid.content if split == "train" else text
        if isinstance(content, str):
            content = content.encode(errors="surrogatepass")
        (folder / recipe.files.of(split)[0]).write_bytes(content)
    return _problems_of_recipe(recipe, folder)


def _write_corpus(corpus: Corpus, folder: Path) -> Recipe:
    for name, content in corpus.files.items():
        (folder / name).write_bytes(content)
    values = {
        "task": corpus.task,
        "license": "CC0",
        "source": "made here",
        "reader": corpus.reader,
        "options": corpus.options,
        "files": {"train": next(iter(corpus.files))},
        "carve_validation": 0.2,
        "carve_test": 0.2,
    }
    if not task_named(corpus.task).check_labels(["yes", "no"]):
        values["labels"] = ["yes", "no"]
    path = folder.parent / "ours.yaml"
    path.write_text(json.dumps(values))
    return load_recipe(path)


def _problems_of_recipe(recipe: Recipe, folder: Path) -> list[Problem]:
    """The problems, without the folders in their paths."""
    problems = Problems()
    with contextlib.suppress(CorpusError):
        prepare(recipe, folder, folder / "out", problems=problems)
    folders = re.compile("|".join(f"{re.escape(str(f))}/" for f in (folder, folder.parent, ROOT)))
    return [
        problem._replace(
            where=folders.sub("", problem.where), message=folders.sub("", problem.message)
        )
        for problem in problems.kept
    ]


def _problems_of_row(invalid: Row) -> Problems:
    problems = Problems()
    row = {"id": "1", "where": "train.jsonl:1"} | invalid.values
    example = task_named(invalid.task).example(row, invalid.labels, problems)
    assert (example is None) == bool(len(problems))
    return problems


def _problems_of_statistics(folder: Path, tokenizer: Tokenizer) -> list[Problem]:
    """The warnings of a valid corpus."""
    splits = {
        "train": ROWS_WITH_WARNINGS,
        "validation": ROWS_WITH_WARNINGS[:2],
        "test": [{"text": "Nothing of this is there.", "label": "yes"}],
    }
    task = task_named("sequence_classification")
    counts: dict[str, dict[str, int]] = {split: {} for split in splits}
    for split, values in splits.items():
        records = []
        for n, value in enumerate(values):
            row = {"id": f"{split}-{n}", "where": "", **value}
            records.append(task.record(task.example(row, LABELS, Problems())))
            counts[split][value["label"]] = counts[split].get(value["label"], 0) + 1
        table = pa.Table.from_pylist(records, schema=task.schema)
        pq.write_table(table, folder / f"{split}.parquet")
    problems = Problems()
    summary = {
        "task": "sequence_classification",
        "name": "ours",
        "classes": list(LABELS),
        "label_counts": counts,
        "rows": {split: len(values) for split, values in splits.items()},
        "word_rule": None,
        "word_agreement": {},
    }
    compute_statistics(folder, summary, tokenizer, 16, 4, problems)
    _compute_statistics_of_questions(folder, tokenizer, problems)
    return problems.kept


def _compute_statistics_of_questions(
    folder: Path, tokenizer: Tokenizer, problems: Problems
) -> None:
    """Add the warnings of a corpus in Chinese whose answer is inside a word of the tokenizer."""
    task = task_named("span_extraction")
    for split in SPLITS:
        values = {
            "id": f"{split}-1",
            "where": "",
            "question": "谁去了波恩？",
            "context": "艾达xlovelace去了波恩。",
            "answers": [{"text": "love", "answer_start": 3}],
        }
        example = task.example(values, (), Problems())
        table = pa.Table.from_pylist([task.record(example)], schema=task.schema)
        pq.write_table(table, folder / f"{split}.parquet")
    summary = {
        "task": "span_extraction",
        "name": "ours",
        "classes": ["start", "end"],
        "primary": "f1",
        "label_counts": {split: {} for split in SPLITS},
        "rows": dict.fromkeys(SPLITS, 1),
        "word_rule": None,
        "word_agreement": {},
    }
    compute_statistics(folder, summary, tokenizer, 32, 4, problems)


# The kinds of problems in the code


def kinds() -> set[str]:
    """The kinds in the code: arguments of `add`, `_Check` and `TagError`, and keywords `kind`.

    A computed part of a kind becomes *.
    """
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
    ]
    constants: dict[str, ast.expr] = {}
    for node in (node for tree in trees for node in tree.body if isinstance(node, ast.Assign)):
        for target in node.targets:
            if isinstance(target, ast.Name):
                constants[target.id] = node.value
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    result = set[str]()
    for argument in (argument for call in calls for argument in _kind_arguments(call)):
        result.update(_texts(constants.get(getattr(argument, "id", ""), argument)))
    return {kind for kind in result if "-" in kind or kind in ("choices", "quoting")}


def _kind_arguments(call: ast.Call) -> Iterator[ast.expr]:
    """The arguments of a call that are kinds of problems."""
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "kind")
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr == "add" and len(call.args) > 1:
        yield from call.args[2:3]
    elif isinstance(function, ast.Name) and function.id == "_Check":
        yield from call.args[:1]
    elif isinstance(function, ast.Name) and function.id == "TagError":
        yield from call.args[2:3]


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values
        )


def test_every_kind_in_the_code_has_an_input(examples: dict[str, Problem]) -> None:
    missing = {
        kind
        for kind in kinds()
        if not any(re.fullmatch(kind.replace("*", ".+"), example) for example in examples)
    }
    assert not missing, f"add an input to INVALID for each of {', '.join(sorted(missing))}"


def test_search_for_kinds_finds_all_forms_of_calls() -> None:
    assert {
        "answer-offset",
        "duplicate-id",
        "predicate-count",
        "predicate-position",
        "empty-*",
        "long-text",
        "unclosed-span",
    } <= kinds()
    assert not {kind for kind in kinds() if not re.fullmatch(r"[a-z*]+(-[a-z*]+)*", kind)}


def test_warnings_are_kinds(examples: dict[str, Problem]) -> None:
    assert examples.keys() >= WARNINGS


@pytest.mark.parametrize(
    "row",
    [invalid for invalid in INVALID if isinstance(invalid, Row)],
    ids=lambda row: str(INVALID.index(row)),
)
def test_invalid_row_is_reported(row: Row) -> None:
    problems = _problems_of_row(row)
    assert problems.counts
    if len(problems):
        with pytest.raises(UserError):
            problems.raise_if_any()


def cell(text: str) -> str:
    """Text as code in a cell of a Markdown table."""
    text = text if len(text) <= 260 else f"{text[:259]}…"
    code = f"`` {text} ``".replace("\n", " ") if "`" in text else f"`{text}`"
    return code.replace("|", "\\|")


def table(examples: dict[str, Problem]) -> str:
    lines = [
        "# Problems",
        "",
        "All kinds of problems in a corpus, with an example of each message. `make problems`",
        "renders this page from invalid inputs (tests/pipeline/data/test_problems.py); do not edit",
        "it. With an error, `prepare` refuses the corpus, or drops the row if the recipe has",
        "`on_problem: drop`. Warnings are reported and counted, but never fail.",
        "",
        "| kind | severity | example |",
        "|---|---|---|",
    ]
    for kind, problem in sorted(examples.items(), key=lambda item: (item[0] in WARNINGS, item[0])):
        severity = "warning" if kind in WARNINGS else "error"
        lines.append(f"| {kind} | {severity} | {cell(f'{problem.where}: {problem.message}')} |")
    return "\n".join(lines) + "\n"


def test_table_in_the_docs_is_up_to_date(
    examples: dict[str, Problem], request: pytest.FixtureRequest
) -> None:
    path = request.config.getoption("problem_table")
    if path is not None:
        path.write_text(table(examples), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table(examples), "run `make problems`"
