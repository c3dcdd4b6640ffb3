"""Generated texts as events: they equal the answer, and leave the model to others in between."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deep_prompt.serve.jobs import Answers, RowAnswer
from deep_prompt.serve.model import ServedModel
from deep_prompt.serve.settings import Limits, Settings
from deep_prompt.serve.steps import Steps
from pipeline.tasks.base.row import Row
from tests.support.serving import TEXT, Running, make_text_artifacts, serving_folders, until

EVENTS = {"accept": "text/event-stream"}
STORY = {"source": TEXT}
NAMES = {"task": "names", "text": TEXT}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_text_artifacts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def server(artifacts: dict[str, Path]) -> Iterator[Running]:
    with serving_folders(artifacts) as running:
        yield running


@contextmanager
def streaming(running: Running, row: Any = STORY) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of a text as pairs of name and data."""
    with running.client.stream("POST", "/v1/tasks/story", json=row, headers=EVENTS) as answer:
        assert answer.status_code == 200, answer.read()
        yield events(answer)


def test_the_attention_of_a_generated_text_is_refused(server: Running) -> None:
    assert server.client.post("/v1/attention", json=NAMES).json()["layers"]
    answer = server.client.post("/v1/attention", json=STORY | {"task": "story"})
    assert answer.status_code == 422
    assert "is not recorded while a text is generated" in answer.json()["errors"][0]


def all_events(running: Running, row: Any = STORY) -> list[tuple[str, Any]]:
    with streaming(running, row) as stream:
        return list(stream)


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    lines = answer.iter_lines()
    for line in lines:
        data = next(lines)
        assert (line[:7], data[:6], next(lines)) == ("event: ", "data: ", "")
        yield line[7:], json.loads(data[6:])


def refusal(running: Running, task: str, row: Any) -> tuple[int, str]:
    answer = running.client.post(f"/v1/tasks/{task}", json=row, headers=EVENTS)
    (error,) = answer.json()["errors"]
    return answer.status_code, error


@pytest.mark.parametrize("more", [{}, {"id": "mine"}, {"prompt": "none"}, {"prompt": "names"}])
def test_the_pieces_are_the_text_and_the_last_event_is_the_answer(
    server: Running, more: dict[str, str]
) -> None:
    row = STORY | more
    expected = server.client.post("/v1/tasks/story", json=row).json()
    *texts, (name, answer) = all_events(server, row)
    assert (name, answer) == ("answer", expected)
    assert {name for name, _ in texts} == {"text"}
    pieces = [data["text"] for _, data in texts]
    assert "".join(pieces) == answer["result"]["text"]
    assert len(pieces) > 1
    assert all(pieces)


def test_a_proxy_neither_stores_nor_holds_the_events(server: Running) -> None:
    headers = server.client.post("/v1/tasks/story", json=STORY, headers=EVENTS).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")


def test_a_bad_request_is_refused_before_the_events(server: Running) -> None:
    assert refusal(server, "names", {"text": TEXT}) == (
        406,
        "the task 'names' is of the type token_classification, and only generated texts are sent "
        "as events; accept application/json",
    )
    assert refusal(server, "stori", STORY) == (404, "no task 'stori'; did you mean 'story'?")
    assert refusal(server, "story", {"source": " "})[0] == 422
    assert refusal(server, "story", STORY | {"prompt": "no"})[1].startswith("rows[0]: prompt: no")
    assert refusal(server, "story", 5)[1].startswith("rows[0]: found an integer 5")
    metrics = server.client.get("/metrics").text
    assert 'deep_prompt_rows_total{status="error",task="story"} 2.0' in metrics
    assert server.state.num_streams == 0


def test_others_are_answered_between_two_tokens(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def write(model: ServedModel, row: Row, on_text: Callable[[str], object]) -> RowAnswer:
        def recorded(piece: str) -> None:
            order.append("token")
            on_text(piece)

        return original_write(model, row, recorded)

    def answer(model: ServedModel, rows: Sequence[Row]) -> Answers:
        order.append("batch")
        return original_answer(model, rows)

    original_write, original_answer = ServedModel.write, ServedModel.answer
    monkeypatch.setattr(ServedModel, "write", write)
    monkeypatch.setattr(ServedModel, "answer", answer)
    gate, thread = threading.Event(), server.state.thread
    with ThreadPoolExecutor(2) as pool:
        thread.call(lambda: gate.wait(20))
        text = pool.submit(all_events, server)
        until(lambda: thread.queued_rows == 1)
        batch = pool.submit(server.post, NAMES)
        until(lambda: thread.queued_rows == 2)
        gate.set()
        assert "result" in batch.result()["answers"][0]
        assert text.result()[-1][0] == "answer"
    assert order[:3] == ["token", "batch", "token"]
    assert order.count("batch") == 1


def test_texts_take_turns(server: Running) -> None:
    expected = all_events(server)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: all_events(server), range(12))) == [expected] * 12


