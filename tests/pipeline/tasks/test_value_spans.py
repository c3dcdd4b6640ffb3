"""Values as spans: the words of a turn, their tags, and the best span of a slot."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.shared.slots import Slot, normalized
from pipeline.tasks.shared.tagging import bio_classes
from pipeline.tasks.shared.turn_windows import encoded_turns, turn_text, turn_window, turn_words
from pipeline.tasks.shared.value_spans import (
    ScoredWords,
    SlotSpans,
    decide_open_slot,
    places,
    value_tags,
)
from pipeline.words import split_words

TAGS = bio_classes(["food", "area"])
CLASSES = ("none", "food=*", "food=dontcare", "food=thai", "area=*", *TAGS)
FOOD = Slot("food", ("food=*", "food=dontcare", "food=thai"))


def bounds(text: str) -> list[tuple[int, int]]:
    return [(word.start, word.end) for word in split_words(text, "punctuation")]


def tags(user: str, values: dict[str, str], system: str = "") -> list[str]:
    """The tags of the words of a turn, those of the system first."""
    text = turn_text(system, user)
    return value_tags(values, text, bounds(text), len(bounds(system)))


def words(texts: tuple[str, str], rows: Sequence[Sequence[float]]) -> ScoredWords:
    """Words of a system's and a user's text with logits of TAGS; those of other classes are 99."""
    text = turn_text(*texts)
    logits = np.full((len(rows), len(CLASSES)), 99.0)
    logits[:, -len(TAGS) :] = rows
    return ScoredWords(text, bounds(text), len(bounds(texts[0])), logits)


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("Thai, please: THAI food", "thai", [(0, 0), (4, 4)]),
        ("a thailand restaurant", "thai", []),
        ("asian  Oriental food", "asian oriental", [(0, 1)]),
        ("at 7:30, not 17:30", "7:30", [(1, 3)]),
        ("bed-and-breakfast", "bed", [(0, 0)]),
        ("bed - and - breakfast", "bed-and-breakfast", []),
        ("in İzmir", "i̇zmir", [(1, 1)]),
        ("我要泰国菜", "泰国", [(2, 3)]),
        ("thai thai thai", "thai thai", [(0, 1), (1, 2)]),
        ("thai", "", []),
    ],
)
def test_places_of_a_value_are_whole_words_in_any_case(
    text: str, value: str, found: list[tuple[int, int]]
) -> None:
    assert list(places(value, text, bounds(text))) == found


def test_tags_are_at_all_places_of_the_text_that_has_the_value() -> None:
    assert tags("Thai or thai?", {"food": "thai"}) == ["B-food", "O", "B-food", "O"]
    assert tags("modern european", {"food": "modern european"}) == ["B-food", "I-food"]
    assert tags("yes", {"food": "thai"}, "Thai food?") == ["B-food", "O", "O", "O"]
    assert tags("yes, thai", {"food": "thai"}, "Thai?") == ["O", "O", "O", "O", "B-food"]
    assert tags("food", {"food": "thai food"}, "Thai") == ["O", "O"], "a speaker's words only"
    assert tags("yes", {"food": "thai"}) == ["O"]
    assert tags("thai thai thai", {"food": "thai thai"}) == ["B-food", "I-food", "O"]


@pytest.mark.parametrize("slots", [("food", "area"), ("area", "food")])
def test_a_longer_value_keeps_the_words_of_a_shorter_one(slots: tuple[str, ...]) -> None:
    values = {"food": "north american", "area": "north"}
    ordered = {slot: values[slot] for slot in slots}
    assert tags("north american in the north", ordered) == [
        "B-food",
        "I-food",
        "O",
        "O",
        "B-area",
    ]
    assert tags("north american", ordered) == ["B-food", "I-food"], "area has no place"
    assert tags("north american", ordered, "North?") == ["B-area", "O", "B-food", "I-food"]


def test_the_probability_of_a_span_is_that_of_the_best_tags_with_it() -> None:
    """All sequences of tags with one span of the slot are tried; other slots may have any tags."""
    begin, inside = TAGS.index("B-food"), TAGS.index("I-food")
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(size=(4, len(TAGS))) * 3
        best: dict[tuple[int, int], float] = {}
        for sequence in product(range(len(TAGS)), repeat=4):
            at = [n for n, tag in enumerate(sequence) if tag in (begin, inside)]
            spans = [sequence[n] for n in at] == [begin] + [inside] * (len(at) - 1)
            if at and spans and at == list(range(at[0], at[-1] + 1)):
                span, score = (at[0], at[-1]), float(logits[range(4), sequence].sum())
                best[span] = max(best.get(span, -np.inf), score)
        assert len(best) == 10
        texts = ("", "a b c d")
        spans_of_slot = SlotSpans(words(texts, logits), "food", CLASSES)
        values = {(i, j): " ".join("abcd"[i : j + 1]) for i, j in best}
        assert spans_of_slot.best == values[max(best, key=lambda span: best[span])]
        shares = spans_of_slot.log_probabilities([values[span] for span in best])
        total = np.logaddexp.reduce(list(best.values()))
        assert shares[:-1] == pytest.approx([score - total for score in best.values()])
        assert shares[-1] == -np.inf


def test_no_span_has_words_of_both_speakers() -> None:
    rows = [[0, 9, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 9, 0, 0]]
    assert SlotSpans(words(("", "a b c"), rows), "food", CLASSES).best == "a b c"
    assert SlotSpans(words(("a b", "c"), rows), "food", CLASSES).best == "a b"


def test_the_probability_of_a_value_is_that_of_all_its_places() -> None:
    rows = [[0, 2, 0, 0, 0], [5, 0, 0, 0, 0], [0, 2, 0, 0, 0]]
    spans = SlotSpans(words(("Thai", "or thai"), rows), "food", CLASSES)
    # Relative to tags without a span: 2 for Thai and for thai, -5 for "or" and "or thai".
    total = np.logaddexp.reduce([2.0, 2.0, -5.0, -5.0])
    thai, other = spans.log_probabilities(["thai"])
    assert spans.best == "thai"
    assert thai == pytest.approx(np.log(2) + 2 - total)
    assert other == pytest.approx(np.log(2) - 5 - total)


ROWS = [[0.0, 3.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0, 0.0]]
GATES = {"none": 1.0, "food=*": 2.0, "food=dontcare": 0.0, "food=thai": -1.0}


def logits_of(gates: dict[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([*(gates.get(name, -np.inf) for name in CLASSES), -np.inf])


def decided(
    user: str, gates: dict[str, float], rows: Sequence[Sequence[float]] = ROWS
) -> tuple[str, dict[str, float]]:
    """The label, and the probability of each option; "others" is the last."""
    label, logits = decide_open_slot(FOOD, logits_of(gates), words(("", user), rows), CLASSES)
    values = np.exp(logits) / np.exp(list(gates.values())).sum()
    names = (*CLASSES, "others")
    return label, {name: float(value) for name, value in zip(names, values, strict=True) if value}


def test_the_probability_of_the_class_is_divided_among_the_values() -> None:
    label, options = decided("zulu food", GATES)
    total = sum(np.exp(list(GATES.values())))
    in_turn = np.exp(2) / total
    # The spans: zulu (3), zulu food (3 + 0 - 4), food (0 - 4).
    zulu = np.exp(3) / (np.exp(3) + np.exp(-1) + np.exp(-4))
    assert label == "food=zulu"
    assert options == {
        "none": pytest.approx(np.exp(1) / total),
        "food=*": pytest.approx(in_turn * zulu),
        "food=dontcare": pytest.approx(1 / total),
        "food=thai": pytest.approx(np.exp(-1) / total),
        "others": pytest.approx(in_turn * (1 - zulu)),
    }
    assert sum(options.values()) == pytest.approx(1)


def test_a_closed_value_in_the_turn_has_the_probability_of_both() -> None:
    label, options = decided("Thai food", GATES)
    total = sum(np.exp(list(GATES.values())))
    thai = np.exp(3) / (np.exp(3) + np.exp(-1) + np.exp(-4))
    assert label == "food=thai"
    assert options["food=thai"] == pytest.approx((np.exp(-1) + np.exp(2) * thai) / total)
    assert "food=*" not in options
    assert options["others"] == pytest.approx(np.exp(2) * (1 - thai) / total)


def test_the_class_of_the_slot_decides_whether_there_is_a_span() -> None:
    for name in ("none", "food=dontcare"):
        assert decided("zulu food", GATES | {name: 9.0})[0] == name
    untagged = [[9.0, 1.0, 0.0, 0.0, 0.0], [9.0, 0.0, 8.0, 0.0, 0.0]]
    assert decided("zulu food", GATES, untagged)[0] == "food=zulu", "the best, although O is better"
    of_area = [[0.0, 1.0, 0.0, 9.0, 0.0], [9.0, 3.0, 0.0, 0.0, 0.0]]
    assert decided("north zulu", GATES, of_area)[0] == "food=zulu", "north is the area"


def test_without_words_the_class_is_no_option() -> None:
    empty = ScoredWords("\n", [], 0, np.empty((0, len(CLASSES))))
    label, logits = decide_open_slot(FOOD, logits_of(GATES), empty, CLASSES)
    assert label == "none"
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [0, 2, 3]


# Words of a window


def turn(tokenizer: Tokenizer, system: str, user: str, room: int = 99) -> list[str]:
    """The words of a turn in its window; the system's before a bar."""
    (encoded,) = encoded_turns([system], [user], tokenizer)
    found, num_system = turn_words(encoded, room, tokenizer)
    text = turn_text(system, user)
    texts = [text[word.start : word.end] for word in found]
    return [*texts[:num_system], "|", *texts[num_system:]]


