"""Scores of generated texts against several references each, as the E2E scorer computes them.

BLEU is sacrebleu's. NIST follows mteval-v13a (Doddington 2002), ROUGE-L (Lin 2004) and CIDEr
(Vedantam et al. 2015) the captioning scorer of COCO, which the E2E scorer calls. METEOR is left
out: it needs a Java program. All scores ignore case.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.metrics.base import Formula, Metrics, UnitCounts, sum_by_unit
from pipeline.metrics.slots import errors_by_text, slot_errors

References = Sequence[Sequence[str]]
"""The references of each text."""
_NGram = tuple[str, ...]

TITLES: Mapping[str, str] = {
    "bleu": "BLEU",
    "nist": "NIST",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "slot_error_rate": "slot error rate",
}
GLOSSARY: Mapping[str, str] = {
    "BLEU, ROUGE-L": (
        "Overlap with the references, 0–100. BLEU is sacrebleu's (13a tokens, lower case), over "
        "the whole test set. ROUGE-L is the mean F of the longest common subsequence."
    ),
    "NIST, CIDEr": (
        "Overlap with the references, weighted by how informative an n-gram is. They have no upper "
        "limit of 100: NIST is around 8, CIDEr around 2, on E2E."
    ),
    "slot error rate": (
        "Values of the meaning representation that the text misses, adds or gets wrong, in percent "
        "of its slots; lower is better. Only for sources in the notation of E2E."
    ),
}

_NIST_ORDER = 5
# The length penalty of NIST is 0.5 for texts of 2/3 of the length of the references.
_NIST_BETA = math.log(0.5) / math.log(1.5) ** 2
_ROUGE_BETA = 1.2  # weights recall
_CIDER_ORDER, _CIDER_SIGMA = 4, 6.0


def score(
    sources: Sequence[str],
    references: References,
    predictions: Sequence[str],
    subsets: Sequence[str] = (),
) -> Metrics:
    """All scores, BLEU of each subset if there are several, and slot errors if sources have slots.

    `subsets` has the name of the subset of each text.
    """
    if not predictions:
        return Metrics({**dict.fromkeys(("bleu", "nist", "rouge_l", "cider"), 0.0), "texts": 0}, {})
    mteval_words = [_mteval_words(text) for text in predictions]
    mteval_references = [[_mteval_words(text) for text in texts] for texts in references]
    words = [_caption_words(text) for text in predictions]
    word_references = [[_caption_words(text) for text in texts] for texts in references]
    overall = {
        "bleu": bleu(predictions, references),
        "nist": nist(mteval_words, mteval_references),
        "rouge_l": 100 * float(np.mean(list(map(rouge_l, words, word_references)))),
        "cider": cider(words, word_references),
        "texts": len(predictions),
        "empty": sum(not text for text in predictions),
    }
    names = sorted({*subsets})
    for name in names if len(names) > 1 else ():
        rows = [row for row, subset in enumerate(subsets) if subset == name]
        overall[f"bleu_{name or 'other'}"] = bleu(
            [predictions[row] for row in rows], [references[row] for row in rows]
        )
    return Metrics(overall | slot_errors(sources, predictions), {})


def counts(
    ids: Sequence[str], sources: Sequence[str], references: References, predictions: Sequence[str]
) -> UnitCounts:
    """The counts of each text for ROUGE-L, and for the slot error rate if there are slots.

    BLEU, NIST and CIDEr are not functions of sums over texts.
    """
    columns = {
        "rouge_l": [
            rouge_l(_caption_words(text), [_caption_words(reference) for reference in texts])
            for text, texts in zip(predictions, references, strict=True)
        ],
        "texts": [1.0] * len(predictions),
    }
    formulas: dict[str, Formula] = {"rouge_l": (("rouge_l", "texts"),)}
    if by_text := errors_by_text(sources, predictions):
        columns |= {
            "slot_errors": [float(sum(text.values()) - text["slots"]) for text in by_text],
            "slots": [float(text["slots"]) for text in by_text],
        }
        formulas["slot_error_rate"] = (("slot_errors", "slots"),)
    return sum_by_unit(ids, columns, formulas)


def bleu(predictions: Sequence[str], references: References) -> float:
    """BLEU-4 in percent, by sacrebleu: 13a tokens in lower case, any number of references."""
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415  (slow, and only this function needs it)

    max_references = max(map(len, references))
    streams: Any = [  # its type is wrong: None stands for no reference
        [texts[number] if number < len(texts) else None for texts in references]
        for number in range(max_references)
    ]
    return float(BLEU(lowercase=True).corpus_score(list(predictions), streams).score)


def _mteval_words(text: str) -> list[str]:
    """The words of mteval-v13a, in lower case."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # noqa: PLC0415

    tokenize: Any = Tokenizer13a  # it is not typed
    words: str = tokenize()(text.lower())
    return words.split()


