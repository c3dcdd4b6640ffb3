"""Rows to predict: which task a row asks, and its checked example."""

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.artifacts.config import TaskHead
from pipeline.errors import Problems, UserError, describe, did_you_mean
from pipeline.inference.arguments import plain
from pipeline.inference.sentences import Sentence, predicate_index, split_sentence
from pipeline.tasks.base.capabilities import MarksPredicate, TagsWords
from pipeline.tasks.base.row import Row
from pipeline.tasks.base.task import Task, is_text_list
from pipeline.tasks.shared.validation import check_text

PREDICATE_KEY = "predicate"
_KEYS_OF_ALL_ROWS = {"task", "id", "where", "text"}
MAX_KEY_LENGTH = 40  # longer keys resemble no key of a row


class Query(NamedTuple):
    """A valid row at `where`. `task` is the index of its task.

    `sentence` is the text of a row with `text` in place of tokens. If the row names no predicate,
    `finder` is the index of the task that finds it, and `example` an example of that task.
    """

    id: str | int
    where: str
    task: int
    example: Any
    sentence: Sentence | None = None
    finder: int | None = None


class QueryReader:
    """Checks rows for the tasks of a predictor. `kinds` are the kinds of task of `heads`.

    `default_task` is the task of rows that name none; None if they must.
    """

    def __init__(self, heads: Mapping[str, TaskHead], kinds: Sequence[Task[Any, Any, Any]]) -> None:
        self._heads, self._kinds, self._names = list(heads.values()), kinds, list(heads)
        self._finders = [self._find_finders(task) for task in range(len(kinds))]
        found_by = {finder for finders in self._finders for finder in finders}
        tasks = [task for task in range(len(kinds)) if task not in found_by] or range(len(kinds))
        self.default_task = self._names[tasks[0]] if len(tasks) == 1 else None

    def _find_finders(self, task: int) -> list[int]:
        """The tasks that find predicates for a task; only the one named TASK_predicates, if any."""
        kind = self._kinds[task]
        if not isinstance(kind, MarksPredicate):
            return []
        finders = [
            number
            for number, (head, other) in enumerate(zip(self._heads, self._kinds, strict=True))
            if head.classes == kind.finder_classes
            and isinstance(other, TagsWords)
            and not isinstance(other, MarksPredicate)
        ]
        named = [n for n in finders if self._names[n] == f"{self._names[task]}_predicates"]
        return named or finders

    def read(self, number: int, row: Any) -> Query:
        """Check the row with this number. Raises UserError with all problems of the row."""
        if isinstance(row, UserError):
            raise row
        if not isinstance(row, Mapping):
            raise UserError(
                f"rows[{number}]: found {describe(row)}, expected a mapping of keys to values"
            )
        row = plain(row)
        where = row.get("where", f"rows[{number}]")
        id_ = number if row.get("id") is None else row["id"]
        task = self._task(row, where)
        row, sentence = self._with_tokens(task, {**row, "where": where})
        finder = self._finder(task, row)
        problems = [
            *_id_problems(id_, where),
            *self._missing(task, row, finder),
            *self._misspelled(task, row),
            *self._unlike_training(task, row),
        ]
        if problems:
            raise UserError(*problems)
        first_task = task if finder is None else finder
        example = self._example(first_task, {**row, "id": str(id_)}, sentence)
        self._check_classes(first_task, example, where)
        if not _is_text([id_, *(row[key] for key in self._kinds[first_task].query_keys)]):
            raise UserError(
                f"{where}: contains half a surrogate pair, which is not a character; correct the "
                "program that wrote the row"
            )
        return Query(id_, where, task, example, sentence, finder)

    def check_columns(self, columns: Row) -> None:
        """Check the columns of a table of rows, which are a row with empty values.

        Raises UserError if the columns are not the keys of a row. Rows that name their tasks
        have no common keys, so their columns are not checked.
        """
        if columns.get("task") == "":
            return
        task = self._task(columns, columns["where"])
        if "text" in columns and isinstance(self._kinds[task], TagsWords):
            columns = {**columns, "tokens": ""}
        finder = self._finder(task, columns)
        problems = self._missing(task, columns, finder) + self._misspelled(task, columns)
        if problems:
            raise UserError(*problems)

    def needs_predicate(self, name: str) -> bool:
        """Whether rows of the task must name a predicate, because no one other task finds it."""
        task = self._names.index(name)
        return isinstance(self._kinds[task], MarksPredicate) and len(self._finders[task]) != 1

    def _task(self, row: Mapping[str, Any], where: str) -> int:
        name = self.default_task if row.get("task") is None else row["task"]
        if name is None:
            raise UserError(f"{where}: key 'task' is missing; give one of {', '.join(self._names)}")
        if name not in self._names:
            raise UserError(
                f"{where}: task: no task {str(name)[:40]!r}{did_you_mean(str(name), self._names)}"
            )
        return self._names.index(name)

    def _with_tokens(self, task: int, row: Row) -> tuple[Row, Sentence | None]:
        """The row with tokens made of its text, if it has text; and the sentence."""
        text = row.get("text")
        if not isinstance(self._kinds[task], TagsWords):
            return row, None
        if text is None:
            _check_no_empty_token(row)
            return row, None
        if row.get("tokens") is not None:
            raise UserError(
                f"{row['where']}: has text and tokens, which may differ; leave out one of them"
            )
        problems = Problems()
        check_text("text", text, row["where"], problems)
        problems.raise_if_any()
        sentence = split_sentence(text, self._heads[task].word_rule)
        return row | {"tokens": [word.text for word in sentence.words]}, sentence

    def _finder(self, task: int, row: Row) -> int | None:
        """The task that finds the predicate of a row without; None if the row needs none."""
        if not isinstance(self._kinds[task], MarksPredicate) or row.get(PREDICATE_KEY) is not None:
            return None
        finders = self._finders[task]
        if len(finders) > 1:
            names = ", ".join(self._names[finder] for finder in finders)
            raise UserError(
                f"{row['where']}: 'predicate' is missing, and several tasks find predicates "
                f"({names}); give the predicate, load only one of them, or rename one to "
                f"{self._names[task]}_predicates by load({{NAME: FOLDER, ...}})"
            )
        return finders[0] if finders else None

    def _missing(self, task: int, row: Row, finder: int | None) -> list[str]:
        kind = self._kinds[task]
        keys = [key for key in kind.query_keys if finder is None or key != PREDICATE_KEY]
        missing = [key for key in keys if key not in row]
        if not missing:
            return []
        needed = ["tokens (or text)" if key == "tokens" else key for key in keys]
        message = (
            f"{row['where']}: {' and '.join(map(repr, missing))} missing; rows of task "
            f"{self._names[task]!r} need {', '.join(needed)}"
        )
        wanted = (*missing, *(["text"] if "tokens" in missing else []))
        message += "".join(
            f"; did you mean {similar!r} by {str(key)!r}?"
            for key in row
            if key not in kind.row_keys.inputs
            and key not in _KEYS_OF_ALL_ROWS
            and (similar := _similar_key(str(key), wanted, cutoff=0.6))
        )
        if PREDICATE_KEY in missing and isinstance(kind, MarksPredicate):
            message += (
                ". To find predicates, load also an artifact of a task with the classes "
                f"{', '.join(kind.finder_classes)}"
            )
        return [message]

    def _misspelled(self, task: int, row: Row) -> list[str]:
        """The problems of keys that resemble an absent optional key; others are ignored."""
        keys = self._kinds[task].row_keys
        absent = tuple(key for key in keys.optional if key not in row)
        return [
            f"{row['where']}: key {key!r} is unknown; did you mean {similar!r}? Else rename it"
            for key in row
            if key not in keys.inputs and (similar := _similar_key(str(key), absent))
        ]

    def _unlike_training(self, task: int, row: Row) -> list[str]:
        """The problems of optional input that all training rows had, or none of them."""
        name, problems = self._names[task], []
        for key, rows in self._heads[task].optional_inputs.items():
            if rows == "all" and not row.get(key):
                problems.append(
                    f"{row['where']}: {key!r} is missing; all training rows of {name!r} have it"
                )
            elif rows == "none" and row.get(key):
                problems.append(
                    f"{row['where']}: has {key!r}, but no training row of {name!r} has it; leave "
                    "it out"
                )
        return problems

    def _example(self, task: int, row: Row, sentence: Sentence | None) -> Any:
        problems = Problems()
        if sentence and isinstance(self._kinds[task], MarksPredicate):
            row |= {PREDICATE_KEY: predicate_index(row[PREDICATE_KEY], sentence, row["where"])}
        example = self._kinds[task].example_for_prediction(row, problems)
        problems.raise_if_any()
        return example

    def _check_classes(self, task: int, example: Any, where: str) -> None:
        problems = Problems()
        self._kinds[task].check_query(example, self._heads[task].classes, where, problems)
        problems.raise_if_any()

    def with_predicate(self, query: Query, predicate: int) -> Any:
        """The example of a query's task for a predicate that its finder found."""
        row = {
            "id": str(query.id),
            "tokens": query.example.tokens,
            "where": "",
            PREDICATE_KEY: predicate,
        }
        return self._example(query.task, row, None)


@lru_cache(maxsize=1024)  # the rows of a corpus have the same keys
def _similar_key(key: str, known: tuple[str, ...], cutoff: float = 0.85) -> str:
    """The known key that a key resembles; empty if there is none."""
    if len(key) > MAX_KEY_LENGTH:
        return ""
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=cutoff)), "")


def _id_problems(id_: Any, where: str) -> list[str]:
    if isinstance(id_, str | int) and not isinstance(id_, bool):
        return []
    return [f"{where}: id is {str(id_)[:40]!r}; give text or an integer, or leave it out"]


def _is_text(value: Any) -> bool:
    r"""Whether UTF-8 can encode all text in a value; it cannot encode "\ud800" from JSON."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(_is_text(inner) for pair in value.items() for inner in pair)
    return not isinstance(value, Sequence) or all(map(_is_text, value))


def _check_no_empty_token(row: Row) -> None:
    tokens: Any = row.get("tokens")
    if is_text_list(tokens) and "" in tokens:
        raise UserError(
            f"{row['where']}: token {tokens.index('')} of {len(tokens)} is empty; remove it, or "
            "fill it in"
        )
