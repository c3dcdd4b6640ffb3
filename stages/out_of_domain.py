"""out_of_domain: the model of a task on the test set of another task, with mapped labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.analysis.perturbations import map_labels
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import EvalSet
from pipeline.evaluation.splits import load_eval_set
from pipeline.files import atomic_folder, write_json
from pipeline.tasks.base.capabilities import TagsWords
from pipeline.tasks.base.task import Task
from stages.evaluation.load_model import Subject, load_subject
from stages.evaluation.shifts import TaskClasses, shift_problems
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import arm_of, load_params
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, PARAMS, RESULTS


def out_of_domain(arm_name: str, name: str, data: str) -> None:
    """Write results/out_of_domain/ARM/TASK-on-DATA/metrics.json.

    The file has the scores on the test set of the task (`in_domain`) and of the other task
    (`out_of_domain`), for the labels that both tasks have.
    """
    arm, params = arm_of(arm_name), load_params()
    shift = next(
        (
            shift
            for shift in params.probe.out_of_domain
            if (shift.model, shift.data) == (name, data)
        ),
        None,
    )
    if shift is None:
        raise UserError(f"{PARAMS}: probe.out_of_domain: has no {name} on {data}; add it")
    source, target = (load_json(FEATURES / task / "summary.json") for task in (name, data))
    tasks = (TaskClasses(summary["task"], summary["classes"]) for summary in (source, target))
    if problems := shift_problems(shift, *tasks):
        raise UserError(*problems)
    subject = load_subject(arm, name, params, params.probe.rows)
    log_read(ARTIFACTS / arm / name)
    examples = load_eval_set(
        FEATURES / data, EXAMPLES / data, target, "test", params.probe.rows
    ).examples
    examples = _mapped(subject.test.task, examples, shift.labels)
    with subject.featurized(examples) as split:
        shared = {label: label for label in shift.labels.values()}
        scores = {
            "in_domain": _score(subject, subject.test, shared),
            "out_of_domain": _score(subject, split, shared),
        }
    output = RESULTS / "out_of_domain" / arm / f"{name}-on-{data}"
    with atomic_folder(output) as temporary:
        write_json(
            temporary / "metrics.json",
            {
                "primary": subject.primary,
                "rows": len(examples),
                **scores,
                "loss": scores["in_domain"] - scores["out_of_domain"],
            },
        )
    log(
        f"{subject.primary} {scores['in_domain']:.2f} on {name}, "
        f"{scores['out_of_domain']:.2f} on {data}"
    )
    log_wrote(output)


def _score(subject: Subject, split: EvalSet, shared: Mapping[str, str]) -> float:
    """The primary metric. With mapped labels, only spans of the labels in `shared` count."""
    task, examples = split.task, split.examples
    predictions = task.predictions(examples, subject.decoded(split), subject.thresholds)
    if shared:
        examples = _mapped(task, examples, shared)
        predictions = [map_labels(tags, shared) for tags in predictions]
    return task.score(examples, predictions, split.classes).overall[subject.primary]


def _mapped(
    task: Task[Any, Any, Any], examples: Sequence[Any], labels: Mapping[str, str]
) -> Sequence[Any]:
    """The examples with mapped labels. They are unchanged if `labels` is empty."""
    if not labels:
        return examples
    assert isinstance(task, TagsWords)
    return [
        task.with_tags(example, example.tokens, map_labels(example.tags, labels))
        for example in examples
    ]


if __name__ == "__main__":
    run(out_of_domain)
