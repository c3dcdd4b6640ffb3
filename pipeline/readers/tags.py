"""Schemes that write spans as one tag per token, and their conversion to IOB2.

IOB2 begins every span with B-; IOB1 only a span that touches another of its type before it; BIOES (BILOU with other letters)
also marks the last token of a span (E, L) and spans of one token (S, U).
"""

from collections.abc import Sequence
from typing import Literal

Scheme = Literal["iob1", "iob2", "bioes", "bilou"]

_PREFIXES: dict[Scheme, str] = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "bilou": "BILU"}
_BEGINS = "BSU"
_STAYS_OPEN = "BI"


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], list[tuple[int, str]]]:
    """The tags in IOB2, and what is wrong with them: (position, message) pairs, empty where the scheme was kept.

    Positions that are wrong come out as O or as the start of a span; their row is not to be used.
    """
    result: list[str] = []
    wrong: list[tuple[int, str]] = []
    opened: str | None = None  # the type of the span that the next tag may continue
    for position, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if tag != "O" and not (label and prefix in _PREFIXES[scheme]):
            wrong.append((position, _unknown(tag, scheme)))
            prefix, label = "O", ""
        continues = prefix not in f"O{_BEGINS}" and opened == label
        if not continues and prefix not in f"O{_BEGINS}" and scheme != "iob1":
            wrong.append((position, _orphan(tag, scheme)))
        if opened and not continues and scheme in ("bioes", "bilou"):
            wrong.append((position - 1, _unclosed(opened, scheme)))
        result.append("O" if prefix == "O" else f"{'I' if continues else 'B'}-{label}")
        opened = label if prefix in _STAYS_OPEN else None
    if opened and scheme in ("bioes", "bilou"):
        wrong.append((len(tags) - 1, _unclosed(opened, scheme)))
    return result, wrong


def _unknown(tag: str, scheme: Scheme) -> str:
    allowed = ", ".join(f"{prefix}-TYPE" for prefix in _PREFIXES[scheme])
    return f"tag {tag!r} is not {scheme.upper()}, which has O, {allowed}; correct the tag, or the recipe's tag_scheme or columns"


def _orphan(tag: str, scheme: Scheme) -> str:
    return (f"tag {tag!r} continues a span that was not begun, which {scheme.upper()} does not allow; "
            f"begin it with B-{tag[2:]}, or set tag_scheme: iob1 if the file is IOB1")


def _unclosed(label: str, scheme: Scheme) -> str:
    last = f"{_PREFIXES[scheme][2]}-{label}"
    return f"the span of type {label!r} is not ended by {last}, as {scheme.upper()} does; correct the tag or the tag_scheme"
