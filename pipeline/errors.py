"""The one exception a user may cause."""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TextIO

EXAMPLES = 3  # of each kind of problem that are kept, however many there are
UNDECODABLE = "undecodable-bytes"  # the kind of problem that leaves U+FFFD in a row

WARNINGS = frozenset(
    {
        "class-imbalance",
        "control-character-in-text",
        "invisible-token",
        "long-text",
        "not-nfc",
        "train-text-held-out",
    }
)
"""Kinds that are shown and counted, but never fail: the rows are sound, and may yet not be what one thinks."""


class Stopped(Exception):  # noqa: N818  (it is no error)
    """A run was asked to stop, and did, with a checkpoint: it goes on from there when it is started again."""


class Diverged(Exception):  # noqa: N818  (it is what happened)
    """Training ran out of numbers at `step`: what was found, and the numbers of the features it happened on, by micro-batch."""

    def __init__(self, step: int, found: str, features: list[tuple[str, list[int]]]) -> None:
        super().__init__(f"step {step}: {found}")
        self.features = features


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

    Each is written to `sink` as a line of JSON. In memory are only the first `shown`, and a few of each kind, since a wrong
    separator makes one for every line of a corpus; `counts` has all, by kind. `hiding` counts those that hide rows: see `add`.
    Those of a kind in `WARNINGS` are kept and counted too, but are in no error and not in the length.
    """

    def __init__(self, shown: int = 20, sink: TextIO | None = None) -> None:
        self._shown, self._sink = shown, sink
        self.kept: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.hiding = self._total = 0

    def add(self, where: str, message: str, kind: str, hides: bool = False) -> None:
        """`where` is "file:line" or the nearest thing to it; `message` names the value found and the remedy.

        `hides` says that who knows how many rows could not be seen for it (a file that breaks off): no such is ever dropped.
        """
        problem = Problem(kind, where, message)
        if self._sink is not None:
            self._sink.write(json.dumps(problem._asdict(), ensure_ascii=False) + "\n")
        self.hiding += hides
        self._keep(problem)
        self.counts[kind] += 1
        self._total += kind not in WARNINGS

    def merge(self, kept: Iterable[Iterable[str]], counts: Mapping[str, int], hiding: int) -> None:
        """Add what another gathered, and wrote into a file of its own."""
        for problem in kept:
            self._keep(Problem(*problem))
        self.counts.update(counts)
        self._total += sum(count for kind, count in counts.items() if kind not in WARNINGS)
        self.hiding += hiding

    def _keep(self, problem: Problem) -> None:
        if (
            len(self.kept) < self._shown
            or sum(other.kind == problem.kind for other in self.kept) < EXAMPLES
        ):
            self.kept.append(problem)

    def __len__(self) -> int:
        return self._total

    def summary(self) -> list[str]:
        """A line a kind: how many there are, errors before warnings and most first; below it the first few of them."""
        lines = []
        for kind, count in sorted(
            self.counts.items(), key=lambda item: (item[0] in WARNINGS, -item[1], item[0])
        ):
            examples = [
                f"{problem.where}: {problem.message}"
                for problem in self.kept
                if problem.kind == kind
            ][:EXAMPLES]
            lines += [
                f"{kind}: {count}{' (warning)' * (kind in WARNINGS)}",
                *(f"  {example}" for example in examples),
            ]
        return lines

    def raise_if_any(self) -> None:
        """Raise one UserError with all messages kept, and how many more there were."""
        messages = [
            f"{problem.where}: {problem.message}"
            for problem in self.kept
            if problem.kind not in WARNINGS
        ]
        more = len(self) - len(messages)
        if messages:
            raise UserError(*messages, *([f"and {more} more"] if more else []))
