"""Tag schemes, which encode spans as one tag per token, and their conversion to IOB2.

- IOB2 begins each span with B-.
- IOB1 begins a span with B- only if the span touches a span of the same type before it.
- BIOES (BILOU with other letters) also marks the last token of a span (E, L) and spans of one token
  (S, U).
- Brackets have (TYPE* at the first token of a span, *) at the last token, (TYPE*) or (TYPE) for a
  span of one token, and * elsewhere, as in CoNLL-2005 and CoNLL-2012.
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
_EDGE = ""  # stands before the first tag of a sentence and after the last
_match_bracket = re.compile(r"(?=.*\*|\(.+\))(?:\(([^()*\s]+))?\*?(\))?").fullmatch


class TagError(NamedTuple):
    """A violation of the scheme: the token's position, the message, and the kind of problem."""

    position: int
    message: str
    kind: str


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], list[TagError]]:
    """The tags in IOB2, and all violations of the scheme.

    Invalid tags become O or the start of a span; do not use a row with violations.
    """
    if scheme == "brackets":
        return _from_brackets(tags)
    result: list[str] = []
    errors: list[TagError] = []
    open_type: str | None = None  # the type of the span that the next tag may continue
    for position, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if tag != "O" and not (label and prefix in _PREFIXES[scheme]):
            errors.append(TagError(position, _ill_formed_message(tag, scheme), "ill-formed-tag"))
            prefix, label = "O", ""
        continues = prefix in _CONTINUES and open_type == label
        if prefix in _CONTINUES and not continues and scheme != "iob1":
            errors.append(TagError(position, _orphan_message(tag, scheme), "orphan-tag"))
        if open_type and not continues and scheme in ("bioes", "bilou"):
            message = _unclosed_message(open_type, scheme)
            errors.append(TagError(position - 1, message, "unclosed-span"))
        result.append("O" if prefix == "O" else f"{'I' if continues else 'B'}-{label}")
        open_type = label if prefix in _STAYS_OPEN else None
    if open_type and scheme in ("bioes", "bilou"):
        message = _unclosed_message(open_type, scheme)
        errors.append(TagError(len(tags) - 1, message, "unclosed-span"))
    return result, errors


def _from_brackets(cells: Sequence[str]) -> tuple[list[str], list[TagError]]:
    """Stops at the first error, because an invalid bracket makes the rest ambiguous."""
    tags: list[str] = []
    open_role: str | None = None
    open_position = 0
    for position, cell in enumerate(cells):
        match = _match_bracket(cell)
        if match is None:
            message = (
                f"brackets {cell!r} do not have the form (ROLE*), (ROLE*, *) or *; correct them"
            )
            return [], [TagError(position, message, "ill-formed-bracket")]
        role, closes = match.groups()
        if (role and open_role) or (closes and not role and not open_role):
            trouble = f"opens inside ({open_role}*" if role else "closes a span that is not open"
            message = (
                f"bracket {cell!r} {trouble}; the spans of a column cannot overlap: correct it"
            )
            return [], [TagError(position, message, "ill-formed-bracket")]
        if role:
            open_role, open_position = role, position
        tags.append(f"{'B' if role else 'I'}-{open_role}" if open_role else "O")
        open_role = None if closes else open_role
    if open_role:
        message = f"bracket '({open_role}*' is not closed in its sentence; add the '*)'"
        return [], [TagError(open_position, message, "unclosed-bracket")]
    return tags, []


class SchemeEvidence:
    """Detects the scheme of tags: the scheme with the fewest violations over all sentences.

    A violation is a pair of neighboring tags that the scheme does not allow. Tags with a span fit
    at most one scheme, because strict IOB1 has I- at the start of most spans and IOB2 has B-. Tags
    without any span are detected as IOB2, or as brackets if they are brackets; they mean the same
    in each scheme. IOB1 with some unnecessary B- is detected as IOB1 if fewer spans begin with an
    unnecessary B- than with I-. For all other schemes the reader reports the violations.
    """

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, tags: Sequence[str]) -> None:
        """Count the tag pairs of a sentence."""
        self._pairs.update(zip((_EDGE, *tags), (*tags, _EDGE), strict=True))

    def scheme(self) -> Scheme:
        """The scheme with the fewest violations; of several, the first in SCHEMES."""
        return min(SCHEMES, key=self._num_violations)

    def _num_violations(self, scheme: Scheme) -> int:
        return sum(count for pair, count in self._pairs.items() if _is_violation(scheme, *pair))


def _is_violation(scheme: Scheme, previous: str, tag: str) -> bool:
    """Whether `tag` must not follow `previous` in this scheme, or is an unnecessary B- in IOB1."""
    if scheme == "brackets":
        return tag != _EDGE and not _match_bracket(tag)
    previous_prefix, _, previous_label = previous.partition("-")
    prefix, _, label = tag.partition("-")
    if tag not in ("O", _EDGE) and not (label and prefix in _PREFIXES[scheme]):
        return True
    touches = previous_prefix in _STAYS_OPEN and previous_label == label
    if scheme == "iob1":
        return prefix == "B" and not touches
    orphan = prefix in _CONTINUES and not touches
    unclosed = (
        scheme in ("bioes", "bilou")
        and previous_prefix in _STAYS_OPEN
        and not (prefix in _CONTINUES and touches)
    )
    return orphan or unclosed


def _ill_formed_message(tag: str, scheme: Scheme) -> str:
    allowed = ", ".join(f"{prefix}-TYPE" for prefix in _PREFIXES[scheme])
    if tag.isdecimal():
        return (
            f"tag {tag!r} is a number, and {scheme.upper()} has O, {allowed}; give the tag of each "
            f'class number with names in the options of the reader records: {{"{tag}": B-TYPE}}; '
            "for other readers, write the tags into the file"
        )
    if re.fullmatch(r"\w{2,}", tag):
        return (
            f"tag {tag!r} has no prefix, and {scheme.upper()} has O, {allowed}; if it is a type, "
            f"write I-{tag} in place of it and set tag_scheme: iob1 (the reader records can do so "
            f"with names: {{{tag}: I-{tag}}} in its options; adjacent tokens of a type become one "
            "span); if not, correct the recipe's columns"
        )
    prefix = tag.partition("-")[0]
    others = [name for name, prefixes in _PREFIXES.items() if prefix in prefixes]
    remedy = (
        f"set tag_scheme: {others[0]}, or correct the tag or the recipe's columns"
        if others
        else "correct the tag, or the recipe's tag_scheme or columns"
    )
    return f"tag {tag!r} is not valid in {scheme.upper()}, which has O, {allowed}; {remedy}"


def _orphan_message(tag: str, scheme: Scheme) -> str:
    return (
        f"tag {tag!r} continues a span that has not begun, which {scheme.upper()} does not allow; "
        f"begin it with B-{tag[2:]}, or set tag_scheme: iob1 if the file is IOB1"
    )


def _unclosed_message(label: str, scheme: Scheme) -> str:
    last = f"{_PREFIXES[scheme][2]}-{label}"
    return (
        f"the span of type {label!r} does not end with {last}, as {scheme.upper()} requires; "
        "correct the tag or the tag_scheme"
    )
