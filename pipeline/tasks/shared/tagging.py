"""What tasks that tag words share: windows of words, and decoding that cannot leave BIO."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Problems
from pipeline.metrics.spans import spans
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, Perturbable, TagsWords
from pipeline.tasks.base.claims import Claim, Floats, softmax
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits, windows
from pipeline.tasks.base.row import Row
from pipeline.tasks.base.task import Task, is_text_list
from pipeline.tasks.shared.validation import check_words

if TYPE_CHECKING:  # for its type only: preparing a corpus needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

Tags = Sequence[Sequence[str]]
NONE, OTHER_EXTENT = (
    "(none)",
    "(other words)",
)  # what a span is beside, where there is none of the same words
Extents = tuple[tuple[int, int], ...]
"""Words [start, end) of each piece."""


class Tagged(Protocol):
    """An example of T tokens with T tags in IOB2."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Words."""

    @property
    def tags(self) -> tuple[str, ...]:
        """One for each word."""


E = TypeVar("E", bound=Tagged)
R = TypeVar("R")


class TaggedSpan(NamedTuple):
    """Words [start, end) with a label. `score` is the least probability that the model gives one of its tags."""

    label: str
    start: int
    end: int
    score: float


class TaggingTask(
    Task[E, Tags, R], HasConfidence[E], HasUnits[E, Tags], Perturbable[E], TagsWords[E]
):
    """Predictions are tags in IOB2 (orphan I- tags allowed), one list per example in the examples' order."""

    head = "classes"
    claim_and_decision_names = ("spans", "tags")
    metric_names = ("f1", "precision", "recall")
    glossary: ClassVar[Mapping[str, str]] = {
        f"{OTHER_EXTENT}, {NONE}": "In a table of confusion: the span overlaps one with other "
        "limits, or there is no span.",
    }
    pipeline_tag = "token-classification"

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """There are some, each once, and none is a tag."""
        prefixed = [label for label in labels if label == "O" or label.startswith(("B-", "I-"))]
        return [
            *super().check_labels(labels),
            *(
                f"{label!r} is a tag, not a label; leave out O and the prefixes B- and I-"
                for label in prefixed
            ),
        ]

    @abstractmethod
    def marked(self, example: E) -> int | None:
        """The word that the model must be shown, if there is one: the predicate of a proposition."""

    def split_group(self, row: Row) -> str:
        """The sentence's words: equal sentences, and all predicates of one, stay together."""
        return " ".join(row["tokens"])

    def labels(self, example: E) -> Iterator[str]:
        """The label of each span."""
        return (tag[2:] for tag in example.tags if tag.startswith("B-"))

    def text(self, example: E) -> str:
        """The sentence."""
        return " ".join(example.tokens)

    def num_tokens(self, example: E) -> int:
        """Its tokens; a sentence counts once for each of its predicates."""
        return len(example.tokens)

    def apply_edit(self, example: E, edit: Edit) -> E:
        """Its words changed one by one: tags stay with them."""
        return self.with_tags(example, edit.words(example.tokens), example.tags)

    def with_tags(self, example: E, tokens: Sequence[str], tags: Sequence[str]) -> E:
        """The sentence with other words and their tags."""
        words = {"tokens": tuple(tokens), "tags": tuple(tags)}
        changed: E = replace(example, **words)  # type: ignore[type-var]
        return changed

    def featurize(
        self,
        examples: Sequence[E],
        first: int,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        max_length: int,
        stride: int,
        counts: Counter[str],
    ) -> Iterator[Feature]:
        """Windows of words."""
        numbers = {name: number for number, name in enumerate(classes)}
        pieces = tokenizer.words([example.tokens for example in examples])
        for number, (example, words) in enumerate(zip(examples, pieces, strict=True), first):
            tags = [numbers[tag] for tag in example.tags]
            yield from word_features(
                number, words, tags, tokenizer, max_length, stride, counts, self.marked(example)
            )

    def decode(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> list[str]:
        """The best well-formed IOB2 tags of the whole sentence."""
        return decode_tags(window_logits, classes)

    def predictions(
        self, examples: Sequence[E], decoded: Tags, thresholds: Mapping[str, float]
    ) -> Tags:
        """The decoded tags."""
        return decoded

    def decision_logits(
        self, example: E, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """Those of each word."""
        return _word_logits(window_logits)

    def decisions(
        self, example: E, prediction: Sequence[str], classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """A tag for each word."""
        return list(map(classes.index, prediction)), list(map(str.__eq__, prediction, example.tags))

    def said(self, tags: Sequence[str]) -> dict[Extents, str]:
        """Where tags put something, of what the model is not told, and its label."""
        return {((start, end),): label for label, start, end in spans(tags)}

    def claims(self, example: E, prediction: Sequence[str]) -> Iterator[Claim]:
        """What is said; what is not in the annotation with just these words may overlap something there, or may not."""
        gold, found = self.said(example.tags), self.said(prediction)
        for extents, label in found.items():
            there = gold.get(extents) or _elsewhere(extents, gold)
            expected = " / ".join(_words(example, gold, one) for one in _overlapping(extents, gold))
            words = tuple(chain.from_iterable(range(*extent) for extent in extents))
            yield Claim(
                words,
                there,
                label,
                expected or NONE,
                _words(example, found, extents),
                there == label,
            )
        for extents in sorted(gold.keys() - found.keys()):
            yield Claim(
                (),
                gold[extents],
                _elsewhere(extents, found),
                _words(example, gold, extents),
                "",
                False,
            )


def check_tokens(row: Row, problems: Problems) -> bool:
    """Whether a user's row has a list of words, at least one; a problem is added where not."""
    tokens = row["tokens"]
    if is_text_list(tokens) and tokens:
        return True
    problems.add(
        row["where"],
        f"tokens: found {type(tokens).__name__} {str(tokens)[:40]!r}, expected a list of one word or more",
        "wrong-type",
    )
    return False


def bio_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """O, then B-X and I-X for each label X in order."""
    return ("O", *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def check_tags(row: Row, labels: Sequence[str], problems: Problems) -> bool:
    """Whether a row has tokens, one tag for each, and only tags of `labels`; problems are added where not, one a label."""
    before = len(problems)
    tokens, tags, where = row["tokens"], row["tags"], row["where"]
    if not check_tokens(row, problems) or not check_words(tokens, where, problems):
        return False
    if not is_text_list(tags) or len(tokens) != len(tags):
        count = len(tags) if isinstance(tags, list | tuple) else "no list of"
        problems.add(
            where,
            f"{len(tokens)} tokens with {count} tags; each token needs one tag, and a sentence a token",
            "tag-count",
        )
        return False
    odd = [tag for tag in tags if tag != "O" and tag[:2] not in ("B-", "I-")]
    if odd:
        problems.add(
            where,
            f"tag {odd[0]!r} is not IOB2, which has O, B-TYPE and I-TYPE; correct it",
            "ill-formed-tag",
        )
        return False
    unknown = {
        tag[2:]: position
        for position, tag in reversed(list(enumerate(tags)))
        if tag != "O" and tag[2:] not in labels
    }
    for label, position in sorted(unknown.items(), key=lambda item: item[1]):
        problems.add(
            where,
            f"token {position} {tokens[position]!r} has tag {tags[position]!r}, whose label {label!r} is not "
            f"in the recipe's labels ({', '.join(labels)}); add it there, or correct the tag",
            "unknown-label",
        )
    return len(problems) == before


def word_features(
    number: int,
    pieces: list[list[int]],
    tags: Sequence[int],
    tokenizer: "Tokenizer",
    max_length: int,
    stride: int,
    counts: Counter[str],
    marked: int | None,
) -> Iterator[Feature]:
    """The windows of one sentence: `pieces` are the sub-words of its words, `tags` their class numbers.

    A word's label is read at its first sub-word (a causal backbone's: its last, which knows the others), in the one window that
    owns it, so none is lost or counted twice. The word number `marked` (a predicate) stands between two markers, which any
    backbone can read, whatever token types it has.
    """
    marker = [] if marked is None else tokenizer.marker
    room = max_length - len(tokenizer.prefix) - len(tokenizer.suffix) - 2 * len(marker)
    sizes = list(map(len, pieces))
    if marked is None and sum(sizes) <= room:  # the most frequent case, by the same rules
        ids = [*tokenizer.prefix, *chain.from_iterable(pieces), *tokenizer.suffix]
        ends = list(accumulate(sizes, initial=len(tokenizer.prefix)))
        words = range(len(tags))
        yield Feature(
            number,
            ids,
            bytes(len(ids)),
            [end - 1 for end in ends[1:]] if tokenizer.causal else ends[:-1],
            tags,
            words,
            range(1, len(tags) + 1),
            len(tags),
        )
        return
    counts["words cut (their first sub-words stay)"] += sum(size > room for size in sizes)
    cut = windows([min(size, room) for size in sizes], room, stride)
    counts["sentences in several windows"] += len(cut) > 1
    for window in cut:
        ids, positions = list(tokenizer.prefix), []
        for word in range(window.start, window.end):
            around = marker if word == marked else []
            piece = pieces[word][:room]
            ids += around
            positions.append(len(ids) + (len(piece) - 1) * tokenizer.causal)
            ids += piece + around
        if marked is not None and not window.start <= marked < window.end:
            counts["windows without their predicate"] += 1
        owned = slice(window.owned_start - window.start, window.owned_end - window.start)
        words = range(window.owned_start, window.owned_end)
        ids += tokenizer.suffix
        yield Feature(
            example=number,
            input_ids=ids,
            token_types=[0] * len(ids),
            positions=positions[owned],
            labels=[tags[word] for word in words],
            begins=words,
            ends=[word + 1 for word in words],
            label_count=len(words),
        )


def decode_tags(window_logits: Sequence[WindowLogits], classes: Sequence[str]) -> list[str]:
    """The best well-formed BIO sequence for a whole sentence, by the sum of its words' logits (Viterbi).

    That is also the best by log-probability: normalizing a word's logits adds the same to every sequence.

    I-X may only follow B-X or I-X; every other step is free, so a word's best predecessor is one of three scores.
    """
    return [classes[number] for number in _path(_word_logits(window_logits), classes)]


def decode_spans(
    window_logits: Sequence[WindowLogits], classes: Sequence[str], temperature: float = 1.0
) -> list[TaggedSpan]:
    """The spans of `decode_tags`, in order; `temperature` is for their scores."""
    logits = _word_logits(window_logits)
    path = _path(logits, classes)
    chances = softmax(logits, temperature)[np.arange(len(path)), path]
    found: list[TaggedSpan] = []
    for word, number in enumerate(path):
        prefix, _, label = classes[number].partition("-")
        score = float(chances[word])
        if prefix == "B":
            found.append(TaggedSpan(label, word, word + 1, score))
        elif prefix == "I":
            found[-1] = found[-1]._replace(end=word + 1, score=min(found[-1].score, score))
    return found


def _elsewhere(extents: Extents, found: Mapping[Extents, str]) -> str:
    return OTHER_EXTENT if _overlapping(extents, found) else NONE


def _words(example: Tagged, found: Mapping[Extents, str], extents: Extents) -> str:
    return f"{found[extents]}: {' … '.join(' '.join(example.tokens[slice(*extent)]) for extent in extents)}"


def _overlapping(extents: Extents, found: Mapping[Extents, str]) -> list[Extents]:
    return [
        other for other in found if any(a[0] < b[1] and b[0] < a[1] for a in extents for b in other)
    ]


def _word_logits(window_logits: Sequence[WindowLogits]) -> NDArray[np.float64]:
    """The logits of all words [T, K], in order."""
    order = np.argsort(np.concatenate([window.begins for window in window_logits]), kind="stable")
    return np.concatenate([window.logits for window in window_logits])[order].astype(np.float64)


def _path(scores: NDArray[np.float64], classes: Sequence[str]) -> list[int]:
    """`scores` [T, K]; an I-X is the class after its B-X."""
    inside = np.array([number for number, name in enumerate(classes) if name.startswith("I-")])
    steps, size = scores.shape
    back = np.zeros((steps, size), dtype=np.int64)
    best = scores[0].copy()
    best[inside] = -np.inf
    for step in range(1, steps):
        top = int(best.argmax())
        source = np.full(size, top)
        source[inside] = np.where(best[inside] >= best[inside - 1], inside, inside - 1)
        back[step] = source
        best = best[source] + scores[step]
    path = [int(best.argmax())]
    for step in range(steps - 1, 0, -1):
        path.append(int(back[step, path[-1]]))
    return path[::-1]
