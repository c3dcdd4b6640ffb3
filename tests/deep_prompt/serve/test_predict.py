"""Predictions over HTTP equal those of the predictor; malformed rows fail alone."""

import gzip
import json
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deep_prompt.cli.main import main
from deep_prompt.serve.settings import Limits, Settings
from pipeline.inference.loading import load
from tests.support.serving import HEADS, ROWS, TEXT, Running, folders, serving, until


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def test_mixed_rows_equal_the_predictor_and_share_a_pass(root: Path, server: Running) -> None:
    predictor = load(folders(root))
    expected = [prediction.asdict() for prediction in predictor.predict(ROWS)]
    body = server.post(*ROWS)
    assert [answer["row"] for answer in body["answers"]] == [0, 1, 2]
    for answer, prediction in zip(body["answers"], expected, strict=True):
        assert rounded(answer["result"]) == rounded(prediction["result"])
        assert answer["task"] == prediction["task"]
    assert (body["tasks"], body["passes"]) == (3, 1)
    assert body["milliseconds"] > 0


def test_each_row_has_its_result_or_its_own_errors(server: Running) -> None:
    body = server.post(
        ROWS[0] | {"id": "mine"},
        {"task": "nre", "text": TEXT},
        5,
        {"task": "qa", "question": "Who?"},
        {"task": "ner", "tokens": [1]},
        ROWS[2] | {"id": 1.5},
        {"task": "ner", "text": TEXT, "where": "elsewhere"},
    )
    first, *bad, last = body["answers"]
    assert (first["id"], last["id"]) == ("mine", 6)
    assert "result" in first
    assert "result" in last
    assert [answer["row"] for answer in bad] == [1, 2, 3, 4, 5]
    for answer, found in zip(
        bad, ("did you mean 'ner'", "int", "context", "tokens", "id is"), strict=True
    ):
        assert "result" not in answer
        (problem,) = answer["errors"]
        assert problem.startswith(f"rows[{answer['row']}]: ")
        assert found in problem


def test_html_is_that_of_the_notebook(root: Path, server: Running) -> None:
    predictor = load(folders(root))
    expected = [prediction._repr_html_() for prediction in predictor.predict(ROWS)]
    shown = [answer["html"] for answer in server.post(*ROWS, html=True)["answers"]]
    assert [html.partition("title")[0] for html in shown] == [
        html.partition("title")[0] for html in expected
    ]


def test_one_row_of_a_task(server: Running) -> None:
    answer = server.client.post("/v1/tasks/ner", json={"text": TEXT}).json()
    assert answer == server.post(ROWS[0])["answers"][0]
    other = server.client.post("/v1/tasks/ner", json={"text": TEXT, "task": "qa"})
    assert (other.status_code, "found 'qa' in the path of 'ner'" in other.text) == (422, True)
    bad = server.client.post("/v1/tasks/qa", json={"question": "Who?"})
    unknown = server.client.post("/v1/tasks/nre", json={"text": TEXT})
    assert bad.status_code == 422
    assert "context" in bad.json()["errors"][0]
    assert (unknown.status_code, unknown.json()["errors"]) == (
        404,
        ["no task 'nre'; did you mean 'ner'?"],
    )


def test_a_row_under_another_prompt_or_none(root: Path, server: Running) -> None:
    plain, bare, other = server.post(
        ROWS[0], ROWS[0] | {"prompt": "none"}, ROWS[0] | {"prompt": "srl"}
    )["answers"]
    assert len({json.dumps(answer["result"]) for answer in (plain, bare, other)}) == 3
    again = server.post(ROWS[0] | {"prompt": "ner"}, ROWS[0])["answers"]
    assert rounded([answer["result"] for answer in again]) == rounded([plain["result"]] * 2)
    (unknown, wrong) = server.post(ROWS[0] | {"prompt": "sr"}, ROWS[0] | {"prompt": 3})["answers"]
    assert unknown["errors"] == ["rows[0]: prompt: no task 'sr'; did you mean 'srl'?"]
    assert "rows[1]: prompt is '3'" in wrong["errors"][0]


