"""The sentences of the report: summaries computed from the numbers, and the glossary."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from pipeline.analysis.bootstrap import NUM_SAMPLES
from pipeline.arms import ARMS
from pipeline.errors import quantity
from pipeline.metrics import answers
from pipeline.report import constant_answers, kinds
from pipeline.report.collect import Mixture, ReportInputs, RunResult
from pipeline.report.intervals import gap
from pipeline.report.tables import (
    DASH,
    OURS,
    best_arms,
    count,
    factor,
    is_comparison,
    join_and,
    metric_name,
    percent,
    primary,
    score,
    share_trained,
    signed,
    span,
    trained,
)

REFERENCES = tuple(
    arm.name for arm in sorted(ARMS.values(), key=lambda arm: arm.reference) if arm.reference
)

RESOURCE_USAGE = (
    "deep-prompt show prints the seconds, the peak memory and the number of ranks of each run."
)

BY_CHARACTER = "F1 by character"
GLOSSARY: dict[str, str] = {
    **{arm.name: arm.glossary for arm in ARMS.values()},
    "test, validation": (
        "Scores are 0–100; higher is better. The validation score selects the checkpoint, so it is "
        "inflated. Compare arms by the test score."
    ),
    "bold": (
        "The best arm of a task, and all arms without a significant difference from it: the "
        "interval of the difference includes 0."
    ),
    "95 % interval": (
        "Percentile bootstrap over the sentences, questions or texts of the test set, with "
        f"{NUM_SAMPLES:,} samples. Arms are compared on the same samples (paired). p is two-sided, "
        "without correction for multiple comparisons. The interval of a single run covers test-set "
        "sampling, not seed variance. A dash means that there is nothing to resample, or that all "
        "samples are equal."
    ),
    "of several scores": (
        "The run was repeated with other seeds (`repeat` in params.yaml), and the cell is the mean "
        "of the listed test scores. The shared prompt and its head stay the same. The interval "
        "of the mean, and that of a difference between two repeated arms, covers both test-set "
        "sampling and seed variance (Student's t); few seeds make it wide. Other values are those "
        "of the first seed."
    ),
    "confidence": (
        "The softmax probability of the predicted tag, answer or label. The confidence of a span "
        "or argument is the lowest confidence of its tags. Calibrated: the logits are divided by "
        "one temperature, fitted on validation (Guo et al. 2017); this changes no prediction. "
        "`deep-prompt predict` returns calibrated confidences."
    ),
    "ECE, Brier": (
        "ECE is the mean difference between confidence and accuracy over 15 bins. Brier is the "
        "mean squared error of the confidence. Lower is better. In the reliability plot, points "
        "below the diagonal are overconfident."
    ),
    "AURC": (
        "The area under the risk-coverage curve: the error rate (risk) of the most confident "
        "predictions, by their share (coverage). Lower is better. It depends on the order of "
        "confidences only, so a temperature hardly changes it."
    ),
    "measures of confidence": (
        "For questions. Raw and calibrated: the probability of the answer. Margin: its probability "
        "against the next best answer only, with its own temperature. Agreement: the mean F1 "
        "between the answer and the answers to rule-based paraphrases of the question, or to a "
        "context cut to the neighborhood of the answer."
    ),
    BY_CHARACTER: (
        "For answers in scripts without spaces; each character counts as a word. CMRC 2018: the "
        "overlap of two answers is their longest common run of characters (Cui et al. 2019). MLQA: "
        "the overlap is the number of common characters, without regard to their order (Lewis et "
        "al. 2020)."
    ),
    "confusion": "Rows are gold labels, columns are predicted labels.",
    DASH: "Not run, or not measured.",
    "parameters trained": (
        "All trained parameters of the arm, including its head. The share is relative to the size "
        "of the backbone."
    ),
    "curves": (
        "Validation scores are shown as measured, with a ring at the selected step. Losses are "
        "exponential means over about a thirtieth of the run. Losses of different tasks are not "
        "comparable."
    ),
    "sampled share": (
        "A corpus of n rows is sampled in proportion to min(n, cap)^(1/temperature); a temperature "
        "above 1 favors small corpora. Epochs are the passes over each corpus."
    ),
    "shares of the training data": (
        "Micro-batches are drawn by share. They have about the same number of tokens, but not of "
        "rows or of loss tokens (labels in the loss)."
    ),
    "held-out rows found": (
        "Held-out rows with a text that equals, contains or is contained in a training row of any "
        "corpus of the mixture. If there are any, read the test score of multitask on that task "
        "with care."
    ),
}


GLOSSARY_CONDITIONS: dict[str, Callable[[RunResult], bool]] = {
    "95 % interval": lambda run: run.counts is not None,
    "of several scores": lambda run: bool(run.repeats),
    "confidence": lambda run: run.confidences is not None,
    "ECE, Brier": lambda run: run.confidences is not None,
    "AURC": lambda run: run.confidences is not None,
    "measures of confidence": lambda run: run.measures is not None,
    BY_CHARACTER: lambda run: run.metrics is not None and run.metrics.primary in answers.TITLES,
    "confusion": lambda run: run.claims is not None,
}
"""A term is in the glossary if its condition holds for at least one run."""


def glossary(inputs: ReportInputs) -> dict[str, str]:
    """Term -> explanation: the terms of this report, then those of its task types."""
    absent = {*ARMS} - {*inputs.arms} | {
        term for term, holds in GLOSSARY_CONDITIONS.items() if not any(map(holds, inputs.runs))
    }
    terms = {term: text for term, text in GLOSSARY.items() if term not in absent}
    return {**terms, **kinds.glossary(run.metrics.kind for run in inputs.runs if run.metrics)}


def summary(inputs: ReportInputs) -> str:
    """A paragraph about all tasks."""
    scored_runs = [run for run in inputs.runs if primary(run) is not None]
    if not scored_runs:
        return "No arm has been evaluated yet."
    parts = [
        f"{len(scored_runs)} of {len(inputs.runs)} planned runs "
        f"({quantity(len(inputs.arms), 'arm')}, {quantity(len(inputs.tasks), 'task')}) are "
        "complete."
    ]
    parts.extend(filter(None, [_winners(inputs)]))
    parts.extend(sentence for reference in REFERENCES if (sentence := _against(inputs, reference)))
    ours = [run for run in scored_runs if run.arm == OURS]
    if OURS in inputs.arms and not ours:
        parts.append(f"{OURS} has not been evaluated.")
    parts.extend(_size(ours))
    leaky = [mixture.name for mixture in inputs.mixtures if mixture.leaks]
    if leaky:
        parts.append(
            f"The leakage check of the mixture {join_and(leaky)} found held-out rows among "
            "training rows; see its section."
        )
    return " ".join(parts)


def about_cost(inputs: ReportInputs) -> str:
    """The cost of the shared prompt's training, and where to find the time of each run."""
    seen = {mixture.name: mixture.training.facts.get("tokens_seen") for mixture in inputs.mixtures}
    tokens = [
        f"{count(value)} tokens ({name})" for name, value in seen.items() if value is not None
    ]
    if not tokens or OURS not in inputs.arms:
        return RESOURCE_USAGE
    return (
        f"The shared prompt was trained on {join_and(tokens)}, once for all tasks; the tokens "
        f"of {OURS} are additional. {RESOURCE_USAGE}"
    )


