"""Before `dvc repro`: check params.yaml and the recipes it names, all at once, and drop the features of tasks it no longer has.

DVC says only that a key is missing; and it keeps the outputs of stages that are gone, so that a mixture of `corpora: all` would
not notice that one was taken away. What is dropped here stays in DVC's cache. And killed while it writes dvc.lock, or its list of
who uses what, DVC leaves one that it then refuses to read; without them, it takes what was made out of its cache.
"""

import json
import shutil
import time
from pathlib import Path

from pipeline.config import load_yaml
from pipeline.data.recipe import load_recipe
from pipeline.errors import UserError
from stages.runtime.entry import log
from stages.runtime.params import load_params
from stages.runtime.paths import DVC_LOCK, FEATURES, RECIPES


def check_project() -> None:
    """Raise UserError with every problem of params.yaml, or else of the recipes."""
    params = load_params()
    problems: list[str] = []
    for name in params.tasks:
        try:
            load_recipe(RECIPES / f"{name}.yaml")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    _set_torn_lock_aside(DVC_LOCK)
    _drop_torn_users(Path(".dvc/tmp/rwlock"))
    for folder in sorted(FEATURES.glob("*")):
        if folder.is_dir() and folder.name not in params.tasks:
            shutil.rmtree(folder)
            log(f"dropped {folder}: params.yaml has no such task")


def _set_torn_lock_aside(path: Path) -> None:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415  (imports of a second, which --help should not wait for)
    from voluptuous import Invalid  # noqa: PLC0415

    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(path) if path.exists() else {"schema": "2.0"})
    except (UserError, Invalid) as error:
        aside = path.replace(path.with_suffix(".lock.torn"))
        log(
            f"{path} is torn ({str(error).splitlines()[0]}): it is {aside} now, and DVC will find what was made in its cache"
        )


def _drop_torn_users(path: Path) -> None:
    """DVC's list of who uses which files now. Another DVC may be writing it at this moment, but not for long."""
    for _ in range(5):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(0.2)
        else:
            return
    path.unlink(missing_ok=True)
    log(f"{path} was torn, by a DVC that was killed: removed")
