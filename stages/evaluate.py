"""evaluate: score one arm's artifact on a task's test split, with thresholds decided on validation.

With a seed as its third word, it scores the training that was repeated with it (see `finetune`).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from pipeline.analysis.agreement import agreement, confidence_measures, sample
from pipeline.analysis.calibration import temperature
from pipeline.analysis.confidence_tables import collect_decisions, confidence_tables, in_order
from pipeline.analysis.probing import split_of
from pipeline.config import load_json
from pipeline.distributed.cluster import Cluster, Ranks, load_cluster
from pipeline.distributed.collectives import device
from pipeline.evaluation.evaluate import EvalSet, decode, score, window_logits
from pipeline.evaluation.splits import load_eval_set
from pipeline.files import atomic_folder, write_json
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import task_of
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, switched_off
from pipeline.tasks.base.claims import Floats
from stages.evaluation.load_model import load_model
from stages.runtime.entry import log, log_read, log_wrote
from stages.runtime.launcher import launch
from stages.runtime.params import arm_of, load_params, with_seed
from stages.runtime.paths import (
    ARTIFACTS,
    CLUSTER,
    EXAMPLES,
    FEATURES,
    PREDICTIONS,
    RESULTS,
    run_folder,
)


def evaluate(arm_name: str, name: str, seed: str = "") -> None:
    """Write results/ARM/TASK: metrics.json and labels.tsv; predictions/ARM/TASK: test.jsonl, and
    Parquet files of the counts of each unit, of how sure each decision and claim was, of the claims
    themselves, and (of questions) of other measures of confidence, for the report. A kind of task
    without these has no such file.
    """
    arm, params = arm_of(arm_name), with_seed(load_params(), seed)
    training = params.training(arm, name)
    limits = {"validation": training.validation_rows, "test": task_of(params, name).test_rows}
    features, examples = FEATURES / name, EXAMPLES / name
    summary = load_json(features / "summary.json")
    task, primary = task_named(summary["task"]), summary["primary"]
    confidence = task if isinstance(task, HasConfidence) else None
    folder = run_folder(arm, name, seed)
    artifact = ARTIFACTS / folder
    model = load_model(artifact, {name: tuple(summary["classes"])}, params, training.precision)
    log_read(artifact)
    splits = {
        split: load_eval_set(features, examples, summary, split, limit)
        for split, limit in limits.items()
    }
    trained = sum(parameter.numel() for parameter in model.trainable_state().values())
    backbone_numbers = (
        model.backbone.num_parameters
    )  # here: ZeRO 3 leaves a rank with a part of them
    ranks = Ranks.from_environment(os.environ)
    with _placed(model, ranks, load_cluster(CLUSTER)) as placed:
        read = {
            split: _read(placed, data, summary["pad_token_id"], ranks)
            for split, data in splits.items()
        }
        decoded, options = (
            {split: pair[place] for split, pair in read.items()} for place in (0, 1)
        )
        thresholds = task.fit_thresholds(splits["validation"].examples, decoded["validation"])
        said = {
            split: task.predictions(data.examples, decoded[split], thresholds)
            for split, data in splits.items()
        }
        chosen = sample(splits["test"])
        answer = partial(
            _answer, placed, splits["test"], thresholds, locate(params.backbone), summary, ranks
        )
        agreed = agreement(splits["test"], said["test"], chosen, answer) if confidence else None
    if ranks.rank:
        return
    decisions = {
        split: collect_decisions(confidence, data, said[split], options[split], thresholds)
        for split, data in splits.items()
        if confidence
    }
    if confidence:
        thresholds |= temperature(decisions["validation"])
    scores = {split: score(data, decoded[split], thresholds) for split, data in splits.items()}
    test = splits["test"]
    metrics = {
        "primary": primary,
        "task": summary["task"],
        "thresholds": thresholds,
        "parameters": {"trained": trained, "backbone": backbone_numbers},
        "rows": {"train": summary["splits"]["train"]["examples"]}
        | {split: len(data.examples) for split, data in splits.items()},
        **{split: score.overall for split, score in scores.items()},
    }
    output, predictions = RESULTS / folder, PREDICTIONS / folder
    with atomic_folder(output) as beside:
        write_json(beside / "metrics.json", metrics)
        _labels(scores["test"]).to_csv(
            beside / "labels.tsv", sep="\t", index=False, float_format="%.4f"
        )
    with atomic_folder(predictions) as beside:
        _write_predictions(beside / "test.jsonl", test.examples, said["test"])
        if isinstance(task, HasUnits):
            _write_counts(beside, task.counts(test.examples, said["test"], test.classes))
        if confidence:
            confidences, claims = confidence_tables(
                confidence, test, said["test"], decisions["test"], thresholds
            )
            confidences.to_parquet(beside / "confidences.parquet", index=False)
            claims.to_parquet(beside / "claims.parquet", index=False)
        if agreed is not None:
            measures = confidence_measures(
                decisions["validation"], decisions["test"], chosen, agreed
            )
            measures.to_parquet(beside / "measures.parquet", index=False)
    log(f"test {primary} {scores['test'].overall[primary]:.2f}")
    if off := switched_off(task):
        log(off)
    log_wrote(output, predictions)


@contextmanager
def _placed(model: PromptedModel, ranks: Ranks, cluster: Cluster) -> Iterator[PromptedModel]:
    """The model where it predicts: on this rank's device, or parted among the ranks."""
    if ranks.world == 1 and cluster.zero < 3:
        yield model.to(device(ranks))
        return
    from pipeline.distributed.process_group import process_group  # noqa: PLC0415
    from pipeline.training.engine import prepare_for_inference  # noqa: PLC0415  (DeepSpeed takes seconds to import, and one process does without)

    with process_group(ranks, 60 * cluster.timeout_minutes):
        yield prepare_for_inference(model, ranks, cluster)


