"""User errors, and the problems found in user input."""

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TextIO, get_args

Severity = Literal["error", "allowed", "warning"]
EXAMPLES_PER_KIND = 3  # problems of each kind to keep, even beyond the limit of a report
UNDECODABLE = "undecodable-bytes"  # the kind of problem that leaves UNDECODED in a row
UNDECODED = "\ufdd0"  # in place of bytes that are not UTF-8; unlike U+FFFD, no text has it

WARNINGS = frozenset(
    {
        "byte-order-mark",
        "class-imbalance",
        "comment-in-sentence",
        "comment-or-token",
        "control-character-in-text",
        "dropped-span",
        "expanded-span",
        "id-in-two-splits",
        "invisible-character",
        "invisible-token",
        "list-notation",
        "long-sentence",
        "long-text",
        "low-ceiling",
        "missing-id",
        "not-nfc",
        "partial-word",
        "placeholder-token",
        "repeated-choice",
        "repeated-token-id",
        "skipped-predicate",
        "skipped-tag",
        "split-span",
        "split-word",
        "train-text-held-out",
        "trimmed-span",
        "turns-without-target",
        "unknown-tokens",
        "unmatched-option",
        "unused-label",
        "word-metric",
    }
)
"""Kinds of problems that are counted and shown but raise no error: unusual but usable rows."""


class Stopped(Exception):  # noqa: N818  (not an error)
    """The run stopped on request and saved a checkpoint; the next start resumes from it."""


class Diverged(Exception):  # noqa: N818  (an outcome of training)
    """Training diverged at `step` (NaN, infinity or an exploding loss).

    `features` has, per micro-batch, the task and the indices of its features.
    """

    def __init__(self, step: int, reason: str, features: list[tuple[str, list[int]]]) -> None:
        super().__init__(f"step {step}: {reason}")
        self.features = features


class UserError(Exception):
    """A mistake in the user's input.

    Each problem names the file and line or key, the value, and the remedy. Stages print the
    problems without a traceback and exit with status 1. Any other exception is a bug.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known word, or else all known words."""
    known = sorted(known)
    match = closest(word, known)
    if match is not None:
        return f"; did you mean {match!r}?"
    return f"; use one of {', '.join(known)}" if known else "; there are none to choose from"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`; None if no word is similar."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), None)


def listed(names: Iterable[str], limit: int) -> str:
    """The first `limit` names for a message, and the number of the others."""
    names = list(names)
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def quantity(number: int, noun: str) -> str:
    """A number with its noun: `1 row`, `2 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


