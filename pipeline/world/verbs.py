"""The verbs of the generated world with their arguments, in the manner of PropBank.

Each line of `FRAMES` has a roleset, past form, participle, -ing form, subject and complements;
`/` separates alternative complements. A slot is `[preposition:]` role type:

- `0O` is an ARG0 of type organization; `to:2P` is "to" and an ARG2 of type person.
- Types: P person, O organization, L place, E event, T thing. The role `L` means ARGM-LOC.
- `-` means no complement, a leading `!` forbids the passive, and a trailing `*` keeps the verb out
  of the training set.

A slot has exactly one type, so the verb and its syntax determine the type of an ambiguous name.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

from pipeline.world.sampling import Pool

KeyT = TypeVar("KeyT", bound=Hashable)

FRAMES = """
praise.01 praised praised praising 0P 1P
criticize.01 criticized criticized criticizing 0P 1P
marry.01 married married marrying 0P 1P
thank.01 thanked thanked thanking 0P 1P
blame.01 blamed blamed blaming 0P 1P
defend.01 defended defended defending 0P 1P
betray.01 betrayed betrayed betraying 0P 1P
forgive.01 forgave forgiven forgiving 0P 1P
interview.01 interviewed interviewed interviewing 0P 1P
outlive.01 outlived outlived outliving !0P 1P
commend.01 commended commended commending 0P 1P *
scold.01 scolded scolded scolding 0P 1P *
congratulate.01 congratulated congratulated congratulating 0P 1P *
resemble.01 resembled resembled resembling !1P 2P
hire.01 hired hired hiring 0O 1P
dismiss.01 dismissed dismissed dismissing 0O 1P
promote.01 promoted promoted promoting 0O 1P
suspend.01 suspended suspended suspending 0O 1P
appoint.01 appointed appointed appointing 0O 1P
replace.01 replaced replaced replacing 0O 1P+with:2P
recruit.01 recruited recruited recruiting 0O 1P *
fire.02 fired fired firing 0O 1P *
found.01 founded founded founding 0P 1O
join.01 joined joined joining 0P 1O
quit.01 quit quit quitting 0P 1O
sue.01 sued sued suing 0P 1O
manage.01 managed managed managing 0P 1O
run.01 ran run running 0P 1O
audit.01 audited audited auditing 0P 1O
work.01 worked worked working 0P for:1O
resign.01 resigned resigned resigning 0P from:1O
establish.01 established established establishing 0P 1O *
advise.01 advised advised advising 0P 1O *
acquire.01 acquired acquired acquiring 0O 1O/1O+from:2O
outbid.01 outbid outbid outbidding 0O 1O
absorb.01 absorbed absorbed absorbing 0O 1O
outsell.01 outsold outsold outselling 0O 1O
merge.01 merged merged merging 1O with:2O
compete.01 competed competed competing 0O with:1O
swallow.01 swallowed swallowed swallowing 0O 1O *
underwrite.01 underwrote underwritten underwriting 0O 1O *
visit.01 visited visited visiting 0P 1L
tour.01 toured toured touring 0P 1L
flee.01 fled fled fleeing 0P 1L
explore.01 explored explored exploring 0P 1L
govern.01 governed governed governing 0P 1L
leave.01 left left leaving 0P 1L/1L+for:2L
travel.01 traveled traveled traveling 0P to:4L/from:3L+to:4L
run.02 ran run running 0P to:4L
live.01 lived lived living 0P in:LL
arrive.01 arrived arrived arriving 1P in:4L
move.01 moved moved moving 1P to:2L/from:3L+to:2L
roam.01 roamed roamed roaming 0P 1L *
settle.03 settled settled settling 0P in:LL *
pollute.01 polluted polluted polluting 0O 1L
expand.01 expanded expanded expanding 1O into:4L
withdraw.01 withdrew withdrawn withdrawing 0O from:2L
border.01 bordered bordered bordering 0L 1L
overlook.01 overlooked overlooked overlooking !0L 1L
invade.01 invaded invaded invading 0L 1L
annex.01 annexed annexed annexing 0L 1L
adjoin.01 adjoined adjoined adjoining 0L 1L *
elect.01 elected elected electing 0L 1P
banish.01 banished banished banishing 0L 1P/1P+to:2L
mourn.01 mourned mourned mourning 0L 1P
deport.01 deported deported deporting 0L 1P+to:2L *
host.01 hosted hosted hosting 0L 1E
sponsor.01 sponsored sponsored sponsoring 0O 1E
cancel.01 canceled canceled canceling 0O 1E
broadcast.01 broadcast broadcast broadcasting 0O 1E
bankroll.01 bankrolled bankrolled bankrolling 0O 1E *
win.01 won won winning 0P 1E
attend.01 attended attended attending 0P 1E
miss.02 missed missed missing 0P 1E
survive.01 survived survived surviving 0P 1E
witness.01 witnessed witnessed witnessing 0P 1E *
inspire.01 inspired inspired inspiring 0E 1P
enrich.01 enriched enriched enriching 0E 1O
devastate.01 devastated devastated devastating 0E 1L
end.01 ended ended ending 1E -
begin.01 began begun beginning 1E -
unsettle.01 unsettled unsettled unsettling 0E 1L *
repair.01 repaired repaired repairing 0P 1T
paint.01 painted painted painting 0P 1T
carry.01 carried carried carrying 0P 1T/1T+to:2L
lose.02 lost lost losing 0P 1T
fear.01 feared feared fearing 0P 1T
own.01 owned owned owning 0P 1T
break.01 broke broken breaking 0P 1T
break.01 broke broken breaking 1T -
sink.01 sank sunk sinking 0P 1T
sink.01 sank sunk sinking 1T -
burn.01 burned burned burning 1T -
vanish.01 vanished vanished vanishing 1T -
fall.01 fell fallen falling 1T -
belong.01 belonged belonged belonging 0T to:1P
frighten.01 frightened frightened frightening 0T 1P
please.01 pleased pleased pleasing 0T 1P
collapse.01 collapsed collapsed collapsing 1T - *
restore.01 restored restored restoring 0P 1T *
sleep.01 slept slept sleeping 0P -
speak.01 spoke spoken speaking 0P to:2P
laugh.01 laughed laughed laughing 0P at:1P
complain.01 complained complained complaining 0P about:1O
buy.01 bought bought buying 0P 1T/1T+from:2O
steal.01 stole stolen stealing 0P 1T/1T+from:2O
rob.01 robbed robbed robbing 0P 2O/2O+of:1T
borrow.01 borrowed borrowed borrowing 0P 1T+from:2P
receive.01 received received receiving !0P 1T+from:2O
give.01 gave given giving 0P 2P+1T/1T+to:2P
send.01 sent sent sending 0P 2P+1T/1T+to:2P
lend.01 lent lent lending 0P 2P+1T/1T+to:2P
show.01 showed shown showing 0P 2P+1T/1T+to:2P
leave.02 left left leaving 0P 2P+1T/1T+to:2P
hand.01 handed handed handing 0P 2P+1T/1T+to:2P *
sell.01 sold sold selling 0O 2P+1T/1T+to:2P
award.01 awarded awarded awarding 0O 2P+1T/1T+to:2P
offer.01 offered offered offering 0O 2P+1T/1T+to:2P
supply.01 supplied supplied supplying 0O 2L+with:1T/1T+to:2L
deliver.01 delivered delivered delivering 0O 1T+to:2L *
manufacture.01 manufactured manufactured manufacturing 0O 1T
recall.02 recalled recalled recalling 0O 1T
patent.01 patented patented patenting 0O 1T *
"""
# Verbs with a verb as complement, as (roleset, past form). The agent of the second verb is the
# subject ("X tried to V"), the object ("X asked Y to V": Y acts) or the subject in spite of an
# object ("X promised Y to V": X acts).
SUBJECT_CONTROL = Pool(
    (
        ("want.01", "wanted"),
        ("try.01", "tried"),
        ("refuse.01", "refused"),
        ("plan.01", "planned"),
        ("decide.01", "decided"),
    ),
    (("hope.01", "hoped"), ("agree.01", "agreed")),
)
OBJECT_CONTROL = Pool(
    (
        ("ask.02", "asked"),
        ("persuade.01", "persuaded"),
        ("force.01", "forced"),
        ("allow.01", "allowed"),
        ("order.01", "ordered"),
    ),
    (("urge.01", "urged"), ("compel.01", "compelled")),
)
PROMISE = Pool(
    (("promise.01", "promised"), ("swear.01", "swore to")),
    (("pledge.01", "pledged to"),),
)
RAISING = Pool(
    (("seem.01", "seemed"), ("appear.02", "appeared")),
    (("prove.01", "proved"),),
)
SPEECH = Pool(
    (
        ("say.01", "said"),
        ("announce.01", "announced"),
        ("report.01", "reported"),
        ("deny.01", "denied"),
    ),
    (("claim.01", "claimed"), ("insist.01", "insisted")),
)


class Slot(NamedTuple):
    """An argument of a verb: its preposition ("" for none), role and type (P, O, L, E, T)."""

    preposition: str
    role: str
    kind: str


class Verb(NamedTuple):
    """The roleset and the forms of a verb."""

    roleset: str
    base: str
    past: str
    participle: str
    ing: str
    held_out: bool


class Pattern(NamedTuple):
    """A verb with one argument structure, active or passive: its subject and complements."""

    verb: Verb
    passive: bool
    subject: Slot
    complements: tuple[Slot, ...]


def parse_slot(text: str) -> Slot:
    """Parse a slot such as `to:2P`."""
    preposition, _, argument = text.rpartition(":")
    role = "ARGM-LOC" if argument[0] == "L" else f"ARG{argument[0]}"
    return Slot(preposition, role, argument[1])


def parse_complements(text: str) -> tuple[Slot, ...]:
    """Parse complements such as `1T+from:2O`; `-` means none."""
    return tuple(parse_slot(part) for part in text.split("+") if part != "-")


def patterns_of(line: str) -> list[Pattern]:
    """Parse one line of `FRAMES` into its active patterns, then its passive patterns."""
    roleset, past, participle, ing, subject, alternatives, *held_out = line.split()
    verb = Verb(roleset, roleset.split(".")[0], past, participle, ing, bool(held_out))
    agent = parse_slot(subject.lstrip("!"))
    complements = [parse_complements(text) for text in alternatives.split("/")]
    patterns = [Pattern(verb, False, agent, slots) for slots in complements]
    if agent.role == "ARG0" and not subject.startswith("!"):
        by = Slot("by", agent.role, agent.kind)
        for slots in complements:
            if slots and not slots[0].preposition:
                patterns.append(Pattern(verb, True, slots[0], (*slots[1:], by)))
    return patterns


def pool_of(patterns: list[Pattern]) -> Pool[Pattern]:
    """Split the patterns by whether their verb may occur in training."""
    return Pool(
        tuple(pattern for pattern in patterns if not pattern.verb.held_out),
        tuple(pattern for pattern in patterns if pattern.verb.held_out),
    )


def group_patterns(
    patterns: Iterable[Pattern], key: Callable[[Pattern], KeyT]
) -> dict[KeyT, Pool[Pattern]]:
    """Group patterns by a key; each group becomes a pool."""
    groups: dict[KeyT, list[Pattern]] = defaultdict(list)
    for pattern in patterns:
        groups[key(pattern)].append(pattern)
    return {value: pool_of(group) for value, group in groups.items()}


def has_bare_object(pattern: Pattern) -> bool:
    """Whether an active verb is followed by an object without a preposition."""
    complements = pattern.complements
    return not pattern.passive and bool(complements) and not complements[0].preposition


PATTERNS = [pattern for line in FRAMES.strip().splitlines() for pattern in patterns_of(line)]
# By (type of the subject, passive), by base form, and by type of the bare object.
BY_SUBJECT = group_patterns(PATTERNS, lambda pattern: (pattern.subject.kind, pattern.passive))
BY_BASE = group_patterns(PATTERNS, lambda pattern: pattern.verb.base)
BY_OBJECT = group_patterns(
    filter(has_bare_object, PATTERNS), lambda pattern: pattern.complements[0].kind
)