def _ngrams(words: Sequence[str], order: int) -> Counter[_NGram]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def nist(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[list[str]]]) -> float:
    """NIST-5 of texts as words. The weights of n-grams come from all references."""
    counts: Counter[_NGram] = Counter()
    for texts in references:
        for text in texts:
            counts[()] += len(text)
            for order in range(1, _NIST_ORDER + 1):
                counts.update(_ngrams(text, order))
    total = 0.0
    for order in range(1, _NIST_ORDER + 1):
        information = num_ngrams = 0.0
        for prediction, texts in zip(predictions, references, strict=True):
            ngrams = _ngrams(prediction, order)
            allowed: Counter[_NGram] = Counter()
            for reference in texts:
                allowed |= _ngrams(reference, order)
            information += sum(
                count * math.log2(counts[ngram[:-1]] / counts[ngram])
                for ngram, count in (ngrams & allowed).items()
            )
            num_ngrams += max(0, len(prediction) - order + 1)
        total += information / max(1.0, num_ngrams)
    length = sum(map(len, predictions))
    reference_length = sum(float(np.mean([len(text) for text in texts])) for texts in references)
    return total * _nist_penalty(length / max(1.0, reference_length))


def _nist_penalty(ratio: float) -> float:
    if ratio >= 1:
        return 1.0
    return math.exp(_NIST_BETA * math.log(ratio) ** 2) if ratio > 0 else 0.0


# Signs that the scorer removes. It calls the tokenizer of Stanford's parser, a Java program; these
# rules give the same words on plain English text.
_SIGNS = frozenset(".?!,:;-`'\"()[]{}") | {"--", "...", "''", "``"}
_WORD = re.compile(r"n't|'\w+|\d+(?:[.,]\d+)+|\w+(?:[-.]\w+)*|\S")
_CONTRACTION = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b")


def _caption_words(text: str) -> list[str]:
    """Words in lower case without punctuation, by the rules of the Penn Treebank."""
    spaced = _CONTRACTION.sub(r" \1", text.lower().replace("’", "'"))
    return [word for word in _WORD.findall(spaced) if word not in _SIGNS]


def rouge_l(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of a text as words: F of the best precision and the best recall (0 to 1)."""
    common = [_common_length(prediction, reference) for reference in references]
    precision = max(common) / max(1, len(prediction))
    recall = max(
        length / max(1, len(reference))
        for length, reference in zip(common, references, strict=True)
    )
    if not precision or not recall:
        return 0.0
    weight = _ROUGE_BETA**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        new = [0]
        for number, (before, after) in enumerate(pairwise(lengths)):
            new.append(before + 1 if word == second[number] else max(after, new[-1]))
        lengths = new
    return lengths[-1]


def cider(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[list[str]]]) -> float:
    """CIDEr-D of texts as words, times 10: the mean cosine of tf-idf vectors of n-grams.

    An n-gram counts at most as often as in the reference, and texts of other lengths score lower.
    """
    frequencies: Counter[_NGram] = Counter()
    for texts in references:
        frequencies.update({ngram for text in texts for ngram in _all_ngrams(text)})
    size = math.log(len(references))

    def weights(text: Sequence[str]) -> list[dict[_NGram, float]]:
        return [
            {
                ngram: count * (size - math.log(max(1, frequencies[ngram])))
                for ngram, count in _ngrams(text, order).items()
            }
            for order in range(1, _CIDER_ORDER + 1)
        ]

    scores = []
    for prediction, texts in zip(predictions, references, strict=True):
        vectors = weights(prediction)
        similarities = [
            float(np.mean(list(map(_cosine, vectors, weights(text)))))
            * math.exp(-((_pairs(prediction) - _pairs(text)) ** 2) / (2 * _CIDER_SIGMA**2))
            for text in texts
        ]
        scores.append(10 * float(np.mean(similarities)))
    return float(np.mean(scores))


def _all_ngrams(text: Sequence[str]) -> list[_NGram]:
    return [ngram for order in range(1, _CIDER_ORDER + 1) for ngram in _ngrams(text, order)]


def _pairs(text: Sequence[str]) -> int:
    """The length of a text as the scorer counts it: its pairs of adjacent words."""
    return max(0, len(text) - 1)


def _cosine(prediction: Mapping[_NGram, float], reference: Mapping[_NGram, float]) -> float:
    product = sum(
        min(weight, reference[ngram]) * reference[ngram]
        for ngram, weight in prediction.items()
        if ngram in reference
    )
    norms = [
        math.sqrt(sum(weight**2 for weight in vector.values()))
        for vector in (prediction, reference)
    ]
    return product / (norms[0] * norms[1]) if all(norms) else product
