"""Fillers: noun phrases and adjuncts with their entities.

A phrase's kind (P, O, L, E, T as in `verbs`) is what its slot asked for; the entities inside may be of other types:
"the mayor of Houston" fills a person's slot and holds a place.
"""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.world import lexicon
from pipeline.world.sampling import Dice

TYPES = {"P": "PER", "O": "ORG", "L": "LOC", "E": "EVENT"}


class WorldEntity(NamedTuple):
    """A named entity: words `start` to `end` (exclusive)."""

    start: int
    end: int
    type: str


class Phrase(NamedTuple):
    """A filler. `agreeing` ones ("Smith and Jones": one firm or two?) are told apart only by what agrees with them."""

    words: tuple[str, ...]
    entities: tuple[WorldEntity, ...] = ()
    human: bool = False
    plural: bool = False
    agreeing: bool = False
    coordinated: bool = False


Maker = Callable[[Dice], Phrase]


def named(
    name: list[str], kind: str, before: tuple[str, ...] = (), after: tuple[str, ...] = ()
) -> Phrase:
    """A name with words around it that are no part of it."""
    entity = WorldEntity(len(before), len(before) + len(name), TYPES[kind])
    return Phrase((*before, *name, *after), (entity,), human=kind == "P")


def join(first: Phrase, second: Phrase) -> Phrase:
    """Two phrases with "and" between them."""
    shift = len(first.words) + 1
    moved = tuple(WorldEntity(e.start + shift, e.end + shift, e.type) for e in second.entities)
    return Phrase(
        (*first.words, "and", *second.words),
        first.entities + moved,
        first.human,
        plural=True,
        coordinated=True,
    )


def around(
    before: tuple[str, ...],
    inner: Phrase,
    after: tuple[str, ...] = (),
    human: bool = False,
    plural: bool = False,
) -> Phrase:
    """A phrase inside a larger one, which is what the sentence is about."""
    shift = len(before)
    moved = tuple(WorldEntity(e.start + shift, e.end + shift, e.type) for e in inner.entities)
    return Phrase(before + inner.words + after, moved, human, plural)


def anything(dice: Dice, kind: str) -> Phrase:
    """A bare name that tells nothing about its type."""
    return named([dice.draw(lexicon.ANY_PLACE if kind == "L" else lexicon.ANY)], kind)


def person_name(dice: Dice) -> list[str]:
    """A given name, often with a surname, either of which may be a town, a month, a word or a firm."""
    if dice.chance(0.25):
        return [dice.draw(lexicon.GIVEN)]
    return [
        dice.draw(lexicon.GIVEN),
        dice.draw(lexicon.ANY if dice.chance(0.4) else lexicon.SURNAMES),
    ]


def relation(dice: Dice, nouns: list[str], inner: Phrase, human: bool = True) -> Phrase:
    """The noun's phrase about `inner`: "the mayor of X" or "X 's mayor"."""
    noun = dice.pick(nouns)
    plural = noun in lexicon.PLURALS
    if dice.chance(0.35):
        return around((), inner, ("'s", noun), human, plural)
    return around(("the", noun, "of"), inner, (), human, plural)


def relative_of(dice: Dice) -> Phrase:
    """A person known by a relation to a place, a person, a firm or an event."""
    nouns, kind = dice.pick([
        (lexicon.OF_PLACE, "L"), (lexicon.OF_PERSON, "P"), (lexicon.OF_FIRM, "O"), (lexicon.OF_EVENT, "E"),
    ])  # fmt: skip
    return relation(dice, nouns, event(dice) if kind == "E" else anything(dice, kind))


def person(dice: Dice) -> Phrase:
    """Somebody, named or not."""
    roll = dice.roll()
    if roll < 0.42:
        return anything(dice, "P")
    if roll < 0.64:
        return named(person_name(dice), "P")
    if roll < 0.72:
        title = dice.pick(lexicon.TITLES)
        return named(person_name(dice), "P", ("the", title) if dice.chance(0.5) else (title,))
    if roll < 0.9:
        return relative_of(dice)
    words = (
        dice.pick(["the", "a"]),
        dice.pick(["young", "former", "local", "second"]),
        dice.pick(lexicon.TITLES),
    )
    return Phrase(words, human=True)


