"""The servers that the benchmark compares, as processes."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers

from benchmarks.mixed_batches import KINDS
from pipeline.artifacts.config import load_config
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.pretrained.location import locate

SERVE = [sys.executable, "-m", "deep_prompt", "serve"]
PIPELINES = [sys.executable, "-m", "benchmarks.serve.pipelines"]
TITLES = {
    "batched": "deep-prompt serve",
    "single": "(a) the same without batching",
    "processes": "(b) three processes, a fine-tuned model each",
    "pipelines": "(c) pipelines of transformers behind FastAPI",
}


class Servers:
    """The processes of a method. `ports` has the port of each task."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], port: int, tasks: tuple[str, ...]) -> None:
        """Start a server of tasks, and wait until it is ready."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._processes.append(process)
        self.ports |= dict.fromkeys(tasks, port)
        while True:
            assert process.poll() is None, f"{command} ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready"):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)

    def memory(self) -> float:
        """Megabytes; a page that several processes share is divided among them (PSS)."""
        total = 0
        for process in self._processes:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
            total += int(text.partition("Pss:")[2].split()[0])
        return total / 1000

    def stop(self) -> None:
        """End the processes that were started."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()


@contextmanager
def servers_of(method: str, folder: Path) -> Iterator[Servers]:
    """The running servers of a method. `folder` is that of `make_artifacts`."""
    servers = Servers()
    try:
        if method == "processes":
            for kind in KINDS:
                port = free_port()
                command = [*SERVE, "--artifact", str(folder / "models" / kind), "--port", str(port)]
                servers.start(command, port, (kind,))
        else:
            port = free_port()
            servers.start(_command(method, folder, port), port, KINDS)
        yield servers
    finally:
        servers.stop()


def _command(method: str, folder: Path, port: int) -> list[str]:
    if method == "pipelines":
        return [*PIPELINES, str(folder / "transformers"), str(port)]
    artifacts = [word for kind in KINDS for word in ("--artifact", str(folder / "prompts" / kind))]
    single = ["--wait-ms", "0", "--batch-tokens", "1"] if method == "single" else []
    return [*SERVE, *artifacts, *single, "--port", str(port)]


def free_port() -> int:
    """A port that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def make_transformers_models(folder: Path) -> None:
    """Write a model of each task with a random head, in the format of transformers."""
    with quiet_transformers():
        for kind in KINDS:
            _make_transformers_model(folder, kind)


def _make_transformers_model(folder: Path, kind: str) -> None:
    config = load_config(folder / "models" / kind)
    source = locate(config.backbone)
    (head,) = config.heads.values()
    torch.manual_seed(0)
    if kind == "qa":
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(source)
    else:
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            source, num_labels=len(head.classes), id2label=dict(enumerate(head.classes))
        )
    model.save_pretrained(folder / "transformers" / kind)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(
        folder / "transformers" / kind
    )
