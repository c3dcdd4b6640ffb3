"""The model's thread gathers requests, answers them in order, and drops those that left."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from deep_prompt.serve.batching import ModelThread, QueueFullError
from deep_prompt.serve.jobs import Answers, Pass, num_characters
from pipeline.inference.prediction import Prediction
from pipeline.tasks.base.row import Row


class Model:
    """Answers a row with its text. It waits while `closed`, and fails for the text "bug"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.busy = threading.Event()

    def __call__(self, rows: Sequence[Row]) -> Answers:
        self.busy.set()
        self.open.wait(10)
        texts = [row["text"] for row in rows]
        self.batches.append(texts)
        if "bug" in texts:
            raise ZeroDivisionError
        return Answers([Prediction(0, "task", text) for text in texts], [Pass(1, 1, 1, 0)])


@contextmanager
def thread_of(model: Model, wait: float = 0.0, tokens: int = 100, rows: int = 10) -> Iterator[Any]:
    thread = ModelThread(model, wait, tokens, rows)
    thread.start()
    try:
        yield thread
    finally:
        model.open.set()
        thread.stop()


@contextmanager
def occupied(model: Model, thread: ModelThread) -> Iterator[None]:
    """Within the block, the model works on another row."""
    model.open.clear()
    model.busy.clear()
    thread.submit([{"text": "first"}])
    assert model.busy.wait(10)
    yield
    model.open.set()


def results(future: Any) -> list[str]:
    return [answer.result for answer in future.result(10).answers]


def test_requests_that_arrive_meanwhile_share_a_batch_and_get_their_own_answers() -> None:
    model = Model()
    with thread_of(model) as thread:
        with occupied(model, thread):
            futures = [thread.submit([{"text": f"{n}a"}, {"text": f"{n}b"}]) for n in range(3)]
        assert [results(future) for future in futures] == [[f"{n}a", f"{n}b"] for n in range(3)]
    assert model.batches == [["first"], ["0a", "0b", "1a", "1b", "2a", "2b"]]


def test_a_batch_waits_for_others_but_no_longer_than_the_time() -> None:
    model = Model()
    with thread_of(model, wait=0.3) as thread:
        first = thread.submit([{"text": "a"}])
        time.sleep(0.05)
        second = thread.submit([{"text": "b"}])
        started = time.monotonic()
        results(first)
        results(second)
        assert 0.1 < time.monotonic() - started < 5
    assert model.batches == [["a", "b"]]


def test_a_full_batch_does_not_wait() -> None:
    model = Model()
    with thread_of(model, wait=30, tokens=50) as thread:
        small = thread.submit([{"text": "a"}])
        large = thread.submit([{"text": "x" * 400}])
        assert results(small) == ["a"]
        thread.call(lambda: None)  # a function ends the wait too
        assert results(large) == ["x" * 400]
    assert [len(batch) for batch in model.batches] == [1, 1]


def test_a_full_queue_refuses_rows() -> None:
    model = Model()
    with thread_of(model) as thread, occupied(model, thread):
        thread.submit([{"text": "a"}] * 8)
        assert thread.queued_rows == 8
        with pytest.raises(QueueFullError):
            thread.submit([{"text": "b"}] * 3)
        thread.submit([{"text": "c"}] * 2)


def test_a_canceled_request_does_not_reach_the_model_and_frees_its_room() -> None:
    model = Model()
    with thread_of(model) as thread:
        with occupied(model, thread):
            left = thread.submit([{"text": "left"}] * 10)
            assert left.cancel()
            assert thread.queued_rows == 0
            stays = thread.submit([{"text": "stays"}])
        assert results(stays) == ["stays"]
    assert model.batches == [["first"], ["stays"]]


def test_a_long_request_takes_several_batches_in_turn_with_others() -> None:
    model = Model()
    with thread_of(model, tokens=10, rows=100) as thread:
        with occupied(model, thread):
            texts = [f"{number:020d}" for number in range(5)]  # 7 tokens each, with the key
            long = thread.submit([{"text": text} for text in texts])
            short = thread.submit([{"text": "short"}])
        assert results(long) == texts
        assert results(short) == ["short"]
        assert len(long.result().passes) == 5
    assert model.batches[1:4] == [[texts[0], "short"], [texts[1]], [texts[2]]]


def test_a_long_request_ends_when_its_client_leaves() -> None:
    futures, model = list[Any](), Model()

    def answer(rows: Sequence[Row]) -> Answers:
        if len(model.batches) == 3:
            assert futures[0].cancel()
        return model(rows)

    thread = ModelThread(answer, 0.1, 10, 100)
    futures.append(thread.submit([{"text": "x" * 100}] * 50))
    futures.append(thread.submit([{"text": "other"}]))
    thread.start()
    assert results(futures[1]) == ["other"]
    thread.stop()
    assert len(model.batches) < 10


def test_characters_of_all_texts() -> None:
    value = {"ab": ["cde", 1, None, []], "f": {"g": "hi"}}
    assert num_characters(value) == 1 + (2 + 1 + 3 + 1 + 1 + 1) + (1 + 1 + 1 + 2)
    assert num_characters([[0]] * 1_000_000, stop=10) > 10


def test_a_bug_fails_only_the_request_that_provokes_it() -> None:
    model = Model()
    with thread_of(model) as thread:
        with occupied(model, thread):
            good, bad, other = (thread.submit([{"text": text}]) for text in ("a", "bug", "b"))
        assert (results(good), results(other)) == (["a"], ["b"])
        with pytest.raises(ZeroDivisionError):
            bad.result(10)
        assert results(thread.submit([{"text": "after"}])) == ["after"]


def test_stop_answers_everything_in_the_queue() -> None:
    model = Model()
    thread = ModelThread(model, 30, 10_000, 10_000)
    thread.start()
    futures = [thread.submit([{"text": str(number)}]) for number in range(100)]
    thread.stop()
    assert [results(future) for future in futures] == [[str(number)] for number in range(100)]


def test_a_function_runs_in_the_thread_between_batches() -> None:
    model = Model()
    with thread_of(model) as thread:
        with occupied(model, thread):
            before = thread.submit([{"text": "before"}])
            name = thread.call(lambda: threading.current_thread().name)
            after = thread.submit([{"text": "after"}])
            failing = thread.call(lambda: 1 / 0)
        assert name.result(10) == "model"
        assert results(before) + results(after) == ["before", "after"]
        with pytest.raises(ZeroDivisionError):
            failing.result(10)
    assert model.batches == [["first"], ["before"], ["after"]]
