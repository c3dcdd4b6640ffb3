"""The JSON schemas of rows and results, one per task type, from the declarations of the types."""

from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import MarksPredicate, TagsWords
from pipeline.tasks.base.row import ValueKind

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_CHARACTERS: Schema = {
    "type": "object",
    "properties": {"start": _INTEGER, "end": _INTEGER},
    "required": ["start", "end"],
}
_KINDS: Mapping[ValueKind, Schema] = {
    "text": _TEXT,
    "name": _TEXT,
    "label": _TEXT,
    "tags": {"type": "array", "items": _TEXT},
    "texts": {"type": "array", "items": _TEXT},
    "label_lists": {"type": "array", "items": {"type": "array", "items": _TEXT}},
    "integer": _INTEGER,
    "integers": {"type": "array", "items": _INTEGER},
    "spans": {"type": "array", "items": {"type": "object"}},
    "answers": {"type": "array", "items": {"type": "object"}},
}
_ERRORS: Schema = {
    "type": "object",
    "properties": {"errors": {"type": "array", "items": _TEXT}},
    "required": ["errors"],
}
_ERROR_RESPONSE: Schema = {
    "description": "what is wrong, and how to correct it",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Errors"}}},
}
_COMMON: Schema = {
    "task": {"type": "string", "description": "name of the task"},
    "id": {"anyOf": [_TEXT, _INTEGER], "description": "returned with the answer"},
    "prompt": {
        "type": "string",
        "description": "answer under the prompt of another task, or under `none`",
    },
}


def component_name(task_type: str) -> str:
    """The name of a task type in the schema: token_classification -> TokenClassification."""
    return "".join(word.capitalize() for word in task_type.split("_"))


def row_schema(task_type: str) -> Schema:
    """The schema of a row to predict."""
    kind = task_named(task_type)
    keys = kind.row_keys
    properties = {**_COMMON, **{key: _KINDS[value] for key, value in keys.inputs.items()}}
    properties |= {key: _KINDS[value] for key, value in keys.optional.items()}
    required = list(kind.query_keys)
    schema: Schema = {"type": "object", "properties": properties}
    if isinstance(kind, MarksPredicate):
        properties["predicate"] = {
            "anyOf": [_INTEGER, _CHARACTERS],
            "description": "index of a word, or its characters in `text`; may be missing if a "
            "task that finds predicates is served",
        }
        required.remove("predicate")
    if isinstance(kind, TagsWords):
        properties["text"] = {**_TEXT, "description": "in place of tokens"}
        required.remove("tokens")
        schema["anyOf"] = [{"required": ["text"]}, {"required": ["tokens"]}]
    return schema | {"required": required}


def result_schema(task_type: str) -> Schema:
    """The schema of a result, from the types that the task type declares."""
    kind = task_named(task_type)
    types = get_type_hints(type(kind).result)["return"]
    if isinstance(kind, MarksPredicate):
        types |= get_type_hints(type(kind).sentence_result)["return"]
    return TypeAdapter(types).json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )


def add_task_types(openapi: Schema, task_types: Iterable[str]) -> Schema:
    """Add the schemas of task types to those of the server, and refer to them in its answers."""
    components: Schema = openapi.setdefault("components", {}).setdefault("schemas", {})
    names = {task_type: component_name(task_type) for task_type in sorted(set(task_types))}
    for task_type, name in names.items():
        components[f"{name}Row"] = row_schema(task_type)
        result = result_schema(task_type)
        components |= result.pop("$defs", {})
        components[f"{name}Result"] = result
    components["Row"] = {"anyOf": [_reference(f"{name}Row") for name in names.values()]}
    components["Errors"] = _ERRORS
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of errors
        components.pop(unused, None)
    for operations in openapi["paths"].values():
        for operation in operations.values():
            operation["responses"]["4XX"] = _ERROR_RESPONSE
            operation["responses"].pop("422", None)
    components["Result"] = {"anyOf": [_reference(f"{name}Result") for name in names.values()]}
    return openapi


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
