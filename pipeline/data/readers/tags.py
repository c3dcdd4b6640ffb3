"""Schemes that write spans as one tag per token, and their conversion to IOB2.

IOB2 begins every span with B-; IOB1 only a span that touches another of its type before it; BIOES (BILOU with other letters)
also marks the last token of a span (E, L) and spans of one token (S, U). Brackets write (TYPE* where a span begins, *) where it
ends, (TYPE*) or (TYPE) for one of a single token and * elsewhere, as CoNLL-2005 and CoNLL-2012 do.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

Scheme = Literal["iob2", "iob1", "bioes", "bilou", "brackets"]
SchemeOrAuto = Literal[Scheme, "auto"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

_PREFIXES: dict[str, tuple[str, ...]] = {
    "iob2": ("B", "I"),
    "iob1": ("B", "I"),
    "bioes": ("B", "I", "E", "S"),
    "bilou": ("B", "I", "L", "U"),
}
_CONTINUES = ("I", "E", "L")
_STAYS_OPEN = ("B", "I")
_EDGE = ""  # stands before the first tag of a sentence and behind the last
_bracket = re.compile(r"(?=.*\*|\(.+\))(?:\(([^()*\s]+))?\*?(\))?").fullmatch


class Wrong(NamedTuple):
    """What breaks the scheme: at which token, the message, and the kind of problem."""

    position: int
    message: str
    kind: str


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], list[Wrong]]:
    """The tags in IOB2, and what is wrong with them: nothing where the scheme was kept.

    Positions that are wrong come out as O or as the start of a span; their row is not to be used.
    """
    if scheme == "brackets":
        return _from_brackets(tags)
    result: list[str] = []
    wrong: list[Wrong] = []
    opened: str | None = None  # the type of the span that the next tag may continue
    for position, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if tag != "O" and not (label and prefix in _PREFIXES[scheme]):
            wrong.append(Wrong(position, _unknown(tag, scheme), "ill-formed-tag"))
            prefix, label = "O", ""
        continues = prefix in _CONTINUES and opened == label
        if prefix in _CONTINUES and not continues and scheme != "iob1":
            wrong.append(Wrong(position, _orphan(tag, scheme), "orphan-tag"))
        if opened and not continues and scheme in ("bioes", "bilou"):
            wrong.append(Wrong(position - 1, _unclosed(opened, scheme), "unclosed-span"))
        result.append("O" if prefix == "O" else f"{'I' if continues else 'B'}-{label}")
        opened = label if prefix in _STAYS_OPEN else None
    if opened and scheme in ("bioes", "bilou"):
        wrong.append(Wrong(len(tags) - 1, _unclosed(opened, scheme), "unclosed-span"))
    return result, wrong


def _from_brackets(cells: Sequence[str]) -> tuple[list[str], list[Wrong]]:
    """Stops at the first thing that is wrong: what follows a bad bracket cannot be judged."""
    tags: list[str] = []
    opened: str | None = None
    opened_at = 0
    for position, cell in enumerate(cells):
        match = _bracket(cell)
        if match is None:
            message = (
                f"brackets {cell!r} are not of the form (ROLE*), (ROLE*, *) or *; correct them"
            )
            return [], [Wrong(position, message, "ill-formed-bracket")]
        role, closes = match.groups()
        if (role and opened) or (closes and not role and not opened):
            trouble = f"opens inside ({opened}*" if role else "closes what was not opened"
            message = (
                f"bracket {cell!r} {trouble}; the spans of a column cannot overlap: correct it"
            )
            return [], [Wrong(position, message, "ill-formed-bracket")]
        if role:
            opened, opened_at = role, position
        tags.append(f"{'B' if role else 'I'}-{opened}" if opened else "O")
        opened = None if closes else opened
    if opened:
        message = f"bracket '({opened}*' is not closed by the end of its sentence; add the '*)'"
        return [], [Wrong(opened_at, message, "unclosed-bracket")]
    return tags, []


class SchemeEvidence:
    """Which scheme tags are in, by all sentences seen: the one that the fewest pairs of neighboring tags break.

    No two schemes fit the same tags, if these have a span: where IOB2 writes B-, strict IOB1 would write I-. Tags without any
    span are taken for IOB2, or brackets where there are any, and say the same in each scheme. IOB1 that also has needless B- is
    read as IOB1 if these are fewer than spans setup by I-; all other schemes report what breaks them when they are read.
    """

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()

    def see(self, tags: Sequence[str]) -> None:
        """Note a sentence's tags."""
        self._pairs.update(zip((_EDGE, *tags), (*tags, _EDGE), strict=True))

    def scheme(self) -> Scheme:
        """The scheme that fits best; of equal ones the first in SCHEMES."""
        return min(
            SCHEMES,
            key=lambda scheme: sum(
                count for pair, count in self._pairs.items() if _breaks(scheme, *pair)
            ),
        )


def _breaks(scheme: Scheme, before: str, tag: str) -> bool:
    """Whether `tag` may not follow `before` in this scheme; in IOB1 also, whether its B- is needless."""
    if scheme == "brackets":
        return tag != _EDGE and not _bracket(tag)
    (last, _, opened), (prefix, _, label) = before.partition("-"), tag.partition("-")
    if tag not in ("O", _EDGE) and not (label and prefix in _PREFIXES[scheme]):
        return True
    touches = last in _STAYS_OPEN and opened == label
    if scheme == "iob1":
        return prefix == "B" and not touches
    orphan = prefix in _CONTINUES and not touches
    unclosed = (
        scheme in ("bioes", "bilou")
        and last in _STAYS_OPEN
        and not (prefix in _CONTINUES and touches)
    )
    return orphan or unclosed


def _unknown(tag: str, scheme: Scheme) -> str:
    allowed = ", ".join(f"{prefix}-TYPE" for prefix in _PREFIXES[scheme])
    return f"tag {tag!r} is not {scheme.upper()}, which has O, {allowed}; correct the tag, or the recipe's tag_scheme or columns"


def _orphan(tag: str, scheme: Scheme) -> str:
    return (
        f"tag {tag!r} continues a span that was not setup, which {scheme.upper()} does not allow; "
        f"begin it with B-{tag[2:]}, or set tag_scheme: iob1 if the file is IOB1"
    )


def _unclosed(label: str, scheme: Scheme) -> str:
    last = f"{_PREFIXES[scheme][2]}-{label}"
    return f"the span of type {label!r} is not ended by {last}, as {scheme.upper()} does; correct the tag or the tag_scheme"
