"""The routes that describe the server: tasks, health, metrics, schemas; and the static page."""

import re
from pathlib import Path

import pytest

from deep_prompt.serve.describe import describe_tasks, example_row, key_kinds
from deep_prompt.serve.settings import Settings
from pipeline.artifacts.config import TaskHead
from pipeline.artifacts.scores import ArtifactScores, TestScore, load_scores
from pipeline.artifacts.zoo import ZOO
from pipeline.errors import Problems, UserError
from pipeline.files import write_json
from pipeline.inference.loading import load
from pipeline.inference.queries import QueryReader
from pipeline.tasks import NAMES, task_named
from tests.support.serving import HEADS, ROWS, Running, folders, serving


def test_tasks_say_what_their_rows_need(server: Running) -> None:
    body = server.client.get("/v1/tasks").json()
    tasks = {task["name"]: task for task in body["tasks"]}
    assert {name: task["type"] for name, task in tasks.items()} == {
        name: head.type for name, head in HEADS.items()
    }
    assert tasks["ner"]["labels"] == ["X", "Y"]
    assert tasks["qa"]["labels"] == ["start", "end"]
    assert [tasks[name]["calibrated"] for name in HEADS] == [True, False, True]
    assert len({task["prompt"] for task in tasks.values()}) == 3
    assert tasks["ner"]["kinds"] == {"tokens": "texts"}
    assert tasks["qa"]["kinds"] == {"question": "name", "context": "text"}
    assert body["corrections"] is True
    for answer in server.post(*(task["example"] for task in tasks.values()))["answers"]:
        assert "result" in answer


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_task_has_a_valid_example_row(name: str) -> None:
    """The row is also valid for kinds that no test serves."""
    kind = task_named(name)
    head = TaskHead(name, kind.head, kind.classes(() if kind.head == "positions" else ("a", "b")))
    row = example_row("task", head)
    assert QueryReader({"task": head}, [kind]).read(0, row).example is not None


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("dialogue_state_tracking", {"system": "texts", "user": "texts"}),
        ("knowledge_probing", {"subject": "text", "relation": "name", "template": "text"}),
        ("sequence_classification", {"text": "text", "text_pair": "text"}),
        ("multiple_choice", {"context": "text", "question": "name", "choices": "texts"}),
    ],
)
def test_the_kinds_of_keys_have_optional_texts_and_no_annotation(
    name: str, kinds: dict[str, str]
) -> None:
    assert key_kinds(name) == kinds


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_a_field_for_each_key_that_a_row_must_have(name: str) -> None:
    """No task gets a fixed example. A click on a word is the field of `predicate`."""
    kinds = key_kinds(name)
    needed = set(task_named(name).query_keys) - {"predicate"}
    assert needed <= kinds.keys()
    assert {kinds[key] for key in needed} <= {"text", "name", "texts"}


def test_scores_and_licenses_of_the_zoo() -> None:
    scores = load_scores(ZOO / "open")
    card = (ZOO / "open/README.md").read_text(encoding="utf-8")
    for name, score in scores.tasks.items():
        assert score.interval is not None
        low, high = score.interval
        line = f"| {score.value} | {low} to {high} | {score.rows:,} |"
        assert re.search(rf"^\| {name} \| .* {re.escape(line)}$", card, re.MULTILINE)
        assert f" | {scores.licenses[name]} | " in card


def test_scores_are_optional_and_checked(root: Path, tmp_path: Path) -> None:
    assert load_scores(tmp_path) == ArtifactScores()
    write_json(tmp_path / "scores.json", {"tasks": {"ner": {"metric": "f1", "rows": 3}}})
    with pytest.raises(UserError, match="value"):
        load_scores(tmp_path)
    described = describe_tasks(load(folders(root)), folders(root))
    assert [task["test"] for task in described.values()] == [None] * 3
    assert vars(TestScore("f1", 1.0, 3)) == {
        "metric": "f1",
        "value": 1.0,
        "rows": 3,
        "interval": None,
    }


def test_ready_only_after_the_warm_up(root: Path) -> None:
    with serving(root, Settings(), ready=False) as running:
        early = running.client.get("/health/ready")
        assert (early.status_code, early.json()) == (503, {"status": "warming up"})
        assert running.client.get("/health/live").status_code == 200


def test_metrics_count_requests_rows_and_passes(root: Path) -> None:
    with serving(root) as running:
        running.post(*ROWS, {"task": "ner"}, {"task": "secret"})
        text = running.client.get("/metrics").text
    for line in (
        'deep_prompt_requests_total{route="/v1/predict",status="200"} 1.0',
        'deep_prompt_rows_total{status="ok",task="qa"} 1.0',
        'deep_prompt_rows_total{status="error",task="ner"} 1.0',
        'deep_prompt_rows_total{status="error",task="unknown"} 1.0',
        'deep_prompt_request_seconds_count{route="/v1/predict"} 1.0',
        "deep_prompt_pass_rows_sum 3.0",
        "deep_prompt_pass_tasks_sum 3.0",
        "deep_prompt_pass_padding_count 1.0",
        "deep_prompt_queued_rows 0.0",
    ):
        assert line in text.splitlines()
    assert "secret" not in text, "clients must not be able to add series"


def test_the_schema_has_a_row_and_a_result_of_each_task_type(server: Running) -> None:
    schema = server.client.get("/openapi.json").json()
    components = schema["components"]["schemas"]
    for name in ("TokenClassification", "SemanticRoleLabeling", "SpanExtraction"):
        assert {f"{name}Row", f"{name}Result"} <= components.keys()
    assert components["SpanExtractionRow"]["required"] == ["question", "context"]
    assert "text" in components["TokenClassificationRow"]["properties"]
    assert set(components["Entity"]["properties"]) == {"label", "start", "end", "text", "score"}
    assert "HTTPValidationError" not in components
    references = set(re.findall(r"#/components/schemas/(\w+)", str(schema)))
    assert references <= components.keys()
    paths = {"/v1/predict", "/v1/tasks/{name}", "/v1/tasks", "/health/ready", "/v1/corrections"}
    assert paths <= schema["paths"].keys()


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/fields.js", "/docs", "/docs.js"])
def test_the_page_needs_no_other_host(server: Running, path: str) -> None:
    answer = server.client.get(path)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    links = re.findall(r"""(?:src|href|url|import|fetch)\W{1,3}(https?:)?//""", answer.text)
    assert not links


@pytest.mark.parametrize("path", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/%00", "/nope"])
def test_no_file_outside_the_page_is_served(server: Running, path: str) -> None:
    answer = server.client.get(path)
    assert answer.status_code == 404
    assert "errors" in answer.json()


def test_example_rows_are_problems_of_no_kind() -> None:
    """`Problems` stays empty for an example row: it raises no warning either."""
    kind, problems = task_named("span_extraction"), Problems()
    row = example_row("qa", HEADS["qa"]) | {"id": "1", "where": ""}
    assert kind.example_for_prediction(row, problems) is not None
    assert not problems.counts
