"""What the other stages left on disk, read and checked. An absent file is None; a malformed one is a UserError that names it."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bootstrap import Samples, resampled
from pipeline.errors import UserError
from pipeline.metrics.base import UnitCounts, figure

RERUN = "rerun the stage that writes it"
FACTS = ("seconds", "steps", "best_step", "rows_seen", "tokens_seen", "seed", "ranks")
COLUMNS = {"step", "loss", "score", "label", "precision", "recall", "f1", "support",  # also loss_TASK and score_TASK
           "suite", "changed", "layer", "head", "prompt", "cosine"}
CONFIDENCES = ("kind", "raw", "calibrated", "right")
MEASURES = ("raw", "calibrated", "margin", "agreement")  # of confidence
CLAIMS = ("id", "text", "gold_label", "predicted_label", "gold", "predicted", "right", "calibrated")
Scores = dict[str, float | None]
Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Source -> arm -> task -> score."""


@dataclasses.dataclass(frozen=True)
class Metrics:
    """`metrics.json`: scores are 0-100, None where undefined."""

    primary: str
    test: Scores
    validation: Scores
    rows: Scores
    trained: float | None
    backbone: float | None


@dataclasses.dataclass(frozen=True)
class Training:
    """One training run: its curves and its `run.json`. `drawn` is what it drew of each corpus of a mixture."""

    train: pd.DataFrame | None
    validation: pd.DataFrame | None
    facts: Scores
    learning_rates: Scores
    drawn: dict[str, Scores] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm on one task. `samples` are those of its `counts`, of the same units for all arms whose counts have the same.

    `confidences` and `claims` have the columns CONFIDENCES and CLAIMS, `measures` MEASURES and `right`.
    """

    arm: str
    task: str
    metrics: Metrics | None
    labels: pd.DataFrame | None
    training: Training
    counts: UnitCounts | None = None
    samples: Samples = dataclasses.field(default_factory=dict)
    confidences: pd.DataFrame | None = None
    claims: pd.DataFrame | None = None
    measures: pd.DataFrame | None = None


@dataclasses.dataclass(frozen=True)
class Leak:
    """Held-out `rows` of one corpus whose texts are in train rows of another, or of itself: `equal` to them or `contained`."""

    train: str
    held_out: str
    split: str
    counts: Scores
    examples: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One mixture and the multi-task run on it. `corpora` is None where the mixture's own file is absent; `on_leak` says what
    became of train rows that leak.
    """

    name: str
    corpora: dict[str, Scores] | None
    settings: Scores
    leaks: tuple[Leak, ...]
    training: Training
    warnings: tuple[str, ...] = ()
    on_leak: str = "report"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a report is made of, in the order in which it is shown."""

    arms: tuple[str, ...]
    tasks: tuple[str, ...]
    runs: tuple[Run, ...]
    mixtures: tuple[Mixture, ...]
    published: Published = dataclasses.field(default_factory=dict)

    def of_task(self, task: str) -> list[Run]:
        """One run per arm, in the arms' order."""
        return [run for run in self.runs if run.task == task]

    def run(self, arm: str, task: str) -> Run | None:
        """That arm on that task, where both were asked for."""
        return next((run for run in self.runs if (run.arm, run.task) == (arm, task)), None)


def collect(results: Path, predictions: Path, runs: Path, mixtures: Sequence[Path], tasks: Sequence[str],
            arms: Sequence[str]) -> Evidence:
    """Read everything; raises one UserError with the problems of all malformed files."""
    problems: list[str] = []
    read = []
    for arm, task in ((arm, task) for task in tasks for arm in arms):
        try:
            read.append(_run(arm, task, results / arm / task, predictions / arm / task, runs / arm / task))
        except UserError as error:
            problems.extend(error.problems)
    mixed = []
    for mixture in mixtures:
        try:
            mixed.append(_mixture(mixture.stem, mixture, runs / "pretrain" / mixture.stem))
        except UserError as error:
            problems.extend(error.problems)
    for task in tasks:
        problems.extend(_incomparable(task, [run for run in read if run.task == task], results))
    if problems:
        raise UserError(*problems)
    sampled = [run for task in tasks for run in _sampled([run for run in read if run.task == task])]
    return Evidence(tuple(arms), tuple(tasks), tuple(sampled), tuple(mixed))


def _sampled(runs: Sequence[Run]) -> list[Run]:
    """The runs of a task with their samples."""
    found: dict[str, Samples] = {}
    for units in dict.fromkeys(run.counts.units for run in runs if run.counts):
        same = {run.arm: run.counts for run in runs if run.counts and run.counts.units == units}
        found |= zip(same, resampled(list(same.values())), strict=True)
    return [dataclasses.replace(run, samples=found.get(run.arm, {})) for run in runs]


