"""evaluate: score one arm's artifact on a task's test split, with thresholds decided on validation."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.artifact import load_backbone_weights, load_heads, load_prompt
from pipeline.backbone import Backbone
from pipeline.cluster import Cluster, Ranks, load_cluster
from pipeline.collective import device
from pipeline.config import load_json
from pipeline.evaluate import Split, decode, scored
from pipeline.files import atomic_folder, write_json
from pipeline.manifest import load_config
from pipeline.metrics import Metrics
from pipeline.model import Heads, PromptedModel
from pipeline.params import Precision
from pipeline.source import locate
from pipeline.tasks import task_named
from stages.command import say, say_read, say_wrote
from stages.launching import PATH, launch
from stages.params import Params, arm_of, load_params, task_of
from stages.splits import load_split


def evaluate(arm_name: str, name: str) -> None:
    """Write results/ARM/TASK: metrics.json and labels.tsv, and predictions/ARM/TASK/test.jsonl."""
    arm, params = arm_of(arm_name), load_params()
    training = params.training(arm, name)
    limits = {"validation": training.validation_rows, "test": task_of(params, name).test_rows}
    features, examples = Path("data/features") / name, Path("data/examples") / name
    summary = load_json(features / "summary.json")
    task, primary = task_named(summary["task"]), summary["primary"]
    artifact = Path("artifacts") / arm / name
    model = _load(artifact, {name: tuple(summary["classes"])}, params, training.precision)
    say_read(artifact)
    splits = {split: load_split(features, examples, summary, split, limit) for split, limit in limits.items()}
    trained = sum(parameter.numel() for parameter in model.trainable_state().values())
    backbone_numbers = model.backbone.num_parameters  # here: ZeRO 3 leaves a rank with a part of them
    ranks = Ranks.from_environment(os.environ)
    with _placed(model, ranks, load_cluster(PATH)) as placed:
        decoded = {split: decode(placed, data, 0, summary["pad"], ranks=ranks) for split, data in splits.items()}
    if ranks.rank:
        return
    thresholds = task.decide(splits["validation"].examples, decoded["validation"])
    scores = {split: scored(data, decoded[split], thresholds) for split, data in splits.items()}
    metrics = {
        "primary": primary, "task": summary["task"], "thresholds": thresholds,
        "parameters": {"trained": trained, "backbone": backbone_numbers},
        "rows": {"train": summary["splits"]["train"]["examples"]} | {split: len(data.examples) for split, data in splits.items()},
        **{split: score.overall for split, score in scores.items()},
    }
    output, predictions = Path("results") / arm / name, Path("predictions") / arm / name
    with atomic_folder(output) as beside:
        write_json(beside / "metrics.json", metrics)
        _labels(scores["test"]).to_csv(beside / "labels.tsv", sep="\t", index=False, float_format="%.4f")
    with atomic_folder(predictions) as beside:
        _write_predictions(beside / "test.jsonl", splits["test"], decoded["test"], thresholds)
    say(f"test {primary} {scores['test'].overall[primary]:.2f}")
    say_wrote(output, predictions)


def _load(artifact: Path, classes: dict[str, tuple[str, ...]], params: Params, precision: Precision) -> PromptedModel:
    config = load_config(artifact)
    words = [config.heads[name].words for name in classes if name in config.heads]
    backbone = Backbone.load(locate(params.backbone), any(words), precision)
    prompt = load_prompt(artifact, config, params.backbone, backbone)
    fine_tuned = config.arm == "fine_tune"
    if fine_tuned:
        load_backbone_weights(artifact, backbone)
    kinds = [config.heads[name].kind for name in classes if name in config.heads]
    heads = Heads(kinds, [len(names) for names in classes.values()], backbone.hidden_size, params.seed, words)
    load_heads(artifact, config, heads, classes)
    return PromptedModel(backbone, prompt, heads, train_backbone=fine_tuned)


@contextmanager
def _placed(model: PromptedModel, ranks: Ranks, cluster: Cluster) -> Iterator[PromptedModel]:
    """The model where it predicts: on this rank's device, or parted among the ranks."""
    if ranks.world == 1 and cluster.zero < 3:
        yield model.to(device(ranks))
        return
    from pipeline.engine import place  # noqa: PLC0415  (DeepSpeed takes seconds to import, and one process does without)
    from pipeline.launch import joined  # noqa: PLC0415

    with joined(ranks, 60 * cluster.timeout_minutes):
        yield place(model, ranks, cluster)


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
    launch(evaluate)
