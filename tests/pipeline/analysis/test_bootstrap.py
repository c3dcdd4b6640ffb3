"""Intervals: against a closed form, a bootstrap drawn by hand, and what must hold of any."""

import numpy as np
import pytest

from pipeline.analysis import bootstrap
from pipeline.analysis.bootstrap import difference, interval, over_seeds, resampled
from pipeline.metrics.base import F1, UnitCounts, apply_formula


def accuracy(hits: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> UnitCounts:
    return UnitCounts(
        tuple(map(str, range(len(hits)))),
        {"right": hits, "total": np.ones(len(hits))},
        {"accuracy": (("right", "total"),)},
    )


def spans(seed: int, units: int = 50) -> UnitCounts:
    draw = np.random.default_rng(seed)
    gold, predicted = draw.integers(0, 5, (2, units)).astype(float)
    columns = {"correct": np.minimum(gold, predicted), "predicted": predicted, "gold": gold}
    return UnitCounts(tuple(map(str, range(units))), columns, {"f1": F1})


def test_an_accuracy_has_the_interval_of_the_normal_distribution() -> None:
    (samples,) = resampled([accuracy(np.repeat([1.0, 0.0], [700, 300]))], 4000)
    low, high = interval(samples["accuracy"]) or (0.0, 0.0)
    spread = 1.96 * 100 * np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == (
        pytest.approx(70 - spread, abs=0.25),
        pytest.approx(70 + spread, abs=0.25),
    )


def test_each_sample_is_the_figure_of_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = spans(0)
    draws = np.random.default_rng(3).integers(0, 50, (40, 50))
    expected = [
        apply_formula(
            F1, {name: values[draw].sum(keepdims=True) for name, values in counts.columns.items()}
        )[0]
        for draw in draws
    ]
    assert resampled([counts], 40, seed=3)[0]["f1"].tolist() == pytest.approx(expected)
    monkeypatch.setattr(bootstrap, "BLOCK_SIZE", 130)  # two samples at once
    assert resampled([counts], 40, seed=3)[0]["f1"].tolist() == pytest.approx(expected)


def test_arms_are_compared_on_the_same_units() -> None:
    hits = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    better = hits.copy()
    better[np.flatnonzero(hits == 0)[:12]] = 1.0
    one, other = (samples["accuracy"] for samples in resampled([accuracy(better), accuracy(hits)]))
    gap = difference(3.0, one, other)
    assert gap.real, (
        "each alone has an interval of ten points, but they differ in twelve units, all one way"
    )
    assert interval(one)[0] < interval(other)[1]  # type: ignore[index]
    assert (gap.low, gap.high) == (
        pytest.approx(3 - 1.67, abs=0.3),
        pytest.approx(3 + 1.67, abs=0.3),
    )  # 1.96 √(.03·.97/400)
    assert gap.p < 0.005


def test_equal_arms_do_not_differ() -> None:
    one, other = resampled([spans(0), spans(0)])
    gap = difference(0.0, one["f1"], other["f1"])
    assert (gap.low, gap.high, gap.p, gap.real) == (0.0, 0.0, 1.0, False)


def test_the_p_is_even_where_nothing_differs() -> None:
    draw = np.random.default_rng(5)
    found = []
    for _ in range(200):
        arms = [accuracy(draw.integers(0, 2, 200).astype(float)) for _ in range(2)]
        one, other = (samples["accuracy"] for samples in resampled(arms, 500))
        found.append(difference(0.0, one, other).p)
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.1
    assert 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6


def test_nothing_follows_from_one_unit_or_from_all_right() -> None:
    assert interval(resampled([accuracy(np.ones(1))])[0]["accuracy"]) is None
    assert interval(resampled([accuracy(np.ones(9))])[0]["accuracy"]) is None
    assert interval(resampled([accuracy(np.ones(0))])[0]["accuracy"]) is None


def test_two_and_three_seeds_have_the_interval_of_students_t() -> None:
    for values, quantile in (([50.0, 50.1], 12.706), ([50.0, 51.0, 52.0], 4.303)):
        low, high = interval(
            over_seeds([{"f1": np.full(200_000, value)} for value in values])["f1"]
        ) or (0.0, 0.0)
        reach = quantile * np.std(values, ddof=1) / len(values) ** 0.5
        assert (low, high) == (
            pytest.approx(np.mean(values) - reach, rel=0.01),
            pytest.approx(np.mean(values) + reach, rel=0.01),
        )


@pytest.mark.parametrize(("count", "most"), [(2, 0.03), (3, 0.05), (5, 0.09)])
def test_arms_that_differ_by_luck_are_rarely_called_different(count: int, most: float) -> None:
    """Two arms with the same expectation, each run's score off by its seed, and all by the rows: the interval has 0 in 95 %."""
    draw, wrong = np.random.default_rng(count), 0
    for _ in range(400):
        rows = draw.normal(size=(2, 1)) + draw.normal(size=(2, 1000))
        scores = 50 + draw.normal(size=(2, count, 1)) + 0.5 * rows[:, None]
        one, other = (
            over_seeds([{"f1": run} for run in runs], arm)["f1"] for arm, runs in enumerate(scores)
        )
        wrong += difference(0.0, one, other).real
    assert wrong / 400 <= most


def test_one_run_is_as_it_was() -> None:
    (samples,) = resampled([spans(0)], 50)
    assert over_seeds([samples]) is samples


def test_units_and_seeds_both_widen_the_interval() -> None:
    hits = np.random.default_rng(0).permutation(np.repeat([1.0, 0.0], [600, 400]))
    runs = resampled(
        [accuracy(hits), accuracy(np.where(np.arange(1000) % 10 == 0, 0.0, hits))]
    )  # some 6 points lower
    low, high = interval(over_seeds(runs)["accuracy"]) or (0.0, 0.0)
    alone = [interval(one["accuracy"]) or (0.0, 0.0) for one in runs]
    assert high - low > max(end - start for start, end in alone) + 1
    assert (alone[0][0] + alone[1][0]) / 2 > low
    assert (alone[0][1] + alone[1][1]) / 2 < high
