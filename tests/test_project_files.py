"""The project files agree: license, `make lint`, hooks of pre-commit, and CI."""

import os
import re
from configparser import ConfigParser
from importlib.metadata import distributions
from typing import Any

from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

from tests.support.paths import ROOT


def load(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def commands_of(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith(f"{target}:"))
    commands = []
    for line in lines[start + 1 :]:
        if not line.startswith("\t"):
            break
        commands.append(line.strip())
    return commands


def test_the_license_file_of_setup_cfg_exists() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["license"] == "Apache-2.0"
    text = (ROOT / setup["metadata"]["license_files"]).read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "Copyright 2026 The deep-prompt authors" in text


def test_the_citation_names_the_version_and_the_license() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    citation = load("CITATION.cff")
    for key in ("version", "license"):
        assert str(citation[key]) == setup["metadata"][key]
    version = f"## [{citation['version']}] - {citation['date-released']}"
    assert version in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2110.07602"


def test_lower_bounds_of_dependencies_are_versions_that_were_tested() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines()
    for requirement in setup["options"]["install_requires"].split():
        if not requirement.startswith("transformers"):  # `make test-versions` tests its bound
            assert requirement.lower().replace(">=", "==") in constraints, requirement


def test_pre_commit_runs_the_commands_of_make_lint() -> None:
    """The hooks use the versions in .venv and check all files, not only the changed ones."""
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    hooks = repository["hooks"]
    assert repository["repo"] == "local"
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == commands_of("lint")
    for hook in hooks:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)
        assert hook["entry"].startswith(".venv/bin/")


def test_ci_runs_the_make_targets_through_its_script() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert [line.removeprefix("make ") for line in lines if line.startswith("make ")] == [
        *("test", "lint", "package", "docs")
    ]
    checkout, python, run = load(".github/workflows/ci.yml")["jobs"]["test"]["steps"]
    assert checkout["uses"].startswith("actions/checkout@")
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options"]["python_requires"] == f">={python['with']['python-version']}"
    assert run == {"run": ".ci/run"}


def test_the_pinned_packages_install_on_every_python_3_11() -> None:
    """setup.cfg allows Python 3.11.0, and Debian 12 has 3.11.2."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", constraints))
    installed = [
        package for package in distributions() if pins.get(package.name) == package.version
    ]
    assert len(installed) > 100
    assert not [
        f"{package.name} {package.version} needs Python {needed}"
        for package in installed
        for needed in package.metadata.get_all("Requires-Python", [])
        if "3.11.0" not in SpecifierSet(needed)
    ]
