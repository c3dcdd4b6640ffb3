"""Prediction for many tasks with one backbone; rows of different tasks share forward passes.

The model applies the prompt and the head of its task to each row of a batch. So mixed tasks need
neither a model nor a forward pass per task. Rows whose predicates must be found first take two
rounds of passes: the predicates of all these rows, then the arguments of all predicates.
"""

import dataclasses
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple, get_type_hints

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.artifacts.config import TaskHead
from pipeline.errors import Problems, UserError
from pipeline.features.table import FeatureList
from pipeline.inference.arguments import check_predict_arguments
from pipeline.inference.generation import TextWriter, check_decoding
from pipeline.inference.inputs import frame_of, frame_rows, rows_of
from pipeline.inference.prediction import Prediction, Predictions
from pipeline.inference.queries import PREDICATE_KEY, Query, QueryReader
from pipeline.mixing.batches import collate, length_batches
from pipeline.model.backbone import Backbone
from pipeline.model.generation import GREEDY, Decoding
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.ranking import rank
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.candidates import Ranking
from pipeline.tasks.base.capabilities import MarksPredicate, RanksCandidates, ShowsSpans, TagsWords
from pipeline.tasks.base.claims import temperature_of
from pipeline.tasks.base.features import (
    Feature,
    WindowLogits,
    generated_window,
    ranked_window,
    source_tokens,
)
from pipeline.tasks.base.marked_text import MarkedText
from pipeline.tasks.base.row import Row
from pipeline.tasks.base.task import Task
from pipeline.tasks.shared.tagging import TaggedSpan, decode_spans, token_bounds

CHUNK_ROWS = 512  # rows whose windows are sorted together
# Maximum number of padding tokens per batch on a CPU. They take about as long as the fixed cost of
# a forward pass (MiniLM). On a GPU they are almost free.
MAX_PADDING = 64
_counts_lock = threading.Lock()


class _Input(NamedTuple):
    """An example for one of the tasks. `cut` counts its parts that are not read as a whole."""

    task: int
    example: Any
    cut: Counter[str]


class _Window(NamedTuple):
    """A window of an input, which has the index `input_index`."""

    input_index: int
    task: int
    feature: Feature


