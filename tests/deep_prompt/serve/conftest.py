"""Tiny artifacts, and a server of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deep_prompt.serve.settings import Limits, Settings
from tests.support.serving import Running, make_artifacts, serving

TOKEN = "a long token"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of artifacts."""
    return make_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of corrections of `server`."""
    return tmp_path_factory.mktemp("corrections") / "corrections.jsonl"


@pytest.fixture(scope="session")
def server(root: Path, corrections: Path) -> Iterator[Running]:
    """A server with small limits. Tests must leave its artifacts as they are."""
    limits = Limits(rows=20, characters=500, body_bytes=20_000, body_seconds=0.5, queued_rows=60)
    settings = Settings(
        limits=limits, admin_token=TOKEN, admin_folder=root, corrections=corrections
    )
    with serving(root, settings) as running:
        yield running