KIND_NAMES: dict[Any, str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
"""What messages call values of these types."""


def abbreviate(value: object, length: int = 80) -> str:
    """The repr of a value for a message, limited to `length` characters of its text."""
    text = str(value)
    return repr(text if len(text) <= length else f"{text[:length]}...")


def shorten(text: str, length: int) -> str:
    """A text of at most `length` characters, with "…" at its end if it was longer."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def describe(value: object, length: int = 40) -> str:
    """The kind and the beginning of a value for a message, such as `text 'Ada'` or `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    kind = KIND_NAMES.get(type(value), type(value).__name__)
    if isinstance(value, str):
        return f"{kind} {abbreviate(value, length)}"
    text = repr(value)
    return f"{kind} {text if len(text) <= length else text[:length] + '...'}"


class Problem(NamedTuple):
    """A problem in some input.

    `where` is "file:line" or the closest equivalent; `message` names the value and the remedy.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Problems:
    """Collects problems, so that one run reports all of them instead of the first only.

    Each problem is written to `sink` as a line of JSON. Memory holds only the first `max_shown`
    problems, and at least `EXAMPLES_PER_KIND` of each kind, because a wrong separator causes one
    problem per line of a corpus. `counts` counts all problems by kind, and `hiding` counts those
    that hide rows (see `add`). Warnings are kept and counted too, but they raise no error and do
    not count in `len`.

    `skipped` counts, by name, what a reader skips according to the recipe or the format, such as
    comment lines. `found` counts what a reader finds of the options of a recipe. `allowed` has the
    kinds of errors that the recipe accepts; they are counted as all others.
    """

    def __init__(
        self,
        max_shown: int = 20,
        sink: TextIO | None = None,
        allowed: Collection[str] = (),
    ) -> None:
        self._max_shown, self._sink, self._allowed = max_shown, sink, allowed
        self.kept: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.hiding = self._total = self._repeated = 0

    def add(self, where: str, message: str, kind: str, hides: bool = False) -> None:
        """Add a problem at `where` ("file:line" or the closest equivalent).

        `message` names the value and the remedy. `hides`: an unknown number of rows could not be
        read, for example in a truncated file. Such a problem cannot be fixed by dropping rows.
        """
        problem = Problem(kind, where, message)
        if self._sink is not None:
            self._sink.write(json.dumps(problem._asdict(), ensure_ascii=False) + "\n")
        self.hiding += hides and kind not in self._allowed
        self._keep(problem)
        self.counts[kind] += 1
        self._total += kind not in WARNINGS

    def merge(
        self,
        kept: Iterable[Iterable[str]],
        counts: Mapping[str, int],
        hiding: int,
        skipped: Mapping[str, int],
        found: Mapping[str, int],
    ) -> None:
        """Add the problems of another collection. They are not written to `sink`."""
        for problem in kept:
            self._keep(Problem(*problem))
        self.counts.update(counts)
        self._total += sum(count for kind, count in counts.items() if kind not in WARNINGS)
        self.hiding += hiding
        self.skipped.update(skipped)
        self.found.update(found)

    @contextmanager
    def in_one_row(self) -> Iterator[None]:
        """Count all errors that are added in the block as one rejected row."""
        before = len(self)
        yield
        self._repeated += max(0, len(self) - before - 1)

    @property
    def rejected(self) -> int:
        """The number of errors, with one for all errors of a row (see `in_one_row`)."""
        return len(self) - self._repeated

    def _keep(self, problem: Problem) -> None:
        num_same_kind = sum(other.kind == problem.kind for other in self.kept)
        if len(self.kept) < self._max_shown or num_same_kind < EXAMPLES_PER_KIND:
            self.kept.append(problem)

    def __len__(self) -> int:
        return self._total

    def summary(self) -> list[str]:
        """Return one line per kind with its count, each followed by its first few problems.

        Kinds that the recipe allows have the count only: their problems advise to allow them.
        """
        notes = {"error": "", "allowed": " (allowed by the recipe)", "warning": " (warning)"}
        lines = []
        for kind in self.kinds():
            severity = self.severity(kind)
            lines.append(f"{kind}: {self.counts[kind]}{notes[severity]}")
            if severity == "allowed":
                continue
            examples = [problem for problem in self.kept if problem.kind == kind]
            lines += [f"  {problem}" for problem in examples[:EXAMPLES_PER_KIND]]
        return lines

    def severity(self, kind: str) -> Severity:
        """Whether problems of a kind are errors, allowed by the recipe, or warnings."""
        if kind in WARNINGS:
            return "warning"
        return "allowed" if kind in self._allowed else "error"

    def kinds(self) -> list[str]:
        """The kinds: errors, allowed ones, warnings; of each, frequent kinds before rare ones."""
        order = get_args(Severity)
        return sorted(
            self.counts,
            key=lambda kind: (order.index(self.severity(kind)), -self.counts[kind], kind),
        )

    def skipped_text(self) -> str:
        """Return the counts of `skipped` by name; empty if nothing was skipped."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.skipped.items()) if count)

    def raise_if_any(self) -> None:
        """Raise one UserError with all kept messages and the number of the other problems."""
        messages = [str(problem) for problem in self.kept if problem.kind not in WARNINGS]
        num_more = len(self) - len(messages)
        if messages:
            raise UserError(*messages, *([f"and {num_more} more"] if num_more else []))
