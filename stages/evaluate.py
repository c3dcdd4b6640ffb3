"""evaluate: score one arm's artifact on a task's test split, with thresholds decided on validation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.artifact import load_backbone_weights, load_config, load_heads, load_prompt
from pipeline.backbone import Backbone
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.evaluate import Split, decode, scored
from pipeline.files import atomic_folder, write_json
from pipeline.metrics import Metrics
from pipeline.model import Heads, PromptedModel
from pipeline.source import locate
from pipeline.tasks import TASKS
from stages.command import run, say, say_read, say_wrote
from stages.params import arm_of, load_params, task_of
from stages.splits import load_split


def evaluate(arm_name: str, name: str) -> None:
    """Write results/ARM/TASK: metrics.json, labels.tsv, and predictions/ARM/TASK.jsonl."""
    arm = arm_of(arm_name)
    params = load_params()
    test_rows = task_of(params, name).test_rows
    artifact = Path("artifacts") / arm / name
    config = load_config(artifact)
    say_read(artifact)
    backbone = Backbone.load(locate(params.backbone))
    size = backbone.num_parameters
    prompt = load_prompt(artifact, config, params.backbone, backbone)
    if arm == "fine_tune":
        load_backbone_weights(artifact, backbone)
    if name not in config.heads:
        raise UserError(f"{artifact}/config.json: has no head {name!r}, but {', '.join(config.heads)}; make the artifact again")
    head = config.heads[name]
    heads = Heads([head.kind], [len(head.classes)], backbone.hidden_size, params.seed)
    load_heads(artifact, config, heads, [name])
    model = PromptedModel(backbone, prompt, heads, train_backbone=arm == "fine_tune")
    validation_rows = params.training(arm, name).validation_rows
    limits = {"validation": validation_rows, "test": test_rows}
    features, examples = Path("data/features") / name, Path("data/examples") / name
    summary = load_json(features / "summary.json")
    if head.classes != tuple(summary["classes"]):
        raise UserError(f"{artifact}/config.json: the classes of {name!r} are {', '.join(head.classes)}, those of {features} are "
                        f"{', '.join(summary['classes'])}; make the artifact again")
    splits = {split: load_split(features, examples, summary, split, limit, params.seed) for split, limit in limits.items()}
    decoded = {split: decode(model, data, 0, summary["pad"]) for split, data in splits.items()}
    task = TASKS[head.type]
    thresholds = task.decide(splits["validation"].examples, decoded["validation"])
    scores = {split: scored(data, decoded[split], thresholds) for split, data in splits.items()}
    trained = sum(parameter.numel() for parameter in model.trainable_state().values())
    rows = {"train": summary["splits"]["train"]["examples"], **{split: len(data.examples) for split, data in splits.items()}}
    metrics = {
        "primary": task.primary, "task": head.type, "thresholds": thresholds,
        "parameters": {"trained": trained, "backbone": size},
        "rows": rows,
        **{split: score.overall for split, score in scores.items()},
    }
    output = Path("results") / arm / name
    with atomic_folder(output) as beside:
        write_json(beside / "metrics.json", metrics)
        _labels(scores["test"]).to_csv(beside / "labels.tsv", sep="\t", index=False, float_format="%.4f")
    predictions = Path("predictions") / arm / name
    with atomic_folder(predictions) as beside:
        _write_predictions(beside / "test.jsonl", splits["test"], decoded["test"], thresholds)
    say(f"test {task.primary} {scores['test'].overall[task.primary]:.2f}")
    say_wrote(output, predictions)


def _labels(score: Metrics) -> pd.DataFrame:
    rows = [{"label": label, "precision": figures["precision"], "recall": figures["recall"], "f1": figures["f1"],
             "support": int(figures["correct"] + figures["missed"] if "missed" in figures else figures["gold"])}
            for label, figures in score.labels.items()]
    return pd.DataFrame(rows, columns=["label", "precision", "recall", "f1", "support"])


def _write_predictions(path: Path, split: Split, decoded: list[Any], thresholds: dict[str, float]) -> None:
    predictions = split.task.predictions(split.examples, decoded, thresholds)
    with path.open("w", encoding="utf-8") as file:
        for number, example in enumerate(split.examples):
            value = predictions[example.id] if isinstance(predictions, Mapping) else predictions[number]
            file.write(json.dumps({"id": example.id, "prediction": value}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run(evaluate)