def _incomparable(task: str, runs: Sequence[Run], results: Path) -> Iterator[str]:
    primaries = {run.metrics.primary: run.arm for run in runs if run.metrics}
    if len(primaries) > 1:
        found = ", ".join(f"{results / arm / task / 'metrics.json'} has {name!r}" for name, arm in primaries.items())
        yield f"the arms of {task} have different primary metrics: {found}; evaluate them again with one"


def _run(arm: str, task: str, results: Path, predictions: Path, run: Path) -> Run:
    labels = _table(results / "labels.tsv", ("label", "f1", "support"), text="label")
    metrics, counts = _metrics(results / "metrics.json"), _counts(predictions)
    if metrics and counts:
        _check_same(metrics, counts, results, predictions)
    return Run(arm, task, metrics, labels, _training(run), counts, {},
               _parquet(predictions / "confidences.parquet", CONFIDENCES), _parquet(predictions / "claims.parquet", CLAIMS),
               _parquet(predictions / "measures.parquet", (*MEASURES, "right")))


def _counts(folder: Path) -> UnitCounts | None:
    figures, frame = _document(folder / "figures.json"), _parquet(folder / "counts.parquet", ("unit",))
    if figures is None or frame is None:
        return None
    formulas = {name: tuple(map(tuple, formula)) for name, formula in figures.items()}
    missing = {column for formula in formulas.values() for part in formula for column in part} - set(frame.columns)
    if missing:
        raise UserError(f"{folder}/counts.parquet: no column {', '.join(sorted(missing))}; {RERUN}")
    columns = {str(name): frame[name].to_numpy(np.float64) for name in frame.columns if name != "unit"}
    return UnitCounts(tuple(frame["unit"]), columns, formulas)


def _check_same(metrics: Metrics, counts: UnitCounts, results: Path, predictions: Path) -> None:
    """Raise UserError where counts do not add up to the score: they would be those of another run."""
    sums = {name: values.sum(keepdims=True) for name, values in counts.columns.items()}
    for name, formula in counts.figures.items():
        known, found = metrics.test.get(name), float(figure(formula, sums)[0])
        if known is not None and not math.isclose(known, found, rel_tol=1e-9, abs_tol=1e-9):
            raise UserError(f"{predictions}/counts.parquet: add up to {name} {found:.2f}, but {results}/metrics.json has "
                            f"{known:.2f}; {RERUN}")


def _parquet(path: Path, required: Sequence[str]) -> pd.DataFrame | None:
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}; {RERUN}") from None
    missing = set(required) - set(frame.columns)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; {RERUN}")
    return frame


def _metrics(path: Path) -> Metrics | None:
    values = _document(path)
    if values is None:
        return None
    primary, test = values.get("primary"), _numbers(values, "test", path)
    if not isinstance(primary, str) or primary not in test:
        known = ", ".join(test) or "none"
        raise UserError(f"{path}: primary: found {primary!r}, expected one of the scores in 'test' ({known}); {RERUN}")
    parameters = _numbers(values, "parameters", path)
    validation, rows = _numbers(values, "validation", path), _numbers(values, "rows", path)
    return Metrics(primary, test, validation, rows, parameters.get("trained"), parameters.get("backbone"))


def _training(folder: Path) -> Training:
    path = folder / "run.json"
    values = _document(path) or {}
    rates = _numbers(values, "learning_rates", path)
    facts = _numbers({"run": {key: values.get(key) for key in FACTS}}, "run", path)
    drawn = _typed(values, "drawn", dict, path)
    return Training(_table(folder / "train.tsv", ("step", "loss")), _table(folder / "validation.tsv", ("step",)), facts, rates,
                    {corpus: _numbers(drawn, corpus, path) for corpus in drawn})


def _mixture(name: str, path: Path, run: Path) -> Mixture:
    values = _document(path)
    if values is None:
        return Mixture(name, None, {}, (), _training(run))
    raw, leaks = _typed(values, "corpora", dict, path), _typed(values, "leaks", list, path)
    corpora = {corpus: _numbers(raw, corpus, path) for corpus in raw}
    settings = _numbers({"mixture": {key: values.get(key) for key in ("temperature", "cap", "unit")}}, "mixture", path)
    warnings = tuple(map(str, _typed(values, "warnings", list, path)))
    return Mixture(name, corpora, settings, tuple(_leak(leak, path) for leak in leaks), _training(run), warnings,
                   str(values.get("on_leak", "report")))


