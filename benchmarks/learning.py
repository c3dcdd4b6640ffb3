"""Quality of each arm on real corpora.

    python -m benchmarks.learning OUT full TASK[,TASK] ARM[,ARM] SEED[,SEED] [KEY=VALUE ...]
    python -m benchmarks.learning OUT few  TASK:ROWS[,...] ARM[,ARM] SEED[,SEED] [KEY=VALUE ...]
    python -m benchmarks.learning OUT new CORPUS[,CORPUS] ARM[,ARM] SEED[,SEED]
    python -m benchmarks.learning OUT table
    python -m benchmarks.learning OUT means
    python -m benchmarks.learning OUT curves

Run it in a project with features and, for `multitask`, shared prompts (`dvc repro featurize
pretrain`). All arms train on the same rows in the same number of steps. The first seed searches the
learning rates of an arm by validation (see `search_rate`); the other seeds run the best of them.
The best runs are also scored on the test set.

`few` trains on a subset of the training rows, selected by a hash. `new` does so with 50, 200 and
1,000 rows (or all, if a corpus has fewer), the first seed only at 50 and 1,000; the project is
`presets/left_one_out.yaml`, whose shared prompts have not seen the corpus.

OUT is a JSON lines file with one line per run; runs in it are not repeated. KEY=VALUE overrides a
param of every arm, `init_from=imported/NAME` sets the initialization of `multitask`, and
`rate=RATE` is the only learning rate, without a search (in an OUT without other rates). `table`
prints Markdown: each arm and task. `means` prints the means over tasks, and the number of tasks
that each arm wins. `curves` prints the validation scores of the best runs by rows seen.
"""

import dataclasses
import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.peft_models import Adapted, PeftModel
from benchmarks.scores import primary_score
from pipeline.arms import ARMS, FINE_TUNE, Arm
from pipeline.config import load_json, load_yaml
from pipeline.evaluation.splits import SUBSET_SEED, load_eval_set
from pipeline.features.subset import FeatureSubset
from pipeline.mixing.rates import RATE_SCALE
from pipeline.params import Params, TrainParams, task_of, unused_keys
from pipeline.seeding import permute
from pipeline.training.callbacks import TrainingRun, total
from pipeline.training.setup import TaskData, TrainingSetup, heads_for
from stages import finetune
from stages.runtime.params import load_params
from stages.runtime.paths import EXAMPLES, FEATURES
from stages.training import run as stage_run

LEARNING_RATES = load_yaml(Path(__file__).with_name("learning_rates.yaml"))
EPOCHS = {50: 20.0, 200: 10.0, 1000: 3.0}
"""Training rows of a new corpus -> passes over them."""
COLUMNS = (
    "task",
    "train rows",
    "arm",
    "rate",
    "test by seed",
    "mean",
    "validation",
    "rows seen",
    "trained",
    "CPU s",
)
KEY = ("arm", "task", "rows", "rate", "seed", "changes")
"""The values that identify a run."""
Run = dict[str, Any]


def run(
    arm: str,
    task: str,
    rows: int | None,
    rate: float,
    seed: int,
    changes: dict[str, Any],
    best: float,
) -> Run:
    """Train an arm once; return its scores in percent and its cost.

    It is scored on the test set if its validation score is above `best`.
    """
    params = dataclasses.replace(load_params(), seed=seed)
    if init_from := changes.pop("init_from", None):
        task_params = dataclasses.replace(params.tasks[task], init_from=init_from)
        params = dataclasses.replace(params, tasks={**params.tasks, task: task_params})
    record = ARMS.get(arm, FINE_TUNE)  # peft's own parameters are in the backbone
    training = _training(params, record, task, rate, changes)
    setup = _set_up(arm, task, training, params, changes.get("num_virtual_tokens", 32))
    if rows is not None:
        setup = dataclasses.replace(setup, tasks=[with_train_rows(setup.tasks[0], rows)])
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        stage_run.WORK = Path(folder)  # type: ignore[attr-defined]
        result, _ = stage_run.fit(f"{arm}-{task}", record.name, setup, training, params)
    cpu_seconds = time.process_time() - started
    trained = sum(parameter.numel() for parameter in setup.model.trainable_state().values())
    return {
        "arm": arm,
        "task": task,
        "rows": rows,
        "rate": rate,
        "seed": seed,
        "changes": changes,
        "validation": result.best_score,
        "test": _test_score(setup, params) if result.best_score > best else None,
        "rows_seen": total(result.consumed, "rows"),
        "steps": len(result.train),
        "curve": _curve(result),
        "trained": trained,
        "backbone": setup.model.backbone.num_parameters,
        "cpu_seconds": round(cpu_seconds, 1),
    }


