"""Texts with spans of characters: every dialect, and spans that do not fit to words."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import parse
from pipeline.data.prepare import prepare
from pipeline.data.readers import READERS
from pipeline.data.recipe import load_recipe
from pipeline.errors import WARNINGS, Problems, UserError
from pipeline.metrics.spans import spans as spans_of_tags
from pipeline.tasks import task_named
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.offsets import OffsetUnit
from pipeline.words import RULES, RuleName, split_words
from tests.support import exports
from tests.support.exports import Spans, json_lines, json_list, parquet
from tests.support.raw import without_where

TEXT = "Ada Lee saw New York-based Bo."
ADA, YORK = (0, 7, "PER"), (12, 20, "LOC")


def read(
    content: bytes | str,
    folder: Path,
    options: dict[str, Any],
    name: str = "a.jsonl",
    task: str = "token_classification",
) -> tuple[list[Row], Problems]:
    """Write a file and read it with the options of the reader."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reader, problems = READERS["offsets"], Problems(max_shown=100)
    parsed = parse(reader.options, options, "recipe")
    resolved, _ = reader.resolve_auto(reader.for_task(parsed, task_named(task).row_keys), [path])
    return list(reader.read(path, resolved, problems)), problems


def messages(problems: Problems) -> list[str]:
    return [problem.message for problem in problems.kept]


def tagged(row: Row) -> list[tuple[str, str]]:
    """The label and the words of each span of a row."""
    return [
        (label, " ".join(row["tokens"][start:end]))
        for label, start, end in spans_of_tags(row["tags"])
    ]


# Round trips

WORDS = st.text(
    st.sampled_from("aZ9é😀漢\u0301\u200d-'.,") | st.characters(exclude_categories=["C", "Z"]),
    min_size=1,
    max_size=5,
).filter(lambda word: not word.startswith("\ufeff"))
SPACES = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\u00a0"])


@st.composite
def documents(draw: st.DrawFn, rule: RuleName) -> tuple[str, list[tuple[int, int, str]]]:
    """A text, and spans of its words that do not overlap."""
    pieces = draw(st.lists(st.tuples(WORDS, SPACES), min_size=1, max_size=6))
    text = draw(st.sampled_from(["", " "])) + "".join(word + space for word, space in pieces)
    words, spans, start = split_words(text, rule), list[tuple[int, int, str]](), 0
    while start < len(words):
        end = min(len(words), start + draw(st.integers(1, 3)))
        if draw(st.booleans()):
            label = draw(st.sampled_from(["PER", "Ort-1", "x"]))
            spans.append((words[start].start, words[end - 1].end, label))
        start = end
    return text, spans


def expected_row(text: str, spans: Spans, rule: RuleName) -> Row:
    words = split_words(text, rule)
    tags = ["O"] * len(words)
    for start, end, label in spans:
        inside = [n for n, word in enumerate(words) if start <= word.start and word.end <= end]
        for number in inside:
            tags[number] = f"{'B' if number == inside[0] else 'I'}-{label}"
    return {"tokens": [word.text for word in words], "tags": tags}


