"""Generate the phrases of a sentence: noun phrases and adjuncts, with their named entities.

A phrase's kind (P, O, L, E, T as in `verbs`) is the type of its slot. Its entities may have other
types: "the mayor of Houston" fills a person's slot and contains a place.
"""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.world import lexicon
from pipeline.world.sampling import RowRandom

ENTITY_TYPES = {"P": "PER", "O": "ORG", "L": "LOC", "E": "EVENT"}


class WorldEntity(NamedTuple):
    """A named entity: words `start` to `end` (exclusive)."""

    start: int
    end: int
    type: str


class Phrase(NamedTuple):
    """The words of an argument or adjunct.

    `ambiguous_number` marks phrases such as "Smith and Jones" (one firm or two?): only the
    agreement of another word shows their number.
    """

    words: tuple[str, ...]
    entities: tuple[WorldEntity, ...] = ()
    human: bool = False
    plural: bool = False
    ambiguous_number: bool = False


PhraseGenerator = Callable[[RowRandom], Phrase]


def name_phrase(name: list[str], kind: str, before: tuple[str, ...] = ()) -> Phrase:
    """Make a phrase of a name; the words `before` are not part of the entity."""
    entity = WorldEntity(len(before), len(before) + len(name), ENTITY_TYPES[kind])
    return Phrase((*before, *name), (entity,), human=kind == "P")


def shift_entities(phrase: Phrase, offset: int) -> tuple[WorldEntity, ...]:
    """Return the entities of a phrase that starts at word `offset`."""
    return tuple(
        WorldEntity(entity.start + offset, entity.end + offset, entity.type)
        for entity in phrase.entities
    )


def conjoin(first: Phrase, second: Phrase) -> Phrase:
    """Connect two phrases with "and"."""
    entities = first.entities + shift_entities(second, len(first.words) + 1)
    return Phrase((*first.words, "and", *second.words), entities, first.human, plural=True)


def embed(
    before: tuple[str, ...],
    inner: Phrase,
    after: tuple[str, ...] = (),
    human: bool = False,
    plural: bool = False,
) -> Phrase:
    """Put a phrase inside a larger phrase; `human` and `plural` are those of the larger phrase."""
    entities = shift_entities(inner, len(before))
    return Phrase(before + inner.words + after, entities, human, plural)


def bare_name(rng: RowRandom, kind: str) -> Phrase:
    """Generate a name that does not show its type."""
    pool = lexicon.AMBIGUOUS_PLACES if kind == "L" else lexicon.AMBIGUOUS_NAMES
    return name_phrase([rng.draw(pool)], kind)


def person_name(rng: RowRandom) -> list[str]:
    """Generate a given name, often with a surname.

    Either may also be the name of a town, month or firm, or an ordinary word.
    """
    if rng.chance(0.25):
        return [rng.draw(lexicon.GIVEN_NAMES)]
    given_name = rng.draw(lexicon.GIVEN_NAMES)
    surnames = lexicon.AMBIGUOUS_NAMES if rng.chance(0.4) else lexicon.SURNAMES
    return [given_name, rng.draw(surnames)]


def relational_phrase(
    rng: RowRandom, nouns: list[str], inner: Phrase, human: bool = True
) -> Phrase:
    """Generate "the mayor of X" or "X 's mayor", where X is the phrase `inner`."""
    noun = rng.choice(nouns)
    plural = noun in lexicon.PLURAL_NOUNS
    if rng.chance(0.35):
        return embed((), inner, ("'s", noun), human, plural)
    return embed(("the", noun, "of"), inner, (), human, plural)


def person_by_relation(rng: RowRandom) -> Phrase:
    """Describe a person by the relation to a place, a person, a firm or an event."""
    relations = [
        (lexicon.PLACE_RELATIONS, "L"),
        (lexicon.PERSON_RELATIONS, "P"),
        (lexicon.FIRM_RELATIONS, "O"),
        (lexicon.EVENT_RELATIONS, "E"),
    ]
    nouns, kind = rng.choice(relations)
    return relational_phrase(rng, nouns, event_phrase(rng) if kind == "E" else bare_name(rng, kind))


def person_phrase(rng: RowRandom) -> Phrase:
    """Generate a person, with or without a name."""
    value = rng.random()
    if value < 0.42:
        return bare_name(rng, "P")
    if value < 0.64:
        return name_phrase(person_name(rng), "P")
    if value < 0.72:
        title = rng.choice(lexicon.TITLES)
        name = person_name(rng)
        return name_phrase(name, "P", ("the", title) if rng.chance(0.5) else (title,))
    if value < 0.9:
        return person_by_relation(rng)
    words = (
        rng.choice(["the", "a"]),
        rng.choice(["young", "former", "local", "second"]),
        rng.choice(lexicon.TITLES),
    )
    return Phrase(words, human=True)


