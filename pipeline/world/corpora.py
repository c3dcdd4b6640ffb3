"""Write the corpora as files, in the usual formats of their tasks.

Rows are generated and written in blocks, so memory does not grow with the corpus.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from pipeline.errors import UserError
from pipeline.files import atomic_stream
from pipeline.world.constructions import compose
from pipeline.world.grammar import Frame
from pipeline.world.questions import compose_question
from pipeline.world.sampling import RowRandom, row_seed

Kind = Literal["ner", "qa", "srl"]
SPLITS = ("train", "validation", "test")
KINDS: tuple[Kind, ...] = ("ner", "qa", "srl")
# Rate of held-out items among the draws in validation and test. A sentence makes several draws,
# so most of its facts contain a new word.
HELD_OUT_RATE = 0.3
MAX_ATTEMPTS = 64  # to generate a validation or test row with a held-out item
ROWS_PER_BLOCK = 1024


def ner_row(rng: RowRandom, row_id: str) -> str:
    """Generate a sentence as `token<TAB>tag` lines with IOB2 tags, then an empty line."""
    sentence, _ = compose(rng)
    tags = ["O"] * len(sentence.words)
    for start, end, entity_type in sentence.entities:
        tags[start:end] = [f"B-{entity_type}"] + [f"I-{entity_type}"] * (end - start - 1)
    lines = [f"{word}\t{tag}\n" for word, tag in zip(sentence.words, tags, strict=True)]
    return "".join(lines) + "\n"


def srl_row(rng: RowRandom, row_id: str) -> str:
    """Generate a sentence as CoNLL-2012 lines, then an empty line.

    Each predicate has one column of brackets.
    """
    sentence, _ = compose(rng)
    columns = [bracket_column(frame, len(sentence.words)) for frame in sentence.frames]
    rolesets = {frame.verb: frame.roleset for frame in sentence.frames}
    document, _, number = row_id.rpartition("/")
    lines = []
    for position, word in enumerate(sentence.words):
        roleset = rolesets.get(position, "-")
        lemma = roleset.split(".")[0]
        cells = [document, number, str(position), word, "-", "-", lemma, roleset]
        lines.append("\t".join([*cells, *[column[position] for column in columns]]))
    return "\n".join(lines) + "\n\n"


def bracket_column(frame: Frame, length: int) -> list[str]:
    """Return a predicate's column: `(ARG0*`, `*`, `*)`."""
    column = ["*"] * length
    for role, start, end in [*frame.args, ("V", frame.verb, frame.verb + 1)]:
        column[start] = f"({role}*"
        column[end - 1] += ")"
    return column


def qa_row(rng: RowRandom, row_id: str) -> str:
    """Generate a question as one line of JSON; unanswerable questions have no answers."""
    question = compose_question(rng)
    answers = [{"text": question.answer, "answer_start": question.start}]
    value = {
        "id": row_id,
        "context": question.context,
        "question": question.question,
        "answers": answers if question.start >= 0 else [],
    }
    return json.dumps(value, ensure_ascii=False) + "\n"


ROW_GENERATORS: dict[Kind, Callable[[RowRandom, str], str]] = {
    "ner": ner_row,
    "qa": qa_row,
    "srl": srl_row,
}


def make_row(kind: Kind, split: str, number: int, seed: int) -> str:
    """Generate row `number` of a split; the row depends on these four arguments only.

    A validation or test row has at least one name, verb or construction that never occurs in
    training, so no such row equals a training row.
    """
    held_out_rate = 0.0 if split == "train" else HELD_OUT_RATE
    for attempt in range(MAX_ATTEMPTS):
        key = row_seed(seed, KINDS.index(kind), SPLITS.index(split), number, attempt)
        rng = RowRandom(key, held_out_rate)
        text = ROW_GENERATORS[kind](rng, f"{split}/{number}")
        if rng.used_held_out or not held_out_rate:
            return text
    raise AssertionError(f"no held-out word in {MAX_ATTEMPTS} attempts at {kind} {split} {number}")


def iterate_rows(kind: Kind, split: str, rows: int, seed: int) -> Iterator[str]:
    """Generate the rows of a split one at a time."""
    return (make_row(kind, split, number, seed) for number in range(rows))


def split_sizes(rows: int) -> dict[str, int]:
    """Return the number of rows of each split for this many training rows."""
    evaluation_rows = min(2000, max(200, rows // 10))
    return {"train": rows, "validation": evaluation_rows, "test": evaluation_rows}


def write_corpus(kind: Kind, folder: Path, rows: int, seed: int) -> dict[str, int]:
    """Write the `train`, `validation` and `test` files of a corpus into `folder`.

    A file appears under its name only when it is complete. `rows` is the number of training rows;
    each other split has a tenth of it, limited to the range 200 to 2,000. The same arguments
    always write the same bytes, and a larger corpus starts with the rows of a smaller one.

    Returns the number of rows of each split. Raises UserError if `kind` or `rows` is invalid.
    """
    problems = []
    if kind not in ROW_GENERATORS:
        problems.append(f"kind: {kind!r} is not a generated corpus; use one of {', '.join(KINDS)}")
    if rows < 1:
        problems.append(f"rows: {rows} is too few; use 1 or more")
    if problems:
        raise UserError(*problems)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = split_sizes(rows)
    extension = "jsonl" if kind == "qa" else "conll"
    for split, size in sizes.items():
        write_rows(folder / f"{split}.{extension}", iterate_rows(kind, split, size, seed))
    return sizes


def write_rows(path: Path, rows: Iterator[str]) -> None:
    """Write the rows to `path`, which appears when it is complete."""
    with atomic_stream(path) as file:
        while block := "".join(islice(rows, ROWS_PER_BLOCK)):
            file.write(block)