DIALECTS: dict[str, tuple[str, Callable[[str, Spans], dict[str, Any]]]] = {
    "plain": ("plain", exports.plain),
    "doccano": ("doccano", exports.doccano),
    "doccano_relations": ("doccano", exports.doccano_relations),
    "prodigy": ("prodigy", exports.prodigy),
    "label_studio": ("label_studio", exports.label_studio),
}
SETTINGS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def in_unit(text: str, spans: Spans, unit: OffsetUnit) -> Spans:
    """The spans with their offsets in a unit."""
    if unit == "characters":
        return spans
    encoding, width = {"utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}[unit]

    def convert(offset: int) -> int:
        return len(text[:offset].encode(encoding)) // width

    return [(convert(start), convert(end), label) for start, end, label in spans]


@SETTINGS
@given(st.data(), st.sampled_from(sorted(RULES)), st.sampled_from(["characters", "utf16", "bytes"]))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_records_are_read_back(
    tmp_path: Path, dialect: str, data: st.DataObject, rule: RuleName, unit: OffsetUnit
) -> None:
    written = data.draw(st.lists(documents(rule), min_size=1, max_size=3))
    name, write = DIALECTS[dialect]
    records = [write(text, in_unit(text, spans, unit)) for text, spans in written]
    if name == "label_studio":  # the text of a span is that of its characters
        for record, (text, spans) in zip(records, written, strict=True):
            regions = record["annotations"][0]["result"]
            for region, (start, end, _) in zip(regions, spans, strict=True):
                region["value"]["text"] = text[start:end]
    content = data.draw(st.sampled_from([json_lines(records), json_list(records)]))
    options = {"dialect": name, "word_rule": rule, "offsets": unit}
    rows, problems = read(content, tmp_path, options, "a.json")
    assert set(problems.counts) <= {"not-nfc"}
    expected = [expected_row(text, spans, rule) for text, spans in written]
    assert [{key: row[key] for key in ("tokens", "tags")} for row in rows] == expected


@SETTINGS
@given(st.data(), st.sampled_from(sorted(RULES)), st.sampled_from(["characters", "utf16"]))
def test_brat_is_read_back(
    tmp_path: Path, data: st.DataObject, rule: RuleName, unit: OffsetUnit
) -> None:
    text, spans = data.draw(documents(rule))
    lines = exports.brat(text, spans).splitlines(keepends=True)
    for number, (start, end, label) in enumerate(in_unit(text, spans, unit)):
        name, _, found = lines[number].split("\t", 2)
        lines[number] = f"{name}\t{label} {start} {end}\t{found}"
    (tmp_path / "a.txt").write_bytes(text.encode())
    options = {"dialect": "brat", "word_rule": rule, "offsets": unit}
    rows, problems = read("".join(lines), tmp_path, options, "a.ann")
    assert set(problems.counts) <= {"not-nfc"}
    assert without_where(rows) == [expected_row(text, spans, rule)]


@SETTINGS
@given(data=st.data())
@pytest.mark.parametrize("group", [None, "sc"])
def test_spacy_is_read_back(tmp_path: Path, data: st.DataObject, group: str | None) -> None:
    """The words are spaCy's tokens without its tokens of white space."""
    pytest.importorskip("spacy")
    nlp = exports.blank_pipeline()
    written = []
    for text, _ in data.draw(st.lists(documents("spaces"), min_size=1, max_size=3)):
        tokens = [token for token in nlp.make_doc(text) if not token.is_space]
        chosen = data.draw(st.lists(st.sampled_from(tokens), unique=True)) if tokens else []
        spans = sorted((token.idx, token.idx + len(token), "LOC") for token in chosen)
        tags = ["B-LOC" if token in chosen else "O" for token in tokens]
        expected = {"tokens": [token.text for token in tokens], "tags": tags}
        written.append((text, spans, expected))
    content = exports.doc_bin([(text, spans) for text, spans, _ in written], group)
    options = {"dialect": "spacy"} | ({"fields": {"spans": group}} if group else {})
    rows, problems = read(content, tmp_path, options, "a.spacy")
    assert set(problems.counts) <= {"not-nfc"}
    assert without_where(rows) == [expected for _, _, expected in written]


@SETTINGS
@given(data=st.data())
def test_marked_spans_are_read_back(tmp_path: Path, data: st.DataObject) -> None:
    """Each span is a row of a classification, also a span that cuts words or overlaps another."""
    text, _ = data.draw(documents("spaces"))
    start = st.integers(0, len(text) - 1)
    spans = data.draw(
        st.lists(
            start.flatmap(lambda at: st.tuples(st.just(at), st.integers(at + 1, len(text)))).filter(
                lambda span: bool(text[slice(*span)].strip())
            ),
            max_size=3,
        )
    )
    record = exports.plain(text, [(*span, "yes") for span in spans]) | {"id": 5}
    rows, problems = read(json_lines([record]), tmp_path, {}, task="sequence_classification")
    assert not problems.counts
    assert without_where(rows) == [
        {
            "text": text,
            "spans": [{"segment": 0, "start": start, "end": end}],
            "label": "yes",
            "id": f"5-{number}",
            "title": "5",
        }
        for number, (start, end) in enumerate(spans)
    ]
    assert problems.skipped["texts without spans"] == (not spans)


# Spans that do not fit


def read_spans(folder: Path, *spans: tuple[int, int, str], **options: object) -> Any:
    """The spans of the row, or None; and the kinds and messages of the problems."""
    rows, problems = read(
        json_lines([exports.plain(TEXT, spans)]), folder, {"word_rule": "treebank", **options}
    )
    assert problems.rejected == (not rows)
    return tagged(rows[0]) if rows else None, dict(problems.counts), messages(problems)


PARTIAL = "spans[0]: LOC 'New York' at 12 to 20 ends inside the word 'York-based'"


@pytest.mark.parametrize(
    ("on_partial", "kind", "expected", "remedy"),
    [
        ("error", "span-in-word", None, "; correct its offsets, or set on_partial (trim, expand,"),
        ("trim", "trimmed-span", [("LOC", "New")], "; it becomes 'New'"),
        ("expand", "expanded-span", [("LOC", "New York-based")], "; it becomes 'New York-based'"),
        ("split", "split-word", [("LOC", "New York")], ", which is split there"),
        ("drop", "dropped-span", [], "; it is dropped"),
    ],
)
def test_on_partial(on_partial: str, kind: str, expected: Any, remedy: str, tmp_path: Path) -> None:
    spans, counts, (message,) = read_spans(tmp_path, YORK, on_partial=on_partial)
    assert (spans, counts) == (expected, {kind: 1})
    assert message.startswith(PARTIAL + remedy)
    assert (kind in WARNINGS) == (on_partial != "error")


def test_a_span_inside_a_single_word(tmp_path: Path) -> None:
    inside = (17, 20, "LOC")  # ork, in York-based
    assert read_spans(tmp_path, inside, on_partial="trim")[:2] == ([], {"dropped-span": 1})
    assert read_spans(tmp_path, inside, on_partial="expand")[0] == [("LOC", "York-based")]
    rows, _ = read(
        json_lines([exports.plain(TEXT, [inside])]),
        tmp_path,
        {"word_rule": "treebank", "on_partial": "split"},
    )
    assert rows[0]["tokens"][4:7] == ["Y", "ork", "-based"]
    (message,) = read_spans(tmp_path, inside)[2]
    assert "begins inside the word 'York-based' and ends inside the word 'York-based'" in message


def test_other_rules_may_fit(tmp_path: Path) -> None:
    assert read_spans(tmp_path, YORK, word_rule="punctuation")[:2] == ([("LOC", "New York")], {})


def test_white_space_at_the_ends_of_a_span_does_not_count(tmp_path: Path) -> None:
    assert read_spans(tmp_path, (7, 12, "X"))[:2] == ([("X", "saw")], {})


OUTER, INNER, CROSSING = (0, 11, "EVENT"), (4, 7, "PER"), (8, 15, "LOC")  # words 0-2, 1, 2-3


@pytest.mark.parametrize(
    ("on_overlap", "nested", "crossing"),
    [
        ("error", None, None),
        ("drop", [("EVENT", "Ada Lee saw")], [("EVENT", "Ada Lee saw")]),
        (
            "trim",
            [("EVENT", "Ada Lee saw")],
            [("EVENT", "Ada Lee saw"), ("LOC", "New")],
        ),
        (
            "split",
            [("EVENT", "Ada"), ("PER", "Lee"), ("EVENT", "saw")],
            [("EVENT", "Ada Lee"), ("LOC", "saw New")],
        ),
    ],
)
def test_on_overlap(on_overlap: str, nested: Any, crossing: Any, tmp_path: Path) -> None:
    for second, expected in ((INNER, nested), (CROSSING, crossing)):
        for spans in ((OUTER, second), (second, OUTER)):
            found, counts, (message,) = read_spans(tmp_path, *spans, on_overlap=on_overlap)
            assert found == expected
            assert "EVENT 'Ada Lee saw' at 0 to 11" in message
            assert "overlaps" in message
            assert (set(counts) <= WARNINGS) == (on_overlap != "error")
            assert sum(counts.values()) == 1


def test_other_spans_of_equal_bounds_overlap_and_repeated_spans_are_counted(tmp_path: Path) -> None:
    again = (*ADA[:2], "ORG")
    assert read_spans(tmp_path, ADA, again)[:2] == (None, {"overlapping-spans": 1})
    for on_overlap in ("drop", "trim", "split"):
        assert read_spans(tmp_path, ADA, again, on_overlap=on_overlap)[:2] == (
            [("PER", "Ada Lee")],
            {"dropped-span": 1},
        )
    rows, problems = read(json_lines([exports.plain(TEXT, [ADA, ADA])]), tmp_path, {})
    assert tagged(rows[0]) == [("PER", "Ada Lee")]
    assert not problems.counts
    assert problems.skipped["repeated spans"] == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 29), st.integers(1, 30), st.sampled_from("AB")), max_size=6
    ).map(lambda spans: [(min(s, e - 1), e, label) for s, e, label in spans]),
    st.sampled_from(["trim", "expand", "split", "drop"]),
    st.sampled_from(["trim", "split", "drop"]),
)
def test_every_change_of_a_span_is_told(
    tmp_path_factory: pytest.TempPathFactory, spans: Any, on_partial: str, on_overlap: str
) -> None:
    """Without a warning, the spans of the row are those of the file."""
    spans = [span for span in spans if TEXT[span[0] : span[1]].strip()]
    options = {"on_partial": on_partial, "on_overlap": on_overlap, "word_rule": "treebank"}
    folder = tmp_path_factory.getbasetemp()
    rows, problems = read(json_lines([exports.plain(TEXT, spans)]), folder, options)
    assert len(rows) == 1
    assert set(problems.counts) <= WARNINGS
    found = tagged(rows[0])
    if not problems.counts:
        wanted = {(label, " ".join(TEXT[start:end].split())) for start, end, label in spans}
        assert {(label, text.replace(" .", ".")) for label, text in found} == wanted
        assert len(found) == len(set(spans)) or problems.skipped["repeated spans"]


