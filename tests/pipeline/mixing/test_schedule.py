"""Rates sum to the scale, the schedule counts correctly, an epoch holds every row once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.mixing import schedule as schedule_module
from pipeline.mixing.rates import RATE_BITS, RATE_SCALE, sampling_rates
from pipeline.mixing.schedule import Schedule, TokenBudgetBatches
from pipeline.params import MixtureParams
from pipeline.seeding import Ints, derive_seed, permutation, permute, splitmix64

FEW_EXAMPLES = settings(max_examples=60, deadline=None)


def shares(sizes: dict[str, int], **params: object) -> dict[str, float]:
    rates = sampling_rates(sizes, MixtureParams("all", **params))
    return {name: rate / RATE_SCALE for name, rate in rates.items()}


def corpus_sequence(rates: list[int]) -> Ints:
    """The corpus of every micro-batch of one period, by another method than `Schedule`."""
    reversed_bits = np.zeros(1, np.int64)
    for _ in range(RATE_BITS):
        reversed_bits = np.concatenate([2 * reversed_bits, 2 * reversed_bits + 1])
    corpora = np.repeat(np.arange(len(rates)), rates)
    return corpora[reversed_bits]


@FEW_EXAMPLES
@given(
    sizes=st.lists(st.integers(1, 10**7), min_size=1, max_size=12),
    temperature=st.floats(0.5, 20),
    cap=st.integers(1, 10**6),
)
def test_rates_equal_the_formula_and_sum_to_the_scale(
    sizes: list[int], temperature: float, cap: int
) -> None:
    sizes_by_name = {f"c{index}": size for index, size in enumerate(sizes)}
    rates = sampling_rates(sizes_by_name, MixtureParams("all", temperature, cap))
    powers = [min(size, cap) ** (1 / temperature) for size in sizes]
    assert sum(rates.values()) == RATE_SCALE
    assert min(rates.values()) >= 1
    for rate, power in zip(rates.values(), powers, strict=True):
        assert rate == pytest.approx(RATE_SCALE * power / sum(powers), abs=len(sizes) + 2)


def test_a_higher_temperature_flattens_the_shares() -> None:
    sizes = {"small": 100, "large": 400}
    assert shares(sizes, temperature=1.0) == pytest.approx({"small": 0.2, "large": 0.8}, abs=1e-5)
    assert shares(sizes, temperature=2.0) == pytest.approx(
        {"small": 1 / 3, "large": 2 / 3}, abs=1e-5
    )
    assert shares(sizes, temperature=1e6) == pytest.approx({"small": 0.5, "large": 0.5}, abs=1e-5)


def test_the_cap_limits_the_size_of_large_corpora() -> None:
    assert shares({"a": 100, "b": 10**6}, temperature=1.0, cap=300) == pytest.approx(
        {"a": 0.25, "b": 0.75}, abs=1e-5
    )


def test_weights_multiply_shares() -> None:
    assert shares({"a": 100, "b": 100}, weights={"b": 3.0}) == pytest.approx(
        {"a": 0.25, "b": 0.75}, abs=1e-5
    )


def test_every_corpus_has_a_positive_rate() -> None:
    rates = sampling_rates({"tiny": 1, "huge": 10**12}, MixtureParams("all", 1.0, 10**12))
    assert rates == {"tiny": 1, "huge": RATE_SCALE - 1}


def test_rates_do_not_depend_on_the_order_of_corpora() -> None:
    sizes = {"a": 10, "b": 10, "c": 10, "d": 7}
    reversed_sizes = dict(reversed(sizes.items()))
    assert sampling_rates(sizes, MixtureParams("all")) == sampling_rates(
        reversed_sizes, MixtureParams("all")
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; give a number above 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"cap": 0}, "cap is 0; give"),
        ({"weights": {"ner": 0.0}}, "weights.ner is 0.0; give a number above 0"),
        ({"shares": {"a": 0.0}}, "shares.a is 0.0"),
        ({"shares": {"a": float("inf")}}, "shares.a is inf"),
        ({"shares": {"a": 1.0}, "weights": {"a": 1.0}}, "remove one of them"),
        ({"max_epochs": 0.01}, "min_epochs is 0.05 and max_epochs 0.01"),
        ({"corpora": ()}, "corpora is empty"),
        ({"corpora": ("a",), "weights": {"a": 2.0, "b": 2.0}}, "weights has b, which corpora"),
    ],
)
def test_invalid_mixture_params_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureParams(**{"corpora": "all", **values})


@pytest.mark.parametrize(
    "rates",
    [
        [RATE_SCALE],
        [RATE_SCALE // 2, RATE_SCALE // 2],
        [1, RATE_SCALE - 1],
        [123_457, 400_000, RATE_SCALE - 523_457],
        [*[RATE_SCALE // 7] * 6, RATE_SCALE - 6 * (RATE_SCALE // 7)],
    ],
)
def test_count_equals_the_number_of_scheduled_micro_batches(rates: list[int]) -> None:
    schedule, sequence = Schedule(tuple(rates)), corpus_sequence(rates)
    generator = np.random.default_rng(0)
    for k in [0, 1, 2, 3, RATE_SCALE - 1, *generator.integers(0, RATE_SCALE, 50).tolist()]:
        assert (
            schedule.corpus(k)
            == schedule.corpus(k + RATE_SCALE)
            == schedule.corpus(k + 3 * RATE_SCALE)
            == sequence[k]
        )
        for corpus, rate in enumerate(rates):
            before = int((sequence[:k] == corpus).sum())
            assert schedule.count(corpus, k) == before
            assert schedule.count(corpus, k + 2 * RATE_SCALE) == before + 2 * rate


@FEW_EXAMPLES
@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    start=st.integers(0, 3 * RATE_SCALE),
)
def test_count_rises_only_at_micro_batches_of_the_corpus(weights: list[int], start: int) -> None:
    rates = sampling_rates(
        {str(i): weight for i, weight in enumerate(weights)}, MixtureParams("all", 1.0)
    )
    schedule = Schedule(tuple(rates.values()))
    for k in range(start, start + 20):
        for corpus in range(len(weights)):
            assert schedule.count(corpus, k + 1) - schedule.count(corpus, k) == (
                schedule.corpus(k) == corpus
            )


def test_every_interval_holds_the_corpora_in_proportion() -> None:
    rates = [50_000, 300_001, RATE_SCALE - 350_001]
    sequence = corpus_sequence(rates)[:100_000]
    for corpus, rate in enumerate(rates):
        counts = np.concatenate([[0], np.cumsum(sequence == corpus)])
        for length in (3, 10, 64, 1000, 5000):
            in_interval = counts[length:] - counts[:-length]
            assert np.abs(in_interval - length * rate / RATE_SCALE).max() < 5


def test_rates_must_sum_to_the_scale() -> None:
    with pytest.raises(AssertionError, match="sum to RATE_SCALE"):
        Schedule((1, 2))


def test_splitmix64_equals_the_reference_implementation() -> None:
    """The expected values are its first outputs for seed 1234567."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(5)], np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_seeds_are_distinct_and_permutations_are_bijections() -> None:
    assert sorted(permutation(1000, 5).tolist()) == list(range(1000))
    assert permutation(1000, 5).tolist() != permutation(1000, 6).tolist()
    seeds = [
        derive_seed(*parts) for parts in [(1,), (1, 0), (0, 1), (1, 2), (2, 1), (-1,), (1, 2, 3)]
    ]
    assert len(set(seeds)) == len(seeds)


