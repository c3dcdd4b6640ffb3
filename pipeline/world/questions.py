"""Generate extractive questions about events that share people, firms, times and places.

A quarter of the questions have no answer in their context.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.world import lexicon
from pipeline.world.constructions import COORDINATORS, coordinate_predicates, finish
from pipeline.world.grammar import Event, Frame, Sentence, active_forms, add_clause, passive_forms
from pipeline.world.phrases import (
    Phrase,
    event_phrase,
    name_phrase,
    organization_phrase,
    person_phrase,
    thing_phrase,
    time_phrase,
)
from pipeline.world.sampling import RowRandom
from pipeline.world.verbs import PATTERNS, Pattern

# Each line is a family of synonymous verbs: a question may use another verb of the family than
# its context.
FAMILIES = [
    line.split()
    for line in """
hire.01 appoint.01 recruit.01
dismiss.01 fire.02
promote.01
suspend.01
praise.01 commend.01
criticize.01 scold.01
interview.01
defend.01
betray.01
thank.01
blame.01
found.01 establish.01
join.01
quit.01
sue.01
manage.01 run.01
audit.01
acquire.01 absorb.01 swallow.01
outbid.01
sponsor.01 bankroll.01
cancel.01
attend.01
miss.02
win.01
repair.01 restore.01
paint.01
buy.01
steal.01
lose.02
""".strip().splitlines()
]
GENERATORS = {
    "P": person_phrase,
    "O": organization_phrase,
    "E": event_phrase,
    "T": thing_phrase,
}
QUESTION_WORDS = {"P": "who", "O": "which organization", "E": "which event", "T": "what"}
SOMEBODY, SOMETHING = Phrase(("somebody",)), Phrase(("something",))
INDEFINITES = {"P": SOMEBODY, "O": SOMEBODY, "E": SOMETHING, "T": SOMETHING}
AGENT, PATIENT, TIME, PLACE = "ARG0", "ARG1", "ARGM-TMP", "ARGM-LOC"
CORE_ROLES = (AGENT, PATIENT)
UNANSWERABLE_RATE = 0.27  # some attempts fail, so a quarter of all questions has no answer

Arguments = dict[str, Phrase]  # by role


def transitive_patterns(roleset: str) -> tuple[Pattern, Pattern]:
    """Return the active and the passive pattern with one object."""
    active, passive, *_ = [
        pattern
        for pattern in PATTERNS
        if pattern.verb.roleset == roleset and len(pattern.complements) == 1
    ]
    return active, passive


TRANSITIVE = {roleset: transitive_patterns(roleset) for family in FAMILIES for roleset in family}


def argument_kinds(family: int) -> tuple[str, str]:
    """Return the kinds of a family's subject and object."""
    active, _ = TRANSITIVE[FAMILIES[family][0]]
    return active.subject.kind, active.complements[0].kind


def families_like(family: int) -> list[int]:
    """Return the other families with the same kinds of subject and object."""
    kinds = argument_kinds(family)
    return [
        other
        for other in range(len(FAMILIES))
        if other != family and argument_kinds(other) == kinds
    ]


SIMILAR_FAMILIES = [families_like(family) for family in range(len(FAMILIES))]


class Question(NamedTuple):
    """A question and its context; `start` is -1 if the context has no answer."""

    context: str
    question: str
    answer: str
    start: int


class Fact(NamedTuple):
    """An event without its wording: a family of verbs, and arguments and adjuncts by role."""

    family: int
    arguments: Arguments
    negated: bool

    def fits(self, family: int, clues: Arguments) -> bool:
        """Whether the fact is of this family, is not negated and contains all clues."""
        return (
            self.family == family
            and not self.negated
            and all(self.arguments.get(role) == phrase for role, phrase in clues.items())
        )


def distinct_phrases(rng: RowRandom, kind: str, count: int) -> list[Phrase]:
    """Generate different singular phrases of a kind; each is a thing or has a name."""
    phrases: list[Phrase] = []
    while len(phrases) < count:
        used_held_out = rng.used_held_out
        phrase = GENERATORS[kind](rng)
        is_singular = not (phrase.ambiguous_number or phrase.plural)
        is_specific = bool(phrase.entities) or kind == "T"
        is_new = all(other.words != phrase.words for other in phrases)
        if is_singular and is_specific and is_new:
            phrases.append(phrase)
        else:
            rng.used_held_out = used_held_out
    return phrases


