"""Before `dvc repro`: check params.yaml and the recipes it names, all at once, and drop the features of tasks it no longer has.

DVC says only that a key is missing; and it keeps the outputs of stages that are gone, so that a mixture of `corpora: all` would
not notice that one was taken away. What is dropped here stays in DVC's cache.
"""

import shutil
from pathlib import Path

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
    for folder in sorted(Path("data/features").glob("*")):
        if folder.is_dir() and folder.name not in params.tasks:
            shutil.rmtree(folder)
            say(f"dropped {folder}: params.yaml has no such task")


if __name__ == "__main__":
    run(check)
