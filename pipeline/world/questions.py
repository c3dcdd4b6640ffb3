"""Extractive questions about a few events that share people, firms, times and places, a quarter without an answer."""

from typing import NamedTuple

from pipeline.world import lexicon
from pipeline.world.constructions import JOINS, coordinate, finish
from pipeline.world.grammar import Event, Frame, Sentence, active_words, clause, passive_words
from pipeline.world.lexicon import barred, words
from pipeline.world.phrases import Phrase, event, named, organization, person, thing, timed
from pipeline.world.sampling import Dice
from pipeline.world.verbs import VIEWS, View

# Verbs of one line say the same of the same fillers, so a question may use another one than the text.
FAMILIES = [
    words(family)
    for family in barred(
        "hire.01 appoint.01 recruit.01|dismiss.01 fire.02|promote.01|suspend.01|praise.01 commend.01|criticize.01 scold.01|"
        "interview.01|defend.01|betray.01|thank.01|blame.01|found.01 establish.01|join.01|quit.01|sue.01|manage.01 run.01|"
        "audit.01|acquire.01 absorb.01 swallow.01|outbid.01|sponsor.01 bankroll.01|cancel.01|attend.01|miss.02|win.01|"
        "repair.01 restore.01|paint.01|buy.01|steal.01|lose.02"
    )
]
MAKERS = {"P": person, "O": organization, "E": event, "T": thing}
WHAT = {"P": "who", "O": "which organization", "E": "which event", "T": "what"}
SOMEBODY = {
    "P": Phrase(("somebody",)),
    "O": Phrase(("somebody",)),
    "E": Phrase(("something",)),
    "T": Phrase(("something",)),
}
TMP, LOC = "ARGM-TMP", "ARGM-LOC"


def transitive(roleset: str) -> tuple[View, View]:
    """The active and the passive shape with one object."""
    found = [v for v in VIEWS if v.verb.roleset == roleset and len(v.rest) == 1]
    return found[0], found[1]


SHAPES = {roleset: transitive(roleset) for family in FAMILIES for roleset in family}


def kinds(family: int) -> tuple[str, str]:
    """The kinds of a family's subject and object."""
    view = SHAPES[FAMILIES[family][0]][0]
    return view.subject.kind, view.rest[0].kind


# The other families of the same kinds.
ALIKE = [
    [j for j in range(len(FAMILIES)) if j != i and kinds(j) == kinds(i)]
    for i in range(len(FAMILIES))
]


class Question(NamedTuple):
    """A question and its context; `start` is -1 where the context has no answer."""

    context: str
    question: str
    answer: str
    start: int


class Fact(NamedTuple):
    """An event without its shape: a family of verbs, and the fillers by role."""

    family: int
    fill: dict[str, Phrase]
    negated: bool

    def is_of(self, family: int, given: dict[str, Phrase]) -> bool:
        """Whether the fact holds and has everything that is given."""
        return (
            self.family == family
            and not self.negated
            and all(self.fill.get(r) == p for r, p in given.items())
        )


def several(dice: Dice, kind: str, count: int) -> list[Phrase]:
    """Different fillers of a kind, each with a name to ask for or, as a thing, with words of its own."""
    found: list[Phrase] = []
    while len(found) < count:
        novel = dice.novel
        phrase = MAKERS[kind](dice)
        single = not (phrase.agreeing or phrase.plural)
        if (
            single
            and (phrase.entities or kind == "T")
            and all(p.words != phrase.words for p in found)
        ):
            found.append(phrase)
        else:
            dice.novel = novel
    return found


def settings(dice: Dice, count: int) -> list[dict[str, Phrase]]:
    """When and where each event is: no time and no place twice, and all times of one kind so that none holds another."""
    names: list[str] = []
    prep = dice.pick(["in", "in", "on"])
    times = dice.sample(lexicon.MONTHS if prep == "in" else lexicon.WEEKDAYS, count)
    if dice.chance(0.4):
        prep, times = (
            "in",
            [str(1900 + 31 * at + int(31 * dice.roll())) for at in dice.sample(range(4), count)],
        )
    while len(names) < count:
        name = dice.draw(lexicon.ANY_PLACE if dice.chance(0.6) else lexicon.TOWNS)
        if name not in names:
            names.append(name)
    return [
        {TMP: timed((prep,), [t]), LOC: named([n], "L", ("in",))}
        for t, n in zip(times, names, strict=True)
    ]


