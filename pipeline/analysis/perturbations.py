"""Perturbed test examples: typos, case, white space, entity swaps; and labels of another corpus.

A perturbation keeps the reference correct. The random draws for an example depend only on the seed,
the suite and the example's id, so they are the same in any subset.
"""

import hashlib
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.metrics.spans import spans
from pipeline.seeding import derive_seed
from pipeline.tasks.base.capabilities import Perturbable, TagsWords
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.task import Task

SPACES = ("  ", "\u00a0", "\u2009", " \u00a0")  # doubled, no-break, thin, mixed
WORD = re.compile(r"[^\W\d_]{4,}")  # letters only, at least two of them inner
Mentions = Mapping[str, Sequence[tuple[str, ...]]]
"""Label -> the distinct spans of words with that label, sorted."""
Suite = Callable[[Any, np.random.Generator], Any]
"""(example, random generator) -> perturbed example."""


def suites(
    task: Task[Any, Any, Any], examples: Sequence[Any], typo_rate: float
) -> dict[str, Suite]:
    """The suites that apply to a task, by name; empty if the task is not perturbable.

    `typo_rate` is the fraction of words with a typo. `entity_swaps` takes the new entities from
    `examples`. It applies only if the input is just words: a swap would move a predicate.
    """
    if not isinstance(task, Perturbable):
        return {}
    result: dict[str, Suite] = {
        "typos": lambda example, rng: task.apply_edit(
            example, Edit(partial(add_typos, rate=typo_rate, rng=rng))
        ),
        "lower": lambda example, _: task.apply_edit(example, Edit(str.lower, inside_spans=True)),
        "upper": lambda example, _: task.apply_edit(example, Edit(str.upper, inside_spans=True)),
        "white_space": lambda example, rng: task.apply_edit(
            example, Edit(partial(perturb_spaces, rng=rng))
        ),
    }
    if isinstance(task, TagsWords) and task.inputs == ("tokens",):
        result["entity_swaps"] = partial(swap_entities, task, mentions=collect_mentions(examples))
    return result


def perturb(examples: Sequence[Any], name: str, suite: Suite, seed: int) -> list[Any]:
    """The examples perturbed by a suite, in order."""
    return [
        suite(example, np.random.default_rng(derive_seed(seed, _number(name), _number(example.id))))
        for example in examples
    ]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def add_typos(text: str, rate: float, rng: np.random.Generator) -> str:
    """The text with one typo in a fraction `rate` of the words of four letters or more.

    A typo swaps two inner letters, or drops, inserts or replaces one. The first and last letter
    stay, because readers rely on them (Rawlinson 1976; Pruthi et al., ACL 2019).
    """
    return WORD.sub(lambda match: _typo(match[0], rng) if rng.random() < rate else match[0], text)


def _typo(word: str, rng: np.random.Generator) -> str:
    kind, letter = rng.integers(4), string.ascii_lowercase[rng.integers(26)]
    position = int(rng.integers(1, len(word) - (2 if kind == 0 else 1)))
    if kind == 0:
        return word[:position] + word[position + 1] + word[position] + word[position + 2 :]
    middle = ("", letter + word[position], letter)[kind - 1]
    return word[:position] + middle + word[position + 1 :]


def perturb_spaces(text: str, rng: np.random.Generator) -> str:
    """The text with about half of the single spaces doubled or replaced by other spaces."""
    return re.sub(
        r"(?<=\S) (?=\S)",
        lambda _: SPACES[rng.integers(len(SPACES))] if rng.random() < 0.5 else " ",
        text,
    )


def collect_mentions(examples: Iterable[Any]) -> Mentions:
    """The entities of tagged examples, by label."""
    by_label: dict[str, set[tuple[str, ...]]] = {}
    for example in examples:
        for label, start, end in spans(example.tags):
            by_label.setdefault(label, set()).add(example.tokens[start:end])
    return {label: sorted(words) for label, words in by_label.items()}


def swap_entities(
    task: TagsWords[Any], example: Any, rng: np.random.Generator, mentions: Mentions
) -> Any:
    """The example with each entity replaced by another entity of the same label.

    The tags follow the length of the new entity. An entity stays if its label has no other.
    """
    tokens, tags, copied = list[str](), list[str](), 0
    for label, start, end in spans(example.tags):
        others = [words for words in mentions[label] if words != example.tokens[start:end]] or [
            example.tokens[start:end]
        ]
        words = others[int(rng.integers(len(others)))]
        tokens += [*example.tokens[copied:start], *words]
        tags += [*example.tags[copied:start], f"B-{label}", *[f"I-{label}"] * (len(words) - 1)]
        copied = end
    return task.with_tags(
        example, (*tokens, *example.tokens[copied:]), (*tags, *example.tags[copied:])
    )


def map_labels(tags: Sequence[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    """IOB2 tags with their labels replaced; a label that `labels` lacks becomes O.

    A class that is not a tag, such as an intent after the tags of a sentence, stays.
    """
    return tuple(_mapped_tag(tag, labels) if tag.startswith(("B-", "I-")) else tag for tag in tags)


def _mapped_tag(tag: str, labels: Mapping[str, str]) -> str:
    return f"{tag[:2]}{labels[tag[2:]]}" if tag[2:] in labels else "O"
