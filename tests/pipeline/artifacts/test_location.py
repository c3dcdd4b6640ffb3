"""Artifacts by folder, by zoo:NAME and by a revision of the hub."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import deep_prompt
from pipeline.artifacts.location import locate_artifact
from pipeline.artifacts.zoo import ZOO
from pipeline.errors import UserError

REVISION = "0123456789" * 4


def test_a_revision_of_the_hub_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(repo: str, **options: Any) -> str:
        calls.append((repo, options["revision"]))
        assert "*.py" not in options["allow_patterns"]
        return str(ZOO / "open")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert "wikigold" in deep_prompt.load_config(f"hub:owner/some.name@{REVISION}").heads
    assert calls == [("owner/some.name", REVISION)]


@pytest.mark.parametrize("name", ["hub:owner/name", "hub:owner/name@main", f"hub:name@{REVISION}"])
def test_a_name_without_owner_and_pinned_revision_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"not a pinned revision of the hub; write hub:OWNER/NAME@"):
        locate_artifact(name)


def test_a_failed_download_names_the_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    message = f"artifact hub:o/n@{REVISION}: download failed: no network; check id, revision"
    with pytest.raises(UserError, match=message):
        locate_artifact(f"hub:o/n@{REVISION}")


def test_folders_and_the_zoo_stay_as_they_are() -> None:
    assert locate_artifact("models/a") == Path("models/a")
    assert locate_artifact("zoo:open") == ZOO / "open"