@pytest.mark.parametrize(
    ("span", "part"),
    [
        ((0, 31, "PER"), "at 0 to 31 is not a span of words of the 30 characters"),
        ((3, 3, "PER"), "at 3 to 3 is not a span of words"),
        ((7, 3, "PER"), "at 7 to 3 is not a span of words"),
        ((-7, 3, "PER"), "at -7 to 3 is not a span of words"),
        ((3, 4, "PER"), "' ' at 3 to 4 is not a span of words"),
    ],
)
def test_span_that_is_not_in_the_text(span: Any, part: str, tmp_path: Path) -> None:
    spans, counts, (message,) = read_spans(tmp_path, span)
    assert (spans, counts) == (None, {"span-offset": 1})
    assert part in message


def test_the_message_names_the_unit_of_the_offsets(tmp_path: Path) -> None:
    text = "😀😀 to Oslo"
    for unit, spans in (("utf16", [(8, 12, "LOC")]), ("bytes", [(12, 16, "LOC")])):
        _, problems = read(json_lines([exports.plain(text, spans)]), tmp_path, {})
        assert f"set offsets: {unit}" in messages(problems)[0]
        rows, problems = read(json_lines([exports.plain(text, spans)]), tmp_path, {"offsets": unit})
        assert (tagged(rows[0]), dict(problems.counts)) == ([("LOC", "Oslo")], {})
    wrong = exports.label_studio(text, [(6, 10, "LOC")])
    wrong["annotations"][0]["result"][0]["value"] |= {"start": 8, "end": 10}
    _, problems = read(json_lines([wrong]), tmp_path, {"dialect": "label_studio"})
    assert "should be 'Oslo'; consistent with UTF-16 offsets" in messages(problems)[0]


