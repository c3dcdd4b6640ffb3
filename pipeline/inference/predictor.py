"""Prediction for many tasks with one backbone; rows of different tasks share forward passes.

The model applies the prompt and the head of its task to each row of a batch. So mixed tasks need
neither a model nor a forward pass per task.
"""

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.artifacts.artifact import load_into_backbone
from pipeline.artifacts.config import TaskHead
from pipeline.errors import Problems, UserError, did_you_mean
from pipeline.features.table import FeatureList
from pipeline.inference.arguments import check_load_arguments, check_predict_arguments, plain
from pipeline.inference.artifact_set import (
    check_compatible,
    merge_heads,
    read_artifacts,
    warnings_of,
)
from pipeline.mixing.batches import collate
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.seeding import Ints
from pipeline.tasks import task_named
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row

CHUNK_ROWS = 512  # rows whose windows are sorted together
DEFAULT_WINDOW = 512  # tokens of a window, if neither the caller nor the artifact sets a length
MIN_WINDOW = 8
# Maximum number of padding tokens per batch on a CPU. They take about as long as the fixed cost of
# a forward pass (MiniLM). On a GPU they are almost free.
MAX_PADDING = 64
_counts_lock = threading.Lock()


@dataclass(frozen=True)
class Prediction:
    """The result of a task for one row. `id` is the row's `id`, or its number from 0."""

    id: str | int
    task: str
    result: Any

    def asdict(self) -> dict[str, Any]:
        """The prediction as plain values that JSON can represent."""
        return dataclasses.asdict(self)


class _Query(NamedTuple):
    """A valid row. `task` is the index of its task."""

    id: str | int
    task: int
    example: Any


class _Window(NamedTuple):
    """A window of a query. `query` is the index of the query in its chunk."""

    query: int
    task: int
    feature: Feature


def load(
    artifacts: Mapping[str, Path | str] | Sequence[Path | str],
    backbone: BackboneParams | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    max_length: int | None = None,
    stride: int | None = None,
) -> "Predictor":
    """Load a predictor for all tasks of some artifacts, which were trained on the same backbone.

    `artifacts` are folders. The name of a task is the name of its head. In a mapping, the key is
    the new name of an artifact's head, if it has only one head. `backbone` is another location of
    the backbone, with the same files. Windows have at most `max_length` tokens and overlap by
    `stride`; by default, these are the values that each head was trained with. Raises UserError if
    an argument has a wrong type, or if an artifact is broken, does not fit the backbone, or is not
    compatible with another artifact.
    """
    check_load_arguments(artifacts, backbone, device, dtype, max_length=max_length, stride=stride)
    served = read_artifacts(artifacts)
    params = backbone or served[0].config.backbone
    check_compatible(served, None if backbone else params)
    folder = locate(params)
    tokenizer = Tokenizer(folder)
    heads = {name: head for artifact in served for name, head in artifact.heads_by_name.items()}
    loaded = Backbone.load(folder, lm_head=any(head.label_token_ids for head in heads.values()))
    prompts = [prompt for artifact in served for prompt in artifact.prompts(params, loaded)]
    # An artifact that changes the backbone is the only artifact (see `Arm.served_alone`).
    load_into_backbone(served[0].folder, served[0].config, loaded)
    offset = max(artifact.config.position_offset for artifact in served)
    windows = [
        _window_sizes(head, max_length, stride, tokenizer.max_length - offset)
        for head in heads.values()
    ]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    predictor = Predictor(
        loaded,
        tokenizer,
        heads,
        prompts,
        merge_heads(served, loaded.hidden_size),
        windows,
        device,
        dtype,
    )
    predictor.warnings = warnings_of(served)
    return predictor