def _curve(result: TrainingRun) -> list[tuple[int, float]]:
    """The rows seen before each validation (proportional to its step), and its score."""
    rows_per_step = total(result.consumed, "rows") / len(result.train)
    return [(round(rows_per_step * row["step"]), row["score"]) for row in result.validation]


def _training(
    params: Params, arm: Arm, task: str, rate: float, changes: dict[str, Any]
) -> TrainParams:
    """Return an arm's params with this learning rate and the changes that apply to the arm."""
    unused = unused_keys(arm.params, changes)
    applied = {key: value for key, value in changes.items() if key not in unused}
    applied[f"{arm.parts[0]}_lr"] = rate
    return dataclasses.replace(params.training(arm.name, task), **applied)


def _set_up(
    arm: str, task: str, training: TrainParams, params: Params, num_virtual_tokens: int
) -> TrainingSetup:
    if arm in ARMS:
        return finetune.set_up(ARMS[arm].name, task, training, params)
    data = TaskData.load(FEATURES / task, EXAMPLES / task, training.validation_rows)
    backbone = Adapted(params.backbone, num_virtual_tokens)
    heads = heads_for([data], backbone.hidden_size, params.seed)
    return TrainingSetup(PeftModel(backbone, heads), [data], [RATE_SCALE], {})


def with_train_rows(data: TaskData, rows: int) -> TaskData:
    """Keep this many training examples, the same for every arm and seed."""
    num_examples = int(data.train.examples[-1]) + 1
    dropped = permute(np.arange(rows, num_examples), num_examples, SUBSET_SEED)
    return dataclasses.replace(data, train=FeatureSubset(data.train, np.sort(dropped).tolist()))


def _test_score(setup: TrainingSetup, params: Params) -> float:
    data = setup.tasks[0]
    test_rows = task_of(params, data.name).test_rows
    test = load_eval_set(
        FEATURES / data.name, EXAMPLES / data.name, data.summary, "test", test_rows
    )
    return primary_score(setup.model, data.validation, test, data.primary, data.pad_token_id)


def measure(
    out: Path, tasks: str, arms: str, seeds: str, overrides: Sequence[str], few: bool
) -> None:
    """Run the trainings that `out` does not contain yet."""
    yaml = YAML(typ="safe")
    pairs = [override.split("=", 1) for override in overrides]
    changes = {key: yaml.load(value) for key, value in pairs}
    rate = changes.pop("rate", None)
    for task, rows in _tasks_and_rows(tasks, few):
        _measure_task(out, task, rows, arms, _seeds(seeds), changes, rate)


def measure_new(out: Path, tasks: str, arms: str, seeds: str) -> None:
    """Train each arm on few rows of each corpus."""
    sizes = {
        task: int(load_json(FEATURES / task / "summary.json")["splits"]["train"]["examples"])
        for task in tasks.split(",")
    }
    for rows in (200, 50, 1000):
        for task, size in sizes.items():
            if rows == 1000 and size <= 200:
                continue  # the same rows as at 200
            used_seeds = _seeds(seeds) if rows == 200 else _seeds(seeds)[:1]
            _measure_task(out, task, min(rows, size), arms, used_seeds, {"epochs": EPOCHS[rows]})


