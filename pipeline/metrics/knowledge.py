"""Scores of knowledge probing: the ranks of the right objects of facts, by relation.

P@k is the percentage of facts whose object is among the k best candidates (LAMA: Petroni et al.
2019, Language Models as Knowledge Bases?). MRR is the mean of 1 / rank in percent; a rank above 100
counts as 0, because ranks are computed up to 100. All are means over the relations of the mean over
a relation's facts, as in LAMA, so that a relation with many facts counts no more than another.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.base import MAX_RANK, Metrics, UnitCounts, apply_formula

TITLES: Mapping[str, str] = {
    "p_at_1": "P@1",
    "p_at_10": "P@10",
    "mrr": "MRR",
    "majority_p_at_1": "P@1 of the majority object",
    "p_at_1_all": "P@1, objects of all relations",
    "p_at_10_all": "P@10, objects of all relations",
    "mrr_all": "MRR, objects of all relations",
    "p_at_1_vocabulary": "P@1, vocabulary",
    "p_at_10_vocabulary": "P@10, vocabulary",
    "mrr_vocabulary": "MRR, vocabulary",
    "one_token_facts": "facts with an object of one token",
    "ranks_beyond": f"facts with a rank above {MAX_RANK}",
}
GLOSSARY: Mapping[str, str] = {
    "P@1, P@10, MRR": (
        "How often the right object of a fact is the best, or among the 10 best, of the objects of "
        "its relation, and the mean of 1 / rank, in percent: the mean over the relations."
    ),
    "majority object": (
        "The object that is most frequent in the training facts of a relation. A trained prompt "
        "can learn it without any knowledge in the backbone, so compare P@1 with its P@1, and with "
        "the P@1 of the same prompt on a backbone of random weights."
    ),
    "vocabulary": (
        "The rank of the object's token among all tokens of the vocabulary, of the facts whose "
        "object is one token only (the setting of LAMA)."
    ),
}
RELATION_COLUMNS = ("p_at_1", "p_at_10", "mrr", "majority_p_at_1", "p_at_1_all")
_MACRO = tuple(name for name in TITLES if name not in ("one_token_facts", "ranks_beyond"))


class Fact(NamedTuple):
    """The ranks of the right object of a fact.

    They are its ranks in its relation, among all objects, and of its token in the vocabulary, and
    count from 1. `rank_vocabulary` is 0 if the object has several tokens. `is_majority` is
    whether the object is the majority object of the relation.
    """

    relation: str
    rank: int
    rank_all: int
    rank_vocabulary: int
    is_majority: bool


def score(facts: Sequence[Fact]) -> Metrics:
    """All scores in `TITLES`, and the numbers of `facts` and `relations`.

    The labels of the metrics are the relations, with `RELATION_COLUMNS` and their number of facts.
    """
    columns = _columns(facts)
    relations = sorted({fact.relation for fact in facts})
    sums = {name: np.array([values.sum()]) for name, values in columns.items()}
    overall: dict[str, float] = {
        name: float(apply_formula(_formula(name, relations), sums)[0]) if facts else 0.0
        for name in _MACRO
    }
    overall |= {
        "one_token_facts": sum(fact.rank_vocabulary > 0 for fact in facts),
        "ranks_beyond": sum(fact.rank > MAX_RANK for fact in facts),
        "facts": len(facts),
        "relations": len(relations),
    }
    return Metrics(
        overall,
        {
            relation: {
                name: float(apply_formula(_formula(name, [relation]), sums)[0])
                for name in RELATION_COLUMNS
            }
            | {"support": sum(fact.relation == relation for fact in facts)}
            for relation in relations
        },
    )


def counts(units: Sequence[str], facts: Sequence[Fact]) -> UnitCounts:
    """The sums behind `score`. A unit is a fact."""
    relations = sorted({fact.relation for fact in facts})
    return UnitCounts(
        tuple(units),
        _columns(facts),
        {name: _formula(name, relations) for name in _MACRO} if facts else {},
    )


def _formula(name: str, relations: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The mean over relations of a ratio; relations without facts are left out."""
    whole = "one_token_facts" if name.endswith("_vocabulary") else "facts"
    return tuple((f"{name} {relation}", f"{whole} {relation}") for relation in relations)


def _columns(facts: Sequence[Fact]) -> dict[str, NDArray[np.float64]]:
    """The terms [N] of the sums, by name and relation."""
    by_rank = {
        "": np.array([fact.rank for fact in facts], np.int64),
        "_all": np.array([fact.rank_all for fact in facts], np.int64),
        "_vocabulary": np.array([fact.rank_vocabulary for fact in facts], np.int64),
    }
    terms: dict[str, NDArray[np.float64]] = {
        "facts": np.ones(len(facts)),
        "one_token_facts": (by_rank["_vocabulary"] > 0).astype(np.float64),
        "majority_p_at_1": np.array([fact.is_majority for fact in facts], np.float64),
    }
    for suffix, ranks in by_rank.items():
        exists, limit = ranks > 0, np.inf if suffix == "_vocabulary" else MAX_RANK
        terms[f"p_at_1{suffix}"] = (ranks == 1).astype(np.float64)
        terms[f"p_at_10{suffix}"] = (exists & (ranks <= 10)).astype(np.float64)
        terms[f"mrr{suffix}"] = np.where(exists & (ranks <= limit), 1 / np.maximum(ranks, 1), 0.0)
    relations = np.array([fact.relation for fact in facts])
    return {
        f"{name} {relation}": np.where(relations == relation, values, 0.0)
        for relation in sorted(set(relations.tolist()))
        for name, values in terms.items()
    }
