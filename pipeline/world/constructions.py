"""Combine one to three events into a sentence.

`HELD_OUT` constructions occur in validation and test only.
"""

from collections.abc import Callable
from dataclasses import replace

from pipeline.world import verbs
from pipeline.world.grammar import (
    Event,
    Frame,
    Sentence,
    Span,
    add_clause,
    add_predicate,
    add_relative_clause,
    sample_event,
    sample_pattern,
)
from pipeline.world.phrases import Phrase, person_phrase, sample_filler
from pipeline.world.sampling import Pool, RowRandom
from pipeline.world.verbs import BY_BASE, BY_OBJECT

Construction = Callable[[Sentence, RowRandom], object]
SUBORDINATORS = ("after", "before", "while", "because", "although", "when")
SUBORDINATOR_ROLES = {"because": "ARGM-CAU", "although": "ARGM-ADV"}  # others are ARGM-TMP
COORDINATORS = ("and", "but", "while", "whereas")


def sample_subject_kind(rng: RowRandom) -> str:
    """Draw the kind of a sentence's subject."""
    return rng.choice("PPPPPOOOOOLLETT")


def new_event(rng: RowRandom, subject_kind: str = "", adjunct_rate: float = 0.6) -> Event:
    """Generate an event; the kind of its subject is random unless the caller sets it."""
    pattern = sample_pattern(rng, subject_kind or sample_subject_kind(rng))
    return sample_event(rng, pattern, adjunct_rate=adjunct_rate)


def event_with_subject(
    rng: RowRandom, subject: Phrase, kind: str, previous: Event, passive_rate: float = 0.35
) -> Event:
    """Generate an event with this subject and another verb than that of the previous event."""
    while True:
        used_held_out = rng.used_held_out
        pattern = sample_pattern(rng, kind, passive_rate)
        if pattern.verb.base != previous.pattern.verb.base:
            break
        rng.used_held_out = used_held_out
    event = sample_event(rng, pattern, adjunct_rate=0.5)
    event.arguments[event.pattern.subject.role] = subject
    return event


def event_with_same_subject(rng: RowRandom, first: Event, passive_rate: float = 0.35) -> Event:
    """Generate an event with the subject of `first` and another verb."""
    kind = first.pattern.subject.kind
    return event_with_subject(rng, first.subject, kind, first, passive_rate)


def simple_clause(sentence: Sentence, rng: RowRandom) -> None:
    """One clause, often with its adjunct in front: "In May X hired Y"."""
    pattern = sample_pattern(rng, sample_subject_kind(rng))
    event = sample_event(rng, pattern, coordination=0.3, adjunct_rate=1.6)
    front = next(iter(event.adjuncts), "") if rng.chance(0.5) else ""
    add_clause(sentence, event, rng, front="" if front == "ARGM-MNR" else front)


def verb_coordination(sentence: Sentence, rng: RowRandom) -> None:
    """Two predicates with one subject: "X hired Y and was praised by Z"."""
    first = new_event(rng)
    second = event_with_same_subject(rng, first)
    coordinate_predicates(sentence, rng, [first, second])


def coordinate_predicates(sentence: Sentence, rng: RowRandom, events: list[Event]) -> None:
    """Append one clause with the predicates of events that share a subject."""
    frame = add_clause(sentence, events[0], rng, any_tense=False)
    role = events[0].pattern.subject.role
    span = next((start, end) for name, start, end in frame.args if name == role)
    for event in events[1:]:
        sentence.add_words(rng.choice(["and", "but"]))
        next_frame = add_predicate(sentence, event, "past")
        next_frame.args.append((event.pattern.subject.role, *span))
        next_frame.heads[event.pattern.subject.role] = frame.heads[role]


def subject_relative(sentence: Sentence, rng: RowRandom) -> None:
    """The main subject is the subject of a relative clause: "X , who hired Y , left Z"."""
    first = new_event(rng)
    add_clause(sentence, first, rng, relative=event_with_same_subject(rng, first))


def reduced_relative(sentence: Sentence, rng: RowRandom) -> None:
    """A bare participle: "X , hired by Y , left Z"."""
    first = new_event(rng)
    second = replace(event_with_same_subject(rng, first, passive_rate=1.0), negated=False)
    add_clause(sentence, first, rng, relative=second, relative_type="reduced")


def object_relative(sentence: Sentence, rng: RowRandom) -> None:
    """The main subject is the object of a relative clause: "X , whom Y hired , left Z"."""
    first = new_event(rng)
    pattern = rng.draw(BY_OBJECT[first.pattern.subject.kind])
    second = sample_event(rng, pattern, adjunct_rate=0.5)
    second.arguments[pattern.complements[0].role] = first.subject
    add_clause(sentence, first, rng, relative=second, relative_type="object")


