"""SuperGLUE's corpora: official lines and the hub's flat records give the same rows; errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.data.readers.superglue import Corpus, Options, keys, row
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row
from tests.support.paths import DATA
from tests.support.raw import messages_of

CORPORA = DATA / "classification"

# For each corpus an official line, and below the hub's record of its first row.
PASSAGE = "Ada met Bob in Rome.\n@highlight\nBob lives in Rome"
LINES: dict[Corpus, dict[str, Any]] = {
    "boolq": {"question": "does it rain", "passage": "It rains.", "idx": 0, "label": True},
    "cb": {
        "premise": "She knows it rains.",
        "hypothesis": "it rains",
        "label": "entailment",
        "idx": 0,
    },
    "copa": {
        "premise": "It rained.",
        "choice1": "The sun shone.",
        "choice2": "The road got wet.",
        "question": "effect",
        "label": 1,
        "idx": 0,
    },
    "multirc": {
        "idx": 4,
        "version": 1.1,
        "passage": {
            "text": "Ada met Bob.",
            "questions": [
                {
                    "question": "Who met?",
                    "idx": 7,
                    "answers": [
                        {"text": "Ada", "idx": 20, "label": 1},
                        {"text": "Eve", "idx": 21, "label": 0},
                    ],
                },
                {
                    "question": "Whom?",
                    "idx": 8,
                    "answers": [{"text": "Bob", "idx": 22, "label": 1}],
                },
            ],
        },
    },
    "record": {
        "source": "ours",
        "idx": 3,
        "passage": {
            "text": PASSAGE,
            "entities": [
                {"start": 32, "end": 34},
                {"start": 0, "end": 2},
                {"start": 8, "end": 10},
                {"start": 15, "end": 18},
                {"start": 45, "end": 48},
                {"start": 0, "end": 2},
            ],
        },
        "qas": [
            {
                "query": "@placeholder is where Bob lives",
                "idx": 5,
                "answers": [
                    {"start": 45, "end": 48, "text": "Rome"},
                    {"start": 15, "end": 18, "text": "Rome"},
                ],
            },
            {
                "query": "@placeholder was met",
                "idx": 6,
                "answers": [{"start": 8, "end": 10, "text": "Bob"}],
            },
        ],
    },
    "rte": {
        "premise": "Ada met Bob.",
        "hypothesis": "Bob was alone.",
        "label": "not_entailment",
        "idx": 0,
    },
    "wic": {
        "word": "run",
        "sentence1": "We run home.",
        "sentence2": "She ran a shop.",
        "idx": 0,
        "start1": 3,
        "end1": 6,
        "start2": 4,
        "end2": 7,
        "version": 1.1,
        "label": False,
    },
    "wsc": {
        "text": "Ada told Eve that she was early.",
        "idx": 0,
        "label": True,
        "target": {"span1_index": 0, "span1_text": "Ada", "span2_index": 4, "span2_text": "she"},
    },
}
RECORDS: dict[Corpus, dict[str, Any]] = {
    "boolq": {"question": "does it rain", "passage": "It rains.", "idx": 0, "label": 1},
    "cb": {"premise": "She knows it rains.", "hypothesis": "it rains", "idx": 0, "label": 0},
    "copa": LINES["copa"],
    "multirc": {
        "paragraph": "Ada met Bob.",
        "question": "Who met?",
        "answer": "Ada",
        "idx": {"paragraph": 4, "question": 7, "answer": 20},
        "label": 1,
    },
    "record": {
        "passage": PASSAGE,
        "query": "@placeholder is where Bob lives",
        "entities": ["Ada", "Bob", "Rome"],
        "entity_spans": {
            "text": ["Ada", "Bob", "Rome", "Bob", "Rome"],
            "start": [0, 8, 15, 32, 45],
            "end": [3, 11, 19, 35, 49],
        },
        "answers": ["Rome"],
        "idx": {"passage": 3, "query": 5},
    },
    "rte": {"premise": "Ada met Bob.", "hypothesis": "Bob was alone.", "idx": 0, "label": 1},
    "wic": {**LINES["wic"], "label": 0},
    "wsc": {
        "text": "Ada told Eve that she was early.",
        "span1_index": 0,
        "span1_text": "Ada",
        "span2_index": 4,
        "span2_text": "she",
        "idx": 0,
        "label": 1,
    },
}
ROWS: dict[Corpus, dict[str, Any]] = {
    "boolq": {"text": "It rains.", "text_pair": "does it rain", "label": "true"},
    "cb": {"text": "She knows it rains.", "text_pair": "it rains", "label": "entailment"},
    "copa": {
        "context": "It rained.",
        "question": "What happened as a result?",
        "choices": ["The sun shone.", "The road got wet."],
        "answers": ["The road got wet."],
    },
    "multirc": {
        "text": "Ada met Bob.",
        "text_pair": "Who met? Ada",
        "label": "true",
        "question": "4/7",
    },
    "record": {
        "context": PASSAGE,
        "question": "@placeholder is where Bob lives",
        "choices": ["Ada", "Bob", "Rome", "Bob", "Rome"],
        "starts": [0, 8, 15, 32, 45],
        "answers": ["Rome"],
    },
    "rte": {"text": "Ada met Bob.", "text_pair": "Bob was alone.", "label": "not_entailment"},
    "wic": {
        "text": "We run home.",
        "text_pair": "She ran a shop.",
        "label": "false",
        "spans": [{"segment": 0, "start": 3, "end": 6}, {"segment": 1, "start": 4, "end": 7}],
    },
    "wsc": {
        "text": "Ada told Eve that she was early.",
        "label": "true",
        "spans": [{"segment": 0, "start": 0, "end": 3}, {"segment": 0, "start": 18, "end": 21}],
    },
}


def read(corpus: Corpus, folder: Path, *lines: object) -> tuple[list[Row], list[str]]:
    """The rows of a file with these lines (text, or values for JSON), and its problems.

    The path in the problems is `corpus`.
    """
    path = folder / "corpus"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines),
        encoding="utf-8",
    )
    problems = Problems()
    options = parse(Options, {"corpus": corpus}, "recipe")
    rows = list(READERS["superglue"].read(path, options, problems))
    return rows, [message.replace(f"{path}", "corpus") for message in messages_of(problems)]


@pytest.mark.parametrize("corpus", get_args(Corpus))
def test_lines_and_records_give_the_same_row(corpus: Corpus, tmp_path: Path) -> None:
    rows, problems = read(corpus, tmp_path, "", LINES[corpus])
    assert not problems
    assert rows[0] == {"where": rows[0]["where"], **ROWS[corpus]}
    assert rows[0]["where"].startswith(f"{tmp_path / 'corpus'}:2")
    assert all(result.keys() - {"where"} == keys(Options(corpus)) for result in rows)
    row_problems = Problems()
    assert row(RECORDS[corpus], Options(corpus), "hub:0", row_problems) == {
        "where": "hub:0",
        **ROWS[corpus],
    }
    assert not messages_of(row_problems)


def test_nested_lines_give_several_rows(tmp_path: Path) -> None:
    rows, _ = read("multirc", tmp_path, LINES["multirc"])
    assert [(result["text_pair"], result["question"], result["label"]) for result in rows] == [
        ("Who met? Ada", "4/7", "true"),
        ("Who met? Eve", "4/7", "false"),
        ("Whom? Bob", "4/8", "true"),
    ]
    assert rows[2]["where"].endswith("corpus:1: passage.questions[1].answers[0]")
    rows, _ = read("record", tmp_path, LINES["record"])
    assert [(result["question"], result["answers"]) for result in rows] == [
        ("@placeholder is where Bob lives", ["Rome"]),
        ("@placeholder was met", ["Bob"]),
    ]
    assert rows[1]["where"].endswith("corpus:1: qas[1]")
    for result in rows:
        for start, choice in zip(result["starts"], result["choices"], strict=True):
            assert PASSAGE.startswith(choice, start)


@pytest.mark.parametrize(
    ("corpus", "value", "name"),
    [
        ("boolq", False, "false"),
        ("boolq", 1, "true"),
        ("boolq", "true", "true"),
        ("cb", 1, "contradiction"),
        ("cb", 2, "neutral"),
        ("cb", "neutral", "neutral"),
        ("rte", 0, "entailment"),
    ],
)
def test_label_is_a_number_a_boolean_or_a_name(corpus: Corpus, value: object, name: str) -> None:
    result = row(RECORDS[corpus] | {"label": value}, Options(corpus), "w", Problems())
    assert result is not None
    assert result["label"] == name


@pytest.mark.parametrize(
    ("corpus", "value", "message"),
    [
        (
            "rte",
            -1,
            "label: found an integer -1, expected entailment or not_entailment, or a number "
            "below 2; the official test set has no labels: test on the validation set",
        ),
        ("rte", True, "label: found true, expected entailment or not_entailment"),
        (
            "cb",
            3,
            "label: found an integer 3, expected entailment or contradiction or neutral, "
            "or a number below 3",
        ),
        ("wic", "no", "label: found text 'no', expected false or true"),
        ("wsc", None, "label: found nothing, expected false or true"),
        ("copa", 2, "label: found an integer 2, expected choice1 or choice2"),
    ],
)
def test_unknown_labels_are_reported(
    corpus: Corpus, value: object, message: str, tmp_path: Path
) -> None:
    rows, problems = read(corpus, tmp_path, LINES[corpus] | {"label": value})
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:1: {message}")


def without(corpus: Corpus, key: str) -> dict[str, Any]:
    return {name: value for name, value in LINES[corpus].items() if name != key}


def multirc(**changes: object) -> dict[str, Any]:
    return LINES["multirc"] | {"passage": LINES["multirc"]["passage"] | changes}


def record(**changes: object) -> dict[str, Any]:
    return LINES["record"] | {"passage": LINES["record"]["passage"] | changes}


def wsc(**changes: object) -> dict[str, Any]:
    return LINES["wsc"] | {"target": LINES["wsc"]["target"] | changes}


@pytest.mark.parametrize(
    ("corpus", "line", "message"),
    [
        ("boolq", "{", "1: not valid JSON at column 2: Expecting property name"),
        ("boolq", [1], "1: found a list [1], expected a mapping"),
        (
            "boolq",
            without("boolq", "label"),
            "1: label: the key is missing, expected false or true, or a number below 2; the off",
        ),
        (
            "boolq",
            without("boolq", "passage"),
            "1: key 'passage' is missing; found question, idx, label",
        ),
        (
            "cb",
            LINES["cb"] | {"hypothesis": None},
            "1: hypothesis: found nothing, expected text",
        ),
        (
            "copa",
            LINES["copa"] | {"question": "why"},
            "1: question: found 'why', expected cause or effect; correct it",
        ),
        (
            "multirc",
            without("multirc", "passage"),
            "1: key 'passage' is missing; found idx, version",
        ),
        (
            "multirc",
            multirc(questions="none"),
            "1: passage: questions: found text 'none', expected a list",
        ),
        (
            "multirc",
            multirc(questions=[{"idx": 0, "question": "q"}]),
            "1: passage.questions[0]: key 'answers' is missing; found",
        ),
        (
            "multirc",
            multirc(questions=[{"idx": 0, "question": "q", "answers": [{"text": 5}]}]),
            "1: passage.questions[0].answers[0]: text: found an integer 5, expected text",
        ),
        (
            "multirc",
            multirc(questions=[{"idx": 0, "question": "q", "answers": [{"text": "a"}]}]),
            "1: passage.questions[0].answers[0]: label: the key is missing, expected false or true",
        ),
        (
            "record",
            record(entities=[{"start": 0, "end": 99}]),
            "1: passage.entities[0]: start, end: 0, 99 is not a span of a passage of "
            "49 characters; correct them",
        ),
        (
            "record",
            record(entities=[{"start": 0, "end": 2}, {"start": 5, "end": 4}]),
            "1: passage.entities[1]: start, end: 5, 4 is",
        ),
        (
            "record",
            record(entities=[{"start": 0}]),
            "1: passage.entities[0]: key 'end' is missing; found start",
        ),
        (
            "record",
            LINES["record"] | {"qas": [{"query": "q"}]},
            "1: qas[0]: key 'answers' is missing; found query",
        ),
        (
            "record",
            LINES["record"] | {"qas": [{"query": "q", "answers": ["Rome"]}]},
            "1: qas[0].answers[0]: found text 'Rome', expec",
        ),
        (
            "wic",
            LINES["wic"] | {"end1": 99},
            "1: start1, end1: 3, 99 is not a span of sentence1, which has 12 characters: 'We run "
            "home.'; correct them",
        ),
        ("wic", LINES["wic"] | {"start2": -1}, "1: start2, end2: -1, 7 is not a span of sentence2"),
        ("wic", LINES["wic"] | {"start2": "4"}, "1: start2: found text '4', expected an integer"),
        ("wsc", without("wsc", "target"), "1: key 'target' is missing; found text, idx, label"),
        (
            "wsc",
            wsc(span2_text="Bob"),
            "1: span2_text: 'Bob' (span2_index 4) is not in the text "
            "'Ada told Eve that she was early.'; correct span2_text",
        ),
        ("wsc", wsc(span1_text=" . "), "1: span1_text: ' . ' (span1_index 0) is not in the text"),
        ("wsc", wsc(span1_text="Ad"), "1: span1_text: 'Ad' (span1_index 0) is not in the text"),
        (
            "wsc",
            wsc(span1_index=None),
            "1: span1_index: found nothing, expected an integer",
        ),
    ],
)
def test_invalid_lines_are_reported_and_valid_lines_kept(
    corpus: Corpus, line: object, message: str, tmp_path: Path
) -> None:
    rows, problems = read(corpus, tmp_path, line, LINES[corpus])
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:{message}")
    assert {result["where"].split(":")[1] for result in rows} == {"2"}


def test_invalid_records_are_reported() -> None:
    changes: list[tuple[Corpus, dict[str, Any]]] = [
        ("record", {"entity_spans": {"text": ["Ada", "Bob"], "start": [1, -1]}}),
        ("record", {"entity_spans": ["Ada"]}),
        ("multirc", {"idx": {"paragraph": 1}}),
    ]
    problems = Problems()
    for number, (corpus, change) in enumerate(changes, 7):
        assert row(RECORDS[corpus] | change, Options(corpus), f"hub:{number}", problems) is None
    assert messages_of(problems) == [
        "hub:7: entity_spans: entity 'Ada' has the start 1, but the passage has 'da ' there; "
        "correct start or text",
        "hub:7: entity_spans: entity 'Bob' has the start -1, but the passage has 'Ada' there; "
        "correct start or text",
        "hub:8: entity_spans: found a list ['Ada'], expected a mapping; write {...}",
        "hub:9: idx: key 'question' is missing; found paragraph; add it, or correct its name",
    ]


@pytest.mark.parametrize(
    ("text", "index", "span_text", "expected"),
    [
        ("The dog saw the dog.", 1, "dog", (4, 7)),
        ("The dog saw the dog.", 4, "dog", (16, 19)),
        ("The dog saw the dog.", 3, "The dog", (12, 19)),  # another case
        ("The dog saw the dog.", 99, "dog", (16, 19)),  # a wrong word number
        ("The dog saw the dog.", -3, "dog", (4, 7)),
        ("He  saw her,\nthe new one", 2, "her, the new", (8, 20)),  # another spacing
        ("He saw her.", 2, "her.", (7, 11)),
        ("He saw her there.", 2, "her.", (7, 10)),  # an extra full stop
        ('"Ask her," Ada told me', 1, "her", (5, 8)),  # within punctuation
        ("Bob's cat", 0, "Bob", (0, 3)),
        ("Mr. Ode left", 0, "Mr. Ode", (0, 7)),
        ("Take it , for it rains", 2, "it", (5, 7)),
    ],
)
def test_wsc_span_is_the_match_nearest_to_its_word_number(
    text: str, index: int, span_text: str, expected: tuple[int, int]
) -> None:
    value = {
        "text": text,
        "span1_text": span_text,
        "span1_index": index,
        "span2_text": span_text,
        "span2_index": index,
        "label": 0,
    }
    result = row(value, Options("wsc"), "w", Problems())
    assert result is not None
    assert [(span["start"], span["end"]) for span in result["spans"]] == [expected] * 2


def has_two_spans(result: Row) -> bool:
    """Whether the row has two spans of text without white space at their ends."""
    texts = [result["text"], result.get("text_pair", "")]
    spans = [texts[span["segment"]][span["start"] : span["end"]] for span in result["spans"]]
    return all(text and text == text.strip() for text in spans) and len(spans) == 2


@pytest.mark.parametrize(
    ("corpus", "folder", "sizes", "is_valid"),
    [
        (
            "rte",
            "RTE",
            (2490, 277),
            lambda result: result["label"] in ("entailment", "not_entailment"),
        ),
        ("wic", "WiC", (5428, 638), has_two_spans),
        ("wsc", "WSC", (554, 104), has_two_spans),
        (
            "cb",
            "CB",
            (225, 56),
            lambda result: result["label"] in ("entailment", "contradiction", "neutral"),
        ),
        (
            "copa",
            "COPA",
            (373, 100),
            lambda result: (
                result["answers"][0] in result["choices"] and len(set(result["choices"])) == 2
            ),
        ),
    ],
)
def test_official_files_are_read_without_problems(
    corpus: Corpus, folder: str, sizes: tuple[int, int], is_valid: Callable[[Row], bool]
) -> None:
    if not (CORPORA / folder).is_dir():
        pytest.skip(f"{CORPORA / folder} is absent")
    problems, paths = Problems(), [CORPORA / folder / f"{name}.jsonl" for name in ("train", "val")]
    rows = [list(READERS["superglue"].read(path, Options(corpus), problems)) for path in paths]
    assert not messages_of(problems)
    assert tuple(map(len, rows)) == sizes
    for result in (*rows[0], *rows[1]):
        assert result.keys() - {"where"} == keys(Options(corpus))
        assert is_valid(result), result["where"]
