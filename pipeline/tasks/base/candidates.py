"""Candidate texts as a radix tree of their tokens, and their exact order by probability.

The score of a candidate is the log-probability of its tokens after a context. The score of the
first tokens of a candidate is an upper bound of it. So a search that opens the nodes with the
greatest bounds first finds the best candidates, and the rank of any of them, while most nodes are
never opened.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.base import MAX_RANK

NUM_BEST = 10  # candidates of a ranking
NODES_PER_ROUND = 8  # of one search: a forward pass opens the nodes of many searches at once
BEYOND = MAX_RANK + 1  # stands for all greater ranks


@dataclass(eq=False)
class Node:
    """The tokens `path` from the root; `path[start:]` are those that its parent lacks.

    `ends` are the numbers of the candidates with exactly these tokens.
    """

    path: tuple[int, ...]
    start: int
    parent: "Node | None" = None
    ends: tuple[int, ...] = ()
    children: list["Node"] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The tokens to read in order to open the node: a leaf needs no token after its last."""
        return self.path if self.children else self.path[:-1]

    @property
    def lineage(self) -> Iterator["Node"]:
        """The node and the nodes above it, up to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Candidates:
    """The radix tree of candidates, each a sequence of tokens. `end_nodes` has the end of each."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.root = Node((), 0)
        self.end_nodes: list[Node] = [self.root] * len(sequences)
        numbered = sorted((tuple(tokens), number) for number, tokens in enumerate(sequences))
        self._grow(self.root, numbered)

    def _grow(self, parent: Node, numbered: Sequence[tuple[tuple[int, ...], int]]) -> None:
        """Add the children for sorted sequences, which are longer than the parent's path."""
        depth = len(parent.path)
        for _, items in groupby(numbered, lambda item: item[0][depth]):
            group = list(items)
            path = _common_start(group[0][0], group[-1][0])
            node = Node(path, depth, parent, tuple(n for tokens, n in group if tokens == path))
            parent.children.append(node)
            for number in node.ends:
                self.end_nodes[number] = node
            self._grow(node, group[len(node.ends) :])

    def nodes_of(self, numbers: Sequence[int]) -> frozenset[Node]:
        """The nodes on the paths to these candidates."""
        return frozenset(node for number in numbers for node in self.end_nodes[number].lineage)


