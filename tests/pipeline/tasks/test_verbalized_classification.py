"""The verbalizer: the mask token, the next word of a causal backbone, and the label words."""

from collections import Counter

import pytest

from pipeline.errors import UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.features import Feature
from pipeline.tasks.sequence_classification import Example
from tests.support.encoding import ids

TASK = task_named("verbalized_classification")


def featurize(tokenizer: Tokenizer, *pairs: tuple[str, str]) -> list[Feature]:
    examples = [Example("a", text, pair, (), "yes", "") for text, pair in pairs]
    features = list(TASK.featurize(examples, 0, tokenizer, ("no", "yes"), 64, 8, Counter()))
    assert all(len(feature.input_ids) <= 64 for feature in features)
    return features


def test_the_mask_follows_the_texts(tokenizer: Tokenizer) -> None:
    features = featurize(tokenizer, ("the cat", "a dog"), ("the cat", ""), ("cat " * 90, ""))
    assert tokenizer.mask_token_id is not None
    for feature in features:
        assert feature.input_ids[-2:] == [tokenizer.mask_token_id, *tokenizer.suffix]
        assert feature.positions == [len(feature.input_ids) - 2]
    assert features[0].input_ids[-4:-2] == ids(tokenizer, "a dog")


def test_a_causal_backbone_predicts_the_next_word(numbering_tokenizer: Tokenizer) -> None:
    (feature,) = featurize(numbering_tokenizer, ("the cat", ""))
    assert feature.input_ids == [*numbering_tokenizer.prefix, *ids(numbering_tokenizer, "the cat")]
    assert feature.positions == [len(feature.input_ids) - 1]


def test_a_tokenizer_without_a_mask_is_a_user_error(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "mask_token_id", None)
    with pytest.raises(UserError, match="has no mask token; use sequence_classification"):
        featurize(tokenizer, ("a", ""))


def test_each_label_word_is_a_single_token(tokenizer: Tokenizer) -> None:
    words = ["the", "cat"]
    assert tokenizer.vocabulary_ids(words) == [
        pieces[0] for pieces in tokenizer.encode_words([words])[0]
    ]
    with pytest.raises(UserError) as caught:
        tokenizer.vocabulary_ids(["the", "unbelievablyzzz", "The"])
    message = str(caught.value)
    assert "'unbelievablyzzz' has" in message
    assert "choose a word that is one" in message