def _labels(score: Metrics) -> pd.DataFrame:
    rows = [
        {
            "label": label,
            "precision": figures["precision"],
            "recall": figures["recall"],
            "f1": figures["f1"],
            "support": int(
                figures["correct"] + figures["missed"] if "missed" in figures else figures["gold"]
            ),
        }
        for label, figures in score.labels.items()
    ]
    return pd.DataFrame(rows, columns=["label", "precision", "recall", "f1", "support"])


def _read(
    model: PromptedModel, data: EvalSet, pad_token_id: int, ranks: Ranks
) -> tuple[list[Any], list[Floats]]:
    """Decoded predictions, and the logits of their decisions if the task has confidence."""
    decoded, options = [], []
    for example, seen in zip(
        data.examples, window_logits(model, data, 0, pad_token_id, ranks=ranks), strict=True
    ):
        decoded.append(data.task.decode(example, seen, data.classes))
        if isinstance(data.task, HasConfidence):
            options.append(data.task.decision_logits(example, seen, data.classes))
    return decoded, options


def _answer(
    model: PromptedModel,
    like: EvalSet,
    thresholds: Mapping[str, float],
    backbone: Path,
    summary: Mapping[str, Any],
    ranks: Ranks,
    examples: Sequence[Any],
) -> Any:
    """What is predicted for examples that are on no disk, of the task and classes of `like`."""
    with TemporaryDirectory() as folder:
        split = split_of(
            examples,
            like.task,
            like.classes,
            Tokenizer(backbone),
            **summary["windows"],
            folder=Path(folder, "new"),
        )
        return like.task.predictions(
            examples, decode(model, split, 0, summary["pad_token_id"], ranks=ranks), thresholds
        )


def _write_predictions(path: Path, examples: Sequence[Any], predictions: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        for example, value in zip(examples, in_order(examples, predictions), strict=True):
            file.write(
                json.dumps({"id": example.id, "prediction": value}, ensure_ascii=False) + "\n"
            )


def _write_counts(folder: Path, counts: UnitCounts) -> None:
    """counts.parquet has a row a unit, figures.json how figures come out of its sums."""
    pd.DataFrame({"unit": counts.units, **counts.columns}).to_parquet(
        folder / "counts.parquet", index=False
    )
    write_json(folder / "figures.json", counts.formulas)


if __name__ == "__main__":
    launch(evaluate)