def _window_sizes(
    head: TaskHead, max_length: int | None, stride: int | None, max_tokens: int
) -> tuple[int, int]:
    """Maximum length and overlap of the windows of a head.

    The defaults (None) are the values of the head's training, if known. The backbone has positions
    for `max_tokens` tokens of text. Raises UserError if the values are out of range.
    """
    if max_length is None:
        length = min(max_tokens, head.max_length or DEFAULT_WINDOW)
    else:
        length = int(max_length)
    if stride is not None:
        overlap = int(stride)
    elif length == head.max_length and head.stride is not None:
        overlap = head.stride
    else:
        overlap = length // 4
    if not MIN_WINDOW <= length <= max_tokens or not 0 <= overlap < max(1, length // 2):
        raise UserError(
            f"max_length is {length} and stride {overlap}, and the backbone has positions for "
            f"{max_tokens} tokens of text; "
            f"give a max_length of {MIN_WINDOW} to {max_tokens} and a stride below half of it"
        )
    return length, overlap


class Predictor:
    """A backbone with the prompts and heads of any number of tasks. Use `load` to create it.

    `counts` counts the effects of the maximum window length, such as truncation, by kind.
    `warnings` has one line for each fact about the artifacts that a user must know, such as a head
    without thresholds. Several threads may call `predict` at the same time.
    """

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: Tokenizer,
        tasks: Mapping[str, TaskHead],
        prompts: Sequence[DeepPrompt | SoftPrompt | None],
        heads: Heads,
        windows: Sequence[tuple[int, int]],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Move the model to `device`. Heads compute in float32, all other modules in `dtype`.

        `prompts`, `heads` and `windows` (maximum length, overlap) are in the order of `tasks`. If
        there is a soft prompt, all tasks share it.
        """
        self.tokenizer, self.tasks, self.device = tokenizer, dict(tasks), torch.device(device)
        self.windows = dict(zip(self.tasks, windows, strict=True))
        self.counts: Counter[str] = Counter()
        self.warnings: list[str] = []
        self._heads = list(self.tasks.values())
        self._kinds = [
            task_named(head.type).configured(max_answer_length=head.max_answer_length)
            for head in self._heads
        ]
        moved = [prompt and prompt.to(self.device, dtype) for prompt in prompts]
        soft = next((prompt for prompt in moved if isinstance(prompt, SoftPrompt)), None)
        deep = [prompt for prompt in moved if not isinstance(prompt, SoftPrompt)]
        prompt = PromptBank(deep) if soft is None else soft
        converted = backbone.to(self.device).convert(dtype)
        model = PromptedModel(converted, prompt, heads, train_backbone=False)
        self.model = model.to(self.device).eval()

    def predict(
        self,
        rows: Iterable[Row | UserError],
        batch_tokens: int = 4096,
        on_bad: Literal["raise", "skip"] = "raise",
        problems: Callable[[UserError], None] | None = None,
        chunk: int = CHUNK_ROWS,
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of the rows.

        The rows are processed in chunks of `chunk` rows, and in batches of at most `batch_tokens`
        tokens. A row is a mapping with the keys in `query_keys` of its task. The key `task` names
        the task; it is optional if there is only one task. `id` and `where` are optional. A
        UserError in place of a row means that the row could not be read. Values may be arrays and
        numbers of numpy.

        Raises UserError at once for a wrong argument, and with all problems of a chunk before the
        first prediction of the chunk. With `on_bad="skip"`, bad rows are left out instead.
        `problems` is called with the error of each bad row.
        """
        check_predict_arguments(rows, on_bad, problems, batch_tokens=batch_tokens, chunk=chunk)
        return self._predict(rows, batch_tokens, on_bad, problems, chunk)

    def _predict(
        self,
        rows: Iterable[Row | UserError],
        batch_tokens: int,
        on_bad: str,
        problems: Callable[[UserError], None] | None,
        chunk: int,
    ) -> Iterator[Prediction]:
        numbered_rows = enumerate(rows)
        while numbered_chunk := list(islice(numbered_rows, chunk)):
            queries, errors = [], list[UserError]()
            for number, row in numbered_chunk:
                try:
                    queries.append(self._query(number, row))
                except UserError as error:
                    errors.append(error)
            if errors and on_bad == "raise":
                raise UserError(*(problem for invalid in errors for problem in invalid.problems))
            if problems is not None:
                for invalid in errors:
                    problems(invalid)
            yield from self._predictions(queries, batch_tokens)

    def _query(self, number: int, row: Any) -> _Query:
        """Check a row. Raises UserError with all problems of the row."""
        if isinstance(row, UserError):
            raise row
        if not isinstance(row, Mapping):
            raise UserError(
                f"rows[{number}]: found {type(row).__name__} {str(row)[:40]!r}, expected a mapping "
                "of keys to values"
            )
        row = plain(row)
        where = row.get("where", f"rows[{number}]")
        id_ = number if row.get("id") is None else row["id"]
        task = self._task(row, where)
        kind = self._kinds[task]
        messages = []
        if isinstance(id_, bool) or not isinstance(id_, str | int):
            messages.append(
                f"{where}: id is {str(id_)[:40]!r}; give text or an integer, or leave it out"
            )
        if missing := [key for key in kind.query_keys if key not in row]:
            messages.append(
                f"{where}: {' and '.join(map(repr, missing))} missing; rows of task "
                f"{list(self.tasks)[task]!r} need {', '.join(kind.query_keys)}"
            )
        if messages:
            raise UserError(*messages)
        problems = Problems()
        example = kind.example_for_prediction({**row, "id": str(id_), "where": where}, problems)
        problems.raise_if_any()
        if not _is_text([id_, *(row[key] for key in kind.query_keys)]):
            raise UserError(
                f"{where}: contains half a surrogate pair, which is not a character; correct the "
                "program that wrote the row"
            )
        return _Query(id_, task, example)

    def _task(self, row: Mapping[str, Any], where: str) -> int:
        names = list(self.tasks)
        name = row.get("task", names[0] if len(names) == 1 else None)
        if name is None:
            raise UserError(f"{where}: key 'task' is missing; give one of {', '.join(names)}")
        if name not in names:
            raise UserError(
                f"{where}: task: no task {str(name)[:40]!r}{did_you_mean(str(name), names)}"
            )
        return names.index(name)

    def _predictions(self, queries: Sequence[_Query], batch_tokens: int) -> Iterator[Prediction]:
        query_logits: list[list[WindowLogits]] = [[] for _ in queries]
        counts: Counter[str] = Counter()
        windows = list(self._windows(queries, counts))
        with _counts_lock:
            self.counts.update(counts)
        for window, logits in zip(windows, self._logits(windows, batch_tokens), strict=True):
            begins, ends = np.asarray(window.feature.begins), np.asarray(window.feature.ends)
            query_logits[window.query].append(WindowLogits(begins, ends, logits))
        names = list(self.tasks)
        for query, window_logits in zip(queries, query_logits, strict=True):
            head = self._heads[query.task]
            result = self._kinds[query.task].result(
                query.example, window_logits, head.classes, head.thresholds
            )
            yield Prediction(query.id, names[query.task], result)

    def _windows(self, queries: Sequence[_Query], counts: Counter[str]) -> Iterator[_Window]:
        for task, (kind, head, window) in enumerate(
            zip(self._kinds, self._heads, self.windows.values(), strict=True)
        ):
            indices = [index for index, query in enumerate(queries) if query.task == task]
            examples = [queries[index].example for index in indices]
            for feature in kind.featurize(
                examples, 0, self.tokenizer, head.classes, *window, counts
            ):
                yield _Window(indices[feature.example], task, feature)

    @torch.no_grad()
    def _logits(self, windows: Sequence[_Window], batch_tokens: int) -> list[NDArray[Any]]:
        """The logits [N, classes] of each window, computed by the head of its task."""
        table = FeatureList([window.feature for window in windows])
        tasks = torch.tensor([window.task for window in windows])
        lengths = np.array([len(window.feature.input_ids) for window in windows])
        result: list[NDArray[Any]] = [np.empty(0)] * len(windows)
        for indices in self._batches(lengths, batch_tokens):
            batch = collate(table, indices, tasks[indices], self.tokenizer.pad_token_id)
            values = self.model(batch.to(self.device)).float().cpu().numpy()
            for index, logits in zip(indices, values, strict=True):
                window = windows[index]
                result[index] = logits[
                    : len(window.feature.positions), : len(self._heads[window.task].classes)
                ]
        return result

    def _batches(self, lengths: Ints, batch_tokens: int) -> Iterator[Ints]:
        """The window indices of each batch. Longer windows come first; tasks are mixed.

        On a CPU, a batch ends before its padding would cost more than another forward pass.
        """
        order, start = np.argsort(-lengths, kind="stable"), 0
        while start < len(order):
            longest = lengths[order[start]]
            batch = order[start : start + max(1, batch_tokens // int(longest))]
            if self.device.type == "cpu":
                batch = batch[np.cumsum(longest - lengths[batch]) <= MAX_PADDING]
            yield batch
            start += len(batch)


def _is_text(value: Any) -> bool:
    r"""Whether UTF-8 can encode all text in a value; it cannot encode "\ud800" from JSON."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(_is_text(inner) for pair in value.items() for inner in pair)
    return not isinstance(value, Sequence) or all(map(_is_text, value))
