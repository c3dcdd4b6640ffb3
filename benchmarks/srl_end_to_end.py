"""F1 of semantic roles when the predicates are found too:

    python -m benchmarks.srl_end_to_end MODEL PREDICATE_MODEL [SENTENCES]

MODEL and PREDICATE_MODEL are artifacts of `propbank_ewt` and `propbank_ewt_predicates`, in a
project where both tasks are prepared. The first SENTENCES (default: all) of the test split are
predicted three times: with gold predicates, with found predicates, and from text (the tokens joined
as in English text) with found predicates. An argument is right if its predicate, its role and all
its pieces are, as in srl-eval; V does not count.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from pipeline.data.word_rules import Bounds, join_tokens
from pipeline.inference.loading import load
from pipeline.inference.predictor import Predictor
from pipeline.metrics import roles
from pipeline.metrics.base import Counts
from pipeline.metrics.spans import Span, spans
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.semantic_role_labeling import Structure
from stages.runtime.paths import EXAMPLES

SRL, PREDICATES = "propbank_ewt", "propbank_ewt_predicates"
COLUMNS = ("input", "predicates P", "R", "F1", "arguments P", "R", "F1")
Item = tuple[str, int, str, tuple[tuple[int, int], ...]]
"""A sentence, the first character of a predicate, a role, and the characters of its pieces. The
predicate itself has the role V and no pieces."""


def items_of(sentence: str, predicate: int, arguments: Iterable[Span]) -> Iterator[Item]:
    """The items of a predicate. A piece C-X continues the last X before it, as in srl-eval."""
    yield sentence, predicate, roles.PREDICATE_ROLE, ()
    pieces: list[tuple[str, list[tuple[int, int]]]] = []
    for label, start, end in arguments:
        role = label.removeprefix("C-")
        earlier = [bounds for other, bounds in pieces if other == role] if role != label else []
        if earlier:
            earlier[-1].append((start, end))
        elif role != roles.PREDICATE_ROLE:
            pieces.append((role, [(start, end)]))
    for role, bounds in pieces:
        yield sentence, predicate, role, tuple(bounds)


def in_characters(words: Iterable[Span], bounds: Bounds) -> Iterator[Span]:
    """Spans of words as spans of characters. `bounds` has the characters of each word."""
    return ((label, bounds[start][0], bounds[end - 1][1]) for label, start, end in words)


def score(gold: set[Item], predicted: set[Item]) -> list[float]:
    """Precision, recall and F1 of the predicates, then of the arguments."""
    scores = []
    for is_predicate in (True, False):
        expected, actual = (
            {item for item in items if (item[2] == roles.PREDICATE_ROLE) == is_predicate}
            for items in (gold, predicted)
        )
        values = Counts(len(expected & actual), len(actual), len(expected)).scores()
        scores += [values[name] for name in ("precision", "recall", "f1")]
    return scores


def sentence_of(id: str) -> str:
    """The id of the sentence of a predicate's example."""
    return id.rpartition("/")[0]


def measure(predictor: Predictor, sentences: Sequence[Any], predicates: Sequence[Any]) -> None:
    """Print one line per kind of input. `predicates` are the gold examples of the sentences."""
    joined = {sentence.id: join_tokens(sentence.tokens) for sentence in sentences}
    gold = set[Item]()
    for example in predicates:
        id, (_, bounds) = sentence_of(example.id), joined[sentence_of(example.id)]
        arguments = in_characters(spans(example.tags), bounds)
        gold.update(items_of(id, bounds[example.predicate][0], arguments))
    inputs = {
        "gold predicates": [
            {"id": sentence_of(one.id), "tokens": one.tokens, "predicate": one.predicate}
            for one in predicates
        ],
        "tokens": [{"id": one.id, "tokens": one.tokens} for one in sentences],
        "text": [{"id": one.id, "text": joined[one.id][0]} for one in sentences],
    }
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name, rows in inputs.items():
        predicted = set[Item]()
        for prediction in predictor.predict([{"task": SRL, **row} for row in rows]):
            id = str(prediction.id)
            structures = getattr(prediction.result, "structures", (prediction.result,))
            for structure in structures:
                word_bounds = None if name == "text" else joined[id][1]
                predicted.update(_predicted_items(id, structure, word_bounds))
        cells = (f"{value:.1f}" for value in score(gold, predicted))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _predicted_items(id: str, structure: Structure, bounds: Bounds | None) -> Iterator[Item]:
    """The items of a structure; with `bounds`, its positions are words, else characters."""
    arguments: Iterable[Span] = [(one.role, one.start, one.end) for one in structure.arguments]
    start = structure.start
    if bounds is not None:
        arguments, start = in_characters(arguments, bounds), bounds[structure.position][0]
    return items_of(id, start, arguments)


def main(model: str, predicate_model: str, count: int | None) -> None:
    """Load both artifacts, and print the table of the test split."""
    predictor = load({SRL: model, PREDICATES: predicate_model})
    finder, labeler = task_named("token_classification"), task_named("semantic_role_labeling")
    sentences = list(islice(read_examples(EXAMPLES / PREDICATES / "test.parquet", finder), count))
    ids = {sentence.id for sentence in sentences}
    predicates = read_examples(EXAMPLES / SRL / "test.parquet", labeler)
    selected = [example for example in predicates if sentence_of(example.id) in ids]
    print(f"{len(sentences):,} sentences, {len(selected):,} predicates\n")
    measure(predictor, sentences, selected)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