def world(dice: Dice) -> list[Fact]:
    """Facts of which the first is asked about; the others differ from it in one or two things."""
    family = int(dice.roll() * len(FAMILIES))
    agent_kind, object_kind = kinds(family)
    count = dice.pick([3, 3, 4])
    where = settings(dice, count)
    same = agent_kind == object_kind
    agents = several(dice, agent_kind, 4 if same else 2)
    objects = agents[2:] if same else several(dice, object_kind, 2)
    pairs = [
        (agents[0], objects[0]),
        (agents[0], objects[1]),
        (agents[1], objects[0]),
        (agents[1], objects[1]),
    ]
    if same and dice.chance(0.6):
        pairs[dice.pick([1, 2])] = (objects[0], agents[0])
    facts: list[Fact] = []
    for at, (agent, patient) in enumerate(pairs[:count]):
        kept = {
            role: phrase
            for role, phrase in where[at].items()
            if dice.chance(0.85 if role == TMP else 0.6)
        }
        if (
            at == 0
        ):  # What is asked about has one setting at least: that makes what is given fit no other.
            kept = kept or where[at]
        facts.append(
            Fact(
                family,
                {"ARG0": agent, "ARG1": patient, **kept},
                negated=at > 0 and dice.chance(0.15),
            )
        )
    if dice.chance(0.4) and ALIKE[family]:
        facts[-1] = facts[-1]._replace(family=dice.pick(ALIKE[family]))
    return facts


def verb_view(dice: Dice, family: int, passive: bool) -> View:
    """A verb of the family in this voice; a held-out one only where the split allows it."""
    rolesets = FAMILIES[family]
    seen = [r for r in rolesets if not SHAPES[r][0].verb.held]
    if dice.held_share and len(seen) < len(rolesets) and dice.chance(dice.held_share):
        dice.novel = True
        seen = [r for r in rolesets if SHAPES[r][0].verb.held]
    return SHAPES[dice.pick(seen or rolesets)][passive]


def told(dice: Dice, fact: Fact, passive: bool) -> Event:
    """The fact as an event."""
    fill = {role: phrase for role, phrase in fact.fill.items() if role in ("ARG0", "ARG1")}
    adjuncts = [(role, phrase) for role, phrase in fact.fill.items() if role not in fill]
    return Event(
        verb_view(dice, fact.family, passive),
        fill,
        dict(dice.sample(adjuncts, len(adjuncts))),
        fact.negated,
    )


def sentences(dice: Dice, facts: list[Fact]) -> list[tuple[Sentence, list[Fact]]]:
    """The facts told in random order, at times two in one sentence."""
    left, said = dice.sample(facts, len(facts)), []
    while left:
        s, fact = Sentence(), left.pop()
        first = told(dice, fact, dice.chance(0.4))
        mates = [f for f in left if f.fill["ARG0"] == fact.fill["ARG0"]]
        used = [fact]
        if mates and not first.view.passive and dice.chance(0.6):
            left.remove(mates[0])
            used.append(mates[0])
            share(s, dice, first, told(dice, mates[0], passive=False))
        elif left and dice.chance(0.25):
            used.append(left.pop())
            clause(s, first, dice)
            s.put(",", dice.pick(JOINS))
            clause(s, told(dice, used[1], dice.chance(0.4)), dice)
        else:
            clause(s, first, dice, front=dice.pick([TMP, LOC, ""]))
        finish(s)
        said.append((s, used))
    return said


def share(s: Sentence, dice: Dice, first: Event, second: Event) -> None:
    """Two events of one agent in one sentence."""
    # "X ran Y and managed Z in 1925" would leave open whether the year is that of both.
    if first.adjuncts.keys() >= second.adjuncts.keys() and dice.chance(0.7):
        coordinate(s, dice, [first, second])
    else:
        clause(s, first, dice, relative=second)


def choose(dice: Dice, facts: list[Fact]) -> tuple[str, dict[str, Phrase], bool]:
    """What to ask for, what to give, and whether that is answerable; what is given fits one fact or none."""
    target = facts[0]
    asked = dice.pick(sorted(target.fill))
    given = {role: phrase for role, phrase in target.fill.items() if role != asked}
    spoilt = spoil(dice, facts, asked, given) if dice.chance(0.27) else None
    asked, given = spoilt or (asked, given)
    # Both kinds say as much: a question's length must not tell whether it has an answer.
    size = dice.pick([2, 2, 2, 3])
    for role in dice.sample(sorted(given), len(given)):
        fewer = {r: p for r, p in given.items() if r != role}
        if (
            len(fewer) >= size
            and {"ARG0", "ARG1"} & fewer.keys()
            and matches(facts, asked, fewer) == (not spoilt)
        ):
            given = fewer
    return asked, given, not spoilt


def matches(facts: list[Fact], asked: str, given: dict[str, Phrase]) -> int:
    """How many facts answer; for an answer there must be no second fact that fits, whether it has what is asked or not."""
    fitting = [fact for fact in facts if fact.is_of(facts[0].family, given)]
    answers = sum(asked in fact.fill for fact in fitting)
    return max(answers, len(fitting)) if answers else 0


