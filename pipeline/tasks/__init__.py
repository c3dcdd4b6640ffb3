"""The tasks by the name that recipes use. A new kind of task is one file here and one line below."""

from typing import Any

from pipeline.recipe import TaskName
from pipeline.tasks.base import Task
from pipeline.tasks.semantic_role_labeling import SemanticRoleLabeling
from pipeline.tasks.span_extraction import SpanExtraction
from pipeline.tasks.token_classification import TokenClassification

TASKS: dict[TaskName, Task[Any, Any]] = {
    "token_classification": TokenClassification(),
    "semantic_role_labeling": SemanticRoleLabeling(),
    "span_extraction": SpanExtraction(),
}