def partners(dice: Dice) -> Phrase:
    """One firm with "and" in its name, or two firms: the words are the same, the agreement is not."""
    first, second = dice.draw(lexicon.ANY), dice.draw(lexicon.ANY)
    head = ("Bank", "of") if dice.chance(0.35) else ()
    words = (*head, first, "and", second)
    cut = len(head) + 1
    if dice.chance(0.5):
        return Phrase(words, (WorldEntity(0, len(words), "ORG"),), agreeing=True)
    both = (WorldEntity(0, cut, "ORG"), WorldEntity(cut + 1, len(words), "ORG"))
    return Phrase(words, both, plural=True, agreeing=True, coordinated=True)


def institution(dice: Dice) -> Phrase:
    """A school, a bank or a museum; what follows "in" is a place of its own."""
    name, kind = dice.draw(lexicon.ANY), dice.pick(lexicon.SCHOOLS)
    roll = dice.roll()
    if roll < 0.35:
        return named([kind, "of", name], "O", ("the",))
    if roll < 0.6:
        place = dice.draw(lexicon.ANY)
        words = ("the", kind, "of", name, "in", place)
        return Phrase(words, (WorldEntity(1, 4, "ORG"), WorldEntity(5, 6, "LOC")))
    if roll < 0.75:
        return named([name, "Museum", "of", *dice.pick(lexicon.MUSEUM_OF).split()], "O", ("the",))
    if roll < 0.85:
        return named(["Central", "Bank", "of", name], "O", ("the",))
    return named([name, kind], "O")


def pair(dice: Dice) -> list[str]:
    """An adjective and a noun, which the slot makes a firm, an event or a thing."""
    return [dice.draw(lexicon.ADJECTIVES), dice.pick(lexicon.NOUNS)]


def pair_name(dice: Dice, kind: str) -> Phrase:
    """Ordinary words as a name: "the Red Door"."""
    return named([word.capitalize() for word in pair(dice)], kind, ("the",))


def weighted(dice: Dice, makers: list[tuple[float, Maker]]) -> Phrase:
    """A phrase by one of the makers; with each stands its share and those of all before it."""
    roll = dice.roll()
    return next(maker for share, maker in makers if roll < share)(dice)


ORGANIZATIONS: list[tuple[float, Maker]] = [
    (0.36, lambda dice: anything(dice, "O")),
    (0.44, lambda dice: named([dice.draw(lexicon.FIRMS)], "O")),
    (0.53, lambda dice: named([dice.draw(lexicon.ANY), dice.pick(lexicon.SUFFIXES)], "O")),
    (
        0.57,
        lambda dice: named(
            [dice.draw(lexicon.ANY), "and", dice.pick(["Sons", "Daughters", "Partners"])], "O"
        ),
    ),
    (0.69, partners),
    (0.81, institution),
    (0.89, lambda dice: pair_name(dice, "O")),
    (0.94, lambda dice: named([dice.draw(lexicon.ANY)], "O", ("the", dice.pick(lexicon.TRADES)))),
    (
        1.0,
        lambda dice: Phrase(
            (
                dice.pick(["the", "a"]),
                dice.pick(["local", "private", "second"]),
                dice.pick(lexicon.TRADES),
            )
        ),
    ),
]
PLACES: list[tuple[float, Maker]] = [
    (0.48, lambda dice: anything(dice, "L")),
    (0.62, lambda dice: named([dice.draw(lexicon.TOWNS)], "L")),
    (
        0.7,
        lambda dice: named(
            [dice.draw(lexicon.ANY)], "L", ("the", dice.pick(lexicon.REGIONS), "of")
        ),
    ),
    (
        0.78,
        lambda dice: named(
            [dice.pick(["North", "New", "Lake", "Port"]), dice.draw(lexicon.ANY)], "L"
        ),
    ),
    (
        0.84,
        lambda dice: named(
            [dice.draw(lexicon.ANY), dice.pick(["Island", "Street", "Valley", "County"])], "L"
        ),
    ),
    (
        0.92,
        lambda dice: relation(
            dice, ["birthplace", "grave", "hometown"], anything(dice, "P"), human=False
        ),
    ),
    (1.0, lambda dice: relation(dice, ["office", "warehouse"], anything(dice, "O"), human=False)),
]