def test_an_offset_inside_a_character(tmp_path: Path) -> None:
    record = exports.plain("😀 Oslo", [(1, 7, "LOC")])
    _, problems = read(json_lines([record]), tmp_path, {"offsets": "utf16"})
    assert dict(problems.counts) == {"offset-unit": 1}


# Dialects


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({"spans": []}, "key 'text' is missing; found spans"),
        ({"text": "Ada"}, "key 'spans' is missing; found text"),
        ({"text": 1, "spans": []}, "text: found an integer 1, expected text"),
        ({"text": "Ada", "spans": {}}, "spans: found a mapping {}, expected a list of spans"),
        ({"text": "Ada", "spans": [[0, 3]]}, "spans[0]: found a list [0, 3], expected [start, end"),
        ({"text": "Ada", "spans": [["0", 3, "X"]]}, "spans[0]: found a list"),
        ({"text": "Ada", "spans": [{"start": 0, "end": 3}]}, "spans[0]: found a mapping"),
        ({"text": "Ada", "spans": [[0, 3, " "]]}, "spans[0]: found a list"),
        ({"text": "Ada", "spans": [[0, 3, []]]}, "spans[0]: found a list"),
        ({"text": "Ada", "spans": [], "id": [1]}, "id: found a list [1], expected text or an"),
        ({"text": " ", "spans": []}, "text is empty: ' '; remove the row"),
    ],
)
def test_invalid_record_is_one_rejected_row(
    record: dict[str, Any], part: str, tmp_path: Path
) -> None:
    rows, problems = read(json_lines([record, exports.plain(TEXT, [])]), tmp_path, {})
    assert (len(rows), problems.rejected) == (1, 1)
    assert part in messages(problems)[0]
    assert problems.kept[0].where == f"{tmp_path / 'a.jsonl'}:1"


