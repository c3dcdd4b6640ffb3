"""Loss of the tasks of a shared prompt under a prompt that was tuned from it for another task.

    python -m benchmarks.forgetting SHARED TUNED[,TUNED] TASK[,TASK] ROWS

Run it in a project with features, and with the artifacts `artifacts/SHARED` and `artifacts/TUNED`
(`zoo/open zoo/squad,zoo/wnut17` after `dvc repro zoo`). The heads are those of SHARED. It prints a
Markdown table of the primary metric on ROWS test rows of each task, under SHARED, under each TUNED
and without a prompt. Thresholds are fitted again on ROWS validation rows under each prompt.
"""

import sys

from benchmarks.scores import primary_score
from pipeline.artifacts.artifact import load_prompt
from pipeline.artifacts.config import load_config
from pipeline.config import load_json
from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import device
from pipeline.evaluation.splits import load_eval_set
from stages.evaluation.load_model import load_model
from stages.runtime.params import load_params
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES

NO_PROMPT = "no prompt"


def scores_of(shared: str, prompts: list[str], task: str, rows: int) -> list[float]:
    """The score of the shared head of a task under each of the prompts."""
    params, summary = load_params(), load_json(FEATURES / task / "summary.json")
    model = load_model(ARTIFACTS / shared, {task: tuple(summary["classes"])}, params)
    model = model.to(device(Ranks()))
    folders = FEATURES / task, EXAMPLES / task, summary
    validation = load_eval_set(*folders, "validation", rows)
    test = load_eval_set(*folders, "test", rows)
    scores = []
    for name in prompts:
        folder = ARTIFACTS / name
        model.prompt = None
        if name != NO_PROMPT:
            prompt = load_prompt(folder, load_config(folder), params.backbone, model.backbone)
            assert prompt is not None
            model.prompt = prompt.to(device(Ranks()))
        splits = validation, test
        scores.append(primary_score(model, *splits, summary["primary"], summary["pad_token_id"]))
    return scores


def main(shared: str, tuned: str, tasks: str, rows: str) -> None:
    """Print the table."""
    prompts = [shared, *tuned.split(","), NO_PROMPT]
    print(f"| task | {' | '.join(prompts)} |")
    print(f"|{'---|' * (len(prompts) + 1)}")
    for task in tasks.split(","):
        scores = scores_of(shared, prompts, task, int(rows))
        print(f"| {task} | {' | '.join(f'{value:.1f}' for value in scores)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
