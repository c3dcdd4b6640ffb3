"""Load the model of an artifact, with the thresholds of its evaluation and a test set."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.analysis.probing import featurized
from pipeline.arms import ARMS, ArmName
from pipeline.artifacts.artifact import (
    empty_heads,
    heads_of,
    load_heads,
    load_into_backbone,
    load_prompt,
)
from pipeline.artifacts.config import load_config
from pipeline.config import load_json
from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import device
from pipeline.evaluation.evaluate import EvalSet, decode, score
from pipeline.evaluation.splits import load_eval_set
from pipeline.metrics.base import Metrics
from pipeline.model.backbone import Backbone
from pipeline.model.precision import inference_precision
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params
from pipeline.pretrained.location import locate
from pipeline.tasks.base.task import LM_HEADS
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, RESULTS


def load_model(
    artifact: Path, classes: dict[str, tuple[str, ...]], params: Params
) -> PromptedModel:
    """Load an artifact onto its backbone, with heads for the tasks in `classes`.

    `classes` maps the name of each task to the names of its classes. The backbone computes in the
    precision that the artifact records (see `inference_precision`).
    Raises UserError if the artifact is incomplete or does not fit the backbone or the classes.
    """
    config = load_config(artifact)
    task_heads = heads_of(artifact, config, classes)
    kinds = [head.kind for head in task_heads]
    trained = ARMS[config.arm].trains_backbone
    lm_head = not LM_HEADS.isdisjoint(kinds)
    precision = inference_precision(config.precision, device(Ranks()))
    backbone = Backbone.load(
        locate(params.backbone),
        lm_head,
        precision,
        trained,
        decoder=params.backbone.decoder,
        random_seed=config.random_seed,
    )
    prompt = load_prompt(artifact, config, params.backbone, backbone)
    load_into_backbone(artifact, config, backbone)
    heads = empty_heads(task_heads, backbone.hidden_size)
    load_heads(artifact, config, heads, classes)
    return PromptedModel(backbone, prompt, heads, train_backbone=trained)


@dataclass(frozen=True)
class Subject:
    """The model of an arm on one task, with test rows for further analysis.

    `test` is a subset of the test set. `primary` is the name of the primary metric. `max_length` is
    the number of tokens of a window, and `stride` the number of tokens by which windows overlap.
    """

    model: PromptedModel
    test: EvalSet
    primary: str
    pad_token_id: int
    max_length: int
    stride: int
    thresholds: dict[str, float]

    def featurized(self, examples: Sequence[Any]) -> AbstractContextManager[EvalSet]:
        """Within the context, a split of other examples of the task."""
        tokenizer = self.model.backbone.tokenizer
        return featurized(examples, self.test, tokenizer, self.max_length, self.stride)

    def metrics(self, split: EvalSet) -> Metrics:
        """The metrics of the model on a split."""
        return score(split, self.decoded(split), self.thresholds)

    def decoded(self, split: EvalSet) -> list[Any]:
        """The decoded predictions of the model for a split."""
        return decode(self.model, split, 0, self.pad_token_id)


def load_subject(arm: ArmName, name: str, params: Params, rows: int) -> Subject:
    """Load the model onto its device, with at most `rows` test rows.

    Raises UserError if a file of the task or the artifact is missing, or if they do not fit.
    """
    features, examples = FEATURES / name, EXAMPLES / name
    summary = load_json(features / "summary.json")
    model = load_model(ARTIFACTS / arm / name, {name: tuple(summary["classes"])}, params)
    thresholds = load_json(RESULTS / arm / name / "metrics.json")["thresholds"]
    return Subject(
        model.to(device(Ranks())),
        load_eval_set(features, examples, summary, "test", rows),
        summary["primary"],
        summary["pad_token_id"],
        **summary["windows"],
        thresholds=thresholds,
    )
