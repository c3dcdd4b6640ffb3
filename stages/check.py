"""Before `dvc repro`: check params.yaml and the recipes it names, all at once, and drop the features of tasks it no longer has.

DVC says only that a key is missing; and it keeps the outputs of stages that are gone, so that a mixture of `corpora: all` would
not notice that one was taken away. What is dropped here stays in DVC's cache. And killed while it writes dvc.lock, DVC leaves one
that it then refuses to read; without it, it takes what was made out of its cache.
"""

import shutil
from pathlib import Path

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from pipeline.config import load_yaml
from pipeline.errors import UserError
from pipeline.recipe import load_recipe
from stages.command import run, say
from stages.params import load_params


def check() -> None:
    """Raise UserError with every problem of params.yaml, or else of the recipes."""
    params = load_params()
    problems: list[str] = []
    for name in params.tasks:
        try:
            load_recipe(Path("data_recipes") / f"{name}.yaml")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    _set_torn_lock_aside(Path("dvc.lock"))
    for folder in sorted(Path("data/features").glob("*")):
        if folder.is_dir() and folder.name not in params.tasks:
            shutil.rmtree(folder)
            say(f"dropped {folder}: params.yaml has no such task")


def _set_torn_lock_aside(path: Path) -> None:
    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(path) if path.exists() else {"schema": "2.0"})
    except (UserError, Invalid) as error:
        aside = path.replace(path.with_suffix(".lock.torn"))
        say(f"{path} is torn ({str(error).splitlines()[0]}): it is {aside} now, and DVC will find what was made in its cache")


if __name__ == "__main__":
    run(check)