def sample_settings(rng: RowRandom, count: int) -> list[Arguments]:
    """Generate the time and place of each event.

    All times and places differ, and all times are of one kind (months, weekdays or years), so
    that no time contains another.
    """
    preposition = rng.choice(["in", "in", "on"])
    times = rng.sample(lexicon.MONTHS if preposition == "in" else lexicon.WEEKDAYS, count)
    if rng.chance(0.4):
        preposition = "in"
        periods = rng.sample(range(4), count)
        times = [str(1900 + 31 * period + int(31 * rng.random())) for period in periods]
    places: list[str] = []
    while len(places) < count:
        place = rng.draw(lexicon.AMBIGUOUS_PLACES if rng.chance(0.6) else lexicon.TOWNS)
        if place not in places:
            places.append(place)
    return [
        {TIME: time_phrase((preposition,), [time]), PLACE: name_phrase([place], "L", ("in",))}
        for time, place in zip(times, places, strict=True)
    ]


def sample_facts(rng: RowRandom) -> list[Fact]:
    """Generate facts; the question is about the first, the others differ in one or two things."""
    family = int(rng.random() * len(FAMILIES))
    count = rng.choice([3, 3, 4])
    settings = sample_settings(rng, count)
    facts: list[Fact] = []
    for index, (agent, patient) in enumerate(sample_participants(rng, family)[:count]):
        setting = keep_some(rng, settings[index])
        if index == 0 and not setting:
            # The first fact needs a setting so that the clues of the question fit no other fact.
            setting = settings[index]
        negated = index > 0 and rng.chance(0.15)
        facts.append(Fact(family, {AGENT: agent, PATIENT: patient, **setting}, negated))
    if rng.chance(0.4) and SIMILAR_FAMILIES[family]:
        facts[-1] = facts[-1]._replace(family=rng.choice(SIMILAR_FAMILIES[family]))
    return facts


def sample_participants(rng: RowRandom, family: int) -> list[tuple[Phrase, Phrase]]:
    """Generate four pairs of agent and patient from two agents and two patients."""
    agent_kind, patient_kind = argument_kinds(family)
    same_kind = agent_kind == patient_kind
    agents = distinct_phrases(rng, agent_kind, 4 if same_kind else 2)
    patients = agents[2:] if same_kind else distinct_phrases(rng, patient_kind, 2)
    pairs = [(agent, patient) for agent in agents[:2] for patient in patients]
    if same_kind and rng.chance(0.6):
        pairs[rng.choice([1, 2])] = (patients[0], agents[0])
    return pairs


def keep_some(rng: RowRandom, setting: Arguments) -> Arguments:
    """Return a random subset of a setting."""
    return {
        role: phrase
        for role, phrase in setting.items()
        if rng.chance(0.85 if role == TIME else 0.6)
    }


def sample_verb(rng: RowRandom, family: int, passive: bool) -> Pattern:
    """Draw a verb of the family in this voice; a held-out verb only if the split permits it."""
    rolesets = FAMILIES[family]
    candidates = [name for name in rolesets if not TRANSITIVE[name][0].verb.held_out]
    has_held_out = len(candidates) < len(rolesets)
    if rng.held_out_rate and has_held_out and rng.chance(rng.held_out_rate):
        rng.used_held_out = True
        candidates = [name for name in rolesets if TRANSITIVE[name][0].verb.held_out]
    return TRANSITIVE[rng.choice(candidates or rolesets)][passive]


def event_of(rng: RowRandom, fact: Fact, passive: bool) -> Event:
    """Choose a verb for the fact, and a random order of its adjuncts."""
    core, adjuncts = split_core(fact.arguments)
    pattern = sample_verb(rng, fact.family, passive)
    order = rng.sample(list(adjuncts.items()), len(adjuncts))
    return Event(pattern, core, dict(order), fact.negated)


def split_core(arguments: Arguments) -> tuple[Arguments, Arguments]:
    """Split into agent and patient, and adjuncts."""
    core = {role: phrase for role, phrase in arguments.items() if role in CORE_ROLES}
    adjuncts = {role: phrase for role, phrase in arguments.items() if role not in CORE_ROLES}
    return core, adjuncts


