"""Turn events into clauses: words, entities, and the argument spans of each verb."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.world import lexicon
from pipeline.world.phrases import (
    Phrase,
    WorldEntity,
    manner_adjunct,
    place_adjunct,
    sample_filler,
    shift_entities,
    time_adjunct,
)
from pipeline.world.sampling import RowRandom
from pipeline.world.verbs import BY_SUBJECT, Pattern, Slot, Verb

Span = tuple[int, int]
RelativeType = Literal["subject", "reduced", "object"]


@dataclass(slots=True)
class Event:
    """A verb in one pattern, its arguments and its adjuncts (time, place, manner), all by role."""

    pattern: Pattern
    arguments: dict[str, Phrase]
    adjuncts: dict[str, Phrase] = field(default_factory=dict)
    negated: bool = False
    tense: str = "past"

    @property
    def subject(self) -> Phrase:
        """The argument in the subject position."""
        return self.arguments[self.pattern.subject.role]


@dataclass(slots=True)
class Frame:
    """A predicate in a sentence.

    `verb` is the position of the verb, `args` has (role, start, end) spans, and `heads` has the
    start of each phrase after its preposition, by role.
    """

    roleset: str
    event: Event | None = None
    verb: int = -1
    args: list[tuple[str, int, int]] = field(default_factory=list)
    heads: dict[str, int] = field(default_factory=dict)


class Sentence:
    """A sentence under construction: words, entities and frames."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.entities: list[WorldEntity] = []
        self.frames: list[Frame] = []

    def add_words(self, *words: str) -> None:
        """Append these words."""
        self.words.extend(words)

    def add_phrase(self, phrase: Phrase, shows_number: bool = False) -> tuple[int, int]:
        """Append a phrase; return its start and the start of its head.

        A phrase of ambiguous number gets a word before it ("both", "the firm") unless another
        word of the sentence shows its number.
        """
        start = len(self.words)
        if phrase.ambiguous_number and not shows_number:
            self.add_words(*(("both",) if phrase.plural else ("the", "firm")))
        head = len(self.words)
        self.words.extend(phrase.words)
        self.entities.extend(shift_entities(phrase, head))
        return start, head

    def add_matrix_verb(self, roleset: str, verb: str) -> Frame:
        """Append a verb whose complement is another verb; the caller adds the arguments."""
        frame = Frame(roleset, verb=len(self.words))
        self.add_words(*verb.split())
        self.frames.append(frame)
        return frame


def sample_event(
    rng: RowRandom, pattern: Pattern, coordination: float = 0.1, adjunct_rate: float = 1.0
) -> Event:
    """Generate an event with this pattern; `adjunct_rate` scales the probability of adjuncts."""
    subject = pattern.subject
    event = Event(pattern, {subject.role: sample_filler(rng, subject.kind, coordination)})
    for slot in pattern.complements:
        if slot.preposition != "by" or rng.chance(0.7):
            event.arguments[slot.role] = sample_distinct_filler(rng, slot, event)
    if rng.chance(0.45 * adjunct_rate):
        event.adjuncts["ARGM-TMP"] = time_adjunct(rng)
    if "ARGM-LOC" not in event.arguments and rng.chance(0.3 * adjunct_rate):
        event.adjuncts["ARGM-LOC"] = place_adjunct(rng)
    if rng.chance(0.12 * adjunct_rate):
        event.adjuncts["ARGM-MNR"] = manner_adjunct(rng)
    event.negated = rng.chance(0.1)
    event.tense = rng.choice(["past", "past", "past", "perfect", "modal"])
    return event


def sample_distinct_filler(rng: RowRandom, slot: Slot, event: Event) -> Phrase:
    """Generate a phrase for a slot; try up to 4 times for one that the event does not have yet."""
    existing = {phrase.words for phrase in event.arguments.values()}
    for _ in range(4):
        phrase = sample_filler(rng, slot.kind)
        if phrase.words not in existing:
            break
    return phrase


def sample_pattern(rng: RowRandom, subject_kind: str, passive_rate: float = 0.35) -> Pattern:
    """Draw a verb pattern with a subject of this kind."""
    return rng.draw(BY_SUBJECT[subject_kind, rng.chance(passive_rate)])


def active_forms(verb: Verb, tense: str, negated: bool, plural: bool) -> tuple[list[str], str]:
    """Return the words before an active verb, and its form."""
    negation = ["not"] if negated else []
    if tense == "past":
        return (["did", "not"], verb.base) if negated else ([], verb.past)
    if tense == "perfect":
        return ["have" if plural else "has", *negation], verb.participle
    if tense == "to":
        return [*negation, "to"], verb.base
    return (negation, verb.ing) if tense == "ing" else ([tense, *negation], verb.base)


def passive_forms(verb: Verb, tense: str, negated: bool, plural: bool) -> tuple[list[str], str]:
    """Return the words before a passive verb, and its form."""
    negation = ["not"] if negated else []
    auxiliaries = {
        "past": ["were" if plural else "was", *negation],
        "perfect": ["have" if plural else "has", *negation, "been"],
        "to": [*negation, "to", "be"],
        "ing": [*negation, "being"],
        "bare": [],
    }
    return auxiliaries.get(tense, [tense, *negation, "be"]), verb.participle


