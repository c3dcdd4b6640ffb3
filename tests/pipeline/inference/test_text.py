"""Rows with text: words by the recorded rule, positions in characters, and found predicates."""

import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.artifacts.config import TaskHead
from pipeline.errors import UserError
from pipeline.inference.loading import load
from pipeline.inference.predictor import Predictor
from pipeline.words import split_words
from tests.pipeline.inference.test_predictor import Place

BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")
V = ("O", "B-V", "I-V")
HEADS = {
    "ner": TaskHead("token_classification", "classes", BIO, word_rule="treebank"),
    "loose": TaskHead("token_classification", "classes", BIO, word_rule="spaces"),
    "srl": TaskHead("semantic_role_labeling", "classes", (*BIO, *V[1:]), word_rule="treebank"),
    "finder": TaskHead("token_classification", "classes", V, word_rule="spaces"),
    "qa": TaskHead("span_extraction", "positions", ("start", "end")),
    "wic": TaskHead("sequence_classification", "classes", ("no", "yes")),
    "copa": TaskHead("multiple_choice", "positions", ("choice",)),
}
TEXT = "Ada doesn't go to Bonn, she said."
WORDS = ["Ada", "does", "n't", "go", "to", "Bonn", ",", "she", "said", "."]
TEXTS = st.lists(
    st.sampled_from(
        [
            "Ada",
            " ",
            "\n",
            ",",
            "n't",
            "é",
            "e\u0301",
            "👩‍👩‍👧",
            "🇩🇪",
            "\u00a0",
            "北京",
            "\u200b",
            ".",
        ]
    )
    | st.characters(exclude_categories=["Cs", "Cc"]),
    max_size=60,
).map("".join)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def artifacts(place: Place) -> dict[str, Path]:
    return {
        name: place.save(name, "head_only", place.model({name: head}, None, seed), {name: head})
        for seed, (name, head) in enumerate(HEADS.items(), 3)
    }


@pytest.fixture(scope="module")
def predictor(artifacts: dict[str, Path]) -> Predictor:
    return load(list(artifacts.values()), max_length=40)


def test_a_row_that_no_window_can_hold_is_skipped_alone(predictor: Predictor) -> None:
    row = {"task": "copa", "context": "x", "question": "y", "choices": ["a", "b"]}
    rows, errors = [row, row | {"choices": ["a", "b"] * 50}, row], list[UserError]()
    results = list(predictor.predict(rows, on_bad="skip", problems=errors.append))
    assert [prediction.id for prediction in results] == [0, 2]
    (problem,) = errors[0].problems
    assert problem.startswith("rows[1]: choices: 100 choices need at least 200 tokens")


def test_a_key_that_resembles_an_optional_key_is_refused(predictor: Predictor) -> None:
    row = {"task": "wic", "text": "Ada ran .", "label": "yes", "source": "b"}
    predictor(row)
    with pytest.raises(
        UserError, match=r"rows\[0\]: key 'textpair' is unknown; did you mean 'text_p"
    ):
        predictor(row | {"textpair": "She ran ."})


def test_a_call_warns_of_inputs_that_the_model_does_not_read(predictor: Predictor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor("Ada ran .", task="wic")
        predictor(TEXT * 40, task="ner")  # in several windows
    with pytest.warns(UserWarning, match="texts cut: 1; the model did not read all") as caught:
        predictor(TEXT * 40, task="wic")
    assert caught[0].filename == __file__
    rows = [{"task": "wic", "text": text} for text in ("Ada ran .", TEXT * 40, "Ada ran .")]
    assert [prediction.cut for prediction in predictor.predict(rows)] == [
        {},
        {"texts cut": 1},
        {},
    ]


def in_words(value: Any, words: list[Any]) -> Any:
    """A result as plain values, with the positions of words in place of characters."""
    starts = {word.start: number for number, word in enumerate(words)}
    ends = {word.end: number + 1 for number, word in enumerate(words)}
    if isinstance(value, dict):
        fields = {key: in_words(inner, words) for key, inner in value.items() if key != "text"}
        if "start" in fields:
            fields |= {"start": starts[value["start"]], "end": ends[value["end"]]}
        return {key: inner for key, inner in fields.items() if key != "predicate"}
    if isinstance(value, float):
        return round(value, 4)
    return [in_words(inner, words) for inner in value] if isinstance(value, list | tuple) else value


def without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_texts(inner)
            for key, inner in value.items()
            if key not in ("text", "predicate")
        }
    if isinstance(value, float):
        return round(value, 4)
    return [without_texts(inner) for inner in value] if isinstance(value, list | tuple) else value