def test_attention_to_the_prompt_by_layer(server: Running) -> None:
    answer = server.client.post("/v1/attention", json=ROWS[1])
    layers = answer.json()["layers"]
    assert [layer["layer"] for layer in layers] == [0, 1]
    assert all(0 < head < 1 for layer in layers for head in layer["heads"])
    bad = server.client.post("/v1/attention", json={"task": "ner"})
    assert bad.status_code == 422


def test_the_limits_hold_for_attention_too(root: Path) -> None:
    with serving(root, Settings(limits=Limits(seconds=0.3, queued_rows=2))) as running:
        gate = threading.Event()
        running.state.thread.call(lambda: gate.wait(20))
        with ThreadPoolExecutor(2) as pool:
            late = [
                pool.submit(running.client.post, "/v1/attention", json=ROWS[0]) for _ in range(2)
            ]
            assert [answer.result().status_code for answer in late] == [504, 504]
        until(lambda: running.state.thread.queued_rows == 0)
        running.state.thread.submit([ROWS[0]] * 2)
        assert running.client.post("/v1/attention", json=ROWS[0]).status_code == 503
        gate.set()


def test_an_answer_says_what_the_model_did_not_read(server: Running) -> None:
    long, short = ROWS[2] | {"question": "Ada " * 100}, ROWS[2]
    answers = server.post(long, short)["answers"]
    assert [answer.get("cut") for answer in answers] == [{"questions cut": 1}, None]


def test_many_clients_get_their_own_answers(server: Running) -> None:
    words = ["Ada", "London", "was", "born", "in"]
    texts = [" ".join(words[n % 5 :] + words[: n % 5] * (1 + n % 3)) for n in range(30)]
    expected = [server.post({"task": "ner", "text": text})["answers"][0] for text in texts]
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda text: server.post({"task": "ner", "text": text}), texts))
    assert rounded([body["answers"][0] for body in bodies]) == rounded(expected)


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b'{"rows": [{"task": "ner", "text": "\xff"}]}', 400, "not UTF-8"),
        (b'{"rows": [{"task": "ner", "text": "\\ud800"}]}', 400, "half of a character"),
        (b'{"rows": [{"text": "a", "text": "b"}]}', 400, "key 'text' occurs twice"),
        (b'{"rows": [{"text": NaN}]}', 400, "NaN is not JSON"),
        (b'{"rows": [], "htlm": true}', 422, "unknown key 'htlm'; did you mean 'html'?"),
        (b'{"rows": [], "html": "yes"}', 422, "html: found text 'yes', expected true or false"),
        (b'{"rows": NaN}', 400, "NaN is not JSON"),
        (b"[" * 10_000, 400, "cannot be read as JSON"),
        (b"[]", 422, "the body: found a list [], expected a mapping; send"),
        (b'{"rows": {}}', 422, "expected a list"),
        (b'{"rows": [%s]}' % b",".join([b"1"] * 21), 413, "at most 20"),
        (b'{"rows": ["%s"]}' % (b"x" * 501), 413, "more than 500 characters"),
        (b'{"rows": ["%s"]}' % (b"x" * 20_000), 413, "20000 bytes"),
    ],
)
def test_a_malformed_request_is_refused(
    server: Running, body: bytes, status: int, found: str
) -> None:
    answer = server.client.post("/v1/predict", content=body)
    assert answer.status_code == status
    assert found in " ".join(answer.json()["errors"])


