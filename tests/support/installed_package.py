"""`make package`: install the wheel into an environment of its own, and use it outside the clone.

The environment has no clone on its path. It takes the dependencies from this environment, because
torch takes minutes to install. The commands run in a folder with a `pipeline.py` of the user's own.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.fences import blocks
from tests.support.paths import ROOT

FIRST_CORPUS = ROOT / "docs/get-started/first-corpus.md"
TEXT = "Ada Lovelace was born in London."
ENTITIES = [["PER", "Ada Lovelace"], ["LOC", "London"]]


def install(wheel: Path, folder: Path) -> dict[str, str]:
    """Make the environment in `folder`; returns the variables for commands in it."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    hosts = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "host.pth").write_text("\n".join(hosts) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


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
        variables = install(Path(wheel).resolve(), Path(name, "environment"))
        write_project(Path(name, "project"))
        use(Path(name, "project"), variables)
    print("the installed package works outside the clone")


if __name__ == "__main__":
    main(*sys.argv[1:])