def about_mixture(mixture: Mixture) -> str:
    """The number of corpora, how they are mixed, and the result of the leakage check."""
    if mixture.corpora is None:
        return "The file of the mixture is missing; below is its training."
    temperature, cap = mixture.settings.get("temperature"), mixture.settings.get("cap")
    rates = (
        f"mixed at temperature {factor(temperature)}, cap {count(cap)}"
        if temperature
        else "mixed in equal or fixed shares"
    )
    leakage = (
        "The leakage check found held-out rows among training rows."
        if mixture.leaks
        else "The leakage check found no held-out row among training rows."
    )
    dropped = sum(corpus.get("dropped") or 0 for corpus in mixture.corpora.values())
    dropped_rows = f" {count(dropped)} leaking training rows were dropped." if dropped else ""
    warnings = "".join(f" Warning: {warning}." for warning in mixture.warnings)
    return f"{len(mixture.corpora)} corpora, {rates}. {leakage}{dropped_rows}{warnings}"


def about_task(runs: Sequence[RunResult]) -> str:
    """The best arm and its distance to multitask, and the unsupported features of the task type.

    Also the scores of a constant answer, and whether the shared prompt has not seen the task's
    corpus.
    """
    features = next((kinds.about_features(run.metrics.kind) for run in runs if run.metrics), "")
    sentences = [_ranking(runs), constant_answers.sentence(runs), *map(_unseen, runs), features]
    return " ".join(filter(None, sentences))


