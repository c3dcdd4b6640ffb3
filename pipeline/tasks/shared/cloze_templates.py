"""Templates of relations, such as "[X] was born in [Y] .", and their parts for a decoder."""

from functools import lru_cache
from typing import NamedTuple

SUBJECT, OBJECT = "[X]", "[Y]"


def is_template(text: str) -> bool:
    """Whether a text has the places of the subject and of the object."""
    return SUBJECT in text and OBJECT in text


def template_problem(template: str) -> str | None:
    """Why a decoder cannot be asked with a template; None if it can."""
    if template.count(SUBJECT) != 1 or template.count(OBJECT) != 1:
        return f"it needs {SUBJECT} and {OBJECT} once each"
    before = template.partition(OBJECT)[0]
    if SUBJECT not in before:
        return f"{SUBJECT} must precede {OBJECT}, because the model reads from left to right"
    if before[-1].isalnum() or before.endswith(SUBJECT):
        return f"a space or punctuation must precede {OBJECT}"
    return None


class Cloze(NamedTuple):
    """A template in parts: the text before the object, the space, and the text after it.

    The space belongs to the object, because the first token of a word includes the space before it.
    """

    before: str
    space: str
    after: str

    def text(self, subject: str) -> str:
        """The text before the object."""
        return self.before.replace(SUBJECT, subject)

    @property
    def form(self) -> tuple[str, str, str]:
        """The context that decides the tokens of objects: the character before, space, and rest."""
        last = "x" if self.before.endswith(SUBJECT) else self.before[-1]
        return last, self.space, self.after


@lru_cache(maxsize=1024)
def split_template(template: str) -> Cloze:
    """The parts of a template."""
    before, _, after = template.partition(OBJECT)
    text = before.rstrip()
    return Cloze(text, before[len(text) :], after.rstrip())