def test_fields_name_other_keys(tmp_path: Path) -> None:
    """A span may be a list in every dialect; class numbers and 4.0 are read too."""
    record = {"doc": {"body": "Ada ran"}, "ents": [[0, 3.0, 1]], "key": "k"}
    fields = {"text": "doc.body", "spans": "ents", "id": "key"}
    rows, problems = read(json_lines([record]), tmp_path, {"fields": fields, "names": {"1": "PER"}})
    assert not problems.counts
    assert without_where(rows) == [{"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"], "id": "k"}]
    _, problems = read(json_lines([record | {"key": None}]), tmp_path, {"fields": fields})
    assert dict(problems.counts) == {"missing-id": 1}


def test_names_rename_labels_and_ignore_those_named_o(tmp_path: Path) -> None:
    names = {"PER": "Person", "LOC": "O"}
    rows, problems = read(
        json_lines([exports.plain(TEXT, [ADA, YORK])]), tmp_path, {"names": names}
    )
    assert tagged(rows[0]) == [("Person", "Ada Lee")]
    assert problems.skipped["spans named O"] == 1


def test_class_numbers_of_a_table_have_the_names_in_its_metadata(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "spans": datasets.List(
                {
                    "start": datasets.Value("int32"),
                    "end": datasets.Value("int32"),
                    "label": datasets.ClassLabel(names=["PER", "Loc"]),
                }
            ),
        }
    )
    record = exports.plain(TEXT, [(0, 7, 0), (12, 15, 1)])  # type: ignore[list-item]
    data = datasets.Dataset.from_list([record], features=features)
    data.to_parquet(tmp_path / "b.parquet")
    content = (tmp_path / "b.parquet").read_bytes()
    rows, problems = read(content, tmp_path, {"names": {"Loc": "LOC"}}, "a.parquet")
    assert tagged(rows[0]) == [("PER", "Ada Lee"), ("LOC", "New")]
    READERS["offsets"].check_options(
        READERS["offsets"].for_task(
            parse(READERS["offsets"].options, {"names": {"Loc": "LOC"}}, "r"),
            task_named("token_classification").row_keys,
        ),
        "ours.yaml",
        problems,
    )
    assert not problems.counts
    rows, problems = read(content, tmp_path, {"names": {"1": "PER"}}, "a.parquet")
    assert (rows, dict(problems.counts)) == ([], {"class-name": 1})


def test_a_label_studio_task_needs_one_annotation(tmp_path: Path) -> None:
    task = exports.label_studio(TEXT, [ADA])
    (annotation,) = task["annotations"]
    other = {**annotation, "result": []}
    options = {"dialect": "label_studio"}

    def outcome(*annotations: Any) -> tuple[int, dict[str, int], int]:
        content = json_list([task | {"annotations": list(annotations)}])
        rows, problems = read(content, tmp_path, options, "a.json")
        return len(rows), dict(problems.counts), problems.skipped["texts without annotation"]

    assert outcome(annotation, {**other, "was_cancelled": True}) == (1, {}, 0)
    assert outcome({**annotation, "ground_truth": True}, other) == (1, {}, 0)
    assert outcome(annotation, other) == (0, {"several-annotations": 1}, 0)
    assert outcome() == (0, {}, 1)
    assert outcome({**other, "was_cancelled": True}) == (0, {}, 1)
    assert outcome({**other, "result": None}) == (0, {"wrong-type": 1}, 0)
    choice = {"type": "choices", "value": {"choices": ["yes"]}}
    rows, problems = read(
        json_list([task | {"annotations": [{**annotation, "result": [choice]}]}]),
        tmp_path,
        options,
        "a.json",
    )
    assert tagged(rows[0]) == []
    assert problems.skipped["results without labels"] == 1


