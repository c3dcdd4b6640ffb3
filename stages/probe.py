"""probe: score an arm's model on perturbed test examples, and probe its deep prompt by layer."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pipeline.analysis.consistency import consistency, paraphrases_of, without_prompt
from pipeline.analysis.perturbations import perturb, suites
from pipeline.analysis.probing import attention_mass, input_bytes, without_layer
from pipeline.errors import quantity
from pipeline.evaluation.splits import SUBSET_SEED
from pipeline.files import atomic_folder, write_json
from pipeline.model.prompt import DeepPrompt
from pipeline.params import task_of
from pipeline.tasks.base.capabilities import HasParaphrases, unsupported_features
from stages.evaluation.load_model import Subject, load_subject
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import arm_of, load_params
from stages.runtime.paths import ARTIFACTS, RESULTS


def probe(arm_name: str, name: str) -> None:
    """Write results/probe/ARM/TASK: metrics.json, suites.tsv and layers.tsv.

    suites.tsv is empty if the kind of task is not perturbable, layers.tsv if the arm has no deep
    prompt. metrics.json has `consistency` if the kind of task has paraphrases.
    """
    arm, params = arm_of(arm_name), load_params()
    task_of(params, name)
    subject = load_subject(arm, name, params, params.probe.rows)
    log_read(ARTIFACTS / arm / name)
    clean = subject.metrics(subject.test).overall[subject.primary]
    log(f"{len(subject.test.examples)} test examples, {subject.primary} {clean:.2f}")
    robustness = pd.DataFrame(
        _suites(subject, clean, params.probe.typo_rate),
        columns=["suite", "score", "loss", "changed"],
    )
    layers = pd.DataFrame(_layers(subject, clean))
    if layers.empty:
        layers = pd.DataFrame(columns=["layer", "score", "loss"])
    output = RESULTS / "probe" / arm / name
    with atomic_folder(output) as temporary:
        losses = dict(zip(robustness["suite"], robustness["loss"].round(4), strict=True))
        write_json(
            temporary / "metrics.json",
            {
                "primary": subject.primary,
                "rows": len(subject.test.examples),
                "score": clean,
                "loss": losses,
                **_consistency(subject),
            },
        )
        for frame, file in ((robustness, "suites.tsv"), (layers, "layers.tsv")):
            frame.to_csv(temporary / file, sep="\t", index=False, float_format="%.4f")
    log_wrote(output)


def _suites(subject: Subject, clean: float, typo_rate: float) -> Iterator[dict[str, Any]]:
    """One row per suite. The score is `clean` if no input of the backbone changes."""
    test = subject.test
    by_name = suites(test.task, test.examples, typo_rate)
    if not by_name:
        log(f"no suite: {unsupported_features(test.task)}")
        return
    with subject.featurized(test.examples) as split:
        inputs = input_bytes(split)
    for name, suite in by_name.items():
        with subject.featurized(perturb(test.examples, name, suite, SUBSET_SEED)) as split:
            changed = sum(old != new for old, new in zip(inputs, input_bytes(split), strict=True))
            score = subject.metrics(split).overall[subject.primary] if changed else clean
        rows = quantity(changed, "example")
        log(f"{name}: {rows} with a changed input, {subject.primary} {score:.2f}")
        yield {"suite": name, "score": score, "loss": clean - score, "changed": changed}


def _consistency(subject: Subject) -> dict[str, Any]:
    """The consistency of the answers to paraphrases, with the prompt of the model and without.

    A model without a prompt has no value with it. Empty if the kind of task has no paraphrases.
    """
    test, task = subject.test, subject.test.task
    if not isinstance(task, HasParaphrases):
        return {}
    paraphrases = paraphrases_of(task, test.examples)
    with subject.featurized(paraphrases.examples) as split:

        def measure() -> float | None:
            predictions = test.task.predictions(split.examples, subject.decoded(split), {})
            return consistency(paraphrases, task.answers(predictions))

        scores = {"with_prompt": measure()} if subject.model.prompt is not None else {}
        with without_prompt(subject.model):
            scores["without_prompt"] = measure()
    for name, score in scores.items():
        value = "no pair" if score is None else f"{score:.2f} % of pairs of paraphrases agree"
        log(f"{name.replace('_', ' ')}: {value}")
    log(
        f"{paraphrases.num_pairs} pairs; {paraphrases.num_refused} paraphrases are left out, which "
        "the model cannot read"
    )
    counts = {"pairs": paraphrases.num_pairs, "refused": paraphrases.num_refused}
    return {"consistency": scores | counts}


def _layers(subject: Subject, clean: float) -> Iterator[dict[str, Any]]:
    """One row per layer with a prompt: the score without it, and each head's attention to it."""
    model, prompt = subject.model, subject.model.prompt
    if not isinstance(prompt, DeepPrompt):
        return
    masses = attention_mass(model, subject.test, subject.pad_token_id)
    for layer, heads in masses.items():
        with without_layer(prompt, layer):
            score = subject.metrics(subject.test).overall[subject.primary]
        log(f"without the prompt in layer {layer}: {subject.primary} {score:.2f}")
        yield {
            "layer": layer,
            "score": score,
            "loss": clean - score,
            **{f"head_{n}": mass for n, mass in enumerate(heads)},
        }


if __name__ == "__main__":
    run(probe)
