"""Slot errors of texts that are generated from meaning representations in the notation of E2E.

A meaning representation is `name[Blue Spice], eatType[pub], familyFriendly[no]`. A slot is missing
if the text has no value of it, wrong if it has only other values, and added if the representation
does not have the slot. `name` and `near` are compared verbatim. The other slots are found by the
patterns below, which are ours: figures of other scripts differ somewhat. A repeated value is not
an error.
"""

import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\s*([A-Za-z][\w ]*)\[([^\[\]]*)\]\s*(?:,|$)")
_VERBATIM = ("name", "near")
_CHILD = r"(?:kids?|child(?:ren)?s?|famil(?:y|ies))"
_PRICE, _RATING = r"(?:pric\w*|cost\w*)", r"(?:rat(?:ed|ings?)|reviews?|quality|stars?)"


def _near(word: str, noun: str) -> str:
    """A pattern for two words at most three words apart, in any order."""
    return rf"(?:{word})(?:[ -]+\w+){{0,3}}[ -]+{noun}|{noun}(?:[ -]+\w+){{0,3}}[ -]+(?:{word})"


def _out_of_5(digit: str, word: str) -> str:
    return rf"(?:{digit}|{word})(?:[ -]*stars?| out of (?:5|five)| of (?:5|five)|/5)"


_LOW, _AVERAGE, _HIGH = (
    _near(words, _RATING)
    for words in ("low|poor\\w*|bad\\w*", "average|mediocre", "high\\w*|excellent|well")
)
_UNFRIENDLY = (
    rf"(?:\bnot?\b|n't|\bnon\b)(?:[ -]+\w+){{0,4}}[ -]+{_CHILD}|{_CHILD}[ -]+unfriendly"
    rf"|adults?[ -]only|{_CHILD}(?: \w+){{0,2}} (?:not|n't) "
)
_CHEAP, _COSTLY = (
    rf"\bcheap|inexpensive|{_near('low', _PRICE)}",
    rf"(?<!in)expensive|{_near('high', _PRICE)}",
)
_MODERATE = _near("moderate\\w*|average|reasonabl[ey]|mid\\w*", _PRICE)
_PATTERNS: Mapping[str, Mapping[str, str]] = {
    "area": {
        "city centre": r"\b(?:city|town)(?:'s)? cent|\bcent(?:re|er) of|in the cent(?:re|er)",
        "riverside": r"\briver",
    },
    "eatType": {
        "coffee shop": r"\bcoffee|\bcaf[eé]\b",
        "pub": r"\bpub\b",
        "restaurant": r"\brestaurant",
    },
    "food": {
        "Chinese": r"\bchinese",
        "English": r"\benglish|\bbritish",
        "Fast food": r"\bfast[ -]food",
        "French": r"\bfrench",
        "Indian": r"\bindian",
        "Italian": r"\bitalian",
        "Japanese": r"\bjapanese|\bsushi",
    },
    "familyFriendly": {"no": _UNFRIENDLY, "yes": _CHILD},
    "priceRange": {
        "cheap": _CHEAP,
        "less than £20": rf"(?:less than|under|below) £? ?20|{_CHEAP}",
        "£20-25": rf"20 ?(?:-|–|to|and) ?£? ?25|{_MODERATE}",
        "moderate": _MODERATE,
        "more than £30": rf"(?:more than|over|above) £? ?30|{_COSTLY}",
        "high": _COSTLY,
    },
    "customer rating": {
        "low": rf"{_LOW}|{_out_of_5('1', 'one')}",
        "1 out of 5": rf"{_LOW}|{_out_of_5('1', 'one')}",
        "average": rf"{_AVERAGE}|{_out_of_5('3', 'three')}",
        "3 out of 5": rf"{_AVERAGE}|{_out_of_5('3', 'three')}",
        "high": rf"{_HIGH}|{_out_of_5('5', 'five')}",
        "5 out of 5": rf"{_HIGH}|{_out_of_5('5', 'five')}",
    },
}
_COMPILED = {
    slot: {value: re.compile(pattern, re.IGNORECASE) for value, pattern in values.items()}
    for slot, values in _PATTERNS.items()
}


def parse_slots(source: str) -> dict[str, str] | None:
    """The value of each slot of a meaning representation; None if the text is none."""
    slots, position = dict[str, str](), 0
    while position < len(source):
        match = _SLOT.match(source, position)
        if match is None:
            return None
        slots[match[1]] = match[2].strip()
        position = match.end()
    return slots or None


def slot_errors(sources: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """The slot error rate in percent, and the counts behind it.

    Empty unless all sources are meaning representations.
    """
    by_text = errors_by_text(sources, texts)
    if not by_text:
        return {}
    counts = {name: sum(errors[name] for errors in by_text) for name in by_text[0]}
    slots = counts.pop("slots")
    return {"slot_error_rate": 100 * sum(counts.values()) / slots, **counts, "slots": slots}


def errors_by_text(sources: Sequence[str], texts: Sequence[str]) -> list[dict[str, int]]:
    """The counts of slots and of their errors for each text.

    Empty unless all sources are meaning representations.
    """
    representations = [parse_slots(source) for source in sources]
    if None in representations:
        return []
    return [
        _errors(slots, text) | {"slots": len(slots)}
        for slots, text in zip(representations, texts, strict=True)
        if slots is not None
    ]


def _errors(slots: Mapping[str, str], text: str) -> dict[str, int]:
    missing = wrong = added = 0
    text = _normalize(text)
    for name in (_normalize(slots[slot]) for slot in _VERBATIM if slot in slots):
        missing += name not in text
        text = text.replace(name, " ")  # "Café Brazil" is no coffee shop
    for slot, patterns in _COMPILED.items():
        values = _values(slot, text)
        if slot not in slots:
            added += bool(values)
        elif (value := _known_value(slots[slot], patterns)) is not None and value not in values:
            missing, wrong = missing + (not values), wrong + bool(values)
    return {"slots_missing": missing, "slots_wrong": wrong, "slots_added": added}


def _values(slot: str, text: str) -> list[str]:
    """The values of a slot in a text."""
    values = [value for value, pattern in _COMPILED[slot].items() if pattern.search(text)]
    return ["no"] if slot == "familyFriendly" and "no" in values else values


def _known_value(value: str, patterns: Mapping[str, object]) -> str | None:
    """The value as the patterns name it; None if they do not know it."""
    return next((name for name in patterns if _normalize(name) == _normalize(value)), None)


def _normalize(text: str) -> str:
    """A text in lower case, without space after a pound sign and around dashes."""
    return re.sub(r"£ +", "£", re.sub(r" ?- ?", "-", " ".join(text.lower().split())))
