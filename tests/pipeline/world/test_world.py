"""Tests of the generated corpora: reproducible, well formed, and not solvable by a lookup table."""

import json
import re
from collections import Counter, defaultdict
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import GeneratorType

import pytest

from pipeline.errors import UserError
from pipeline.world import lexicon, verbs, write_corpus
from pipeline.world.constructions import HELD_OUT, SEEN, compose
from pipeline.world.corpora import KINDS, SPLITS, Kind, iterate_rows, split_sizes
from pipeline.world.questions import choose_question, count_answers, sample_facts
from pipeline.world.sampling import RowRandom, is_held_out, row_seed

ROWS = 1500
FIRST_ROW = (
    "The\tO\nbirthplace\tO\nof\tO\nPolholm\tB-PER\ncould\tO\nbe\tO\nfled\tO\nin\tO\nHill\tB-LOC\n"
    ",\tO\nwhereas\tO\nthe\tO\nShell\tB-EVENT\nRally\tI-EVENT\n"
    "began\tO\non\tO\nMonday\tB-TIME\n.\tO\n\n"
)
# SHA-256 of the first 1,000 rows with seed 0 of train, validation and test.
DIGESTS = {
    "ner": ("da392583273ee641", "480355686a77fc9a", "799be23b9539480a"),
    "qa": ("f9f3b176217857dd", "7f7f60413374d5a9", "128e6799463d8871"),
    "srl": ("2c3d8e651faf9c64", "b49513f761be9e77", "313d0e66ca8bb035"),
}
ROLES = {"ARG0", "ARG1", "ARG2", "ARG3", "ARG4", "V", "C-ARG1"}
ROLES |= {f"ARGM-{name}" for name in ("TMP", "LOC", "MNR", "NEG", "MOD", "CAU", "ADV")}


@cache
def rows(kind: Kind, split: str, count: int = ROWS) -> list[str]:
    """The rows of a split: `count` training rows, or 300 rows of another split."""
    return list(iterate_rows(kind, split, count if split == "train" else 300, 7))


def table(row: str) -> list[list[str]]:
    """The cells of a row's lines."""
    return [line.split("\t") for line in row.strip().split("\n")]


def spans(column: list[str]) -> list[tuple[str, int, int]]:
    """The (role, start, end) spans of a bracket column; fails if they nest or stay open."""
    result, start, role = [], -1, ""
    for position, cell in enumerate(column):
        match = re.fullmatch(r"(?:\(([A-Z0-9-]+))?\*(\))?", cell)
        assert match, cell
        if match[1]:
            assert start < 0
            start, role = position, match[1]
        if match[2]:
            assert start >= 0
            result.append((role, start, position + 1))
            start = -1
    assert start < 0
    return result