def _common_start(first: tuple[int, ...], last: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens that all sequences between these two, in sorted order, begin with."""
    length = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(last)),
    )
    return first[:length]


class Group(NamedTuple):
    """The candidates `numbers` that a query asks about, and the `nodes` on their paths."""

    numbers: Sequence[int]
    nodes: frozenset[Node]


@dataclass(frozen=True)
class RankingQuery:
    """Which candidate follows `context`, a sequence of tokens?

    The answers are the best candidates of `group`. `gold` is the number of the right candidate, and
    `gold_token` its token if the right text has only one (None: unknown, or several).
    """

    context: Sequence[int]
    candidates: Candidates
    group: Group
    gold: int | None = None
    gold_token: int | None = None


@dataclass(frozen=True)
class Ranking:
    """The answer to a query.

    `best` are the numbers of the best candidates of the group, at most `NUM_BEST`, and `scores`
    their log-probabilities. `rest` is the log of an upper bound of the summed probability of all
    other candidates of the group. The ranks of the right candidate count from 1: in its group,
    among all candidates, and of its token in the whole vocabulary. `BEYOND` stands for all ranks
    above `MAX_RANK` (but not in the vocabulary), and 0 for a rank that does not exist.
    """

    best: tuple[int, ...]
    scores: tuple[float, ...]
    rest: float
    rank: int = 0
    rank_all: int = 0
    rank_vocabulary: int = 0


class Search:
    """The search for the ranking of one query.

    Open all nodes of `next_nodes` until there are none; then `ranking` is the result. The best
    candidates and `rest` do not depend on the right candidate.
    """

    def __init__(self, query: RankingQuery, log_probabilities: NDArray[np.float32]) -> None:
        """`log_probabilities` [V] are those of the first token after the context."""
        self._query = query
        self._in_group = set(query.group.numbers)
        self._scores: dict[int, float] = {}  # of the candidates that were reached
        self._bounds: dict[Node, float] = {}  # of the nodes that were reached and not opened
        self._best: list[int] | None = None
        self._rest = -np.inf
        token = query.gold_token
        self._rank_vocabulary = (
            0 if token is None else 1 + int((log_probabilities > log_probabilities[token]).sum())
        )
        self._reach(query.candidates.root, 0.0, log_probabilities)

    def _reach(self, parent: Node, score: float, log_probabilities: NDArray[np.float32]) -> None:
        """Add the children of a node; `log_probabilities` [V] are those of their first tokens."""
        for child in parent.children:
            bound = score + float(log_probabilities[child.path[child.start]])
            if len(child.path) == child.start + 1:  # The bound is the score.
                self._scores.update(dict.fromkeys(child.ends, bound))
                if not child.children:
                    continue
            self._bounds[child] = bound

    def open(self, node: Node, log_probabilities: NDArray[np.float32]) -> None:
        """Open a node. Row i [V] has the log-probabilities of the token after i + 1 of its tokens.

        The rows are those of `node.inputs`.
        """
        score = self._bounds.pop(node)
        for position in range(node.start + 1, len(node.path)):
            score += float(log_probabilities[position - 1, node.path[position]])
        self._scores.update(dict.fromkeys(node.ends, score))
        if node.children:
            self._reach(node, score, log_probabilities[len(node.path) - 1])

    def next_nodes(self) -> list[Node]:
        """The nodes to open next, at most `NODES_PER_ROUND`; none if the ranking is known."""
        if self._best is None:
            if nodes := self._above(self._score_to_beat(), self._query.group.nodes):
                return nodes
            self._finish_best()
        gold = self._query.gold
        if gold is None:
            return []
        if gold not in self._scores:
            path = self._query.candidates.end_nodes[gold].lineage
            return [node for node in path if node in self._bounds]
        if self._rank(all_candidates=False) > MAX_RANK:
            return []
        is_open = self._rank(all_candidates=True) <= MAX_RANK
        return self._above(self._scores[gold], None if is_open else self._query.group.nodes)

    def _above(self, threshold: float, nodes: frozenset[Node] | None) -> list[Node]:
        """The nodes with the greatest bounds above a threshold, among `nodes` (None: all)."""
        bounds = (
            (bound, node)
            for node, bound in self._bounds.items()
            if bound > threshold and (nodes is None or node in nodes)
        )
        best = heapq.nlargest(NODES_PER_ROUND, bounds, key=lambda pair: pair[0])
        return [node for _, node in best]

    def _group_scores(self) -> list[tuple[float, int]]:
        """The scores and numbers of the candidates of the group that were reached, best first."""
        reached = self._in_group & self._scores.keys()
        return sorted(((self._scores[n], n) for n in reached), key=lambda pair: (-pair[0], pair[1]))

    def _score_to_beat(self) -> float:
        scores = self._group_scores()
        return scores[NUM_BEST - 1][0] if len(scores) >= NUM_BEST else -np.inf

    def _finish_best(self) -> None:
        scores, nodes = self._group_scores(), self._query.group.nodes
        self._best = [number for _, number in scores[:NUM_BEST]]
        others = [score for score, _ in scores[NUM_BEST:]]
        others += [bound for node, bound in self._bounds.items() if node in nodes]
        self._rest = float(np.logaddexp.reduce(np.array([-np.inf, *others])))

    def _rank(self, all_candidates: bool) -> int:
        """The rank of the right candidate among those that were reached."""
        gold = self._query.gold
        if gold is None:
            return 0
        numbers = self._scores.keys() if all_candidates else self._in_group & self._scores.keys()
        return 1 + sum(self._scores[number] > self._scores[gold] for number in numbers)

    def ranking(self) -> Ranking:
        """The result, after all nodes of `next_nodes` were opened."""
        assert self._best is not None
        return Ranking(
            tuple(self._best),
            tuple(self._scores[number] for number in self._best),
            self._rest,
            min(BEYOND, self._rank(all_candidates=False)),
            min(BEYOND, self._rank(all_candidates=True)),
            self._rank_vocabulary,
        )
