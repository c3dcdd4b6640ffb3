"""The thread that owns the model, and the queue of requests in front of it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.inference.prediction import Prediction
from pipeline.tasks.base.row import Row

CHARACTERS_PER_TOKEN = 4  # of English text; it only decides when a batch is full
Answer = Prediction | UserError


class QueueFullError(Exception):
    """The queue has no room for the rows of a request."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: its windows, the tasks among them, their tokens, and the padding."""

    rows: int
    tasks: int
    tokens: int
    padding: int


@dataclass(frozen=True)
class Answers:
    """The answer to each row of a request, and the passes of the batch that it was part of."""

    answers: Sequence[Answer]
    passes: Sequence[Pass]


@dataclass(eq=False)
class _Job:
    """Rows of a request, or a function to call in the model's thread."""

    rows: Sequence[Row] = ()
    function: Callable[[], Any] | None = None
    future: "Future[Any]" = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)

    @property
    def tokens(self) -> int:
        """About how many tokens the rows have."""
        return sum(map(num_characters, self.rows)) // CHARACTERS_PER_TOKEN + 1


def num_characters(value: Any) -> int:
    """The number of characters of all texts in a value of JSON."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + num_characters(item) for key, item in value.items())
    return sum(map(num_characters, value)) if isinstance(value, list) else 1


class ModelThread:
    """Runs the model in one thread, on batches of the rows of many requests.

    `answer` maps rows to their answers and the forward passes that it ran. A batch has the rows of
    the requests that arrive within `wait_seconds` of its first one, up to about `batch_tokens`
    tokens. Requests whose future is canceled while they wait are left out.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Row]], Answers],
        wait_seconds: float,
        batch_tokens: int,
        max_queued_rows: int,
    ) -> None:
        self._answer, self._wait_seconds = answer, wait_seconds
        self._batch_tokens, self._max_queued_rows = batch_tokens, max_queued_rows
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish all jobs in the queue, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, rows: Sequence[Row]) -> "Future[Answers]":
        """Queue the rows of a request. Raises QueueFullError if there is no room for them."""
        with self._changed:
            waiting = self.queued_rows
            if waiting and waiting + len(rows) > self._max_queued_rows:
                raise QueueFullError
            return self._append(_Job(rows))

    def call(self, function: Callable[[], Any]) -> "Future[Any]":
        """Call a function in the model's thread, after the jobs that are in the queue."""
        with self._changed:
            return self._append(_Job(function=function))

    @property
    def queued_rows(self) -> int:
        """The number of rows that wait."""
        return sum(len(job.rows) for job in tuple(self._jobs) if not job.future.cancelled())

    def _append(self, job: _Job) -> "Future[Any]":
        assert not self._stopping, "the server accepts no request after it stops the model"
        self._jobs.append(job)
        self._changed.notify_all()
        return job.future

    def _run(self) -> None:
        while batch := self._next_batch():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if running and running[0].function is not None:
                _finish(running[0], running[0].function)
            elif running:
                self._answer_jobs(running)

    def _next_batch(self) -> list[_Job]:
        """The jobs to run together; empty at the end. A function runs alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            if not self._jobs:
                return []
            remaining = self._jobs[0].submitted + self._wait_seconds - time.monotonic()
            if remaining > 0:
                self._changed.wait_for(self._is_full, remaining)
            batch = [self._jobs.popleft()]
            tokens = batch[0].tokens
            while batch[0].function is None and self._jobs and self._jobs[0].function is None:
                tokens += self._jobs[0].tokens
                if tokens > self._batch_tokens:
                    break
                batch.append(self._jobs.popleft())
            return batch

    def _is_full(self) -> bool:
        """Whether nothing is gained by waiting for more jobs."""
        return (
            self._stopping
            or any(job.function is not None for job in self._jobs)
            or sum(job.tokens for job in self._jobs) >= self._batch_tokens
        )

    def _answer_jobs(self, jobs: Sequence[_Job]) -> None:
        rows = [row for job in jobs for row in job.rows]
        try:
            result = self._answer(rows)
        except Exception as error:  # A bug; it must not end the thread.
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # Only the request that provokes it fails.
                self._answer_jobs([job])
            return
        answers = iter(result.answers)
        for job in jobs:
            job.future.set_result(Answers([next(answers) for _ in job.rows], result.passes))


def _finish(job: _Job, function: Callable[[], Any]) -> None:
    try:
        job.future.set_result(function())
    except Exception as error:  # The caller of `call` handles it.
        job.future.set_exception(error)
