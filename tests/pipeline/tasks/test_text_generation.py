"""Text generation: windows of sources and references, and what does not fit."""

from collections import Counter

import numpy as np
import pytest

from pipeline.errors import Problems, UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, generated_window
from pipeline.tasks.text_generation import TASK, Example, Generated, TextGeneration
from tests.support.encoding import ids

EXAMPLE = Example("a", "the cat", ("a dog", "the dog sat"), "")


def featurize(
    tokenizer: Tokenizer, *examples: Example, length: int = 64, limit: int = 16
) -> tuple[list[Feature], Counter[str]]:
    counts: Counter[str] = Counter()
    task = TextGeneration(limit)
    return list(task.featurize(examples, 0, tokenizer, (), length, 8, counts)), counts


def test_each_reference_is_a_window_whose_labels_are_its_tokens(
    numbering_tokenizer: Tokenizer,
) -> None:
    tokenizer = numbering_tokenizer
    features, counts = featurize(tokenizer, EXAMPLE, Example("b", "cat", ("dog",), ""))
    assert [feature.example for feature in features] == [0, 0, 1]
    assert not +counts
    for feature, reference in zip(features, (*EXAMPLE.references, "dog"), strict=True):
        source = "cat" if feature.example else EXAMPLE.source
        start = [*tokenizer.prefix, *ids(tokenizer, source), *tokenizer.middle]
        target = [*ids(tokenizer, reference), tokenizer.suffix[0]]
        assert feature.input_ids == [*start, *target[:-1]]
        assert feature.labels == target
        assert list(feature.positions) == list(
            range(len(start) - 1, len(start) + len(target) - 1)
        ), "the loss is on the reference and the end token only"
        assert feature.label_count == len(target)
        # The token at each position precedes its label.
        shifted = [*feature.input_ids[1:], tokenizer.suffix[0]]
        assert [shifted[position] for position in feature.positions] == target


def test_a_row_to_predict_ends_with_its_source(numbering_tokenizer: Tokenizer) -> None:
    (feature,), _ = featurize(numbering_tokenizer, Example("a", "the cat", (), ""))
    middle = numbering_tokenizer.middle
    assert feature.input_ids[-len(middle) :] == middle
    assert list(feature.positions) == [len(feature.input_ids) - 1]


def test_what_is_cut_is_counted(numbering_tokenizer: Tokenizer) -> None:
    tokenizer = numbering_tokenizer
    long = "cat " * 60
    features, counts = featurize(
        tokenizer,
        Example("a", long, ("dog",), ""),
        Example("b", "cat", (long, "dog " * 20), ""),
        length=40,
    )
    assert counts == {
        "sources cut": 1,
        "references cut": 1,
        "references longer than max_answer_length": 2,
    }
    source, reference, _ = features
    assert all(len(feature.input_ids) <= 40 for feature in features)
    extra = len(tokenizer.prefix + tokenizer.middle)
    assert source.positions[0] + 1 == 40 - 16, "the source leaves room for the longest text"
    assert len(reference.labels) == 40 - extra - len(ids(tokenizer, "cat"))
    assert tokenizer.suffix[0] not in reference.labels, "a cut text does not end"


def test_the_target_of_an_encoder_decoder_has_token_type_1(bart_tokenizer: Tokenizer) -> None:
    tokenizer = bart_tokenizer
    assert tokenizer.target_prefix == [2, 0]
    features, counts = featurize(tokenizer, EXAMPLE, Example("b", "cat", (), ""))
    assert not +counts
    source = [*tokenizer.prefix, *ids(tokenizer, EXAMPLE.source), *tokenizer.suffix]
    for feature, reference in zip(features, EXAMPLE.references, strict=False):
        target = [*ids(tokenizer, reference), tokenizer.suffix[0]]
        read = [*tokenizer.target_prefix, *target[:-1]]
        assert feature.input_ids == [*source, *read]
        assert feature.token_types == [0] * len(source) + [1] * len(read)
        assert feature.labels == target
        assert [feature.input_ids[position] for position in feature.positions] == read[1:]
        assert feature.positions[-1] == len(feature.input_ids) - 1
    to_predict = features[2]
    assert to_predict.input_ids[-3:] == [*tokenizer.suffix, *tokenizer.target_prefix]
    assert to_predict.token_types[-3:] == [0, 1, 1]
    assert list(to_predict.positions) == [len(to_predict.input_ids) - 1]
    assert tokenizer.count_tokens(to_predict.input_ids).text == len(ids(tokenizer, "cat"))


def test_what_an_encoder_decoder_cuts_is_counted(bart_tokenizer: Tokenizer) -> None:
    """Source and target share the maximum length of a window."""
    tokenizer, long = bart_tokenizer, "cat " * 60
    features, counts = featurize(
        tokenizer,
        Example("a", long, ("dog",), ""),
        Example("b", "cat", (long,), ""),
        length=40,
    )
    expected = {
        "sources cut": 1,
        "references cut": 1,
        "references longer than max_answer_length": 1,
    }
    assert +counts == Counter(expected)
    assert [len(feature.input_ids) for feature in features] == [24 + len(ids(tokenizer, "dog")), 39]
    assert tokenizer.suffix[0] not in features[1].labels


def test_an_encoder_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="the backbone is an encoder, which cannot generate text"):
        featurize(tokenizer, EXAMPLE)


def test_a_window_without_room_for_a_source_is_refused(numbering_tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="leaves no room for a source of 8 tokens") as caught:
        featurize(numbering_tokenizer, EXAMPLE, length=20)
    assert "max_answer_length is 16 and max_length 20" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"source": " "}, "empty-source"),
        ({"source": 3}, "wrong-type"),
        ({"references": []}, "empty-references"),
        ({"references": ["a", ""]}, "empty-references"),
        ({"subset": True}, "wrong-type"),
    ],
)
def test_invalid_rows_are_problems(changes: dict[str, object], kind: str) -> None:
    problems = Problems()
    row = {"id": "1", "where": "a:1", "source": "cat", "references": ["dog"], **changes}
    assert TASK.example(row, (), problems) is None
    assert problems.counts == {kind: 1}


def test_a_row_becomes_an_example_and_a_record() -> None:
    row = {"id": "1", "where": "a:1", "source": "cat", "references": ["dog", "cow"], "subset": 2}
    example = TASK.example(row, (), Problems())
    assert example == Example("1", "cat", ("dog", "cow"), "2")
    assert TASK.from_record(TASK.record(example)) == example
    assert TASK.text(example) == "cat"
    assert TASK.example_for_prediction({"id": "1", "where": "", "source": "cat"}, Problems()) == (
        Example("1", "cat", (), "")
    )
    assert TASK.check_labels(["a"]) == ["the task has no labels; remove the key"]


def test_predictions_are_the_generated_texts() -> None:
    windows = [generated_window("a dog")]
    assert TASK.decode(EXAMPLE, windows, ()) == "a dog"
    assert TASK.predictions([EXAMPLE], ["a dog"], {}) == ["a dog"]
    result = TASK.result(EXAMPLE, windows, (), {})
    assert result == Generated("a dog")
    assert str(result) == "a dog"
    assert windows[0].logits.shape == np.empty((0, 0)).shape
    assert TASK.score([EXAMPLE], ["the dog sat"], ()).overall["rouge_l"] == 100


def test_edits_change_the_source_only() -> None:
    edited = TASK.apply_edit(EXAMPLE, Edit(str.upper))
    assert edited == Example("a", "THE CAT", EXAMPLE.references, "")
