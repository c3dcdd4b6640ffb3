"""An artifact as a model, and with what its evaluation found: thresholds, and test rows to try it on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.arms import ARMS, ArmName
from pipeline.artifacts.artifact import load_heads, load_into_backbone, load_prompt
from pipeline.artifacts.config import load_config
from pipeline.config import load_json
from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import device
from pipeline.evaluation.evaluate import EvalSet, decode, score
from pipeline.evaluation.splits import load_eval_set
from pipeline.metrics.base import Metrics
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params, Precision
from pipeline.pretrained.location import locate
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, RESULTS


def load_model(
    artifact: Path, classes: dict[str, tuple[str, ...]], params: Params, precision: Precision
) -> PromptedModel:
    """The backbone with an artifact's prompt, and its heads for the tasks in `classes`."""
    config = load_config(artifact)
    words = [config.heads[name].label_token_ids for name in classes if name in config.heads]
    backbone = Backbone.load(locate(params.backbone), any(words), precision)
    prompt = load_prompt(artifact, config, params.backbone, backbone)
    load_into_backbone(artifact, config, backbone)
    kinds = [config.heads[name].kind for name in classes if name in config.heads]
    heads = Heads(
        kinds, [len(names) for names in classes.values()], backbone.hidden_size, params.seed, words
    )
    load_heads(artifact, config, heads, classes)
    return PromptedModel(backbone, prompt, heads, train_backbone=ARMS[config.arm].trains_backbone)


@dataclass(frozen=True)
class Subject:
    """An arm's model of one task, to be tried out: `test` is some of its test rows, `primary` the figure that counts."""

    model: PromptedModel
    test: EvalSet
    primary: str
    pad_token_id: int
    max_length: int
    stride: int
    thresholds: dict[str, float]

    def metrics(self, split: EvalSet) -> Metrics:
        """What the model scores on a split."""
        return score(split, self.decoded(split), self.thresholds)

    def decoded(self, split: EvalSet) -> list[Any]:
        """The model's decoded predictions for a split."""
        return decode(self.model, split, 0, self.pad_token_id)


def load_subject(arm: ArmName, name: str, params: Params, rows: int) -> Subject:
    """The model where it predicts, with `rows` test rows at most."""
    features, examples = FEATURES / name, EXAMPLES / name
    summary = load_json(features / "summary.json")
    model = load_model(
        ARTIFACTS / arm / name,
        {name: tuple(summary["classes"])},
        params,
        params.training(arm, name).precision,
    )
    thresholds = load_json(RESULTS / arm / name / "metrics.json")["thresholds"]
    return Subject(
        model.to(device(Ranks())),
        load_eval_set(features, examples, summary, "test", rows),
        summary["primary"],
        summary["pad_token_id"],
        **summary["windows"],
        thresholds=thresholds,
    )