def _unseen(run: RunResult) -> str:
    """A sentence if the initial prompt of a run has not seen its corpus."""
    corpora = run.training.pretrained_on
    if not corpora or run.task in corpora:
        return ""
    return (
        f"The shared prompt of {run.arm} has not seen {run.task}: it was trained on "
        f"{join_and(corpora)}, whose rows were not compared with the held-out rows of {run.task}."
    )


def _ranking(runs: Sequence[RunResult]) -> str:
    best, name = best_arms(runs), metric_name(runs)
    if not best:
        return "Not evaluated yet."
    values = {run.arm: value for run in runs if (value := primary(run)) is not None}
    top = f"{score(values[best[0]])} {name}"
    if len(values) == 1:
        return f"{best[0]} has {top}; no other arm has a score."
    text = f"{join_and(best)} {'are' if len(best) > 1 else 'is'} best with {top}"
    if OURS not in values:
        return f"{text}."
    by_arm = {run.arm: run for run in runs}
    gaps = [
        f"{_gap(_difference(values[OURS], values[other]))} "
        f"{other}{_significance(by_arm[OURS], by_arm[other])}"
        for other in REFERENCES
        if other in values
    ]
    if best == [OURS]:
        return f"{text}{', ' if gaps else ''}{join_and(gaps)}."
    return f"{text}; {OURS} reaches {score(values[OURS])}{', ' if gaps else ''}{join_and(gaps)}."


def _significance(ours: RunResult, other: RunResult) -> str:
    difference = gap(ours, other)
    return " (not significant)" if difference and not difference.is_significant else ""


def _winners(inputs: ReportInputs) -> str:
    """The number of tasks that each arm wins; empty if no task has the scores of two arms."""
    compared = [task for task in inputs.tasks if is_comparison(inputs.of_task(task))]
    best = [arm for task in compared for arm in best_arms(inputs.of_task(task))]
    wins = {arm: best.count(arm) for arm in inputs.arms if arm in best}
    ranked = sorted(wins.items(), key=lambda pair: -pair[1])
    if not ranked:
        return ""
    return (
        f"Best on {quantity(len(compared), 'task')} with scores of several arms: "
        + join_and([f"{arm} ({number})" for arm, number in ranked])
        + "."
    )


def _against(inputs: ReportInputs, reference: str) -> str:
    """The mean distance of multitask to `reference`; empty if no task has both."""
    pairs = [
        (primary(inputs.run(OURS, task)), primary(inputs.run(reference, task)))
        for task in inputs.tasks
    ]
    gaps = [
        _difference(ours, other) for ours, other in pairs if ours is not None and other is not None
    ]
    if not gaps:
        return ""
    if len(gaps) == 1:
        return f"On the only task with both, {OURS} is {_gap(gaps[0])} {reference}."
    value_range = f"{signed(min(gaps))} to {signed(max(gaps))}"
    mean = _gap(fmean(gaps))
    return (
        f"Averaged over {len(gaps)} tasks, {OURS} is {mean} {reference} (by task: {value_range})."
    )


def _size(ours: Sequence[RunResult]) -> Iterator[str]:
    shares = span(map(share_trained, ours), percent)
    if shares != DASH:
        parameters = span(map(trained, ours), count)
        yield f"For each task it trains {parameters} parameters, {shares} of the backbone's."


def _difference(ours: float, other: float) -> float:
    """The difference of the rounded scores, so that it agrees with the table."""
    return float(score(ours)) - float(score(other))


def _gap(difference: float) -> str:
    if score(abs(difference)) == "0.0":
        return "equal to"
    return f"{score(abs(difference))} points {'above' if difference > 0 else 'below'}"
