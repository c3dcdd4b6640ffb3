"""Mutated files: `prepare` either keeps all rows of a mutant or raises UserError.

A mutant without problems may be another valid corpus, for example with two lines swapped. `prepare`
lost nothing silently if its number of rows equals a plain count of the mutated file's units: blocks
of lines, columns of brackets, lines of JSON, or questions in nested JSON. Another exception, or
more than `TIMEOUT_SECONDS` for a mutant, is a failure too.

`FUZZ_MUTANTS` is the number of mutants; `make fuzz` tries 20,000.
"""

import json
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.prepare import prepare
from pipeline.data.readers import READERS, offsets, token_spans
from pipeline.data.readers.base import Splits
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import WARNINGS, Problems, UserError
from pipeline.metrics.spans import spans
from pipeline.tasks.base.row import SPLITS, Row
from pipeline.world import write_corpus
from tests.support.exports import brat, doccano, json_lines
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data"))
MUTANTS = int(os.environ.get("FUZZ_MUTANTS", "120"))
TIMEOUT_SECONDS = 20
MAX_LINES, MAX_BYTES = 60, 30_000  # of a public corpus's file
SETTINGS = settings(
    max_examples=MUTANTS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
OUTCOMES: Counter[str] = Counter()

Corpus = tuple[Recipe, str]
WORLD: dict[str, Corpus] = {
    f"world_{kind}": (load_recipe(ROOT / "data_recipes" / f"world_{kind}.yaml"), kind)
    for kind in ("ner", "qa", "srl")
}
_SRL = WORLD["world_srl"][0]
_SENTENCES = replace(_SRL.options, rows="sentences")
WORLD["world_predicates"] = (
    replace(
        _SRL,
        name="world_predicates",
        task="token_classification",
        labels=("V",),
        options=_SENTENCES,
    ),
    "srl",
)
# The corpus world_ner as exports of texts with spans.
EXPORTS: dict[str, tuple[str, Any]] = {
    "doccano": ("offsets", offsets.Options("doccano", word_rule="spaces")),
    "brat": ("offsets", offsets.Options("brat", word_rule="spaces")),
    "token_spans": ("token_spans", token_spans.Options()),
}
PUBLIC = {
    "conll2003": "ner/conll2003",
    "wnut17": "ner/wnut17",
    "propbank_ewt": "srl/ewt",
    "squad": "qa/squad",
    "squad_v2": "qa/squad_v2",
    "rte": "classification/RTE",
    "wic": "classification/WiC",
    "wsc": "classification/WSC",
    "cb": "classification/CB",
    "copa": "classification/COPA",
}


# Mutations


def truncate(raw: bytes, dice: random.Random) -> bytes:
    return raw[: dice.randrange(len(raw) + 1)]


def flip_bits(raw: bytes, dice: random.Random) -> bytes:
    mutant = bytearray(raw)
    for _ in range(dice.choice((1, 1, 2, 8))):
        mutant[dice.randrange(len(mutant))] ^= 1 << dice.randrange(8)
    return bytes(mutant)


def overwrite(raw: bytes, dice: random.Random) -> bytes:
    """Overwrite some bytes with zeros, as a broken disk does, or with random bytes."""
    start, length = dice.randrange(len(raw)), dice.choice((1, 3, 40))
    content = bytes(length) if dice.random() < 0.5 else dice.randbytes(length)
    return raw[:start] + content + raw[start + length :]


def swap_lines(raw: bytes, dice: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    i, j = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def delete_lines(raw: bytes, dice: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    start = dice.randrange(len(lines))
    return b"".join(lines[:start] + lines[start + dice.choice((1, 1, 3)) :])


def repeat_lines(raw: bytes, dice: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    start = dice.randrange(len(lines))
    return b"".join(lines[: start + dice.choice((1, 2, 10))] + lines[start:])


def delete_column(raw: bytes, dice: random.Random) -> bytes:
    """Delete a column of a line or of all lines; in JSON, a part of the line."""
    lines = raw.splitlines(keepends=True)
    numbers = range(len(lines)) if dice.random() < 0.3 else [dice.randrange(len(lines))]
    column = dice.randrange(4)
    for number in numbers:
        cells = re.split(rb"([\t ,])", lines[number].rstrip(b"\r\n"))
        del cells[2 * column : 2 * column + 2]
        lines[number] = b"".join(cells) + b"\n"
    return b"".join(lines)


def change_encoding(raw: bytes, dice: random.Random) -> bytes:
    text = raw.decode("utf-8", errors="replace")
    if dice.random() < 0.5:  # add letters that differ between the encodings
        text = re.sub(
            r"[aeiou]",
            lambda vowel: "áéíóú"["aeiou".index(vowel[0])] if dice.random() < 0.02 else vowel[0],
            text,
        )
    encoding = dice.choice(("latin-1", "cp1252", "utf-16", "utf-8-sig", "utf-32", "cp500"))
    return text.encode(encoding, errors="replace")


def change_white_space(raw: bytes, dice: random.Random) -> bytes:
    """Replace line endings or other white space."""
    old, new = dice.choice(
        (
            (b"\n", b"\r\n"),
            (b"\n", b"\r"),
            (b"\t", b" "),
            (b" ", b"\t"),
            (b" ", b"\xc2\xa0"),
            (b"\n\n", b"\n"),
            (b"\n", b"\n\n"),
            (b"\n", b"\xe2\x80\xa8"),
            (b"\n", b""),
        )
    )
    return raw.replace(old, new)


def replace_element(raw: bytes, dice: random.Random) -> bytes:
    """Replace one element of these formats, for example a tag or a number."""
    old = dice.choice(
        (
            rb"B-\w+",
            rb"I-",
            rb"\*\)",
            rb"\(\w",
            rb"\(V\*\)",
            rb'"\w+":',
            rb"\d+",
            rb"\[[^]]*\]",
            rb"true|false",
            rb'"',
        )
    )
    new = dice.choice(
        (
            b"",
            b"O",
            b"I-X",
            b"B-",
            b"-1",
            b'"2"',
            b"null",
            b"[]",
            b"{}",
            b"(V*)",
            b"1e999",
            b"\\ud800",
            b"9" * 5000,
            b"NaN",
            b"[" * 3000,
            b"\x00",
            b"true",
        )
    )
    matches = list(re.finditer(old, raw))
    if not matches:
        return flip_bits(raw, dice)
    match = dice.choice(matches)
    return raw[: match.start()] + new + raw[match.end() :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncate,
    flip_bits,
    overwrite,
    swap_lines,
    delete_lines,
    repeat_lines,
    delete_column,
    change_encoding,
    change_white_space,
    replace_element,
)


def count_units(recipe: Recipe, name: str, raw: bytes) -> int:
    """The number of rows of a file, by other code than the readers'."""
    text = raw.decode("utf-8-sig")
    lines = text.split("\n")
    if name.endswith(".json"):
        return sum(
            len(paragraph["qas"])
            for article in json.loads(text)["data"]
            for paragraph in article["paragraphs"]
        )
    if name.endswith(".ann"):
        return 1
    if name.endswith(".jsonl"):
        return sum(bool(line.strip()) for line in lines)
    sentences, predicates, at_start = 0, 0, True
    for line in (line.lstrip("\ufeff") for line in lines):
        if not line.strip() or line.startswith(("-DOCSTART-", "#begin document", "#end document")):
            at_start = True
        elif at_start:
            sentences, at_start = sentences + 1, False
            predicates += len(line.rstrip("\r").split("\t")) - 8  # one column per predicate
    return predicates if recipe.task == "semantic_role_labeling" else sentences


# The corpora


def write_part(path: Path, target: Path) -> None:
    """Write the first rows of a file into `target`."""
    raw = path.read_bytes()
    if path.suffix == ".json":
        value = json.loads(raw)
        del value["data"][8:]
        for article in value["data"]:
            del article["paragraphs"][2:]
            for paragraph in article["paragraphs"]:
                del paragraph["qas"][3:]
        target.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        target.write_bytes(b"".join(raw.splitlines(keepends=True)[:MAX_LINES]))
    else:
        whole_sentences = re.match(rb"(?s).*\n\s*\n", raw[:MAX_BYTES])
        assert whole_sentences
        target.write_bytes(whole_sentences[0])


def write_exports(root: Path) -> dict[str, tuple[Recipe, Path]]:
    """Write the corpus world_ner in `root` as exports, and return their recipes and folders."""
    recipe, result = WORLD["world_ner"][0], {}
    extensions = {"brat": ".ann"}
    for name, (reader, options) in EXPORTS.items():
        (root / name).mkdir()
        files = Splits(
            *(
                f"{split}{extensions.get(name, '.jsonl')}"
                for split in ("train", "test", "validation")
            )
        )
        result[name] = (
            allow_problems(replace(recipe, name=name, reader=reader, options=options, files=files)),
            root / name,
        )
    for split in SPLITS:
        path = root / "world_ner" / recipe.files.of(split)[0]
        rows = list(READERS[recipe.reader].read(path, recipe.options, Problems()))
        write_split(root, split, rows)
    return result


def write_split(root: Path, split: str, rows: list[Row]) -> None:
    """Write the rows of a split for each of EXPORTS."""
    sentences = [(row["tokens"], spans(row["tags"])) for row in rows]
    texts = [as_text(tokens, found) for tokens, found in sentences]
    entities = [
        {"tokens": tokens, "entities": [{"type": t, "start": s, "end": e} for t, s, e in found]}
        for tokens, found in sentences
    ]
    (root / "doccano" / f"{split}.jsonl").write_bytes(
        json_lines([doccano(*text) | {"id": n} for n, text in enumerate(texts)])
    )
    (root / "token_spans" / f"{split}.jsonl").write_bytes(json_lines(entities))
    text, found = as_text(*sentences[0])
    (root / "brat" / f"{split}.txt").write_text(text, encoding="utf-8")
    (root / "brat" / f"{split}.ann").write_text(brat(text, found), encoding="utf-8")


def as_text(
    tokens: list[str], found: list[tuple[str, int, int]]
) -> tuple[str, list[tuple[int, int, str]]]:
    """The text of a sentence, and its spans in characters."""
    starts = [len(" ".join([*tokens[:n], ""])) for n in range(len(tokens))]
    return " ".join(tokens), [
        (starts[start], starts[end - 1] + len(tokens[end - 1]), label)
        for label, start, end in found
    ]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Recipe, Path]]:
    """Small parts of all available corpora; each is valid, with some problems allowed."""
    root, result = tmp_path_factory.mktemp("corpora"), dict[str, tuple[Recipe, Path]]()
    for name, (recipe, kind) in WORLD.items():
        write_corpus(kind, root / name, 12, 7)  # type: ignore[arg-type]
        result[name] = allow_problems(recipe), root / name
    result |= write_exports(root)
    for name, folder in PUBLIC.items():
        if (DATA / folder).is_dir():
            recipe = allow_problems(load_recipe(ROOT / "data_recipes" / f"{name}.yaml"))
            (root / name).mkdir()
            splits = [split for split in SPLITS if recipe.files.of(split)]
            for split in splits:
                path = sorted((DATA / folder).glob(recipe.files.of(split)[0]))[0]
                write_part(path, root / name / path.name)
            carve = None if len(splits) == 3 else recipe.carve_validation
            result[name] = replace(recipe, carve_validation=carve and 0.4), root / name
    for name, (recipe, path) in result.items():
        prepare(recipe, path, root / "valid" / name)
    return result


def allow_problems(recipe: Recipe) -> Recipe:
    return replace(recipe, allow=("conflicting-labels", "shared-row", "unseen-label"))


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError in the block after TIMEOUT_SECONDS."""

    def on_alarm(*_: object) -> None:
        raise TimeoutError(f"more than {TIMEOUT_SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def outcome(
    recipe: Recipe, folder: Path, output: Path, path: Path, split: str, original: bytes
) -> str:
    """The outcome of `prepare`. `path` is the mutated file, `original` its content before.

    Raises AssertionError if rows were lost, and any exception other than UserError.
    """
    raw = path.read_bytes()
    try:
        with time_limit():
            summary, _ = prepare(recipe, folder, output)
    except UserError:
        return "refused"
    rows = summary["rows"]
    kept = rows[split]
    if split == "train" and recipe.carve_validation is not None:
        kept += rows["validation"]
    units = count_units(recipe, path.name, raw)
    assert kept == units, f"{kept} rows of {units} were kept without any problem"
    if raw == original:
        return "same bytes"
    return "same rows" if kept == count_units(recipe, path.name, original) else "another corpus"


def try_mutant(corpora: dict[str, tuple[Recipe, Path]], seed: int, folder: Path) -> str:
    """Make the mutant number `seed` and return its outcome."""
    dice = random.Random(seed)
    name = dice.choice(sorted(corpora))
    recipe, source = corpora[name]
    work = folder / "raw"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    split = dice.choice(("train", "test"))
    path = sorted(work.glob(recipe.files.of(split)[0]))[0]
    original = raw = path.read_bytes()
    mutations = [dice.choice(MUTATIONS) for _ in range(dice.choice((1, 1, 1, 2)))]
    for mutation in mutations:
        raw = mutation(raw, dice) if raw.strip() else raw
    path.write_bytes(raw)
    try:
        return outcome(recipe, work, folder / "out", path, split, original)
    except Exception as error:
        names = ", ".join(mutation.__name__ for mutation in mutations)
        error.add_note(f"mutant {seed}: {name}, {split}, {names}")
        raise


@SETTINGS
@given(seed=st.integers(0, 2**40))
def test_mutant_loses_no_rows_silently(
    seed: int, corpora: dict[str, tuple[Recipe, Path]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutants"
    folder.mkdir(exist_ok=True)
    OUTCOMES[try_mutant(corpora, seed, folder)] += 1


def test_mutants_have_all_outcomes() -> None:
    """Many mutants are refused and some are read, so the test above tries both."""
    print("\nfuzz: " + ", ".join(f"{count} {name}" for name, count in sorted(OUTCOMES.items())))
    total = OUTCOMES.total()
    assert total >= MUTANTS
    assert OUTCOMES["refused"] > 0.2 * total
    assert OUTCOMES["same rows"] + OUTCOMES["another corpus"] > 0.05 * total


@pytest.mark.parametrize("name", sorted([*WORLD, *EXPORTS]))
def test_count_of_units_equals_the_rows_of_valid_files(
    name: str, corpora: dict[str, tuple[Recipe, Path]], tmp_path: Path
) -> None:
    recipe, folder = corpora[name]
    problems = Problems()
    rows = prepare(recipe, folder, tmp_path / "out", problems=problems)[0]["rows"]
    assert not set(problems.counts) - set(recipe.allow) - WARNINGS
    for split in SPLITS:
        path = folder / recipe.files.of(split)[0]
        assert rows[split] == count_units(recipe, path.name, path.read_bytes())


def test_files_without_rows_are_refused(
    corpora: dict[str, tuple[Recipe, Path]], tmp_path: Path
) -> None:
    for name, (recipe, folder) in corpora.items():
        for content in (
            b"",
            b"\n",
            b"\x00",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"[]",
            b"{}",
            b"null",
            b"-DOCSTART-",
        ):
            shutil.copytree(folder, tmp_path / name, dirs_exist_ok=True)
            for path in (tmp_path / name).iterdir():
                path.write_bytes(content)
            with pytest.raises(UserError):
                prepare(recipe, tmp_path / name, tmp_path / "out")