def spoil(
    dice: Dice, facts: list[Fact], asked: str, given: dict[str, Phrase]
) -> tuple[str, dict[str, Phrase]] | None:
    """What is given with one part from another fact, or with the roles swapped, or a part that the text leaves out."""
    target, tries = facts[0], []
    missing = [role for role in (TMP, LOC) if role not in target.fill and dice.chance(0.5)]
    tries += [(role, {r: target.fill[r] for r in ("ARG0", "ARG1")}) for role in missing]
    for fact in facts[1:]:
        tries += [(asked, {**given, role: fact.fill[role]}) for role in given if role in fact.fill]
    if {"ARG0", "ARG1"} <= given.keys():
        tries.append((asked, {**given, "ARG0": given["ARG1"], "ARG1": given["ARG0"]}))
    same = len(set(kinds(target.family))) == 1
    for wanted, parts in dice.sample(tries, len(tries)):
        found = matches(facts, wanted, parts)
        swapped = parts.get("ARG0") == target.fill["ARG1"]
        if not found and (same or not swapped) and parts.get("ARG0") != parts.get("ARG1", ()):
            return wanted, parts
    return None


def ask(dice: Dice, family: int, asked: str, given: dict[str, Phrase]) -> Sentence:
    """The question as a sentence, active or passive."""
    fill = {role: phrase for role, phrase in given.items() if role in ("ARG0", "ARG1")}
    passive = dice.chance(0.4) if asked != "ARG0" or "ARG1" in fill else False
    event = Event(
        verb_view(dice, family, passive), fill, {r: p for r, p in given.items() if r not in fill}
    )
    kind = {"ARG0": event.view.subject, "ARG1": event.view.rest[0]}.get(asked)
    if kind and passive:
        kind = event.view.rest[0] if asked == "ARG0" else event.view.subject
    s = Sentence()
    what = {TMP: "when", LOC: "where"}.get(asked) or WHAT[kind.kind if kind else "T"]
    if passive and asked == "ARG0":
        s.put("by")
        what = what.replace("who", "whom")
    s.put(*what.split())
    return interrogative(s, event, asked)


def interrogative(s: Sentence, event: Event, asked: str) -> Sentence:
    """What follows the question word: the auxiliary, the subject unless it is asked for, and the rest."""
    view = event.view
    tense = "past" if view.subject.role == asked or view.passive else "did"
    before, verb = (passive_words if view.passive else active_words)(view.verb, tense, False, False)
    s.put(*before)
    if view.subject.role != asked:
        # The subject may be one that the question leaves out: "When was somebody hired in Oslo ?"
        s.place(event.fill.get(view.subject.role, SOMEBODY[view.subject.kind]))
    s.put(verb)
    rest = [(slot.prep, event.fill.get(slot.role)) for slot in view.rest if slot.role != asked]
    if not view.passive:
        rest = [(prep, phrase or SOMEBODY[view.rest[0].kind]) for prep, phrase in rest]
    for prep, phrase in rest:
        if phrase:
            s.put(*([prep] if prep else []))
            s.place(phrase)
    for phrase in event.adjuncts.values():
        s.place(phrase)
    s.put("?")
    s.words[0] = s.words[0].capitalize()
    return s


def compose_question(dice: Dice) -> Question:
    """A context and a question about it."""
    facts = world(dice)
    asked, given, answerable = choose(dice, facts)
    told_facts = sentences(dice, facts)
    question = detokenize(ask(dice, facts[0].family, asked, given).words)[0]
    context, answer, at = "", "", -1
    for s, used in told_facts:
        text, starts = detokenize(s.words)
        base = len(context) + bool(context)
        context = f"{context} {text}" if context else text
        if answerable and facts[0] in used:
            frame = next(f for f in s.frames if f.event and is_told(f, facts[0]))
            first, last = extent(facts[0].fill[asked], frame.heads[asked])
            at = base + starts[first]
            answer = context[at : base + starts[last - 1] + len(s.words[last - 1])]
    return Question(context, question, answer, at)


def is_told(frame: Frame, fact: Fact) -> bool:
    """Whether the frame is this fact's: no two facts of a context have the same fillers."""
    event = frame.event
    return event is not None and {**event.fill, **event.adjuncts} == fact.fill


def extent(phrase: Phrase, head: int) -> tuple[int, int]:
    """The words that answer: all of a filler but the preposition of a time or a place."""
    adjunct = phrase.words[0] in ("in", "on")
    return head + adjunct, head + len(phrase.words)


def detokenize(tokens: list[str]) -> tuple[str, list[int]]:
    """The tokens as text, and where each begins."""
    text, starts = "", []
    for word in tokens:
        if text and word not in (",", ".", "?", "'s"):
            text += " "
        starts.append(len(text))
        text += word
    return text, starts
