"""`deep-prompt publish --space` writes a folder that a container engine can build."""

import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deep_prompt.cli.main import main
from deep_prompt.cli.space import PORT, SOURCES
from tests.support.paths import ROOT
from tests.support.serving import make_artifacts


def test_the_folder_has_everything_that_the_image_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    space = tmp_path / "space"
    main(["publish", "--artifact", "zoo:open", "--space", str(space)])
    assert f"hf upload OWNER/NAME {space} --repo-type space" in capsys.readouterr().out
    _, header, text = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    values = YAML(typ="safe").load(header)
    assert (values["sdk"], values["app_port"]) == ("docker", PORT)
    assert len(values["short_description"]) <= 60
    assert "wikigold" in text
    dockerfile = (space / "Dockerfile").read_text(encoding="utf-8")
    assert "8000" not in dockerfile
    assert '"--artifact", "artifacts/open"]' in dockerfile
    for name in ("config.json", "README.md", "prompt.safetensors"):
        assert (space / "artifacts/open" / name).read_bytes() == (
            ROOT / "zoo/open" / name
        ).read_bytes()
    for name in ("deep_prompt/serve/page/page.js", "pipeline/words.py", "setup.cfg"):
        assert (space / name).exists()
    assert not list(space.rglob("__pycache__"))


def test_the_image_gets_the_sources_and_pinned_packages() -> None:
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert {*let_through} - {"README.md"} == {*SOURCES} - {"Dockerfile"}
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"pip install ([^\n&]*)", dockerfile)
    packages = {
        word
        for command in commands
        for word in command.split()
        if not word.startswith(("-", "http", ".")) and word != "constraints.txt"
    }
    assert len(packages) > 10
    for package in packages:
        assert re.search(rf"^{re.escape(package)}==", constraints, re.MULTILINE), package


def test_problems_are_reported_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_artifacts(tmp_path, versions=1)
    shutil.copytree(tmp_path / "ner-0", tmp_path / "other/ner-0")
    monkeypatch.chdir(tmp_path)
    command = ["publish", "--artifact", "ner-0", "--artifact", "other/ner-0"]
    with pytest.raises(SystemExit):
        main([*command, "--space", str(tmp_path)])
    errors = capsys.readouterr().err
    for found in ("exists", "found no LICENSE", "same name", "its backbone is", "no README.md"):
        assert found in errors
    with pytest.raises(SystemExit):
        main([*command, "--repo", "o/n"])
    assert "publish them one by one" in capsys.readouterr().err
