"""The model card: the README.md of an artifact, with metadata for the Hugging Face hub."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pipeline.arms import ARMS, LORA
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.errors import quantity
from pipeline.tasks import task_named

LIBRARY = "deep-prompt"
_PLACEHOLDERS: dict[str, Any] = {"integer": 0, "texts": ["...", "..."]}  # by kind of value


@dataclass(frozen=True)
class CorpusCard:
    """The source and the license of a corpus.

    `hub` is the id of its copy on the hub (None: its recipe does not name a copy).
    """

    license: str
    source: str
    hub: str | None = None


def model_card(
    name: str, config: ArtifactConfig, metrics: Mapping[str, Any], corpora: Mapping[str, CorpusCard]
) -> str:
    """The model card of an artifact with one head, as Markdown with a YAML header.

    `name` is the task. `metrics` is the content of its metrics.json (in results/ARM/TASK).
    `corpora` are the training corpora by name, including the corpus `name`.
    """
    (head,) = config.heads.values()
    parts = [
        f"---\n{_metadata(name, config, metrics, corpora).to_yaml()}\n---",
        f"# {name}: {_trained(config)} for {head.type}",
        _backbone(config, metrics),
        _use(name, config, head),
        _training(name, config, corpora),
        _scores(metrics),
        _provenance(config),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(
    name: str, config: ArtifactConfig, metrics: Mapping[str, Any], corpora: Mapping[str, CorpusCard]
) -> ModelCardData:
    task = task_named(metrics["task"]).pipeline_tag
    primary = metrics["primary"]
    result = EvalResult(
        task_type=task,
        dataset_type=corpora[name].hub or name,
        dataset_name=name,
        metric_type=primary,
        metric_value=round(metrics["test"][primary], 2),
        dataset_split="test",
    )
    datasets = sorted({corpus.hub for corpus in corpora.values() if corpus.hub})
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
        datasets=datasets or None,
        ignore_metadata_errors=False,
    )


def _backbone(config: ArtifactConfig, metrics: Mapping[str, Any]) -> str:
    trained, total = metrics["parameters"]["trained"], metrics["parameters"]["backbone"]
    use = (
        "This artifact includes its trained weights."
        if ARMS[config.arm].trains_backbone
        else "It is frozen, and this artifact does not include it."
    )
    digest = f", sha256 of the weights `{config.backbone.sha256}`" if config.backbone.sha256 else ""
    text = (
        f"The backbone is `{config.backbone.source}` ({config.model_type}, {total:,} parameters"
        f"{digest}). {use} Training changed {trained:,} parameters, "
        f"{100 * trained / total:.2f} % of the number in the backbone."
    )
    if config.prompt_shape is not None and len(config.prompt_shape) == 5:
        layers, _, heads, count, size = config.prompt_shape
        text += (
            f" The prompt has {count} virtual tokens in each of the layers {config.first_layer} to "
            f"{config.first_layer + layers - 1}, with {heads} key/value heads of size {size}. "
        )
        text += (
            f"It shifts the text by {config.position_offset} positions."
            if config.position_offset
            else "It takes no positions of the backbone."
        )
        if config.zero_token_types:
            text += " All token types of the text are 0."
    return text


def _use(name: str, config: ArtifactConfig, head: TaskHead) -> str:
    kind = task_named(head.type)
    row: dict[str, Any] = {"task": name}
    for key in (*kind.query_keys, *head.required_inputs):
        if key == "tokens":
            row["text"] = "..."
        else:
            row[key] = _PLACEHOLDERS.get(kind.row_keys.kinds[key], "...")
    return f"""## How to load it

With [deep-prompt](https://arxiv.org/abs/2110.07602) installed and this folder at `{name}`:

    import deep_prompt

    model = deep_prompt.load("{name}")
    for prediction in model.predict([{json.dumps(row)}]):
        print(prediction.result)

or `deep-prompt predict --artifact {name} --input rows.jsonl`. {_words(head)}{_sharing(config)}"""


def _words(head: TaskHead) -> str:
    if head.word_rule is None:
        return ""
    return (
        f"The rule `{head.word_rule}` makes words of `text`; a row may have `tokens` instead. "
        "Results count characters of the text, or tokens. "
    )


def _trained(config: ArtifactConfig) -> str:
    arm = ARMS[config.arm]
    has_more = config.lora_rank and "lora" not in arm.parts
    return f"{arm.model_card} and {LORA.model_card}" if has_more else arm.model_card


def _sharing(config: ArtifactConfig) -> str:
    if reason := config.served_alone:
        return f"Load it alone: {reason}."
    return (
        "It can be loaded together with artifacts of other tasks on the same backbone; their rows "
        "share forward passes."
    )


def _training(name: str, config: ArtifactConfig, corpora: Mapping[str, CorpusCard]) -> str:
    pretrained_on = config.provenance.get("pretrained_on", [])
    table = ["| corpus | used in | license | source |", "|---|---|---|---|"]
    for key, corpus in sorted(corpora.items()):
        stages = ["multi-task pretraining"] * (key in pretrained_on) + ["tuning"] * (key == name)
        cells = (key, " and ".join(stages), _cell(corpus.license), _cell(corpus.source))
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "## Training data\n",
            *table,
            *_unseen(name, pretrained_on),
            "\nThe trained parameters may reproduce parts of the training data. Read the "
            "conditions of each license before you pass this artifact on.",
        ]
    )


def _unseen(name: str, pretrained_on: Sequence[str]) -> list[str]:
    """A sentence if the shared prompt was trained on other corpora only."""
    if not pretrained_on or name in pretrained_on:
        return []
    return [
        f"\nThe shared prompt has not seen {name}: multi-task pretraining did not use it. The rows "
        f"of the other corpora were not compared with the test rows of {name}."
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _scores(metrics: Mapping[str, Any]) -> str:
    # A split may lack scores of the other, such as those of a subset of its rows.
    splits = (metrics["test"], metrics["validation"])
    rows = "\n".join(
        f"| {key}{' (primary)' if key == metrics['primary'] else ''} | "
        + " | ".join(f"{scores[key]:.2f}" if key in scores else "-" for scores in splits)
        + " |"
        for key, value in (splits[1] | splits[0]).items()
        if isinstance(value, float)
    )
    counts, interval = metrics["rows"], metrics.get("interval")
    sampling = (
        f"The 95 % interval of the test {metrics['primary']} is {interval[0]:.2f} to "
        f"{interval[1]:.2f} (bootstrap of the test set, one training run). "
        if interval
        else ""
    )
    thresholds = "".join(
        f" Threshold `{key}`: {value:.4g}, chosen on the validation set."
        for key, value in metrics["thresholds"].items()
    )
    return (
        f"## Scores\n\n| percent | test ({quantity(counts['test'], 'row')}) | "
        f"validation ({quantity(counts['validation'], 'row')}) |\n|---|---|---|\n{rows}\n\n"
        f"{sampling}"
        "The training step was chosen on the validation set. Nothing was chosen on the test set."
        f"{thresholds}"
    )


def _provenance(config: ArtifactConfig) -> str:
    provenance = json.dumps(config.provenance, indent=2, sort_keys=True, ensure_ascii=False)
    return (
        "## Provenance\n\nFrom config.json. `data` has the hashes of the examples and features.\n\n"
        f"```json\n{provenance}\n```"
    )
