"""Sentences: one to three events put together. `HELD` constructions are in validation and test only."""

from collections.abc import Callable
from dataclasses import replace

from pipeline.world import verbs
from pipeline.world.grammar import (
    Event,
    Frame,
    Sentence,
    any_view,
    clause,
    invent,
    predicate,
    relative_clause,
)
from pipeline.world.phrases import Phrase, filler, person
from pipeline.world.sampling import Dice, Pool
from pipeline.world.verbs import BY_BASE, BY_OBJECT

Construction = Callable[[Sentence, Dice], object]
LINKS = ("after", "before", "while", "because", "although", "when")
LINK_ROLES = {"because": "ARGM-CAU", "although": "ARGM-ADV"}
JOINS = ("and", "but", "while", "whereas")


def kind_of(dice: Dice) -> str:
    """The kind of a sentence's subject."""
    return dice.pick("PPPPPOOOOOLLETT")


def fresh(dice: Dice, kind: str = "", busy: float = 0.6) -> Event:
    """A new event with a subject of this kind."""
    return invent(dice, any_view(dice, kind or kind_of(dice)), busy=busy)


def about(dice: Dice, phrase: Phrase, kind: str, told: Event, passive: float = 0.35) -> Event:
    """A new event whose subject is this phrase, with another verb than the event already told."""
    while True:
        novel = dice.novel
        view = any_view(dice, kind, passive)
        if view.verb.base != told.view.verb.base:
            break
        dice.novel = novel
    event = invent(dice, view, busy=0.5)
    event.fill[event.view.subject.role] = phrase
    return event


def plain(s: Sentence, dice: Dice) -> None:
    """One clause, its adjunct often first: "In May X hired Y"."""
    event = invent(dice, any_view(dice, kind_of(dice)), coordination=0.3, busy=1.6)
    front = next(iter(event.adjuncts), "") if dice.chance(0.5) else ""
    clause(s, event, dice, front="" if front == "ARGM-MNR" else front)


def verb_coordination(s: Sentence, dice: Dice) -> None:
    """Two predicates of one subject: "X hired Y and was praised by Z"."""
    first = fresh(dice)
    second = about(dice, first.subject, first.view.subject.kind, first)
    coordinate(s, dice, [first, second])


def coordinate(s: Sentence, dice: Dice, events: list[Event]) -> None:
    """Say events that share a subject in one clause."""
    frame = clause(s, events[0], dice, own=False)
    role = events[0].view.subject.role
    span = next((start, end) for name, start, end in frame.args if name == role)
    for event in events[1:]:
        s.put(dice.pick(["and", "but"]))
        after = predicate(s, event, "past")
        after.args.append((event.view.subject.role, *span))
        after.heads[event.view.subject.role] = frame.heads[role]


def subject_relative(s: Sentence, dice: Dice) -> None:
    """A relative clause whose subject is the main one: "X , who hired Y , left Z"."""
    first = fresh(dice)
    clause(s, first, dice, relative=about(dice, first.subject, first.view.subject.kind, first))


def reduced_relative(s: Sentence, dice: Dice) -> None:
    """A bare participle: "X , hired by Y , left Z"."""
    first = fresh(dice)
    second = about(dice, first.subject, first.view.subject.kind, first, passive=1.0)
    clause(s, first, dice, relative=replace(second, negated=False), how="bare")


def object_relative(s: Sentence, dice: Dice) -> None:
    """A relative clause whose object is the main subject: "X , whom Y hired , left Z"."""
    first = fresh(dice)
    kind = first.view.subject.kind
    second = invent(dice, dice.draw(BY_OBJECT[kind]), busy=0.5)
    second.fill[second.view.rest[0].role] = first.subject
    clause(s, first, dice, relative=second, how="whom")


def final_relative(s: Sentence, dice: Dice) -> None:
    """A relative clause on the last argument: "X hired Y , who left Z"."""
    first = fresh(dice, busy=0)
    frame = clause(s, first, dice)
    slots = [slot for slot in first.view.rest if slot.role in first.fill]
    if not slots or first.fill[slots[-1].role].plural:
        return
    slot = slots[-1]
    place = max(i for i, arg in enumerate(frame.args) if arg[0] == slot.role)
    phrase, start, end = first.fill[slot.role], frame.args[place][1], len(s.words)
    s.put(",")
    relative_clause(
        s, about(dice, phrase, slot.kind, first), "who", phrase, (frame.heads[slot.role], end)
    )
    frame.args[place] = (slot.role, start, len(s.words))


def subordinate(s: Sentence, dice: Dice, pair: tuple[Event, Event] | None = None) -> None:
    """A clause that says when or why: "X hired Y after Z left W", either first."""
    main, side = pair or (fresh(dice, busy=0.4), fresh(dice, busy=0.4))
    link = dice.pick(LINKS)
    first = dice.chance(0.35)
    frame = None if first else clause(s, main, dice)
    start = len(s.words)
    s.put(link)
    clause(s, side, dice, own=not first)
    end = len(s.words)
    if frame is None:
        s.put(",")
        frame = clause(s, main, dice)
    frame.args.append((LINK_ROLES.get(link, "ARGM-TMP"), start, end))


def repetition(s: Sentence, dice: Dice) -> None:
    """The same verb twice with other arguments: "X praised Y after Z was praised by W"."""
    view = any_view(dice, kind_of(dice))
    pool = BY_BASE[view.verb.base]
    again = dice.pick(pool.seen or pool.held)
    pair = invent(dice, view, busy=0.4), invent(dice, again, busy=0.4)
    if dice.chance(0.6):
        subordinate(s, dice, pair)
    else:
        juxtapose(s, dice, *pair)


