"""The folder of a Hugging Face Space that serves artifacts with their page."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError, quantity
from pipeline.files import atomic_folder

PORT = 7860  # of Spaces
# The files of this project that the image needs: those that .dockerignore lets through.
SOURCES = (
    "LICENSE",
    "Dockerfile",
    "constraints.txt",
    "deep_prompt",
    "pipeline",
    "pyproject.toml",
    "setup.cfg",
    "stages",
    "zoo",
)
HEADER = """---
title: deep-prompt
emoji: 🧩
colorFrom: blue
colorTo: indigo
sdk: docker
app_port: {port}
license: other
license_name: that-of-the-corpora
short_description: {count} over one frozen encoder
---

# deep-prompt

Many tasks over one frozen encoder: each task has a small prompt, and rows of all tasks share a
forward pass. `deep-prompt publish --space` wrote this folder. Served: {tasks}.

The artifacts were trained on corpora with licenses of their own, which the cards in `artifacts/`
list. The trained values may reproduce parts of the training data.
"""


def write_space(folder: Path, artifacts: Sequence[Path]) -> None:
    """Write a new folder with Dockerfile, README.md, the artifacts, and the code that serves them.

    Raises UserError if the folder exists, if an artifact has no model card or a backbone that the
    image cannot get, or if the command does not run in the folder of the project.
    """
    from pipeline.artifacts.config import load_config  # noqa: PLC0415  (imports torch)

    _check(folder, artifacts)
    tasks = [task for artifact in artifacts for task in load_config(artifact).heads]
    with atomic_folder(folder) as temporary:
        for name in SOURCES:
            _copy(Path(name), temporary / name)
        for artifact in artifacts:
            _copy(artifact, temporary / "artifacts" / artifact.resolve().name)
        count = quantity(len(tasks), "task")
        readme = HEADER.format(port=PORT, count=count, tasks=", ".join(tasks))
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        text = (temporary / "Dockerfile").read_text(encoding="utf-8")
        (temporary / "Dockerfile").write_text(_dockerfile(text, artifacts), encoding="utf-8")
        attributes = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        (temporary / ".gitattributes").write_text(attributes, encoding="utf-8")


def _check(folder: Path, artifacts: Sequence[Path]) -> None:
    from pipeline.artifacts.config import load_config  # noqa: PLC0415

    problems = []
    if folder.exists():
        problems.append(f"--space: {folder} exists; name a new folder, or remove it")
    if missing := [name for name in SOURCES if not Path(name).exists()]:
        problems.append(
            f"--space: found no {', '.join(missing)} here; run the command in the folder of the "
            "project"
        )
    names = [artifact.resolve().name for artifact in artifacts]
    if len(set(names)) < len(names):
        problems.append("--artifact: two folders have the same name; rename one of them")
    for artifact in artifacts:
        source = load_config(artifact).backbone.source
        if source.startswith("folder:"):
            problems.append(
                f"{artifact}: its backbone is {source}, which the Space does not have; train on a "
                "backbone of the hub or of a package"
            )
        if not (artifact / "README.md").exists():
            problems.append(
                f"{artifact}: has no README.md, the model card with the training data; write one"
            )
    if problems:
        raise UserError(*problems)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(source, target, ignore=ignored)
    else:
        shutil.copyfile(source, target)


def _dockerfile(text: str, artifacts: Sequence[Path]) -> str:
    """The Dockerfile of the project with the port of Spaces and the artifacts."""
    words = ["deep-prompt", "serve", "--host", "0.0.0.0", "--port", str(PORT)]
    for artifact in artifacts:
        words += ["--artifact", f"artifacts/{artifact.resolve().name}"]
    command = ", ".join(f'"{word}"' for word in words)
    text = re.sub(r"^CMD .*$", lambda _: f"CMD [{command}]", text, flags=re.MULTILINE)
    return re.sub(r"\b8000\b", str(PORT), text)
