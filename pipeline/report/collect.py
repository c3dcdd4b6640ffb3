"""What the other stages left on disk, read and checked. An absent file is None; a malformed one is a UserError that names it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError

RERUN = "rerun the stage that writes it"
FACTS = ("seconds", "steps", "best_step", "rows_seen", "tokens_seen", "seed", "ranks")
COLUMNS = {"step", "loss", "score", "label", "precision", "recall", "f1", "support"}  # also loss_TASK and score_TASK
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
    """One arm on one task."""

    arm: str
    task: str
    metrics: Metrics | None
    labels: pd.DataFrame | None
    training: Training


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


def collect(results: Path, runs: Path, mixtures: Sequence[Path], tasks: Sequence[str], arms: Sequence[str]) -> Evidence:
    """Read everything; raises one UserError with the problems of all malformed files."""
    problems: list[str] = []
    read = []
    for arm, task in ((arm, task) for task in tasks for arm in arms):
        try:
            read.append(_run(arm, task, results / arm / task, runs / arm / task))
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
    return Evidence(tuple(arms), tuple(tasks), tuple(read), tuple(mixed))


def _incomparable(task: str, runs: Sequence[Run], results: Path) -> Iterator[str]:
    primaries = {run.metrics.primary: run.arm for run in runs if run.metrics}
    if len(primaries) > 1:
        found = ", ".join(f"{results / arm / task / 'metrics.json'} has {name!r}" for name, arm in primaries.items())
        yield f"the arms of {task} have different primary metrics: {found}; evaluate them again with one"


def _run(arm: str, task: str, results: Path, run: Path) -> Run:
    labels = _table(results / "labels.tsv", ("label", "f1", "support"), text="label")
    return Run(arm, task, _metrics(results / "metrics.json"), labels, _training(run))


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
