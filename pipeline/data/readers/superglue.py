"""The eight corpora of SuperGLUE: their official JSONL, and the flat records of the hub's copies.

Each line of JSONL is flattened first (MultiRC and ReCoRD nest their records, WSC has its spans in
`target`); then one function per corpus makes a row of a record. Rows have no id, because the
official numbers restart in each split, and WiC's repeat.
"""

import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.data.readers.base import Source
from pipeline.data.readers.json_values import check, objects
from pipeline.errors import Problems, abbreviate, describe, quantity
from pipeline.tasks.base.row import Row

Corpus = Literal["boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"]
Record = dict[str, Any]

_COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}


@dataclass(frozen=True)
class Options:
    """The corpus of the files."""

    corpus: Corpus


class _Format(NamedTuple):
    """The format of a corpus.

    `columns` are those of its flat records, without `label`. `labels` are its labels in the order
    of the hub's class numbers (empty for ReCoRD). `keys` are the keys of its rows.
    `row(record, label, where, problems)` makes a row. `flatten` makes flat records of a line; None
    if its lines are flat.
    """

    columns: dict[str, type]
    labels: tuple[str, ...]
    keys: frozenset[str]
    row: Callable[[Record, str, str, Problems], Row | None]
    flatten: Callable[[Record, str, Problems], Iterator[tuple[str, Record]]] | None = None


def keys(options: Options) -> frozenset[str]:
    """The keys of all rows."""
    return _FORMATS[options.corpus].keys


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of train.jsonl or val.jsonl; each line of the official test.jsonl lacks a label."""
    flatten = _FORMATS[options.corpus].flatten
    for line, value in objects(source, problems):
        for where, record in flatten(value, line, problems) if flatten else [(line, value)]:
            with problems.in_one_row():
                result = row(record, options, where, problems)
            if result is not None:
                yield result


def row(record: Record, options: Options, where: str, problems: Problems) -> Row | None:
    """The row of a flat record; adds problems and returns None if a value is missing or wrong."""
    corpus = _FORMATS[options.corpus]
    valid = check(record, where, corpus.columns, problems)
    label = _label(record, corpus.labels, where, problems) if corpus.labels else ""
    result = corpus.row(record, label, where, problems) if valid and label is not None else None
    return None if result is None else {"where": where, **result}


def has_class_names(options: Options, names: Sequence[str], where: str, problems: Problems) -> bool:
    """Whether the names of the hub's class numbers, if any, are the labels of the corpus in order.

    Adds a problem if not. The names may differ in case: False is false.
    """
    labels = _FORMATS[options.corpus].labels
    if not names or not labels or tuple(map(str.lower, names)) == labels:
        return True
    problems.add(
        where,
        f"label: the class numbers have the names {', '.join(names)[:200]}, but the labels of "
        f"{options.corpus} are {', '.join(labels)}; correct corpus in the recipe's options, or use "
        "another copy of the data set",
        "class-name",
        hides=True,
    )
    return False


def _label(record: Record, labels: tuple[str, ...], where: str, problems: Problems) -> str | None:
    """The label's name. JSONL has names, booleans or numbers; the hub has numbers."""
    value = record.get("label")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return labels[value]
    name = str(value).lower() if isinstance(value, bool) else value
    if name in labels:
        return str(name)
    cause = f"found {describe(value)}" if "label" in record else "the key is missing"
    problems.add(
        where,
        f"label: {cause}, expected {' or '.join(labels)}, or a number below {len(labels)}; "
        "the official test set has no labels: test on the validation set",
        "unknown-label",
    )
    return None


def _boolq(record: Record, label: str, where: str, problems: Problems) -> Row:
    return {"text": record["passage"], "text_pair": record["question"], "label": label}


def _entailment(record: Record, label: str, where: str, problems: Problems) -> Row:
    return {"text": record["premise"], "text_pair": record["hypothesis"], "label": label}