def cuts_of(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of the parts of inputs that the model does not read as a whole."""
    return {event: count for event, count in counts.items() if count and event.endswith(" cut")}


def _warn_of_cuts(predictions: Iterable[Prediction]) -> None:
    """Warn the caller of the caller."""
    cuts: Counter[str] = Counter()
    for prediction in predictions:
        cuts.update(prediction.cut)
    if cuts:
        warnings.warn(
            f"{', '.join(f'{event}: {count}' for event, count in cuts.items())}; the model did not "
            "read all of them; shorten them, or give a larger max_length to load",
            stacklevel=3,
        )


class Predictor:
    """A backbone with the prompts and heads of any number of tasks.

    Use `pipeline.inference.loading.load` to create it.

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
    ) -> None:
        """Move the model to `device`. Heads compute in float32, prompts as the backbone.

        `prompts`, `heads` and `windows` (maximum length, overlap) are in the order of `tasks`. If
        there is a soft prompt, all tasks share it.
        """
        self.tokenizer, self.tasks, self.device = tokenizer, dict(tasks), torch.device(device)
        self.windows = dict(zip(self.tasks, windows, strict=True))
        self.counts: Counter[str] = Counter()
        self.warnings: list[str] = []
        self._names, self._heads = list(self.tasks), list(self.tasks.values())
        self._labels = [
            tuple(label.removeprefix("B-") for label in head.classes) for head in self._heads
        ]
        self._kinds = [
            task_named(head.type).configured(max_answer_length=head.max_answer_length)
            for head in self._heads
        ]
        self._reader = QueryReader(self.tasks, self._kinds)
        soft = next((prompt for prompt in prompts if isinstance(prompt, SoftPrompt)), None)
        deep = [prompt for prompt in prompts if not isinstance(prompt, SoftPrompt)]
        prompt = PromptBank(deep) if soft is None else soft
        prompt.to(backbone.dtype)
        model = PromptedModel(backbone, prompt, heads, train_backbone=False)
        self.model = model.to(self.device).eval()

    def __repr__(self) -> str:
        tasks = ", ".join(f"{name}: {head.type}" for name, head in self.tasks.items())
        return f"<{type(self).__name__} on {self.device}; {tasks}>"

    def __call__(
        self,
        inputs: Any,
        task: str | None = None,
        on_bad: Literal["raise", "skip"] = "raise",
        problems: Callable[[UserError], None] | None = None,
        decoding: Decoding = GREEDY,
    ) -> Any:
        """Predict a text, a row, or any number of them.

        - A text or a mapping gives a `Prediction`. A text is a row with the key `text` only.
        - A list (or another iterable) of texts and mappings gives `Predictions`.
        - A pandas frame gives a frame with the same index, the column `task`, and a column for each
          field of the results. Its columns are the keys of the rows; missing values are left out.

        `task` is the task of rows without one. `on_bad`, `problems` and `decoding` are those of
        `predict`; a single text or row that is bad raises UserError. Warns if the model cannot
        read the whole of an input.
        """
        default = {} if task is None else {"task": task}
        if isinstance(inputs, str | Mapping):
            results = Predictions(self.predict(rows_of([inputs], default), decoding=decoding))
            _warn_of_cuts(results)
            return results[0]
        is_frame = isinstance(inputs, pd.DataFrame)
        rows = frame_rows(inputs, default) if is_frame else rows_of(inputs, default)
        results = Predictions(
            self.predict(rows, on_bad=on_bad, problems=problems, decoding=decoding)
        )
        _warn_of_cuts(results)
        return frame_of(inputs, results, self._fields(task, inputs)) if is_frame else results

    def _fields(self, task: str | None, frame: pd.DataFrame) -> list[str]:
        """The fields of the results of a frame whose rows are all of one task; else none."""
        name = task or self._reader.default_task
        if name not in self.tasks or "task" in frame.columns:
            return []
        kind = self._kinds[self._names.index(name)]
        method: Any = kind.result
        if isinstance(kind, MarksPredicate) and PREDICATE_KEY not in frame.columns:
            method = kind.sentence_result
        return [field.name for field in dataclasses.fields(get_type_hints(method)["return"])]

    def needs_predicate(self, task: str) -> bool:
        """Whether rows of a task must name a predicate, because no one other task finds it."""
        return self._reader.needs_predicate(task)

    def check_columns(self, columns: Row) -> None:
        """Check the columns of a table, which are a row with empty values and the key `where`.

        Raises UserError if no row with these columns is complete.
        """
        self._reader.check_columns(columns)

    def predict(
        self,
        rows: Iterable[Row | UserError],
        batch_tokens: int = 4096,
        on_bad: Literal["raise", "skip"] = "raise",
        problems: Callable[[UserError], None] | None = None,
        chunk: int = CHUNK_ROWS,
        decoding: Decoding = GREEDY,
        on_text: Callable[[str], object] | None = None,
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of the rows.

        The rows are processed in chunks of `chunk` rows, and in batches of at most `batch_tokens`
        tokens. A row is a mapping with the keys in `query_keys` of its task. The key `task` names
        the task; it is optional if there is only one task. `id` and `where` are optional. A
        UserError in place of a row means that the row could not be read. Values may be arrays and
        numbers of numpy. A row of a task with `tokens` may have `text` instead; the positions of
        its result then count characters of the text. A row may leave out its `predicate` if there
        is a task that finds predicates; its result then has all predicates. `decoding` is how to
        choose the tokens of generated texts. `on_text` is called with the pieces of generated texts
        as they are chosen; then each text is a batch, and beam search is not possible.

        Raises UserError at once for a wrong argument, and with all problems of a chunk before the
        first prediction of the chunk. With `on_bad="skip"`, bad rows are left out instead.
        `problems` is then called with the error of each of them.
        """
        check_predict_arguments(rows, on_bad, problems, batch_tokens=batch_tokens, chunk=chunk)
        check_decoding(decoding, on_text, self._kinds, self.windows)
        writer = TextWriter(self.model, self.tokenizer, self._kinds, decoding, on_text)
        return self._predict(rows, batch_tokens, on_bad, problems, chunk, writer)

    def _predict(
        self,
        rows: Iterable[Row | UserError],
        batch_tokens: int,
        on_bad: str,
        problems: Callable[[UserError], None] | None,
        chunk: int,
        writer: TextWriter,
    ) -> Iterator[Prediction]:
        numbered_rows = enumerate(rows)
        while numbered_chunk := list(islice(numbered_rows, chunk)):
            queries, errors = [], list[UserError]()
            for number, row in numbered_chunk:
                try:
                    queries.append(self._read(number, row))
                except UserError as error:
                    errors.append(error)
            if errors and on_bad == "raise":
                raise UserError(*(problem for invalid in errors for problem in invalid.problems))
            if problems is not None:
                for invalid in errors:
                    problems(invalid)
            yield from self._predictions(queries, batch_tokens, writer)

    def _read(self, number: int, row: Row | UserError) -> Query:
        """Check a row. Raises UserError with its problems."""
        query, problems = self._reader.read(number, row), Problems()
        if query.finder is None:
            max_length, _ = self.windows[self._names[query.task]]
            self._kinds[query.task].check_window(
                query.example, self.tokenizer, max_length, query.where, problems
            )
            problems.raise_if_any()
        return query

    def _predictions(
        self, queries: Sequence[Query], batch_tokens: int, writer: TextWriter
    ) -> Iterator[Prediction]:
        inputs = [
            _Input(query.task if query.finder is None else query.finder, query.example, Counter())
            for query in queries
        ]
        logits = self._input_logits(inputs, batch_tokens, writer)
        predicates = {
            number: self._spans(query.finder, logits[number])
            for number, query in enumerate(queries)
            if query.finder is not None
        }
        argument_inputs = [
            _Input(
                queries[number].task,
                self._reader.with_predicate(queries[number], span.start),
                inputs[number].cut,
            )
            for number, spans in predicates.items()
            for span in spans
        ]
        argument_logits = self._input_logits(argument_inputs, batch_tokens, writer)
        results = iter(map(self._result, argument_inputs, argument_logits))
        for number, query in enumerate(queries):
            kind = self._kinds[query.task]
            if number in predicates:
                assert isinstance(kind, MarksPredicate)
                scores = [span.score for span in predicates[number]]
                result = kind.sentence_result(list(islice(results, len(scores))), scores)
            else:
                result = self._result(inputs[number], logits[number])
            yield self._prediction(query, result, inputs[number].cut)

    def _spans(self, task: int, logits: Sequence[WindowLogits]) -> list[TaggedSpan]:
        head = self._heads[task]
        return decode_spans(logits, head.classes, temperature_of(head.thresholds))

    def _result(self, task_input: _Input, logits: Sequence[WindowLogits]) -> Any:
        head, kind = self._heads[task_input.task], self._kinds[task_input.task]
        return kind.result(task_input.example, logits, head.classes, head.thresholds)

    def _prediction(self, query: Query, result: Any, cut: Mapping[str, int]) -> Prediction:
        """The prediction; positions count characters of the row's text, or its tokens."""
        kind, sentence = self._kinds[query.task], query.sentence
        if sentence is not None:
            assert isinstance(kind, TagsWords)
            result = kind.in_characters(result, sentence.text, sentence.bounds)
        name, labels = self._names[query.task], self._labels[query.task]
        return Prediction(query.id, name, result, self._texts(query, result), labels, cut)

    def _texts(self, query: Query, result: Any) -> tuple[MarkedText, ...]:
        """The texts of a row with the spans of its result, for display."""
        kind = self._kinds[query.task]
        if not isinstance(kind, ShowsSpans):
            return ()
        if query.sentence is not None:
            return kind.marked_texts((query.sentence.text,), result)
        texts = kind.shown_texts(query.example)
        if isinstance(kind, TagsWords):
            result = kind.in_characters(result, texts[0], token_bounds(query.example.tokens))
        return kind.marked_texts(texts, result)

    def _input_logits(
        self, inputs: Sequence[_Input], batch_tokens: int, writer: TextWriter
    ) -> list[list[WindowLogits]]:
        """The model's output for all windows of each input."""
        if not inputs:
            return []
        logits_by_input: list[list[WindowLogits]] = [[] for _ in inputs]
        counts: Counter[str] = Counter()
        windows = list(self._windows(inputs, writer.kinds, counts))
        with _counts_lock:
            self.counts.update(counts)
        for window, output in self._outputs(windows, inputs, batch_tokens, writer):
            logits_by_input[window.input_index].append(output)
        return logits_by_input

    def _outputs(
        self,
        windows: Sequence[_Window],
        inputs: Sequence[_Input],
        batch_tokens: int,
        writer: TextWriter,
    ) -> Iterator[tuple[_Window, WindowLogits]]:
        """The model's output for each window: logits, a text or a ranking, as its task needs."""
        classified, generated, ranked = list[_Window](), list[_Window](), list[_Window]()
        for window in windows:
            if writer.generates(window.task):
                generated.append(window)
            elif isinstance(self._kinds[window.task], RanksCandidates):
                ranked.append(window)
            else:
                classified.append(window)
        for window, logits in zip(classified, self._logits(classified, batch_tokens), strict=True):
            begins, ends = np.asarray(window.feature.begins), np.asarray(window.feature.ends)
            yield window, WindowLogits(begins, ends, logits)
        texts = writer.texts([(window.task, window.feature) for window in generated], batch_tokens)
        yield from zip(generated, map(generated_window, texts), strict=True)
        rankings = self._rankings(ranked, inputs, batch_tokens)
        yield from zip(ranked, map(ranked_window, rankings), strict=True)

    def _rankings(
        self, windows: Sequence[_Window], inputs: Sequence[_Input], batch_tokens: int
    ) -> list[Ranking]:
        """The ranking of candidates after each window, task by task."""
        result: dict[int, Ranking] = {}
        for task in sorted({window.task for window in windows}):
            kind, indices = self._kinds[task], [i for i, w in enumerate(windows) if w.task == task]
            assert isinstance(kind, RanksCandidates)
            ask = kind.asker(self._heads[task].classes, self.tokenizer)
            queries = []
            for window in (windows[index] for index in indices):
                source = source_tokens(window.feature.input_ids, window.feature.positions)
                queries.append(ask(inputs[window.input_index].example, source))
            lengths = [len(query.context) for query in queries]
            for batch in length_batches(lengths, batch_tokens):
                rankings = rank(self.model, [queries[i] for i in batch], task, batch_tokens)
                result |= {indices[i]: item for i, item in zip(batch, rankings, strict=True)}
        return [result[index] for index in range(len(windows))]

    def _windows(
        self,
        inputs: Sequence[_Input],
        kinds: Sequence[Task[Any, Any, Any]],
        counts: Counter[str],
    ) -> Iterator[_Window]:
        for task, (kind, head, window) in enumerate(
            zip(kinds, self._heads, self.windows.values(), strict=True)
        ):
            indices = [n for n, task_input in enumerate(inputs) if task_input.task == task]
            examples = [inputs[index].example for index in indices]
            featurize = partial(
                kind.featurize,
                first=0,
                tokenizer=self.tokenizer,
                classes=head.classes,
                max_length=window[0],
                stride=window[1],
            )
            of_task: Counter[str] = Counter()
            for feature in featurize(examples, counts=of_task):
                yield _Window(indices[feature.example], task, feature)
            counts.update(of_task)
            if cuts_of(of_task):  # rare, so that the inputs are tokenized again to find them
                for index in indices:
                    of_input: Counter[str] = Counter()
                    deque(featurize([inputs[index].example], counts=of_input), maxlen=0)
                    inputs[index].cut.update(cuts_of(of_input))

    @torch.no_grad()
    def _logits(self, windows: Sequence[_Window], batch_tokens: int) -> list[NDArray[Any]]:
        """The logits [N, classes] of each window, computed by the head of its task."""
        table = FeatureList([window.feature for window in windows])
        tasks = torch.tensor([window.task for window in windows])
        lengths = np.array([len(window.feature.input_ids) for window in windows])
        result: list[NDArray[Any]] = [np.empty(0)] * len(windows)
        max_padding = MAX_PADDING if self.device.type == "cpu" else None
        for indices in length_batches(lengths, batch_tokens, max_padding=max_padding):
            batch = collate(table, indices, tasks[indices], self.tokenizer.pad_token_id)
            values = self.model(batch.to(self.device)).float().cpu().numpy()
            for index, logits in zip(indices, values, strict=True):
                window = windows[index]
                result[index] = logits[
                    : len(window.feature.positions), : len(self._heads[window.task].classes)
                ]
        return result