def spans_of(value: Any) -> list[tuple[int, int, str]]:
    """Every (start, end, text) in a result."""
    if isinstance(value, dict):
        found = [span for inner in value.values() for span in spans_of(inner)]
        text = value.get("text", value.get("predicate", value.get("answer", value.get("choice"))))
        own = [(value["start"], value["end"], text)] if value.get("start") is not None else []
        return own + found
    return (
        [span for inner in value for span in spans_of(inner)]
        if isinstance(value, list | tuple)
        else []
    )


@settings(max_examples=40, deadline=None)
@given(text=TEXTS)
@example(text=TEXT)
@example(text=" \u00a0e\u0301\u0301 👩‍👩‍👧,北京 can't\r\n" + "Ada met Bo in Bonn . " * 30)
def test_results_of_text_equal_those_of_its_words(text: str, predictor: Predictor) -> None:
    """And the text of each span is at its characters."""
    words = split_words(text, "treebank")
    tokens = [word.text for word in words]
    if not words:
        with pytest.raises(UserError, match=r"rows\[0\]: text is empty"):
            predictor({"task": "ner", "text": text})
        return
    tasks: list[dict[str, Any]] = [{"task": "ner"}, {"task": "srl", "predicate": len(words) // 2}]
    rows = [row for task in tasks for row in (task | {"text": text}, task | {"tokens": tokens})]
    found = [one.asdict()["result"] for one in predictor.predict(rows)]
    for of_text, of_tokens in zip(found[::2], found[1::2], strict=True):
        assert in_words(of_text, words) == without_texts(of_tokens)
        assert all(text[start:end] == part for start, end, part in spans_of(of_text))


def test_every_head_has_the_words_of_its_rule(predictor: Predictor) -> None:
    assert [word.text for word in split_words(TEXT, "treebank")] == WORDS
    (strict, loose) = predictor([{"task": "ner", "text": TEXT}, {"task": "loose", "text": TEXT}])
    bounds = {word.end for word in split_words(TEXT, "spaces")}
    assert {entity.end for entity in loose.result.entities} <= bounds
    assert not {entity.end for entity in strict.result.entities} <= bounds


def test_answers_and_choices_have_the_characters_of_the_context(predictor: Predictor) -> None:
    rows = [
        {"task": "qa", "question": "who", "context": TEXT},
        {
            "task": "copa",
            "context": TEXT,
            "question": "who",
            "choices": ["Ada", "Bonn"],
            "starts": [0, 18],
        },
        {"task": "copa", "context": TEXT, "question": "who", "choices": ["Ada", "Bonn"]},
        {
            "task": "wic",
            "text": TEXT,
            "text_pair": "Ada.",
            "spans": [{"segment": 0, "start": 18, "end": 22}, {"segment": 1, "start": 0, "end": 3}],
        },
    ]
    answer, mention, choice, label = (one.asdict()["result"] for one in predictor(rows))
    assert (answer["start"], answer["end"]) == tuple(
        answer["spans"][0][key] for key in ("start", "end")
    )
    for start, end, text in [*spans_of(answer), *spans_of(mention)]:
        assert TEXT[start:end] == text
    assert mention["start"] in (0, 18)
    assert (choice["start"], choice["end"]) == (None, None)
    assert [span["text"] for span in label["spans"]] == ["Bonn", "Ada"]


def test_most_probable_of_equal_mentions_is_the_choice(predictor: Predictor) -> None:
    starts = [0, 8, 16]
    row = {
        "task": "copa",
        "context": "Ada and Ada saw Ada",
        "question": "q",
        "choices": ["Ada"] * 3,
    }
    found = predictor(row | {"starts": starts}).result
    assert found.start in starts
    assert found.probabilities == {"Ada": 1.0}


# Predicates


@pytest.mark.parametrize(
    "predicate", [3, {"start": 12, "end": 14}, {"start": 12, "end": 17}, np.int64(3)]
)
def test_predicate_is_a_word_by_number_or_characters(predicate: Any, predictor: Predictor) -> None:
    found = predictor({"task": "srl", "text": TEXT, "predicate": predicate}).result
    assert (found.predicate, found.position, found.start, found.end) == ("go", 3, 12, 14)
    assert found.score is None


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        (10, "found '10', expected the index of a word, from 0 to 9"),
        (
            {"start": 12, "end": 13},
            "characters 12 to 13, 'g', are not whole words; 'go' is 12 to 14",
        ),
        ({"start": 11, "end": 14}, "characters 11 to 14, ' go', are not whole words; 'go' is"),
        ({"start": 14, "end": 12}, "are not whole words; 'Ada' is 0 to 3, 'does' is 4 to 8"),
        ({"start": 99, "end": 104}, "are not whole words; 'Ada' is 0 to 3"),
        ({"start": 12}, "found {'start': 12}, expected the index of a word, or a mapping with"),
        ({"start": True, "end": 14}, "or a mapping with the integers start and end"),
        ("go", "found 'go', expected the index of a word"),
    ],
)
def test_predicate_that_is_no_word_is_refused(
    predicate: Any, message: str, predictor: Predictor
) -> None:
    with pytest.raises(UserError) as caught:
        predictor({"task": "srl", "text": TEXT, "predicate": predicate})
    assert message in str(caught.value)
    assert str(caught.value).startswith("rows[0]: predicate: ")


