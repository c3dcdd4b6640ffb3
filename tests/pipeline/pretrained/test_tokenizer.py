"""Words to sub-words, for a tokenizer with two token types and for one with a single type."""

import copy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.pretrained.tokenizer import Tokenizer

CLS, SEP, UNK = 101, 102, 100  # BERT's


def test_template(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer, numbering_tokenizer: Tokenizer
) -> None:
    assert (tokenizer.prefix, tokenizer.middle, tokenizer.suffix, tokenizer.second_type) == (
        [CLS],
        [SEP],
        [SEP],
        1,
    )
    one = one_type_tokenizer
    assert (one.prefix, one.middle, one.suffix, one.second_type) == ([0], [2, 2], [2], 0)
    numbering = numbering_tokenizer
    assert numbering.second_type == 0, "the model would not see a token type of 1"


def test_padding_and_unknown(tokenizer: Tokenizer, one_type_tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_token_id, tokenizer.unknown) == (0, UNK)
    assert (one_type_tokenizer.pad_token_id, one_type_tokenizer.unknown) == (1, 3)


def test_words_are_kept_apart(tokenizer: Tokenizer, one_type_tokenizer: Tokenizer) -> None:
    words = ["the", "Unbelievable", "the", "old-man"]
    first, long, again, hyphen = tokenizer.words([words])[0]
    assert first == again == tokenizer.texts(["the"])[0][0]
    assert len(long) >= 1
    assert hyphen == tokenizer.texts(["old - man"])[0][0]
    first, long, again, _ = one_type_tokenizer.words([words])[0]
    assert first == again
    assert len(long) > 1
    assert [len(sentence) for sentence in tokenizer.words([["a"], ["b", "c"]])] == [1, 2]


@pytest.mark.parametrize("word", ["", "\x00\x01", "\u200b", " "])
def test_a_word_that_leaves_nothing_is_unknown(tokenizer: Tokenizer, word: str) -> None:
    assert tokenizer.words([["the", word, "cat"]])[0] == [
        *tokenizer.words([["the"]])[0],
        [UNK],
        *tokenizer.words([["cat"]])[0],
    ]


def test_an_empty_word_among_bytes(one_type_tokenizer: Tokenizer) -> None:
    the, empty, cat = one_type_tokenizer.words([["the", "", "cat"]])[0]
    assert (the, cat) == (
        one_type_tokenizer.words([["the"]])[0][0],
        one_type_tokenizer.words([["cat"]])[0][0],
    )
    assert empty == [one_type_tokenizer.unknown]


def test_special_tokens_in_text_are_text(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer
) -> None:
    ids = [
        *tokenizer.words([["[SEP]"]])[0][0],
        *tokenizer.texts(["so [SEP] and [CLS] and [PAD]"])[0][0],
    ]
    assert not {CLS, SEP, UNK, tokenizer.pad_token_id} & set(ids)
    ids = [
        *one_type_tokenizer.words([["</s>"]])[0][0],
        *one_type_tokenizer.texts(["so </s> and <pad>"])[0][0],
    ]
    assert not {0, 1, 2, 3} & set(ids)


def test_long_texts_are_neither_cut_nor_padded(tokenizer: Tokenizer) -> None:
    (long, _), (short, _) = tokenizer.texts(["cat " * 3000, "cat"])
    assert (len(long), len(short)) == (3000, 1)


@pytest.mark.parametrize(
    "text", ["The Cat saw Zürich.", "naïve 😀 CAFÉ\u0301 日本 x", "  two  spaces\tand\nlines "]
)
def test_offsets_are_characters_of_the_text(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer, text: str
) -> None:
    for made in (tokenizer, one_type_tokenizer):
        ids, offsets = made.texts([text])[0]
        assert len(ids) == len(offsets)
        covered = {at for begin, end in offsets for at in range(begin, end)}
        assert {
            at
            for at, character in enumerate(text)
            if not character.isspace() and character != "\u0301"
        } <= covered
    pieces = [text[begin:end] for begin, end in tokenizer.texts([text])[0][1]]
    assert "".join(pieces) == "".join(text.split()).replace("\u0301", ""), (
        "a lone accent belongs to no piece"
    )


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer can be read there") as caught:
        Tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


WORDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["the", "The", "[SEP]", "</s>", "##s", "a-b", "'s"]
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sentences=st.lists(st.lists(WORDS, max_size=8), max_size=5))
def test_words_are_what_they_are_in_a_sentence(
    sentences: list[list[str]],
    tokenizer: Tokenizer,
    one_type_tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each word is tokenized once, alone: as `tokenizers` does it among others, however little is remembered."""
    monkeypatch.setattr("pipeline.pretrained.tokenizer.REMEMBERED", 5)
    for one in (tokenizer, one_type_tokenizer):
        encodings = one._fast.encode_batch(
            sentences, is_pretokenized=True, add_special_tokens=False
        )
        wanted = []
        for words, encoding in zip(sentences, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in words]
            for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
                pieces[word].append(piece)
            wanted.append([piece or [one.unknown] for piece in pieces])
        assert one.words(sentences) == wanted


def test_a_copy_in_another_process_is_the_same(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer
) -> None:
    for one in (tokenizer, one_type_tokenizer):
        copied = copy.deepcopy(one)  # by what goes to another process
        assert copied.digest == one.digest
        assert copied.words([["Unbelievable", "cat"]]) == one.words([["Unbelievable", "cat"]])
        assert copied.texts(["a cat"]) == one.texts(["a cat"])
    assert tokenizer.digest != one_type_tokenizer.digest
