"""The one exception a user may cause."""

import difflib
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

EXAMPLES = 3  # of each kind of problem that are kept, however many there are
WARNINGS = frozenset({"class-imbalance", "control-character-in-text", "invisible-token", "long-text", "not-nfc",
                      "train-text-held-out"})
"""Kinds that are shown and counted, but never fail: the rows are sound, and may yet not be what one thinks."""


class Stopped(Exception):  # noqa: N818  (it is no error)
    """A run was asked to stop, and did, with a checkpoint: it goes on from there when it is started again."""


class UserError(Exception):
    """A mistake in what the user gave. Each problem names the file and line or key, the value found, and the remedy.

    Stages print it without a traceback and exit with 1; anything else that escapes is a bug of ours.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known word, else the list of the known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known) or 'none'}"


class Problem(NamedTuple):
    """One thing that is wrong with some input: its kind, where ("file:line" or the nearest thing to it), what and the remedy."""

    kind: str
    where: str
    message: str


class Problems:
    """What is wrong with some input, gathered so that one run reports all of it instead of one mistake at a time.

    Only the first `shown`, and a few of each kind, are kept, since a wrong separator makes one for every line of a corpus;
    `counts` has all, by kind. Those of a kind in `WARNINGS` are kept and counted too, but are in no error and not in the length.
    """

    def __init__(self, shown: int = 20) -> None:
        self._shown = shown
        self.kept: list[Problem] = []
        self.counts: Counter[str] = Counter()

    def add(self, where: str, message: str, kind: str = "malformed") -> None:
        """`where` is "file:line" or the nearest thing to it; `message` names the value found and the remedy."""
        self.counts[kind] += 1
        if len(self.kept) < self._shown or sum(problem.kind == kind for problem in self.kept) < EXAMPLES:
            self.kept.append(Problem(kind, where, message))

    def __len__(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind not in WARNINGS)

    def summary(self) -> list[str]:
        """A line a kind: how many there are, errors before warnings and most first; below it the first few of them."""
        lines = []
        for kind, count in sorted(self.counts.items(), key=lambda item: (item[0] in WARNINGS, -item[1], item[0])):
            examples = [f"{problem.where}: {problem.message}" for problem in self.kept if problem.kind == kind][:EXAMPLES]
            lines += [f"{kind}: {count}{' (warning)' * (kind in WARNINGS)}", *(f"  {example}" for example in examples)]
        return lines

    def raise_if_any(self) -> None:
        """Raise one UserError with all messages kept, and how many more there were."""
        messages = [f"{problem.where}: {problem.message}" for problem in self.kept if problem.kind not in WARNINGS]
        more = len(self) - len(messages)
        if messages:
            raise UserError(*messages, *([f"and {more} more"] if more else []))
