"""benchmarks/srl_end_to_end: a role is right if predicate, span and label are."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.srl_end_to_end import items_of, measure, score
from pipeline.data.word_rules import join_tokens
from pipeline.inference.predictor import Predictor
from pipeline.metrics.spans import spans
from pipeline.tasks.semantic_role_labeling import Argument, Example, Structure, Structures

TOKENS = ("Ada", "did", "n't", "go", ",", "I", "think", ".")
GO = Example("d/1/0", TOKENS, 3, ("B-A0", "B-AM", "B-NEG", "B-V", "O", "O", "O", "O"))
THINK = Example("d/1/1", TOKENS, 6, ("B-A1", "I-A1", "I-A1", "I-A1", "O", "B-A0", "B-V", "O"))
WRONG = Example("d/1/1", TOKENS, 6, ("B-A1", "I-A1", "O", "O", "O", "B-A0", "B-V", "O"))
LATE = Example("d/1/1", TOKENS, 5, ("O", "O", "O", "O", "O", "B-V", "O", "B-A2"))


class FakePredictor:
    """Predicts the annotation of some examples."""

    def __init__(self, *examples: Example) -> None:
        self.examples = examples

    def predict(self, rows: list[dict[str, Any]]) -> Any:
        for row in rows:
            words = [(number, number + 1) for number in range(len(TOKENS))]
            bounds = join_tokens(TOKENS)[1] if "text" in row else words
            found = tuple(structure(example, bounds) for example in self.examples)
            named = [one for one in found if one.position == row.get("predicate")]
            yield SimpleNamespace(id=row["id"], result=named[0] if named else Structures(found))


def structure(example: Example, bounds: list[tuple[int, int]]) -> Structure:
    arguments = (
        Argument(label, bounds[start][0], bounds[end - 1][1], "", 1.0)
        for label, start, end in spans(example.tags)
        if label != "V"
    )
    position = example.predicate
    return Structure(TOKENS[position], position, *bounds[position], tuple(arguments))


@pytest.mark.parametrize(
    ("predicted", "predicates", "arguments"),
    [
        ([GO, THINK], "100.0 | 100.0 | 100.0", "100.0 | 100.0 | 100.0"),
        ([GO], "100.0 | 50.0 | 66.7", "100.0 | 60.0 | 75.0"),
        ([GO, WRONG], "100.0 | 100.0 | 100.0", "80.0 | 80.0 | 80.0"),
        ([GO, LATE], "50.0 | 50.0 | 50.0", "75.0 | 60.0 | 66.7"),
    ],
)
def test_scores_from_tokens_and_text(
    predicted: list[Example], predicates: str, arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = cast(Predictor, FakePredictor(*predicted))
    measure(predictor, [SimpleNamespace(id="d/1", tokens=TOKENS)], [GO, THINK])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == [f"| {name} | {predicates} | {arguments} |" for name in ("tokens", "text")]


def test_all_pieces_of_an_argument_must_be_right() -> None:
    gold = set(items_of("s", 3, [("A0", 0, 2), ("V", 3, 4), ("C-A0", 5, 6), ("C-A1", 7, 8)]))
    assert gold == {("s", 3, "V", ()), ("s", 3, "A0", ((0, 2), (5, 6))), ("s", 3, "A1", ((7, 8),))}
    assert score(gold, set(items_of("s", 3, [("A0", 0, 2)])))[3:] == [0.0, 0.0, 0.0]