def final_relative(sentence: Sentence, rng: RowRandom) -> None:
    """A relative clause on the last argument: "X hired Y , who left Z"."""
    first = new_event(rng, adjunct_rate=0)
    frame = add_clause(sentence, first, rng)
    slots = [slot for slot in first.pattern.complements if slot.role in first.arguments]
    if not slots or first.arguments[slots[-1].role].plural:
        return
    slot = slots[-1]
    index = max(i for i, arg in enumerate(frame.args) if arg[0] == slot.role)
    phrase, start = first.arguments[slot.role], frame.args[index][1]
    span = frame.heads[slot.role], len(sentence.words)
    sentence.add_words(",")
    second = event_with_subject(rng, phrase, slot.kind, first)
    add_relative_clause(sentence, second, "subject", phrase, span)
    frame.args[index] = (slot.role, start, len(sentence.words))


def subordination(sentence: Sentence, rng: RowRandom) -> None:
    """A subordinate clause before or after the main clause: "X hired Y after Z left W"."""
    main, subordinate = new_event(rng, adjunct_rate=0.4), new_event(rng, adjunct_rate=0.4)
    subordinate_clauses(sentence, rng, main, subordinate)


def subordinate_clauses(
    sentence: Sentence, rng: RowRandom, main: Event, subordinate: Event
) -> None:
    """Append a main and a subordinate clause in random order."""
    subordinator = rng.choice(SUBORDINATORS)
    subordinate_first = rng.chance(0.35)
    frame = None if subordinate_first else add_clause(sentence, main, rng)
    start = len(sentence.words)
    sentence.add_words(subordinator)
    add_clause(sentence, subordinate, rng, any_tense=not subordinate_first)
    end = len(sentence.words)
    if frame is None:
        sentence.add_words(",")
        frame = add_clause(sentence, main, rng)
    frame.args.append((SUBORDINATOR_ROLES.get(subordinator, "ARGM-TMP"), start, end))


def repetition(sentence: Sentence, rng: RowRandom) -> None:
    """The same verb twice with different arguments: "X praised Y after Z was praised by W"."""
    pattern = sample_pattern(rng, sample_subject_kind(rng))
    pool = BY_BASE[pattern.verb.base]
    other_pattern = rng.choice(pool.seen or pool.held_out)
    first = sample_event(rng, pattern, adjunct_rate=0.4)
    second = sample_event(rng, other_pattern, adjunct_rate=0.4)
    if rng.chance(0.6):
        subordinate_clauses(sentence, rng, first, second)
    else:
        coordinate_clauses(sentence, rng, first, second)


def coordinate_clauses(sentence: Sentence, rng: RowRandom, first: Event, second: Event) -> None:
    """Append two main clauses."""
    add_clause(sentence, first, rng)
    if rng.chance(0.7):
        sentence.add_words(",")
    sentence.add_words(rng.choice(COORDINATORS))
    add_clause(sentence, second, rng)


def two_clauses(sentence: Sentence, rng: RowRandom) -> None:
    """Two independent main clauses: "X hired Y , but Z left W"."""
    first, second = new_event(rng, adjunct_rate=0.4), new_event(rng, adjunct_rate=0.4)
    coordinate_clauses(sentence, rng, first, second)


def add_infinitive(sentence: Sentence, event: Event, subject: Span) -> Span:
    """Append "to V ..." for a subject at another position; return the span of the infinitive."""
    start = len(sentence.words)
    frame = add_predicate(sentence, event, "to")
    frame.args.append((event.pattern.subject.role, *subject))
    return start, len(sentence.words)


def add_phrase_span(sentence: Sentence, phrase: Phrase) -> Span:
    """Append a phrase and return its span."""
    start, _ = sentence.add_phrase(phrase)
    return start, len(sentence.words)


def subject_control(sentence: Sentence, rng: RowRandom) -> None:
    """X is the subject of both verbs: "X refused to hire Y"."""
    event = new_event(rng, rng.choice("PPO"), adjunct_rate=0.8)
    subject = add_phrase_span(sentence, event.subject)
    frame = sentence.add_matrix_verb(*rng.draw(verbs.SUBJECT_CONTROL))
    infinitive = add_infinitive(sentence, event, subject)
    frame.args += [("ARG0", *subject), ("ARG1", *infinitive)]


def object_control(sentence: Sentence, rng: RowRandom) -> None:
    """An infinitive after an object: in "X asked Y to hire Z" Y hires, after "promised" X does."""
    promise = rng.chance(0.4)
    event = new_event(rng, rng.choice("PPO"), adjunct_rate=0.5)
    other = person_phrase(rng)
    outer, inner = (event.subject, other) if promise else (other, event.subject)
    subject = add_phrase_span(sentence, outer)
    roleset, verb = rng.draw(verbs.PROMISE if promise else verbs.OBJECT_CONTROL)
    frame = sentence.add_matrix_verb(roleset, verb)
    start = len(sentence.words) - len(verb.split()) + 1
    object_ = add_phrase_span(sentence, inner)
    infinitive = add_infinitive(sentence, event, subject if promise else object_)
    roles = ("ARG2", "ARG1") if promise else ("ARG1", "ARG2")
    frame.args += [("ARG0", *subject), (roles[0], start, object_[1]), (roles[1], *infinitive)]


