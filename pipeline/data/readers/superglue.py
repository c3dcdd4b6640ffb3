"""The eight corpora of SuperGLUE: their official JSONL, and the flat records that the hub's copies have.

A line of JSONL is first made flat (MultiRC and ReCoRD nest, WSC puts its spans into `target`); one function a corpus makes the
row of a record. Rows have no id: the official numbers start again in each split, and WiC's repeat.
"""

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.data.readers.base import Source, shown
from pipeline.data.readers.json_values import check, objects
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row

Corpus = Literal["boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"]
Record = dict[str, Any]

_COPA = {"cause": "What was the cause?", "effect": "What happened as a result?"}


@dataclass(frozen=True)
class Options:
    """Which of the corpora it is."""

    corpus: Corpus


class _Format(NamedTuple):
    """A corpus: the columns of its flat records but for `label`, its labels by the hub's class numbers (none for ReCoRD), the
    keys of its rows, `row(record, label, where, problems)`, and what makes a line flat where it is not.
    """

    columns: dict[str, type]
    labels: tuple[str, ...]
    keys: frozenset[str]
    row: Callable[[Record, str, str, Problems], Row | None]
    flatten: Callable[[Record, str, Problems], Iterator[tuple[str, Record]]] | None = None


def keys(options: Options) -> frozenset[str]:
    """The keys that every row has."""
    return _FORMATS[options.corpus].keys


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of train.jsonl or val.jsonl; the official test.jsonl has no labels, so each of its lines is a problem."""
    flatten = _FORMATS[options.corpus].flatten
    for line, value in objects(source, problems):
        for where, record in flatten(value, line, problems) if flatten else [(line, value)]:
            found = row(record, options, where, problems)
            if found is not None:
                yield found


def row(record: Record, options: Options, where: str, problems: Problems) -> Row | None:
    """The row of one flat record; None, and problems, where a column or the label is missing or wrong, or an offset is."""
    corpus = _FORMATS[options.corpus]
    good = check(record, where, corpus.columns, problems)
    label = _label(record, corpus.labels, where, problems) if corpus.labels else ""
    found = corpus.row(record, label, where, problems) if good and label is not None else None
    return None if found is None else {"where": where, **found}


def _label(record: Record, labels: tuple[str, ...], where: str, problems: Problems) -> str | None:
    """The label's name: JSONL has names, true and false, or numbers, the hub numbers."""
    value = record.get("label")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return labels[value]
    name = str(value).lower() if isinstance(value, bool) else value
    if name in labels:
        return str(name)
    found = f"found {type(value).__name__} {value!r}" if "label" in record else "the key is missing"
    problems.add(
        where,
        f"label: {found}, expected {' or '.join(labels)}, or a number below {len(labels)}; "
        "the official test set has no labels: test on the validation set",
        "unknown-label",
    )
    return None


def _boolq(record: Record, label: str, where: str, problems: Problems) -> Row:
    return {"text": record["passage"], "text_pair": record["question"], "label": label}


def _entailment(record: Record, label: str, where: str, problems: Problems) -> Row:
    return {"text": record["premise"], "text_pair": record["hypothesis"], "label": label}


