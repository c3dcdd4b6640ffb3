"""The model card: an artifact's README.md, with the metadata that the Hugging Face hub reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pipeline.arms import ARMS
from pipeline.artifacts.config import ArtifactConfig
from pipeline.tasks import task_named

LIBRARY = "deep-prompt"


@dataclass(frozen=True)
class Corpus:
    """Where a corpus comes from and under which license; `hub` is the id of its copy there, where its recipe names one."""

    license: str
    source: str
    hub: str | None = None


def model_card(
    name: str, config: ArtifactConfig, metrics: Mapping[str, Any], corpora: Mapping[str, Corpus]
) -> str:
    """Markdown with a YAML head, for the artifact of one task. `metrics` is what evaluation wrote of it (results/ARM/TASK).

    `corpora` are those that it learned from, its own among them.
    """
    (head,) = config.heads.values()
    parts = [
        f"---\n{_metadata(name, config, metrics, corpora).to_yaml()}\n---",
        f"# {name}: {ARMS[config.arm].model_card} for {head.type}",
        _backbone(config, metrics),
        _use(name, head.type),
        _training(name, config, corpora),
        _scores(metrics),
        _provenance(config),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(
    name: str, config: ArtifactConfig, metrics: Mapping[str, Any], corpora: Mapping[str, Corpus]
) -> ModelCardData:
    task = task_named(metrics["task"]).pipeline_tag
    primary, own = metrics["primary"], corpora[name]
    result = EvalResult(
        task_type=task,
        dataset_type=own.hub or name,
        dataset_name=name,
        metric_type=primary,
        metric_value=round(metrics["test"][primary], 2),
        dataset_split="test",
    )
    copies = sorted({known.hub for known in corpora.values() if known.hub})
    kind, _, source = config.backbone.source.partition(":")
    return ModelCardData(
        model_name=name,
        eval_results=[result],
        library_name=LIBRARY,
        pipeline_tag=task,
        license="other",
        license_name="that-of-the-corpora",
        tags=["deep-prompt", "p-tuning-v2", config.arm],
        base_model=source.partition("@")[0] if kind == "hub" else None,
        datasets=copies or None,
        ignore_metadata_errors=False,
    )


def _backbone(config: ArtifactConfig, metrics: Mapping[str, Any]) -> str:
    trained, whole = metrics["parameters"]["trained"], metrics["parameters"]["backbone"]
    frozen = (
        "is part of this"
        if ARMS[config.arm].trains_backbone
        else "stays as it is and is not part of this"
    )
    digest = f", sha256 of its weights `{config.backbone.sha256}`" if config.backbone.sha256 else ""
    text = (
        f"The backbone is `{config.backbone.source}` ({config.model_type}, {whole:,} numbers{digest}); it {frozen}. "
        f"Trained were {trained:,} numbers, {100 * trained / whole:.2f} % of it."
    )
    if config.prompt_shape is not None and len(config.prompt_shape) == 5:
        layers, _, heads, count, size = config.prompt_shape
        text += (
            f" The prompt is {count} virtual tokens of {heads} key/value heads of size {size} in each of the layers "
            f"{config.first_layer} to {config.first_layer + layers - 1}"
            + (
                f", and shifts the text by {config.position_offset} positions."
                if config.position_offset
                else ", and takes none of the backbone's positions."
            )
        )
    return text


def _use(name: str, task: str) -> str:
    row = {"task": name} | dict.fromkeys(task_named(task).query_keys, "...")
    return f"""## How to load it

With [deep-prompt](https://arxiv.org/abs/2110.07602) installed and this folder at `{name}`:

    from pipeline.inference.predictor import load

    predictor = load(["{name}"])
    for prediction in predictor.predict([{json.dumps(row)}]):
        print(prediction.result)

or `deep-prompt predict --artifact {name} --input rows.jsonl`. Artifacts of other tasks on the same backbone can be loaded
with it; their rows share passes."""


def _training(name: str, config: ArtifactConfig, corpora: Mapping[str, Corpus]) -> str:
    before = config.provenance.get("pretrained_on", [])
    lines = [
        f"| {corpus} | {' and '.join(_stages(corpus, name, before))} | {_cell(known.license)} | {_cell(known.source)} |"
        for corpus, known in sorted(corpora.items())
    ]
    told = "\n".join(["| corpus | used in | license | source |", "|---|---|---|---|", *lines])
    return (
        f"## Training data\n\n{told}\n\nA prompt is made of what it was trained on, and may repeat some of it: before you "
        "pass it on, see what each license says of that."
    )


def _stages(corpus: str, name: str, before: list[str]) -> list[str]:
    return ["multi-task pretraining"] * (corpus in before) + ["tuning"] * (corpus == name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _scores(metrics: Mapping[str, Any]) -> str:
    figures = [key for key, value in metrics["test"].items() if isinstance(value, float)]
    rows = "\n".join(
        f"| {key}{' (primary)' if key == metrics['primary'] else ''} | {metrics['test'][key]:.2f} | "
        f"{metrics['validation'][key]:.2f} |"
        for key in figures
    )
    counts = metrics["rows"]
    thresholds = "".join(
        f" Threshold `{key}`: {value:.4g}, chosen on validation."
        for key, value in metrics["thresholds"].items()
    )
    return (
        f"## Scores\n\n| percent | test ({counts['test']} rows) | validation ({counts['validation']} rows) |\n|---|---|---|\n"
        f"{rows}\n\nThe step was chosen on validation; nothing was chosen on test.{thresholds}"
    )


def _provenance(config: ArtifactConfig) -> str:
    told = json.dumps(config.provenance, indent=2, sort_keys=True, ensure_ascii=False)
    return f"## Provenance\n\nFrom config.json; `data` are the hashes of the examples and features.\n\n```json\n{told}\n```"
