"""`make package`: install the wheel into an environment of its own, and use it outside the clone.

The environment has no clone on its path, and takes the dependencies from this one. The commands
run in a folder with a `pipeline.py` of the user's own.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.fences import blocks
from tests.support.host_environment import make_environment
from tests.support.paths import ROOT

FIRST_CORPUS = ROOT / "docs/get-started/first-corpus.md"
TEXT = "Ada Lovelace was born in London."
ENTITIES = [["PER", "Ada Lovelace"], ["LOC", "London"]]


def write_project(folder: Path) -> None:
    """The files of docs/get-started/first-corpus.md, and a `pipeline.py` that must not run."""
    folder.mkdir()
    (folder / "pipeline.py").write_text("raise SystemExit('imported pipeline.py of the user')\n")
    for found in blocks(FIRST_CORPUS):
        name = found.file or ("data_recipes/tickets.yaml" if "reader:" in found.text else None)
        if name is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(found.text, encoding="utf-8")


def use(folder: Path, variables: dict[str, str]) -> None:
    """Run commands of the package in `folder`; raises an error if one fails."""

    def run(*command: str, text: str | None = None) -> str:
        print("$", *command, flush=True)
        return subprocess.run(
            command,
            cwd=folder,
            env=variables,
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    module = run("python", "-P", "-c", "import deep_prompt; print(deep_prompt.__file__)")
    assert Path(module.strip()).is_relative_to(folder.parent), module
    assert "wikigold" in run("deep-prompt", "inspect", "zoo:open")
    check = ("check", "data_recipes/tickets.yaml", "--folder", "data/tickets")
    assert "Labels: 2." in run("deep-prompt", *check)
    predict = ("predict", "--artifact", "zoo:open", "--task", "wikigold")
    line = json.loads(run("deep-prompt", *predict, text=json.dumps({"text": TEXT})))
    found = [[entity["label"], entity["text"]] for entity in line["result"]["entities"]]
    assert found == ENTITIES, found


def main(wheel: str) -> None:
    """Install and use a wheel."""
    with TemporaryDirectory() as name:
        install = ("--no-deps", "--no-index", str(Path(wheel).resolve()))
        variables = make_environment(Path(name, "environment"), *install)
        write_project(Path(name, "project"))
        use(Path(name, "project"), variables)
    print("the installed package works outside the clone")


if __name__ == "__main__":
    main(*sys.argv[1:])