def organization(dice: Dice) -> Phrase:
    """A firm or an institution, named or not."""
    return weighted(dice, ORGANIZATIONS)


def place(dice: Dice) -> Phrase:
    """A place, by its name or by what it is to somebody."""
    return weighted(dice, PLACES)


def event(dice: Dice) -> Phrase:
    """An event with a name: of a place, of a year or of ordinary words."""
    roll = dice.roll()
    if roll < 0.3:
        return named([dice.draw(lexicon.ANY), dice.pick(lexicon.EVENT_HEADS)], "E", ("the",))
    if roll < 0.42:
        return named(
            [year(dice), dice.draw(lexicon.ANY), dice.pick(lexicon.EVENT_HEADS)], "E", ("the",)
        )
    if roll < 0.62:
        return named([dice.pick(lexicon.EVENT_OF), "of", dice.draw(lexicon.ANY)], "E", ("the",))
    if roll < 0.9:
        return pair_name(dice, "E")
    return Phrase(
        (
            "the",
            dice.pick(["annual", "last", "village"]),
            dice.pick(["meeting", "contest", "parade", "debate"]),
        )
    )


def thing(dice: Dice) -> Phrase:
    """A thing, which may be about somebody or something that has a name."""
    roll = dice.roll()
    if roll < 0.6:
        adjective, noun = pair(dice)
        indefinite = "an" if adjective[0] in "aeiou" else "a"
        return Phrase((dice.pick(["the", "the", indefinite]), adjective, noun))
    if roll < 0.75:
        return around(
            ("a", dice.pick(["portrait", "letter", "photograph"]), "of"), anything(dice, "P")
        )
    if roll < 0.85:
        return around(("a", dice.pick(["map", "model", "view"]), "of"), anything(dice, "L"))
    if roll < 0.93:
        return around(("shares", "of"), anything(dice, "O"), plural=True)
    return around(("a", "ticket", "for"), event(dice))


MAKERS: dict[str, Maker] = {"P": person, "O": organization, "L": place, "E": event, "T": thing}


def filler(dice: Dice, kind: str, coordination: float = 0.1) -> Phrase:
    """A filler of this kind, at times two of them."""
    first = MAKERS[kind](dice)
    if kind not in "PLT" or not dice.chance(coordination):
        return first
    second = MAKERS[kind](dice)
    return first if first.words == second.words else join(first, second)


def year(dice: Dice) -> str:
    """A year as a word."""
    return str(1900 + int(dice.roll() * 125))


def moment(dice: Dice) -> Phrase:
    """A time adjunct; the preposition and the article are no part of the entity."""
    roll = dice.roll()
    if roll < 0.2:
        return timed(("on",), [dice.pick(lexicon.WEEKDAYS)])
    if roll < 0.5:
        return timed((dice.pick(["in", "in", "since"]),), [dice.pick(lexicon.MONTHS)])
    if roll < 0.65:
        return timed(("in",), [year(dice)])
    if roll < 0.78:
        return timed(("on",), [dice.pick(lexicon.MONTHS), str(1 + int(dice.roll() * 28))])
    if roll < 0.9:
        return timed(("in", "the"), [dice.pick(lexicon.SEASONS), "of", year(dice)])
    return timed((), dice.pick(lexicon.VAGUE).split())


def timed(before: tuple[str, ...], words: list[str]) -> Phrase:
    """A TIME behind its preposition."""
    return Phrase((*before, *words), (WorldEntity(len(before), len(before) + len(words), "TIME"),))


def whereabouts(dice: Dice) -> Phrase:
    """A place adjunct."""
    return around((dice.pick(["in", "in", "near"]),), place(dice))


def manner(dice: Dice) -> Phrase:
    """How it was done; never an entity, though often "in" something."""
    return Phrase(tuple(dice.pick(lexicon.MANNERS).split()))