def _seeds(argument: str) -> list[int]:
    return [int(seed) for seed in argument.split(",")]


def _measure_task(
    out: Path,
    task: str,
    rows: int | None,
    arms: str,
    seeds: Sequence[int],
    changes: dict[str, Any],
    only_rate: float | None = None,
) -> None:
    """Search the rate of each arm with the first seed, and run the others with the best rate."""
    first_seed, *other_seeds = seeds
    for arm in arms.split(","):
        once = partial(_run_once, out, arm, task, rows, changes)
        rates = LEARNING_RATES[arm] if only_rate is None else [only_rate]
        rate = search_rate(rates, partial(once, first_seed))
        for seed in other_seeds:
            once(seed, rate)


def search_rate(rates: Sequence[float], validate: Callable[[float, float], float]) -> float:
    """The learning rate with the best validation score.

    `rates` ascend. The three in the middle are tried first, or all if there are fewer. While the
    best of the tried rates is at an end of them, the next rate beyond that end is tried. `validate`
    gets the rate and the best score so far.
    """
    scores: dict[float, float] = {}
    first = max(0, len(rates) - 3) // 2
    last = min(first + 2, len(rates) - 1)
    while True:
        for rate in rates[first : last + 1]:
            if rate not in scores:
                scores[rate] = validate(rate, max(scores.values(), default=-math.inf))
        best = rates.index(max(scores, key=lambda rate: scores[rate]))
        if best == first > 0:
            first -= 1
        elif best == last < len(rates) - 1:
            last += 1
        else:
            return rates[best]


def _tasks_and_rows(tasks: str, few: bool) -> Iterator[tuple[str, int | None]]:
    for argument in tasks.split(","):
        task, _, rows = argument.partition(":")
        yield task, int(rows) if few else None


def _run_once(
    out: Path,
    arm: str,
    task: str,
    rows: int | None,
    changes: dict[str, Any],
    seed: int,
    rate: float,
    best: float = -math.inf,
) -> float:
    """The validation score of a run, which is made if `out` does not contain it.

    A run of a search may have no test score (see `run`); outside a search (without `best`), it is
    made again.
    """
    key = dict(zip(KEY, (arm, task, rows, rate, seed, changes), strict=True))
    for previous in _read_runs(out):
        is_scored = previous["test"] is not None or best > -math.inf
        if is_scored and all(previous[name] == value for name, value in key.items()):
            return float(previous["validation"])
    result = {**run(arm, task, rows, rate, seed, dict(changes), best), **key}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    return float(result["validation"])


def _read_runs(out: Path) -> list[Run]:
    """The runs; of equal runs the last, which has a test score."""
    if not out.exists():
        return []
    runs: dict[str, Run] = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        runs[json.dumps([run[name] for name in KEY])] = run
    return list(runs.values())


