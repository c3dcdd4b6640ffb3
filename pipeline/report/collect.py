"""Reads the outputs of arms, training runs and mixtures into the inputs of a report."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.analysis.bootstrap import Samples, over_seeds, resample
from pipeline.errors import UserError
from pipeline.metrics.base import UnitCounts, apply_formula
from pipeline.report.kinds import kind_in
from pipeline.report.stage_outputs import RERUN, Scores, document, numbers, parquet, table, typed

FACTS = ("steps", "best_step", "rows_seen", "tokens_seen", "seed")
CONFIDENCES = ("kind", "raw", "calibrated", "right")
MEASURES = ("raw", "calibrated", "margin", "agreement")  # confidence measures
CLAIMS = (
    "id",
    "text",
    "gold_label",
    "predicted_label",
    "gold",
    "predicted",
    "right",
    "gold_spans",
    "predicted_spans",
    "calibrated",
)
TEXTS = ("id", "source", "references", "text")
Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Source -> arm -> task -> score."""


@dataclasses.dataclass(frozen=True)
class MetricsDocument:
    """`metrics.json`: scores are 0-100, None if undefined. `kind` names the kind of task."""

    kind: str
    primary: str
    test: Scores
    validation: Scores
    rows: Scores
    trained: float | None
    backbone: float | None


@dataclasses.dataclass(frozen=True)
class Training:
    """One training run: its curves and its `run.json`.

    `consumed_by_corpus` has the numbers of training rows and tokens by corpus of a mixture.
    `pretrained_on` has the corpora that the initial prompt has seen.
    """

    train: pd.DataFrame | None
    validation: pd.DataFrame | None
    facts: Scores
    learning_rates: Scores
    consumed_by_corpus: dict[str, Scores] = dataclasses.field(default_factory=dict)
    pretrained_on: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Repeat:
    """A repetition of a run's training and test with another seed."""

    seed: int
    metrics: MetricsDocument
    counts: UnitCounts | None


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One arm on one task.

    `samples` are bootstrap samples of the metrics in `counts`. Arms with the same units share the
    resampled units. `mean_samples` are the samples of the mean over the seeds of `repeats`.
    `confidences` and `claims` have the columns CONFIDENCES and CLAIMS, `measures` MEASURES and
    `right`, and `texts` (samples of predictions) TEXTS.
    """

    arm: str
    task: str
    metrics: MetricsDocument | None
    labels: pd.DataFrame | None
    training: Training
    counts: UnitCounts | None = None
    samples: Samples = dataclasses.field(default_factory=dict)
    mean_samples: Samples = dataclasses.field(default_factory=dict)
    confidences: pd.DataFrame | None = None
    claims: pd.DataFrame | None = None
    measures: pd.DataFrame | None = None
    texts: pd.DataFrame | None = None
    repeats: tuple[Repeat, ...] = ()

    def values(self, name: str) -> list[float]:
        """A test metric by seed, the run's seed first; empty if any seed lacks it."""
        by_seed = [self.metrics, *(repeat.metrics for repeat in self.repeats)]
        known = [
            value
            for metrics in by_seed
            if metrics and (value := metrics.test.get(name)) is not None
        ]
        return known if len(known) == len(by_seed) else []


