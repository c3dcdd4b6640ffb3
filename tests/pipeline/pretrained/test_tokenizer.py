"""Tests of a tokenizer with two token types and of tokenizers with one."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.pretrained.tokenizer import Tokenizer
from tests.support.small_project import make_encoder_decoder

CLS, SEP, UNK = 101, 102, 100  # ids of BERT


def test_special_tokens_come_from_the_template(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer, numbering_tokenizer: Tokenizer
) -> None:
    assert tokenizer.prefix == [CLS]
    assert tokenizer.middle == tokenizer.suffix == [SEP]
    assert tokenizer.second_type == 1
    other = one_type_tokenizer
    assert (other.prefix, other.middle, other.suffix, other.second_type) == ([0], [2, 2], [2], 0)
    # Its template has token types, but its model ignores them.
    assert numbering_tokenizer.second_type == 0


def test_a_text_is_summarized_where_its_model_has_read_all_of_it(
    tokenizer: Tokenizer, numbering_tokenizer: Tokenizer, bart_tokenizer: Tokenizer
) -> None:
    tokenizers = (tokenizer, numbering_tokenizer, bart_tokenizer)
    assert [each.summary_position(5) for each in tokenizers] == [0, 4, 4]
    assert [bool(each.target_prefix) for each in tokenizers] == [False, False, True]


def test_an_encoder_decoder_without_a_template_ends_texts_by_its_end_token(
    tmp_path: Path,
) -> None:
    make_encoder_decoder(tmp_path, ["the cat"], "bart")
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    plain = Tokenizer(tmp_path, decoder=True)
    assert (plain.prefix, plain.middle, plain.suffix, plain.target_prefix) == ([], [1], [1], [1])


def test_a_decoder_that_starts_with_the_first_token_of_a_text_is_refused(tmp_path: Path) -> None:
    make_encoder_decoder(tmp_path, ["the cat"], "bart")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"decoder_start_token_id": config["bos_token_id"]}))
    with pytest.raises(UserError, match="is 0, which also begins each text"):
        Tokenizer(tmp_path, decoder=True)


def test_a_token_without_embedding_is_refused(tmp_path: Path) -> None:
    make_encoder_decoder(tmp_path, ["Ada went to Bonn."], "bart")
    size = load_json(tmp_path / "config.json")["vocab_size"]
    Tokenizer(tmp_path, decoder=True)
    config = (tmp_path / "config.json").read_text()
    config = config.replace(f'"vocab_size": {size}', f'"vocab_size": {size - 1}')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=rf"has the id {size - 1} .* vocab_size .* is {size - 1}"):
        Tokenizer(tmp_path, decoder=True)


def test_padding_and_unknown_ids(tokenizer: Tokenizer, one_type_tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, UNK)
    assert (one_type_tokenizer.pad_token_id, one_type_tokenizer.unk_token_id) == (1, 3)


def test_words_are_tokenized_separately(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer
) -> None:
    words = ["the", "Unbelievable", "the", "old-man"]
    first, long, again, hyphen = tokenizer.encode_words([words])[0]
    assert first == again == tokenizer.encode_texts(["the"])[0][0]
    assert len(long) >= 1
    assert hyphen == tokenizer.encode_texts(["old - man"])[0][0]
    first, long, again, _ = one_type_tokenizer.encode_words([words])[0]
    assert first == again
    assert len(long) > 1
    assert [len(sentence) for sentence in tokenizer.encode_words([["a"], ["b", "c"]])] == [1, 2]


@pytest.mark.parametrize("word", ["", "\x00\x01", "\u200b", " "])
def test_word_without_sub_words_becomes_the_unknown_token(tokenizer: Tokenizer, word: str) -> None:
    assert tokenizer.encode_words([["the", word, "cat"]])[0] == [
        *tokenizer.encode_words([["the"]])[0],
        [UNK],
        *tokenizer.encode_words([["cat"]])[0],
    ]


def test_empty_word_of_a_byte_level_tokenizer_becomes_the_unknown_token(
    one_type_tokenizer: Tokenizer,
) -> None:
    the, empty, cat = one_type_tokenizer.encode_words([["the", "", "cat"]])[0]
    assert (the, cat) == (
        one_type_tokenizer.encode_words([["the"]])[0][0],
        one_type_tokenizer.encode_words([["cat"]])[0][0],
    )
    assert empty == [one_type_tokenizer.unk_token_id]


def test_special_tokens_in_a_text_are_plain_text(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer
) -> None:
    ids = [
        *tokenizer.encode_words([["[SEP]"]])[0][0],
        *tokenizer.encode_texts(["so [SEP] and [CLS] and [PAD]"])[0][0],
    ]
    assert not {CLS, SEP, UNK, tokenizer.pad_token_id} & set(ids)
    ids = [
        *one_type_tokenizer.encode_words([["</s>"]])[0][0],
        *one_type_tokenizer.encode_texts(["so </s> and <pad>"])[0][0],
    ]
    assert not {0, 1, 2, 3} & set(ids)


def test_long_texts_are_neither_truncated_nor_padded(tokenizer: Tokenizer) -> None:
    (long, _), (short, _) = tokenizer.encode_texts(["cat " * 3000, "cat"])
    assert (len(long), len(short)) == (3000, 1)


@pytest.mark.parametrize(
    "text", ["The Cat saw Zürich.", "naïve 😀 CAFÉ\u0301 日本 x", "  two  spaces\tand\nlines "]
)
def test_offsets_cover_all_characters_of_the_text(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer, text: str
) -> None:
    # A combining accent may belong to no sub-word.
    required = {i for i, char in enumerate(text) if not char.isspace() and char != "\u0301"}
    for tested in (tokenizer, one_type_tokenizer):
        ids, offsets = tested.encode_texts([text])[0]
        assert len(ids) == len(offsets)
        assert required <= {i for begin, end in offsets for i in range(begin, end)}
    pieces = [text[begin:end] for begin, end in tokenizer.encode_texts([text])[0][1]]
    assert "".join(pieces) == "".join(text.split()).replace("\u0301", "")


def test_folder_without_tokenizer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load a tokenizer") as caught:
        Tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


WORDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["the", "The", "[SEP]", "</s>", "##s", "a-b", "'s"]
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sentences=st.lists(st.lists(WORDS, max_size=8), max_size=5))
def test_cached_words_equal_words_tokenized_in_their_sentence(
    sentences: list[list[str]],
    tokenizer: Tokenizer,
    one_type_tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ids of a word do not depend on its sentence, nor on the size of the cache."""
    monkeypatch.setattr("pipeline.pretrained.tokenizer.MAX_CACHED_WORDS", 5)
    for tested in (tokenizer, one_type_tokenizer):
        encodings = tested._fast.encode_batch(
            sentences, is_pretokenized=True, add_special_tokens=False
        )
        expected = []
        for words, encoding in zip(sentences, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in words]
            for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
                pieces[word].append(piece)
            expected.append([piece or [tested.unk_token_id] for piece in pieces])
        assert tested.encode_words(sentences) == expected


def test_copy_for_another_process_gives_the_same_ids(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer
) -> None:
    for original in (tokenizer, one_type_tokenizer):
        copied = copy.deepcopy(original)  # pickles like a transfer to another process
        assert copied.digest == original.digest
        assert copied.encode_words([["Unbelievable", "cat"]]) == original.encode_words(
            [["Unbelievable", "cat"]]
        )
        assert copied.encode_texts(["a cat"]) == original.encode_texts(["a cat"])
    assert tokenizer.digest != one_type_tokenizer.digest
