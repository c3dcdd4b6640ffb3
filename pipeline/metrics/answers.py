"""Exact match and F1 of answers to questions, by the rules of an official script.

- `SQUAD`: evaluate-v1.1.py and evaluate-v2.0.py (Rajpurkar et al. 2016, arXiv 1606.05250). It
  compares words, so it is for texts with spaces, and for English articles.
- `CMRC2018`: cmrc2018_evaluate.py (Cui et al. 2019, arXiv 1810.07366). It compares characters, and
  the overlap of two answers is their longest common run.
- `MLQA`: mlqa_evaluation_v1.py with the language zh (Lewis et al. 2020, arXiv 1910.07475). It
  compares characters without regard to their order.

The scripts of CMRC 2018 and MLQA split Chinese characters only. Here they also split Japanese kana,
Thai, Lao, Burmese and Khmer (`UNSPACED`), and they follow SQuAD 2.0 for questions without an
answer.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from unicodedata import category

from pipeline.metrics.base import UNSPACED, Formula, Metrics, UnitCounts, sum_by_unit

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# The script splits other text by nltk.word_tokenize. These patterns do the same for words, numbers,
# punctuation and contractions, but not for "n't" and "cannot".
_CMRC_TOKEN = re.compile(
    r"""'(?:s|m|d|ll|re|ve)\b|(?<!\w)'|'(?!\w)|[][;@#$%&?!(){}<>"–—‘’“”«»]|,(?!\d)"""
    r"""|(?:(?!'(?:s|m|d|ll|re|ve)\b|'(?!\w))[^][\s;@#$%&?!(){}<>"–—‘’“”«»,]|,(?=\d))+"""
)
_FINAL_PERIOD = re.compile(r"""(?<=[^.])\.(?=[])}>"'»”’\s]*$)""")

References = Mapping[str, Sequence[str]]
"""Question id -> its accepted answers; an empty list if the context does not answer it."""


class Threshold(NamedTuple):
    """The threshold of the null score, and the resulting score in percent.

    A question is predicted unanswerable if its null score is greater than `value`.
    """

    value: float
    score: float


def normalize(text: str) -> str:
    """Lowercase; remove ASCII punctuation and English articles; collapse white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _words(text: str) -> list[str]:
    return text.split()


def _common_words(first: Sequence[str], second: Sequence[str]) -> int:
    return sum((Counter(first) & Counter(second)).values())


def _normalize_cmrc(text: str) -> str:
    return text.lower().strip().translate(_CMRC_PUNCTUATION)


def _split_cmrc(text: str) -> list[str]:
    pieces = re.split(f"({UNSPACED.pattern})", text)  # single characters, and the text between them
    return [
        token for piece in pieces for token in _CMRC_TOKEN.findall(_FINAL_PERIOD.sub(" .", piece))
    ]


def _longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest sequence of tokens that both have without a gap."""
    longest, previous = 0, [0] * (len(second) + 1)
    for token in first:
        lengths = [0]
        for position, other in enumerate(second):
            lengths.append(previous[position] + 1 if token == other else 0)
        longest, previous = max(longest, *lengths), lengths
    return longest


def _normalize_mlqa(text: str) -> str:
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    return " ".join(UNSPACED.sub(r" \g<0> ", kept).split())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or category(character).startswith("P")


@dataclass(frozen=True)
class Rules:
    """The comparison of two answers by an official script.

    `prefix` starts the names of its metrics. `normalize` maps a text to the text to compare,
    `tokens` splits a normalized text, and `num_common` counts the tokens that two texts share.
    """

    prefix: str
    normalize: Callable[[str], str]
    tokens: Callable[[str], list[str]]
    num_common: Callable[[Sequence[str], Sequence[str]], int]

    def exact_match(self, answer: str, prediction: str) -> float:
        """1.0 if the normalized texts are equal, else 0.0."""
        return float(self.normalize(answer) == self.normalize(prediction))

    def f1(self, answer: str, prediction: str) -> float:
        """The F1 of the tokens, from 0 to 1.

        If either text has no tokens, the F1 is 1 if both have none, else 0.
        """
        gold, guess = (self.tokens(self.normalize(text)) for text in (answer, prediction))
        if not gold or not guess:
            return float(gold == guess)
        same = self.num_common(gold, guess)
        if not same:
            return 0.0
        precision, recall = same / len(guess), same / len(gold)
        return 2 * precision * recall / (precision + recall)


SQUAD = Rules("", normalize, _words, _common_words)
CMRC2018 = Rules("cmrc2018_", _normalize_cmrc, _split_cmrc, _longest_common_run)
MLQA = Rules("mlqa_", _normalize_mlqa, _words, _common_words)
RULES = {
    f"{rules.prefix}{name}": rules
    for rules in (SQUAD, CMRC2018, MLQA)
    for name in ("f1", "exact_match")
}
"""The rules by the name of their metrics."""

