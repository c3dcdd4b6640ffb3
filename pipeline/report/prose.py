"""The report's sentences: what the numbers say, computed from them, and how to read the page."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from pipeline.analysis.bootstrap import NUM_SAMPLES
from pipeline.arms import ARMS
from pipeline.report import kinds
from pipeline.report.collect import Mixture, ReportInputs, RunResult
from pipeline.report.intervals import gap
from pipeline.report.tables import (
    DASH,
    OURS,
    best_arms,
    count,
    factor,
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

MEASURED = (
    "deep-prompt show prints the seconds, the peak memory and the number of ranks of each run."
)

GLOSSARY: dict[str, str] = {
    **{arm.name: arm.glossary for arm in ARMS.values()},
    "test, validation": "Scores are 0–100, higher is better. The step to keep was chosen by the validation score, so that one is "
    "flattered; compare arms by the test score.",
    "bold": "The best arm of a task, and those that do not really differ from it: the interval of the difference holds 0.",
    "95 % interval": "Below a score and of a difference: percentile bootstrap over the test set's sentences, questions or texts, "
    f"{NUM_SAMPLES:,} times drawn with replacement. Arms are compared on the same draws (paired), p is two-sided, and no correction "
    "is made for the number of comparisons. It says how far the score hangs on which rows were tested; of one run, not on the "
    "seed of the training. A dash, or none: nothing to draw from, or the same in every draw.",
    "of several scores": "A run was repeated with other seeds (`repeat` in params.yaml; the shared prompt, and the head it "
    "comes with, stay the same): the cell is the mean of the test scores named. Its interval, and those of differences between "
    "two such arms, allow for other seeds and other rows, by Student's t: few seeds make it wide. All else is of the first seed.",
    "confidence": "Of a tag, an answer, a label: the softmax probability of what was decided; of a span or argument: that of its "
    "least sure tag. Calibrated: after the logits were divided by one temperature, which was fitted on validation (Guo et al. "
    "2017) and changes no prediction. `deep-prompt predict` gives the calibrated one.",
    "ECE, Brier": "How far confidence is from the share that is right, on average over 15 bins; and the mean squared error of "
    "confidence. Less is better. In the reliability plot, a point below the diagonal is overconfident.",
    "AURC": "Area under the risk-coverage curve: keep only the most confident share (coverage), and see how many of those are "
    "wrong (risk). Less is better; it asks only for the order, which a temperature hardly changes.",
    "measures of confidence": "Of questions: the probability of the answer, raw and calibrated; margin: its probability against "
    "the next best alone, with a temperature of its own; agreement: the mean F1 of words with what is answered when the question "
    "is put otherwise by rules, or the context cut to what is around the answer.",
    "confusion": "Rows are gold labels, columns predicted ones.",
    DASH: "Not run, or not measured.",
    "parameters trained": "All that an arm trains, its head included. The share is relative to the size of the backbone.",
    "curves": "Validation is shown as measured, with a ring at the step that was kept. A loss is shown as an exponential "
    "mean over about a thirtieth of its run; the losses of different tasks are not comparable.",
    "share as sampled": "A corpus of n rows is drawn in proportion to min(n, cap)^(1/temperature): a temperature above 1 "
    "favors small corpora. Epochs say how often the run went through each.",
    "shares of the training data": "Micro-batches are drawn by share; they hold about the same number of tokens each, not of "
    "rows, nor of loss tokens: the labels that the loss is computed on.",
    "held-out rows found": "Held-out rows whose texts equal, contain or are contained in train rows of another corpus, or of "
    "their own. Where there are any, read the multitask arm's test score on that task with care.",
}


NEEDED: dict[str, Callable[[RunResult], bool]] = {
    "95 % interval": lambda run: run.counts is not None,
    "of several scores": lambda run: bool(run.repeats),
    "confidence": lambda run: run.confidences is not None,
    "ECE, Brier": lambda run: run.confidences is not None,
    "AURC": lambda run: run.confidences is not None,
    "measures of confidence": lambda run: run.measures is not None,
    "confusion": lambda run: run.claims is not None,
}
"""A word is in the report if this holds of one of its runs."""


def glossary(evidence: ReportInputs) -> dict[str, str]:
    """Word to meaning: the words that this report has, then those of its kinds of task."""
    absent = {*ARMS} - {*evidence.arms} | {
        word for word, has in NEEDED.items() if not any(map(has, evidence.runs))
    }
    shown = {word: text for word, text in GLOSSARY.items() if word not in absent}
    return {**shown, **kinds.glossary(run.metrics.kind for run in evidence.runs if run.metrics)}


def summary(evidence: ReportInputs) -> str:
    """One paragraph about all tasks."""
    done = [run for run in evidence.runs if primary(run) is not None]
    if not done:
        return "No arm has been evaluated yet."
    parts = [
        f"{len(done)} of {len(evidence.runs)} runs ({_plural(evidence.arms, 'arm')} on {_plural(evidence.tasks, 'task')}) are in."
    ]
    parts.append(_winners(evidence))
    parts.extend(
        sentence for reference in REFERENCES if (sentence := _against(evidence, reference))
    )
    ours = [run for run in done if run.arm == OURS]
    if OURS in evidence.arms and not ours:
        parts.append(f"{OURS} has not been evaluated.")
    parts.extend(_size(ours))
    leaky = [mixture.name for mixture in evidence.mixtures if mixture.leaks]
    if leaky:
        parts.append(
            f"The leakage check of the mixture {_and(leaky)} found held-out rows among train rows: they are listed with it."
        )
    return " ".join(parts)


def about_cost(evidence: ReportInputs) -> str:
    """What `multitask` cost before any task, the training of the shared prompt; and where the time of each run is."""
    seen = {
        mixture.name: mixture.training.facts.get("tokens_seen") for mixture in evidence.mixtures
    }
    tokens = [
        f"{count(value)} tokens ({name})" for name, value in seen.items() if value is not None
    ]
    if not tokens or OURS not in evidence.arms:
        return MEASURED
    return (
        f"The shared prompt was trained on {_and(tokens)}, once for all tasks; the tokens of {OURS} come on top. "
        f"{MEASURED}"
    )


def about_mixture(mixture: Mixture) -> str:
    """How many corpora, mixed how, and whether the leakage check found something."""
    if mixture.corpora is None:
        return "The mixture's own file is absent; below is its training."
    temperature, cap = mixture.settings.get("temperature"), mixture.settings.get("cap")
    how = (
        f"mixed at temperature {factor(temperature)}, cap {count(cap)}"
        if temperature
        else "mixed in equal or given shares"
    )
    found = (
        "Held-out rows were found among train rows."
        if mixture.leaks
        else "No held-out row was found among train rows."
    )
    dropped = sum(corpus.get("dropped") or 0 for corpus in mixture.corpora.values())
    gone = f" {count(dropped)} train rows were dropped for it." if dropped else ""
    warned = "".join(f" Warning: {warning}." for warning in mixture.warnings)
    return f"{len(mixture.corpora)} corpora, {how}. {found}{gone}{warned}"


def about_task(runs: Sequence[RunResult]) -> str:
    """The best arm and its distance to the multitask arm; the features that the kind leaves out."""
    off = next((kinds.about_features(run.metrics.kind) for run in runs if run.metrics), "")
    return " ".join(filter(None, [_ranking(runs), off]))


def _ranking(runs: Sequence[RunResult]) -> str:
    best, name = best_arms(runs), metric_name(runs)
    if not best:
        return "Not evaluated yet."
    values = {run.arm: value for run in runs if (value := primary(run)) is not None}
    only = "the only arm with a score" if len(values) == 1 else "best"
    text = f"{_and(best)} {'are' if len(best) > 1 else 'is'} {only} with {score(values[best[0]])} {name}"
    if OURS not in values:
        return f"{text}."
    by_arm = {run.arm: run for run in runs}
    gaps = [
        f"{_gap(_difference(values[OURS], values[other]))} {other}{_chance(by_arm[OURS], by_arm[other])}"
        for other in REFERENCES
        if other in values
    ]
    if best == [OURS]:
        return f"{text}{', ' if gaps else ''}{_and(gaps)}."
    return f"{text}; {OURS} reaches {score(values[OURS])}{', ' if gaps else ''}{_and(gaps)}."


def _chance(ours: RunResult, other: RunResult) -> str:
    found = gap(ours, other)
    return " (may be chance)" if found and not found.real else ""


def _winners(evidence: ReportInputs) -> str:
    best = [arm for task in evidence.tasks for arm in best_arms(evidence.of_task(task))]
    scored = sum(bool(best_arms(evidence.of_task(task))) for task in evidence.tasks)
    wins = {arm: best.count(arm) for arm in evidence.arms if arm in best}
    ranked = sorted(wins.items(), key=lambda pair: -pair[1])
    return (
        f"Best on {_plural(range(scored), 'task')}: "
        + _and([f"{arm} ({number})" for arm, number in ranked])
        + "."
    )


def _against(evidence: ReportInputs, reference: str) -> str:
    """How far ours is from `reference` over the tasks that have both; empty where none has."""
    pairs = [
        (primary(evidence.run(OURS, task)), primary(evidence.run(reference, task)))
        for task in evidence.tasks
    ]
    gaps = [
        _difference(ours, other) for ours, other in pairs if ours is not None and other is not None
    ]
    if not gaps:
        return ""
    if len(gaps) == 1:
        return f"On the one task that has both, {OURS} is {_gap(gaps[0])} {reference}."
    reach = f"{signed(min(gaps))} to {signed(max(gaps))}"
    return f"Averaged over {len(gaps)} tasks, {OURS} is {_gap(fmean(gaps))} {reference} (by task: {reach})."


def _size(ours: Sequence[RunResult]) -> Iterator[str]:
    shares = span(map(share_trained, ours), percent)
    if shares != DASH:
        yield f"For each task it trains {span(map(trained, ours), count)} parameters, {shares} of the backbone's."


def _difference(ours: float, other: float) -> float:
    """Between the scores as shown, so that a reader's own subtraction agrees."""
    return float(score(ours)) - float(score(other))


def _gap(difference: float) -> str:
    if score(abs(difference)) == "0.0":
        return "level with"
    return f"{score(abs(difference))} points {'above' if difference > 0 else 'below'}"


def _plural(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