def test_the_limits_hold_and_a_client_that_leaves_frees_its_place(
    artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    resume, original = threading.Event(), ServedModel.write

    def write(model: ServedModel, row: Row, on_text: Callable[[str], object]) -> RowAnswer:
        def slow(piece: str) -> None:
            on_text(piece)
            resume.wait(20)

        return original(model, row, slow)

    monkeypatch.setattr(ServedModel, "write", write)
    limits = Limits(streams=1, queued_rows=1)
    with serving_folders(artifacts, Settings(limits=limits)) as running:
        state = running.state
        with streaming(running) as stream:
            assert next(stream)[0] == "text"  # the second piece waits for `resume`
            status, error = refusal(running, "story", STORY)
            assert (status, error) == (
                503,
                "already generating 1 text; try again later",
            )
        until(lambda: state.num_streams == 0)
        waiting = state.thread.submit([NAMES])
        assert refusal(running, "story", STORY) == (
            503,
            "the queue already has 1 row; try again later",
        )
        resume.set()
        waiting.result(20)
        assert all_events(running)[-1][0] == "answer"
        until(lambda: state.num_streams == 0)
        assert not [thread for thread in threading.enumerate() if thread.name == "steps"]


def test_a_text_that_has_begun_outlives_its_artifact(
    artifacts: dict[str, Path], server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, original = all_events(server), ServedModel.write

    def write(model: ServedModel, row: Row, on_text: Callable[[str], object]) -> RowAnswer:
        def slow(piece: str) -> None:
            time.sleep(0.2)  # so that the artifact is removed meanwhile
            on_text(piece)

        return original(model, row, slow)

    monkeypatch.setattr(ServedModel, "write", write)
    token = "a long token"
    with serving_folders(artifacts, Settings(admin_token=token)) as running:
        with streaming(running) as stream:
            first = next(stream)
            headers = {"authorization": f"Bearer {token}"}
            removed = running.client.delete("/v1/artifacts/story", headers=headers)
            assert (removed.status_code, [first, *stream]) == (200, expected)
        assert refusal(running, "story", STORY)[0] == 404


def test_a_late_text_ends_with_an_error(
    artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: ServedModel, row: Row, on_text: Callable[[str], object]) -> RowAnswer:
        while True:
            on_text("piece")
            time.sleep(0.02)

    monkeypatch.setattr(ServedModel, "write", write)
    with serving_folders(artifacts, Settings(limits=Limits(seconds=0.5))) as running:
        *_, (name, answer) = all_events(running, STORY | {"id": "mine"})
        assert name == "error"
        assert answer == {
            "row": 0,
            "id": "mine",
            "errors": ["rows[0]: the text is not complete after 0.5 s; try again later"],
        }
        assert "result" in running.post(NAMES)["answers"][0]


def test_a_bug_ends_the_events_and_no_other_request(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(model: ServedModel, row: Row, on_text: Callable[[str], object]) -> RowAnswer:
        on_text("piece")
        raise ZeroDivisionError

    monkeypatch.setattr(ServedModel, "write", write)
    assert all_events(server)[-1] == (
        "error",
        {"row": 0, "id": 0, "errors": ["rows[0]: a bug of the server; its log has the traceback"]},
    )
    assert "ZeroDivisionError" in caplog.text
    assert "result" in server.post(NAMES)["answers"][0]


def test_the_schema_describes_the_events(server: Running) -> None:
    schema = server.client.get("/openapi.json").json()
    content = schema["paths"]["/v1/tasks/{name}"]["post"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "text/event-stream"}
    tasks = server.client.get("/v1/tasks").json()["tasks"]
    assert {task["name"]: task["generates_text"] for task in tasks} == {
        "story": True,
        "names": False,
    }


def test_steps_run_only_while_the_caller_waits() -> None:
    log = list[str]()

    def function(callback: Callable[[str], None]) -> str:
        for piece in ("a", "b"):
            log.append(f"before {piece}")
            callback(piece)
            log.append(f"after {piece}")
        return "result"

    steps = Steps(function)
    assert log == []
    assert steps.step() == "a"
    time.sleep(0.05)
    assert log == ["before a"]
    assert steps.step() == "b"
    assert steps.step() is None
    assert steps.result.result() == "result"
    steps.close()


@pytest.mark.parametrize("num_steps", [0, 1])
def test_closed_steps_unwind_the_function(num_steps: int) -> None:
    unwound = []

    def function(callback: Callable[[str], None]) -> None:
        try:
            callback("a")
        finally:
            unwound.append(True)

    steps = Steps(function)
    for _ in range(num_steps):
        steps.step()
    steps.close()
    assert len(unwound) == num_steps