def test_prodigy_skips_rejected_records_and_may_give_its_tokens(tmp_path: Path) -> None:
    tokens = [
        {"text": "New York", "start": 12, "end": 20, "id": 0},
        {"text": "-", "start": 20, "end": 21, "id": 1},
    ]
    record = exports.prodigy(TEXT, [YORK]) | {"tokens": tokens}
    rejected = [record | {"answer": answer} for answer in ("reject", "ignore")]
    options = {"dialect": "prodigy", "word_rule": "tokens"}
    rows, problems = read(json_lines([record, *rejected]), tmp_path, options)
    assert without_where(rows) == [{"tokens": ["New York", "-"], "tags": ["B-LOC", "O"]}]
    assert problems.skipped["records without the answer accept"] == 2
    for wrong in (tokens[::-1], [{**tokens[0], "text": "New"}], [{**tokens[0], "end": 99}]):
        _, problems = read(json_lines([record | {"tokens": wrong}]), tmp_path, options)
        assert set(problems.counts) == {"token-offset"}
    _, problems = read(json_lines([exports.prodigy(TEXT, [YORK])]), tmp_path, options)
    assert messages(problems)[0].startswith("tokens are missing")
    without = record | {"tokens": tokens[1:]}
    _, problems = read(json_lines([without]), tmp_path, options)
    assert "LOC 'New York' at 12 to 20 has no token" in messages(problems)[0]


def test_brat_reads_text_spans_and_counts_other_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Ada\r\nLee ran 😀 in Bonn".encode())
    lines = ["T1\tPER 0 8\tAda  Lee", "R1\tx Arg1:T1 Arg2:T1", "#1\tNote T1\tnice", ""]
    rows, problems = read("\n".join(lines), tmp_path, {"dialect": "brat"}, "a.ann")
    assert tagged(rows[0]) == [("PER", "Ada Lee")]
    assert rows[0]["where"] == f"{tmp_path / 'a.txt'}:1"
    assert not problems.counts
    assert problems.skipped["lines of annotations that are not text spans"] == 2


