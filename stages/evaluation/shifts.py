"""The pairs of tasks in `probe.out_of_domain`. The check of a project imports this module."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import did_you_mean
from pipeline.params import ShiftParams
from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import TagsWords
from stages.runtime.paths import PARAMS


class TaskClasses(NamedTuple):
    """The type of a task and its classes."""

    type: str
    classes: Sequence[str]


def shift_problems(shift: ShiftParams, model: TaskClasses, data: TaskClasses) -> list[str]:
    """The reasons why the model of a task cannot be scored on the data of another task.

    They differ in type, one of them lacks a mapped label, or the model lacks a class of the data
    that is not a tag, such as an intent.
    """
    where = f"{PARAMS}: probe.out_of_domain: {shift.model} on {shift.data}"
    if model.type != data.type:
        return [
            f"{where}: the tasks are {model.type} and {data.type}; choose two tasks of the same "
            "kind"
        ]
    if shift.labels and not isinstance(task_named(model.type), TagsWords):
        return [
            f"{where}: labels: {model.type} does not tag words, so its labels cannot be mapped; "
            "write labels: {}"
        ]
    if not shift.labels and list(model.classes) != list(data.classes):
        return [
            f"{where}: labels is {{}}, but the tasks have different classes; "
            "map the labels of the data to labels of the model"
        ]
    problems = []
    for labels, classes in ((shift.labels, data.classes), (shift.labels.values(), model.classes)):
        known = [name[2:] for name in classes if name.startswith("B-")]
        problems += [
            f"{where}: labels: no label {label!r}{did_you_mean(label, known)}"
            for label in labels
            if label not in known
        ]
    other = [name for name in data.classes if name != "O" and name[:2] not in ("B-", "I-")]
    if shift.labels and (missing := [name for name in other if name not in model.classes]):
        problems.append(
            f"{where}: {shift.data} has the classes {', '.join(missing)}, which {shift.model} "
            "lacks, and labels maps only the labels of tags; choose a task without other classes"
        )
    return list(dict.fromkeys(problems))
