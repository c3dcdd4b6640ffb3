"""Schemes of tags: what is read as which span, what breaks a scheme, and which scheme tags are in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.readers.tags import SCHEMES, Scheme, SchemeEvidence, to_iob2
from tests.support.tags import SPANS, written


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("iob1", "I-A I-A B-A I-B O I-B", "B-A I-A B-A B-B O B-B"),
        ("iob2", "B-A I-A B-A B-B O B-B", "B-A I-A B-A B-B O B-B"),
        ("bioes", "B-A I-A E-A S-A S-A O S-creative-work", "B-A I-A I-A B-A B-A O B-creative-work"),
        ("bilou", "B-A I-A L-A U-A", "B-A I-A I-A B-A"),
    ],
)
def test_tag_schemes(scheme: Scheme, tags: str, expected: str) -> None:
    assert to_iob2(tags.split(), scheme) == (expected.split(), [])


@pytest.mark.parametrize(
    ("scheme", "tags", "position", "message"),
    [
        (
            "iob2",
            "O I-A",
            1,
            "tag 'I-A' continues a span that was not setup, which IOB2 does not allow; begin it with B-A, or set "
            "tag_scheme: iob1 if the file is IOB1",
        ),
        ("iob2", "B-A I-B", 1, "tag 'I-B' continues a span that was not setup"),
        (
            "iob2",
            "S-A",
            0,
            "tag 'S-A' is not IOB2, which has O, B-TYPE, I-TYPE; correct the tag, or the recipe's tag_scheme",
        ),
        ("iob2", "PER", 0, "tag 'PER' is not IOB2"),
        ("iob1", "B-", 0, "tag 'B-' is not IOB1"),
        ("iob2", "", 0, "tag '' is not IOB2"),
        (
            "bioes",
            "B-A O",
            0,
            "the span of type 'A' is not ended by E-A, as BIOES does; correct the tag or the tag_scheme",
        ),
        ("bioes", "B-A", 0, "the span of type 'A' is not ended by E-A"),
        ("bilou", "O L-A", 1, "tag 'L-A' continues a span that was not setup"),
    ],
)
def test_broken_tags(scheme: Scheme, tags: str, position: int, message: str) -> None:
    _, wrong = to_iob2(tags.split(" "), scheme)
    assert [where for where, _, _ in wrong] == [position]
    assert wrong[0].message.startswith(message)


@pytest.mark.parametrize("tag", ["-PER", "BI-PER", "IB-PER"])
def test_a_prefix_is_one_of_the_schemes_letters(tag: str) -> None:
    assert [one.kind for one in to_iob2([tag], "iob2")[1]] == ["ill-formed-tag"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("(ORG* *) (GPE) * (A0*)", "B-ORG I-ORG B-GPE O B-A0"),
        ("(A0*) (A0*)", "B-A0 B-A0"),
        ("* *", "O O"),
    ],
)
def test_brackets(cells: str, expected: str) -> None:
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
def test_broken_brackets(cells: str, position: int, kind: str) -> None:
    assert [(wrong.position, wrong.kind) for wrong in to_iob2(cells.split(), "brackets")[1]] == [
        (position, kind)
    ]


@settings(deadline=None)
@given(SPANS)
def test_all_schemes_say_the_same(spans: tuple[int, list[tuple[int, int, str]]]) -> None:
    for scheme in SCHEMES:
        assert to_iob2(written(spans, scheme), scheme) == (written(spans, "iob2"), [])


def scheme_of(*sentences: list[str]) -> Scheme:
    evidence = SchemeEvidence()
    for tags in sentences:
        evidence.see(tags)
    return evidence.scheme()


@settings(deadline=None)
@given(st.lists(SPANS, min_size=1, max_size=4), st.sampled_from(SCHEMES))
def test_a_scheme_is_told_by_any_span(
    sentences: list[tuple[int, list[tuple[int, int, str]]]], scheme: Scheme
) -> None:
    found = scheme_of(*(written(spans, scheme) for spans in sentences))
    if any(spans for _, spans in sentences):
        assert found == scheme
    else:  # no span in any scheme
        assert found == ("brackets" if scheme == "brackets" else "iob2")


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O", "iob2"),
        ("*", "brackets"),
        ("PER O", "iob2"),
        (
            "B-A I-A O I-A O B-A I-A",
            "iob2",
        ),  # one orphan among more spans is a mistake, which reading reports
        ("I-A O I-A O I-A O B-A", "iob1"),
        ("B-A E-A O S-A O B-A I-A O", "bioes"),  # one span is not closed
        ("U-A O S-A U-A", "bilou"),
    ],
)
def test_what_fits_best(tags: str, scheme: Scheme) -> None:
    assert scheme_of(tags.split()) == scheme