def _copa(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    question = record["question"]
    if question not in _COPA_QUESTIONS:
        problems.add(
            where,
            f"question: found {question!r}, expected {' or '.join(_COPA_QUESTIONS)}; correct it",
            "unknown-value",
        )
        return None
    return {
        "context": record["premise"],
        "question": _COPA_QUESTIONS[question],
        "choices": [record["choice1"], record["choice2"]],
        "answers": [record[label]],
    }


def _multirc(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    """The second text is the question and one of its answers, as in P-tuning v2."""
    if not check(record["idx"], f"{where}: idx", {"paragraph": int, "question": int}, problems):
        return None
    return {
        "text": record["paragraph"],
        "text_pair": f"{record['question']} {record['answer']}",
        "label": label,
        "question": f"{record['idx']['paragraph']}/{record['idx']['question']}",
    }


def _flat_multirc(value: Record, where: str, problems: Problems) -> Iterator[tuple[str, Record]]:
    """One record per answer. A line has a passage with its questions and their answers."""
    if not check(value, where, {"idx": int, "passage": dict}, problems, hides=True):
        return
    passage = value["passage"]
    passage_keys = {"text": str, "questions": list}
    if not check(passage, f"{where}: passage", passage_keys, problems, hides=True):
        return
    for q, question in enumerate(passage["questions"]):
        question_where = f"{where}: passage.questions[{q}]"
        question_keys = {"idx": int, "question": str, "answers": list}
        if not check(question, question_where, question_keys, problems, hides=True):
            continue
        for a, answer in enumerate(question["answers"]):
            answer_where = f"{question_where}.answers[{a}]"
            if check(answer, answer_where, {"text": str}, problems):
                record = {
                    "paragraph": passage["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                    "idx": {"paragraph": value["idx"], "question": question["idx"]},
                }
                if "label" in answer:
                    record["label"] = answer["label"]
                yield answer_where, record


def _record(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    """The choices are all mentions of entities, so a text may repeat.

    The "@highlight" lines are part of the passage.
    """
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
            f"entity_spans: found {abbreviate(spans)}, expected as many texts as integers in start",
            "wrong-type",
        )
        return None
    wrong = [
        (text, start)
        for text, start in zip(spans["text"], spans["start"], strict=True)
        if start < 0 or not passage.startswith(text, start)
    ]
    for text, start in wrong:
        actual = passage[max(start, 0) : max(start, 0) + len(text)]
        problems.add(
            where,
            f"entity_spans: entity {text!r} has the start {start}, but the passage has "
            f"{actual!r} there; correct start or text",
            "span-offset",
        )
    if wrong:
        return None
    return {
        "context": passage,
        "question": record["query"],
        "choices": spans["text"],
        "starts": spans["start"],
        "answers": record["answers"],
    }


def _flat_record(value: Record, where: str, problems: Problems) -> Iterator[tuple[str, Record]]:
    """One record per query. A line has a passage with its entities and queries.

    JSONL has the position of an entity's last character; the hub has its text and one past the
    last character.
    """
    if not check(value, where, {"passage": dict, "qas": list}, problems, hides=True):
        return
    passage = value["passage"]
    passage_keys = {"text": str, "entities": list}
    if not check(passage, f"{where}: passage", passage_keys, problems, hides=True):
        return
    text = passage["text"]
    spans = _entity_spans(passage["entities"], text, where, problems)
    if spans is None:
        return
    for q, qa in enumerate(value["qas"]):
        qa_where = f"{where}: qas[{q}]"
        if check(qa, qa_where, {"query": str, "answers": list}, problems):
            valid = [
                check(answer, f"{qa_where}.answers[{a}]", {"text": str}, problems)
                for a, answer in enumerate(qa["answers"])
            ]
            if all(valid):
                yield (
                    qa_where,
                    {
                        "passage": text,
                        "query": qa["query"],
                        "entity_spans": spans,
                        "answers": sorted({answer["text"] for answer in qa["answers"]}),
                    },
                )


def _entity_spans(
    entities: list[Any], text: str, where: str, problems: Problems
) -> dict[str, list[Any]] | None:
    """The texts and starts of the distinct entities; adds problems and returns None if invalid."""
    num_problems = len(problems)
    offsets = set()
    for e, entity in enumerate(entities):
        entity_where = f"{where}: passage.entities[{e}]"
        if check(entity, entity_where, {"start": int, "end": int}, problems):
            start, end = entity["start"], entity["end"]
            offsets.add((start, end + 1))
            if not 0 <= start <= end < len(text):
                problems.add(
                    entity_where,
                    f"start, end: {start}, {end} is not a span of a passage of {len(text)} "
                    "characters; correct them",
                    "span-offset",
                )
    if len(problems) > num_problems:
        return None
    return {
        "text": [text[start:end] for start, end in sorted(offsets)],
        "start": [start for start, _ in sorted(offsets)],
    }


def _wic(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    num_problems = len(problems)
    spans = []
    for segment, n in enumerate("12"):
        text, start, end = (record[f"{key}{n}"] for key in ("sentence", "start", "end"))
        spans.append({"segment": segment, "start": start, "end": end})
        if not 0 <= start < end <= len(text):
            problems.add(
                where,
                f"start{n}, end{n}: {start}, {end} is not a span of sentence{n}, which has "
                f"{quantity(len(text), 'character')}: {text[:60]!r}; correct them",
                "span-offset",
            )
    if len(problems) > num_problems:
        return None
    return {
        "text": record["sentence1"],
        "text_pair": record["sentence2"],
        "spans": spans,
        "label": label,
    }


def _wsc(record: Record, label: str, where: str, problems: Problems) -> Row | None:
    text, spans = record["text"], []
    for n in "12":
        span_text, index = record[f"span{n}_text"], record[f"span{n}_index"]
        span = _nearest_match(text, span_text, index)
        if span is None:
            problems.add(
                where,
                f"span{n}_text: {span_text!r} (span{n}_index {index}) is not in the text "
                f"{text[:60]!r}; correct span{n}_text",
                "span-offset",
            )
        else:
            spans.append({"segment": 0, "start": span[0], "end": span[1]})
    return {"text": text, "spans": spans, "label": label} if len(spans) == 2 else None


def _flat_wsc(value: Record, where: str, problems: Problems) -> Iterator[tuple[str, Record]]:
    """The line with the members of `target`."""
    if check(value, where, {"target": dict}, problems):
        yield where, value | value["target"]


def _nearest_match(text: str, span_text: str, index: int) -> tuple[int, int] | None:
    """The characters [start, end) of `span_text` nearest to word number `index`, or None.

    Official span texts may differ from the text in case and spacing, or have an extra full stop;
    some word numbers are wrong.
    """
    stem = span_text.strip().rstrip(string.punctuation)
    if not stem:
        return None
    tail = re.escape(span_text.strip()[len(stem) :])
    pattern = r"\s+".join(map(re.escape, stem.split()))
    matches = [
        match.span()
        for match in re.finditer(rf"(?<!\w){pattern}(?!\w)(?:{tail})?", text, re.IGNORECASE)
    ]
    starts = [*(match.start() for match in re.finditer(r"\S+", text)), len(text)]
    expected = starts[max(0, min(index, len(starts) - 1))]
    return min(matches, key=lambda span: abs(span[0] - expected), default=None)


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