def test_words_of_a_window_are_whole(tokenizer: Tokenizer) -> None:
    long = "qzqz"
    size = len(tokenizer.encode_texts([long])[0][0])
    assert size > 1
    assert turn(tokenizer, "the cat", "a dog.") == ["the", "cat", "|", "a", "dog", "."]
    assert turn(tokenizer, "", long) == ["|", long]
    assert turn(tokenizer, "", f"cat {long} dog", size) == ["|", "cat"], "the value is cut off"
    assert turn(tokenizer, f"{long} dog", "cat", size + 1) == ["dog", "|", "cat"]
    assert turn(tokenizer, f"{long} dog", "cat", size + 2) == [long, "dog", "|", "cat"]
    assert turn(tokenizer, "the", long, size - 1) == ["|"]


@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"])
def test_words_are_read_at_their_first_subword_or_last_if_causal(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    system, user = "The qzqz dog", "a cat, unbelievablyzzz qzqz"
    (encoded,) = encoded_turns([system], [user], tokenizer)
    found, num_system = turn_words(encoded, 999, tokenizer)
    assert num_system == 3
    text = turn_text(system, user)
    read = [normalized(text[word.start : word.end]) for word in found]
    assert read == ["the", "qzqz", "dog", "a", "cat", ",", "unbelievablyzzz", "qzqz"]
    ids = [*tokenizer.prefix, *encoded.system.ids, *tokenizer.middle, *encoded.user.ids]
    shift = len(tokenizer.prefix) + len(encoded.system.ids) + len(tokenizer.middle)
    for number, word in enumerate(found):
        part, base, first = (
            (encoded.system, 0, len(tokenizer.prefix))
            if number < num_system
            else (encoded.user, len(system) + 1, shift)
        )
        inside = [
            token
            for token, (begin, end) in enumerate(part.offsets)
            if begin + base < word.end and end + base > word.start
        ]
        token = inside[-1 if tokenizer.causal else 0]
        assert word.position == first + token
        assert ids[word.position] == part.ids[token]


def test_words_after_a_cut_are_at_their_tokens(tokenizer: Tokenizer) -> None:
    (encoded,) = encoded_turns(["cat cat one two"], ["dog"], tokenizer)
    found, num_system = turn_words(encoded, 3, tokenizer)
    assert (num_system, len(found)) == (2, 3)
    window, _, _ = turn_window(encoded, [], 3, tokenizer)
    (expected,) = (ids for ids, _ in tokenizer.encode_texts(["one two dog"]))
    assert [window[word.position] for word in found] == expected


def test_words_that_share_a_token_are_one(tokenizer: Tokenizer) -> None:
    (encoded,) = encoded_turns([""], ["a cat"], tokenizer)
    one = encoded.user._replace(ids=[5, 6], offsets=[(0, 2), (2, 5)])
    text = one._replace(text="a:cat")
    found, _ = turn_words(encoded._replace(user=text), 99, tokenizer)
    assert [(word.start, word.end) for word in found] == [(1, 3), (3, 6)]
