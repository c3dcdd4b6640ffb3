"""F1 and exact match of answers by character, compared with loops written from the two papers."""

import string
from collections import Counter
from unicodedata import category

import numpy as np
import pytest

from pipeline.metrics.answers import CMRC2018, MLQA, RULES, SQUAD, TITLES, Rules, counts, score
from pipeline.metrics.base import apply_formula

HAN = "上海北京市大学人民共和国的"
MIXED = [*HAN, *"のカ", *"กรุงเ", *"ab1 ", "2008", " iphone ", "，", "。", "《", "-", "."]


def is_unspaced(character: str) -> bool:
    """Whether the character is Chinese, Japanese kana or Thai."""
    ranges = ((0x4E00, 0x9FA5), (0x3040, 0x30FF), (0x0E00, 0x0E7F))
    return any(first <= ord(character) <= last for first, last in ranges)


def cut(text: str) -> list[str]:
    """Each Chinese, Japanese and Thai character, and the words between them."""
    pieces, word = list[str](), ""
    for character in f"{text} ":
        if character.isspace() or is_unspaced(character):
            pieces += [word] if word else []
            pieces += [character] if is_unspaced(character) else []
            word = ""
        else:
            word += character
    return pieces


def harmonic_mean(same: int, gold: int, guess: int) -> float:
    return 2 * same / (gold + guess) if same else 0.0


def mlqa(answer: str, prediction: str) -> tuple[float, float]:
    """Exact match and F1 as MLQA defines them for Chinese."""
    gold, guess = (
        cut(
            "".join(
                character
                for character in text.lower()
                if category(character)[0] != "P" and character not in string.punctuation
            )
        )
        for text in (answer, prediction)
    )
    if not gold or not guess:
        return (float(gold == guess),) * 2
    same = sum((Counter(gold) & Counter(guess)).values())
    return float(gold == guess), harmonic_mean(same, len(gold), len(guess))


def cmrc(answer: str, prediction: str) -> tuple[float, float]:
    """Exact match and F1 as CMRC 2018 defines them, for texts whose words need no further split."""
    removed = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
    gold, guess = (
        "".join(character for character in text.lower().strip() if character not in removed)
        for text in (answer, prediction)
    )
    first, second = cut(gold), cut(guess)
    if not first or not second:
        return float(gold == guess), float(first == second)
    runs = [
        length
        for start in range(len(first))
        for other in range(len(second))
        for length in range(1, min(len(first) - start, len(second) - other) + 1)
        if first[start : start + length] == second[other : other + length]
    ]
    return float(gold == guess), harmonic_mean(max(runs, default=0), len(first), len(second))


def random_text(generator: np.random.Generator) -> str:
    return "".join(generator.choice(MIXED, int(generator.integers(0, 9))))


@pytest.mark.parametrize(("rules", "reference"), [(MLQA, mlqa), (CMRC2018, cmrc)])
def test_scores_equal_the_reference(rules: Rules, reference: object) -> None:
    assert callable(reference)
    generator = np.random.default_rng(7)
    partial = 0
    for _ in range(3000):
        answer, prediction = random_text(generator), random_text(generator)
        if rules is CMRC2018 and "." in answer + prediction:
            continue  # the end of a sentence, or a part of a word: see below
        expected = reference(answer, prediction)
        assert rules.exact_match(answer, prediction) == expected[0], (answer, prediction)
        assert rules.f1(answer, prediction) == pytest.approx(expected[1]), (answer, prediction)
        partial += 0 < expected[1] < 1
    assert partial > 500


@pytest.mark.parametrize(
    ("answer", "prediction", "word", "cmrc_f1", "mlqa_f1"),
    [
        ("北京大学", "北京大学。", 0.0, 1.0, 1.0),  # punctuation
        ("北京大学", "北京", 0.0, 2 / 3, 2 / 3),
        ("北京大学", "大学北京", 0.0, 0.5, 1.0),  # a run of two of four; the same characters
        ("2008年", "2008", 0.0, 2 / 3, 2 / 3),  # a number is one word
        ("iPhone手机", "iphone", 0.0, 0.5, 0.5),
        ("1,000.5 km", "1,000.5 km", 1.0, 1.0, 1.0),
        ("東京タワー", "タワー", 0.0, 0.75, 0.75),
        ("กรุงเทพ", "กรุง", 0.0, 8 / 11, 8 / 11),
        ("the cat", "cat", 1.0, 2 / 3, 2 / 3),  # English articles count
        ("人", "", 0.0, 0.0, 0.0),
    ],
)
def test_examples_computed_by_hand(
    answer: str, prediction: str, word: float, cmrc_f1: float, mlqa_f1: float
) -> None:
    found = [rules.f1(answer, prediction) for rules in (SQUAD, CMRC2018, MLQA)]
    assert found == pytest.approx([word, cmrc_f1, mlqa_f1])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("在john f. kennedy机场", "在|john|f.|kennedy|机|场"),
        ("about 1,000.5 km, he said.", "about|1,000.5|km|,|he|said|."),
        ("he said.他", "he|said|.|他"),
        ("the u.s. (50%)", "the|u.s.|(|50|%|)"),
        ("god's d'état", "god|'s|d'état"),
        ("45°c £3", "45°c|£3"),
    ],
)
def test_other_words_are_split_as_by_word_tokenize_of_nltk(text: str, tokens: str) -> None:
    assert CMRC2018.tokens(text) == tokens.split("|")


@pytest.mark.parametrize("prefix", ["cmrc2018_", "mlqa_"])
def test_metrics_have_the_name_of_their_rules(prefix: str) -> None:
    rules = RULES[f"{prefix}f1"]
    references = {"a": ["北京大学", "北大"], "b": [], "c": ["人"]}
    predictions = {"a": "北京", "b": "", "c": "国"}
    metrics = score(references, predictions, rules).overall
    assert set(metrics) - {"total", "HasAns_total", "NoAns_total"} <= set(TITLES)
    assert metrics[f"{prefix}f1"] == pytest.approx(100 * (2 / 3 + 1) / 3)
    assert metrics[f"HasAns_{prefix}f1"] == pytest.approx(100 * (2 / 3) / 2)
    assert metrics[f"NoAns_{prefix}exact_match"] == 100.0
    units = counts(references, predictions, rules)
    sums = {name: np.array([values.sum()]) for name, values in units.columns.items()}
    for name, formula in units.formulas.items():
        assert apply_formula(formula, sums)[0] == pytest.approx(metrics[name])