@dataclasses.dataclass(frozen=True)
class Leak:
    """Overlap between a held-out split and training rows of another or the same corpus.

    `counts` has the held-out `rows` with leaked texts, which are `equal` to or `contained` in the
    text of a training row.
    """

    train: str
    held_out: str
    split: str
    counts: Scores
    examples: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One mixture and the multi-task run on it.

    `corpora` is None if the file of the mixture is absent. `on_leak` is the handling of leaking
    training rows.
    """

    name: str
    corpora: dict[str, Scores] | None
    settings: Scores
    leaks: tuple[Leak, ...]
    training: Training
    warnings: tuple[str, ...] = ()
    on_leak: str = "report"


@dataclasses.dataclass(frozen=True)
class ReportInputs:
    """All inputs of a report, in display order. `runs` has the planned runs, finished or not."""

    arms: tuple[str, ...]
    tasks: tuple[str, ...]
    runs: tuple[RunResult, ...]
    mixtures: tuple[Mixture, ...]
    published: Published = dataclasses.field(default_factory=dict)

    def of_task(self, task: str) -> list[RunResult]:
        """The planned runs on a task, in the order of the arms."""
        return [run for run in self.runs if run.task == task]

    def run(self, arm: str, task: str) -> RunResult | None:
        """The run of an arm on a task; None if it is not planned."""
        return next((run for run in self.runs if (run.arm, run.task) == (arm, task)), None)


def collect(
    results: Path,
    predictions: Path,
    runs: Path,
    mixtures: Sequence[Path],
    tasks: Sequence[str],
    planned: Mapping[str, Collection[str]],
    repeated: Collection[tuple[str, str, int]] = (),
) -> ReportInputs:
    """Read all inputs of a report.

    `planned` has the tasks of each arm, `repeated` the arm, task and seed of repeated runs. An arm
    without tasks is left out.

    Raises a single UserError with the problems of all malformed files.
    """
    problems: list[str] = []
    run_results = []
    arms = tuple(arm for arm, its_tasks in planned.items() if its_tasks)
    for arm, task in ((arm, task) for task in tasks for arm in arms if task in planned[arm]):
        try:
            seeds = [seed for *run, seed in repeated if run == [arm, task]]
            run_results.append(_run(arm, task, results, predictions, runs, seeds))
        except UserError as error:
            problems.extend(error.problems)
    mixture_results = []
    for mixture in mixtures:
        try:
            training = runs / "pretrain" / mixture.stem
            mixture_results.append(_mixture(mixture.stem, mixture, training))
        except UserError as error:
            problems.extend(error.problems)
    by_task = {task: [run for run in run_results if run.task == task] for task in tasks}
    for task, task_runs in by_task.items():
        problems.extend(_incomparable(task, task_runs, results))
    if problems:
        raise UserError(*problems)
    with_samples = [run for task_runs in by_task.values() for run in _with_samples(task_runs)]
    return ReportInputs(arms, tuple(tasks), tuple(with_samples), tuple(mixture_results))


def _with_samples(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs of a task with their bootstrap samples."""
    samples: dict[str, list[Samples]] = {}
    for units in dict.fromkeys(run.counts.units for run in runs if run.counts):
        counts = {
            run.arm: [run.counts, *(repeat.counts for repeat in run.repeats if repeat.counts)]
            for run in runs
            if run.counts and run.counts.units == units
        }
        in_order = iter(resample([count for by_seed in counts.values() for count in by_seed]))
        samples |= {arm: [next(in_order) for _ in by_seed] for arm, by_seed in counts.items()}
    return [
        dataclasses.replace(
            run, samples=samples[run.arm][0], mean_samples=over_seeds(samples[run.arm], index)
        )
        if run.arm in samples
        else run
        for index, run in enumerate(runs)
    ]


def _incomparable(task: str, runs: Sequence[RunResult], results: Path) -> Iterator[str]:
    primaries = {run.metrics.primary: run.arm for run in runs if run.metrics}
    if len(primaries) > 1:
        names = ", ".join(
            f"{results / arm / task / 'metrics.json'} has {name!r}"
            for name, arm in primaries.items()
        )
        yield (
            f"the arms of {task} have different primary metrics: {names}; "
            "evaluate them again with the same metric"
        )
    for run in runs:
        for seed in (repeat.seed for repeat in run.repeats if not _comparable(run, repeat)):
            path = results / "repeat" / str(seed) / run.arm / task / "metrics.json"
            yield (
                f"{path}: not comparable with {results / run.arm / task} "
                f"(primary metric, rows or metrics differ); {RERUN}"
            )


def _comparable(run: RunResult, repeat: Repeat) -> bool:
    """Whether a repeat has the same metrics on the same units as its run."""
    properties = [
        (
            result.metrics.kind,
            result.metrics.primary,
            result.metrics.rows.get("test"),
            result.metrics.test.keys(),
            result.counts and result.counts.units,
            result.counts and result.counts.formulas,
        )
        for result in (run, repeat)
        if result.metrics
    ]
    return len(properties) == 2 and properties[0] == properties[1]


def _run(
    arm: str, task: str, results: Path, predictions: Path, runs: Path, seeds: Sequence[int]
) -> RunResult:
    folder = predictions / arm / task
    labels = table(results / arm / task / "labels.tsv", ("label", "support"), text="label")
    metrics, counts = _test_results(results / arm / task, folder)
    by_seed = {
        seed: _test_results(
            *(root / "repeat" / str(seed) / arm / task for root in (results, predictions))
        )
        for seed in seeds
    }
    repeats = tuple(
        Repeat(seed, scores, units)
        for seed, (scores, units) in by_seed.items()
        if metrics and scores
    )
    return RunResult(
        arm,
        task,
        metrics,
        labels,
        _training(runs / arm / task),
        counts,
        confidences=parquet(folder / "confidences.parquet", CONFIDENCES),
        claims=parquet(folder / "claims.parquet", CLAIMS),
        measures=parquet(folder / "measures.parquet", (*MEASURES, "right")),
        texts=parquet(folder / "texts.parquet", TEXTS),
        repeats=repeats,
    )


