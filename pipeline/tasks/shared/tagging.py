"""Tasks that tag words: windows of words, and decoding to well-formed BIO tags."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Problems, describe, quantity
from pipeline.metrics.spans import spans
from pipeline.tasks.base.capabilities import (
    HasConfidence,
    HasUnits,
    Perturbable,
    ShowsSpans,
    TagsWords,
)
from pipeline.tasks.base.claims import CharacterSpans, Claim, Floats, softmax
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits, windows
from pipeline.tasks.base.row import TAG_PROBLEMS, Row
from pipeline.tasks.base.task import Task, is_text_list
from pipeline.tasks.shared.validation import check_sentence_length, check_words, label_hint

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

Tags = Sequence[Sequence[str]]
# Labels in a confusion table for a span without a counterpart of the same bounds.
NO_SPAN, OTHER_BOUNDS = "(none)", "(other words)"
Extents = tuple[tuple[int, int], ...]
"""The words [start, end) of each piece of a span."""


class Tagged(Protocol):
    """An example of T tokens with T tags in IOB2."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """T words."""

    @property
    def tags(self) -> tuple[str, ...]:
        """T tags, one for each word."""


class SpanOfWords(Protocol):
    """Words [start, end) of a sentence."""

    @property
    def start(self) -> int:
        """The index of the first word."""

    @property
    def end(self) -> int:
        """One more than the index of the last word."""


E = TypeVar("E", bound=Tagged)
R = TypeVar("R")
S = TypeVar("S", bound=SpanOfWords)


class TaggedSpan(NamedTuple):
    """Words [start, end) with a label. `score` is the minimum probability of their tags."""

    label: str
    start: int
    end: int
    score: float


class TaggingTask(
    Task[E, Tags, R],
    HasConfidence[E],
    HasUnits[E, Tags],
    Perturbable[E],
    TagsWords[E],
    ShowsSpans[E, R],
):
    """Predictions are tags in IOB2 (orphan I- tags allowed).

    They are one list per example, in the examples' order.
    """

    head = "classes"
    claim_and_decision_names = ("spans", "tags")
    claim_input = "tokens"
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    glossary: ClassVar[Mapping[str, str]] = {
        f"{OTHER_BOUNDS}, {NO_SPAN}": "In a confusion table: the span overlaps a span with other "
        "bounds, or it overlaps no span.",
    }
    pipeline_tag = "token-classification"

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels: required, unique, and without tag prefixes."""
        prefixed = [label for label in labels if label == "O" or label.startswith(("B-", "I-"))]
        return [
            *super().check_labels(labels),
            *(
                f"{label!r} is a tag, not a label; leave out O and the prefixes B- and I-"
                for label in prefixed
            ),
        ]

    @abstractmethod
    def marked_word(self, example: E) -> int | None:
        """The index of the word to mark in the input, such as a predicate. None: no mark."""

    def split_group(self, row: Row) -> str:
        """The sentence. Equal sentences, and all predicates of a sentence, go to the same split."""
        return " ".join(row["tokens"])

    def labels(self, example: E) -> Iterator[str]:
        """The label of each span."""
        return (tag[2:] for tag in example.tags if tag.startswith("B-"))

    def expected_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The recipe's labels."""
        return tuple(labels)

    def text(self, example: E) -> str:
        """The sentence."""
        return " ".join(example.tokens)

    def num_tokens(self, example: E) -> int:
        """The number of tokens. A sentence counts once for each of its predicates."""
        return len(example.tokens)

    def apply_edit(self, example: E, edit: Edit) -> E:
        """The sentence with each word edited separately. Tags stay with their words."""
        return self.with_tags(example, edit.words(example.tokens), example.tags)

    def with_tags(self, example: E, tokens: Sequence[str], tags: Sequence[str]) -> E:
        """The sentence with other tokens and their tags."""
        fields = {"tokens": tuple(tokens), "tags": tuple(tags)}
        changed: E = replace(example, **fields)  # type: ignore[type-var]
        return changed

    def shown_texts(self, example: E) -> tuple[str, ...]:
        """The tokens with spaces between them."""
        return (" ".join(example.tokens),)

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
        """Windows of words, as `word_features` makes them."""
        numbers = {name: number for number, name in enumerate(classes)}
        pieces = tokenizer.encode_words([example.tokens for example in examples])
        for number, (example, words) in enumerate(zip(examples, pieces, strict=True), first):
            tags = [numbers[tag] for tag in example.tags]
            yield from word_features(
                number,
                words,
                tags,
                tokenizer,
                max_length,
                stride,
                counts,
                self.marked_word(example),
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
        """The logits [T, K] of the T words."""
        return word_logits(window_logits)

    def decisions(
        self, example: E, prediction: Sequence[str], classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The tag [T] of each word, and whether it is right [T]."""
        return list(map(classes.index, prediction)), list(map(str.__eq__, prediction, example.tags))

    def claimed_spans(self, tags: Sequence[str]) -> dict[Extents, str]:
        """The labels of the tagged spans, by their bounds. Spans in the input are not claims."""
        return {((start, end),): label for label, start, end in spans(tags)}

    def claims(self, example: E, prediction: Sequence[str]) -> Iterator[Claim]:
        """The predicted spans, each compared with the annotated span of the same bounds.

        The gold label of a span without such a counterpart is OTHER_BOUNDS if it overlaps an
        annotated span, else NO_SPAN. Missed annotated spans follow.
        """
        gold, predicted = self.claimed_spans(example.tags), self.claimed_spans(prediction)
        bounds = token_bounds(example.tokens)
        for extents, label in predicted.items():
            gold_label = gold.get(extents) or _label_without_match(extents, gold)
            overlaps = _overlapping(extents, gold)
            expected = " / ".join(_span_text(example, gold, overlap) for overlap in overlaps)
            words = tuple(chain.from_iterable(range(*extent) for extent in extents))
            yield Claim(
                words,
                gold_label,
                label,
                expected or NO_SPAN,
                _span_text(example, predicted, extents),
                gold_label == label,
                _pieces_in_text(chain.from_iterable(overlaps), bounds),
                _pieces_in_text(extents, bounds),
            )
        for extents in sorted(gold.keys() - predicted.keys()):
            yield Claim(
                (),
                gold[extents],
                _label_without_match(extents, predicted),
                _span_text(example, gold, extents),
                "",
                False,
                _pieces_in_text(extents, bounds),
            )


def check_tokens(row: Row, problems: Problems) -> bool:
    """Whether a row has a list of at least one word. Adds a problem if not."""
    tokens = row["tokens"]
    if is_text_list(tokens) and tokens:
        return True
    problems.add(
        row["where"],
        f"tokens: found {describe(tokens)}, expected a list of one word or more; "
        'write e.g. ["Ada", "ran"], or remove the row',
        "wrong-type",
    )
    return False


def bio_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """O, then B-X and I-X for each label X, in order."""
    return ("O", *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def check_tags(row: Row, labels: Sequence[str], problems: Problems) -> bool:
    """Whether a row has tokens and one IOB2 tag for each, with labels of `labels`.

    Adds problems if not, also those of the reader; an unknown label is one problem per row.
    """
    before = len(problems)
    for kind, problem_where, message in row.get(TAG_PROBLEMS, ()):
        problems.add(problem_where, message, kind)
    tokens, tags, where = row["tokens"], row["tags"], row["where"]
    has_tokens = check_tokens(row, problems)
    if has_tokens and check_words(tokens, where, problems):
        check_sentence_length(tokens, where, problems)
    if not is_text_list(tags) or (has_tokens and len(tokens) != len(tags)):
        words = quantity(len(tokens), "token") if has_tokens else "no tokens"
        given = quantity(len(tags), "tag") if isinstance(tags, list | tuple) else "no list of tags"
        problems.add(
            where,
            f"{words} with {given}; each token needs one tag, and a sentence needs at "
            "least one token",
            "tag-count",
        )
        return False
    for tag in dict.fromkeys(tag for tag in tags if tag != "O" and tag[:2] not in ("B-", "I-")):
        problems.add(
            where,
            f"tag {tag!r} is not valid in IOB2, which has O, B-TYPE, I-TYPE; correct it",
            "ill-formed-tag",
        )
    if not has_tokens:
        return False
    unknown = {
        tag[2:]: position
        for position, tag in reversed(list(enumerate(tags)))
        if tag[:2] in ("B-", "I-") and tag[2:] not in labels
    }
    for label, position in sorted(unknown.items(), key=lambda item: item[1]):
        problems.add(
            where,
            f"token {position} {tokens[position]!r} has label {label!r}, which is not in the "
            f"recipe's labels ({', '.join(labels)}); {label_hint(label, labels)}",
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
    marked_word: int | None,
) -> Iterator[Feature]:
    """The windows of one sentence of T words.

    `pieces` [T] are the sub-words of each word, `tags` [T] the class numbers. The label of a word
    is at its first sub-word (causal backbone: at its last, whose state depends on the others).
    Exactly one window owns the word, so that no label is lost or counted twice. The word with the
    index `marked_word`, a predicate, is between two markers, which also work with backbones without
    token types. `counts` counts long words, split sentences and windows without their
    predicate.
    """
    marker = [] if marked_word is None else tokenizer.marker
    room = max_length - len(tokenizer.prefix) - len(tokenizer.suffix) - 2 * len(marker)
    sizes = list(map(len, pieces))
    if marked_word is None and sum(sizes) <= room:
        yield _one_window(number, pieces, tags, tokenizer)
        return
    counts["words cut"] += sum(size > room for size in sizes)
    sentence_windows = windows([min(size, room) for size in sizes], room, stride)
    counts["sentences in several windows"] += len(sentence_windows) > 1
    for window in sentence_windows:
        ids, positions = list(tokenizer.prefix), []
        for word in range(window.start, window.end):
            around = marker if word == marked_word else []
            piece = pieces[word][:room]
            ids += around
            positions.append(len(ids) + (len(piece) - 1) * tokenizer.causal)
            ids += piece + around
        if marked_word is not None and not window.start <= marked_word < window.end:
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


def _one_window(
    number: int, pieces: Sequence[list[int]], tags: Sequence[int], tokenizer: "Tokenizer"
) -> Feature:
    """The window of a short sentence without mark: a fast path of `word_features`."""
    ids = [*tokenizer.prefix, *chain.from_iterable(pieces), *tokenizer.suffix]
    ends = list(accumulate(map(len, pieces), initial=len(tokenizer.prefix)))
    return Feature(
        example=number,
        input_ids=ids,
        token_types=bytes(len(ids)),
        positions=[end - 1 for end in ends[1:]] if tokenizer.causal else ends[:-1],
        labels=tags,
        begins=range(len(tags)),
        ends=range(1, len(tags) + 1),
        label_count=len(tags),
    )


def word_logits(window_logits: Sequence[WindowLogits]) -> NDArray[np.float64]:
    """The logits [T, K] of all words, in order."""
    order = np.argsort(np.concatenate([window.begins for window in window_logits]), kind="stable")
    return np.concatenate([window.logits for window in window_logits])[order].astype(np.float64)


def decode_tags(window_logits: Sequence[WindowLogits], classes: Sequence[str]) -> list[str]:
    """The best well-formed BIO sequence [T] of a sentence, by the sum of its words' logits.

    The algorithm is Viterbi's. The sequence is also the best by log-probability, because the
    normalization of a word's logits adds the same constant to every sequence. I-X may follow only
    B-X or I-X; all other transitions are allowed. So the best predecessor of a tag is that of the
    greatest of three scores.
    """
    return [classes[number] for number in _best_path(word_logits(window_logits), classes)]


def decode_spans(
    window_logits: Sequence[WindowLogits], classes: Sequence[str], temperature: float = 1.0
) -> list[TaggedSpan]:
    """The spans of `decode_tags`, in order. `temperature` divides the logits for their scores."""
    logits = word_logits(window_logits)
    path = _best_path(logits, classes)
    probabilities = softmax(logits, temperature)[np.arange(len(path)), path]
    decoded: list[TaggedSpan] = []
    for word, number in enumerate(path):
        prefix, _, label = classes[number].partition("-")
        score = float(probabilities[word])
        if prefix == "B":
            decoded.append(TaggedSpan(label, word, word + 1, score))
        elif prefix == "I":
            decoded[-1] = decoded[-1]._replace(end=word + 1, score=min(decoded[-1].score, score))
    return decoded


def token_bounds(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """The characters [start, end) of each token, if spaces join the tokens."""
    ends = accumulate(map(len, tokens))
    return [
        (end + number - len(token), end + number)
        for number, (token, end) in enumerate(zip(tokens, ends, strict=True))
    ]


def in_text(span: S, text: str, bounds: Sequence[tuple[int, int]]) -> S:
    """A span of words with positions in the text. `bounds` has the characters of each word.

    `span` is a frozen dataclass with `start`, `end` and `text`.
    """
    start, end = bounds[span.start][0], bounds[span.end - 1][1]
    fields: dict[str, Any] = {"start": start, "end": end, "text": text[start:end]}
    placed: S = replace(span, **fields)  # type: ignore[type-var]
    return placed


def _pieces_in_text(
    pieces: Iterable[tuple[int, int]], bounds: Sequence[tuple[int, int]]
) -> CharacterSpans:
    return tuple((bounds[start][0], bounds[end - 1][1]) for start, end in pieces)


def _label_without_match(extents: Extents, labels: Mapping[Extents, str]) -> str:
    return OTHER_BOUNDS if _overlapping(extents, labels) else NO_SPAN


def _span_text(example: Tagged, labels: Mapping[Extents, str], extents: Extents) -> str:
    pieces = (" ".join(example.tokens[start:end]) for start, end in extents)
    return f"{labels[extents]}: {' … '.join(pieces)}"


def _overlapping(extents: Extents, labels: Mapping[Extents, str]) -> list[Extents]:
    return [other for other in labels if _overlap(extents, other)]


def _overlap(first: Extents, second: Extents) -> bool:
    return any(a[0] < b[1] and b[0] < a[1] for a in first for b in second)


def _is_well_formed(path: NDArray[np.int64], inside: NDArray[np.int64]) -> bool:
    """Whether each class of `inside`, the classes I-X, follows itself or the class before it."""
    previous = np.concatenate([[0], path[:-1]])
    allowed = (path == previous) | (path == previous + 1)
    return bool((allowed | ~np.isin(path, inside)).all())


def _best_path(scores: NDArray[np.float64], classes: Sequence[str]) -> list[int]:
    """The best sequence [T] for `scores` [T, K]. The class I-X directly follows B-X."""
    inside = np.array([number for number, name in enumerate(classes) if name.startswith("I-")])
    greedy = scores.argmax(axis=1)
    has_ties = np.count_nonzero(scores == scores.max(axis=1, keepdims=True)) > len(scores)
    if not has_ties and _is_well_formed(greedy, inside):  # All other sequences have smaller sums.
        return [int(number) for number in greedy]
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
