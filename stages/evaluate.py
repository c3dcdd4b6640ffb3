"""evaluate: score one arm's artifact on a task's test split, with thresholds fitted on validation.

With a seed as the third argument, it scores the training run repeated with that seed (see
`finetune`).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipeline.analysis.agreement import agreement, confidence_measures, sample
from pipeline.analysis.bootstrap import score_interval
from pipeline.analysis.calibration import temperature
from pipeline.analysis.confidence_tables import collect_decisions, confidence_tables
from pipeline.analysis.prediction_samples import prediction_samples
from pipeline.analysis.probing import featurized
from pipeline.arms import ARMS, ArmName
from pipeline.config import load_json
from pipeline.distributed.cluster import Cluster, Ranks, load_cluster
from pipeline.distributed.collectives import device
from pipeline.distributed.process_group import process_group
from pipeline.evaluation.evaluate import EvalSet, decode, score, window_logits
from pipeline.evaluation.splits import load_eval_set
from pipeline.files import atomic_folder, write_json
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.model.prompted_model import PromptedModel, part_of
from pipeline.params import task_of
from pipeline.seeding import Ints
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, unsupported_features
from pipeline.tasks.base.claims import Floats
from pipeline.tasks.base.task import in_order
from pipeline.training.engine import prepare_for_inference
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
    """Write the scores to results/ARM/TASK and the predictions to predictions/ARM/TASK.

    The scores are metrics.json, labels.tsv, and score.json, the primary scores for `dvc exp show`.
    metrics.json also has the 95 % interval of the primary test score (null if it has none).
    The predictions are test.jsonl and Parquet files for the report: counts per unit, confidence of
    decisions and claims, the claims themselves, for questions other measures of confidence, and
    samples of predictions. A file is absent if the kind of task does not support it.
    """
    arm, params = arm_of(arm_name), with_seed(load_params(), seed)
    training = params.training(arm, name)
    limits = {"validation": training.validation_rows, "test": task_of(params, name).test_rows}
    features, examples = FEATURES / name, EXAMPLES / name
    summary = load_json(features / "summary.json")
    folder = run_folder(arm, name, seed)
    artifact = ARTIFACTS / folder
    model = load_model(artifact, {name: tuple(summary["classes"])}, params)
    log_read(artifact)
    splits = {
        split: load_eval_set(features, examples, summary, split, limit)
        for split, limit in limits.items()
    }
    # Count now: ZeRO 3 partitions the parameters among the ranks.
    num_parameters = _count_parameters(model, arm)
    ranks = Ranks.from_environment(os.environ)
    with _model_for_inference(model, ranks, load_cluster(CLUSTER)) as model:
        outputs = _predict(model, splits, summary, ranks)
    if ranks.rank:
        return
    decisions = _collect_decisions(splits, outputs)
    thresholds = outputs.thresholds | (temperature(decisions["validation"]) if decisions else {})
    scores = {
        split: score(data, outputs.decoded[split], thresholds) for split, data in splits.items()
    }
    test, primary = splits["test"], summary["primary"]
    counts = _count_units(test, outputs.predicted["test"])
    metrics = _metrics(summary, splits, scores, thresholds, num_parameters, counts)
    output, predictions = RESULTS / folder, PREDICTIONS / folder
    _write_scores(output, metrics, scores, _headline(folder, scores, primary))
    with atomic_folder(predictions) as temporary:
        _write_tables(temporary, test, outputs, decisions, thresholds, counts)
    log(f"test {primary} {scores['test'].overall[primary]:.2f}")
    if off := unsupported_features(test.task):
        log(off)
    log_wrote(output, predictions)


def _count_parameters(model: PromptedModel, arm: ArmName) -> dict[str, int]:
    """The number of parameters that the arm trains, and of those of the backbone."""
    trained = sum(
        parameter.numel()
        for name, parameter in model.trainable_state().items()
        if part_of(name) in (*ARMS[arm].parts, *ARMS[arm].optional_parts)
    )
    return {"trained": trained, "backbone": model.backbone.num_parameters}


class _Outputs(NamedTuple):
    """What the model predicts for each split, and the thresholds that are fitted on validation.

    `agreements` [N] are those of the test examples at `indices` [N] with their variants; None if
    the task has no confidence, or no example has a variant.
    """

    decoded: Mapping[str, list[Any]]
    decision_logits: Mapping[str, list[Floats]]
    predicted: Mapping[str, Any]
    thresholds: dict[str, float]
    indices: Ints
    agreements: Floats | None


def _predict(
    model: PromptedModel, splits: Mapping[str, EvalSet], summary: Mapping[str, Any], ranks: Ranks
) -> _Outputs:
    """All that needs the model; all ranks take part."""
    test, validation = splits["test"], splits["validation"]
    task, decoded, decision_logits = test.task, dict[str, Any](), dict[str, Any]()
    for split, data in splits.items():
        decoded[split], decision_logits[split] = _decode(
            model, data, summary["pad_token_id"], ranks
        )
    thresholds = task.fit_thresholds(validation.examples, decoded["validation"])
    predicted = {
        split: task.predictions(data.examples, decoded[split], thresholds)
        for split, data in splits.items()
    }
    indices, agreements = sample(test), None
    if isinstance(task, HasConfidence):
        answer = partial(_answer, model, test, thresholds, summary, ranks)
        agreements = agreement(test, predicted["test"], indices, answer)
    return _Outputs(decoded, decision_logits, predicted, thresholds, indices, agreements)


def _collect_decisions(splits: Mapping[str, EvalSet], outputs: _Outputs) -> dict[str, Any]:
    """The decisions of each split for calibration; empty if the task has no confidence."""
    decisions = {}
    for split, data in splits.items():
        if isinstance(data.task, HasConfidence):
            decisions[split] = collect_decisions(
                data.task,
                data,
                outputs.predicted[split],
                outputs.decision_logits[split],
                outputs.thresholds,
            )
    return decisions


def _count_units(test: EvalSet, predictions: Any) -> UnitCounts | None:
    """The counts of the test examples by unit (None: the task has no units)."""
    if not isinstance(test.task, HasUnits):
        return None
    return test.task.counts(test.examples, predictions, test.classes)


def _metrics(
    summary: Mapping[str, Any],
    splits: Mapping[str, EvalSet],
    scores: Mapping[str, Metrics],
    thresholds: Mapping[str, float],
    num_parameters: Mapping[str, int],
    counts: UnitCounts | None,
) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "primary": summary["primary"],
        "task": summary["task"],
        "thresholds": thresholds,
        "parameters": num_parameters,
        "rows": {"train": summary["splits"]["train"]["examples"]}
        | {split: len(data.examples) for split, data in splits.items()},
        **{split: score.overall for split, score in scores.items()},
        "interval": counts and score_interval(counts, summary["primary"]),
    }


def _write_tables(
    folder: Path,
    test: EvalSet,
    outputs: _Outputs,
    decisions: Mapping[str, Any],
    thresholds: Mapping[str, float],
    counts: UnitCounts | None,
) -> None:
    """Write the predictions of the test split and the tables of the report."""
    predicted = outputs.predicted["test"]
    _write_predictions(folder / "test.jsonl", test.examples, predicted)
    if counts is not None:
        _write_counts(folder, counts)
    if isinstance(test.task, HasConfidence):
        confidences, claims = confidence_tables(
            test.task, test, predicted, decisions["test"], thresholds
        )
        confidences.to_parquet(folder / "confidences.parquet", index=False)
        claims.to_parquet(folder / "claims.parquet", index=False)
    if (texts := prediction_samples(test, predicted)) is not None:
        texts.to_parquet(folder / "texts.parquet", index=False)
    if outputs.agreements is not None:
        measures = confidence_measures(
            decisions["validation"], decisions["test"], outputs.indices, outputs.agreements
        )
        measures.to_parquet(folder / "measures.parquet", index=False)


def _write_scores(
    output: Path, metrics: Mapping[str, Any], scores: Mapping[str, Metrics], headline: Any
) -> None:
    with atomic_folder(output) as temporary:
        write_json(temporary / "metrics.json", metrics)
        write_json(temporary / "score.json", headline)
        _label_table(scores["test"]).to_csv(
            temporary / "labels.tsv", sep="\t", index=False, float_format="%.4f"
        )


def _headline(folder: Path, scores: Mapping[str, Metrics], primary: str) -> dict[str, Any]:
    """The primary score of each split, below the parts of the run's folder.

    `dvc exp show` then has short and unique columns, such as multitask.world_ner.test.
    """
    value: dict[str, Any] = {
        split: round(score.overall[primary], 2) for split, score in scores.items()
    }
    for part in reversed(folder.parts):
        value = {part: value}
    return value


@contextmanager
def _model_for_inference(
    model: PromptedModel, ranks: Ranks, cluster: Cluster
) -> Iterator[PromptedModel]:
    """Yield the model on the device of this rank, or partitioned among the ranks (ZeRO 3)."""
    if ranks.world == 1 and cluster.zero < 3:
        yield model.to(device(ranks))
        return
    with process_group(ranks, 60 * cluster.timeout_minutes):
        yield prepare_for_inference(model, ranks, cluster)


def _label_table(score: Metrics) -> pd.DataFrame:
    """The table labels.tsv: one row per label, with precision, recall and F1, or its own scores."""
    names = ["precision", "recall", "f1"]
    if any("f1" not in values for values in score.labels.values()):
        names = [name for name in next(iter(score.labels.values())) if name != "support"]
    rows = [
        {"label": label, **{name: values[name] for name in names}, "support": _support(values)}
        for label, values in score.labels.items()
    ]
    return pd.DataFrame(rows, columns=["label", *names, "support"])


def _support(values: Mapping[str, float]) -> int:
    """The number of annotations of a label."""
    if "missed" in values:
        return int(values["correct"] + values["missed"])
    return int(values.get("support", values.get("gold", 0)))


def _decode(
    model: PromptedModel, data: EvalSet, pad_token_id: int, ranks: Ranks
) -> tuple[list[Any], list[Floats]]:
    """The decoded predictions, and the logits of their decisions if the task has confidence."""
    decoded, decision_logits = [], []
    for example, logits in zip(
        data.examples, window_logits(model, data, 0, pad_token_id, ranks=ranks), strict=True
    ):
        decoded.append(data.task.decode(example, logits, data.classes))
        if isinstance(data.task, HasConfidence):
            decision_logits.append(data.task.decision_logits(example, logits, data.classes))
    return decoded, decision_logits


def _answer(
    model: PromptedModel,
    template: EvalSet,
    thresholds: Mapping[str, float],
    summary: Mapping[str, Any],
    ranks: Ranks,
    examples: Sequence[Any],
) -> Any:
    """The predictions for new examples with the task and classes of `template`."""
    tokenizer = model.backbone.tokenizer
    with featurized(examples, template, tokenizer, **summary["windows"]) as split:
        return template.task.predictions(
            examples, decode(model, split, 0, summary["pad_token_id"], ranks=ranks), thresholds
        )


def _write_predictions(path: Path, examples: Sequence[Any], predictions: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        for example, value in zip(examples, in_order(examples, predictions), strict=True):
            file.write(
                json.dumps({"id": example.id, "prediction": value}, ensure_ascii=False) + "\n"
            )


def _write_counts(folder: Path, counts: UnitCounts) -> None:
    """Write counts.parquet, one row per unit, and formulas.json, the formulas of the metrics.

    The formulas take sums over the units.
    """
    pd.DataFrame({"unit": counts.units, **counts.columns}).to_parquet(
        folder / "counts.parquet", index=False
    )
    write_json(folder / "formulas.json", counts.formulas)


if __name__ == "__main__":
    launch(evaluate)