def _copa(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    asked = record["question"]
    if asked not in _COPA:
        problems.add(
            where,
            f"question: found {asked!r}, expected {' or '.join(_COPA)}; correct it",
            "unknown-value",
        )
        return None
    return {
        "context": record["premise"],
        "question": _COPA[asked],
        "choices": [record["choice1"], record["choice2"]],
        "answers": [record[label]],
    }


def _multirc(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    """The question and one of its answers make the second text, as in P-tuning v2."""
    if not check(record["idx"], f"{where}: idx", {"paragraph": int, "question": int}, problems):
        return None
    return {
        "text": record["paragraph"],
        "text_pair": f"{record['question']} {record['answer']}",
        "label": label,
        "question": f"{record['idx']['paragraph']}/{record['idx']['question']}",
    }


def _flat_multirc(value: Record, where: str, problems: Problems) -> Iterator[tuple[str, Record]]:
    if not (
        check(value, where, {"idx": int, "passage": dict}, problems, hides=True)
        and check(
            value["passage"],
            f"{where}: passage",
            {"text": str, "questions": list},
            problems,
            hides=True,
        )
    ):
        return
    for q, question in enumerate(value["passage"]["questions"]):
        place = f"{where}: passage.questions[{q}]"
        if not check(
            question, place, {"idx": int, "question": str, "answers": list}, problems, hides=True
        ):
            continue
        for a, answer in enumerate(question["answers"]):
            if check(answer, f"{place}.answers[{a}]", {"text": str}, problems):
                yield (
                    f"{place}.answers[{a}]",
                    {
                        "paragraph": value["passage"]["text"],
                        "question": question["question"],
                        "answer": answer["text"],
                        "idx": {"paragraph": value["idx"], "question": question["idx"]},
                        **{key: answer[key] for key in ("label",) if key in answer},
                    },
                )


def _record(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    """The choices are all mentions of entities, so a text may be there twice; "@highlight" lines are part of the passage."""
    spans, passage = record["entity_spans"], record["passage"]
    if not check(spans, f"{where}: entity_spans", {"text": list, "start": list}, problems):
        return None
    if not (
        len(spans["text"]) == len(spans["start"])
        and all(isinstance(text, str) for text in spans["text"])
        and all(type(start) is int for start in spans["start"])
    ):
        problems.add(
            where,
            f"entity_spans: found {shown(spans)}, expected as many texts as integers in start",
            "wrong-type",
        )
        return None
    wrong = [
        (text, start)
        for text, start in zip(spans["text"], spans["start"], strict=True)
        if start < 0 or not passage.startswith(text, start)
    ]
    for text, start in wrong:
        problems.add(
            where,
            f"entity_spans: entity {text!r} is said to start at {start}, where the passage has "
            f"{passage[max(start, 0) : max(start, 0) + len(text)]!r}; correct start or text",
            "span-offset",
        )
    return (
        None
        if wrong
        else {
            "context": passage,
            "question": record["query"],
            "choices": spans["text"],
            "starts": spans["start"],
            "answers": record["answers"],
        }
    )


def _flat_record(value: Record, where: str, problems: Problems) -> Iterator[tuple[str, Record]]:
    """JSONL gives the last character of an entity, the hub its text and one past the last."""
    if not (
        check(value, where, {"passage": dict, "qas": list}, problems, hides=True)
        and check(
            value["passage"],
            f"{where}: passage",
            {"text": str, "entities": list},
            problems,
            hides=True,
        )
    ):
        return
    text, found = value["passage"]["text"], set()
    before = len(problems)
    for e, entity in enumerate(value["passage"]["entities"]):
        place = f"{where}: passage.entities[{e}]"
        if check(entity, place, {"start": int, "end": int}, problems):
            start, end = entity["start"], entity["end"]
            found.add((start, end + 1))
            if not 0 <= start <= end < len(text):
                problems.add(
                    place,
                    f"start, end: {start}, {end} is no span of a passage of {len(text)} characters; correct them",
                    "span-offset",
                )
    if len(problems) > before:
        return
    spans = {
        "text": [text[start:end] for start, end in sorted(found)],
        "start": [start for start, _ in sorted(found)],
    }
    for q, qa in enumerate(value["qas"]):
        place = f"{where}: qas[{q}]"
        if check(qa, place, {"query": str, "answers": list}, problems):
            good = [
                check(answer, f"{place}.answers[{a}]", {"text": str}, problems)
                for a, answer in enumerate(qa["answers"])
            ]
            if all(good):
                yield (
                    place,
                    {
                        "passage": text,
                        "query": qa["query"],
                        "entity_spans": spans,
                        "answers": sorted({answer["text"] for answer in qa["answers"]}),
                    },
                )


def _wic(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    before = len(problems)
    spans = []
    for segment, n in enumerate("12"):
        text, start, end = (record[f"{key}{n}"] for key in ("sentence", "start", "end"))
        spans.append({"segment": segment, "start": start, "end": end})
        if not 0 <= start < end <= len(text):
            problems.add(
                where,
                f"start{n}, end{n}: {start}, {end} is no span of sentence{n}, which has {len(text)} characters: "
                f"{text[:60]!r}; correct them",
                "span-offset",
            )
    if len(problems) > before:
        return None
    return {
        "text": record["sentence1"],
        "text_pair": record["sentence2"],
        "spans": spans,
        "label": label,
    }


def _wsc(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    spans = []
    for n in "12":
        words, index = record[f"span{n}_text"], record[f"span{n}_index"]
        span = _nearest(record["text"], words, index)
        if span is None:
            problems.add(
                where,
                f"span{n}_text: {words!r} (span{n}_index {index}) is not in the text {record['text'][:60]!r}; "
                f"correct span{n}_text",
                "span-offset",
            )
        else:
            spans.append({"segment": 0, "start": span[0], "end": span[1]})
    return {"text": record["text"], "spans": spans, "label": label} if len(spans) == 2 else None


def _flat_wsc(value: Record, where: str, problems: Problems) -> Iterator[tuple[str, Record]]:
    if check(value, where, {"target": dict}, problems):
        yield where, value | value["target"]


def _nearest(text: str, words: str, index: int) -> tuple[int, int] | None:
    """Where `words` stand in the text, in characters, nearest to its word number `index`; None where they do not.

    Official spans differ from the text in case and spacing, they may have a full stop too many, and some numbers are off.
    """
    stem = words.strip().rstrip(string.punctuation)
    if not stem:
        return None
    tail = re.escape(words.strip()[len(stem) :])
    pattern = r"\s+".join(map(re.escape, stem.split()))
    found = [
        match.span()
        for match in re.finditer(rf"(?<!\w){pattern}(?!\w)(?:{tail})?", text, re.IGNORECASE)
    ]
    starts = [*(match.start() for match in re.finditer(r"\S+", text)), len(text)]
    place = starts[max(0, min(index, len(starts) - 1))]
    return min(found, key=lambda span: abs(span[0] - place), default=None)


_BOOLEAN = ("false", "true")
_PAIR = frozenset({"text", "text_pair", "label"})
_CHOICES = frozenset({"context", "question", "choices", "answers"})
_FORMATS: dict[Corpus, _Format] = {
    "boolq": _Format({"passage": str, "question": str}, _BOOLEAN, _PAIR, _boolq),
    "cb": _Format(
        {"premise": str, "hypothesis": str},
        ("entailment", "contradiction", "neutral"),
        _PAIR,
        _entailment,
    ),
    "copa": _Format(
        {"premise": str, "choice1": str, "choice2": str, "question": str},
        ("choice1", "choice2"),
        _CHOICES,
        _copa,
    ),
    "multirc": _Format(
        {"paragraph": str, "question": str, "answer": str, "idx": dict},
        _BOOLEAN,
        _PAIR | {"question"},
        _multirc,
        _flat_multirc,
    ),
    "record": _Format(
        {"passage": str, "query": str, "entity_spans": dict, "answers": list},
        (),
        _CHOICES | {"starts"},
        _record,
        _flat_record,
    ),
    "rte": _Format(
        {"premise": str, "hypothesis": str}, ("entailment", "not_entailment"), _PAIR, _entailment
    ),
    "wic": _Format(
        {
            "sentence1": str,
            "sentence2": str,
            "start1": int,
            "end1": int,
            "start2": int,
            "end2": int,
        },
        _BOOLEAN,
        _PAIR | {"spans"},
        _wic,
    ),
    "wsc": _Format(
        {"text": str, "span1_text": str, "span1_index": int, "span2_text": str, "span2_index": int},
        _BOOLEAN,
        frozenset({"text", "spans", "label"}),
        _wsc,
        _flat_wsc,
    ),
}
