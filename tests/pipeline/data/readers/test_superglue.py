"""SuperGLUE's corpora: official lines and the hub's flat records give the same rows; what is wrong is named."""

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
from tests.support.raw import told

CORPORA = DATA / "classification"

# One line each in the official form, then the hub's record of its first row.
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
    """The rows of a file with these lines (text as it is, else JSON), and its problems without the folder's name."""
    path = folder / "corpus"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines),
        encoding="utf-8",
    )
    problems = Problems()
    rows = list(
        READERS["superglue"].read(path, parse(Options, {"corpus": corpus}, "recipe"), problems)
    )
    return rows, [problem.replace(f"{path}", "corpus") for problem in told(problems)]


@pytest.mark.parametrize("corpus", get_args(Corpus))
def test_lines_and_records_give_the_same_row(corpus: Corpus, tmp_path: Path) -> None:
    rows, problems = read(corpus, tmp_path, "", LINES[corpus])
    assert not problems
    assert rows[0] == {"where": rows[0]["where"], **ROWS[corpus]}
    assert rows[0]["where"].startswith(f"{tmp_path / 'corpus'}:2")
    assert all(found.keys() - {"where"} == keys(Options(corpus)) for found in rows)
    found = Problems()
    assert row(RECORDS[corpus], Options(corpus), "hub:0", found) == {
        "where": "hub:0",
        **ROWS[corpus],
    }
    assert not told(found)


def test_nested_lines_give_several_rows(tmp_path: Path) -> None:
    rows, _ = read("multirc", tmp_path, LINES["multirc"])
    assert [(found["text_pair"], found["question"], found["label"]) for found in rows] == [
        ("Who met? Ada", "4/7", "true"),
        ("Who met? Eve", "4/7", "false"),
        ("Whom? Bob", "4/8", "true"),
    ]
    assert rows[2]["where"].endswith("corpus:1: passage.questions[1].answers[0]")
    rows, _ = read("record", tmp_path, LINES["record"])
    assert [(found["question"], found["answers"]) for found in rows] == [
        ("@placeholder is where Bob lives", ["Rome"]),
        ("@placeholder was met", ["Bob"]),
    ]
    assert rows[1]["where"].endswith("corpus:1: qas[1]")
    for found in rows:
        assert [
            PASSAGE[start : start + len(choice)]
            for start, choice in zip(found["starts"], found["choices"], strict=True)
        ] == (found["choices"])


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
def test_labels(corpus: Corpus, value: object, name: str) -> None:
    found = row(RECORDS[corpus] | {"label": value}, Options(corpus), "w", Problems())
    assert found is not None
    assert found["label"] == name


@pytest.mark.parametrize(
    ("corpus", "value", "message"),
    [
        (
            "rte",
            -1,
            "label: found int -1, expected entailment or not_entailment, or a number below 2; the official test set has no "
            "labels: test on the validation set",
        ),
        ("rte", True, "label: found bool True, expected entailment or not_entailment"),
        (
            "cb",
            3,
            "label: found int 3, expected entailment or contradiction or neutral, or a number below 3",
        ),
        ("wic", "no", "label: found str 'no', expected false or true"),
        ("wsc", None, "label: found NoneType None, expected false or true"),
        ("copa", 2, "label: found int 2, expected choice1 or choice2"),
    ],
)
def test_broken_labels(corpus: Corpus, value: object, message: str, tmp_path: Path) -> None:
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
        ("boolq", [1], "1: found list '[1]', expected a mapping"),
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
            "1: hypothesis: found NoneType 'None', expected text",
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
            "1: passage: questions: found str 'none', expected a list",
        ),
        (
            "multirc",
            multirc(questions=[{"idx": 0, "question": "q"}]),
            "1: passage.questions[0]: key 'answers' is missing; found",
        ),
        (
            "multirc",
            multirc(questions=[{"idx": 0, "question": "q", "answers": [{"text": 5}]}]),
            "1: passage.questions[0].answers[0]: text: found int '5', expected text",
        ),
        (
            "multirc",
            multirc(questions=[{"idx": 0, "question": "q", "answers": [{"text": "a"}]}]),
            "1: passage.questions[0].answers[0]: label: the key is missing, expected false or true",
        ),
        (
            "record",
            record(entities=[{"start": 0, "end": 99}]),
            "1: passage.entities[0]: start, end: 0, 99 is no span of a passage of "
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
            "1: qas[0].answers[0]: found str 'Rome', expec",
        ),
        (
            "wic",
            LINES["wic"] | {"end1": 99},
            "1: start1, end1: 3, 99 is no span of sentence1, which has 12 characters: 'We run "
            "home.'; correct them",
        ),
        ("wic", LINES["wic"] | {"start2": -1}, "1: start2, end2: -1, 7 is no span of sentence2"),
        ("wic", LINES["wic"] | {"start2": "4"}, "1: start2: found str '4', expected an integer"),
        ("wsc", without("wsc", "target"), "1: key 'target' is missing; found text, idx, label"),
        (
            "wsc",
            wsc(span2_text="Bob"),
            "1: span2_text: 'Bob' (span2_index 4) is not in the text 'Ada told Eve that she was early.'; "
            "correct span2_text",
        ),
        ("wsc", wsc(span1_text=" . "), "1: span1_text: ' . ' (span1_index 0) is not in the text"),
        ("wsc", wsc(span1_text="Ad"), "1: span1_text: 'Ad' (span1_index 0) is not in the text"),
        (
            "wsc",
            wsc(span1_index=None),
            "1: span1_index: found NoneType 'None', expected an integer",
        ),
    ],
)
def test_broken_lines(corpus: Corpus, line: object, message: str, tmp_path: Path) -> None:
    good = LINES[corpus]
    rows, problems = read(corpus, tmp_path, line, good)
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:{message}")
    assert {found["where"].split(":")[1] for found in rows} == {"2"}, "the good line is kept"