def finite_tense(event: Event, rng: RowRandom) -> str:
    """Return the tense of the event.

    A subject of ambiguous number needs a tense that shows number.
    """
    ambiguous = event.subject.ambiguous_number
    if ambiguous and not event.pattern.passive:
        return "perfect"
    if event.tense == "modal":
        return "perfect" if ambiguous else rng.choice(lexicon.MODALS)
    return event.tense


def simple_tense(event: Event) -> str:
    """Return the past, or the perfect if the number of the subject must show."""
    return "perfect" if event.subject.ambiguous_number else "past"


def add_predicate(
    sentence: Sentence, event: Event, tense: str, skip: str = "", plural: bool | None = None
) -> Frame:
    """Append the verb phrase, from the auxiliaries on, without the argument or adjunct `skip`."""
    pattern = event.pattern
    plural = event.subject.plural if plural is None else plural
    inflect = passive_forms if pattern.passive else active_forms
    auxiliaries, verb = inflect(pattern.verb, tense, event.negated, plural)
    frame = Frame(pattern.verb.roleset, event)
    for word in auxiliaries:
        if word == "not" or word in lexicon.MODALS:
            role = "ARGM-NEG" if word == "not" else "ARGM-MOD"
            frame.args.append((role, len(sentence.words), len(sentence.words) + 1))
        sentence.add_words(word)
    frame.verb = len(sentence.words)
    sentence.add_words(verb)
    sentence.frames.append(frame)
    for slot in pattern.complements:
        if slot.role != skip and slot.role in event.arguments:
            add_argument(sentence, frame, slot.role, event.arguments[slot.role], slot.preposition)
    for role, phrase in event.adjuncts.items():
        if role != skip:
            add_argument(sentence, frame, role, phrase)
    return frame


def add_argument(
    sentence: Sentence, frame: Frame, role: str, phrase: Phrase, preposition: str = ""
) -> None:
    """Append a phrase and record it as an argument, with its preposition."""
    start = len(sentence.words)
    if preposition:
        sentence.add_words(preposition)
    frame.heads[role] = sentence.add_phrase(phrase)[1]
    frame.args.append((role, start, len(sentence.words)))


def add_subject(
    sentence: Sentence,
    phrase: Phrase,
    shows_number: bool,
    relative: Event | None = None,
    relative_type: RelativeType = "subject",
) -> tuple[Span, int]:
    """Append a subject with an optional relative clause; return its span and its head's start."""
    start, head = sentence.add_phrase(phrase, shows_number)
    if relative:
        span = start, len(sentence.words)
        comma = bool(phrase.entities)
        if comma:
            sentence.add_words(",")
        frame = add_relative_clause(sentence, relative, relative_type, phrase, span)
        frame.heads[relativized_slot(relative, relative_type).role] = head
        if comma:
            sentence.add_words(",")
    return (start, len(sentence.words)), head


def relativized_slot(event: Event, relative_type: RelativeType) -> Slot:
    """Return the slot of a relative clause that the head noun fills."""
    pattern = event.pattern
    return pattern.complements[0] if relative_type == "object" else pattern.subject


def add_relative_clause(
    sentence: Sentence, event: Event, relative_type: RelativeType, head: Phrase, span: Span
) -> Frame:
    """Append a relative clause to the phrase `head` at `span`.

    The clause's role for the head is recorded twice: for the head itself and, as R-role, for the
    relative pronoun. A reduced clause ("hired by Y") has no pronoun.
    """
    start = len(sentence.words)
    role = relativized_slot(event, relative_type).role
    if relative_type == "reduced":
        frame = add_predicate(sentence, event, "bare", plural=head.plural)
        frame.args.append((role, *span))
        return frame
    if relative_type == "subject":
        sentence.add_words("who" if head.human else "which")
        frame = add_predicate(sentence, event, "past", plural=head.plural)
    else:
        sentence.add_words("whom" if head.human else "which")
        subject_span, subject_head = add_subject(sentence, event.subject, shows_number=False)
        subject_role = event.pattern.subject.role
        frame = add_predicate(sentence, event, "past", skip=role)
        frame.args.append((subject_role, *subject_span))
        frame.heads[subject_role] = subject_head
    frame.args += [(role, *span), (f"R-{role}", start, start + 1)]
    return frame


def add_clause(
    sentence: Sentence,
    event: Event,
    rng: RowRandom,
    *,
    relative: Event | None = None,
    relative_type: RelativeType = "subject",
    front: str = "",
    any_tense: bool = True,
) -> Frame:
    """Append a whole finite clause, with the adjunct `front` before the subject.

    `relative` is an event for a relative clause on the subject. Without `any_tense` the clause has
    its simple tense.
    """
    fronted = event.adjuncts.get(front)
    start = len(sentence.words)
    if fronted:
        front_head = sentence.add_phrase(fronted)[1]
        end = len(sentence.words)
        if rng.chance(0.6):
            sentence.add_words(",")
    tense = finite_tense(event, rng) if any_tense else simple_tense(event)
    span, head = add_subject(sentence, event.subject, True, relative, relative_type)
    frame = add_predicate(sentence, event, tense, skip=front)
    role = event.pattern.subject.role
    frame.args.append((role, *span))
    frame.heads[role] = head
    if fronted:
        frame.args.append((front, start, end))
        frame.heads[front] = front_head
    return frame
