"""The score of a perfect model of each kind of task, and the count of unknown tokens."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import Problems
from pipeline.features.checks import MAX_CHECKED_ROWS, check_table
from pipeline.features.table import FeatureTable, write_features
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import multiple_choice, task_named
from pipeline.tasks import sequence_classification as classification
from pipeline.tasks.base.feature_checks import FeatureChecks, FeatureReport, add_warnings
from pipeline.tasks.base.features import Feature
from pipeline.tasks.base.task import num_words
from pipeline.tasks.dialogue_state_tracking import Example as Dialogue
from pipeline.tasks.intent_and_slots import Example as Request
from pipeline.tasks.semantic_role_labeling import Example as Predicate
from pipeline.tasks.span_extraction import Answer
from pipeline.tasks.span_extraction import Example as Question
from pipeline.tasks.token_classification import Example as Sentence

CONTEXT = "The old cat saw Newtownstreet 5 and then a long row of red houses by the river."


def question(answer: str, context: str = CONTEXT, id: str = "q") -> Question:
    answers = (Answer(answer, context.index(answer)),) if answer else ()
    return Question(id, "what is it?", context, answers)


def check(
    tokenizer: Tokenizer,
    task: Any,
    examples: Sequence[Any],
    labels: Sequence[str] = (),
    max_length: int = 64,
) -> FeatureReport:
    classes = task.classes(labels)
    checks = FeatureChecks(task, classes, task.metric_names[0], tokenizer)
    windows: list[list[Feature]] = [[] for _ in examples]
    for feature in task.featurize(examples, 0, tokenizer, classes, max_length, 8, Counter()):
        windows[feature.example].append(feature)
    half = len(examples) // 2
    checks.add(examples[:half], windows[:half])
    checks.add(examples[half:], windows[half:])
    return checks.report()


def warnings(report: FeatureReport, task: Any) -> dict[str, str]:
    problems = Problems()
    add_warnings("ours: train", report, task, task.metric_names[0], problems)
    assert len(problems) == 0
    return {problem.kind: str(problem) for problem in problems.kept}


QA = task_named("span_extraction")
NER = task_named("token_classification")
FRAMES = task_named("intent_and_slots")
DIALOGUES = task_named("dialogue_state_tracking")
SRL = task_named("semantic_role_labeling")
WORDS = ("the", "cat", "saw", "the", "dog") * 12  # several windows
WELL_FORMED: dict[str, tuple[Any, list[Any], tuple[str, ...]]] = {
    "questions": (
        QA,
        [
            question("cat", id="a"),
            question("", id="b"),
            question("red houses", id="c"),
            question("river", id="d"),
        ],
        (),
    ),
    "dialogues": (
        DIALOGUES,
        [
            Dialogue(
                "a", ("", "where?"), ("thai", "north"), (("food=thai",), ("area=any", "request=x"))
            ),
            Dialogue("b", ("",), ("hello",), ((),)),
        ],
        ("food=thai", "area=any", "request=x", "request=y"),
    ),
    "intents and slots": (
        FRAMES,
        [
            Request("a", WORDS, ("B-X", "I-X", "O", "B-X", "B-Y") * 12, "buy"),
            Request("b", ("the",), ("O",), "sell"),
        ],
        ("X", "intent:buy", "Y", "intent:sell"),
    ),
    "entities": (
        NER,
        [
            Sentence("a", WORDS, ("B-X", "I-X", "O", "B-X", "B-Y") * 12),
            Sentence("b", ("the",), ("O",)),
        ],
        ("X", "Y"),
    ),
    "roles": (
        SRL,
        [Predicate("a", WORDS[:5], 2, ("B-A0", "I-A0", "B-V", "B-A1", "I-A1"))],
        ("A0", "A1"),
    ),
    "labels": (
        classification.TASK,
        [classification.Example(str(n), "the cat " * 80, "", (), "ab"[n % 2], "") for n in (0, 1)],
        ("a", "b"),
    ),
    "words of labels": (
        task_named("verbalized_classification"),
        [classification.Example(str(n), "the cat", "", (), "ab"[n % 2], "") for n in (0, 1)],
        ("a", "b"),
    ),
    "choices": (
        multiple_choice.TASK,
        [
            multiple_choice.Example("a", "the cat ran", "why?", ("fear", "joy"), (), ("joy",)),
            multiple_choice.Example("b", "the cat ran", "who?", ("the", "cat"), (0, 4), ("cat",)),
        ],
        (),
    ),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_perfect_model_scores_100_on_well_formed_rows(name: str, tokenizer: Tokenizer) -> None:
    task, examples, labels = WELL_FORMED[name]
    report = check(tokenizer, task, examples, labels, max_length=32)
    assert (report.rows, report.num_missed, report.worst) == (len(examples), 0, ())
    assert report.ceiling[task.metric_names[0]] == 100.0
    assert report.num_unknown == 0
    assert warnings(report, task) == {}


def test_no_entity_at_all_is_not_a_low_score(tokenizer: Tokenizer) -> None:
    report = check(tokenizer, NER, [Sentence("a", ("the", "cat"), ("O", "O"))], ("X",))
    assert (report.ceiling["f1"], report.num_missed) == (0.0, 0)
    assert warnings(report, NER) == {}


def test_answers_that_no_model_can_give_are_named(tokenizer: Tokenizer) -> None:
    long_answer = "number one and two and " * 8
    examples = [
        question("cat", id="fine"),
        question("own", id="inside a word"),
        question("red houses", id="also fine"),
        question(long_answer.strip(), f"I saw {long_answer}then no more.", id="long"),
    ]
    report = check(tokenizer, QA, examples)
    assert {row.id for row in report.worst} == {"inside a word", "long"}
    assert report.worst[0].score <= report.worst[1].score
    assert report.num_missed == 2
    assert report.ceiling["exact_match"] == 50.0
    assert "instead of 'own'" in {row.id: row.error for row in report.worst}["inside a word"]
    (message,) = warnings(report, QA).values()
    assert message.startswith("ours: train: a perfect model would score f1 ")
    assert "it gets 2 of 4 rows wrong" in message
    assert "raise max_answer_length (30) or max_length" in message
    longer = check(tokenizer, QA.configured(max_answer_length=50), examples)
    assert [row.id for row in longer.worst] == ["inside a word"]


def test_an_answer_in_no_window_and_tags_that_no_decoder_returns_are_named(
    tokenizer: Tokenizer,
) -> None:
    context = "the cat saw the dog " * 20
    report = check(tokenizer, QA, [question(context.strip(), context, "long")], max_length=32)
    assert [row.id for row in report.worst] == ["long"]
    orphan = Sentence("orphan", ("the", "cat"), ("O", "I-X"))
    report = check(tokenizer, NER, [orphan], ("X",))
    assert [row.id for row in report.worst] == ["orphan"]
    absent = multiple_choice.Example(
        "a", "the \x00 ran", "who?", ("the", "\x00"), (0, 4), ("\x00",)
    )
    report = check(tokenizer, multiple_choice.TASK, [absent])
    assert [(row.id, row.score) for row in report.worst] == [("a", 0.0)]


def test_accents_that_the_tokenizer_removes_cost_nothing(tokenizer: Tokenizer) -> None:
    """Combining marks at the end of an answer are part of its last letter."""
    rows = [
        question("दिल्ली में", "वह दिल्ली में रहता है", "hindi"),
        question("فهدٌ", "كتبَ فهدٌ رسالةً", "arabic"),
        question("cafe\u0301", "le cafe\u0301 noir", "accent"),
    ]
    assert check(tokenizer, QA, rows).ceiling["exact_match"] == 100.0


def test_unknown_tokens_are_counted(tokenizer: Tokenizer) -> None:
    sentences = [
        Sentence("english", ("the", "cat"), ("O", "O")),
        Sentence("korean", ("\U0001f431", "the", "\U0001f436"), ("O", "O", "O")),
    ]
    report = check(tokenizer, NER, sentences, ("X",))
    assert (report.num_tokens, report.num_unknown, report.most_unknown) == (5, 2, "korean")
    (message,) = warnings(report, NER).values()
    assert "40.0 % of 5 sub-words are unknown" in message
    assert "the row korean" in message


def test_byte_level_tokenizers_have_no_unknown_tokens(numbering_tokenizer: Tokenizer) -> None:
    sentence = Sentence("a", ("\U0001f431", "the"), ("O", "O"))
    report = check(numbering_tokenizer, NER, [sentence], ("X",))
    assert report.num_tokens > 2
    assert report.num_unknown == 0


def test_a_table_is_checked_by_a_sample_at_equal_distances(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    count = 2 * MAX_CHECKED_ROWS - 1
    examples = [question("cat", "a cat sat", str(n)) for n in range(count)]
    examples[2] = question("at", "a cat sat", "2")
    examples[3] = question("at", "a cat sat", "3")
    pq.write_table(
        pa.Table.from_pylist([QA.record(example) for example in examples], schema=QA.schema),
        tmp_path / "train.parquet",
        row_group_size=500,
    )
    features = QA.featurize(examples, 0, tokenizer, ("start", "end"), 32, 8, Counter())
    write_features(features, tmp_path / "train")
    table = FeatureTable(tmp_path / "train")
    report = check_table(tmp_path / "train.parquet", table, QA, ("start", "end"), "f1", tokenizer)
    assert report.rows == MAX_CHECKED_ROWS
    assert [row.id for row in report.worst] == ["2"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("the old cat", 3),
        ("l’été naïf", 2),
        ("北京大学", 4),
        ("在 iPhone 上", 3),
        ("東京タワー", 5),
        ("กรุงเทพ", 7),
        ("서울 시", 2),
    ],
)
def test_characters_of_scripts_without_spaces_count_as_words(text: str, count: int) -> None:
    assert num_words(text) == count
    assert QA.num_tokens(Question("a", text, text, ())) == 2 * count
