"""The tables of the report. HTML and Markdown share their cells."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean

import pandas as pd

from pipeline.arms import ARMS, MULTITASK
from pipeline.report import kinds
from pipeline.report.collect import MetricsDocument, ReportInputs, RunResult
from pipeline.report.intervals import gap, interval_of, tied_for_best
from pipeline.report.plots import arm_color
from pipeline.report.stage_outputs import Scores
from pipeline.tasks.base.marked_text import MarkedText

DASH = "—"
OURS = MULTITASK.name


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell. `note` is small, `best` is bold, `color` is that of a dot before it (HTML only).

    `marked` is the text with colored spans, in place of `text` (HTML only).
    """

    text: str
    note: str = ""
    best: bool = False
    color: str = ""
    marked: MarkedText | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. The first `headers` cells of each row are row headers.

    Row headers are left-aligned, numbers right-aligned. In a table of `prose` all cells are
    left-aligned.
    """

    caption: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    prose: bool = False
    headers: int = 1

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.caption


def score(value: float | None) -> str:
    """`71.2`."""
    return DASH if value is None or math.isnan(value) else f"{value:.1f}"


def count(value: float | None) -> str:
    """`141,312`; fractions below 100 have one decimal: `12.3`."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction as `0.62 %`, or with one decimal above 10 %."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.{decimals if value < 0.1 else 1}f} %"


def factor(value: float | None) -> str:
    """A learning rate, a temperature, a number of epochs: `0.05`."""
    return DASH if value is None or math.isnan(value) else f"{value:.3g}"


def span(values: Iterable[float | None], write: Callable[[float | None], str]) -> str:
    """`write(minimum)–write(maximum)`, or a single text if both are equal."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    ends = dict.fromkeys(write(value) for value in ((min(known), max(known)) if known else (None,)))
    return "–".join(ends)


def join_and(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def primary(run: RunResult | None) -> float | None:
    """The primary test score."""
    return metric_value(run, run.metrics.primary) if run and run.metrics else None


def metric_value(run: RunResult, name: str) -> float | None:
    """A test metric; the mean over seeds."""
    values = run.values(name)
    return fmean(values) if values else None


def best_arms(runs: Sequence[RunResult]) -> list[str]:
    """The arms with the highest score, rounded to one decimal."""
    known = [(run.arm, score(value)) for run in runs if (value := primary(run)) is not None]
    top = max((float(text) for _, text in known), default=0.0)
    return [arm for arm, text in known if float(text) == top]


def is_comparison(runs: Sequence[RunResult]) -> bool:
    """Whether at least two runs of a task have a score."""
    return sum(primary(run) is not None for run in runs) > 1


def share_trained(run: RunResult | None) -> float | None:
    """The trained parameters as a fraction of the backbone's parameters."""
    if not run or not run.metrics or run.metrics.trained is None or not run.metrics.backbone:
        return None
    return run.metrics.trained / run.metrics.backbone


def trained(run: RunResult | None) -> float | None:
    """The number of trained parameters."""
    return run.metrics.trained if run and run.metrics else None


def metric_name(runs: Sequence[RunResult]) -> str:
    """The title of the primary metric; empty before any evaluation."""
    return next(
        (kinds.title(run.metrics.kind, run.metrics.primary) for run in runs if run.metrics), ""
    )


def comparison(inputs: ReportInputs) -> Table:
    """Test scores by arm and task, with the cost of each arm."""
    columns = [Cell("arm")]
    for task in inputs.tasks:
        runs = inputs.of_task(task)
        rows = span((run.metrics.rows.get("test") for run in runs if run.metrics), count)
        columns.append(
            Cell(
                task,
                " · ".join(
                    filter(None, [metric_name(runs), f"{rows} test rows" if rows != DASH else ""])
                ),
            )
        )
    columns += [
        Cell("parameters trained", "share of the backbone"),
        Cell("steps"),
        Cell("tokens", "of training"),
        Cell("seed"),
    ]
    best = {
        task: tied_for_best(runs, best_arms(runs)) if is_comparison(runs) else []
        for task, runs in ((task, inputs.of_task(task)) for task in inputs.tasks)
    }
    body = (*(_arm(inputs, arm, best) for arm in inputs.arms), *_published(inputs))
    return Table("Test scores by arm and task", tuple(columns), body)


