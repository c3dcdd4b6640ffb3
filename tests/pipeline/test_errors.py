import pytest

from pipeline.errors import describe


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing"),
        (True, "true"),
        (3, "an integer 3"),
        (0.5, "a number 0.5"),
        ("Ada", "text 'Ada'"),
        ("", "text ''"),
        ("x" * 41, f"text '{'x' * 40}...'"),
        (["a", 1], "a list ['a', 1]"),
        ({"a": None}, "a mapping {'a': None}"),
        (list(range(100)), "a list [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1..."),
        (b"x", "bytes b'x'"),
    ],
)
def test_values_are_described_in_the_words_of_their_files(value: object, expected: str) -> None:
    assert describe(value) == expected
