"""Strict YAML: one error reports all mistakes, each with file, line or key, value and remedy."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pipeline.config import load_yaml, parse
from pipeline.errors import Problems, UserError, did_you_mean


@dataclass(frozen=True)
class Inner:
    depth: int
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"depth: {self.depth} is negative")


@dataclass(frozen=True)
class Settings:
    name: str
    rate: float
    inner: Inner
    mode: Literal["cap", "temperature"] = "cap"
    levels: tuple[int, ...] = ()
    limit: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    files: str | tuple[str, ...] = ""
    flag: bool = False


MODE = "params.yaml: train: mode"
VALID = {"name": "a", "rate": 1, "inner": {"depth": 2}}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "params.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems_of(values: object) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        parse(Settings, values, "params.yaml: train")
    return caught.value.problems


def test_valid_values_become_a_dataclass() -> None:
    values = VALID | {"levels": [1, 2], "sizes": {"a": 3}, "files": ["x", "y"], "limit": None}
    assert parse(Settings, values, "f") == Settings(
        "a", 1.0, Inner(2), levels=(1, 2), sizes={"a": 3}, files=("x", "y")
    )
    assert type(parse(Settings, VALID, "f").rate) is float
    assert parse(Settings, VALID | {"files": "x"}, "f").files == "x"


def test_exponent_without_point_is_a_number(tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, "a: 1e-4\nb: 1e-05\nc: 3.0e-2\n")) == {
        "a": 1e-4,
        "b": 1e-05,
        "c": 0.03,
    }


def test_no_and_on_are_text_as_in_yaml_1_2(tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, "a: no\nb: on\nc: true\n")) == {
        "a": "no",
        "b": "on",
        "c": True,
    }


def test_unknown_key_gets_a_suggestion() -> None:
    assert problems_of(VALID | {"levls": [1]}) == (
        "params.yaml: train: unknown key 'levls'; did you mean 'levels'?",
    )
    assert "use one of depth, rate" in problems_of(VALID | {"inner": {"depth": 1, "zzz": 0}})[0]


def test_missing_key_is_reported_with_its_type() -> None:
    assert problems_of({"rate": 1, "inner": {"depth": 1}}) == (
        "params.yaml: train: key 'name' is missing; add it (text)",
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", 3, "params.yaml: train: name: found an integer 3, expected text"),
        ("rate", "1e-4", "params.yaml: train: rate: found text '1e-4', expected a number"),
        ("rate", True, "params.yaml: train: rate: found true, expected a number"),
        ("rate", float("nan"), "params.yaml: train: rate: nan is not finite; give a finite number"),
        ("limit", 1.5, "params.yaml: train: limit: found a number 1.5, expected an integer"),
        ("limit", True, "params.yaml: train: limit: found true, expected an integer"),
        ("levels", "12", "params.yaml: train: levels: found text '12', expected a list"),
        ("levels", [1, "x"], "params.yaml: train: levels[1]: found text 'x', expected an integer"),
        ("sizes", {"a": "b"}, "params.yaml: train: sizes.a: found text 'b', expected an integer"),
        ("files", 3, "params.yaml: train: files: found an integer 3, expected text or a list"),
        ("flag", 1, "params.yaml: train: flag: found an integer 1, expected true or false"),
        (
            "inner",
            [],
            "params.yaml: train: inner: found a list [], expected a mapping of keys to values",
        ),
        ("inner", {"depth": -1}, "params.yaml: train: inner: depth: -1 is negative"),
        (
            "mode",
            "capp",
            f"{MODE}: 'capp' is not one of the allowed values (cap, temperature); "
            "did you mean 'cap'?",
        ),
        (
            "mode",
            ["cap"],
            f"{MODE}: ['cap'] is not one of the allowed values (cap, temperature); "
            "did you mean 'cap'?",
        ),
        ("mode", 7, f"{MODE}: 7 is not one of the allowed values; use one of cap, temperature"),
    ],
)
def test_wrong_value_is_reported_with_what_is_expected(
    key: str, value: object, message: str
) -> None:
    assert problems_of(VALID | {key: value}) == (message,)


def test_true_is_not_the_number_one() -> None:
    @dataclass(frozen=True)
    class Version:
        number: Literal[1, 2]

    with pytest.raises(UserError, match="True is not one of the allowed values; use one of 1, 2"):
        parse(Version, {"number": True}, "f")


def test_one_error_reports_all_problems() -> None:
    problems = problems_of({"name": 1, "rat": 2, "inner": {"depth": "x"}, "mode": "none"})
    assert len(problems) == 5
    text = "\n".join(problems)
    for part in ("unknown key 'rat'", "name: found", "'rate' is missing", "depth: found"):
        assert part in text
    assert "mode: 'none'" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: caf\xe9\n", ":2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        # libyaml, if it is installed (ruamel.yaml.clib), begins with "did not find".
        ("a: 1\nb: [1\n", r":3: not valid YAML: (did not find )?expected ',' or '\]'"),
        ("a: 1\na: 2\n", ':2: not valid YAML: found duplicate key "a"'),
        (
            "a: 1\nb: !!python/object:os.system x\n",
            ":2: not valid YAML: could not determine a constructor",
        ),
        ("a: 2001-13-45\n", ": not valid YAML: month must be in 1..12"),
        ("- 1\n", r": found a list \[1\], expected a mapping"),
        ("", ": found nothing, expected a mapping"),
    ],
)
def test_invalid_file_is_reported_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    assert re.match(f"{re.escape(str(path))}{message}", str(caught.value))


def test_missing_or_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"none\.yaml: no such file; create it, or correct the name"
    ):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)


def test_did_you_mean_suggests_the_closest_word() -> None:
    assert did_you_mean("squat", ["squad", "wnut"]) == "; did you mean 'squad'?"
    assert did_you_mean("x", []) == "; there are none to choose from"


def test_error_shows_a_limited_number_of_problems() -> None:
    problems = Problems(max_shown=2)
    problems.raise_if_any()
    for line in range(1, 6):
        problems.add(f"a.conll:{line}", "wrong; correct it", "tag")
    assert len(problems) == 5
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == (
        "a.conll:1: wrong; correct it",
        "a.conll:2: wrong; correct it",
        "a.conll:3: wrong; correct it",
        "and 2 more",
    ), "at least three of each kind"
