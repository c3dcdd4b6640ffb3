"""Rules that split a text into words."""

import unicodedata
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import BertPreTokenizer

from pipeline.words import RULES, RuleName, Word, split_words

# Characters with a meaning for a rule, so that short texts have many of them next to each other.
CHARACTERS = st.sampled_from(
    "aIns't09.,:-/@#&_$\"! \t\r\n\xa0\u2009\u0301\u0903\u200b\u200d\ufe0f\u20e3\ufeff\xad"
    "éβ漢かไ\u0e31한\u1100\u1161،’–。😀👩\U0001f3fd🇩\x00\x01\x02\x03\x7f\ud800"
)
TEXTS = st.text(CHARACTERS, max_size=30) | st.text(max_size=30)


def words(text: str, rule: RuleName) -> list[str]:
    return [word.text for word in split_words(text, rule)]


def test_each_rule_has_a_name_that_recipes_accept() -> None:
    assert set(RULES) == set(get_args(RuleName))


@pytest.mark.parametrize("rule", get_args(RuleName))
@given(text=TEXTS)
@example(text="\u200b")
@example(text="\u0301a 🇩🇩🇩 \u200d😀")
def test_only_white_space_is_outside_the_words(text: str, rule: RuleName) -> None:
    position = 0
    for word in split_words(text, rule):
        assert position <= word.start < word.end
        assert word.text == text[word.start : word.end]
        assert not any(character.isspace() for character in word.text)
        assert not text[position : word.start].strip()
        position = word.end
    assert not text[position:].strip()


@pytest.mark.parametrize("rule", get_args(RuleName))
@given(text=TEXTS)
def test_marks_and_invisible_characters_stay_with_their_character(
    text: str, rule: RuleName
) -> None:
    for word in split_words(text, rule):
        if word.start and not text[word.start - 1].isspace():
            assert unicodedata.category(word.text[0]) not in ("Mn", "Mc", "Me", "Cf")


@pytest.mark.parametrize("rule", get_args(RuleName))
@given(text=TEXTS, more=TEXTS)
def test_a_word_does_not_depend_on_text_behind_white_space(
    text: str, more: str, rule: RuleName
) -> None:
    shifted = [
        Word(word.text, word.start + len(text) + 1, word.end + len(text) + 1)
        for word in split_words(more, rule)
    ]
    assert split_words(f"{text}\n{more}", rule) == split_words(text, rule) + shifted


@pytest.mark.parametrize("rule", get_args(RuleName))
@given(text=st.text(st.characters(codec="ascii"), max_size=30))
def test_text_in_ascii_is_split_as_other_text(text: str, rule: RuleName) -> None:
    """The shape of ASCII text is not computed; a letter behind white space makes it necessary."""
    assert words(text, rule) == words(f"é {text}", rule)[1:]
    expected = words(text.replace("a", "é"), rule)
    if rule != "treebank":  # it knows English words
        assert [word.replace("a", "é") for word in words(text, rule)] == expected


@given(
    text=st.text(
        st.characters(
            max_codepoint=0x5FF, exclude_categories=("C", "M", "S"), include_characters="$+"
        )
    )
)
def test_punctuation_splits_as_the_basic_tokenizer_of_bert(text: str) -> None:
    expected = [word for word, _ in BertPreTokenizer().pre_tokenize_str(text)]
    assert words(text, "punctuation") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada's dog isn't old.", "Ada 's dog is n't old ."),
        ("I can’t, we’ll see", "I ca n’t , we ’ll see"),
        ("CAN'T! You cannot; I'm gonna", "CA N'T ! You can not ; I 'm gon na"),
        ("O'Neill's and the boss'", "O'Neill 's and the boss '"),
        ("a well-known U.S.-based firm", "a well-known U.S.-based firm"),
        ("Mr. J. Smith Jr. of Acme Inc. left.", "Mr. J. Smith Jr. of Acme Inc. left ."),
        ("So am I.", "So am I ."),
        ("at 10:30 p.m. on 1996-08-22.", "at 10:30 p.m. on 1996-08-22 ."),
        ("$1,000.50, -5% and .5", "$ 1,000.50 , -5 % and .5"),
        ('("Hi")... -- 1/2!', '( " Hi " ) ... -- 1/2 !'),
        ("See https://x.org/a?b=c).", "See https://x.org/a?b=c ) ."),
        ("ada.b@x-y.co.uk, @ada #jazz #1", "ada.b@x-y.co.uk , @ada #jazz # 1"),
        ("in the '90s, AT&T", "in the '90s , AT&T"),
        ("Zürich–Genève “ça va?”", "Zürich – Genève “ ça va ? ”"),
    ],
)
def test_treebank(text: str, expected: str) -> None:
    assert words(text, "treebank") == expected.split()


@pytest.mark.parametrize("rule", ["punctuation", "treebank"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cafe\u0301!", "Cafe\u0301 !"),
        ("नमस्ते", "नमस्ते"),
        ("मैं में।", "मैं में ।"),
        ("می\u200cروم", "می\u200cروم"),
        ("E\u200bva", "E\u200bva"),
        ("10\u202f000\xa0€", "10 000 €"),
        ("Berlin😀", "Berlin 😀"),
        ("👩🏽\u200d🔬👍🏽❤\ufe0f", "👩🏽\u200d🔬 👍🏽 ❤\ufe0f"),
        ("🇩🇪🇫🇷🇮", "🇩🇪 🇫🇷 🇮"),
        ("我爱Berlin。", "我 爱 Berlin 。"),
        ("สวัสดี", "ส วั ส ดี"),
        ("서울에서", "서울에서"),
        ("a\r\nb\u2028c", "a b c"),
    ],
)
def test_other_scripts_and_emoji(text: str, expected: str, rule: RuleName) -> None:
    assert words(text, rule) == expected.split(" ")


def test_characters() -> None:
    assert words("Ae\u0301 \u1112\u1161\u11ab漢x", "characters") == [
        "A",
        "e\u0301",
        "\u1112\u1161\u11ab",
        "漢",
        "x",
    ]


@pytest.mark.parametrize("rule", get_args(RuleName))
@pytest.mark.parametrize("piece", ["a", "a-", "._", "a.", "'", "n't", "@a", "www.", "é", "\u0301"])
def test_long_texts_without_spaces_take_linear_time(rule: RuleName, piece: str) -> None:
    text = piece * (60_000 // len(piece))  # quadratic time would be minutes
    assert "".join(words(text, rule)) == text