def _test_results(
    results: Path, predictions: Path
) -> tuple[MetricsDocument | None, UnitCounts | None]:
    metrics, counts = _metrics(results / "metrics.json"), load_counts(predictions)
    if metrics and counts:
        _check_same(metrics, counts, results, predictions)
    return metrics, counts


def load_counts(folder: Path) -> UnitCounts | None:
    """The counts of the test units of a run, by its folder of predictions; None if it has none.

    Raises UserError if a column is missing.
    """
    values = document(folder / "formulas.json")
    frame = parquet(folder / "counts.parquet", ("unit",))
    if values is None or frame is None:
        return None
    formulas = {name: tuple(map(tuple, formula)) for name, formula in values.items()}
    missing = {
        column for formula in formulas.values() for part in formula for column in part
    } - set(frame.columns)
    if missing:
        raise UserError(f"{folder}/counts.parquet: no column {', '.join(sorted(missing))}; {RERUN}")
    columns = {
        str(name): frame[name].to_numpy(np.float64) for name in frame.columns if name != "unit"
    }
    return UnitCounts(tuple(frame["unit"]), columns, formulas)


def _check_same(
    metrics: MetricsDocument, counts: UnitCounts, results: Path, predictions: Path
) -> None:
    """Raise UserError if the counts do not add up to the scores, as with files of two runs."""
    sums = {name: values.sum(keepdims=True) for name, values in counts.columns.items()}
    for name, formula in counts.formulas.items():
        known, computed = metrics.test.get(name), float(apply_formula(formula, sums)[0])
        if known is not None and not math.isclose(known, computed, rel_tol=1e-9, abs_tol=1e-9):
            raise UserError(
                f"{predictions}/counts.parquet: add up to {name} {computed:.2f}, but "
                f"{results}/metrics.json has {known:.2f}; {RERUN}"
            )


def _metrics(path: Path) -> MetricsDocument | None:
    values = document(path)
    if values is None:
        return None
    primary, test = values.get("primary"), numbers(values, "test", path)
    if not isinstance(primary, str) or primary not in test:
        known = ", ".join(test) or "none"
        raise UserError(
            f"{path}: primary: found {primary!r}, expected one of the scores in 'test' ({known}); "
            f"{RERUN}"
        )
    parameters = numbers(values, "parameters", path)
    validation, rows = numbers(values, "validation", path), numbers(values, "rows", path)
    return MetricsDocument(
        kind_in(values, path),
        primary,
        test,
        validation,
        rows,
        parameters.get("trained"),
        parameters.get("backbone"),
    )


def _training(folder: Path) -> Training:
    path = folder / "run.json"
    values = document(path) or {}
    rates = numbers(values, "learning_rates", path)
    facts = numbers({"run": {key: values.get(key) for key in FACTS}}, "run", path)
    consumed = typed(values, "consumed_by_corpus", dict, path)
    return Training(
        table(folder / "train.tsv", ("step", "loss")),
        table(folder / "validation.tsv", ("step",)),
        facts,
        rates,
        {corpus: numbers(consumed, corpus, path) for corpus in consumed},
        tuple(map(str, typed(values, "pretrained_on", list, path))),
    )


def _mixture(name: str, path: Path, run: Path) -> Mixture:
    values = document(path)
    if values is None:
        return Mixture(name, None, {}, (), _training(run))
    raw, leaks = typed(values, "corpora", dict, path), typed(values, "leaks", list, path)
    corpora = {corpus: numbers(raw, corpus, path) for corpus in raw}
    settings = numbers(
        {"mixture": {key: values.get(key) for key in ("temperature", "cap", "unit")}},
        "mixture",
        path,
    )
    warnings = tuple(map(str, typed(values, "warnings", list, path)))
    return Mixture(
        name,
        corpora,
        settings,
        tuple(_leak(leak, path) for leak in leaks),
        _training(run),
        warnings,
        str(values.get("on_leak", "report")),
    )


def _leak(value: object, path: Path) -> Leak:
    if not isinstance(value, dict):
        raise UserError(f"{path}: leaks: found {value!r}, expected a mapping; {RERUN}")
    counts = numbers(
        {"leaks": {key: value.get(key) for key in ("rows", "equal", "contained", "train_rows")}},
        "leaks",
        path,
    )
    train, held_out, split = (str(value.get(key, "")) for key in ("train", "held_out", "split"))
    return Leak(
        train, held_out, split, counts, tuple(map(str, typed(value, "examples", list, path)))
    )
