"""Tiny artifacts of three tasks, and a real server of them on loopback."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn

from deep_prompt.serve.app import create_app
from deep_prompt.serve.model import ServedModel
from deep_prompt.serve.runner import TimedProtocol, listen
from deep_prompt.serve.settings import Settings
from deep_prompt.serve.state import ServerState
from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.world import write_corpus
from tests.support.small_project import make_backbone, make_decoder

BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")
CALIBRATED = {"temperature": 2.0}
HEADS = {
    "ner": TaskHead("token_classification", "classes", BIO, thresholds=CALIBRATED),
    "srl": TaskHead("semantic_role_labeling", "classes", (*BIO, "B-V", "I-V")),
    "qa": TaskHead("span_extraction", "positions", ("start", "end"), thresholds=CALIBRATED),
}
MORE_HEADS = {"topic": TaskHead("sequence_classification", "classes", ("good", "bad"))}
TEXT_HEADS = {
    "story": TaskHead("text_generation", "language_model", (), max_answer_length=30),
    "names": TaskHead("token_classification", "classes", BIO, thresholds=CALIBRATED),
}
FORM_HEADS = {  # tasks that read other things than one text and a question about it
    "woz": TaskHead("dialogue_state_tracking", "classes", ("none", "food=thai", "area=south")),
    "woz_text": TaskHead("dialogue_state_generation", "language_model", (), max_answer_length=20),
    "born": TaskHead(
        "knowledge_probing",
        "language_model",
        (
            *("P19=[X] was born in [Y] .", "P19=London", "P19=Paris"),
            *("P20=[X] died in [Y] .", "P20=Paris"),
        ),
    ),
    "copa": TaskHead("multiple_choice", "positions", ("choice",)),
    "pairs": TaskHead("sequence_classification", "classes", ("good", "bad")),
}
TEXT = "Ada Lovelace was born in London."
ROWS: list[dict[str, Any]] = [
    {"task": "ner", "text": TEXT},
    {"task": "srl", "text": TEXT, "predicate": {"start": 17, "end": 21}},
    {"task": "qa", "question": "Where was Ada born?", "context": TEXT},
]


def make_artifacts(folder: Path, versions: int = 2) -> Path:
    """Write a backbone, and the artifacts ner-0, ner-1, srl-0, ... of each version.

    The versions of a task predict differently.
    """
    write_corpus("ner", folder / "corpus", 40, 7)
    sha256 = make_backbone(folder / "backbone", folder / "corpus")
    params = BackboneParams(f"folder:{folder}/backbone", sha256)
    backbone = Backbone.load(folder / "backbone").requires_grad_(False)
    for number, (task, head) in enumerate((HEADS | MORE_HEADS).items()):
        for version in range(versions):
            _save(folder / f"{task}-{version}", params, backbone, task, head, 10 * number + version)
    return folder


def make_text_artifacts(
    folder: Path, heads: Mapping[str, TaskHead] = TEXT_HEADS
) -> dict[str, Path]:
    """Write a decoder, and an artifact for each of the heads; returns their folders by task."""
    sha256 = make_decoder(folder / "decoder", [TEXT, "café Zürich Ĳssel €"])
    params = BackboneParams(f"folder:{folder}/decoder", sha256)
    backbone = Backbone.load(folder / "decoder", lm_head=True).requires_grad_(False)
    for number, (task, head) in enumerate(heads.items()):
        _save(folder / task, params, backbone, task, head, number)
    return {task: folder / task for task in heads}


def _save(
    folder: Path, params: BackboneParams, backbone: Backbone, task: str, head: TaskHead, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    prompt = DeepPrompt(torch.randn(backbone.prompt_shape(4), generator=generator))
    heads = Heads([head.kind], [len(head.classes)], backbone.hidden_size, seed)
    with torch.no_grad():
        heads.weight.mul_(20)  # classes differ clearly in probability
    model = PromptedModel(backbone, prompt, heads, train_backbone=False)
    config = ArtifactConfig(
        "deep_prompt",
        params,
        backbone.model.config.model_type,
        backbone.hidden_size,
        {task: head},
        prompt.shape,
    )
    save_artifact(folder, model, config)


def folders(root: Path, version: int = 0, more: bool = False) -> dict[str, Path]:
    """The artifacts of a version, by task; `more`: also those of MORE_HEADS."""
    return {task: root / f"{task}-{version}" for task in (HEADS | MORE_HEADS if more else HEADS)}


@dataclass
class Running:
    """A running server."""

    url: str
    state: ServerState
    server: uvicorn.Server
    client: httpx.Client

    def post(self, *rows: Any, **more: Any) -> Any:
        """The body of the answer to rows."""
        answer = self.client.post("/v1/predict", json={"rows": rows, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def serving(
    root: Path, settings: Settings | None = None, ready: bool = True, more: bool = False
) -> Iterator[Running]:
    """A server of version 0 of the artifacts, in a thread, on a free port."""
    with serving_folders(folders(root, more=more), settings, ready) as running:
        yield running


@contextmanager
def serving_folders(
    artifacts: Mapping[str, Path], settings: Settings | None = None, ready: bool = True
) -> Iterator[Running]:
    """A server of artifacts, in a thread, on a free port."""
    settings = replace(settings or Settings(), port=0)
    listening = listen(settings.host, 0)
    started, running = threading.Event(), list[Running]()

    async def main() -> None:
        state = ServerState(ServedModel(artifacts), settings)
        state.thread.start()
        config = uvicorn.Config(
            create_app(state), http=TimedProtocol, ws="none", lifespan="off", log_level="error"
        )
        server = uvicorn.Server(config)
        if ready:
            await state.warm_up()
        host, port = listening.getsockname()
        url = f"http://{host}:{port}"
        client = httpx.Client(base_url=url, timeout=20, verify=False, trust_env=False)
        running.append(Running(url, state, server, client))
        started.set()
        await server.serve([listening])
        await asyncio.to_thread(state.thread.stop)

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    assert started.wait(30)
    try:
        yield running[0]
    finally:
        running[0].client.close()
        running[0].server.should_exit = True
        thread.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
