"""Artifacts are added, replaced and removed while the server answers; nothing is lost or wrong."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from deep_prompt.serve.model import named_folders
from deep_prompt.serve.settings import Settings
from pipeline.errors import UserError
from pipeline.inference.loading import load
from tests.deep_prompt.serve.conftest import TOKEN
from tests.support.serving import ROWS, Running, serving

BEARER = {"authorization": f"Bearer {TOKEN}"}
REPLACEMENTS = int(os.environ.get("SERVE_REPLACEMENTS", "10"))


def settings_of(root: Path) -> Settings:
    return Settings(admin_token=TOKEN, admin_folder=root)


def put(running: Running, name: str, folder: str) -> Any:
    return running.client.put(f"/v1/artifacts/{name}", json={"folder": folder}, headers=BEARER)


def shape(answer: Any) -> str:
    """The result of an answer without its probabilities, which depend on the batch's padding."""
    spans = [(span["label"], span["start"]) for span in answer["result"]["entities"]]
    return json.dumps(spans)


def test_replacing_artifacts_under_load_loses_and_mixes_no_answer(root: Path) -> None:
    expected = [
        shape(load({"ner": root / f"ner-{version}"})(ROWS[0]).asdict()) for version in (0, 1)
    ]
    assert expected[0] != expected[1]
    with serving(root, settings_of(root)) as running:
        stop, answers, failures = threading.Event(), list[str](), list[object]()

        def ask() -> None:
            while not stop.is_set():
                try:
                    body = running.post(*ROWS)
                    answers.append(shape(body["answers"][0]))
                    assert all("result" in answer for answer in body["answers"])
                except Exception as error:
                    failures.append(error)

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        for number in range(REPLACEMENTS):
            version = (number + 1) % 2
            assert put(running, "ner", f"ner-{version}").status_code == 200
            # From the answer on, the server serves the new version.
            assert shape(running.post(ROWS[0])["answers"][0]) == expected[version]
        stop.set()
        for client in clients:
            client.join()
        assert not failures
        assert set(answers) == set(expected)
        assert len(answers) >= REPLACEMENTS


def test_an_artifact_is_added_and_removed(root: Path) -> None:
    with serving(root, settings_of(root)) as running:
        added = put(running, "second", "ner-1")
        assert added.json()["artifacts"] == ["ner", "qa", "second", "srl"]
        assert added.json()["warnings"] == running.state.model.served.predictor.warnings
        first, second = running.post(ROWS[0], ROWS[0] | {"task": "second"})["answers"]
        assert shape(first) != shape(second)
        assert len(running.client.get("/v1/tasks").json()["tasks"]) == 4
        removed = running.client.delete("/v1/artifacts/second", headers=BEARER)
        assert removed.json()["artifacts"] == ["ner", "qa", "srl"]
        (answer,) = running.post(ROWS[0] | {"task": "second"})["answers"]
        assert "no task 'second'" in answer["errors"][0]
        for name in ("ner", "qa"):
            assert running.client.delete(f"/v1/artifacts/{name}", headers=BEARER).is_success
        last = running.client.delete("/v1/artifacts/srl", headers=BEARER)
        assert (last.status_code, "only artifact" in last.text) == (422, True)


def test_an_artifact_whose_folder_has_vanished_is_replaced_and_removed(
    root: Path, tmp_path: Path
) -> None:
    admin = tmp_path / "admin"
    with serving(root, Settings(admin_token=TOKEN, admin_folder=admin)) as running:
        for remedy in ("PUT", "DELETE"):
            shutil.copytree(root / "ner-1", admin / "moved")
            assert put(running, "second", "moved").is_success
            shutil.rmtree(admin / "moved")
            assert running.client.delete("/v1/artifacts/qa", headers=BEARER).status_code == 422
            if remedy == "PUT":
                shutil.copytree(root / "ner-1", admin / "ner")
                assert put(running, "second", "ner").is_success
            else:
                assert running.client.delete("/v1/artifacts/second", headers=BEARER).is_success
        assert all("result" in answer for answer in running.post(*ROWS)["answers"])


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [
        ("ner", "../ner-1", "not inside --admin-folder"),
        ("ner", "/etc", "not inside --admin-folder"),
        ("ner", "link", "not inside --admin-folder"),
        ("ner", "nope", "no such file"),
        ("ner", "broken", "heads.safetensors"),
        ("ner", "a\0b", "null character"),
        (".hidden", "ner-1", "use letters"),
        ("srl", "qa-1", None),
    ],
)
def test_a_wrong_artifact_is_refused_and_the_old_one_stays(
    root: Path, tmp_path: Path, name: str, folder: str, found: str | None
) -> None:
    admin = tmp_path / "admin"
    shutil.copytree(root / "qa-1", admin / "qa-1")
    shutil.copytree(root / "ner-1", admin / "ner-1")
    shutil.copytree(root / "ner-1", admin / "broken")
    (admin / "broken/heads.safetensors").write_bytes(b"no tensors")
    (admin / "link").symlink_to(root / "ner-1")
    with serving(root, Settings(admin_token=TOKEN, admin_folder=admin)) as running:
        answer = put(running, name, folder)
        if found is None:  # another type of task under the old name
            assert answer.status_code == 200
            assert running.post(ROWS[2] | {"task": "srl"})["answers"][0]["result"]["spans"]
            return
        assert answer.status_code == 422
        assert found in answer.json()["errors"][0]
        assert all("result" in one for one in running.post(*ROWS)["answers"])


def test_changes_need_the_token(root: Path, server: Running) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
        refused = server.client.delete("/v1/artifacts/ner", headers=headers)
        assert refused.status_code == 401
    assert server.client.put("/v1/artifacts/ner", json=[], headers=BEARER).status_code == 422
    with serving(root) as running:
        off = running.client.delete("/v1/artifacts/ner", headers=BEARER)
        assert (off.status_code, "--admin-token" in off.text) == (403, True)


def test_names_of_artifacts_at_the_start(root: Path) -> None:
    assert named_folders([root / "ner-0", "zoo:open"]).keys() == {"ner", "open"}
    with pytest.raises(UserError, match="has the same name as"):
        named_folders([root / "ner-0", root / "ner-1"])
