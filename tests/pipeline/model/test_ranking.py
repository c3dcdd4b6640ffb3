"""Rankings of candidates, compared with the scores of all of them by full forward passes."""

import functools
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.model import ranking
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.tasks.base import candidates as candidates_module
from pipeline.tasks.base.candidates import BEYOND, Candidates, Group, Ranking, RankingQuery
from tests.support import tiny

CONTEXTS = [[7, 9, 4, 11, 30, 8], [5, 6], [12, 40, 41, 13]]
END = 2
Prompt = DeepPrompt | SoftPrompt | PromptBank | None


@functools.cache
def decoder(family: str) -> Backbone:
    """A tiny decoder. No test may change it."""
    return tiny.decoder(family)


@functools.cache
def sequences() -> list[list[int]]:
    """Candidates that share first tokens; some are the beginning of others, two are equal."""
    generator = np.random.default_rng(0)
    drawn = [[*generator.integers(3, 9, generator.integers(1, 5))] for _ in range(60)]
    ended = [[*map(int, tokens), END] for tokens in [*drawn, drawn[0]]]
    return [*ended, ended[3][:-1], ended[4][:-1]]


def model_of(backbone: Backbone, prompt: Prompt) -> PromptedModel:
    heads = Heads(["language_model"] * 2, [0] * 2, backbone.hidden_size, 0, [()] * 2)
    return PromptedModel(backbone, prompt, heads, train_backbone=False).eval()


def scores(model: PromptedModel, context: list[int]) -> tuple[Any, Any]:
    """The score of each candidate, and the log-probabilities of the token after the context."""
    prompt: Any = model.prompt
    if isinstance(prompt, PromptBank):
        prompt = prompt(torch.tensor([1]))
    elif isinstance(prompt, DeepPrompt):
        prompt = prompt()
    values = []
    for tokens in sequences():
        row = torch.tensor([[*context, *tokens]])
        with torch.no_grad():
            hidden = model.backbone(row, torch.ones_like(row), torch.zeros_like(row), prompt)
            logits = model.backbone.word_logits(hidden[:, len(context) - 1 :], None)[0]
        each = logits.log_softmax(-1)
        values.append(float(each[torch.arange(len(tokens)), torch.tensor(tokens)].sum()))
    return np.array(values), each[0].numpy()


def rankings(model: PromptedModel, group: range, gold: int | None, **options: Any) -> list[Ranking]:
    candidates = Candidates(sequences())
    chosen = Group(group, candidates.nodes_of(group))
    token = None if gold is None else sequences()[gold][0]
    queries = [RankingQuery(context, candidates, chosen, gold, token) for context in CONTEXTS]
    return ranking.rank(model, queries, 1, options.pop("batch_tokens", 256), **options)


def place(score: float, others: Any) -> int:
    """The rank of a score; equal sums of floats in another order are the same."""
    return min(BEYOND, 1 + int((others > score + 1e-5).sum()))


@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama", "deep"), ("gpt2", "deep"), ("llama", "soft"), ("llama", "none"), ("llama", "bank")],
)
def test_rankings_are_those_of_an_exhaustive_search(family: str, kind: str) -> None:
    backbone = decoder(family)
    deep = tiny.prompt_for("deep", backbone)
    assert isinstance(deep, DeepPrompt)
    prompts: dict[str, Prompt] = {
        "deep": deep,
        "soft": tiny.prompt_for("soft", backbone),
        "none": None,
        "bank": PromptBank([None, deep]),
    }
    model = model_of(backbone, prompts[kind])
    group, gold = range(10, 45), 20
    for result, context in zip(rankings(model, group, gold), CONTEXTS, strict=True):
        values, first = scores(model, context)
        order = sorted(group, key=lambda number: -values[number])
        assert np.allclose(result.scores, values[order[:10]], atol=1e-4)
        assert np.allclose(values[list(result.best)], result.scores, atol=1e-4)
        assert result.rank == place(values[gold], values[list(group)])
        assert result.rank_all == place(values[gold], values)
        token = sequences()[gold][0]
        assert result.rank_vocabulary == place(first[token], first)
        rest = np.logaddexp.reduce(values[order[10:]])
        assert result.rest >= rest - 1e-4, "an upper bound of the other candidates"


def test_the_best_candidates_do_not_depend_on_the_right_one() -> None:
    model = model_of(decoder("llama"), None)
    (unknown, *_), (known, *_) = (rankings(model, range(40), gold) for gold in (None, 39))
    assert (unknown.best, unknown.rank, unknown.rank_all, unknown.rank_vocabulary) == (
        known.best,
        0,
        0,
        0,
    )
    assert np.allclose([*unknown.scores, unknown.rest], [*known.scores, known.rest], atol=1e-4)


def test_ranks_end_at_the_greatest(monkeypatch: pytest.MonkeyPatch) -> None:
    model, group = model_of(decoder("llama"), None), range(50)
    exact = rankings(model, group, 7)
    monkeypatch.setattr(candidates_module, "MAX_RANK", 2)
    monkeypatch.setattr(candidates_module, "BEYOND", 3)
    for result, full in zip(rankings(model, group, 7), exact, strict=True):
        assert result.rank == min(3, full.rank)
        assert result.rank_all == min(3, full.rank_all)


def test_batches_change_nothing_and_most_nodes_stay_closed() -> None:
    model, passes = model_of(decoder("llama"), None), list[int]()
    large = rankings(model, range(30), 5)
    small = rankings(model, range(30), 5, batch_tokens=1, before_pass=lambda: passes.append(1))
    for left, right in zip(large, small, strict=True):
        assert (left.best, left.rank, left.rank_all) == (right.best, right.rank, right.rank_all)
    candidates = Candidates(sequences())
    nodes = candidates.nodes_of(range(len(sequences())))
    assert len(passes) < len(CONTEXTS) * len(nodes), "with one node in each pass"


def test_the_tree_has_a_path_for_each_candidate() -> None:
    tokens = [(1, 2, 3), (1, 2), (1, 4), (5,), (5,)]
    candidates = Candidates(tokens)
    assert [node.path for node in candidates.end_nodes] == tokens
    assert candidates.end_nodes[3] is candidates.end_nodes[4]
    assert candidates.end_nodes[3].ends == (3, 4)
    assert [node.path for node in candidates.end_nodes[0].lineage] == [(1, 2, 3), (1, 2), (1,), ()]
    assert [node.inputs for node in candidates.end_nodes[:2]] == [(1, 2), (1, 2)]
    assert len(candidates.nodes_of([1])) == 3
