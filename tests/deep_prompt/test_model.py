"""`Model` loads, saves and uploads one artifact by the conventions of the hub, without network."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

import deep_prompt
from pipeline.interop import hub
from tests.support.serving import ROWS, make_artifacts
from tests.support.small_project import contents

ROW = {"text": ROWS[0]["text"]}
CARD = "# A card\n"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the artifacts have few hashes


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_artifacts(tmp_path_factory.mktemp("model"), versions=1) / "ner-0"
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "notes.txt").write_text("not part of the artifact", encoding="utf-8")
    return folder


@pytest.fixture
def downloads(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hub has the artifact as o/n; the arguments of each download."""
    calls: list[Any] = []

    def snapshot_download(repo: str, **options: Any) -> str:
        if repo != "o/n":
            raise OSError(f"404: no repository {repo}\nmore")
        calls.append(options)
        for pattern in options["allow_patterns"]:
            for file in artifact.glob(pattern):
                shutil.copy(file, tmp_path)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_folder_is_loaded_and_saved_with_equal_bytes(artifact: Path, tmp_path: Path) -> None:
    model = deep_prompt.Model.from_pretrained(artifact, max_length=16)
    assert model.predictor.windows == {"ner": (16, 4)}
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/other.txt").touch()
    for _ in range(2):  # the second time, the files exist
        model.save_pretrained(tmp_path / "saved")
    model.save_pretrained(artifact)
    shutil.copytree(artifact, tmp_path / "expected/saved")
    (tmp_path / "expected/saved/notes.txt").unlink()
    (tmp_path / "expected/saved/other.txt").touch()
    assert contents(tmp_path / "saved") == contents(tmp_path / "expected/saved")
    again = deep_prompt.Model.from_pretrained(tmp_path / "saved", max_length=16)
    assert str(again(ROW)) == str(model(ROW)) == str(deep_prompt.load(artifact, max_length=16)(ROW))


def test_a_save_that_stops_halfway_leaves_no_artifact(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deep_prompt.Model.from_pretrained(artifact)
    model.save_pretrained(tmp_path)
    copied = list[str]()

    def copy_one(source: Path, path: Path) -> None:
        copied.append(source.name)
        if len(copied) > 1:
            raise OSError("disk full")

    monkeypatch.setattr("deep_prompt.model.copy_file", copy_one)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(tmp_path)
    assert "config.json" not in copied
    with pytest.raises(deep_prompt.UserError, match=r"config.json"):
        deep_prompt.load(tmp_path)


def test_weights_of_another_artifact_are_not_mixed_in(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").touch()
    with pytest.raises(deep_prompt.UserError, match=r"has lora.safetensors, which .* does not"):
        deep_prompt.Model.from_pretrained(artifact).save_pretrained(tmp_path)


def test_a_repository_is_loaded_at_a_revision_or_at_main(
    artifact: Path, downloads: list[Any]
) -> None:
    expected = str(deep_prompt.load(artifact)(ROW))
    assert str(deep_prompt.Model.from_pretrained("o/n")(ROW)) == expected
    deep_prompt.Model.from_pretrained("o/n", revision="v1", token="t", local_files_only=True)
    first, second = downloads
    assert (first["revision"], first["local_files_only"]) == ("main", False)
    assert (second["revision"], second["token"], second["local_files_only"]) == ("v1", "t", True)


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("o/other", {}, "artifact hub:o/other@main: download failed: 404: no repository o/other;"),
        ("nope", {}, "repository: found 'nope'; write OWNER/NAME"),
        ("a@b/c", {}, "repository: found 'a@b/c'; write OWNER/NAME"),
        ("zoo:open", {"revision": "v1"}, "revision is 'v1', but zoo:open has none; leave it out"),
    ],
)
def test_a_wrong_name_is_a_user_error(
    name: str, options: dict[str, str], found: str, downloads: list[Any]
) -> None:
    with pytest.raises(deep_prompt.UserError) as caught:
        deep_prompt.Model.from_pretrained(name, **options)  # type: ignore[arg-type]
    assert found in str(caught.value)


def test_the_files_are_pushed_to_the_hub(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[Any]()

    class Api:
        def __init__(self, token: str | None) -> None:
            calls.append(token)

        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def create_commit(self, repo: str, operations: Any, commit_message: str) -> SimpleNamespace:
            calls.append({operation.path_in_repo for operation in operations} | {commit_message})
            return SimpleNamespace(commit_url=f"https://hub/{repo}/commit/1")

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "get_token", lambda: None)
    model = deep_prompt.Model.from_pretrained(artifact)
    with pytest.raises(deep_prompt.UserError, match="found no token"):
        model.push_to_hub("o/n")
    address = model.push_to_hub("o/n", commit_message="first", private=True, token="t")
    assert address == "https://hub/o/n/commit/1"
    token, (repo, options), files = calls
    assert (token, repo, options) == ("t", "o/n", {"private": True, "exist_ok": True})
    assert files == {path.name for path in artifact.iterdir()} - {"notes.txt"} | {"first"}
