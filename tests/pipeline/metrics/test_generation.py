"""Scores of generated texts: hand calculations, and figures of the captioning scorer of COCO."""

import math

import pytest

from pipeline.metrics import generation
from pipeline.metrics.base import apply_formula
from pipeline.metrics.generation import cider, nist, rouge_l, score

TEXTS = [
    "Blue Spice is a coffee shop in the city centre.",
    "There is a cheap pub near the river called The Mill.",
    "The Mill is a pub. The Mill is not cheap, it's £20-25.",
    "",
]
REFERENCES = [
    [
        "A coffee shop in the city centre area called Blue Spice.",
        "Blue Spice is a coffee shop in city centre.",
    ],
    [
        "The Mill is a cheap pub by the river.",
        "Near the river, you'll find The Mill, a cheap pub.",
        "The Mill: cheap pub, riverside.",
    ],
    ["The Mill is a pub with prices of £20-25."],
    ["Don't miss the family-friendly Aromi, rated 5 out of 5."],
]
# What pycocoevalcap 1.2 prints for the words of these texts.
CAPTION_SCORES = {
    3: (0.7229576025584946, 3.9154959639651675),
    4: (0.5422182019188709, 2.998994308628327),
}


@pytest.mark.parametrize("count", [3, 4])
def test_rouge_and_cider_are_those_of_the_captioning_scorer(count: int) -> None:
    overall = score([""] * count, REFERENCES[:count], TEXTS[:count]).overall
    rouge, expected = CAPTION_SCORES[count]
    assert overall["rouge_l"] == pytest.approx(100 * rouge)
    assert overall["cider"] == pytest.approx(expected)
    assert (overall["texts"], overall["empty"]) == (count, count - 3)


def test_words_are_those_of_the_captioning_scorer() -> None:
    assert generation._caption_words(REFERENCES[3][0]) == (
        ["do", "n't", "miss", "the", "family-friendly", "aromi", "rated", "5", "out", "of", "5"]
    )
    assert generation._caption_words("It's £20-25, i.e. 1,000 (cheap)!") == (
        ["it", "'s", "£", "20-25", "i.e", "1,000", "cheap"]
    )


def test_bleu_ignores_case_and_takes_any_number_of_references() -> None:
    """All n-grams match one of the references, but "sat on a" and those that contain it."""
    value = generation.bleu(
        ["The cat sat on a mat .", "Yes it is ."],
        [["the cat sat on the mat.", "a cat is on a mat."], ["yes it is."]],
    )
    counts = [(11, 11), (9, 9), (6, 7), (3, 5)]
    product = math.prod(matched / total for matched, total in counts)
    assert generation.bleu(["x y z w"], [["X Y Z W"]]) == pytest.approx(100)
    assert value == pytest.approx(100 * product**0.25)


def test_nist_equals_a_calculation_by_hand() -> None:
    """The information of an n-gram is log2(count of its first n - 1 words / its count)."""
    words = [["a", "b"]]
    references = [[["a", "b", "c"], ["a", "d"]]]
    # 5 words in the references; "a" occurs twice, "b" once, "a b" once among two "a".
    unigrams = (math.log2(5 / 2) + math.log2(5 / 1)) / 2
    bigrams = math.log2(2 / 1) / 1
    penalty = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(2 / 2.5) ** 2)
    assert nist(words, references) == pytest.approx((unigrams + bigrams) * penalty)
    assert nist([[]], references) == 0


def test_the_length_penalty_of_nist_is_a_half_at_two_thirds() -> None:
    assert generation._nist_penalty(2 / 3) == pytest.approx(0.5)
    assert generation._nist_penalty(1.5) == 1


def test_rouge_takes_the_best_precision_and_the_best_recall() -> None:
    """They may come from different references."""
    value = rouge_l(list("abcd"), [list("ab"), list("abcxyzu")])
    precision, recall = 3 / 4, 2 / 2
    assert value == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))
    assert rouge_l([], [["a"]]) == rouge_l(["b"], [["a"]]) == 0


def test_cider_of_the_reference_is_ten_if_other_references_differ() -> None:
    first, second = list("abcde"), list("vwxyz")
    assert cider([first, second], [[first], [second]]) == pytest.approx(10)
    assert cider([first, first], [[first], [first]]) == 0, "words of all texts weigh nothing"


def test_subsets_are_scored_by_themselves() -> None:
    references = [["a b c d"], ["e f g h"], ["i j k l"]]
    predictions = ["a b c d", "x x x x", "i j k l"]
    overall = score(["", "", ""], references, predictions, ["seen", "unseen", "seen"]).overall
    assert overall["bleu_seen"] == pytest.approx(100)
    assert overall["bleu_unseen"] < 20
    assert "bleu_seen" not in score(["", ""], references[:2], predictions[:2], ["a", "a"]).overall


def test_nothing_to_score_is_no_error() -> None:
    assert score([], [], []).overall == {
        "bleu": 0.0,
        "nist": 0.0,
        "rouge_l": 0.0,
        "cider": 0.0,
        "texts": 0,
    }


def test_counts_of_texts_add_up_to_the_scores() -> None:
    sources = ["name[Blue Spice], eatType[coffee shop]", "name[The Mill], eatType[pub]"]
    for texts in (sources, ["x", "y"]):
        overall = score(texts, REFERENCES[:2], TEXTS[:2]).overall
        counts = generation.counts(["a", "b"], texts, REFERENCES[:2], TEXTS[:2])
        sums = {name: values.sum(keepdims=True) for name, values in counts.columns.items()}
        computed = {
            name: float(apply_formula(formula, sums)[0])
            for name, formula in counts.formulas.items()
        }
        assert computed == pytest.approx({name: overall[name] for name in computed})
        assert ("slot_error_rate" in computed) == (texts is sources)
