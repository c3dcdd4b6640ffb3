"""Corrections of predictions: rows with their annotation, in the format of the reader `records`."""

import errno
import json
import os
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deep_prompt.serve.describe import labels_of
from pipeline.artifacts.config import TaskHead
from pipeline.errors import Problems, UserError
from pipeline.inference.sentences import Sentence, predicate_index, split_sentence
from pipeline.metrics.roles import PREDICATE_ROLE
from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import MarksPredicate, TagsWords
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.validation import check_text

FILE = "corrections.jsonl"
MAX_BYTES = 100_000_000


def is_safe_name(name: str) -> bool:
    """Whether a name can be that of a folder inside another folder."""
    return re.fullmatch(r"[\w-][\w.-]{0,99}", name) is not None


class Corrections:
    """The files FOLDER/TASK/corrections.jsonl."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()

    def add(self, task: str, head: TaskHead, correction: Mapping[str, Any]) -> str:
        """Append a correction to the file of its task; returns its id.

        Raises UserError if it is not a valid annotated row, or if the file is full.
        """
        if not is_safe_name(task):  # it is from the config of an artifact
            raise UserError(f"correction: the task's name {task[:40]!r} is not that of a folder")
        id_ = uuid.uuid4().hex
        record = annotated_row(head, {**correction, "id": id_})
        path = self._folder / task / FILE
        with self._lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            _append(path, json.dumps(record, ensure_ascii=False))
        return id_


def _append(path: Path, line: str) -> None:
    """Append a line in one write, so that a killed server leaves no half of it in the middle."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(file).st_size
        if size > MAX_BYTES:
            raise UserError(f"{path.name} of the task has {size} bytes; move it to another folder")
        is_torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        data = f"{chr(10) if is_torn else ''}{line}\n".encode()
        if os.write(file, data) < len(data):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file)
    finally:
        os.close(file)


def annotated_row(head: TaskHead, correction: Mapping[str, Any]) -> Row:
    """The annotated row of a correction, without `where`.

    A correction has the keys of a row to predict, and the right annotation: `spans` of characters
    with labels for a task that tags words, the keys of the annotation for others. Raises UserError
    with what is wrong.
    """
    kind, problems = task_named(head.type), Problems()
    keys = kind.row_keys
    row: Row = {"where": "correction", **correction}
    if isinstance(kind, TagsWords):
        row |= _tagged(head, row)
    if missing := [key for key in keys.required if key not in row]:
        raise UserError(f"correction: {' and '.join(map(repr, missing))} missing; add the keys")
    wanted = ("id", *keys.required, *keys.optional)
    row = {key: row[key] for key in (*wanted, "where") if key in row}
    kind.example_for_prediction(row, problems)  # checks the types of the inputs
    problems.raise_if_any()
    # The labels of the recipe; a task of positions has none.
    kind.example(row, [] if head.kind == "positions" else labels_of(head), problems)
    problems.raise_if_any()
    return {key: row[key] for key in wanted if key in row}


def _tagged(head: TaskHead, row: Row) -> Row:
    """The tokens, tags and predicate of a correction with `text` and `spans`."""
    problems = Problems()
    check_text("text", row.get("text"), row["where"], problems)
    problems.raise_if_any()
    sentence = split_sentence(row["text"], head.word_rule)
    tags = ["O"] * len(sentence.words)
    more: Row = {}
    if isinstance(task_named(head.type), MarksPredicate):
        more["predicate"] = predicate_index(row.get("predicate"), sentence, row["where"])
        if type(more["predicate"]) is not int or not 0 <= more["predicate"] < len(tags):
            raise UserError("correction: predicate: give the start and end of a word of the text")
        tags[more["predicate"]] = f"B-{PREDICATE_ROLE}"
    for label, start, end in _word_spans(row.get("spans"), sentence):
        if any(tag != "O" for tag in tags[start:end]):
            raise UserError(f"correction: spans: {label!r} overlaps another span; remove one")
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return more | {"tokens": [word.text for word in sentence.words], "tags": tags}


def _word_spans(spans: Any, sentence: Sentence) -> Sequence[tuple[str, int, int]]:
    """The label and the words [start, end) of each span of characters."""
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        raise UserError(
            "correction: spans: expected a list of mappings with label, start and end, in "
            "characters of the text"
        )
    starts = {word.start: number for number, word in enumerate(sentence.words)}
    ends = {word.end: number + 1 for number, word in enumerate(sentence.words)}
    found = []
    for span in spans:
        label, start, end = (span.get(key) for key in ("label", "start", "end"))
        if type(start) is not int or type(end) is not int or not isinstance(label, str):
            raise UserError(f"correction: spans: found {str(span)[:60]}; give label, start and end")
        if start not in starts or end not in ends or start >= end:
            raise UserError(f"correction: spans: characters {start} to {end} are not whole words")
        found.append((label, starts[start], ends[end]))
    return found
