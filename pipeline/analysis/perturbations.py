"""Test examples made harder, their reference still right: typos, case, white space, entity swaps;
and labels of another corpus.

What is drawn for an example depends on the seed, the suite and the example's id alone, so it is the
same in any subset.
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

SPACES = ("  ", "\u00a0", "\u2009", " \u00a0")  # doubled, no-break, thin, and two kinds together
WORD = re.compile(r"[^\W\d_]{4,}")  # of letters alone, with two inner ones
Mentions = Mapping[str, Sequence[tuple[str, ...]]]
"""Label -> the different spans of words that have it, in order."""
Suite = Callable[[Any, np.random.Generator], Any]
"""Makes another example of an example."""


def suites(task: Task[Any, Any, Any], examples: Sequence[Any], typos: float) -> dict[str, Suite]:
    """The suites that fit a task, by name; none if the task is not perturbable.

    `typos` is the fraction of words with a typo. Entities are swapped for others of `examples`, if
    the model reads nothing but words: a predicate would lose its place.
    """
    if not isinstance(task, Perturbable):
        return {}
    found: dict[str, Suite] = {
        "typos": lambda example, draw: task.apply_edit(
            example, Edit(partial(misspelled, share=typos, draw=draw))
        ),
        "lower": lambda example, _: task.apply_edit(example, Edit(str.lower, inside_spans=True)),
        "upper": lambda example, _: task.apply_edit(example, Edit(str.upper, inside_spans=True)),
        "white_space": lambda example, draw: task.apply_edit(
            example, Edit(partial(spaced, draw=draw))
        ),
    }
    if isinstance(task, TagsWords) and task.inputs == ("tokens",):
        found["entity_swaps"] = partial(swapped, task, mentions=mentions_of(examples))
    return found


def perturbed(examples: Sequence[Any], name: str, suite: Suite, seed: int) -> list[Any]:
    """The examples as a suite leaves them."""
    return [
        suite(example, np.random.default_rng(derive_seed(seed, _number(name), _number(example.id))))
        for example in examples
    ]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def misspelled(text: str, share: float, draw: np.random.Generator) -> str:
    """One typo in a `share` of the words of four letters or more: inner letters swapped, or one
    dropped, inserted or replaced.

    The first and last letter stay, by which people read such words (Rawlinson 1976; Pruthi et al.,
    ACL 2019).
    """
    return WORD.sub(
        lambda match: _typo(match[0], draw) if draw.random() < share else match[0], text
    )


def _typo(word: str, draw: np.random.Generator) -> str:
    kind, letter = draw.integers(4), string.ascii_lowercase[draw.integers(26)]
    place = int(draw.integers(1, len(word) - (2 if kind == 0 else 1)))
    if kind == 0:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    middle = ("", letter + word[place], letter)[kind - 1]
    return word[:place] + middle + word[place + 1 :]


def spaced(text: str, draw: np.random.Generator) -> str:
    """Half of the single spaces replaced by two, or by spaces of other kinds."""
    return re.sub(
        r"(?<=\S) (?=\S)",
        lambda _: SPACES[draw.integers(len(SPACES))] if draw.random() < 0.5 else " ",
        text,
    )


def mentions_of(examples: Iterable[Any]) -> Mentions:
    """The entities of tagged examples."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for example in examples:
        for label, start, end in spans(example.tags):
            found.setdefault(label, set()).add(example.tokens[start:end])
    return {label: sorted(words) for label, words in found.items()}


def swapped(
    task: TagsWords[Any], example: Any, draw: np.random.Generator, mentions: Mentions
) -> Any:
    """Each entity replaced by another one of its label, with as many tags as that has words; one
    without another stays.
    """
    tokens, tags, done = list[str](), list[str](), 0
    for label, start, end in spans(example.tags):
        others = [words for words in mentions[label] if words != example.tokens[start:end]] or [
            example.tokens[start:end]
        ]
        words = others[int(draw.integers(len(others)))]
        tokens += [*example.tokens[done:start], *words]
        tags += [*example.tags[done:start], f"B-{label}", *[f"I-{label}"] * (len(words) - 1)]
        done = end
    return task.with_tags(example, (*tokens, *example.tokens[done:]), (*tags, *example.tags[done:]))


def mapped(tags: Sequence[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    """IOB2 tags with other labels; those of labels without another become O."""
    return tuple(f"{tag[:2]}{labels[tag[2:]]}" if tag[2:] in labels else "O" for tag in tags)
