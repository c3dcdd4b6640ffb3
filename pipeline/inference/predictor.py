"""Predictions of many tasks over one backbone: rows of different tasks share its forward passes.

Each row of a batch has its own task's prompt, and its hidden states go to its own task's head. So rows that arrive mixed need
neither a model nor a pass for each task.
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
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.artifacts.artifact import load_backbone_weights
from pipeline.artifacts.config import TaskHead
from pipeline.errors import Problems, UserError, did_you_mean
from pipeline.inference.artifact_set import check_compatible, merge_heads, read_artifacts
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, LayerPrompts, SoftPrompt, stack_prompts
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row

CHUNK = 512  # rows whose windows are sorted together
LONGEST = 512  # tokens of a window, unless asked otherwise
SHORTEST = 8
PADDING = 64  # tokens that take a CPU about as long as what a pass costs beside its tokens (MiniLM); a GPU does them in passing


@dataclass(frozen=True)
class Prediction:
    """What a task says of one row. `id` is the row's own, or else its number, counted from 0."""

    id: str | int
    task: str
    result: Any

    def asdict(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return dataclasses.asdict(self)


class _Query(NamedTuple):
    """A row that was understood: `task` is the number of the task it asks."""

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
    """One predictor for all tasks of some artifacts' folders, over the one backbone that they all name.

    Rows ask for a task by the name of its head; under a mapping, by the key where an artifact has one head. `backbone` says where
    the backbone is instead, its hash must be the same. Windows have at most `max_length` tokens and overlap by `stride`; unless
    given, they are those that each head was trained on.
    Raises UserError where artifacts are not whole, do not fit the backbone or cannot be together.
    """
    parts = read_artifacts(artifacts)
    params = backbone or parts[0].config.backbone
    check_compatible(parts, None if backbone else params)
    folder = locate(params)
    tokenizer = Tokenizer(folder)
    heads = {name: head for part in parts for name, head in part.heads_by_name.items()}
    loaded = Backbone.load(
        folder, lm_head=any(head.label_token_ids for head in heads.values())
    ).requires_grad_(False)
    prompts = [prompt for part in parts for prompt in part.prompts(params, loaded)]
    if parts[0].config.arm == "fine_tune":
        load_backbone_weights(parts[0].folder, loaded)
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
    """Greatest length and overlap of a head's windows: as asked, or else as it was trained, or else what there is room for."""
    length = min(room, head.max_length or LONGEST) if max_length is None else max_length
    trained = head.stride if length == head.max_length and head.stride is not None else length // 4
    overlap = trained if stride is None else stride
    if not SHORTEST <= length <= room or not 0 <= overlap < max(1, length // 2):
        raise UserError(
            f"max_length is {length} and stride {overlap}, and the backbone has positions for {room} tokens of text; "
            f"give a max_length of {SHORTEST} to {room} and a stride below half of it"
        )
    return length, overlap


class Predictor:
    """One backbone, and the prompts and heads of any number of tasks on it; `load` makes it.

    `counts` says how often something did not fit into a window, by what happened.
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
        """`prompts`, `heads` and `windows` (greatest length, overlap) are in the order of `tasks`; a soft prompt is that of all.

        All is moved to `device`. Backbone and prompts compute in `dtype`, heads always in float32.
        """
        self.backbone, self.tokenizer = backbone.to(device, dtype).eval(), tokenizer
        self.tasks = dict(tasks)
        self.windows = dict(zip(self.tasks, windows, strict=True))
        self.counts: Counter[str] = Counter()
        self._heads = list(self.tasks.values())
        self._kinds = [task_named(head.type) for head in self._heads]
        self._weight, self._bias = (
            values.detach().to(device) for values in (heads.weight, heads.bias)
        )
        self._bias = self._bias * torch.tensor(
            [[kind == "classes"] for kind in heads.kinds], device=device
        )  # as in Heads
        # Tasks may have one prompt together. Stacked once: a batch only says which of them its rows have.
        moved = [prompt and prompt.to(device, dtype).eval() for prompt in prompts]
        self._soft = next((prompt for prompt in moved if isinstance(prompt, SoftPrompt)), None)
        deep = [prompt for prompt in moved if not isinstance(prompt, SoftPrompt)]
        own = list(dict.fromkeys(deep))
        self._prompt_of = torch.tensor([own.index(prompt) for prompt in deep], device=device)
        with torch.no_grad():
            self._bank = stack_prompts(own, self._prompt_of)

    def predict(
        self,
        rows: Iterable[Row | UserError],
        batch_tokens: int = 4096,
        on_bad: Literal["raise", "skip"] = "raise",
        problems: Callable[[UserError], None] | None = None,
        chunk: int = CHUNK,
    ) -> Iterator[Prediction]:
        """Predictions in the order of the rows, `chunk` rows at a time, whose batches have at most `batch_tokens` tokens.

        A row is a mapping with the keys of its task's `query_keys`; `task` names the task (not needed where there is one), and
        `id` and `where` may be given. What could not even be read may stand in a row's place as the UserError that says why.
        Raises UserError with all problems of a chunk before anything of it is yielded; under `on_bad="skip"` bad rows are left
        out instead, and `problems` is called with what is wrong, once for each.
        """
        numbered = enumerate(rows)
        while block := list(islice(numbered, chunk)):
            queries, wrong = [], list[UserError]()
            for number, row in block:
                try:
                    queries.append(self._query(number, row))
                except UserError as error:
                    wrong.append(error)
            if wrong and on_bad == "raise":
                raise UserError(*(problem for bad in wrong for problem in bad.problems))
            if problems is not None:
                for bad in wrong:
                    problems(bad)
            yield from self._predictions(queries, batch_tokens)

    def _query(self, number: int, row: Any) -> _Query:
        """Raises UserError with all that is wrong with the row."""
        if isinstance(row, UserError):
            raise row
        if not isinstance(row, Mapping):
            raise UserError(
                f"rows[{number}]: found {type(row).__name__} {str(row)[:40]!r}, expected a mapping of keys to values"
            )
        where = row.get("where", f"rows[{number}]")
        given = number if row.get("id") is None else row["id"]
        task = self._task(row, where)
        kind = self._kinds[task]
        wrong = []
        if isinstance(given, bool) or not isinstance(given, str | int):
            wrong.append(
                f"{where}: id is {str(given)[:40]!r}; give text or an integer, or leave it out"
            )
        if missing := [key for key in kind.query_keys if key not in row]:
            wrong.append(
                f"{where}: {' and '.join(map(repr, missing))} missing; rows of task {list(self.tasks)[task]!r} need "
                f"{', '.join(kind.query_keys)}"
            )
        if wrong:
            raise UserError(*wrong)
        problems = Problems()
        example = kind.example_for_prediction({**row, "id": str(given), "where": where}, problems)
        problems.raise_if_any()
        if not _is_text([given, *(row[key] for key in kind.query_keys)]):
            raise UserError(
                f"{where}: holds half a surrogate pair, which is no character; correct what wrote the row"
            )
        return _Query(given, task, example)

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
        seen: list[list[WindowLogits]] = [[] for _ in queries]
        windows = list(self._windows(queries))
        for window, logits in zip(windows, self._logits(windows, batch_tokens), strict=True):
            begins, ends = np.asarray(window.feature.begins), np.asarray(window.feature.ends)
            seen[window.query].append(WindowLogits(begins, ends, logits))
        names = list(self.tasks)
        for query, its_windows in zip(queries, seen, strict=True):
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

    def _logits(self, windows: Sequence[_Window], batch_tokens: int) -> list[NDArray[Any]]:
        """What each window's own head says [N, classes] at its positions."""
        result: list[NDArray[Any]] = [np.empty(0)] * len(windows)
        for numbers in self._batches(
            np.array([len(window.feature.input_ids) for window in windows]), batch_tokens
        ):
            values = self._forward([windows[number] for number in numbers]).float().cpu().numpy()
            for number, logits in zip(numbers, values, strict=True):
                window = windows[number]
                result[number] = logits[
                    : len(window.feature.positions), : len(self._heads[window.task].classes)
                ]
        return result

    def _batches(self, lengths: NDArray[Any], batch_tokens: int) -> Iterator[NDArray[Any]]:
        """The numbers of the windows in each batch: the longest first, whatever their tasks.

        On a CPU a batch ends where its padding would cost more than one more pass does.
        """
        order, start = np.argsort(-lengths, kind="stable"), 0
        while start < len(order):
            longest = lengths[order[start]]
            batch = order[start : start + max(1, batch_tokens // int(longest))]
            if self._weight.device.type == "cpu":
                batch = batch[np.cumsum(longest - lengths[batch]) <= PADDING]
            yield batch
            start += len(batch)

    @torch.no_grad()
    def _forward(self, batch: Sequence[_Window]) -> Tensor:
        """Logits [B, N, K] of a batch of any tasks."""
        device = self._weight.device
        features = [window.feature for window in batch]
        ids = _padded([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        mask = _padded([[1] * len(feature.input_ids) for feature in features], 0)
        types = _padded([feature.token_types for feature in features], 0)
        positions = _padded([feature.positions for feature in features], 0)
        tasks = torch.tensor([window.task for window in batch])
        ids, mask, types, positions, tasks = (
            values.to(device) for values in (ids, mask, types, positions, tasks)
        )
        hidden = self.backbone(ids, mask, types, self._prompts(tasks))
        read = hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        logits = torch.einsum("bnc,bkc->bnk", read.float(), self._weight[tasks]) + self._bias[
            tasks
        ].unsqueeze(1)
        for task in {
            window.task for window in batch if self._heads[window.task].kind == "verbalizer"
        }:
            words = self._heads[task].label_token_ids
            logits[tasks == task, :, : len(words)] = self.backbone.word_logits(
                read[tasks == task], words
            ).float()
        return logits

    def _prompts(self, tasks: Tensor) -> LayerPrompts | SoftPrompt | None:
        if self._bank is None:
            return self._soft
        alone = len(self._bank.key_values) == 1
        return self._bank._replace(prompt_index=None if alone else self._prompt_of[tasks])


def _padded(lists: Sequence[Sequence[int]], fill: int) -> Tensor:
    return pad_sequence(
        [torch.tensor(list(values)) for values in lists], batch_first=True, padding_value=fill
    )


def _is_text(value: Any) -> bool:
    r"""Whether all text in a value can be written as UTF-8; JSON's "\ud800" cannot."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, Mapping):
        return all(_is_text(inner) for pair in value.items() for inner in pair)
    return not isinstance(value, Sequence) or all(map(_is_text, value))
