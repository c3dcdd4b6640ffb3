"""Tag schemes: the conversion to IOB2, violations, and the detection of a scheme."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.readers.tags import SCHEMES, Scheme, SchemeEvidence, to_iob2
from tests.support.tags import SPANS, to_tags


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("iob1", "I-A I-A B-A I-B O I-B", "B-A I-A B-A B-B O B-B"),
        ("iob2", "B-A I-A B-A B-B O B-B", "B-A I-A B-A B-B O B-B"),
        ("bioes", "B-A I-A E-A S-A S-A O S-creative-work", "B-A I-A I-A B-A B-A O B-creative-work"),
        ("bilou", "B-A I-A L-A U-A", "B-A I-A I-A B-A"),
    ],
)
def test_tags_are_converted_to_iob2(scheme: Scheme, tags: str, expected: str) -> None:
    assert to_iob2(tags.split(), scheme) == (expected.split(), [])


@pytest.mark.parametrize(
    ("scheme", "tags", "position", "message"),
    [
        (
            "iob2",
            "O I-A",
            1,
            "tag 'I-A' continues a span that has not begun, which IOB2 does not allow; "
            "begin it with B-A, or set tag_scheme: iob1 if the file is IOB1",
        ),
        ("iob2", "B-A I-B", 1, "tag 'I-B' continues a span that has not begun"),
        (
            "iob2",
            "S-A",
            0,
            "tag 'S-A' is not valid in IOB2, which has O, B-TYPE, I-TYPE; "
            "set tag_scheme: bioes, or correct the tag",
        ),
        (
            "iob2",
            "PER",
            0,
            "tag 'PER' has no prefix, and IOB2 has O, B-TYPE, I-TYPE; if it is a type, write I-PER "
            "in place of it and set tag_scheme: iob1 (the reader records can do so with names: "
            "{PER: I-PER} in its options;",
        ),
        (
            "iob2",
            "3",
            0,
            "tag '3' is a number, and IOB2 has O, B-TYPE, I-TYPE; give the tag of each class "
            'number with names in the options of the reader records: {"3": B-TYPE}; for other',
        ),
        ("iob1", "B-", 0, "tag 'B-' is not valid in IOB1"),
        ("iob2", "", 0, "tag '' is not valid in IOB2"),
        (
            "bioes",
            "B-A O",
            0,
            "the span of type 'A' does not end with E-A, as BIOES requires; "
            "correct the tag or the tag_scheme",
        ),
        ("bioes", "B-A", 0, "the span of type 'A' does not end with E-A"),
        ("bilou", "O L-A", 1, "tag 'L-A' continues a span that has not begun"),
    ],
)
def test_violations_are_reported_with_their_token(
    scheme: Scheme, tags: str, position: int, message: str
) -> None:
    _, errors = to_iob2(tags.split(" "), scheme)
    assert [error.position for error in errors] == [position]
    assert errors[0].message.startswith(message)


@pytest.mark.parametrize("tag", ["-PER", "BI-PER", "IB-PER"])
def test_prefix_must_be_a_letter_of_the_scheme(tag: str) -> None:
    assert [error.kind for error in to_iob2([tag], "iob2")[1]] == ["ill-formed-tag"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("(ORG* *) (GPE) * (A0*)", "B-ORG I-ORG B-GPE O B-A0"),
        ("(A0*) (A0*)", "B-A0 B-A0"),
        ("* *", "O O"),
    ],
)
def test_brackets_are_converted_to_iob2(cells: str, expected: str) -> None:
    assert to_iob2(cells.split(), "brackets") == (expected.split(), [])


@pytest.mark.parametrize(
    ("cells", "position", "kind"),
    [
        ("* -", 1, "ill-formed-bracket"),
        ("(A", 0, "ill-formed-bracket"),
        (")", 0, "ill-formed-bracket"),
        ("O", 0, "ill-formed-bracket"),
        ("* *)", 1, "ill-formed-bracket"),
        ("(A* (B*) *)", 1, "ill-formed-bracket"),
        ("* (A* *", 1, "unclosed-bracket"),
    ],
)
def test_invalid_brackets_are_reported_with_their_token(
    cells: str, position: int, kind: str
) -> None:
    _, errors = to_iob2(cells.split(), "brackets")
    assert [(error.position, error.kind) for error in errors] == [(position, kind)]


@settings(deadline=None)
@given(SPANS)
def test_all_schemes_give_the_same_iob2(spans: tuple[int, list[tuple[int, int, str]]]) -> None:
    for scheme in SCHEMES:
        assert to_iob2(to_tags(spans, scheme), scheme) == (to_tags(spans, "iob2"), [])


def scheme_of(*sentences: list[str]) -> Scheme:
    evidence = SchemeEvidence()
    for tags in sentences:
        evidence.add(tags)
    return evidence.scheme()


@settings(deadline=None)
@given(st.lists(SPANS, min_size=1, max_size=4), st.sampled_from(SCHEMES))
def test_any_span_identifies_the_scheme(
    sentences: list[tuple[int, list[tuple[int, int, str]]]], scheme: Scheme
) -> None:
    detected = scheme_of(*(to_tags(spans, scheme) for spans in sentences))
    if any(spans for _, spans in sentences):
        assert detected == scheme
    else:
        assert detected == ("brackets" if scheme == "brackets" else "iob2")


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O", "iob2"),
        ("*", "brackets"),
        ("PER O", "iob2"),
        ("B-A I-A O I-A O B-A I-A", "iob2"),  # the reader reports the orphan tag
        ("I-A O I-A O I-A O B-A", "iob1"),
        ("B-A E-A O S-A O B-A I-A O", "bioes"),  # one span is not closed
        ("U-A O S-A U-A", "bilou"),
    ],
)
def test_detected_scheme_has_the_fewest_violations(tags: str, scheme: Scheme) -> None:
    assert scheme_of(tags.split()) == scheme
