"""The command `deep-prompt serve` as a process: hostile clients, SIGTERM, and kill -9.

`make test-serve` sends 10,000 hostile requests; without it, there are few.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from deep_prompt.cli.main import main
from tests.support.paths import ROOT
from tests.support.serving import ROWS, TEXT, folders, make_text_artifacts

NUM_HOSTILE = int(os.environ.get("SERVE_HOSTILE", "200"))
NUM_SILENT = 200
NUM_CLIENTS = 8


class Process:
    """A server in a process of its own. `port` 0 chooses a free one."""

    def __init__(self, named: Mapping[str, Path], log: Path, port: int = 0) -> None:
        artifacts = [word for folder in named.values() for word in ("--artifact", folder)]
        command = [sys.executable, "-m", "deep_prompt", "serve", *artifacts, "--port", str(port)]
        options = ["--max-body-bytes", "50000", "--drain-seconds", "0.3"]
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, *options], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )
        self.port = int(self._wait_for(r"http://127\.0\.0\.1:(\d+)"))
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", verify=False, trust_env=False, timeout=20
        )
        while self.client.get("/health/ready").status_code != 200:
            time.sleep(0.02)

    def _wait_for(self, pattern: str) -> str:
        while not (found := re.search(pattern, self.text())):
            assert self.process.poll() is None, self.text()
            time.sleep(0.05)
        return found[1]

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def rss(self) -> int:
        """Resident memory in kB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        (found,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        return int(found)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, data: bytes, close: bool = False) -> bytes:
        """The first line of the answer to these bytes; b"" if there is none."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
                if close:
                    connection.shutdown(socket.SHUT_WR)
                return connection.recv(4096).partition(b"\r\n")[0]
            except TimeoutError:
                raise
            except OSError:  # the server has refused the request, and closed the connection
                return b""


@contextmanager
def process_of(named: Mapping[str, Path], log: Path, port: int = 0) -> Iterator[Process]:
    running = Process(named, log, port)
    try:
        yield running
    finally:
        running.client.close()
        running.process.kill()
        running.process.wait()


def post(body: bytes, length: int | None = None, path: bytes = b"/v1/predict") -> bytes:
    count = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        path,
        count,
        body,
    )


WRONG = (
    *(None, True, -1, 1e300, 10**40, "", "\0", "\u202e", "\U0001f600", "x" * 300, "none"),
    *([], {}, [[]], {"": {}}, [None] * 50, {"start": -5, "end": 10**20}, ["a", 1], [""]),
)
PATHS = (b"/v1/predict", b"/v1/attention", b"/v1/tasks/ner", b"/v1/corrections")


def wrong_types(generator: random.Random) -> bytes:
    """Rows in which some values have a wrong type."""
    rows = []
    for row in generator.choices(ROWS, k=generator.randint(1, 4)):
        changed = {**row, generator.choice([*row, "id", "prompt", "tokens", "where"]): None}
        rows.append(
            {key: generator.choice([v, generator.choice(WRONG)]) for key, v in changed.items()}
        )
    body = {"rows": generator.choice([rows, rows, rows, generator.choice(WRONG)])}
    path = generator.choice(PATHS)
    value = body if path == b"/v1/predict" else rows[0]
    return post(json.dumps(value).encode(), path=path)


def broken_bytes(generator: random.Random) -> bytes:
    body = bytearray(json.dumps({"rows": ROWS}).encode())
    for _ in range(generator.randint(1, 5)):
        body[generator.randrange(len(body))] = generator.randrange(256)
    return post(bytes(body))


def large(generator: random.Random) -> bytes:
    return post(b'{"rows": ["' + b"x" * generator.choice([25_000, 60_000, 400_000]) + b'"]}')


def deep(generator: random.Random) -> bytes:
    count = generator.choice([50, 300, 20_000])
    return post(b'{"rows":' + b"[" * count + b"]" * count + b"}")


def unfinished(generator: random.Random) -> bytes:
    """Less than the declared length; the client then closes its side."""
    return post(b'{"rows": [', length=generator.randint(50, 10**12))


def strange_http(generator: random.Random) -> bytes:
    return generator.choice(
        [
            b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"BREW /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /..%2f..%2fapp.py HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /%c3%28?%c3%28 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"PUT /v1/artifacts/x HTTP/1.1\r\nHost: x\r\nAuthorization: \xff\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: upgrade\r\n\r\n",
        ]
    )


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    wrong_types,
    wrong_types,
    broken_bytes,
    large,
    deep,
    unfinished,
    strange_http,
)


def attack(running: Process, count: int, seed: int) -> None:
    """Send hostile requests; no answer may have a status of 500."""
    generator = random.Random(seed)
    for number in range(count):
        data = KINDS[number % len(KINDS)](generator)
        line = running.send(data, close=True)
        assert not line or re.match(rb"HTTP/1.1 (200|4\d\d) ", line), (data[:300], line)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="module")
def running(root: Path, log: Path) -> Iterator[Process]:
    with process_of(folders(root), log) as process:
        yield process


def test_hostile_requests_leave_no_trace(running: Process) -> None:
    attack(running, max(200, NUM_HOSTILE // 10), 0)  # memory that is only used once
    before = running.rss()
    with ExitStack() as silent:
        for number in range(NUM_SILENT):
            connection = silent.enter_context(running.connect())
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"[: 1 + number % 40])
        attack(running, NUM_HOSTILE, 1)
    answer = running.client.post("/v1/predict", json={"rows": ROWS}).json()
    assert all("result" in one for one in answer["answers"])
    assert running.client.get("/health/ready").status_code == 200
    assert "Traceback" not in running.text()
    assert running.rss() < 1.05 * before
    metrics = running.client.get("/metrics").text
    assert 'status="500"' not in metrics


def test_it_serves_again_after_kill_9_and_loses_no_request_at_sigterm(
    root: Path, running: Process, tmp_path: Path
) -> None:
    port = running.port
    running.process.send_signal(signal.SIGKILL)
    assert running.process.wait(10) == -signal.SIGKILL
    with process_of(folders(root), tmp_path / "log", port) as again:
        assert again.port == port
        done, refused, broken = list[int](), list[str](), list[str]()

        def ask() -> None:
            """Ask on a new connection each time, until the port is closed."""
            body = post(json.dumps({"rows": ROWS}).encode())
            while not refused:
                try:
                    connection = again.connect()
                except ConnectionError as error:
                    refused.append(str(error))
                    return
                with connection:
                    try:
                        connection.sendall(body)
                        done.append(len(read_all(connection)))
                    except ConnectionError as error:
                        broken.append(str(error))

        clients = [threading.Thread(target=ask) for _ in range(NUM_CLIENTS)]
        for client in clients:
            client.start()
        while len(done) < 20:
            time.sleep(0.01)
        again.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join()
        assert again.process.wait(20) == 0
        assert refused
        assert min(done) > 500, "each answer is complete"
        # The kernel resets a connection that the server has not accepted when the port closes.
        assert len(broken) <= NUM_CLIENTS
        assert "Traceback" not in again.text()


def test_texts_that_have_begun_are_complete_after_sigterm(tmp_path: Path) -> None:
    barrier = threading.Barrier(NUM_CLIENTS + 1)

    def last_event(client: httpx.Client) -> str:
        row, headers = {"source": TEXT}, {"accept": "text/event-stream"}
        with client.stream("POST", "/v1/tasks/story", json=row, headers=headers) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: text"
            barrier.wait(20)
            return [line for line in lines if line.startswith("event: ")][-1]

    with (
        process_of(make_text_artifacts(tmp_path), tmp_path / "log") as running,
        ThreadPoolExecutor(NUM_CLIENTS) as pool,
    ):
        texts = [pool.submit(last_event, running.client) for _ in range(NUM_CLIENTS)]
        barrier.wait(20)
        running.process.send_signal(signal.SIGTERM)
        assert [text.result(20) for text in texts] == ["event: answer"] * NUM_CLIENTS
        assert running.process.wait(20) == 0
        assert "Traceback" not in running.text()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    if not data:
        raise ConnectionResetError("closed without an answer")
    return data


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "give --artifact DIR, or --zoo"),
        (["--artifact", "nope"], "nope/config.json: no such file"),
        (["--zoo", "--admin-token", "short"], "fewer than 8 characters"),
        (["--zoo", "--admin-folder", "nope"], "nope is not a folder"),
        (["--zoo", "--port", "70000"], "is not a port"),
        (["--zoo", "--wait-ms", "-1"], "is not a number from 0"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", *arguments])
    assert found in capsys.readouterr().err


def test_a_port_in_use_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        with pytest.raises(SystemExit):
            main(["serve", "--artifact", str(root / "ner-0"), "--port", port])
    assert f"--host 127.0.0.1 --port {port}: cannot listen" in capsys.readouterr().err
