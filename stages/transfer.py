"""transfer: one task's head under the prompts of all tasks, and how like them its own prompt is."""

from pathlib import Path

import pandas as pd

from pipeline.artifact import load_config, load_prompt
from pipeline.files import atomic_folder, write_json
from pipeline.probing import cosines
from pipeline.prompt import DeepPrompt
from stages.command import run, say, say_read, say_wrote
from stages.loading import load_subject
from stages.params import load_params, task_of

NONE = "none"


def transfer(name: str) -> None:
    """Write results/transfer/TASK: metrics.json, the score under each prompt by its folder in artifacts/, and cosines.tsv."""
    params = load_params()
    task_of(params, name)
    subject = load_subject("multitask", name, params, params.probe.rows)
    model, own = subject.model, subject.model.prompt
    assert isinstance(own, DeepPrompt)
    scores, alike = dict[str, float](), []
    for source in (*(f"multitask/{other}" for other in params.tasks), *(f"pretrain/{mix}" for mix in params.mixtures), NONE):
        folder = Path("artifacts") / source
        prompt = None if source == NONE else load_prompt(folder, load_config(folder), params.backbone, model.backbone)
        model.prompt = prompt if prompt is None else prompt.to(next(model.parameters()).device)
        scores[source] = subject.metrics(subject.test).overall[subject.primary]
        say(f"under the prompt {source}: {subject.primary} {scores[source]:.2f}")
        if isinstance(model.prompt, DeepPrompt):
            alike += [{"prompt": source, "layer": layer, "cosine": value} for layer, value in cosines(own, model.prompt).items()]
    say_read(Path("artifacts"))
    output = Path("results/transfer") / name
    with atomic_folder(output) as beside:
        write_json(beside / "metrics.json", {"primary": subject.primary, "rows": len(subject.test.examples), "scores": scores})
        pd.DataFrame(alike).to_csv(beside / "cosines.tsv", sep="\t", index=False, float_format="%.4f")
    say_wrote(output)


if __name__ == "__main__":
    run(transfer)