def frames(row: str) -> list[tuple[str, dict[str, str]]]:
    """The roleset of each predicate, and the text of its arguments by role."""
    lines = table(row)
    words = [cells[3] for cells in lines]
    rolesets = [cells[7] for cells in lines if cells[7] != "-"]
    columns = [spans([cells[8 + i] for cells in lines]) for i in range(len(rolesets))]
    arguments = [{role: " ".join(words[a:b]) for role, a, b in column} for column in columns]
    return list(zip(rolesets, arguments, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_give_same_bytes_and_larger_corpora_extend_smaller(
    kind: Kind, tmp_path: Path
) -> None:
    for name, count in (("a", 150), ("b", 150), ("c", 300)):
        sizes = write_corpus(kind, tmp_path / name, count, 3)
        assert sizes == {"train": count, "validation": 200, "test": 200}
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(f"{split}.{'jsonl' if kind == 'qa' else 'conll'}" for split in SPLITS)
    for file in files:
        first = (tmp_path / "a" / file).read_bytes()
        assert first == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "c" / file).read_bytes().startswith(first)
    assert rows(kind, "train")[:50] != list(iterate_rows(kind, "train", 50, 8))


def test_generator_gives_the_recorded_row() -> None:
    assert row_seed(1, 2, 3) == 0x6AE515C1C0AC7E37
    assert next(iterate_rows("ner", "train", 1, 0)) == FIRST_ROW


@pytest.mark.parametrize("kind", KINDS)
def test_generator_gives_the_recorded_bytes(kind: Kind) -> None:
    """Detects a change of the grammar or the word lists, and a Python with other random draws."""
    texts = ["".join(iterate_rows(kind, split, 1000, 0)) for split in SPLITS]
    assert tuple(sha256(text.encode()).hexdigest()[:16] for text in texts) == DIGESTS[kind]


def test_rows_are_generated_one_at_a_time() -> None:
    generator = iterate_rows("srl", "train", 10**12, 0)
    assert isinstance(generator, GeneratorType)
    assert len(list(islice(generator, 3))) == 3


def test_split_sizes_and_errors(tmp_path: Path) -> None:
    assert split_sizes(10) == {"train": 10, "validation": 200, "test": 200}
    assert split_sizes(5000)["test"] == 500
    assert split_sizes(10**7)["validation"] == 2000
    with pytest.raises(UserError, match=r"kind: 'pos'[^\0]*rows: 0"):
        write_corpus("pos", tmp_path, 0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", SPLITS)
def test_ner_tags_are_iob2(split: str) -> None:
    types: Counter[str] = Counter()
    for row in rows("ner", split):
        previous = "O"
        for token, tag in table(row):
            assert token
            assert re.fullmatch(r"O|[BI]-(PER|LOC|ORG|TIME|EVENT)", tag)
            assert not tag.startswith("I-") or previous[2:] == tag[2:]
            types[tag] += tag.startswith("B-")
            previous = tag
    assert min(types[f"B-{t}"] for t in ("PER", "LOC", "ORG", "TIME", "EVENT")) > 40


@pytest.mark.parametrize("split", SPLITS)
def test_srl_columns_and_brackets(split: str) -> None:
    num_with_several_predicates = 0
    for row in rows("srl", split):
        lines = table(row)
        predicates = [cells for cells in lines if cells[7] != "-"]
        assert {len(cells) for cells in lines} == {8 + len(predicates)}
        assert [cells[2] for cells in lines] == [str(i) for i in range(len(lines))]
        for index, predicate in enumerate(predicates):
            assert predicate[8 + index] == "(V*)"
            roles = [role for role, *_ in spans([cells[8 + index] for cells in lines])]
            assert {role.removeprefix("R-") for role in roles} <= ROLES
            assert roles.count("V") == 1
        num_with_several_predicates += len(predicates) > 1
    assert num_with_several_predicates > 0.75 * len(rows("srl", split))


@pytest.mark.parametrize("split", SPLITS)
def test_answer_offsets_are_right_and_a_quarter_of_questions_has_no_answer(split: str) -> None:
    questions = [json.loads(row) for row in rows("qa", split)]
    unanswerable_rate = sum(not q["answers"] for q in questions) / len(questions)
    assert 0.2 < unanswerable_rate < 0.3
    assert len({q["id"] for q in questions}) == len(questions)
    for q in questions:
        assert q["question"].endswith("?")
        assert 1 <= q["context"].count(". ") + 1 <= 4
        for answer in q["answers"]:
            start, text = answer["answer_start"], answer["text"]
            assert text
            assert q["context"][start : start + len(text)] == text
            assert re.match(r"\W", q["context"][start + len(text)])


def test_context_contains_the_names_of_unanswerable_questions() -> None:
    questions = [json.loads(row) for row in rows("qa", "train")]
    for q in (q for q in questions if not q["answers"]):
        capitalized = re.findall(r"[A-Z]\w+", q["question"])[1:]
        names = [word for word in capitalized if word in lexicon.AMBIGUOUS_NAMES.seen]
        assert all(name in q["context"] for name in names)


def test_questions_have_at_most_one_answer_and_their_length_does_not_reveal_it() -> None:
    by_length: dict[int, list[bool]] = defaultdict(list)
    for number in range(1500):
        rng = RowRandom(row_seed(4, number), 0.0)
        facts = sample_facts(rng)
        asked, clues, answerable = choose_question(rng, facts)
        assert count_answers(facts, asked, clues) == answerable
        assert not answerable or facts[0].fits(facts[0].family, clues)
        by_length[len(clues)].append(answerable)
    rates = [sum(answerable) / len(answerable) for answerable in by_length.values()]
    assert all(0.55 < rate < 0.9 for rate in rates)


@pytest.mark.parametrize("kind", KINDS)
def test_no_training_row_occurs_in_another_split(kind: Kind) -> None:
    def text(row: str) -> str:
        if kind == "qa":
            return json.dumps({k: v for k, v in json.loads(row).items() if k != "id"}).lower()
        return " ".join(cells[0 if kind == "ner" else 3] for cells in table(row)).lower()

    train = {text(row) for row in rows(kind, "train", 4000)}
    assert not train & {text(row) for split in SPLITS[1:] for row in rows(kind, split)}


def test_held_out_verbs_never_occur_in_training_but_often_elsewhere() -> None:
    held_out = {pattern.verb.roleset for pattern in verbs.PATTERNS if pattern.verb.held_out}
    control = (verbs.SUBJECT_CONTROL, verbs.OBJECT_CONTROL, verbs.PROMISE)
    for pool in (*control, verbs.RAISING, verbs.SPEECH):
        held_out |= {roleset for roleset, _ in pool.held_out}
    used = {split: roleset_counts(split) for split in SPLITS}
    assert not held_out & used["train"].keys()
    for split in SPLITS[1:]:
        rate = sum(used[split][roleset] for roleset in held_out) / used[split].total()
        assert 0.1 < rate < 0.5
    assert len(held_out) / (len(held_out) + len(used["train"])) > 0.15


def roleset_counts(split: str) -> Counter[str]:
    """How often each roleset occurs in a split."""
    return Counter(roleset for row in rows("srl", split) for roleset, _ in frames(row))


def test_held_out_names_never_occur_in_training_but_often_elsewhere() -> None:
    pools = (
        lexicon.AMBIGUOUS_NAMES,
        lexicon.GIVEN_NAMES,
        lexicon.SURNAMES,
        lexicon.TOWNS,
        lexicon.FIRMS,
    )
    assert all(0.08 < len(pool.held_out) / len(pool.held_out + pool.seen) < 0.35 for pool in pools)
    held_out = {name for pool in pools for name in pool.held_out}
    held_out -= {*lexicon.MONTHS, *lexicon.WEEKDAYS}
    # A name can also be an ordinary word of another pool ("the Golden Rose"): compare only names
    # that are not.
    held_out -= {word.capitalize() for word in (*lexicon.NOUNS, *lexicon.ADJECTIVES.seen)}
    held_out -= UNRESTRICTED_WORDS
    rates = {}
    for split in SPLITS:
        names = name_words(split)
        rates[split] = sum(name in held_out for name in names) / len(names)
    assert rates["train"] == 0
    assert min(rates["validation"], rates["test"]) > 0.15
    assert is_held_out("Houston") == is_held_out("houston")


def name_words(split: str) -> list[str]:
    """The words of the names of persons, places and organizations in a split."""
    lines = [cells for row in rows("ner", split) for cells in table(row)]
    return [token for token, tag in lines if tag[2:] in ("PER", "LOC", "ORG")]


# Words of names that are not drawn from a pool, so they occur in every split.
UNRESTRICTED_WORDS = {
    *lexicon.FIRM_SUFFIXES,
    *lexicon.INSTITUTIONS,
    *("North", "New", "Lake", "Port", "Street", "Valley", "County", "Island"),
}


def test_every_construction_occurs() -> None:
    in_training = Counter(compose(RowRandom(row_seed(1, i), 0.0))[1] for i in range(1000))
    elsewhere = Counter(compose(RowRandom(row_seed(2, i), 0.3))[1] for i in range(1000))
    assert in_training.keys() == {construction.__name__ for construction in SEEN}
    assert elsewhere.keys() == {construction.__name__ for construction in (*SEEN, *HELD_OUT)}
    text = "".join(rows("srl", "train"))
    for role in ("R-ARG0", "R-ARG1", "ARGM-NEG", "C-ARG1", "ARGM-MOD", "ARG2"):
        assert f"({role}*" in text


def test_passives_datives_and_coordination_occur() -> None:
    counts: Counter[str] = Counter()
    for row in rows("srl", "train"):
        for roleset, arguments in frames(row):
            counts["by"] += arguments.get("ARG0", "").startswith("by ")
            counts["and"] += " and " in arguments.get("ARG0", "")
            if roleset in ("give.01", "send.01", "lend.01"):
                counts["to" if arguments.get("ARG2", "").startswith("to ") else "double"] += 1
    assert min(counts.values()) > 5
    assert len(counts) == 4


def test_sentences_are_short() -> None:
    lengths = [len(table(row)) for row in rows("ner", "train")]
    assert sum(6 <= n <= 24 for n in lengths) > 0.85 * len(lengths)


def test_the_same_token_has_several_tags() -> None:
    tags: dict[str, set[str]] = defaultdict(set)
    for row in rows("ner", "train", 4000):
        for token, tag in table(row):
            tags[token.lower()].add(tag)
    assert {"B-PER", "B-LOC", "B-ORG"} <= tags["houston"] | tags["dallas"]
    assert {"O", "B-TIME", "B-PER"} <= tags["may"]
    assert {"O", "I-ORG", "I-EVENT"} <= tags["door"]
    assert {"O", "I-ORG"} <= tags["and"]
    names = [name.lower() for name in lexicon.AMBIGUOUS_NAMES.seen if name.lower() in tags]
    num_ambiguous = sum({"B-PER", "B-LOC", "B-ORG"} <= tags[name] for name in names)
    assert num_ambiguous > 0.7 * len(names)


def test_agreement_distinguishes_one_firm_from_two() -> None:
    singular: Counter[str] = Counter()
    plural: Counter[str] = Counter()
    for row in rows("ner", "train", 4000):
        text = " ".join(f"{token}/{tag}" for token, tag in table(row))
        singular.update(re.findall(r"/B-ORG and/I-ORG \S+/I-ORG (\w+)/O", text))
        plural.update(re.findall(r"/B-ORG and/O \S+/B-ORG (\w+)/O", text))
    assert min(singular["has"], singular["was"]) > 3
    assert min(plural["have"], plural["were"]) > 3
    assert not {"have", "were"} & singular.keys()
    assert not {"has", "was"} & plural.keys()


def test_a_verb_occurs_twice_with_different_arguments() -> None:
    repeated = []
    for row in rows("srl", "train"):
        predicates = frames(row)
        if len(predicates) > len({roleset for roleset, _ in predicates}):
            repeated.append(predicates)
    assert len(repeated) > 40
    for predicates in repeated:
        assert len({json.dumps(arguments) for _, arguments in predicates}) > 1