def _published(inputs: ReportInputs) -> Iterator[tuple[Cell, ...]]:
    """Published scores, below the arms."""
    for source, arms in inputs.published.items():
        for arm, scores in arms.items():
            yield (
                arm_header(arm, source),
                *(Cell(score(scores.get(task))) for task in inputs.tasks),
                *[Cell(DASH)] * 4,
            )


def _arm(inputs: ReportInputs, arm: str, best: dict[str, list[str]]) -> tuple[Cell, ...]:
    cells = [arm_header(arm, ARMS[arm].title if arm in ARMS else "")]
    for task in inputs.tasks:
        run = inputs.run(arm, task)
        cells.append(
            Cell(
                score(primary(run)),
                _notes(run, run.metrics) if run and run.metrics else "",
                arm in best[task],
            )
        )
    runs = [run for run in inputs.runs if run.arm == arm]
    shares = span(map(share_trained, runs), percent)
    cells.append(Cell(span(map(trained, runs), count), shares if shares != DASH else ""))
    cells += [
        Cell(span((run.training.facts.get(key) for run in runs), count))
        for key in ("steps", "tokens_seen")
    ]
    return (
        *cells,
        Cell(", ".join(dict.fromkeys(seed for run in runs for seed in _seeds(run))) or DASH),
    )


def _notes(run: RunResult, metrics: MetricsDocument) -> str:
    """The note of a score: interval, scores of all seeds, and the validation score."""
    validation = metrics.validation.get(metrics.primary)
    return " · ".join(
        filter(
            None,
            (
                interval_text(run, metrics.primary),
                f"of {', '.join(map(score, run.values(metrics.primary)))}" if run.repeats else "",
                f"validation {score(validation)}" if validation is not None else "",
            ),
        )
    )


def _seeds(run: RunResult) -> list[str]:
    seed = run.training.facts.get("seed")
    return [] if seed is None else [str(seed), *(str(repeat.seed) for repeat in run.repeats)]


def interval_text(run: RunResult, metric: str) -> str:
    """The interval of a test metric as `56.1–61.4`; empty if there is none."""
    bounds = interval_of(run, metric)
    return f"{score(bounds[0])}–{score(bounds[1])}" if bounds else ""


def differences(inputs: ReportInputs) -> Table | None:
    """The differences of the arms of each task to multitask, with their significance."""
    columns = ("task", "arm", "difference", "95 % interval", "p", "verdict")
    rows = []
    for task in inputs.tasks:
        ours = inputs.run(OURS, task)
        others = [
            run for run in inputs.of_task(task) if run.arm != OURS and primary(run) is not None
        ]
        rows += [
            (Cell(task), arm_header(run.arm), *map(Cell, _difference(ours, run)))
            for run in others
            if ours
        ]
    if not rows:
        return None
    return Table(
        f"Differences to {OURS}, in points of the test score",
        tuple(map(Cell, columns)),
        tuple(rows),
        headers=2,
    )


def _difference(ours: RunResult, other: RunResult) -> tuple[str, ...]:
    difference = gap(other, ours)
    if difference is None:
        return _difference_without_interval(ours, other)
    verdict = (
        f"{other.arm if difference.value > 0 else ours.arm} is better"
        if difference.is_significant
        else "not significant"
    )
    if bool(ours.repeats) != bool(other.repeats):
        verdict += f" (first seed of {(ours if ours.repeats else other).arm} only)"
    return (
        signed(difference.value),
        f"{signed(difference.low)} to {signed(difference.high)}",
        f"{difference.p:.3f}",
        verdict,
    )


def _difference_without_interval(ours: RunResult, other: RunResult) -> tuple[str, ...]:
    """Only the scores of metrics that have no intervals, as BLEU, are compared."""
    scores = primary(other), primary(ours)
    if scores[0] is None or scores[1] is None or _has_interval(ours) or _has_interval(other):
        return (DASH,) * 4
    return signed(scores[0] - scores[1]), DASH, DASH, "no interval"


def _has_interval(run: RunResult) -> bool:
    return run.metrics is not None and run.metrics.primary in run.samples


def signed(difference: float) -> str:
    """`+1.2`, or `−1.2` with a typographic minus sign."""
    return f"{difference:+.1f}".replace("-", "−")


def arm_header(arm: str, note: str = "") -> Cell:
    """The header of an arm, with its color."""
    return Cell(arm, note, color=arm_color(arm))


