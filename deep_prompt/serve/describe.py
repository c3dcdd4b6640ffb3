"""The description of each served task: what its rows need, and what is known about its artifact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts.config import ArtifactConfig, TaskHead, load_config
from pipeline.artifacts.scores import ArtifactScores, load_scores
from pipeline.display.highlighting import label_colors
from pipeline.inference.predictor import Predictor
from pipeline.inference.prompt_variants import prompt_numbers
from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import (
    GeneratesText,
    HasConfidence,
    MarksPredicate,
    RanksCandidates,
    TagsWords,
)
from pipeline.tasks.base.row import ValueKind

TEXT = "Ada Lovelace was born in London."
# Values of the keys of an example row. `predicate` is the word "born".
VALUES: Mapping[str, Any] = {
    "text": TEXT,
    "context": TEXT,
    "question": "Where was Ada Lovelace born?",
    "choices": ["London", "Ada Lovelace"],
    "starts": [25, 0],
    "spans": [{"segment": 0, "start": 0, "end": 3}],
    "system": ["", "What kind of food?"],
    "user": ["I need a cheap restaurant.", "Italian, please."],
    "predicate": {"start": 17, "end": 21},
    "subject": "Ada Lovelace",
}
VALUES_OF_KINDS: Mapping[ValueKind, Any] = {
    "text": TEXT,
    "name": TEXT,
    "label": "yes",
    "texts": TEXT.split(),
    "integer": 0,
    "integers": [0],
}


def example_row(name: str, head: TaskHead) -> dict[str, Any]:
    """A row that the task with this name and head can answer."""
    kind = task_named(head.type)
    row: dict[str, Any] = {"task": name}
    for key in (*kind.query_keys, *head.required_inputs):
        if key == "tokens" and isinstance(kind, TagsWords):
            row["text"] = TEXT
        else:
            row[key] = VALUES.get(key, VALUES_OF_KINDS.get(kind.row_keys.kinds[key], TEXT))
    return row | {key: values[0] for key, values in query_values(head).items()}


def query_values(head: TaskHead) -> Mapping[str, tuple[str, ...]]:
    """Key -> its allowed values, for the keys of a row to predict that take a fixed set."""
    kind = task_named(head.type)
    return kind.query_values(head.classes) if isinstance(kind, RanksCandidates) else {}


def key_kinds(task_type: str) -> dict[str, ValueKind]:
    """The kind of each key that a row to predict must have, and of each text that it may have.

    Other optional keys are annotation, such as the positions of words.
    """
    keys = task_named(task_type).row_keys
    return {
        **keys.inputs,
        **{key: kind for key, kind in keys.optional.items() if kind == "text"},
    }


def describe_tasks(predictor: Predictor, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The description of each task of a predictor by name. Its artifacts are in `folders`."""
    artifacts = [
        (name, load_config(folder), load_scores(folder)) for name, folder in folders.items()
    ]
    # Of two heads with one name, that of the artifact with only one head is served.
    artifacts.sort(key=lambda artifact: len(artifact[1].heads) == 1)
    prompts = prompt_numbers(predictor)
    descriptions = {
        name: _description(name, head, artifact, config, scores)
        | {"prompt": prompts.get(name), "needs_predicate": predictor.needs_predicate(name)}
        for artifact, config, scores in artifacts
        for name, head in _heads(artifact, config).items()
    }
    return {name: descriptions[name] for name in predictor.tasks}


def _heads(artifact: str, config: ArtifactConfig) -> Mapping[str, TaskHead]:
    """The heads of an artifact by the names of their tasks (see `read_artifacts`)."""
    if len(config.heads) == 1:
        return dict.fromkeys([artifact], next(iter(config.heads.values())))
    return config.heads


def _description(
    name: str, head: TaskHead, artifact: str, config: ArtifactConfig, scores: ArtifactScores
) -> dict[str, Any]:
    kind = task_named(head.type)
    trained_on = {*config.provenance.get("pretrained_on", ()), *config.provenance.get("data", ())}
    recorded = next(iter(config.heads)) if len(config.heads) == 1 else name
    score = scores.tasks.get(recorded)
    return {
        "name": name,
        "type": head.type,
        "artifact": artifact,
        "labels": labels_of(head),
        # In the order of `Prediction.labels`, so that they are the colors of its HTML.
        "colors": {}
        if isinstance(kind, RanksCandidates)
        else label_colors([label.removeprefix("B-") for label in head.classes]),
        "keys": [*kind.query_keys, *head.required_inputs],
        "kinds": key_kinds(head.type),
        "values": query_values(head),
        "accepts_text": isinstance(kind, TagsWords),
        "marks_predicate": isinstance(kind, MarksPredicate),
        "generates_text": isinstance(kind, GeneratesText),
        "example": example_row(name, head),
        "corpora": [
            {"name": corpus, "license": scores.licenses.get(corpus)}
            for corpus in sorted(trained_on)
        ],
        "test": None if score is None else vars(score),
        "calibrated": bool(head.thresholds) and isinstance(kind, HasConfidence),
    }


def labels_of(head: TaskHead) -> list[str]:
    """The labels of a head: X of the classes B-X and I-X, and the classes that are no tags.

    Candidates are no labels.
    """
    if isinstance(task_named(head.type), RanksCandidates):
        return []
    if not isinstance(task_named(head.type), TagsWords):
        return list(head.classes)
    return [
        name.removeprefix("B-")
        for name in head.classes
        if name != "O" and not name.startswith("I-")
    ]
