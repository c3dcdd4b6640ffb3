"""The corpora as files, in the formats of their field. Rows are written as they are made: memory does not grow with them."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from pipeline.errors import UserError
from pipeline.world.constructions import compose
from pipeline.world.grammar import Frame
from pipeline.world.questions import compose_question
from pipeline.world.sampling import Dice, mix

Kind = Literal["ner", "qa", "srl"]
SPLITS = ("train", "validation", "test")
KINDS: tuple[Kind, ...] = ("ner", "qa", "srl")
HELD_SHARE = 0.3  # of the draws in validation and test: a sentence has several, so most of its facts hold a new word.
BLOCK = 1024


def ner_row(dice: Dice, row: str) -> str:
    """A sentence as `token<TAB>tag` lines with IOB2 tags, and a blank line."""
    s, _ = compose(dice)
    tags = ["O"] * len(s.words)
    for start, end, kind in s.entities:
        tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return "".join([f"{word}\t{tag}\n" for word, tag in zip(s.words, tags, strict=True)]) + "\n"


def srl_row(dice: Dice, row: str) -> str:
    """A sentence as CoNLL-2012 lines: one column of brackets for each predicate, and a blank line."""
    s, _ = compose(dice)
    columns = [brackets(frame, len(s.words)) for frame in s.frames]
    senses = {frame.verb: frame.roleset for frame in s.frames}
    doc, _, number = row.rpartition("/")
    lines = []
    for at, word in enumerate(s.words):
        sense = senses.get(at, "-")
        cells = [
            doc,
            number,
            str(at),
            word,
            "-",
            "-",
            sense.split(".")[0],
            sense,
            *[column[at] for column in columns],
        ]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n\n"


def brackets(frame: Frame, length: int) -> list[str]:
    """A predicate's column: `(ARG0*`, `*`, `*)`."""
    column = ["*"] * length
    for role, start, end in [*frame.args, ("V", frame.verb, frame.verb + 1)]:
        column[start] = f"({role}*"
        column[end - 1] += ")"
    return column


def qa_row(dice: Dice, row: str) -> str:
    """A question as one line of JSON; no answers where the context has none."""
    found = compose_question(dice)
    answers = [{"text": found.answer, "answer_start": found.start}] if found.start >= 0 else []
    value = {"id": row, "context": found.context, "question": found.question, "answers": answers}
    return json.dumps(value, ensure_ascii=False) + "\n"


ROWS: dict[Kind, Callable[[Dice, str], str]] = {"ner": ner_row, "qa": qa_row, "srl": srl_row}


def make_row(kind: Kind, split: str, number: int, seed: int) -> str:
    """Row `number` of a split: a function of these four alone.

    A validation or test row holds at least one name, verb or construction that train never has, so none is a train row.
    """
    held = 0.0 if split == "train" else HELD_SHARE
    for attempt in range(64):
        dice = Dice(mix(seed, KINDS.index(kind), SPLITS.index(split), number, attempt), held)
        text = ROWS[kind](dice, f"{split}/{number}")
        if dice.novel or not held:
            return text
    raise AssertionError(f"no held-out word in 64 attempts at {kind} {split} {number}")


def iterate_rows(kind: Kind, split: str, rows: int, seed: int) -> Iterator[str]:
    """The rows of a split, one at a time."""
    return (make_row(kind, split, number, seed) for number in range(rows))


def split_sizes(rows: int) -> dict[str, int]:
    """How many rows each split has for this many train rows."""
    evaluation = min(2000, max(200, rows // 10))
    return {"train": rows, "validation": evaluation, "test": evaluation}


def write_corpus(kind: Kind, folder: Path, rows: int, seed: int) -> dict[str, int]:
    """Write `train`, `validation` and `test` files of a corpus into `folder`; the number of rows of each.

    A file appears under its name only when it is whole. `rows` counts train rows; the others have a tenth of that,
    but 200 to 2,000. The same arguments always write the same bytes, and more rows continue fewer.
    """
    problems = []
    if kind not in ROWS:
        problems.append(f"kind: {kind!r} is no generated corpus; use one of {', '.join(KINDS)}")
    if rows < 1:
        problems.append(f"rows: {rows} is too few; use 1 or more")
    if problems:
        raise UserError(*problems)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = split_sizes(rows)
    for split, size in sizes.items():
        name = f"{split}.{'jsonl' if kind == 'qa' else 'conll'}"
        write_rows(folder / name, iterate_rows(kind, split, size, seed))
    return sizes


def write_rows(path: Path, rows: Iterator[str]) -> None:
    """Write the rows beside `path`, then rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            while block := "".join(islice(rows, BLOCK)):
                file.write(block)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