def juxtapose(s: Sentence, dice: Dice, first: Event, second: Event) -> None:
    """Two main clauses side by side."""
    clause(s, first, dice)
    if dice.chance(0.7):
        s.put(",")
    s.put(dice.pick(JOINS))
    clause(s, second, dice)


def two_clauses(s: Sentence, dice: Dice) -> None:
    """Two main clauses about different things."""
    juxtapose(s, dice, fresh(dice, busy=0.4), fresh(dice, busy=0.4))


def infinitive(s: Sentence, event: Event, span: tuple[int, int]) -> tuple[int, int]:
    """Say "to V ..." of a subject that stands elsewhere, and where it is."""
    start = len(s.words)
    frame = predicate(s, event, "to")
    frame.args.append((event.view.subject.role, *span))
    return start, len(s.words)


def placed(s: Sentence, phrase: Phrase) -> tuple[int, int]:
    """Say a phrase and where it is."""
    start, _ = s.place(phrase)
    return start, len(s.words)


def subject_control(s: Sentence, dice: Dice) -> None:
    """ "X refused to hire Y": X is the subject of both."""
    event = fresh(dice, dice.pick("PPO"), busy=0.8)
    span = placed(s, event.subject)
    frame = s.light(*dice.draw(verbs.SUBJECT_CONTROL))
    frame.args += [("ARG0", *span), ("ARG1", *infinitive(s, event, span))]


def object_control(s: Sentence, dice: Dice) -> None:
    """ "X asked Y to hire Z" where Y hires, "X promised Y to hire Z" where X does."""
    promise = dice.chance(0.4)
    event = fresh(dice, dice.pick("PPO"), busy=0.5)
    outer, inner = (event.subject, person(dice)) if promise else (person(dice), event.subject)
    span = placed(s, outer)
    roleset, verb = dice.draw(verbs.PROMISE if promise else verbs.OBJECT_CONTROL)
    frame = s.light(roleset, verb)
    start = len(s.words) - len(verb.split()) + 1
    target = placed(s, inner)
    act = infinitive(s, event, span if promise else target)
    roles = ("ARG2", "ARG1") if promise else ("ARG1", "ARG2")
    frame.args += [("ARG0", *span), (roles[0], start, target[1]), (roles[1], *act)]


def raising(s: Sentence, dice: Dice) -> None:
    """ "X seemed to hire Y": the subject of "seem" belongs to the other verb."""
    event = fresh(dice, busy=0.8)
    span = placed(s, event.subject)
    frame = s.light(*dice.draw(verbs.RAISING))
    frame.args += [("ARG1", *span), ("C-ARG1", *infinitive(s, event, span))]


def speech(s: Sentence, dice: Dice) -> None:
    """What somebody said, before or after the saying."""
    event, speaker = fresh(dice, busy=0.7), filler(dice, "P")
    last = dice.chance(0.5)
    said = 0, 0
    if last:
        clause(s, event, dice)
        said = 0, len(s.words)
        s.put(",")
    span = placed(s, speaker)
    frame = s.light(*dice.draw(verbs.SPEECH))
    if not last:
        start = len(s.words)
        if dice.chance(0.6):
            s.put("that")
        clause(s, event, dice)
        said = start, len(s.words)
    frame.args += [("ARG0", *span), ("ARG1", *said)]


def inverted_speech(s: Sentence, dice: Dice) -> None:
    """What was said, then the verb, then who said it: "X hired Y , said Z"."""
    clause(s, fresh(dice, busy=0.7), dice)
    end = len(s.words)
    s.put(",")
    frame = s.light(*dice.draw(verbs.SPEECH))
    frame.args += [("ARG1", 0, end), ("ARG0", *placed(s, person(dice)))]


def cleft(s: Sentence, dice: Dice) -> None:
    """ "It was X who hired Y"."""
    event = fresh(dice, busy=0.8)
    s.put("It", "was")
    span = placed(s, event.subject)
    relative_clause(s, event, "who", event.subject, span)


def participial(s: Sentence, dice: Dice) -> None:
    """ "After hiring Y in May , X left Z": X is the subject of both."""
    main = fresh(dice, busy=0.5)
    side = replace(about(dice, main.subject, main.view.subject.kind, main), negated=False)
    link = dice.pick(["After", "Before", "Despite", "While"])
    s.put(link)
    under = predicate(s, side, "ing")
    end = len(s.words)
    s.put(",")
    frame: Frame = clause(s, main, dice)
    role = main.view.subject.role
    under.args += [(side.view.subject.role, a, b) for name, a, b in frame.args if name == role]
    frame.args.append(("ARGM-ADV" if link == "Despite" else "ARGM-TMP", 0, end))


SEEN: tuple[Construction, ...] = (
    plain, plain, verb_coordination, subject_relative, reduced_relative, object_relative, final_relative, subordinate,
    repetition, two_clauses, subject_control, object_control, raising, speech,
)  # fmt: skip
HELD: tuple[Construction, ...] = (inverted_speech, cleft, participial)
CONSTRUCTIONS = Pool(SEEN, HELD)


def compose(dice: Dice) -> tuple[Sentence, str]:
    """A whole sentence and the name of its construction."""
    # A held construction is rare even in validation and test: they should not be about these alone.
    pool = CONSTRUCTIONS if dice.chance(0.5) else Pool(SEEN, ())
    build = dice.draw(pool)
    sentence = Sentence()
    build(sentence, dice)
    finish(sentence)
    return sentence, build.__name__


def finish(s: Sentence) -> None:
    """The full stop and the capital letter."""
    if s.words[-1] == ",":
        s.words.pop()
    s.put(".")
    first = s.words[0]
    s.words[0] = first[0].upper() + first[1:]
    s.frames.sort(key=lambda frame: frame.verb)