def table(out: Path) -> None:
    """Print each arm at its best learning rate: test scores by seed, trained parameters, time."""
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{'---|' * len(COLUMNS)}")
    for runs in _groups(_read_runs(out)):
        print(f"| {' | '.join(_table_row(runs))} |")


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs that differ in rate and seed only, sorted by task and number of rows."""
    groups: dict[tuple[str, int | None, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run["task"], run["rows"], run["arm"], json.dumps(run["changes"])].append(run)
    return [
        group for _, group in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or 0))
    ]


def _best(runs: Sequence[Run]) -> list[Run]:
    """The runs at the best rate of the first seed that have a test score, by seed."""
    first_seed = min(run["seed"] for run in runs)
    of_first_seed = [run for run in runs if run["seed"] == first_seed]
    rate = max(of_first_seed, key=lambda run: run["validation"])["rate"]
    scored = [run for run in runs if run["rate"] == rate and run["test"] is not None]
    return sorted(scored, key=lambda run: run["seed"])


def _names(run: Run) -> tuple[str, str, str]:
    """The task, the number of training rows, and the arm with the artifact that it starts from."""
    starts_from_artifact = run["arm"] in ARMS and ARMS[run["arm"]].from_artifact
    init_from = run["changes"].get("init_from") if starts_from_artifact else None
    arm = run["arm"] + (f" from {init_from}" if init_from else "")
    return run["task"], str(run["rows"] or "all"), arm


def _table_row(runs: Sequence[Run]) -> tuple[str, ...]:
    best = _best(runs)
    first, rate = best[0], best[0]["rate"]
    tests = [run["test"] for run in best]
    return (
        *_names(first),
        f"{rate:g}",
        ", ".join(f"{test:.1f}" for test in tests),
        f"{statistics.fmean(tests):.1f}",
        f"{statistics.fmean(run['validation'] for run in best):.1f}",
        f"{first['rows_seen']:,}",
        f"{100 * first['trained'] / first['backbone']:.2f} %",
        f"{statistics.median(run['cpu_seconds'] for run in best):.0f}",
    )


def curves(out: Path) -> None:
    """Print the validation scores of each arm at its best learning rate, by rows seen.

    Runs without a curve are of an earlier version, and left out.
    """
    for runs in _groups(run for run in _read_runs(out) if "curve" in run):
        best = _best(runs)[0]
        points = ", ".join(f"{rows:,}: {score:.1f}" for rows, score in best["curve"])
        print(f"- {', '.join(_names(best))} at {best['rate']:g}: {points}")


def _size_of_new(run: Run) -> int:
    """The size of a run of `new`, which is above its rows if the corpus has fewer; 0 for others."""
    return next(
        (
            size
            for size, epochs in EPOCHS.items()
            if run["changes"] == {"epochs": epochs} and (run["rows"] or math.inf) <= size
        ),
        0,
    )


def means(out: Path) -> None:
    """Print the test scores of each arm by task and number of rows, their mean, and the wins."""
    groups: dict[int, dict[str, dict[str, list[Run]]]] = {}
    runs = _read_runs(out)
    sized = [(size, run) for run in runs if (size := _size_of_new(run))]
    if len(sized) < len(runs):
        print(f"left out: {len(runs) - len(sized)} runs that are not of `new`")
    for rows, run in sized:
        by_task = groups.setdefault(rows, {}).setdefault(run["task"], {})
        by_task.setdefault(run["arm"], []).append(run)
    for rows, tasks in sorted(groups.items()):
        arms = list(dict.fromkeys(arm for by_arm in tasks.values() for arm in by_arm))
        complete = {task: by_arm for task, by_arm in tasks.items() if len(by_arm) == len(arms)}
        scores = pd.DataFrame(
            {
                arm: {
                    task: statistics.fmean(run["test"] for run in _best(by_arm[arm]))
                    for task, by_arm in complete.items()
                }
                for arm in arms
            }
        )
        wins = scores.eq(scores.max(axis=1), axis=0).sum()
        scores.loc["mean"] = scores.mean()
        print(f"\n{rows} training rows\n\n| corpus | {' | '.join(arms)} |")
        print(f"|{'---|' * (len(arms) + 1)}")
        for task, values in scores.iterrows():
            print(f"| {task} | {' | '.join(f'{value:.1f}' for value in values)} |")
        print(f"\nbest on: {', '.join(f'{arm} {count}' for arm, count in wins.items())}")


if __name__ == "__main__":
    tables = {"table": table, "means": means, "curves": curves}
    if sys.argv[2] in tables:
        tables[sys.argv[2]](Path(sys.argv[1]))
    elif sys.argv[2] == "new":
        measure_new(Path(sys.argv[1]), *sys.argv[3:])
    else:
        tasks, arms, seeds, *overrides = sys.argv[3:]
        measure(Path(sys.argv[1]), tasks, arms, seeds, overrides, few=sys.argv[2] == "few")