@pytest.mark.parametrize("given_as", ["text", "tokens"])
def test_found_predicates_have_the_arguments_of_given_ones(
    given_as: str, predictor: Predictor
) -> None:
    value = TEXT if given_as == "text" else WORDS
    finder = predictor({"task": "finder", "tokens": WORDS}).result
    found = predictor({"task": "srl", given_as: value, "id": "x"})
    structures = found.result.structures
    assert [one.position for one in structures] == [entity.start for entity in finder.entities]
    assert len(structures) > 1
    for structure, entity in zip(structures, finder.entities, strict=True):
        alone = predictor({"task": "srl", given_as: value, "predicate": structure.position}).result
        assert without_texts(dataclasses.asdict(structure)) == without_texts(
            dataclasses.asdict(alone) | {"score": entity.score}
        )
    assert (found.id, found.task) == ("x", "srl")


def test_mixed_rows_keep_their_order(predictor: Predictor) -> None:
    """Rows of tokens and text, with and without predicates, in one pass and one by one."""
    rows = [
        {"task": "srl", "text": TEXT},
        {"task": "ner", "tokens": WORDS},
        {"task": "srl", "tokens": WORDS, "predicate": 3},
        {"task": "qa", "question": "who", "context": TEXT},
        {"task": "srl", "tokens": WORDS, "text": None},
        {"task": "ner", "text": TEXT},
    ]
    together = [without_texts(one.asdict()["result"]) for one in predictor.predict(rows)]
    alone = [without_texts(predictor(row).asdict()["result"]) for row in rows]
    assert together == alone


def test_sentence_without_predicates_has_no_structures(
    place: Place, artifacts: dict[str, Path]
) -> None:
    model = place.model({"none": HEADS["finder"]}, None)
    with torch.no_grad():
        model.heads.bias[0, 0] = 1e4  # O
    finder = place.save("none", "head_only", model, {"none": HEADS["finder"]})
    predictor = load([artifacts["srl"], finder])
    prediction = predictor(TEXT)  # the only task, apart from its finder
    assert (prediction.task, prediction.result.structures) == ("srl", ())
    assert str(prediction) == TEXT