def test_metrics(runs: Sequence[RunResult]) -> Table | None:
    """All test metrics of a task."""
    metrics = {name for run in runs if run.metrics for name in run.metrics.test}
    titles = next((kinds.titles(run.metrics.kind) for run in runs if run.metrics), {})
    names = [name for name in titles if name in metrics] + sorted(metrics - titles.keys())
    rows = tuple((arm_header(run.arm), *(_metric(name, run) for name in names)) for run in runs)
    return (
        Table(
            "Test metrics", (Cell("arm"), *(Cell(titles.get(name, name)) for name in names)), rows
        )
        if names
        else None
    )


def _metric(name: str, run: RunResult) -> Cell:
    """A metric in percent, or a count (an integer in metrics.json)."""
    value = metric_value(run, name)
    is_count = isinstance(run.metrics and run.metrics.test.get(name), int)
    return Cell(count(value) if is_count else score(value), interval_text(run, name))


def cost(runs: Sequence[RunResult]) -> Table | None:
    """Trained parameters, training data, learning rates and seed of each arm."""
    if not any(
        run.metrics or any(value is not None for value in run.training.facts.values())
        for run in runs
    ):
        return None
    names = (
        "parameters trained",
        "of the backbone",
        "steps",
        "best step",
        "rows seen",
        "tokens seen",
        "learning rates",
        "seed",
    )
    return Table("Training", (Cell("arm"), *map(Cell, names)), tuple(_cost(run) for run in runs))


def _cost(run: RunResult) -> tuple[Cell, ...]:
    facts = run.training.facts
    counts = [count(facts.get(key)) for key in ("steps", "best_step", "rows_seen", "tokens_seen")]
    seed = facts.get("seed")
    texts = (
        count(trained(run)),
        percent(share_trained(run)),
        *counts,
        learning_rates(run.training.learning_rates),
    )
    return (arm_header(run.arm), *map(Cell, texts), Cell(DASH if seed is None else str(seed)))


def learning_rates(rates: Scores) -> str:
    """`prompt 0.05, head 0.001`."""
    return (
        ", ".join(f"{name} {factor(rate)}" for name, rate in rates.items() if rate is not None)
        or DASH
    )


def labels(runs: Sequence[RunResult]) -> Table | None:
    """F1 by label and arm, most frequent labels first."""
    frame = label_scores(runs)
    if frame is None:
        return None
    arms = [column for column in frame.columns if column != "support"]
    rows = tuple(
        (Cell(str(label)), Cell(count(row["support"])), *(Cell(score(row[arm])) for arm in arms))
        for label, row in frame.iterrows()
    )
    return Table(
        "F1 by label, test", (Cell("label"), Cell("support"), *map(arm_header, arms)), rows
    )


def label_metrics(runs: Sequence[RunResult]) -> Iterator[Table]:
    """A table per arm with the scores of each label, for labels with other scores than F1."""
    for run in runs:
        frame = run.labels
        if frame is None or not len(frame) or "f1" in frame:
            continue
        kind = run.metrics.kind if run.metrics else None
        names = [name for name in frame.columns if name not in ("label", "support")]
        rows = tuple(
            (
                Cell(str(row["label"])),
                Cell(count(row["support"])),
                *(Cell(score(row[name])) for name in names),
            )
            for _, row in frame.iterrows()
        )
        titles = (kinds.title(kind, name) for name in names)
        columns = (Cell("label"), Cell("support"), *map(Cell, titles))
        yield Table(f"Scores by label, {run.arm}, test", columns, rows)


def label_scores(runs: Sequence[RunResult]) -> pd.DataFrame | None:
    """Support and F1 of each label (index), with a column for each arm that has scores."""
    scored = {
        run.arm: run.labels.set_index("label")
        for run in runs
        if run.labels is not None and len(run.labels) and "f1" in run.labels
    }
    if not scored:
        return None
    f1 = pd.DataFrame(
        {arm: frame["f1"][~frame.index.duplicated()] for arm, frame in scored.items()}
    )
    support = pd.concat([frame["support"] for frame in scored.values()]).groupby(level=0).max()
    f1.insert(0, "support", support)
    order = sorted(f1.index, key=lambda label: (-f1["support"].fillna(0)[label], label))
    return f1.loc[order]
