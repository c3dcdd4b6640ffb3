"""transfer: one task's head under the prompts of all tasks, and how like them its own prompt is."""

import pandas as pd

from pipeline.analysis.probing import added, cosines
from pipeline.artifacts.artifact import load_prompt
from pipeline.artifacts.config import load_config
from pipeline.files import atomic_folder, write_json
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt
from pipeline.params import Params, task_of
from stages.evaluation.load_model import load_subject
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import ARTIFACTS, RESULTS

NONE = "none"


def transfer(name: str) -> None:
    """Write results/transfer/TASK: metrics.json, the score under each prompt by its folder in artifacts/, and cosines.tsv."""
    params = load_params()
    task_of(params, name)
    subject = load_subject("multitask", name, params, params.probe.rows)
    model, backbone = subject.model, subject.model.backbone
    own = _prompt(f"multitask/{name}", params, backbone)
    scores, alike = dict[str, float](), []
    for source in (
        *(f"multitask/{other}" for other in params.tasks),
        *(f"pretrain/{mix}" for mix in params.mixtures),
        NONE,
    ):
        prompt = None if source == NONE else _prompt(source, params, backbone)
        model.prompt = prompt if prompt is None else prompt.to(next(model.parameters()).device)
        scores[source] = subject.metrics(subject.test).overall[subject.primary]
        log(f"under the prompt {source}: {subject.primary} {scores[source]:.2f}")
        if prompt is not None:
            tuned = _tuned_alike(name, source, params, backbone)
            alike += [
                {
                    "prompt": source,
                    "layer": layer,
                    "cosine": cosine,
                    "cosine_added": tuned.get(layer),
                }
                for layer, cosine in cosines(own, prompt).items()
            ]
    log_read(ARTIFACTS)
    output = RESULTS / "transfer" / name
    with atomic_folder(output) as beside:
        write_json(
            beside / "metrics.json",
            {"primary": subject.primary, "rows": len(subject.test.examples), "scores": scores},
        )
        pd.DataFrame(alike).to_csv(
            beside / "cosines.tsv", sep="\t", index=False, float_format="%.4f"
        )
    log_wrote(output)


def _prompt(source: str, params: Params, backbone: Backbone, task: str | None = None) -> DeepPrompt:
    folder = ARTIFACTS / source
    prompt = load_prompt(folder, load_config(folder), params.backbone, backbone, task)
    assert isinstance(prompt, DeepPrompt)
    return prompt


def _tuned_alike(name: str, source: str, params: Params, backbone: Backbone) -> dict[int, float]:
    """Layer -> the cosine of what tuning added for `name` and for the task whose prompt `source` is.

    Empty where they have not started from the same mixture's prompt: then there is nothing that both were added to.
    """
    arm, other = source.split("/")
    start = params.tasks[name].init_from
    if (
        arm != "multitask"
        or not start.startswith("pretrain/")
        or params.tasks[other].init_from != start
    ):
        return {}
    return cosines(
        *(
            added(
                _prompt(f"multitask/{task}", params, backbone),
                _prompt(start, params, backbone, task),
            )
            for task in (name, other)
        )
    )


if __name__ == "__main__":
    run(transfer)