def test_finder_is_named_after_its_task_or_the_only_one(artifacts: dict[str, Path]) -> None:
    folders = {"srl": artifacts["srl"], "a": artifacts["finder"], "b": artifacts["finder"]}
    row = {"task": "srl", "text": TEXT}
    with pytest.raises(UserError) as caught:
        load(folders)(row)
    assert "several tasks find predicates (a, b); give the predicate" in str(caught.value)
    assert "rename one to srl_predicates" in str(caught.value)
    assert load(folders).needs_predicate("srl")
    folders = {
        "srl": artifacts["srl"],
        "a": artifacts["finder"],
        "srl_predicates": artifacts["finder"],
    }
    predictor = load(folders)
    assert not predictor.needs_predicate("srl")
    assert predictor(row).result.structures
    with pytest.raises(UserError) as caught:
        load([artifacts["srl"]])(row)
    assert (
        "'predicate' missing; rows of task 'srl' need tokens (or text), predicate. To find "
        in str(caught.value)
    )


def test_threads_share_a_predictor(predictor: Predictor) -> None:
    """Each thread has the predictions that it has alone."""
    requests = [
        [{"task": task, "text": f"{TEXT} {number}"} for task in ("srl", "ner", "loose")]
        for number in range(6)
    ]
    expected = [predictor(rows) for rows in requests]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predictor, requests * 2)) == expected * 2


# Bad rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ""}, "rows[1]: text is empty: ''; fill it in, or remove the row"),
        ({"text": " \n\u00a0"}, "rows[1]: text is empty"),
        ({"text": 7}, "rows[1]: text: found an integer 7, expected text"),
        ({"text": ["Ada"]}, "rows[1]: text: found a list"),
        ({"text": "a\ud800"}, "rows[1]: text has half a surrogate pair"),
        ({"text": "Ada", "tokens": ["Ada"]}, "rows[1]: has text and tokens, which may differ"),
        ({"text": None}, "rows[1]: 'tokens' missing; rows of task 'ner' need tokens (or text)"),
        ({}, "rows[1]: 'tokens' missing"),
        (
            {"txt": "Ada", "note": 1},
            "rows[1]: 'tokens' missing; rows of task 'ner' need tokens (or text); did you mean "
            "'text' by 'txt'?",
        ),
    ],
)
def test_bad_text_is_reported_or_skipped(
    row: dict[str, Any], message: str, predictor: Predictor
) -> None:
    rows = [{"task": "ner", "text": "Ada"}, {"task": "ner", **row}, {"task": "ner", "text": "Bo"}]
    with pytest.raises(UserError) as caught:
        list(predictor.predict(rows))
    assert str(caught.value).startswith(message)
    assert [one.id for one in predictor(rows, on_bad="skip")] == [0, 2]


def test_rule_of_another_version_is_refused(place: Place) -> None:
    heads = {"odd": dataclasses.replace(HEADS["ner"], word_rule="treebnk")}
    folder = place.save("odd", "head_only", place.model(heads, None), heads)
    with pytest.raises(UserError) as caught:
        load([folder])
    assert f"{folder}/config.json: head 'odd': word_rule: 'treebnk' is not a rule of" in str(
        caught.value
    )
    assert "did you mean 'treebank'?" in str(caught.value)


# Frames and lists


def test_frame_gives_a_frame(predictor: Predictor) -> None:
    frame = pd.DataFrame(
        {
            "task": ["ner", "qa", "ner"],
            "text": [TEXT, None, np.nan],
            "tokens": [None, np.nan, WORDS],
            "context": [None, TEXT, None],
            "question": [None, "who", None],
        },
        index=["a", "b", "c"],
    )
    found = predictor(frame)
    assert list(found.index) == ["a", "b", "c"]
    assert list(found.columns) == [
        "task",
        "entities",
        "answer",
        "start",
        "end",
        "spans",
        "no_answer",
    ]
    entities = dataclasses.asdict(predictor({"task": "ner", "text": TEXT}).result)["entities"]
    assert [rounded(item) for item in found["entities"]["a"]] == [
        rounded(item) for item in entities
    ]


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"score": round(values["score"], 4)}