def write_sentences(rng: RowRandom, facts: list[Fact]) -> list[tuple[Sentence, list[Fact]]]:
    """Write the facts in random order, sometimes two in a sentence.

    Returns each sentence with its facts.
    """
    remaining = rng.sample(facts, len(facts))
    sentences: list[tuple[Sentence, list[Fact]]] = []
    while remaining:
        sentence, fact = Sentence(), remaining.pop()
        first = event_of(rng, fact, rng.chance(0.4))
        same_agent = [
            other for other in remaining if other.arguments[AGENT] == fact.arguments[AGENT]
        ]
        facts_here = [fact]
        if same_agent and not first.pattern.passive and rng.chance(0.6):
            remaining.remove(same_agent[0])
            facts_here.append(same_agent[0])
            write_shared_agent(sentence, rng, first, event_of(rng, same_agent[0], passive=False))
        elif remaining and rng.chance(0.25):
            facts_here.append(remaining.pop())
            add_clause(sentence, first, rng)
            sentence.add_words(",", rng.choice(COORDINATORS))
            add_clause(sentence, event_of(rng, facts_here[1], rng.chance(0.4)), rng)
        else:
            add_clause(sentence, first, rng, front=rng.choice([TIME, PLACE, ""]))
        finish(sentence)
        sentences.append((sentence, facts_here))
    return sentences


def write_shared_agent(sentence: Sentence, rng: RowRandom, first: Event, second: Event) -> None:
    """Write two events with the same agent in one sentence."""
    # In "X ran Y and managed Z in 1925" the year could apply to either event or to both.
    if first.adjuncts.keys() >= second.adjuncts.keys() and rng.chance(0.7):
        coordinate_predicates(sentence, rng, [first, second])
    else:
        add_clause(sentence, first, rng, relative=second)


def choose_question(rng: RowRandom, facts: list[Fact]) -> tuple[str, Arguments, bool]:
    """Choose the role to ask for and the clues of the question.

    Returns the role, the clues and whether the question is answerable. The clues fit exactly one
    fact if it is, and no fact otherwise.
    """
    target = facts[0]
    asked_role = rng.choice(sorted(target.arguments))
    clues = {role: phrase for role, phrase in target.arguments.items() if role != asked_role}
    unanswerable = (
        make_unanswerable(rng, facts, asked_role, clues) if rng.chance(UNANSWERABLE_RATE) else None
    )
    asked_role, clues = unanswerable or (asked_role, clues)
    # Answerable and unanswerable questions have equally many clues, so that the length of a
    # question does not reveal whether it has an answer.
    min_clues = rng.choice([2, 2, 2, 3])
    for role in rng.sample(sorted(clues), len(clues)):
        fewer = {other: phrase for other, phrase in clues.items() if other != role}
        enough = len(fewer) >= min_clues and not fewer.keys().isdisjoint(CORE_ROLES)
        if enough and count_answers(facts, asked_role, fewer) == (not unanswerable):
            clues = fewer
    return asked_role, clues, not unanswerable


def count_answers(facts: list[Fact], asked_role: str, clues: Arguments) -> int:
    """Return the number of facts that fit the clues; 0 if none of them has the role `asked_role`.

    A question is answerable at 1. Above 1 it is ambiguous, even if only one fact has the role.
    """
    fitting = [fact for fact in facts if fact.fits(facts[0].family, clues)]
    has_answer = any(asked_role in fact.arguments for fact in fitting)
    return len(fitting) if has_answer else 0


def make_unanswerable(
    rng: RowRandom, facts: list[Fact], asked_role: str, clues: Arguments
) -> tuple[str, Arguments] | None:
    """Change the role or the clues so that no fact answers; None if there is no such change.

    A change asks for a missing time or place, takes one clue from another fact, or swaps the
    agent and the patient.
    """
    target = facts[0]
    missing = [role for role in (TIME, PLACE) if role not in target.arguments and rng.chance(0.5)]
    core, _ = split_core(target.arguments)
    changes = [(role, core) for role in missing]
    for fact in facts[1:]:
        shared_roles = [role for role in clues if role in fact.arguments]
        changes += [(asked_role, {**clues, role: fact.arguments[role]}) for role in shared_roles]
    if clues.keys() >= set(CORE_ROLES):
        changes.append((asked_role, {**clues, AGENT: clues[PATIENT], PATIENT: clues[AGENT]}))
    same_kind = len(set(argument_kinds(target.family))) == 1
    for new_role, new_clues in rng.sample(changes, len(changes)):
        agent = new_clues.get(AGENT)
        if agent == target.arguments[PATIENT] and not same_kind:
            continue
        if agent == new_clues.get(PATIENT, ()):
            continue
        if not count_answers(facts, new_role, new_clues):
            return new_role, new_clues
    return None


