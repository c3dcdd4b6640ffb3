"""Where a backbone is: each mistake is named with its value and the remedy, and no package's code runs."""

import hashlib
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate

REVISION = "722cf37b1afa9454edce342e7895e588b6ff1d59"
WEIGHTS = b"weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be imported, with a model inside."""
    root = tmp_path / "site"
    model(root / "some_weights" / "model")
    model(root / "elsewhere")
    (root / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(root))
    return root


def refuse(source: str, sha256: str | None = SHA256) -> str:
    with pytest.raises(UserError) as caught:
        locate(BackboneParams(source, sha256))
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("minilm", "write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"),
        ("git:minilm", "write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"),
        ("folder:", "write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"),
        ("hub:FacebookAI/roberta-large", "hub:ID@ and 40 hex digits"),
        ("hub:FacebookAI/roberta-large@main", "hub:ID@ and 40 hex digits"),
        (f"hub:FacebookAI/roberta-large@{REVISION[:7]}", "hub:ID@ and 40 hex digits"),
        (f"hub:a/b/c@{REVISION}", "hub:ID@ and 40 hex digits"),
        ("package:some.weights/model", "a top-level package"),
        ("package:/model", "a top-level package"),
    ],
)
def test_syntax(source: str, remedy: str) -> None:
    with pytest.raises(ValueError, match="source is") as caught:
        BackboneParams(source, SHA256)
    assert repr(source) in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("source", ["package:some_weights/model", "folder:models/a"])
def test_a_local_source_needs_a_hash(source: str) -> None:
    with pytest.raises(ValueError, match="sha256 is missing; add what `sha256sum") as caught:
        BackboneParams(source)
    assert source in str(caught.value)


def test_a_hub_revision_is_a_hash_itself() -> None:
    assert BackboneParams(f"hub:FacebookAI/roberta-large@{REVISION}").sha256 is None
    assert BackboneParams(f"hub:gpt2@{REVISION}").source.endswith(REVISION)


def test_a_package_is_found_but_not_imported(package: Path) -> None:
    assert (
        locate(BackboneParams("package:some_weights/model", SHA256))
        == (package / "some_weights" / "model").resolve()
    )
    assert "some_weights" not in sys.modules


def test_an_absent_package() -> None:
    message = refuse("package:no_such_weights/model")
    assert "package 'no_such_weights' is not installed; pip install it" in message


@pytest.mark.parametrize("inside", ["../elsewhere", "model/../../elsewhere"])
def test_a_path_that_leads_out_of_the_package(package: Path, inside: str) -> None:
    assert f"{inside!r} leads out of the package; name a folder inside it" in refuse(
        f"package:some_weights/{inside}"
    )


def test_an_absent_folder_in_a_package(package: Path) -> None:
    message = refuse("package:some_weights/models")
    assert "package:some_weights/models" in message
    assert "holds no config.json; give a folder saved by save_pretrained" in message


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "models" / "a")
    monkeypatch.chdir(tmp_path)
    assert locate(BackboneParams("folder:models/a", SHA256)) == Path("models/a")
    assert "models/b holds no config.json" in refuse("folder:models/b")


def test_other_weights(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"other")
    message = refuse(f"folder:{folder}")
    for part in (
        str(folder / "model.safetensors"),
        hashlib.sha256(b"other").hexdigest(),
        f"params say {SHA256}",
        "get the right weights, or correct backbone.sha256",
    ):
        assert part in message


def test_no_weights(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    assert (
        f"{folder / 'model.safetensors'} is missing; weights must be one model.safetensors"
        in refuse(f"folder:{folder}")
    )


def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(repo: str, revision: str, allow_patterns: list[str]) -> str:
        assert (repo, revision) == ("a/b", REVISION)
        assert not any(
            pattern.endswith((".bin", ".py", ".pt")) or pattern == "*" for pattern in allow_patterns
        )
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    message = refuse(f"hub:a/b@{REVISION}", None)
    assert (
        message
        == f"backbone hub:a/b@{REVISION}: cannot be had: no network; check id, revision and network"
    )


def test_a_hub_revision_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: str(model(tmp_path / "cache"))
    )
    assert locate(BackboneParams(f"hub:a/b@{REVISION}")) == tmp_path / "cache"
    assert "sha256" in refuse(f"hub:a/b@{REVISION}", "0" * 64)