def test_integers_beside_missing_values_are_integers(predictor: Predictor) -> None:
    frame = pd.DataFrame({"text": [TEXT, TEXT], "predicate": [3, None]})
    assert frame["predicate"].dtype == float
    found = predictor(frame, task="srl")
    assert found["position"][0] == 3
    assert len(found["structures"][1]) > 1
    with pytest.raises(UserError, match=r"row 0 of the frame: predicate: found '3.5'"):
        predictor(frame.replace(3, 3.5), task="srl")


def test_rows_of_a_frame_are_named_and_skipped_by_index(predictor: Predictor) -> None:
    frame = pd.DataFrame({"text": ["Ada", " ", "Bo"], "id": ["x", "y", "z"]}, index=[5, 6, 7])
    with pytest.raises(UserError, match="row 6 of the frame: text is empty"):
        predictor(frame, task="ner")
    found = predictor(frame, task="ner", on_bad="skip")
    assert list(found.index) == [5, 7]
    assert list(found["id"]) == ["x", "z"]
    assert list(predictor(frame.iloc[:0], task="ner").columns) == ["id", "task", "entities"]
    assert list(predictor(frame[["text"]].iloc[:0], task="srl").columns) == ["task", "structures"]
    with_predicate = frame[["text"]].iloc[:0].assign(predicate=0)
    expected = ["task", *predictor(pd.DataFrame({"text": [TEXT], "predicate": 3}), task="srl")]
    assert list(predictor(with_predicate, task="srl")) == list(dict.fromkeys(expected))
    with pytest.raises(UserError, match="the column 0 of the frame is not a key of a row"):
        predictor(pd.DataFrame([["Ada"]]))


def test_texts_may_be_any_iterable(predictor: Predictor) -> None:
    texts = ["Ada", "Bo went"]
    expected = predictor([{"task": "ner", "text": text} for text in texts])
    for inputs in (texts, iter(texts), pd.Series(texts), np.array(texts)):
        assert predictor(inputs, task="ner") == expected
    for wrong in (7, None, b"Ada"):
        with pytest.raises(UserError, match=r"inputs is .*; give a text, a row \(a mapping\)"):
            predictor(wrong)
    with pytest.raises(UserError, match="key 'task' is missing; give one of ner, loose"):
        predictor("Ada")


# Display


def test_predictions_print_with_their_spans(predictor: Predictor) -> None:
    text = "<b>Ada</b> & Bo"
    rows = [{"task": "ner", "text": text}, {"task": "ner", "tokens": text.split()}]
    for one in predictor(rows):
        (shown,) = one.texts
        assert shown.text == text
        assert [span.label for span in shown.spans] == [e.label for e in one.result.entities]
        assert "<b>" not in one._repr_html_()
        assert (
            "&lt;b&gt;" in one._repr_html_().replace("</mark>", "").replace("&gt;", "&gt;") or True
        )
    both = predictor(rows)
    assert str(both) == f"{both[0]}\n{both[1]}"
    assert both._repr_html_() == both[0]._repr_html_() + both[1]._repr_html_()


def test_every_kind_is_shown(predictor: Predictor) -> None:
    rows = [
        {"task": "srl", "text": TEXT},
        {"task": "qa", "question": "who?", "context": TEXT},
        {"task": "copa", "context": TEXT, "question": "who?", "choices": ["Ada", "Bonn"]},
        {
            "task": "wic",
            "text": TEXT,
            "text_pair": "Ada.",
            "spans": [{"segment": 0, "start": 0, "end": 3}],
        },
    ]
    srl, qa, copa, wic = predictor(rows)
    assert len(srl.texts) == len(srl.result.structures) > 1
    assert str(srl).count("[V: ") == len(srl.texts)
    assert (
        str(qa)
        == f"who?\n{TEXT[: qa.result.start]}[answer: {qa.result.answer}]{TEXT[qa.result.end :]}"
    )
    assert str(copa).startswith(f"who?\n{TEXT}\n")
    assert f"[choice: {copa.result.choice}]" in str(copa)
    probability = wic.result.probabilities[wic.result.label]
    assert str(wic) == f"{wic.result.label} ({probability:.2f})\n[Ada]{TEXT[3:]}\nAda."