def test_broken_records() -> None:
    spans = {"text": ["Ada", "Bob"], "start": [1, -1]}
    problems = Problems()
    assert (
        row(RECORDS["record"] | {"entity_spans": spans}, Options("record"), "hub:7", problems)
        is None
    )
    assert (
        row(RECORDS["record"] | {"entity_spans": ["Ada"]}, Options("record"), "hub:8", problems)
        is None
    )
    assert (
        row(RECORDS["multirc"] | {"idx": {"paragraph": 1}}, Options("multirc"), "hub:9", problems)
        is None
    )
    assert told(problems) == [
        "hub:7: entity_spans: entity 'Ada' is said to start at 1, where the passage has 'da '; correct start or text",
        "hub:7: entity_spans: entity 'Bob' is said to start at -1, where the passage has 'Ada'; correct start or text",
        "hub:8: entity_spans: found list \"['Ada']\", expected a mapping",
        "hub:9: idx: key 'question' is missing; found paragraph",
    ]


@pytest.mark.parametrize(
    ("text", "index", "words", "expected"),
    [
        ("The dog saw the dog.", 1, "dog", (4, 7)),
        ("The dog saw the dog.", 4, "dog", (16, 19)),
        ("The dog saw the dog.", 3, "The dog", (12, 19)),  # another case
        ("The dog saw the dog.", 99, "dog", (16, 19)),  # a number that is off
        ("The dog saw the dog.", -3, "dog", (4, 7)),
        ("He  saw her,\nthe new one", 2, "her, the new", (8, 20)),  # another spacing
        ("He saw her.", 2, "her.", (7, 11)),
        ("He saw her there.", 2, "her.", (7, 10)),  # a full stop too many
        ('"Ask her," Ada told me', 1, "her", (5, 8)),  # within punctuation
        ("Bob's cat", 0, "Bob", (0, 3)),
        ("Mr. Ode left", 0, "Mr. Ode", (0, 7)),
        ("Take it , for it rains", 2, "it", (5, 7)),
    ],
)
def test_wsc_spans(text: str, index: int, words: str, expected: tuple[int, int]) -> None:
    value = {
        "text": text,
        "span1_text": words,
        "span1_index": index,
        "span2_text": words,
        "span2_index": index,
        "label": 0,
    }
    found = row(value, Options("wsc"), "w", Problems())
    assert found is not None
    assert [(span["start"], span["end"]) for span in found["spans"]] == [expected] * 2


def spans(found: Row) -> bool:
    """Every span is text, and begins and ends with it."""
    texts = [found["text"], found.get("text_pair", "")]
    cut = [texts[span["segment"]][span["start"] : span["end"]] for span in found["spans"]]
    return all(text and text == text.strip() for text in cut) and len(cut) == 2


@pytest.mark.parametrize(
    ("corpus", "folder", "sizes", "good"),
    [
        (
            "rte",
            "RTE",
            (2490, 277),
            lambda found: found["label"] in ("entailment", "not_entailment"),
        ),
        ("wic", "WiC", (5428, 638), spans),
        ("wsc", "WSC", (554, 104), spans),
        (
            "cb",
            "CB",
            (225, 56),
            lambda found: found["label"] in ("entailment", "contradiction", "neutral"),
        ),
        (
            "copa",
            "COPA",
            (373, 100),
            lambda found: (
                found["answers"][0] in found["choices"] and len(set(found["choices"])) == 2
            ),
        ),
    ],
)
def test_real_files(
    corpus: Corpus, folder: str, sizes: tuple[int, int], good: Callable[[Row], bool]
) -> None:
    if not (CORPORA / folder).is_dir():
        pytest.skip(f"{CORPORA / folder} is absent")
    problems, paths = Problems(), [CORPORA / folder / f"{name}.jsonl" for name in ("train", "val")]
    rows = [list(READERS["superglue"].read(path, Options(corpus), problems)) for path in paths]
    assert not told(problems)
    assert tuple(map(len, rows)) == sizes
    for found in (*rows[0], *rows[1]):
        assert found.keys() - {"where"} == keys(Options(corpus))
        assert good(found), found["where"]
