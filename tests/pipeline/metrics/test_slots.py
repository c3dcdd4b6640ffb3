"""Slot errors of texts for meaning representations of E2E."""

import pytest

from pipeline.metrics.slots import parse_slots, slot_errors

MR = (
    "name[The Mill], eatType[pub], food[French], priceRange[less than £20], "
    "customer rating[5 out of 5], area[riverside], familyFriendly[no], near[Café Rouge]"
)
RIGHT = (
    "The Mill is a pub near Café Rouge by the river. It serves French food for under £20, is rated "
    "5 out of 5 and is not family-friendly."
)


def errors(mr: str, text: str) -> tuple[float, ...]:
    counts = slot_errors([mr], [text])
    return tuple(counts[f"slots_{kind}"] for kind in ("missing", "wrong", "added"))


def test_slots_are_parsed() -> None:
    assert parse_slots("name[Blue Spice], customer rating[5 out of 5]") == {
        "name": "Blue Spice",
        "customer rating": "5 out of 5",
    }
    for text in ("", "Blue Spice", "name[Blue Spice] is", "name[a]b[c]", "name[[a]]"):
        assert parse_slots(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT, (0, 0, 0)),
        (RIGHT.replace("under £20", "less than £ 20").lower(), (0, 0, 0)),
        (RIGHT.replace("French food", "food"), (1, 0, 0)),
        (RIGHT.replace("French", "Italian"), (0, 1, 0)),
        (RIGHT.replace("not family-friendly", "family-friendly"), (0, 1, 0)),
        (RIGHT.replace("near Café Rouge ", ""), (1, 0, 0)),
        (RIGHT.replace("pub", "restaurant").replace("5 out of 5", "1 out of 5"), (0, 2, 0)),
        ("", (8, 0, 0)),
    ],
)
def test_missing_and_wrong_values_are_counted(text: str, expected: tuple[int, ...]) -> None:
    assert errors(MR, text) == expected
    assert slot_errors([MR], [text])["slot_error_rate"] == pytest.approx(100 * sum(expected) / 8)


def test_values_of_absent_slots_are_added() -> None:
    mr = "name[Aromi], near[Café Rouge]"
    assert errors(mr, "Aromi is near Café Rouge.") == (0, 0, 0), "the name has no value of eatType"
    assert errors(mr, "Aromi is a cheap pub near Café Rouge.") == (0, 0, 2)


def test_the_rate_is_over_the_slots_of_all_texts() -> None:
    mr = "name[Aromi], eatType[pub]"
    counts = slot_errors([mr, mr], ["Aromi is a pub.", "Aromi."])
    assert counts == {
        "slot_error_rate": 25.0,
        "slots_missing": 1,
        "slots_wrong": 0,
        "slots_added": 0,
        "slots": 4,
    }


def test_other_sources_have_no_slots() -> None:
    assert slot_errors([MR, "Aarhus : country : Denmark"], ["", ""]) == {}
    assert slot_errors([], []) == {}
