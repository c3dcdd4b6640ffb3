"""Files in whatever state: each mutant is read to sound rows that are all accounted for, or gives our error with a kind.

A mutant that is read without any problem may be another corpus (two lines swapped, a file cut between two rows): no fault.
Nothing is lost silently when the rows that `prepare` keeps are as many as the units that are seen in the mutated file by another,
plainer road: blocks of lines, columns of brackets, lines of JSON, questions in nested JSON. A traceback, or a mutant that takes
longer than `SECONDS`, is a fault too.

`FUZZ_MUTANTS` says how many; `make fuzz` tries 20,000.
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

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.prepare import prepare
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import Problems, UserError
from pipeline.world import write_corpus
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data"))
MUTANTS = int(os.environ.get("FUZZ_MUTANTS", "120"))
SECONDS = 20
LINES, BYTES = 60, 30_000  # of a real file: enough of it, and quick
FEW = settings(
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
REAL = {
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


# Mutations: what happens to files on their way.


def truncated(raw: bytes, dice: random.Random) -> bytes:
    return raw[: dice.randrange(len(raw) + 1)]


def flipped(raw: bytes, dice: random.Random) -> bytes:
    found = bytearray(raw)
    for _ in range(dice.choice((1, 1, 2, 8))):
        found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
    return bytes(found)


def overwritten(raw: bytes, dice: random.Random) -> bytes:
    """A stretch of other bytes: zeros of a broken disk, or anything."""
    start, length = dice.randrange(len(raw)), dice.choice((1, 3, 40))
    return (
        raw[:start]
        + (bytes(length) if dice.random() < 0.5 else dice.randbytes(length))
        + raw[start + length :]
    )


def swapped(raw: bytes, dice: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def lost(raw: bytes, dice: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    start = dice.randrange(len(lines))
    return b"".join(lines[:start] + lines[start + dice.choice((1, 1, 3)) :])


def repeated(raw: bytes, dice: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True)
    start = dice.randrange(len(lines))
    return b"".join(lines[: start + dice.choice((1, 2, 10))] + lines[start:])


def cut(raw: bytes, dice: random.Random) -> bytes:
    """A column is lost, in one line or all; of JSON, a stretch of the line."""
    lines = raw.splitlines(keepends=True)
    chosen = range(len(lines)) if dice.random() < 0.3 else [dice.randrange(len(lines))]
    column = dice.randrange(4)
    for number in chosen:
        cells = re.split(rb"([\t ,])", lines[number].rstrip(b"\r\n"))
        del cells[2 * column : 2 * column + 2]
        lines[number] = b"".join(cells) + b"\n"
    return b"".join(lines)


def recoded(raw: bytes, dice: random.Random) -> bytes:
    text = raw.decode("utf-8", errors="replace")
    if dice.random() < 0.5:  # some words that tell encodings apart
        text = re.sub(
            r"[aeiou]",
            lambda found: "áéíóú"["aeiou".index(found[0])] if dice.random() < 0.02 else found[0],
            text,
        )
    return text.encode(
        dice.choice(("latin-1", "cp1252", "utf-16", "utf-8-sig", "utf-32", "cp500")),
        errors="replace",
    )


def spaced(raw: bytes, dice: random.Random) -> bytes:
    """Other line ends, other white space."""
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


def retold(raw: bytes, dice: random.Random) -> bytes:
    """One of the things that stand in such files is another."""
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
    found = list(re.finditer(old, raw))
    if not found:
        return flipped(raw, dice)
    one = dice.choice(found)
    return raw[: one.start()] + new + raw[one.end() :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated,
    flipped,
    overwritten,
    swapped,
    lost,
    repeated,
    cut,
    recoded,
    spaced,
    retold,
)


# How many rows a file has, by another road than the readers'.


def units(recipe: Recipe, name: str, raw: bytes) -> int:
    text = raw.decode("utf-8-sig")
    lines = text.split("\n")
    if name.endswith(".json"):
        return sum(
            len(paragraph["qas"])
            for article in json.loads(text)["data"]
            for paragraph in article["paragraphs"]
        )
    if name.endswith(".jsonl"):
        return sum(bool(line.strip()) for line in lines)
    predicates = recipe.task == "semantic_role_labeling"  # one column each, behind eight others
    blocks, columns, fresh = 0, 0, True
    for line in lines:
        if not line.strip() or line.startswith(("-DOCSTART-", "#begin document", "#end document")):
            fresh = True
        elif fresh:
            blocks, columns, fresh = (
                blocks + 1,
                columns + len(line.rstrip("\r").split("\t")) - 8,
                False,
            )
    return columns if predicates else blocks


# The corpora


def part(path: Path, target: Path) -> None:
    """The first rows of a file, whole."""
    raw = path.read_bytes()
    if path.suffix == ".json":
        value = json.loads(raw)
        value["data"] = [
            {
                **article,
                "paragraphs": [{**one, "qas": one["qas"][:3]} for one in article["paragraphs"][:2]],
            }
            for article in value["data"][:8]
        ]
        target.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        target.write_bytes(b"".join(raw.splitlines(keepends=True)[:LINES]))
    else:
        short = raw[:BYTES]
        target.write_bytes(short[: re.search(rb"(?s).*\n\s*\n", short).end()])  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Recipe, Path]]:
    """Small parts of all corpora that are there, with labels that are allowed to be in validation or test alone."""
    place, found = tmp_path_factory.mktemp("corpora"), dict[str, tuple[Recipe, Path]]()
    for name, (recipe, kind) in WORLD.items():
        write_corpus(kind, place / name, 12, 7)  # type: ignore[arg-type]
        found[name] = recipe, place / name
    for name, folder in REAL.items():
        if (DATA / folder).is_dir():
            recipe = load_recipe(ROOT / "data_recipes" / f"{name}.yaml")
            (place / name).mkdir()
            source = {
                split: sorted((DATA / folder).glob(recipe.files.of(split)[0]))[0]
                for split in ("train", "validation", "test")
                if recipe.files.of(split)
            }
            for path in source.values():
                part(path, place / name / path.name)
            carve = None if len(source) == 3 else recipe.carve_validation
            found[name] = replace(recipe, carve_validation=carve and 0.4), place / name
    for name, (recipe, folder) in found.items():
        found[name] = allowing(recipe), folder
        prepare(found[name][0], folder, place / "sound" / name)
    return found


def allowing(recipe: Recipe) -> Recipe:
    return replace(recipe, allow=("conflicting-labels", "shared-row", "unseen-label"))


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError in the block when it takes too long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(
    recipe: Recipe, folder: Path, output: Path, changed: Path, split: str, sound: bytes
) -> str:
    """What became of a mutant. Any other exception than a UserError is a fault, and so is a count that does not add up."""
    raw = changed.read_bytes()
    try:
        with limited():
            summary, _ = prepare(recipe, folder, output)
    except UserError:
        return "refused"
    rows = summary["rows"]
    kept = (
        rows["train"] + rows["validation"] * (recipe.carve_validation is not None)
        if split == "train"
        else rows[split]
    )
    assert kept == units(recipe, changed.name, raw), (
        f"{kept} rows of {units(recipe, changed.name, raw)}, and no word of it"
    )
    return (
        "same bytes"
        if raw == sound
        else "the same rows"
        if kept == units(recipe, changed.name, sound)
        else "another corpus"
    )


def mutate(corpora: dict[str, tuple[Recipe, Path]], seed: int, place: Path) -> str:
    """Make the mutant with that number, and say what became of it."""
    dice = random.Random(seed)
    name = dice.choice(sorted(corpora))
    recipe, folder = corpora[name]
    work = place / "raw"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder, work)
    split = dice.choice(("train", "test"))
    changed = sorted(work.glob(recipe.files.of(split)[0]))[0]
    sound = changed.read_bytes()
    raw = sound
    chosen = [dice.choice(MUTATIONS) for _ in range(dice.choice((1, 1, 1, 2)))]
    for mutation in chosen:
        raw = mutation(raw, dice) if raw.strip() else raw
    changed.write_bytes(raw)
    try:
        return outcome(recipe, work, place / "out", changed, split, sound)
    except Exception as error:
        error.add_note(
            f"mutant {seed}: {name}, {split}, {', '.join(one.__name__ for one in chosen)}"
        )
        raise


@FEW
@given(seed=st.integers(0, 2**40))
def test_mutants(
    seed: int, corpora: dict[str, tuple[Recipe, Path]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.getbasetemp() / "mutants"
    place.mkdir(exist_ok=True)
    OUTCOMES[mutate(corpora, seed, place)] += 1


def test_the_mutants_were_of_every_sort() -> None:
    """Most are refused, some are read: else the test above would try too little."""
    print("\nfuzz: " + ", ".join(f"{count} {what}" for what, count in sorted(OUTCOMES.items())))
    total = OUTCOMES.total()
    assert total >= MUTANTS
    assert OUTCOMES["refused"] > 0.2 * total
    assert OUTCOMES["the same rows"] + OUTCOMES["another corpus"] > 0.05 * total


@pytest.mark.parametrize("name", sorted(WORLD))
def test_sound_files_are_counted_as_the_readers_do(
    name: str, corpora: dict[str, tuple[Recipe, Path]], tmp_path: Path
) -> None:
    """Checks the tool."""
    recipe, folder = corpora[name]
    problems = Problems()
    rows = prepare(recipe, folder, tmp_path / "out", gather=problems)[0]["rows"]
    assert not set(problems.counts) - set(recipe.allow)
    for split in ("train", "validation", "test"):
        path = folder / recipe.files.of(split)[0]
        assert rows[split] == units(recipe, path.name, path.read_bytes())


def test_a_file_of_which_nothing_is_left(
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
