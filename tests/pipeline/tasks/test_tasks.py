"""Tagging and span extraction: each label is in one feature, and decoding is optimal."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.semantic_role_labeling import Example as Srl
from pipeline.tasks.shared.tagging import bio_classes, decode_tags
from pipeline.tasks.span_extraction import Answer, Candidate, Decoded
from pipeline.tasks.span_extraction import Example as Question
from pipeline.tasks.token_classification import Example as Ner

SRL, QA, NER = (
    task_named("semantic_role_labeling"),
    task_named("span_extraction"),
    task_named("token_classification"),
)
SRL_CLASSES = SRL.classes(("ARG0", "ARG1"))
NER_CLASSES = NER.classes(("PER", "LOC"))


def featurize(
    task: Any,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    classes: Sequence[str],
    max_length: int = 64,
    stride: int = 8,
    first: int = 0,
) -> tuple[list[Feature], Counter[str]]:
    counts: Counter[str] = Counter()
    features = list(task.featurize(examples, first, tokenizer, classes, max_length, stride, counts))
    for feature in features:
        assert len(feature.input_ids) == len(feature.token_types) <= max_length
        assert len(feature.positions) == len(feature.begins) == len(feature.ends)
        assert all(0 <= position < len(feature.input_ids) for position in feature.positions)
    return features, +counts


def saw(predicate: int) -> Srl:
    """A sentence with the verb "saw" at 2 and 6; `predicate` is the index of the annotated verb."""
    words = ("the", "cat", "saw", "the", "dog", "and", "saw", "the", "cat")
    return Srl(
        f"s-{predicate}",
        words,
        predicate,
        tuple("B-V" if at == predicate else "O" for at in range(len(words))),
    )


# Semantic role labeling


@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"])
def test_markers_distinguish_two_uses_of_a_verb(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    features, counts = featurize(SRL, [saw(2), saw(6)], tokenizer, SRL_CLASSES)
    pieces = tokenizer.encode_words([saw(2).tokens])[0]
    assert tokenizer.marker == tokenizer.encode_words([["*"]])[0][0]
    for feature, predicate in zip(features, (2, 6), strict=True):
        assert not any(feature.token_types)
        expected = [*tokenizer.prefix]
        starts = []
        for at, piece in enumerate(pieces):
            around = tokenizer.marker if at == predicate else []
            starts.append(len(expected) + len(around) + (len(piece) - 1 if tokenizer.causal else 0))
            expected += [*around, *piece, *around]
        assert feature.input_ids == expected + tokenizer.suffix
        assert feature.positions == starts, (
            "the position is at the verb, not at its marker; at its last sub-word if causal"
        )
    assert not counts


def test_markers_enclose_all_subwords_of_a_predicate(tokenizer: Tokenizer) -> None:
    verb = "unbelievablyzzz"
    (feature,), _ = featurize(
        SRL, [Srl("a", ("he", verb, "us"), 1, ("O", "B-V", "O"))], tokenizer, SRL_CLASSES
    )
    ((he,), pieces, (us,)) = tokenizer.encode_words([["he", verb, "us"]])[0]
    assert len(pieces) > 1
    (star,) = tokenizer.marker
    assert feature.input_ids == [101, he, star, *pieces, star, us, 102]
    assert feature.positions == [1, 3, 4 + len(pieces)]


def test_token_classification_has_no_markers(tokenizer: Tokenizer) -> None:
    (feature,), _ = featurize(
        NER, [Ner("a", ("in", "Rome"), ("O", "B-LOC"))], tokenizer, NER_CLASSES
    )
    assert feature.input_ids == [
        101,
        *(piece for word in tokenizer.encode_words([["in", "Rome"]])[0] for piece in word),
        102,
    ]


@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer"])
def test_each_label_of_a_long_sentence_is_in_one_window(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    words = tuple(f"word{at}" for at in range(50))
    tags = ["O"] * 50
    tags[3:6], tags[20], tags[40] = ["B-ARG0", "I-ARG0", "I-ARG0"], "B-V", "B-ARG1"
    features, counts = featurize(
        SRL, [saw(2), Srl("long", words, 20, tuple(tags))], tokenizer, SRL_CLASSES, 32, 8, first=10
    )
    long = [feature for feature in features if feature.example == 11]
    assert [word for feature in long for word in feature.begins] == list(range(50))
    assert [SRL_CLASSES[label] for feature in long for label in feature.labels] == tags
    assert all(list(feature.ends) == [word + 1 for word in feature.begins] for feature in long)
    assert sum(feature.label_count for feature in long) == 50
    pieces = tokenizer.encode_words([words])[0]
    for feature in long:
        read = [feature.input_ids[position] for position in feature.positions]
        assert read == [pieces[word][0] for word in feature.begins], (
            "the position of a label is its word's first sub-word"
        )
    marked = sum(list(feature.input_ids).count(tokenizer.marker[0]) == 2 for feature in long)
    assert 0 < marked < len(long)
    assert counts["sentences in several windows"] == 1
    assert counts["windows without their predicate"] == len(long) - marked
    assert set(counts) == {"sentences in several windows", "windows without their predicate"}


def test_word_longer_than_a_window_keeps_its_label(tokenizer: Tokenizer) -> None:
    long = "qz" * 40
    assert len(tokenizer.encode_words([[long]])[0][0]) > 14
    features, counts = featurize(
        NER, [Ner("a", ("in", long, "."), ("O", "B-LOC", "O"))], tokenizer, NER_CLASSES, 16, 4
    )
    assert [NER_CLASSES[label] for feature in features for label in feature.labels] == [
        "O",
        "B-LOC",
        "O",
    ]
    assert counts == {
        "words cut": 1,
        "sentences in several windows": 1,
    }


# BIO decoding


def window(logits: Any, begin: int = 0) -> WindowLogits:
    begins = np.arange(begin, begin + len(logits))
    return WindowLogits(begins, begins + 1, np.asarray(logits, dtype=np.float32))


def well_formed(tags: Sequence[str]) -> bool:
    return all(
        not tag.startswith("I-") or before[2:] == tag[2:] != ""
        for before, tag in zip(("O", *tags), tags, strict=False)
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    labels=st.integers(1, 2),
    words=st.integers(1, 5),
    scale=st.sampled_from([0.5, 2.0, 8.0]),
)
def test_decoded_tags_are_the_best_well_formed_sequence(
    seed: int, labels: int, words: int, scale: float
) -> None:
    classes = bio_classes("XY"[:labels])
    logits = np.random.default_rng(seed).normal(size=(words, len(classes))) * scale
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def score(tags: Sequence[str]) -> float:
        return float(sum(log_probabilities[at, classes.index(tag)] for at, tag in enumerate(tags)))

    decoded_tags = decode_tags([window(logits)], classes)
    assert well_formed(decoded_tags)
    best = max(score(tags) for tags in product(classes, repeat=words) if well_formed(tags))
    assert score(decoded_tags) == pytest.approx(best, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), labels=st.integers(1, 20), words=st.integers(1, 60))
def test_decoded_tags_do_not_depend_on_the_order_of_windows(
    seed: int, labels: int, words: int
) -> None:
    classes = bio_classes([f"L{number}" for number in range(labels)])
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(words, len(classes))) * 5
    decoded_tags = decode_tags([window(logits)], classes)
    assert well_formed(decoded_tags)
    assert len(decoded_tags) == words
    cuts = [0, *sorted(generator.integers(0, words + 1, 3).tolist()), words]
    parts = [window(logits[begin:end], begin) for begin, end in pairwise(cuts)]
    generator.shuffle(parts)
    assert decode_tags(parts, classes) == decoded_tags


def test_the_best_tag_of_each_word_is_decoded_unless_it_is_not_well_formed() -> None:
    """I-X may not follow O. Of equal predecessors of I-X, the one that continues a span wins."""
    classes = bio_classes(["X"])
    assert decode_tags([window([[0, 9, 0], [0, 8, 9], [9, 0, 0]])], classes) == ["B-X", "I-X", "O"]
    assert decode_tags([window([[9, 0, 0], [0, 8, 9]])], classes) == ["O", "B-X"]
    assert decode_tags([window([[0, 9, 0], [0, 9, 9], [0, 0, 9]])], classes) == [
        "B-X",
        "I-X",
        "I-X",
    ]


def test_span_can_continue_in_the_next_window() -> None:
    classes = bio_classes(["X"])
    first, second = window([[0, 9, 0]]), window([[0, 0, 9], [9, 0, 0]], 1)
    assert decode_tags([second, first], classes) == ["B-X", "I-X", "O"]


# Span extraction


CONTEXT = "Nobody lived in Zürich; the naïve CAFÉ of Émile Müller, in Ürümqi, was 日本 style."


def ask(
    text: str | None, context: str = CONTEXT, question: str = "Who?", id: str = "q"
) -> Question:
    return Question(
        id, question, context, () if text is None else (Answer(text, context.index(text)),)
    )


def answered(feature: Feature, context: str) -> str:
    """The text between the labeled positions."""
    start, end = feature.labels
    return context[feature.begins[start] : feature.ends[end]]


@pytest.mark.parametrize(
    "text",
    ["Nobody", "Zürich", "naïve CAFÉ", "Émile Müller", "Ürümqi, was", "日本", "style.", CONTEXT],
)
@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer"])
def test_labels_cover_the_answer(name: str, text: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    (feature,), counts = featurize(QA, [ask(text)], tokenizer, QA.classes(()), 256)
    assert answered(feature, CONTEXT) == text
    assert not counts
    assert feature.positions[0] == 0
    assert (feature.begins[0], feature.ends[0], feature.label_count) == (0, 0, 1)


def test_labels_extend_an_answer_to_whole_tokens(tokenizer: Tokenizer) -> None:
    (feature,), _ = featurize(QA, [ask("obod")], tokenizer, QA.classes(()), 256)
    assert answered(feature, CONTEXT) == "Nobody"


def test_question_and_context_are_two_segments(
    tokenizer: Tokenizer, one_type_tokenizer: Tokenizer
) -> None:
    (feature,), _ = featurize(QA, [ask(None, "a cat", "what is it ?")], tokenizer, QA.classes(()))
    (question, _), (context, _) = tokenizer.encode_texts(["what is it ?", "a cat"])
    assert feature.input_ids == [101, *question, 102, *context, 102]
    assert feature.token_types == [0] * (len(question) + 2) + [1] * (len(context) + 1)
    assert feature.positions == [0, len(question) + 2, len(question) + 3]
    (feature,), _ = featurize(
        QA, [ask(None, "a cat", "what is it ?")], one_type_tokenizer, QA.classes(())
    )
    assert not any(feature.token_types)


def test_windows_cover_a_long_context_and_overlap(tokenizer: Tokenizer) -> None:
    words = [f"{'abcdefghij'[at % 10]}" for at in range(100)]
    words[60] = "answer"
    question = ask("answer", " ".join(words), "who ?")
    room = 32 - 5  # [CLS] who ? [SEP] ... [SEP]
    features, counts = featurize(QA, [question], tokenizer, QA.classes(()), 32, 9)
    shown = [(feature.begins[1] // 2, len(feature.positions) - 1) for feature in features[:-1]]
    assert shown[:3] == [(0, room), (room - 9, room), (2 * (room - 9), room)], (
        "each window overlaps the previous window by 9 tokens"
    )
    spans = [
        span for feature in features for span in zip(feature.begins, feature.ends, strict=True)
    ]
    covered = {at for begin, end in spans for at in range(begin, end)}
    assert covered == {at for at, character in enumerate(question.context) if character != " "}
    windows_with_answer = 0
    for feature in features:
        if (
            feature.begins[1] <= question.answers[0].start
            and question.answers[0].start + 6 <= feature.ends[-1]
        ):
            windows_with_answer += 1
            assert answered(feature, question.context) == "answer"
        else:
            assert feature.labels == [0, 0], "no answer in this window"
    assert 0 < windows_with_answer < len(features)
    assert counts == {"contexts in several windows": 1}


@pytest.mark.parametrize("width", [1, 3])
def test_answer_is_labeled_at_every_position_of_a_window(width: int, tokenizer: Tokenizer) -> None:
    words = [f"{'abcdefghij'[at % 10]}" for at in range(40)]
    context = " ".join(words)
    for at in range(40 - width + 1):
        answer = Answer(context[2 * at : 2 * (at + width) - 1], 2 * at)
        features, _ = featurize(
            QA, [Question("q", "who ?", context, (answer,))], tokenizer, QA.classes(()), 16, 4
        )
        assert len(features) > 3
        for feature in features:
            if (
                feature.begins[1] <= answer.start
                and answer.start + len(answer.text) <= feature.ends[-1]
            ):
                assert feature.begins[feature.labels[0]] == answer.start
                assert feature.ends[feature.labels[1]] == answer.start + len(answer.text)
            else:
                assert feature.labels == [0, 0]


def test_truncated_questions_and_missing_answers_are_counted(tokenizer: Tokenizer) -> None:
    context = " ".join("abcdefghij" * 4)
    _, counts = featurize(
        QA, [ask(context[:60], context, "who " * 30)], tokenizer, QA.classes(()), 32, 4
    )
    assert counts == {
        "questions cut": 1,
        "contexts in several windows": 1,
        "answers in no window": 1,
    }


def test_examples_are_numbered_from_first(tokenizer: Tokenizer) -> None:
    features, _ = featurize(
        QA, [ask(None, id="a"), ask("Nobody", id="b")], tokenizer, QA.classes(()), 256, first=7
    )
    assert [feature.example for feature in features] == [7, 8]


def spans(
    context: str, scores: dict[tuple[int, int], tuple[float, float]], null: float, begin: int = 0
) -> WindowLogits:
    """A window: the keys of `scores` are character spans, the values are start and end logits."""
    begins, ends = zip((0, 0), *scores, strict=True)
    return WindowLogits(
        np.array(begins), np.array(ends), np.array([(null / 2, null / 2), *scores.values()])
    )


def test_decoded_answer_has_the_original_characters(tokenizer: Tokenizer) -> None:
    question = ask("naïve CAFÉ of Émile")
    (feature,), _ = featurize(QA, [question], tokenizer, QA.classes(()), 256)
    logits = np.zeros((len(feature.positions), 2))
    logits[feature.labels[0], 0] = logits[feature.labels[1], 1] = 5.0
    decoded = QA.decode(
        question,
        [WindowLogits(np.array(feature.begins), np.array(feature.ends), logits)],
        ("start", "end"),
    )
    start = CONTEXT.index("naïve")
    assert decoded.candidates[0] == Candidate("naïve CAFÉ of Émile", 10.0, start)
    assert QA.predictions([question], [decoded], {}) == {"q": "naïve CAFÉ of Émile"}


def test_candidates_are_the_best_over_all_windows() -> None:
    question = ask("bb", "aa bb cc bb")
    first = spans(question.context, {(0, 2): (1.0, 0.0), (3, 5): (2.0, 4.0)}, null=9.0)
    second = spans(question.context, {(6, 8): (5.0, 0.0), (9, 11): (0.0, 3.0)}, null=-2.0)
    decoded = QA.decode(question, [first, second], ("start", "end"))
    assert decoded.candidates == (
        ("cc bb", 8.0, 6),
        ("bb", 6.0, 3),
        ("aa bb", 5.0, 0),
        ("cc", 5.0, 6),
        ("aa", 1.0, 0),
    )
    assert decoded.null_score == -2.0, (
        "the minimum over windows: a single window with the answer is enough"
    )
    assert decoded.margin == -10.0


def test_spans_are_not_empty_and_not_too_long() -> None:
    context = " ".join("x" * 40)
    scores = {(2 * at, 2 * at + 1): (0.0, 0.0) for at in range(40)}
    scores[0, 1], scores[10, 11], scores[78, 79] = (9.0, 0.0), (8.0, 7.0), (0.0, 9.0)
    decoded = QA.decode(ask(None, context), [spans(context, scores, 0.0)], ("start", "end"))
    best, second = decoded.candidates[:2]
    assert (best.text, best.score) == (context[:11], 16.0), (
        "not the 40 tokens from the best start to the best end"
    )
    assert second.score < 16.0
    assert all(candidate.text for candidate in decoded.candidates)
    assert len(decoded.candidates) <= 20


@pytest.mark.parametrize("seed", range(5))
def test_candidates_equal_those_of_a_brute_force_search(seed: int) -> None:
    """The search covers all pairs of the 20 best starts and ends, without "no answer"."""
    generator = np.random.default_rng(seed)
    context = "".join(chr(0x4E00 + at) for at in range(60))  # all substrings are different
    scores = {(at, at + 1): tuple(generator.normal(size=2)) for at in range(60)}
    best = [set(sorted(scores, key=lambda span: -scores[span][end])[:20]) for end in (0, 1)]
    expected = {
        context[start[0] : end[1]]: scores[start][0] + scores[end][1]
        for start in best[0]
        for end in best[1]
        if 0 <= end[0] - start[0] < 30
    }
    decoded = QA.decode(ask(None, context), [spans(context, scores, null=20.0)], ("start", "end"))
    assert {candidate.text: candidate.score for candidate in decoded.candidates} == dict(
        sorted(expected.items(), key=lambda item: -item[1])[:20]
    )


@pytest.mark.parametrize("length", [1, 5, 40])
def test_the_maximum_length_of_answers_is_a_setting(length: int) -> None:
    context = " ".join("x" * 40)
    scores = {(2 * at, 2 * at + 1): (0.0, 0.0) for at in range(40)}
    scores[0, 1], scores[78, 79] = (9.0, 1.0), (1.0, 9.0)
    task = QA.configured(max_answer_length=length)
    decoded = task.decode(ask(None, context), [spans(context, scores, 0.0)], ("start", "end"))
    assert max(len(candidate.text.split()) for candidate in decoded.candidates) == length
    assert (decoded.candidates[0].text == context) == (length == 40)
    assert (task.max_answer_length, QA.max_answer_length, NER.max_answer_length) == (
        length,
        30,
        None,
    )


@pytest.mark.parametrize(
    ("context", "answer", "inner"),
    [
        ("वह दिल्ली में है", "दिल्ली में", "ल्ली म"),  # vowel signs and a nasal
        ("كتبَ فهدٌ رسالةً", "فهدٌ", "فهد"),
        ("le cafe\u0301 noir", "cafe\u0301", "cafe"),
        ("เขาชอบที่นี่มาก", "ที่นี่", "ที่น"),
    ],
)
def test_an_answer_keeps_the_marks_of_its_letters(context: str, answer: str, inner: str) -> None:
    """A tokenizer without accents has offsets inside a letter: `inner` is what it points at."""
    start = context.index(answer)
    begin, end = start + answer.index(inner), start + answer.index(inner) + len(inner)
    window = spans(context, {(begin, end): (5.0, 5.0)}, null=0.0)
    decoded = QA.decode(ask(None, context), [window], ("start", "end"))
    text = decoded.candidates[0].text
    assert inner in text
    assert answer.endswith(text)
    (span,) = QA.result(ask(None, context), [window], ("start", "end"), {}).spans
    assert context[span.start : span.end] == span.text == text


def test_the_rules_of_the_metric_choose_the_threshold_and_the_verdicts() -> None:
    question = ask("cat", "a cat")
    chinese = Question("z", "?", "他在北京大学。", (Answer("北京大学", 2),))
    impossible = Question("n", "?", "他在北京大学。", ())
    for metric, verdict in (("f1", "wrong"), ("mlqa_f1", "partial"), ("cmrc2018_f1", "partial")):
        task = QA.configured(metric)
        (claim,) = task.claims(chinese, "北京")
        assert claim.predicted_label == verdict
        assert metric in task.score([question], {question.id: "cat"}, ()).overall
        answers = [decoded("北京", -1.0), decoded("大", 1.0)]
        threshold = task.fit_thresholds([chinese, impossible], answers)["null_margin"]
        assert (threshold == -1.0) == (verdict == "partial")


def test_window_without_context_predicts_no_answer() -> None:
    decoded = QA.decode(ask(None), [spans(CONTEXT, {}, 1.0)], ("start", "end"))
    assert (decoded.candidates, decoded.margin) == ((), float("inf"))
    assert QA.predictions([ask(None)], [decoded], {}) == {"q": ""}


def decoded(text: str, margin: float) -> Decoded:
    return Decoded((Candidate(text, 1.0, 0),), 1.0 + margin)


def test_margin_threshold_is_fitted_on_validation_and_applied_to_test() -> None:
    validation = [
        ask("Nobody", id="a"),
        ask("Zürich", id="b"),
        ask(None, id="c"),
        ask(None, id="d"),
    ]
    guesses = [
        decoded("Nobody", -3.0),
        decoded("Zürich", 1.0),
        decoded("style", 2.0),
        decoded("of", 4.0),
    ]
    thresholds = QA.fit_thresholds(validation, guesses)
    assert thresholds == {"null_margin": 1.0}
    assert QA.predictions(validation, guesses, thresholds) == {
        "a": "Nobody",
        "b": "Zürich",
        "c": "",
        "d": "",
    }
    test = [ask(None, id="x"), ask(None, id="y")]
    assert QA.predictions(test, [decoded("now", 0.9), decoded("then", 1.1)], thresholds) == {
        "x": "now",
        "y": "",
    }


def test_no_threshold_is_fitted_if_all_questions_have_answers() -> None:
    examples = [ask("Nobody", id="a"), ask("Zürich", id="b")]
    guesses = [decoded("Nobody", 50.0), decoded("style", 60.0)]
    assert QA.fit_thresholds(examples, guesses) == {}
    assert QA.predictions(examples, guesses, {}) == {"a": "Nobody", "b": "style"}
    assert (
        QA.score(examples, QA.predictions(examples, guesses, {}), ()).overall["exact_match"] == 50.0
    )


def test_tagging_has_no_thresholds() -> None:
    example = Ner("a", ("in", "Rome"), ("O", "B-LOC"))
    assert NER.fit_thresholds([example], [["O", "O"]]) == {}
    assert (
        NER.score([example], NER.predictions([example], [["O", "B-LOC"]], {}), NER_CLASSES).overall[
            "f1"
        ]
        == 100.0
    )
