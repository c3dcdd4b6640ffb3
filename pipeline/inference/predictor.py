"""Predictions of many tasks over one backbone: rows of different tasks share its forward passes.

The model reads each row of a batch under the prompt of its task, for the head of its task. So rows
of mixed tasks need neither a model nor a forward pass per task.
"""

import dataclasses
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
from pipeline.inference.artifact_set import check_compatible, merge_heads, read_artifacts
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
DEFAULT_WINDOW = 512  # tokens of a window, where neither the caller nor the artifact gives a length
MIN_WINDOW = 8
# Padding tokens per batch on a CPU. They take about as long as the fixed cost of a forward pass
# (MiniLM). On a GPU they are almost free.
MAX_PADDING = 64


@dataclass(frozen=True)
class Prediction:
    """The result of a task for one row. `id` is the row's `id`, or its number from 0."""

    id: str | int
    task: str
    result: Any

    def asdict(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return dataclasses.asdict(self)


class _Query(NamedTuple):
    """A valid row: `task` is the number of its task."""

    id: str | int
    task: int
    example: Any


class _Window(NamedTuple):
    """A window of one query of a chunk."""

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
    """A predictor for all tasks of the artifacts in some folders; all were trained on the same
    backbone.

    A row names its task by the name of the head. Under a mapping, the key is the name of an
    artifact's only head. `backbone` is another place to load the backbone from, with the same hash.
    Windows have at most `max_length` tokens and overlap by `stride`; the defaults are those that
    each head was trained with. Raises UserError where an artifact is broken, does not fit the
    backbone, or is not compatible with another.
    """
    parts = read_artifacts(artifacts)
    params = backbone or parts[0].config.backbone
    check_compatible(parts, None if backbone else params)
    folder = locate(params)
    tokenizer = Tokenizer(folder)
    heads = {name: head for part in parts for name, head in part.heads_by_name.items()}
    loaded = Backbone.load(folder, lm_head=any(head.label_token_ids for head in heads.values()))
    prompts = [prompt for part in parts for prompt in part.prompts(params, loaded)]
    load_into_backbone(parts[0].folder, parts[0].config, loaded)  # others change nothing inside it
    offset = max(part.config.position_offset for part in parts)
    windows = [
        _window_sizes(head, max_length, stride, tokenizer.max_length - offset)
        for head in heads.values()
    ]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(
        loaded,
        tokenizer,
        heads,
        prompts,
        merge_heads(parts, loaded.hidden_size),
        windows,
        device,
        dtype,
    )


def _window_sizes(
    head: TaskHead, max_length: int | None, stride: int | None, room: int
) -> tuple[int, int]:
    """Maximum length and overlap of a head's windows: the caller's, else those of its training,
    else what the backbone has `room` for.
    """
    length = min(room, head.max_length or DEFAULT_WINDOW) if max_length is None else max_length
    trained = head.stride if length == head.max_length and head.stride is not None else length // 4
    overlap = trained if stride is None else stride
    if not MIN_WINDOW <= length <= room or not 0 <= overlap < max(1, length // 2):
        raise UserError(
            f"max_length is {length} and stride {overlap}, and the backbone has positions for "
            f"{room} tokens of text; "
            f"give a max_length of {MIN_WINDOW} to {room} and a stride below half of it"
        )
    return length, overlap


class Predictor:
    """One backbone with the prompts and heads of any number of tasks on it; `load` makes it.

    `counts` has how often a text did not fit into a window, by what was done.
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
        """`prompts`, `heads` and `windows` (maximum length, overlap) are in the order of `tasks`;
        all tasks share a soft prompt.

        All is moved to `device`. Backbone and prompts compute in `dtype`, heads always in float32.
        """
        self.tokenizer, self.tasks, self.device = tokenizer, dict(tasks), torch.device(device)
        self.windows = dict(zip(self.tasks, windows, strict=True))
        self.counts: Counter[str] = Counter()
        self._heads = list(self.tasks.values())
        self._kinds = [task_named(head.type) for head in self._heads]
        moved = [prompt and prompt.to(self.device, dtype) for prompt in prompts]
        soft = next((prompt for prompt in moved if isinstance(prompt, SoftPrompt)), None)
        deep = [prompt for prompt in moved if not isinstance(prompt, SoftPrompt)]
        prompt = PromptBank(deep) if soft is None else soft
        model = PromptedModel(backbone.to(self.device, dtype), prompt, heads, train_backbone=False)
        self.model = model.to(self.device).eval()

    def predict(
        self,
        rows: Iterable[Row | UserError],
        batch_tokens: int = 4096,
        on_bad: Literal["raise", "skip"] = "raise",
        problems: Callable[[UserError], None] | None = None,
        chunk: int = CHUNK_ROWS,
    ) -> Iterator[Prediction]:
        """Predictions in the order of the rows, `chunk` rows at a time, whose batches have at most
        `batch_tokens` tokens.

        A row is a mapping with the keys of its task's `query_keys`; `task` names the task (optional
        where there is only one), and `id` and `where` are optional. In place of a row that could
        not be read may stand the UserError that says why. Raises UserError with all problems of a
        chunk before anything of it is yielded; under `on_bad="skip"` bad rows are left out instead,
        and `problems` is called with the error of each.
        """
        numbered = enumerate(rows)
        while block := list(islice(numbered, chunk)):
            queries, errors = [], list[UserError]()
            for number, row in block:
                try:
                    queries.append(self._query(number, row))
                except UserError as error:
                    errors.append(error)
            if errors and on_bad == "raise":
                raise UserError(*(problem for bad in errors for problem in bad.problems))
            if problems is not None:
                for bad in errors:
                    problems(bad)
            yield from self._predictions(queries, batch_tokens)

    def _query(self, number: int, row: Any) -> _Query:
        """Raises UserError with all that is wrong with the row."""
        if isinstance(row, UserError):
            raise row
        if not isinstance(row, Mapping):
            raise UserError(
                f"rows[{number}]: found {type(row).__name__} {str(row)[:40]!r}, expected a mapping "
                "of keys to values"
            )
        where = row.get("where", f"rows[{number}]")
        id_ = number if row.get("id") is None else row["id"]
        task = self._task(row, where)
        kind = self._kinds[task]
        wrong = []
        if isinstance(id_, bool) or not isinstance(id_, str | int):
            wrong.append(
                f"{where}: id is {str(id_)[:40]!r}; give text or an integer, or leave it out"
            )
        if missing := [key for key in kind.query_keys if key not in row]:
            wrong.append(
                f"{where}: {' and '.join(map(repr, missing))} missing; rows of task "
                f"{list(self.tasks)[task]!r} need "
                f"{', '.join(kind.query_keys)}"
            )
        if wrong:
            raise UserError(*wrong)
        problems = Problems()
        example = kind.example_for_prediction({**row, "id": str(id_), "where": where}, problems)
        problems.raise_if_any()
        if not _is_text([id_, *(row[key] for key in kind.query_keys)]):
            raise UserError(
                f"{where}: holds half a surrogate pair, which is not a character; correct the "
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
        windows_of: list[list[WindowLogits]] = [[] for _ in queries]
        windows = list(self._windows(queries))
        for window, logits in zip(windows, self._logits(windows, batch_tokens), strict=True):
            begins, ends = np.asarray(window.feature.begins), np.asarray(window.feature.ends)
            windows_of[window.query].append(WindowLogits(begins, ends, logits))
        names = list(self.tasks)
        for query, its_windows in zip(queries, windows_of, strict=True):
            head = self._heads[query.task]
            result = self._kinds[query.task].result(
                query.example, its_windows, head.classes, head.thresholds
            )
            yield Prediction(query.id, names[query.task], result)

    def _windows(self, queries: Sequence[_Query]) -> Iterator[_Window]:
        for task, (kind, head, window) in enumerate(
            zip(self._kinds, self._heads, self.windows.values(), strict=True)
        ):
            asked = [number for number, query in enumerate(queries) if query.task == task]
            examples = [queries[number].example for number in asked]
            for feature in kind.featurize(
                examples, 0, self.tokenizer, head.classes, *window, self.counts
            ):
                yield _Window(asked[feature.example], task, feature)

    @torch.no_grad()
    def _logits(self, windows: Sequence[_Window], batch_tokens: int) -> list[NDArray[Any]]:
        """The logits [N, classes] of each window by the head of its task."""
        table = FeatureList([window.feature for window in windows])
        tasks = torch.tensor([window.task for window in windows])
        lengths = np.array([len(window.feature.input_ids) for window in windows])
        result: list[NDArray[Any]] = [np.empty(0)] * len(windows)
        for numbers in self._batches(lengths, batch_tokens):
            batch = collate(table, numbers, tasks[numbers], self.tokenizer.pad_token_id)
            values = self.model(batch.to(self.device)).float().cpu().numpy()
            for number, logits in zip(numbers, values, strict=True):
                window = windows[number]
                result[number] = logits[
                    : len(window.feature.positions), : len(self._heads[window.task].classes)
                ]
        return result

    def _batches(self, lengths: Ints, batch_tokens: int) -> Iterator[Ints]:
        """The numbers of the windows in each batch, the longest first, whatever their tasks.

        On a CPU a batch ends where its padding would cost more than another forward pass.
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
    r"""Whether all text in a value can be written as UTF-8; JSON's "\ud800" cannot."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(_is_text(inner) for pair in value.items() for inner in pair)
    return not isinstance(value, Sequence) or all(map(_is_text, value))
