"""The rule for words of text that agrees most with the tokens of a corpus.

A corpus of tokens does not have the spaces of its text. The tokens of a sentence are therefore
joined as in English text: no space before closing punctuation and contractions, after opening
brackets, or between characters of scripts without spaces.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.metrics.base import UNSPACED
from pipeline.tasks.base.capabilities import TagsWords
from pipeline.tasks.base.examples import count_examples, read_examples
from pipeline.tasks.base.task import Task
from pipeline.words import RULES, RuleName, split_words

MAX_SENTENCES = 2000  # at equal distances in the training split
PREFERRED: tuple[RuleName, ...] = ("treebank", "punctuation", "spaces", "characters")  # if equal
_CLOSING = frozenset({*".,;:!?%)]}", "...", "…", "''", "”", "’", "。", "，", "、", "！", "？"})
_CONTRACTIONS = frozenset({"n't", "'s", "'re", "'ve", "'ll", "'d", "'m"})
_OPENING = frozenset({*"([{$#", "``", "“", "‘", "£", "€"})
_QUOTE = '"'

Bounds = list[tuple[int, int]]
"""The characters [start, end) of each word of a text."""


def measure_words(
    task: Task[Any, Any, Any], train: Path, rule_of_reader: str | None = None
) -> dict[str, Any]:
    """The keys `word_rule` and `word_agreement` of a corpus's summary.

    `train` is the Parquet file of the training examples. `word_rule` is the rule with the highest
    agreement, `word_agreement` the agreement of every rule in percent (see `agreement`). They are
    None and empty for a task without tokens, or a corpus without training examples. If the reader
    made the tokens of text by a rule, `word_rule` is that rule, and nothing is measured.
    """
    if rule_of_reader in RULES:
        return {"word_rule": rule_of_reader, "word_agreement": {}}
    total = count_examples(train)
    if not isinstance(task, TagsWords) or not total:
        return {"word_rule": None, "word_agreement": {}}
    rows = np.unique(np.linspace(0, total - 1, min(total, MAX_SENTENCES)).astype(np.int64))
    sentences = [example.tokens for example in read_examples(train, task, rows)]
    percent = {rule: round(agreement(sentences, rule), 2) for rule in PREFERRED}
    return {"word_rule": max(percent, key=lambda rule: percent[rule]), "word_agreement": percent}


def describe_words(summary: Mapping[str, Any]) -> str:
    """A sentence on the rule of a corpus, from its summary; empty for a task without tokens."""
    rule, percent = summary["word_rule"], summary["word_agreement"]
    if rule is None:
        return ""
    if rule not in percent:
        return f"The rule {rule!r} makes words of text, as in the corpus."
    others = ", ".join(f"{name} {value:.1f}" for name, value in percent.items() if name != rule)
    return (
        f"The rule {rule!r} makes words of text. If the training tokens are joined into text, its "
        f"words agree with them by {percent[rule]:.1f} % ({others})."
    )


def agreement(sentences: Iterable[Sequence[str]], rule: RuleName) -> float:
    """The agreement of a rule with the tokens of sentences, in percent.

    It is the F1 of the words that have the bounds of a token in the joined text.
    """
    common = total = 0
    for tokens in sentences:
        text, bounds = join_tokens(tokens)
        words = [(word.start, word.end) for word in split_words(text, rule)]
        common += len(set(words) & set(bounds))
        total += len(words) + len(bounds)
    return 200 * common / max(1, total)


def join_tokens(tokens: Sequence[str]) -> tuple[str, Bounds]:
    """The text of tokens, and the bounds of each token in it."""
    text, bounds, is_open = "", Bounds(), False
    previous = ""
    for token in tokens:
        closes_quote = token == _QUOTE and is_open
        if text and not (
            _is_attached(previous, token) or closes_quote or (previous == _QUOTE and is_open)
        ):
            text += " "
        if token == _QUOTE:
            is_open = not is_open
        bounds.append((len(text), len(text) + len(token)))
        text, previous = text + token, token
    return text, bounds


def _is_attached(previous: str, token: str) -> bool:
    """Whether no space is between two tokens, apart from straight quotes."""
    return (
        token in _CLOSING
        or token.lower().replace("’", "'") in _CONTRACTIONS
        or previous in _OPENING
        or bool(UNSPACED.match(previous[-1:]) and UNSPACED.match(token[:1]))
    )