def raising(sentence: Sentence, rng: RowRandom) -> None:
    """The subject of "seem" is an argument of the other verb only: "X seemed to hire Y"."""
    event = new_event(rng, adjunct_rate=0.8)
    subject = add_phrase_span(sentence, event.subject)
    frame = sentence.add_matrix_verb(*rng.draw(verbs.RAISING))
    infinitive = add_infinitive(sentence, event, subject)
    frame.args += [("ARG1", *subject), ("C-ARG1", *infinitive)]


def speech(sentence: Sentence, rng: RowRandom) -> None:
    """Reported speech: "Z said that X hired Y" or "X hired Y , Z said"."""
    event, speaker = new_event(rng, adjunct_rate=0.7), sample_filler(rng, "P")
    speech_first = rng.chance(0.5)
    speech_span = 0, 0
    if speech_first:
        add_clause(sentence, event, rng)
        speech_span = 0, len(sentence.words)
        sentence.add_words(",")
    speaker_span = add_phrase_span(sentence, speaker)
    frame = sentence.add_matrix_verb(*rng.draw(verbs.SPEECH))
    if not speech_first:
        start = len(sentence.words)
        if rng.chance(0.6):
            sentence.add_words("that")
        add_clause(sentence, event, rng)
        speech_span = start, len(sentence.words)
    frame.args += [("ARG0", *speaker_span), ("ARG1", *speech_span)]


def inverted_speech(sentence: Sentence, rng: RowRandom) -> None:
    """Reported speech with the speaker last: "X hired Y , said Z"."""
    add_clause(sentence, new_event(rng, adjunct_rate=0.7), rng)
    end = len(sentence.words)
    sentence.add_words(",")
    frame = sentence.add_matrix_verb(*rng.draw(verbs.SPEECH))
    speaker_span = add_phrase_span(sentence, person_phrase(rng))
    frame.args += [("ARG1", 0, end), ("ARG0", *speaker_span)]


def cleft(sentence: Sentence, rng: RowRandom) -> None:
    """A cleft sentence: "It was X who hired Y"."""
    event = new_event(rng, adjunct_rate=0.8)
    sentence.add_words("It", "was")
    span = add_phrase_span(sentence, event.subject)
    add_relative_clause(sentence, event, "subject", event.subject, span)


def participial(sentence: Sentence, rng: RowRandom) -> None:
    """X is the subject of the participle and of the main verb: "After hiring Y , X left Z"."""
    main = new_event(rng, adjunct_rate=0.5)
    participle = replace(event_with_same_subject(rng, main), negated=False)
    preposition = rng.choice(["After", "Before", "Despite", "While"])
    sentence.add_words(preposition)
    participle_frame = add_predicate(sentence, participle, "ing")
    end = len(sentence.words)
    sentence.add_words(",")
    frame: Frame = add_clause(sentence, main, rng)
    role = main.pattern.subject.role
    participle_role = participle.pattern.subject.role
    participle_frame.args += [
        (participle_role, start, stop) for name, start, stop in frame.args if name == role
    ]
    frame.args.append(("ARGM-ADV" if preposition == "Despite" else "ARGM-TMP", 0, end))


SEEN: tuple[Construction, ...] = (
    simple_clause,
    simple_clause,
    verb_coordination,
    subject_relative,
    reduced_relative,
    object_relative,
    final_relative,
    subordination,
    repetition,
    two_clauses,
    subject_control,
    object_control,
    raising,
    speech,
)
HELD_OUT: tuple[Construction, ...] = (inverted_speech, cleft, participial)
CONSTRUCTIONS = Pool(SEEN, HELD_OUT)


def compose(rng: RowRandom) -> tuple[Sentence, str]:
    """Generate a whole sentence; return it with the name of its construction."""
    # Held-out constructions are rare in validation and test too: these splits also measure
    # held-out names and verbs.
    pool = CONSTRUCTIONS if rng.chance(0.5) else Pool(SEEN, ())
    construction = rng.draw(pool)
    sentence = Sentence()
    construction(sentence, rng)
    finish(sentence)
    return sentence, construction.__name__


def finish(sentence: Sentence) -> None:
    """Add the full stop and the initial capital, and sort the frames by position."""
    if sentence.words[-1] == ",":
        sentence.words.pop()
    sentence.add_words(".")
    first = sentence.words[0]
    sentence.words[0] = first[0].upper() + first[1:]
    sentence.frames.sort(key=lambda frame: frame.verb)
