"""What each arm learns on real corpora: the same rows and steps, each with a learning rate found by the same search.

    python -m benchmarks.learning OUT full TASK[,TASK] ARM[,ARM] SEED[,SEED] [KEY=VALUE ...]
    python -m benchmarks.learning OUT few  TASK:ROWS[,...] ARM[,ARM] SEED[,SEED] [KEY=VALUE ...]
    python -m benchmarks.learning OUT table

Run it in a project that has the features and, for `multitask`, the shared prompts (`dvc repro featurize pretrain`).
Every rate of an arm's grid is tried with the first seed, the best by validation also with the others; all are scored on test.
`few` trains on that many train rows, drawn by a hash. OUT (JSON lines) has a line for each run; what is there is not run again.
KEY=VALUE override params of every arm; `start=imported/NAME` is what multitask starts from. `table` prints Markdown.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from ruamel.yaml import YAML

from benchmarks.peft_models import Adapted, PeftModel
from pipeline.evaluation.evaluate import decode, score
from pipeline.evaluation.splits import SUBSET_SEED, load_eval_set
from pipeline.features.subset import FeatureSubset
from pipeline.mixing.rates import RATE_SCALE
from pipeline.params import Arm, Params, TrainParams, task_of
from pipeline.seeding import permute
from pipeline.training.setup import TaskData, TrainingSetup, heads_for
from stages import finetune
from stages.runtime.params import load_params
from stages.runtime.paths import EXAMPLES, FEATURES
from stages.training import run as shared

GRIDS = {
    "fine_tune": (1e-4, 3e-4, 6e-4),
    "multitask": (0.005, 0.01, 0.03),
    "deep_prompt": (0.02, 0.05, 0.08),
    "soft_prompt": (0.02, 0.05, 0.15),
    "peft_prefix": (1e-3, 5e-3, 2e-2, 5e-2),
    "peft_lora": (1e-3, 3e-3, 6e-3),
}
TRAINED = (
    "multitask",
    "deep_prompt",
    "soft_prompt",
    "fine_tune",
)  # by the pipeline; the others are peft's
Run = dict[str, Any]


def run(
    arm: str, task: str, rows: int | None, rate: float, seed: int, changes: dict[str, Any]
) -> Run:
    """Train one arm once; its scores in percent, and what it cost."""
    params = dataclasses.replace(load_params(), seed=seed)
    if start := changes.pop("start", None):
        params = dataclasses.replace(
            params,
            tasks={**params.tasks, task: dataclasses.replace(params.tasks[task], init_from=start)},
        )
    like = cast(Arm, arm if arm in TRAINED else "fine_tune")
    key = "backbone_lr" if like == "fine_tune" else "prompt_lr"
    known = {"num_virtual_tokens"} if like in ("fine_tune", "multitask") else set()
    training = dataclasses.replace(
        params.training(like, task),
        **{key: rate},
        **{name: value for name, value in changes.items() if name not in known},
    )
    setup = _begun(arm, task, training, params, changes.get("num_virtual_tokens", 32))
    if rows is not None:
        setup = dataclasses.replace(setup, tasks=[_cut(setup.tasks[0], rows)])
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        shared.WORK = Path(folder)
        found, _ = shared.fit(f"{arm}-{task}", like, setup, training, params)
    cpu = time.process_time() - started
    trained = sum(parameter.numel() for parameter in setup.model.trainable_state().values())
    return {
        "arm": arm,
        "task": task,
        "rows": rows,
        "rate": rate,
        "seed": seed,
        "changes": changes,
        "validation": found.best_score,
        "test": _test(setup, params),
        "rows_seen": found.rows,
        "steps": found.steps,
        "trained": trained,
        "backbone": setup.model.backbone.num_parameters,
        "cpu_seconds": round(cpu, 1),
    }


def _begun(
    arm: str, task: str, training: TrainParams, params: Params, tokens: int
) -> TrainingSetup:
    if arm in TRAINED:
        return finetune.set_up(cast(Arm, arm), task, training, params)
    data = TaskData.load(FEATURES / task, EXAMPLES / task, training.validation_rows)
    backbone = Adapted(params.backbone, arm, tokens)
    heads = heads_for([data], backbone.hidden_size, params.seed)
    return TrainingSetup(PeftModel(backbone, heads), [data], [RATE_SCALE], {})


def _cut(data: TaskData, rows: int) -> TaskData:
    """The task with that many of its train examples, the same for every arm and seed."""
    count = int(data.train.examples[-1]) + 1
    left_out = np.sort(permute(np.arange(rows, count), count, SUBSET_SEED)).tolist()
    return dataclasses.replace(data, train=FeatureSubset(data.train, left_out))


def _test(setup: TrainingSetup, params: Params) -> float:
    data = setup.tasks[0]
    validation, model = data.validation, setup.model
    thresholds = validation.task.fit_thresholds(
        validation.examples, decode(model, validation, 0, data.pad_token_id)
    )
    split = load_eval_set(
        FEATURES / data.name,
        EXAMPLES / data.name,
        data.summary,
        "test",
        task_of(params, data.name).test_rows,
    )
    return float(
        score(split, decode(model, split, 0, data.pad_token_id), thresholds).overall[data.primary]
    )


def measure(out: Path, tasks: str, arms: str, seeds: str, words: list[str], few: bool) -> None:
    """Run what is not in `out` yet."""
    changes = {
        key: YAML(typ="safe").load(value) for key, value in (word.split("=", 1) for word in words)
    }
    first, *others = map(int, seeds.split(","))
    for task, rows in _sizes(tasks, few):
        for arm in arms.split(","):
            found = {rate: _once(out, arm, task, rows, rate, first, changes) for rate in GRIDS[arm]}
            best = max(found, key=lambda rate: found[rate]["validation"])
            for seed in others:
                _once(out, arm, task, rows, best, seed, changes)


def _sizes(tasks: str, few: bool) -> Iterator[tuple[str, int | None]]:
    for word in tasks.split(","):
        task, _, rows = word.partition(":")
        yield task, int(rows) if few else None


def _once(
    out: Path,
    arm: str,
    task: str,
    rows: int | None,
    rate: float,
    seed: int,
    changes: dict[str, Any],
) -> Run:
    asked = {"arm": arm, "task": task, "rows": rows, "rate": rate, "seed": seed, "changes": changes}
    for line in _lines(out):
        if all(line[key] == value for key, value in asked.items()):
            return line
    found = {**run(arm, task, rows, rate, seed, dict(changes)), **asked}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    return found


def _lines(out: Path) -> list[Run]:
    return (
        [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        if out.exists()
        else []
    )


def table(out: Path) -> None:
    """Each arm's best rate: test scores over the seeds, what it trained, what the training took."""
    groups: dict[tuple[str, int | None, str, str], list[Run]] = defaultdict(list)
    for line in _lines(out):
        groups[line["task"], line["rows"], line["arm"], json.dumps(line["changes"])].append(line)
    print(
        "| task | train rows | arm | rate | test by seed | mean | validation | rows seen | trained | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (task, rows, arm, _), lines in sorted(
        groups.items(), key=lambda group: (group[0][0], group[0][1] or 0)
    ):
        first = min(line["seed"] for line in lines)
        rate = max(
            (line for line in lines if line["seed"] == first), key=lambda line: line["validation"]
        )["rate"]
        chosen = sorted(
            (line for line in lines if line["rate"] == rate), key=lambda line: line["seed"]
        )
        tests = [line["test"] for line in chosen]
        share = 100 * chosen[0]["trained"] / chosen[0]["backbone"]
        start = f" from {chosen[0]['changes']['start']}" if "start" in chosen[0]["changes"] else ""
        print(
            f"| {task} | {rows or 'all'} | {arm}{start} | {rate:g} | {', '.join(f'{test:.1f}' for test in tests)} | "
            f"{statistics.fmean(tests):.1f} | {statistics.fmean(line['validation'] for line in chosen):.1f} | "
            f"{chosen[0]['rows_seen']:,} | {share:.2f} % | {statistics.median(line['cpu_seconds'] for line in chosen):.0f} |"
        )


if __name__ == "__main__":
    if sys.argv[2] == "table":
        table(Path(sys.argv[1]))
    else:
        measure(Path(sys.argv[1]), *sys.argv[3:6], words=sys.argv[6:], few=sys.argv[2] == "few")