def _leak(value: object, path: Path) -> Leak:
    if not isinstance(value, dict):
        raise UserError(f"{path}: leaks: found {value!r}, expected a mapping; {RERUN}")
    counts = _numbers({"leaks": {key: value.get(key) for key in ("rows", "equal", "contained", "train_rows")}}, "leaks", path)
    train, held_out, split = (str(value.get(key, "")) for key in ("train", "held_out", "split"))
    return Leak(train, held_out, split, counts, tuple(map(str, _typed(value, "examples", list, path))))


def _document(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; {RERUN}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; {RERUN}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {type(values).__name__}, expected a JSON object; {RERUN}")
    return values


def _typed(values: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = values.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise UserError(f"{path}: {key}: found {value!r}, expected a {kind.__name__}; {RERUN}")
    return value


def _numbers(values: dict[str, Any], key: str, path: Path) -> Scores:
    """The mapping at `key`, empty where there is none; NaN, which JSON does not have but Python writes, becomes None."""
    scores: Scores = {}
    for name, value in _typed(values, key, dict, path).items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{path}: {key}: {name}: found {value!r}, expected a number; {RERUN}")
        scores[name] = None if value is None or value != value else value  # noqa: PLR0124
    return scores


def _table(path: Path, required: Sequence[str], text: str = "") -> pd.DataFrame | None:
    """The known columns of a TSV, numbers but for the column `text`; an empty field is NaN."""
    try:  # All as text first: a label may be spelled "NA" or "null".
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8")
        frame = frame[[column for column in frame.columns if column.split("_")[0] in COLUMNS]]
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: not a table of tab-separated UTF-8 text: {str(error).strip()}; {RERUN}") from None
    missing = [column for column in required if column not in frame.columns]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}; {RERUN}")
    return frame.assign(**{str(name): _column(frame[name], path) for name in frame.columns if name != text})


def _column(column: "pd.Series[str]", path: Path) -> "pd.Series[float]":
    stripped = column.fillna("").str.strip()
    numbers = pd.to_numeric(stripped, errors="coerce").astype(float)
    bad = numbers.isna() & ~stripped.str.lower().isin(["", "nan"])
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(f"{path}:{row + 2}: {column.name}: found {stripped.iloc[row]!r}, expected a number; {RERUN}")
    return numbers


@dataclasses.dataclass(frozen=True)
class Probe:
    """One arm on one task, tried out: `suites` and `layers` have the tables that the stage `probe` writes."""

    arm: str
    task: str
    primary: str
    figures: Scores
    suites: pd.DataFrame
    layers: pd.DataFrame


def probe_of(results: Path, arm: str, task: str) -> Probe | None:
    """What `results/probe/ARM/TASK` says; None where it is absent. Raises UserError: a malformed file."""
    folder = results / "probe" / arm / task
    values = _document(folder / "metrics.json")
    suites = _table(folder / "suites.tsv", ("suite", "score", "loss", "changed"), text="suite")
    layers = _table(folder / "layers.tsv", ("layer", "score", "loss"))
    if values is None or suites is None or layers is None:
        return None
    figures = _numbers({"probe": {key: values.get(key) for key in ("score", "rows")}}, "probe", folder / "metrics.json")
    return Probe(arm, task, str(values.get("primary")), figures, suites, layers)


def shift_of(results: Path, arm: str, model: str, data: str) -> Scores | None:
    """What `results/out_of_domain/ARM/MODEL-on-DATA` says: scores at `home` and `there`, `loss`, `rows`; None where absent."""
    path = results / "out_of_domain" / arm / f"{model}-on-{data}" / "metrics.json"
    values = _document(path)
    keys = ("home", "there", "loss", "rows")
    return None if values is None else _numbers({"scores": {key: values.get(key) for key in keys}}, "scores", path)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The scores of a task's head by the prompt it is under, and how like the task's own each prompt is, by layer."""

    task: str
    scores: Scores
    cosines: pd.DataFrame


def transfer_of(results: Path, task: str) -> Transfer | None:
    """What `results/transfer/TASK` says; None where it is absent."""
    folder = results / "transfer" / task
    values = _document(folder / "metrics.json")
    cosines = _table(folder / "cosines.tsv", ("prompt", "layer", "cosine"), text="prompt")
    if values is None or cosines is None:
        return None
    return Transfer(task, _numbers(values, "scores", folder / "metrics.json"), cosines)