def epoch(corpus: TokenBudgetBatches, index: int) -> list[list[int]]:
    return [
        corpus.rows(index * corpus.per_epoch + position).tolist()
        for position in range(corpus.per_epoch)
    ]


@FEW_EXAMPLES
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=120),
    budget=st.integers(1, 200),
    seed=st.integers(0, 2**63),
)
def test_every_epoch_holds_every_row_once(lengths: list[int], budget: int, seed: int) -> None:
    corpus = TokenBudgetBatches(lengths, budget, seed)
    longest = max(lengths)
    for number in range(3):
        batches = epoch(corpus, number)
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert all(batches)
        assert all(
            sum(lengths[row] for row in batch) < 2 * max(budget, longest) + longest
            for batch in batches
        )


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=60, max_size=400),
    budget=st.integers(1, 60),
    seed=st.integers(0, 2**63),
)
def test_every_epoch_of_small_windows_holds_every_row_once(
    lengths: list[int], budget: int, seed: int
) -> None:
    """Small windows stand for the windows of a large corpus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_module, "MIN_WINDOW_ROWS", 7)
        patch.setattr(schedule_module, "MIN_WINDOW_BATCHES", 3)
        corpus = TokenBudgetBatches(lengths, budget, seed)
        for number in range(2):
            batches = epoch(corpus, number)
            assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
            assert all(batches)


class CountedLengths:
    """Lengths of rows that count how many of them were read."""

    def __init__(self, rows: int) -> None:
        self.rows, self.num_read = rows, 0

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: Ints) -> Ints:
        self.num_read += len(rows)
        return 5 + rows % 56


def test_a_micro_batch_reads_the_lengths_of_one_window_only() -> None:
    """An array of these 10**9 rows would take too long and too much memory."""
    rows = 10**9
    lengths: Any = CountedLengths(rows)
    corpus = TokenBudgetBatches(lengths, 512, 7, tokens=rows * 32, longest=60)
    for m in (0, 12_345_678, 10**8):
        lengths.num_read = 0
        batch = corpus.rows(m)
        sizes = 5 + batch % 56
        assert 256 < sizes.sum() < 1024
        assert lengths.num_read < 5000
    assert corpus.rows(10**8).tolist() == corpus.rows(10**8).tolist()


def test_permute_at_some_positions_agrees_with_the_full_permutation() -> None:
    for n in (1, 2, 3, 5, 64, 1000, 4097):
        full = permutation(n, 9)
        assert sorted(full.tolist()) == list(range(n))
        assert permute(np.arange(n)[::-2], n, 9).tolist() == full[::-2].tolist()


def test_a_permutation_has_no_pattern() -> None:
    """Positions are uniform, neighbors are uncorrelated, and seeds differ."""
    counts = np.zeros((12, 12))
    for seed in range(6000):
        counts[np.arange(12), permutation(12, seed)] += 1
    assert counts.min() > 400  # the mean is 500
    assert counts.max() < 600
    large = permutation(10_000, 3)
    assert abs(np.corrcoef(large[:-1], large[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(large, np.arange(10_000))[0, 1]) < 0.05
    assert (large == permutation(10_000, 4)).sum() < 10


def test_epochs_differ_in_grouping_and_order() -> None:
    corpus = TokenBudgetBatches([7] * 300, 70, 3)
    first, second = epoch(corpus, 0), epoch(corpus, 1)
    assert first != second
    assert set(map(frozenset, first)) != set(map(frozenset, second))


def test_batches_have_about_the_budget_of_tokens_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 61, 6000)
    corpus = TokenBudgetBatches(lengths, 512, 1)
    batches = [lengths[batch] for batch in epoch(corpus, 0)]
    assert np.mean([batch.sum() for batch in batches]) == pytest.approx(512, rel=0.01)
    padded = sum(batch.max() * len(batch) for batch in batches)
    assert padded < 1.05 * lengths.sum()
    min_lengths = [int(batch.min()) for batch in batches]
    assert np.abs(np.diff(min_lengths)).mean() > 5, "the batches of an epoch are sorted by length"


def test_rows_are_a_function_of_the_micro_batch_index() -> None:
    lengths = np.random.default_rng(0).integers(5, 61, 500)
    forward = [TokenBudgetBatches(lengths, 128, 9).rows(m).tolist() for m in (0, 40, 41, 300, 1000)]
    corpus = TokenBudgetBatches(lengths, 128, 9)
    backward = [corpus.rows(m).tolist() for m in (1000, 300, 41, 40, 0)]
    assert forward == backward[::-1]


def test_a_corpus_of_one_row_repeats_it() -> None:
    corpus = TokenBudgetBatches([5], 512, 0)
    assert [corpus.rows(m).tolist() for m in range(3)] == [[0], [0], [0]]


def test_rows_longer_than_the_budget_are_micro_batches_of_their_own() -> None:
    corpus = TokenBudgetBatches([50, 50, 50], 10, 0)
    assert sorted(epoch(corpus, 0)) == [[0], [1], [2]]


def test_equal_lengths_make_equal_batches() -> None:
    sizes = [len(batch) for batch in epoch(TokenBudgetBatches([8] * 640, 64, 2), 0)]
    assert sizes == [8] * 80


def test_a_corpus_without_rows_fails_an_assertion() -> None:
    with pytest.raises(AssertionError, match="without rows"):
        TokenBudgetBatches([], 10, 0)
