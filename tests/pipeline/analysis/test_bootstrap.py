"""Intervals: compared with a closed form and with a bootstrap by hand, and their properties."""

import numpy as np
import pytest

from pipeline.analysis import bootstrap
from pipeline.analysis.bootstrap import difference, interval, over_seeds, resample, score_interval
from pipeline.metrics.base import F1, UnitCounts, apply_formula


def accuracy(hits: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> UnitCounts:
    return UnitCounts(
        tuple(map(str, range(len(hits)))),
        {"right": hits, "total": np.ones(len(hits))},
        {"accuracy": (("right", "total"),)},
    )


def spans(seed: int, units: int = 50) -> UnitCounts:
    generator = np.random.default_rng(seed)
    gold, predicted = generator.integers(0, 5, (2, units)).astype(float)
    columns = {"correct": np.minimum(gold, predicted), "predicted": predicted, "gold": gold}
    return UnitCounts(tuple(map(str, range(units))), columns, {"f1": F1})


def test_the_interval_of_an_accuracy_is_that_of_the_normal_distribution() -> None:
    (samples,) = resample([accuracy(np.repeat([1.0, 0.0], [700, 300]))], 4000)
    low, high = interval(samples["accuracy"]) or (0.0, 0.0)
    margin = 1.96 * 100 * np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == (
        pytest.approx(70 - margin, abs=0.25),
        pytest.approx(70 + margin, abs=0.25),
    )


def test_each_sample_is_the_metric_of_the_drawn_units(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = spans(0)
    draws = np.random.default_rng(3).integers(0, 50, (40, 50))
    expected = [
        apply_formula(
            F1, {name: values[draw].sum(keepdims=True) for name, values in counts.columns.items()}
        )[0]
        for draw in draws
    ]
    assert resample([counts], 40, seed=3)[0]["f1"].tolist() == pytest.approx(expected)
    monkeypatch.setattr(bootstrap, "BLOCK_SIZE", 130)  # two samples per block
    assert resample([counts], 40, seed=3)[0]["f1"].tolist() == pytest.approx(expected)


def test_the_interval_of_one_run_is_that_of_the_report_with_several_arms() -> None:
    run, other = spans(0), spans(1)
    assert score_interval(run, "f1") == interval(resample([other, run])[1]["f1"])
    assert score_interval(run, "bleu") is None


def test_arms_are_compared_on_the_same_samples_of_units() -> None:
    hits = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    better = hits.copy()
    better[np.flatnonzero(hits == 0)[:12]] = 1.0
    first, second = (
        samples["accuracy"] for samples in resample([accuracy(better), accuracy(hits)])
    )
    gap = difference(3.0, first, second)
    assert gap.is_significant, (
        "the arms have overlapping intervals of ten points, but the first wins in all twelve units "
        "with a difference"
    )
    assert interval(first)[0] < interval(second)[1]  # type: ignore[index]
    assert (gap.low, gap.high) == (
        pytest.approx(3 - 1.67, abs=0.3),
        pytest.approx(3 + 1.67, abs=0.3),
    )  # 1.96 √(.03·.97/400)
    assert gap.p < 0.005


def test_equal_arms_have_no_difference() -> None:
    first, second = resample([spans(0), spans(0)])
    gap = difference(0.0, first["f1"], second["f1"])
    assert (gap.low, gap.high, gap.p, gap.is_significant) == (0.0, 0.0, 1.0, False)


def test_p_values_are_uniform_without_a_true_difference() -> None:
    generator = np.random.default_rng(5)
    p_values = []
    for _ in range(200):
        arms = [accuracy(generator.integers(0, 2, 200).astype(float)) for _ in range(2)]
        first, second = (samples["accuracy"] for samples in resample(arms, 500))
        p_values.append(difference(0.0, first, second).p)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
    assert 0.4 <= np.mean(np.array(p_values) < 0.5) <= 0.6


def test_a_single_unit_or_all_right_gives_no_interval() -> None:
    assert interval(resample([accuracy(np.ones(1))])[0]["accuracy"]) is None
    assert interval(resample([accuracy(np.ones(9))])[0]["accuracy"]) is None
    assert interval(resample([accuracy(np.ones(0))])[0]["accuracy"]) is None


def test_the_interval_over_two_or_three_seeds_is_that_of_students_t() -> None:
    for values, quantile in (([50.0, 50.1], 12.706), ([50.0, 51.0, 52.0], 4.303)):
        low, high = interval(
            over_seeds([{"f1": np.full(200_000, value)} for value in values])["f1"]
        ) or (0.0, 0.0)
        margin = quantile * np.std(values, ddof=1) / len(values) ** 0.5
        assert (low, high) == (
            pytest.approx(np.mean(values) - margin, rel=0.01),
            pytest.approx(np.mean(values) + margin, rel=0.01),
        )


@pytest.mark.parametrize(("num_seeds", "max_rate"), [(2, 0.03), (3, 0.05), (5, 0.09)])
def test_arms_without_a_true_difference_are_rarely_significant(
    num_seeds: int, max_rate: float
) -> None:
    """Two arms have the same expected score, with seed variance and test-set sampling.

    The interval of the difference contains 0 in at least 95 % of cases, or close to it.
    """
    generator, num_significant = np.random.default_rng(num_seeds), 0
    for _ in range(400):
        rows = generator.normal(size=(2, 1)) + generator.normal(size=(2, 1000))
        scores = 50 + generator.normal(size=(2, num_seeds, 1)) + 0.5 * rows[:, None]
        first, second = (
            over_seeds([{"f1": run} for run in runs], arm)["f1"] for arm, runs in enumerate(scores)
        )
        num_significant += difference(0.0, first, second).is_significant
    assert num_significant / 400 <= max_rate


def test_the_samples_of_a_single_run_are_unchanged() -> None:
    (samples,) = resample([spans(0)], 50)
    assert over_seeds([samples]) is samples


def test_both_test_set_sampling_and_seed_variance_widen_the_interval() -> None:
    hits = np.random.default_rng(0).permutation(np.repeat([1.0, 0.0], [600, 400]))
    runs = resample(
        [accuracy(hits), accuracy(np.where(np.arange(1000) % 10 == 0, 0.0, hits))]
    )  # about 6 points lower
    low, high = interval(over_seeds(runs)["accuracy"]) or (0.0, 0.0)
    single = [interval(run["accuracy"]) or (0.0, 0.0) for run in runs]
    assert high - low > max(end - start for start, end in single) + 1
    assert (single[0][0] + single[1][0]) / 2 > low
    assert (single[0][1] + single[1][1]) / 2 < high
