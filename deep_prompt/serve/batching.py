"""The thread that owns the model, and the queue of requests in front of it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from deep_prompt.serve.jobs import Answers, Job
from pipeline.tasks.base.row import Row

RequestBatch = list[tuple[Job, Sequence[Row]]]


class QueueFullError(Exception):
    """The queue has no room for the rows of a request."""


class ModelThread:
    """Runs the model in one thread, on batches of the rows of many requests.

    `answer` maps rows to their answers and the forward passes that it ran. A batch has the rows of
    the requests that arrive within `wait_seconds` of its first one, up to about `batch_tokens`
    tokens. A longer request takes several batches, in turn with the others. The rows of a request
    whose future is canceled are left out.
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
        self._jobs: deque[Job] = deque()
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
        return self._append(Job(rows))

    def call(self, function: Callable[[], Any], rows: Sequence[Row] = ()) -> "Future[Any]":
        """Call a function in the model's thread, between two batches.

        `rows` are those that the function is for. Raises QueueFullError if there is no room for
        them.
        """
        return self._append(Job(rows, function))

    @property
    def queued_rows(self) -> int:
        """The number of rows that wait."""
        with self._changed:
            return sum(job.num_waiting for job in self._jobs)

    def _append(self, job: Job) -> "Future[Any]":
        with self._changed:
            assert not self._stopping, "the server accepts no request after it stops the model"
            waiting = self.queued_rows
            if job.rows and waiting and waiting + len(job.rows) > self._max_queued_rows:
                raise QueueFullError
            self._jobs.append(job)
            self._changed.notify_all()
            return job.future

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch and batch[0][0].function is not None:
                _finish(batch[0][0], batch[0][0].function)
            elif batch:
                self._answer_batch(batch)

    def _next_batch(self) -> RequestBatch | None:
        """The rows to run together, or a function alone; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            if not self._jobs:
                return None
            remaining = self._jobs[0].submitted + self._wait_seconds - time.monotonic()
            if remaining > 0:
                self._changed.wait_for(self._is_full, remaining)
            return self._take_batch()

    def _is_full(self) -> bool:
        """Whether nothing is gained by waiting for more jobs."""
        return (
            self._stopping
            or any(job.function is not None for job in self._jobs)
            or sum(job.waiting_tokens for job in self._jobs) >= self._batch_tokens
        )

    def _take_batch(self) -> RequestBatch:
        """Take jobs from the queue. Those with rows left go to its end."""
        batch: RequestBatch = []
        budget, unfinished = self._batch_tokens, list[Job]()
        while self._jobs:
            job = self._jobs[0]
            rows = job.next_rows(budget)
            if not batch and not rows:
                rows = job.rows[len(job.answers) :][:1]  # a row that is longer than a batch
            if batch and (job.function is not None or not rows):
                break
            self._jobs.popleft()
            if job.future.cancelled():
                continue
            batch.append((job, rows))
            if job.function is not None:
                break
            first = len(job.answers)
            budget -= sum(job.tokens[first : first + len(rows)])
            if len(rows) < job.num_waiting:
                unfinished.append(job)
        self._jobs.extend(unfinished)
        return batch

    def _answer_batch(self, batch: RequestBatch) -> None:
        try:
            result = self._answer([row for _, rows in batch for row in rows])
        except Exception as error:  # A bug; it must not end the thread.
            if len(batch) == 1:
                self._fail(batch[0][0], error)
                return
            for part in batch:  # Only the request that provokes it fails.
                self._answer_batch([part])
            return
        answers = iter(result.answers)
        for job, rows in batch:
            job.answers += [next(answers) for _ in rows]
            job.passes += result.passes
            if len(job.answers) == len(job.rows) and job.future.set_running_or_notify_cancel():
                job.future.set_result(Answers(job.answers, job.passes))

    def _fail(self, job: Job, error: Exception) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)


def _finish(job: Job, function: Callable[[], Any]) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        job.future.set_result(function())
    except Exception as error:  # The caller of `call` handles it.
        job.future.set_exception(error)
