"""The one exception a user may cause."""

import difflib
from collections.abc import Iterable


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


class Problems:
    """What is wrong with some input, gathered so that one run reports all of it instead of one mistake at a time.

    Only the first `shown` messages are kept: a wrong separator makes one for every line of a corpus.
    """

    def __init__(self, shown: int = 20) -> None:
        self._shown = shown
        self._messages: list[str] = []
        self._count = 0

    def add(self, where: str, message: str) -> None:
        """`where` is "file:line" or the nearest thing to it; `message` names the value found and the remedy."""
        self._count += 1
        if len(self._messages) < self._shown:
            self._messages.append(f"{where}: {message}")

    def __len__(self) -> int:
        return self._count

    def raise_if_any(self) -> None:
        """Raise one UserError with all messages kept, and how many more there were."""
        more = self._count - len(self._messages)
        if self._count:
            raise UserError(*self._messages, *([f"and {more} more"] if more else []))
