"""Events -> clauses: the words, the entities and, for each verb, where its arguments stand."""

from dataclasses import dataclass, field

from pipeline.world import lexicon
from pipeline.world.phrases import Phrase, WorldEntity, filler, manner, moment, whereabouts
from pipeline.world.sampling import Dice
from pipeline.world.verbs import BY_SUBJECT, Slot, Verb, View

Span = tuple[int, int]


@dataclass(slots=True)
class Event:
    """Something that happens: a verb in one shape, who and what fills its slots, when, where and how."""

    view: View
    fill: dict[str, Phrase]
    adjuncts: dict[str, Phrase] = field(default_factory=dict)
    negated: bool = False
    tense: str = "past"

    @property
    def subject(self) -> Phrase:
        """What fills the subject's slot."""
        return self.fill[self.view.subject.role]


@dataclass(slots=True)
class Frame:
    """A predicate in a sentence. `heads` says where each filler itself begins, behind its preposition."""

    roleset: str
    event: Event | None = None
    verb: int = -1
    args: list[tuple[str, int, int]] = field(default_factory=list)
    heads: dict[str, int] = field(default_factory=dict)


class Sentence:
    """A sentence while it is being said: words, entities and frames in step."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.entities: list[WorldEntity] = []
        self.frames: list[Frame] = []

    def put(self, *words: str) -> None:
        """Say these words."""
        self.words.extend(words)

    def place(self, phrase: Phrase, agreed: bool = False) -> tuple[int, int]:
        """Say a phrase: where it and where its head begins. One that nothing agrees with says how many it is."""
        start = len(self.words)
        if phrase.agreeing and not agreed:
            self.put(*(("both",) if phrase.plural else ("the", "firm")))
        head = len(self.words)
        self.words.extend(phrase.words)
        self.entities.extend(
            [WorldEntity(head + e.start, head + e.end, e.type) for e in phrase.entities]
        )
        return start, head

    def light(self, roleset: str, verb: str) -> Frame:
        """Say a verb that takes another verb; its arguments are added by the caller."""
        frame = Frame(roleset, verb=len(self.words))
        first, *rest = verb.split()
        self.put(first, *rest)
        self.frames.append(frame)
        return frame


def invent(dice: Dice, view: View, coordination: float = 0.1, busy: float = 1.0) -> Event:
    """A new event of this shape. `busy` scales how often it has adjuncts."""
    event = Event(view, {view.subject.role: filler(dice, view.subject.kind, coordination)})
    for slot in view.rest:
        if slot.prep != "by" or dice.chance(0.7):
            event.fill[slot.role] = other(dice, slot, event)
    if dice.chance(0.45 * busy):
        event.adjuncts["ARGM-TMP"] = moment(dice)
    if "ARGM-LOC" not in event.fill and dice.chance(0.3 * busy):
        event.adjuncts["ARGM-LOC"] = whereabouts(dice)
    if dice.chance(0.12 * busy):
        event.adjuncts["ARGM-MNR"] = manner(dice)
    event.negated = dice.chance(0.1)
    event.tense = dice.pick(["past", "past", "past", "perfect", "modal"])
    return event


def other(dice: Dice, slot: Slot, event: Event) -> Phrase:
    """A filler of the slot unlike those that the event has."""
    taken = {phrase.words for phrase in event.fill.values()}
    for _ in range(4):
        phrase = filler(dice, slot.kind)
        if phrase.words not in taken:
            break
    return phrase


def any_view(dice: Dice, kind: str, passive: float = 0.35) -> View:
    """A verb with a subject of this kind, passive in that share."""
    return dice.draw(BY_SUBJECT[kind, dice.chance(passive)])


def active_words(verb: Verb, tense: str, negated: bool, plural: bool) -> tuple[list[str], str]:
    """What stands before an active verb, and its form."""
    no = ["not"] if negated else []
    if tense == "past":
        return (["did", "not"], verb.base) if negated else ([], verb.past)
    if tense == "perfect":
        return ["have" if plural else "has", *no], verb.participle
    if tense == "to":
        return [*no, "to"], verb.base
    return (no, verb.ing) if tense == "ing" else ([tense, *no], verb.base)


def passive_words(verb: Verb, tense: str, negated: bool, plural: bool) -> tuple[list[str], str]:
    """What stands before a passive verb, and its form."""
    no = ["not"] if negated else []
    before = {
        "past": ["were" if plural else "was", *no],
        "perfect": ["have" if plural else "has", *no, "been"],
        "to": [*no, "to", "be"],
        "ing": [*no, "being"],
        "bare": [],
    }
    return before.get(tense, [tense, *no, "be"]), verb.participle


def finite_tense(event: Event, dice: Dice) -> str:
    """The event's tense; one that shows the number where the subject's number is all that tells what it is."""
    if event.subject.agreeing and not event.view.passive:
        return "perfect"
    if event.tense == "modal":
        return "perfect" if event.subject.agreeing else dice.pick(lexicon.MODALS)
    return event.tense


def predicate(
    s: Sentence, event: Event, tense: str, skip: str = "", plural: bool | None = None
) -> Frame:
    """Say everything from the auxiliaries on, leaving out the filler of `skip`."""
    view = event.view
    plural = event.subject.plural if plural is None else plural
    inflect = passive_words if view.passive else active_words
    before, verb = inflect(view.verb, tense, event.negated, plural)
    frame = Frame(view.verb.roleset, event)
    for word in before:
        if word == "not" or word in lexicon.MODALS:
            frame.args.append(
                ("ARGM-NEG" if word == "not" else "ARGM-MOD", len(s.words), len(s.words) + 1)
            )
        s.put(word)
    frame.verb = len(s.words)
    s.put(verb)
    s.frames.append(frame)
    for slot in view.rest:
        if slot.role != skip and slot.role in event.fill:
            argument(s, frame, slot.role, event.fill[slot.role], slot.prep)
    for role, phrase in event.adjuncts.items():
        if role != skip:
            argument(s, frame, role, phrase)
    return frame


def argument(s: Sentence, frame: Frame, role: str, phrase: Phrase, prep: str = "") -> None:
    """Say a filler and note it as an argument, its preposition included."""
    start = len(s.words)
    if prep:
        s.put(prep)
    frame.heads[role] = s.place(phrase)[1]
    frame.args.append((role, start, len(s.words)))


def subject(
    s: Sentence, phrase: Phrase, agreed: bool, relative: Event | None = None, how: str = "who"
) -> tuple[Span, int]:
    """Say a subject, with a relative clause whose own subject (`who`, `bare`) or bare object (`whom`) it is."""
    start, head = s.place(phrase, agreed)
    if relative:
        end = len(s.words)
        comma = bool(phrase.entities)
        if comma:
            s.put(",")
        frame = relative_clause(s, relative, how, phrase, (start, end))
        frame.heads[relative.view.rest[0].role if how == "whom" else relative.view.subject.role] = (
            head
        )
        if comma:
            s.put(",")
    return (start, len(s.words)), head


def relative_clause(s: Sentence, event: Event, how: str, head: Phrase, span: Span) -> Frame:
    """Say the clause about `head`, which stands at `span`; the pronoun's role is R- and the head's."""
    where = len(s.words)
    if how == "bare":
        frame = predicate(s, event, "bare", plural=head.plural)
        frame.args.append((event.view.subject.role, *span))
        return frame
    if how == "who":
        s.put("who" if head.human else "which")
        frame = predicate(s, event, "past", plural=head.plural)
        role = event.view.subject.role
    else:
        s.put("whom" if head.human else "which")
        inner, at = subject(s, event.subject, agreed=False)
        role = event.view.rest[0].role
        frame = predicate(s, event, "past", skip=role)
        frame.args.append((event.view.subject.role, *inner))
        frame.heads[event.view.subject.role] = at
    frame.args += [(role, *span), (f"R-{role}", where, where + 1)]
    return frame


def clause(
    s: Sentence,
    event: Event,
    dice: Dice,
    *,
    relative: Event | None = None,
    how: str = "who",
    front: str = "",
    own: bool = True,
) -> Frame:
    """Say a whole finite clause, with the adjunct `front` before the subject. `own`: it may use its own tense."""
    fronted = event.adjuncts.get(front)
    start = len(s.words)
    if fronted:
        at = s.place(fronted)[1]
        end = len(s.words)
        if dice.chance(0.6):
            s.put(",")
    tense = finite_tense(event, dice) if own else ("perfect" if event.subject.agreeing else "past")
    span, head = subject(s, event.subject, True, relative, how)
    frame = predicate(s, event, tense, skip=front)
    frame.args.append((event.view.subject.role, *span))
    frame.heads[event.view.subject.role] = head
    if fronted:
        frame.args.append((front, start, end))
        frame.heads[front] = at
    return frame