@pytest.mark.parametrize(
    ("annotation", "kind", "part"),
    [
        ("T1\tPER 0 3\tBob", "span-text", "T1: PER 'Ada' at 0 to 3 should be 'Bob'"),
        ("T1\tPER 1 4\tAda", "span-text", "should be 'Ada'; off by one"),
        ("T1 PER 0 3 Ada", "ill-formed-annotation", "'T1 PER 0 3 Ada' is not a line of brat's"),
        ("PER 0 3", "ill-formed-annotation", "'PER 0 3' is not a line of brat's"),
        ("T1\tPER 0 9\tAda", "span-offset", "is not a span of words of the 7 characters"),
    ],
)
def test_invalid_line_of_brat(annotation: str, kind: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ada ran")
    rows, problems = read(f"\n{annotation}\n", tmp_path, {"dialect": "brat"}, "a.ann")
    assert (rows, dict(problems.counts)) == ([], {kind: 1})
    assert part in messages(problems)[0]
    assert problems.kept[0].where == f"{tmp_path / 'a.ann'}:2"


@pytest.mark.parametrize(
    ("option", "kind", "expected"),
    [
        ("error", "discontinuous-span", None),
        ("split", "split-span", [("PER", "Ada"), ("PER", "York")]),
        ("expand", "expanded-span", [("PER", "Ada Lee saw New York")]),
        ("drop", "dropped-span", []),
    ],
)
def test_on_discontinuous(option: str, kind: str, expected: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    options = {"dialect": "brat", "on_discontinuous": option}
    rows, problems = read("T1\tPER 0 3;16 20\tAda York\n", tmp_path, options, "a.ann")
    assert [tagged(row) for row in rows] == ([] if expected is None else [expected])
    assert dict(problems.counts) == {kind: 1}
    assert "T1: PER 'Ada York' at 0 to 20 has 2 fragments" in messages(problems)[0]


def test_brat_needs_the_text_beside_the_annotation(tmp_path: Path) -> None:
    options = {"dialect": "brat"}
    _, problems = read("", tmp_path, options, "b.ann")
    assert messages(problems) == ["the text of b.ann does not exist; put it beside its annotation"]
    _, problems = read("Ada", tmp_path, options, "b.txt")
    assert "list the .ann files in the recipe's files" in messages(problems)[0]
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    _, problems = read("", tmp_path, options, "b.ann")
    assert dict(problems.counts) == {"undecodable-bytes": 1}
    (tmp_path / "b.txt").write_bytes("Ada".encode("utf-16"))
    _, problems = read("", tmp_path, options, "b.ann")
    assert dict(problems.counts) == {"damaged-file": 1}
    reader = READERS["offsets"]
    row_keys = task_named("token_classification").row_keys
    resolved = reader.for_task(parse(reader.options, options, "r"), row_keys)
    assert reader.companion_files(tmp_path / "b.ann", resolved) == [tmp_path / "b.txt"]
    assert reader.chunk_boundary(tmp_path / "b.ann", resolved) is None
    (tmp_path / "doc.annotated.txt.gz").touch()
    companions = reader.companion_files(tmp_path / "doc.annotated.ann.gz", resolved)
    assert companions == [tmp_path / "doc.annotated.txt.gz"]


def test_spacy_without_annotation_groups_or_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spacy = pytest.importorskip("spacy")
    stored = spacy.tokens.DocBin(
        docs=[exports.blank_pipeline().make_doc("Ada ran")], store_user_data=True
    )
    rows, problems = read(stored.to_bytes(), tmp_path, {"dialect": "spacy"}, "a.spacy")
    assert not rows
    assert problems.skipped["documents without entity annotation"] == 1
    options = {"dialect": "spacy", "fields": {"spans": "sc"}}
    _, problems = read(stored.to_bytes(), tmp_path, options, "a.spacy")
    assert "span group 'sc' is missing; found none" in messages(problems)[0]
    for content in (b"", b"Ada", stored.to_bytes()[:-3]):
        _, problems = read(content, tmp_path, {"dialect": "spacy"}, "a.spacy")
        assert dict(problems.counts) == {"not-docbin": 1}
    monkeypatch.setitem(sys.modules, "spacy.tokens", None)
    with pytest.raises(UserError, match=r"install it with pip install 'deep-prompt\[spacy\]'"):
        read(stored.to_bytes(), tmp_path, {"dialect": "spacy"}, "a.spacy")


def test_json_min_of_label_studio_has_plain_fields(tmp_path: Path) -> None:
    region = {"start": 0, "end": 7, "text": "Ada Lee", "labels": ["PER"]}
    content = json_list([{"id": 3, "text": TEXT, "label": [region], "annotator": 1}])
    options = {"fields": {"text": None, "spans": "label"}}
    rows, problems = read(content, tmp_path, options, "a.json")
    assert (tagged(rows[0]), rows[0]["id"], dict(problems.counts)) == (
        [("PER", "Ada Lee")],
        "3",
        {},
    )


def test_tables_need_only_the_columns_of_text_and_spans(tmp_path: Path) -> None:
    content = parquet([exports.plain(TEXT, [ADA]) | {"n": 1}])
    rows, problems = read(content, tmp_path, {}, "a.parquet")
    assert (tagged(rows[0]), dict(problems.counts)) == ([("PER", "Ada Lee")], {})
    _, problems = read(content, tmp_path, {"fields": {"id": "key"}}, "a.parquet")
    assert dict(problems.counts) == {"missing-column": 1}
    _, problems = read("text,spans\n", tmp_path, {}, "a.csv")
    assert (
        "set format in the recipe's options: arrow, json, jsonl, parquet" in messages(problems)[0]
    )


def test_lines_are_rows(tmp_path: Path) -> None:
    text = "Ada ran.\n\nBo\nLee sat\r\nin Bonn"
    spans = [(0, 3, "PER"), (10, 16, "PER"), (25, 29, "LOC")]
    record = exports.plain(text, spans) | {"id": 3}
    rows, problems = read(json_lines([record]), tmp_path, {"lines": True})
    assert not problems.counts
    assert [row["where"].removeprefix(f"{tmp_path}/") for row in rows] == [
        f"a.jsonl:1, line {number}" for number in (1, 3, 5)
    ]
    assert without_where(rows) == [
        {"tokens": ["Ada", "ran", "."], "tags": ["B-PER", "O", "O"], "id": "3-0", "title": "3"},
        {
            "tokens": ["Bo", "Lee", "sat"],
            "tags": ["B-PER", "I-PER", "O"],
            "id": "3-1",
            "title": "3",
        },
        {"tokens": ["in", "Bonn"], "tags": ["O", "B-LOC"], "id": "3-2", "title": "3"},
    ]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"dialect": "docano"}, "did you mean 'doccano'?"),
        ({"fields": {"txt": None}}, "fields: 'txt' is not one of its keys; did you mean 'text'?"),
        ({"dialect": "brat", "fields": {"text": "a"}}, "fields: 'text' is not one of its keys"),
        ({"word_rule": "tokens"}, "word_rule: files of the dialect plain have no tokens"),
        ({"on_discontinuous": "drop"}, "on_discontinuous: the dialect plain does not use it"),
        ({"dialect": "spacy", "offsets": "utf16"}, "offsets: the dialect spacy does not use it"),
        ({"dialect": "brat", "format": "json"}, "format: the dialect brat does not use it"),
        ({"on_partial": "fix"}, "on_partial: 'fix' is not one of the allowed values"),
    ],
)
def test_invalid_options(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(READERS["offsets"].options, options, "recipe: options")
    assert part in str(caught.value)


def recipe_problems(folder: Path, **values: Any) -> str:
    path = folder / "ours.yaml"
    recipe = {
        "license": "CC0",
        "source": "ours",
        "reader": "offsets",
        "labels": ["PER", "LOC"],
        "files": {"train": "a.jsonl"},
        "carve_validation": 0.3,
        "carve_test": 0.3,
    }
    path.write_text(json.dumps(recipe | values))
    try:
        load_recipe(path)
    except UserError as error:
        return str(error)
    return ""


def test_options_fit_the_task(tmp_path: Path) -> None:
    tags = {"task": "token_classification"}
    marks = {"task": "sequence_classification"}
    assert not recipe_problems(tmp_path, **tags, options={"on_partial": "trim"}, split_by="title")
    assert not recipe_problems(tmp_path, **marks)
    problem = recipe_problems(tmp_path, **marks, options={"on_partial": "trim", "lines": True})
    assert "on_partial, lines: only a task that tags words uses this; remove it" in problem
    problem = recipe_problems(tmp_path, task="semantic_role_labeling")
    assert "semantic_role_labeling needs predicate too" in problem


def test_prepare_records_the_rule_and_reports_what_it_changed(tmp_path: Path) -> None:
    """Chunks of JSON lines, ids by split, unmatched names, and the rule in the summary."""
    texts = [f"{name}-{n} met Ada in Bonn." for n, name in enumerate(["Bo", "Cy", "Di", "Ed"] * 3)]
    records = [
        exports.plain(text, [(0, 2, "PER"), (text.index("Bonn"), text.index("Bonn") + 4, "LOC")])
        for text in texts
    ]
    (tmp_path / "a.jsonl").write_bytes(json_lines(records))
    options = {"word_rule": "treebank", "on_partial": "expand", "names": {"GPE": "LOC"}}
    assert not recipe_problems(tmp_path, task="token_classification", options=options)
    recipe = load_recipe(tmp_path / "ours.yaml")
    summary, lines = prepare(recipe, tmp_path, tmp_path / "out")
    assert summary["detected"] == {"word_rule": "treebank"}
    assert sum(summary["rows"].values()) == 12
    assert "expanded-span: 12 (warning)" in lines
    assert "unmatched-option: 1 (warning)" in lines


def test_prepare_counts_texts_of_brat_without_an_annotation_file(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for n in range(12):
        (tmp_path / "raw" / f"{n}.txt").write_text(f"Ada met {n}.")
        (tmp_path / "raw" / f"{n}.ann").write_text("T1\tPER 0 3\tAda\n")
    files = {"files": {"train": "raw/*.ann"}, "labels": ["PER"]}
    options = {"dialect": "brat"}
    assert not recipe_problems(tmp_path, task="token_classification", options=options, **files)
    recipe = load_recipe(tmp_path / "ours.yaml")
    _, lines = prepare(recipe, tmp_path, tmp_path / "out")
    assert lines == []
    for name in ("a.txt", "b.1.txt", "c.txt.gz"):
        (tmp_path / "raw" / name).write_text("Bo ran.")
    _, lines = prepare(recipe, tmp_path, tmp_path / "out")
    assert lines == ["skipped: texts without annotation file 3"]