TITLES = {
    f"{prefix}{rules}{name}": f"{title}, {script}{subset}"
    for rules, script in (("cmrc2018_", "CMRC 2018"), ("mlqa_", "MLQA"))
    for prefix, subset in (("", ""), ("HasAns_", ", answerable"), ("NoAns_", ", unanswerable"))
    for name, title in (("exact_match", "exact"), ("f1", "F1 by character"))
}
"""The report's titles of the metrics by character."""


def score(references: References, predictions: Mapping[str, str], rules: Rules = SQUAD) -> Metrics:
    """`exact_match` and `f1` in percent, after the prefix of the rules.

    If any question is unanswerable (SQuAD 2.0), the same metrics are added for the answerable
    questions (HasAns_) and the unanswerable ones (NoAns_). The prediction "" means "no answer". A
    question without a prediction scores 0, as in the 1.1 script; the 2.0 script skips it.
    """
    scores = _all_scores(references, predictions, rules)
    overall = dict[str, float]()
    for prefix, ids in _subsets(references, rules).items():
        overall |= _mean_scores(prefix, ids, scores)
    return Metrics(overall, {})


def counts(
    references: References, predictions: Mapping[str, str], rules: Rules = SQUAD
) -> UnitCounts:
    """The sums behind `score`, by question."""
    scores = _all_scores(references, predictions, rules)
    columns, formulas = dict[str, list[float]](), dict[str, Formula]()
    for prefix, ids in _subsets(references, rules).items():
        subset = set(ids)
        columns[f"{prefix}total"] = [float(id in subset) for id in references]
        for name, values in scores.items():
            columns[prefix + name] = [value * (id in subset) for id, value in values.items()]
            formulas[prefix + name] = ((prefix + name, f"{prefix}total"),)
    return sum_by_unit(list(references), columns, formulas)


def best_threshold(
    references: References,
    predictions: Mapping[str, str],
    null_scores: Mapping[str, float],
    metric: Callable[[str, str], float] = SQUAD.f1,
    rules: Rules = SQUAD,
) -> Threshold:
    """The threshold of the null score that maximizes `metric`. Pass validation, never test data.

    `rules` are those of `metric`. `predictions` are the best answers other than "no answer"; a
    greater null score means that "no answer" is likelier. The threshold is one of the null scores,
    or just below the smallest of them ("never answer"). Of several best thresholds, it is the
    lowest. Unlike in the official script, questions with equal null scores are answered or refused
    together, because no threshold can separate them.
    """
    scores = _scores(references, predictions, metric, rules)
    order = sorted(references, key=lambda id: null_scores[id])
    # No question is answered.
    total = best = float(sum(not _accepted(references[id], rules) for id in order))
    value = math.nextafter(null_scores[order[0]], -math.inf) if order else 0.0
    for position, id in enumerate(order):
        total += scores[id] - (not _accepted(references[id], rules))
        last = position + 1 == len(order) or null_scores[order[position + 1]] > null_scores[id]
        if last and total > best:
            best, value = total, null_scores[id]
    return Threshold(value, 100.0 * best / len(order) if order else 0.0)


def _subsets(references: References, rules: Rules) -> dict[str, list[str]]:
    """The questions of each prefix of metrics: all, and the answerable and unanswerable ones."""
    answerable = {id: bool(_accepted(answers, rules)) for id, answers in references.items()}
    subsets = {"": list(references)}
    if not all(answerable.values()):
        subsets["HasAns_"] = [id for id, has_answer in answerable.items() if has_answer]
        subsets["NoAns_"] = [id for id, has_answer in answerable.items() if not has_answer]
    return subsets


def _accepted(answers: Sequence[str], rules: Rules) -> list[str]:
    """The answers that are not empty after normalization; if none, the question is unanswerable.

    The 2.0 script does the same.
    """
    return [answer for answer in answers if rules.normalize(answer)]


def _all_scores(
    references: References, predictions: Mapping[str, str], rules: Rules
) -> dict[str, dict[str, float]]:
    """The name of each metric -> the score of each question."""
    return {
        f"{rules.prefix}exact_match": _scores(references, predictions, rules.exact_match, rules),
        f"{rules.prefix}f1": _scores(references, predictions, rules.f1, rules),
    }


def _scores(
    references: References,
    predictions: Mapping[str, str],
    metric: Callable[[str, str], float],
    rules: Rules,
) -> dict[str, float]:
    """For each question the best `metric` over its accepted answers."""
    return {
        id: max(metric(answer, predictions[id]) for answer in _accepted(answers, rules) or [""])
        if id in predictions
        else 0.0
        for id, answers in references.items()
    }


def _mean_scores(
    prefix: str, ids: Sequence[str], scores: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    size = max(len(ids), 1)
    means = {
        f"{prefix}{name}": 100.0 * sum(values[id] for id in ids) / size
        for name, values in scores.items()
    }
    return {**means, f"{prefix}total": len(ids)}
