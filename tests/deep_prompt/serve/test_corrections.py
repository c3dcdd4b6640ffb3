"""Corrections become rows that a recipe of the reader `records` reads."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deep_prompt.serve.corrections import Corrections
from deep_prompt.serve.settings import Settings
from pipeline.artifacts.config import TaskHead
from pipeline.errors import UserError
from pipeline.tasks import task_named
from tests.support import raw
from tests.support.serving import HEADS, ROWS, TEXT, Running, serving

SPANS = [{"label": "X", "start": 0, "end": 12}, {"label": "Y", "start": 25, "end": 31}]
VALID: list[dict[str, Any]] = [
    ROWS[0] | {"spans": SPANS},
    ROWS[1] | {"spans": [SPANS[0]]},
    ROWS[2] | {"answers": [{"text": "London", "answer_start": 25}]},
    ROWS[2] | {"answers": []},
]


def send(server: Running, correction: Any, **headers: str) -> Any:
    return server.client.post("/v1/corrections", json=correction, headers=headers)


def test_corrections_are_rows_of_records(
    server: Running, corrections: Path, tmp_path: Path
) -> None:
    ids = [send(server, correction).json()["id"] for correction in VALID]
    rows = {
        task: [
            json.loads(line)
            for line in (corrections / task / "corrections.jsonl").read_text("utf-8").splitlines()
        ]
        for task in HEADS
    }
    tokens = ["Ada", "Lovelace", "was", "born", "in", "London", "."]
    assert rows["ner"] == [
        {
            "id": ids[0],
            "tokens": tokens,
            "tags": ["B-X", "I-X", "O", "O", "O", "B-Y", "O"],
        }
    ]
    assert rows["srl"] == [
        {
            "id": ids[1],
            "tokens": tokens,
            "predicate": 3,
            "tags": ["B-X", "I-X", "O", "B-V", "O", "O", "O"],
        }
    ]
    assert [row["answers"] for row in rows["qa"]] == [VALID[2]["answers"], []]
    for task, head in HEADS.items():
        content = (corrections / task / "corrections.jsonl").read_bytes()
        keys = dict.fromkeys(("id", *task_named(head.type).row_keys.required))
        found, problems = raw.read("records", content, tmp_path, {"fields": keys}, "c.jsonl")
        assert not problems
        assert raw.without_where(found) == rows[task]


@pytest.mark.parametrize(
    ("correction", "found"),
    [
        (ROWS[0], "expected a list of mappings"),
        (ROWS[0] | {"spans": [{"label": "Z", "start": 0, "end": 3}]}, "Z"),
        (ROWS[0] | {"spans": [{"label": "X", "start": 1, "end": 3}]}, "not whole words"),
        (ROWS[0] | {"spans": [{"label": "X", "start": "0", "end": 3}]}, "label, start and end"),
        (ROWS[0] | {"spans": [SPANS[0], SPANS[0]]}, "overlaps"),
        (ROWS[0] | {"text": 3, "spans": []}, "text"),
        (ROWS[1] | {"predicate": 70, "spans": []}, "predicate"),
        (ROWS[2], "answers"),
        (ROWS[2] | {"answers": [{"text": "Paris", "answer_start": 25}]}, "Paris"),
        (ROWS[2] | {"answers": 5}, "answers"),
        (ROWS[2] | {"context": [], "answers": []}, "context"),
        ({"task": "nre"}, "did you mean 'ner'"),
        ({"text": "Ada."}, "key 'task' is missing; give one of ner"),
        ([], "expected a mapping"),
    ],
)
def test_a_wrong_correction_is_refused(server: Running, correction: Any, found: str) -> None:
    answer = send(server, correction)
    assert answer.status_code == 422
    assert found in " ".join(answer.json()["errors"])


def test_another_site_cannot_send_corrections_through_a_browser(server: Running) -> None:
    answer = send(server, VALID[0], **{"content-type": "text/plain"})
    assert answer.status_code == 415


def test_corrections_are_off_by_default(root: Path) -> None:
    with serving(root) as running:
        answer = send(running, VALID[0])
        assert (answer.status_code, "--corrections" in answer.text) == (403, True)


def test_a_correction_that_cannot_be_saved_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serving(root, Settings(corrections=tmp_path / "file")) as running:
        answer = send(running, VALID[0])
        assert (answer.status_code, "cannot be saved" in answer.text) == (503, True)


def test_a_line_that_a_killed_server_left_does_not_damage_the_next(tmp_path: Path) -> None:
    path = tmp_path / "ner/corrections.jsonl"
    path.parent.mkdir()
    path.write_text('{"id": "torn', encoding="utf-8")
    Corrections(tmp_path).add("ner", HEADS["ner"], {"text": TEXT, "spans": SPANS})
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["tokens"][0] == "Ada"


@pytest.mark.parametrize("name", ["..", "../up", "a/b", ".hidden", ""])
def test_no_correction_leaves_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="not that of a folder"):
        Corrections(tmp_path / "inner").add(name, HEADS["ner"], {"text": TEXT, "spans": []})
    assert not list(tmp_path.iterdir())


def test_a_correction_of_an_intent_has_slots_and_a_known_intent(tmp_path: Path) -> None:
    classes = ("O", "B-city", "I-city", "intent:buy", "intent:sell")
    head = TaskHead("intent_and_slots", "classes", classes)
    correction = {"text": "to Bonn", "spans": [{"label": "city", "start": 3, "end": 7}]}
    Corrections(tmp_path).add("trade", head, correction | {"intent": "sell"})
    row = json.loads((tmp_path / "trade/corrections.jsonl").read_text("utf-8"))
    assert (row["tokens"], row["tags"], row["intent"]) == (["to", "Bonn"], ["O", "B-city"], "sell")
    for wrong, found in (({}, "'intent' missing"), ({"intent": "rent"}, "intent 'rent' is not")):
        with pytest.raises(UserError, match=found):
            Corrections(tmp_path).add("trade", head, correction | wrong)


def test_a_correction_that_does_not_fit_on_the_disk_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrections = Corrections(tmp_path)
    correction = {key: value for key, value in VALID[0].items() if key != "task"}
    corrections.add("ner", HEADS["ner"], correction)
    file = tmp_path / "ner/corrections.jsonl"
    before, write = file.read_bytes(), os.write
    monkeypatch.setattr("os.write", lambda number, data: write(number, data[:9]))
    with pytest.raises(OSError, match="No space left on device"):
        corrections.add("ner", HEADS["ner"], correction)
    assert file.read_bytes() == before