def partner_firms(rng: RowRandom) -> Phrase:
    """Generate one firm with "and" in its name, or two firms.

    The words are the same in both cases; only agreement shows the difference.
    """
    first, second = rng.draw(lexicon.AMBIGUOUS_NAMES), rng.draw(lexicon.AMBIGUOUS_NAMES)
    head = ("Bank", "of") if rng.chance(0.35) else ()
    words = (*head, first, "and", second)
    if rng.chance(0.5):
        return Phrase(words, (WorldEntity(0, len(words), "ORG"),), ambiguous_number=True)
    first_end = len(head) + 1
    entities = (
        WorldEntity(0, first_end, "ORG"),
        WorldEntity(first_end + 1, len(words), "ORG"),
    )
    return Phrase(words, entities, plural=True, ambiguous_number=True)


def institution_phrase(rng: RowRandom) -> Phrase:
    """Generate a school, a bank or a museum; the name after "in" is a separate place."""
    name, institution = rng.draw(lexicon.AMBIGUOUS_NAMES), rng.choice(lexicon.INSTITUTIONS)
    value = rng.random()
    if value < 0.35:
        return name_phrase([institution, "of", name], "O", ("the",))
    if value < 0.6:
        place = rng.draw(lexicon.AMBIGUOUS_NAMES)
        words = ("the", institution, "of", name, "in", place)
        return Phrase(words, (WorldEntity(1, 4, "ORG"), WorldEntity(5, 6, "LOC")))
    if value < 0.75:
        subject = rng.choice(lexicon.MUSEUM_SUBJECTS).split()
        return name_phrase([name, "Museum", "of", *subject], "O", ("the",))
    if value < 0.85:
        return name_phrase(["Central", "Bank", "of", name], "O", ("the",))
    return name_phrase([name, institution], "O")


def adjective_noun(rng: RowRandom) -> list[str]:
    """Draw an adjective and a noun; their slot makes them a firm, an event or a thing."""
    return [rng.draw(lexicon.ADJECTIVES), rng.choice(lexicon.NOUNS)]


def common_word_name(rng: RowRandom, kind: str) -> Phrase:
    """Generate a name of ordinary words: "the Red Door"."""
    return name_phrase([word.capitalize() for word in adjective_noun(rng)], kind, ("the",))


def firm_name(rng: RowRandom) -> Phrase:
    """Generate a firm with a suffix: "X Foods"."""
    name = rng.draw(lexicon.AMBIGUOUS_NAMES)
    return name_phrase([name, rng.choice(lexicon.FIRM_SUFFIXES)], "O")


def family_firm(rng: RowRandom) -> Phrase:
    """Generate a firm such as "X and Sons"."""
    name = rng.draw(lexicon.AMBIGUOUS_NAMES)
    return name_phrase([name, "and", rng.choice(["Sons", "Daughters", "Partners"])], "O")


def firm_with_trade(rng: RowRandom) -> Phrase:
    """Generate a name after a trade: "the retailer X"."""
    name = rng.draw(lexicon.AMBIGUOUS_NAMES)
    return name_phrase([name], "O", ("the", rng.choice(lexicon.TRADES)))


def unnamed_firm(rng: RowRandom) -> Phrase:
    """Generate a firm without a name: "a local bakery"."""
    article = rng.choice(["the", "a"])
    adjective = rng.choice(["local", "private", "second"])
    return Phrase((article, adjective, rng.choice(lexicon.TRADES)))


def place_with_region(rng: RowRandom) -> Phrase:
    """Generate a name after a kind of region: "the island of X"."""
    name = rng.draw(lexicon.AMBIGUOUS_NAMES)
    return name_phrase([name], "L", ("the", rng.choice(lexicon.REGIONS), "of"))


def place_with_prefix(rng: RowRandom) -> Phrase:
    """Generate a place such as "North X"."""
    prefix = rng.choice(["North", "New", "Lake", "Port"])
    return name_phrase([prefix, rng.draw(lexicon.AMBIGUOUS_NAMES)], "L")


def place_with_suffix(rng: RowRandom) -> Phrase:
    """Generate a place such as "X Island"."""
    name = rng.draw(lexicon.AMBIGUOUS_NAMES)
    return name_phrase([name, rng.choice(["Island", "Street", "Valley", "County"])], "L")


def place_of_person(rng: RowRandom) -> Phrase:
    """Generate a place such as "the birthplace of X"."""
    inner = bare_name(rng, "P")
    return relational_phrase(rng, ["birthplace", "grave", "hometown"], inner, human=False)


def place_of_firm(rng: RowRandom) -> Phrase:
    """Generate a place such as "the office of X"."""
    return relational_phrase(rng, ["office", "warehouse"], bare_name(rng, "O"), human=False)


# (cumulative probability, generator)
ORGANIZATIONS: list[tuple[float, PhraseGenerator]] = [
    (0.36, lambda rng: bare_name(rng, "O")),
    (0.44, lambda rng: name_phrase([rng.draw(lexicon.FIRMS)], "O")),
    (0.53, firm_name),
    (0.57, family_firm),
    (0.69, partner_firms),
    (0.81, institution_phrase),
    (0.89, lambda rng: common_word_name(rng, "O")),
    (0.94, firm_with_trade),
    (1.0, unnamed_firm),
]
PLACES: list[tuple[float, PhraseGenerator]] = [
    (0.48, lambda rng: bare_name(rng, "L")),
    (0.62, lambda rng: name_phrase([rng.draw(lexicon.TOWNS)], "L")),
    (0.7, place_with_region),
    (0.78, place_with_prefix),
    (0.84, place_with_suffix),
    (0.92, place_of_person),
    (1.0, place_of_firm),
]