def write_question(rng: RowRandom, family: int, asked_role: str, clues: Arguments) -> Sentence:
    """Write the question, active or passive."""
    core, adjuncts = split_core(clues)
    passive = rng.chance(0.4) if asked_role != AGENT or PATIENT in core else False
    event = Event(sample_verb(rng, family, passive), core, adjuncts)
    sentence = Sentence()
    words = {TIME: "when", PLACE: "where"}.get(asked_role)
    if words is None:
        slots = (event.pattern.subject, *event.pattern.complements)
        words = QUESTION_WORDS[next(slot.kind for slot in slots if slot.role == asked_role)]
    if passive and asked_role == AGENT:
        sentence.add_words("by")
        words = words.replace("who", "whom")
    sentence.add_words(*words.split())
    return add_interrogative(sentence, event, asked_role)


def add_interrogative(sentence: Sentence, event: Event, asked_role: str) -> Sentence:
    """Append the auxiliary, the subject unless the question asks for it, and the other words."""
    pattern = event.pattern
    subject = pattern.subject
    inflect = passive_forms if pattern.passive else active_forms
    tense = "past" if subject.role == asked_role or pattern.passive else "did"
    auxiliaries, verb = inflect(pattern.verb, tense, False, False)
    sentence.add_words(*auxiliaries)
    if subject.role != asked_role:
        # A question without this clue: "When was somebody hired in Oslo ?"
        sentence.add_phrase(event.arguments.get(subject.role, INDEFINITES[subject.kind]))
    sentence.add_words(verb)
    for slot in pattern.complements:
        if slot.role == asked_role:
            continue
        phrase = event.arguments.get(slot.role)
        if phrase is None and not pattern.passive:
            phrase = INDEFINITES[slot.kind]
        if phrase:
            sentence.add_words(*([slot.preposition] if slot.preposition else []))
            sentence.add_phrase(phrase)
    for phrase in event.adjuncts.values():
        sentence.add_phrase(phrase)
    sentence.add_words("?")
    sentence.words[0] = sentence.words[0].capitalize()
    return sentence


def compose_question(rng: RowRandom) -> Question:
    """Generate a context and a question about it."""
    facts = sample_facts(rng)
    asked_role, clues, answerable = choose_question(rng, facts)
    sentences = write_sentences(rng, facts)
    question, _ = detokenize(write_question(rng, facts[0].family, asked_role, clues).words)
    context, answer, answer_start = "", "", -1
    for sentence, facts_here in sentences:
        text, starts = detokenize(sentence.words)
        offset = len(context) + bool(context)
        context = f"{context} {text}" if context else text
        if answerable and facts[0] in facts_here:
            first, last = answer_words(sentence.frames, facts[0], asked_role)
            answer_start = offset + starts[first]
            answer = context[answer_start : offset + starts[last] + len(sentence.words[last])]
    return Question(context, question, answer, answer_start)


def answer_words(frames: Iterable[Frame], fact: Fact, asked_role: str) -> tuple[int, int]:
    """Return the first and last word (inclusive) of the answer.

    The preposition of a time or a place is not part of the answer.
    """
    frame = next(frame for frame in frames if expresses(frame, fact))
    phrase, head = fact.arguments[asked_role], frame.heads[asked_role]
    has_preposition = phrase.words[0] in ("in", "on")
    return head + has_preposition, head + len(phrase.words) - 1


def expresses(frame: Frame, fact: Fact) -> bool:
    """Whether the frame expresses this fact; no two facts of a context have the same arguments."""
    event = frame.event
    return event is not None and {**event.arguments, **event.adjuncts} == fact.arguments


def detokenize(tokens: list[str]) -> tuple[str, list[int]]:
    """Join tokens into a text; return the text and the start of each token in it."""
    text, starts = "", []
    for token in tokens:
        if text and token not in (",", ".", "?", "'s"):
            text += " "
        starts.append(len(text))
        text += token
    return text, starts
