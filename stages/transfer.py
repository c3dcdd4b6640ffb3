"""transfer@TASK: score a task's head under the prompts of all tasks, and compare the prompts."""

import pandas as pd

from pipeline.analysis.probing import cosines, tuning_change
from pipeline.arms import MULTITASK
from pipeline.artifacts.artifact import check_deep_prompt_alone, load_prompt
from pipeline.artifacts.config import load_config
from pipeline.files import atomic_folder, write_json
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt
from pipeline.params import Params, task_of
from stages.evaluation.load_model import load_subject
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import ARTIFACTS, RESULTS

NO_PROMPT = "none"
COSINE_COLUMNS = ("prompt", "layer", "cosine", "cosine_added")


def transfer(name: str) -> None:
    """Write results/transfer/TASK.

    metrics.json has the score under each prompt, by the prompt's folder in artifacts/. cosines.tsv
    has the cosine between the task's prompt and each other prompt, by layer. A prompt that was
    trained with LoRA factors (`lora_lr`) is compared with no prompt only.
    """
    params = load_params()
    task_of(params, name)
    subject = load_subject(MULTITASK.name, name, params, params.probe.rows)
    model, backbone = subject.model, subject.model.backbone
    own, task_prompt = f"{MULTITASK.name}/{name}", model.prompt
    assert isinstance(task_prompt, DeepPrompt)
    prompts: dict[str, DeepPrompt | None] = {
        source: task_prompt if source == own else _load_deep_prompt(source, params, backbone)
        for source in _comparable_prompts(own, params)
    }
    scores, similarities = dict[str, float](), []
    for source, prompt in {**prompts, NO_PROMPT: None}.items():
        model.prompt = prompt if prompt is None else prompt.to(next(model.parameters()).device)
        scores[source] = subject.metrics(subject.test).overall[subject.primary]
        log(f"under the prompt {source}: {subject.primary} {scores[source]:.2f}")
        if prompt is not None and source != own:
            tuning_cosines = _tuning_cosines(name, source, params, backbone)
            similarities += [
                {
                    "prompt": source,
                    "layer": layer,
                    "cosine": cosine,
                    "cosine_added": tuning_cosines.get(layer),
                }
                for layer, cosine in cosines(task_prompt, prompt).items()
            ]
    log_read(ARTIFACTS)
    output = RESULTS / "transfer" / name
    with atomic_folder(output) as temporary:
        write_json(
            temporary / "metrics.json",
            {"primary": subject.primary, "rows": len(subject.test.examples), "scores": scores},
        )
        pd.DataFrame(similarities, columns=COSINE_COLUMNS).to_csv(
            temporary / "cosines.tsv", sep="\t", index=False, float_format="%.4f"
        )
    log_wrote(output)


def _comparable_prompts(own: str, params: Params) -> list[str]:
    """The artifacts with prompts that fit the model of the artifact `own`, which is one of them."""
    sources = [
        *(f"{MULTITASK.name}/{task}" for task in params.tasks),
        *(f"pretrain/{mixture}" for mixture in params.mixtures),
    ]
    with_lora = [source for source in sources if load_config(ARTIFACTS / source).lora_rank]
    if with_lora:
        log(f"not compared with other prompts, because of LoRA factors: {', '.join(with_lora)}")
    if own in with_lora:
        return [own]
    return [source for source in sources if source not in with_lora]


def _load_deep_prompt(
    source: str, params: Params, backbone: Backbone, task: str | None = None
) -> DeepPrompt:
    folder = ARTIFACTS / source
    config = load_config(folder)
    known = task if task in config.heads else None  # a mixture may not contain the task
    check_deep_prompt_alone(folder, config)
    prompt = load_prompt(folder, config, params.backbone, backbone, known)
    assert isinstance(prompt, DeepPrompt)
    return prompt


def _tuning_cosines(name: str, source: str, params: Params, backbone: Backbone) -> dict[int, float]:
    """Layer -> the cosine between the updates of two tasks' prompts during tuning.

    The tasks are `name` and the task of the prompt `source`. The result is empty unless both
    prompts were initialized from the prompt of the same mixture.
    """
    arm, other = source.split("/")
    start = params.tasks[name].init_from
    if (
        arm != MULTITASK.name
        or not start.startswith("pretrain/")
        or params.tasks[other].init_from != start
    ):
        return {}
    return cosines(
        *(
            tuning_change(
                _load_deep_prompt(f"{MULTITASK.name}/{task}", params, backbone),
                _load_deep_prompt(start, params, backbone, task),
            )
            for task in (name, other)
        )
    )


if __name__ == "__main__":
    run(transfer)