def test_a_compressed_body_and_another_method_are_refused(server: Running) -> None:
    headers = {"content-encoding": "gzip"}
    answer = server.client.post("/v1/predict", content=gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, answer.json()["errors"]) == (
        415,
        ["content-encoding is 'gzip'; send the body without compression"],
    )
    answer = server.client.get("/v1/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["errors"] == ["GET is not a method of /v1/predict; use POST"]
    answer = server.client.post("/v1/predictions")
    assert (answer.status_code, answer.json()["errors"]) == (
        404,
        ["there is no /v1/predictions; /docs lists all paths"],
    )


def test_a_long_body_is_refused_before_it_is_read(server: Running) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 100_000_000:
            sent += 10_000
            yield b" " * 10_000

    try:
        status = server.client.post("/v1/predict", content=endless()).status_code
    except httpx.TransportError:  # the server has closed the connection
        status = 413
    assert status == 413
    assert sent < 20_000_000


def test_a_slow_body_is_refused(server: Running) -> None:
    address = server.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        slow.settimeout(10)
        assert b"408" in slow.recv(1000)


def test_a_full_queue_says_when_to_try_again(root: Path) -> None:
    settings = Settings(limits=Limits(queued_rows=3, seconds=20))
    with serving(root, settings) as running:
        gate = threading.Event()
        running.state.thread.call(lambda: gate.wait(20))
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(running.post, ROWS[0], ROWS[0]) for _ in range(1)]
            while running.state.thread.queued_rows < 2:
                time.sleep(0.01)
            refused = running.client.post("/v1/predict", json={"rows": ROWS[:2]})
            gate.set()
            assert len(waiting[0].result()["answers"]) == 2
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "deep_prompt_queued_rows 0" in running.client.get("/metrics").text


def test_a_client_that_leaves_and_a_late_answer_are_dropped(root: Path) -> None:
    with serving(root, Settings(limits=Limits(seconds=0.5))) as running:
        gate = threading.Event()
        running.state.thread.call(lambda: gate.wait(20))
        with pytest.raises(httpx.ReadTimeout):
            running.client.post("/v1/predict", json={"rows": ROWS}, timeout=0.2)
        late = running.client.post("/v1/predict", json={"rows": ROWS}, timeout=10)
        until(lambda: running.state.thread.queued_rows == 0)
        gate.set()
        assert late.status_code == 504
        metrics = running.client.get("/metrics").text
    assert 'requests_total{route="/v1/predict",status="499"} 1.0' in metrics
    assert "deep_prompt_pass_rows_count 0.0" in metrics, "no row reached the model"


def test_the_command_predict_asks_a_server(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, {"task": "no"}, ROWS[0] | {"id": "mine"}]
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["predict", "--server", server.url, "--input", str(source)]
    main([*command, "--output", str(output), "--skip-bad", "--chunk-rows", "2"])
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [answer["id"] for answer in answers] == [0, 1, 2, "mine"]
    assert [answer["task"] for answer in answers] == [*HEADS, "ner"]
    assert f"skipped: {source}:4: task: no task 'no'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command)
    assert f"error: {source}:4: task: no task" in capsys.readouterr().err


def test_a_row_that_the_server_refuses_is_skipped_alone(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too many characters, and a number that JSON lacks: the rows beside them are answered."""
    long, invalid = ROWS[0] | {"text": "a" * 20_001}, ROWS[0] | {"more": float("nan")}
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    lines = map(json.dumps, [ROWS[0], long, ROWS[1], invalid, ROWS[2]])
    source.write_text("\n".join(lines), encoding="utf-8")
    command = ["predict", "--server", server.url, "--input", str(source), "--output", str(output)]
    main([*command, "--skip-bad"])
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [answer["task"] for answer in answers] == list(HEADS)
    skipped = capsys.readouterr().err
    assert re.search(rf"skipped: {source}:2: .*has more than 20\d+ (characters|bytes)", skipped)
    assert f"skipped: {source}:4: the body: cannot be read as JSON: NaN" in skipped


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "one of the arguments --artifact --server is required"),
        (["--server", "localhost:8000"], "give a URL such as"),
        (["--server", "http://x", "--max-length", "9"], "--max-length: a server has its own"),
        (["--server", "http://127.0.0.1:1"], "no answer"),
    ],
)
def test_the_command_predict_explains_a_wrong_server(
    arguments: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "Ada"}\n', encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["predict", *arguments, "--input", str(source), "--output", os.devnull])
    assert found in capsys.readouterr().err