def sample_phrase(rng: RowRandom, generators: list[tuple[float, PhraseGenerator]]) -> Phrase:
    """Generate a phrase with a random generator of such a table."""
    value = rng.random()
    return next(generate for limit, generate in generators if value < limit)(rng)


def organization_phrase(rng: RowRandom) -> Phrase:
    """Generate a firm or an institution, with or without a name."""
    return sample_phrase(rng, ORGANIZATIONS)


def place_phrase(rng: RowRandom) -> Phrase:
    """Generate a place, by its name or by its relation to a person or a firm."""
    return sample_phrase(rng, PLACES)


def event_phrase(rng: RowRandom) -> Phrase:
    """Generate an event, most often with the name of a place, a year or ordinary words."""
    value = rng.random()
    if value < 0.3:
        name = rng.draw(lexicon.AMBIGUOUS_NAMES)
        return name_phrase([name, rng.choice(lexicon.EVENT_HEADS)], "E", ("the",))
    if value < 0.42:
        year, name = random_year(rng), rng.draw(lexicon.AMBIGUOUS_NAMES)
        return name_phrase([year, name, rng.choice(lexicon.EVENT_HEADS)], "E", ("the",))
    if value < 0.62:
        head = rng.choice(lexicon.EVENT_OF_HEADS)
        return name_phrase([head, "of", rng.draw(lexicon.AMBIGUOUS_NAMES)], "E", ("the",))
    if value < 0.9:
        return common_word_name(rng, "E")
    adjective = rng.choice(["annual", "last", "village"])
    return Phrase(("the", adjective, rng.choice(["meeting", "contest", "parade", "debate"])))


def thing_phrase(rng: RowRandom) -> Phrase:
    """Generate a thing; it may contain the name of a person, place, firm or event."""
    value = rng.random()
    if value < 0.6:
        adjective, noun = adjective_noun(rng)
        indefinite = "an" if adjective[0] in "aeiou" else "a"
        return Phrase((rng.choice(["the", "the", indefinite]), adjective, noun))
    if value < 0.75:
        before = ("a", rng.choice(["portrait", "letter", "photograph"]), "of")
        return embed(before, bare_name(rng, "P"))
    if value < 0.85:
        before = ("a", rng.choice(["map", "model", "view"]), "of")
        return embed(before, bare_name(rng, "L"))
    if value < 0.93:
        return embed(("shares", "of"), bare_name(rng, "O"), plural=True)
    return embed(("a", "ticket", "for"), event_phrase(rng))


GENERATORS: dict[str, PhraseGenerator] = {
    "P": person_phrase,
    "O": organization_phrase,
    "L": place_phrase,
    "E": event_phrase,
    "T": thing_phrase,
}


def sample_filler(rng: RowRandom, kind: str, coordination: float = 0.1) -> Phrase:
    """Generate a phrase of this kind; with probability `coordination` two of them ("X and Y")."""
    first = GENERATORS[kind](rng)
    if kind not in "PLT" or not rng.chance(coordination):
        return first
    second = GENERATORS[kind](rng)
    return first if first.words == second.words else conjoin(first, second)


def random_year(rng: RowRandom) -> str:
    """Draw a year from 1900 to 2024 as a word."""
    return str(1900 + int(rng.random() * 125))


def time_adjunct(rng: RowRandom) -> Phrase:
    """Generate a time; the preposition and the article are not part of the entity."""
    value = rng.random()
    if value < 0.2:
        return time_phrase(("on",), [rng.choice(lexicon.WEEKDAYS)])
    if value < 0.5:
        preposition = rng.choice(["in", "in", "since"])
        return time_phrase((preposition,), [rng.choice(lexicon.MONTHS)])
    if value < 0.65:
        return time_phrase(("in",), [random_year(rng)])
    if value < 0.78:
        month = rng.choice(lexicon.MONTHS)
        return time_phrase(("on",), [month, str(1 + int(rng.random() * 28))])
    if value < 0.9:
        season = rng.choice(lexicon.SEASONS)
        return time_phrase(("in", "the"), [season, "of", random_year(rng)])
    return time_phrase((), rng.choice(lexicon.RELATIVE_TIMES).split())


def time_phrase(before: tuple[str, ...], words: list[str]) -> Phrase:
    """Make a TIME entity after the words `before`, such as a preposition."""
    return Phrase((*before, *words), (WorldEntity(len(before), len(before) + len(words), "TIME"),))


def place_adjunct(rng: RowRandom) -> Phrase:
    """Generate a place with its preposition."""
    return embed((rng.choice(["in", "in", "near"]),), place_phrase(rng))


def manner_adjunct(rng: RowRandom) -> Phrase:
    """Generate a manner; it is never an entity, though it often starts with "in"."""
    return Phrase(tuple(rng.choice(lexicon.MANNERS).split()))
