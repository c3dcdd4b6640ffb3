"""deep-prompt check, without a recipe: check the project before `dvc repro`.

DVC reports only the first missing key of params.yaml, so this command checks params.yaml and all
recipes first. It also repairs states from which DVC does not recover:

- DVC keeps the outputs of removed stages. Other stages depend on whole folders: a mixture with
  `corpora: all` would still see the features of a removed task, and a fresh clone would rerun the
  stages. So this command deletes such data (it stays in DVC's cache), and names such results.
- DVC refuses to run without git, so this command sets its option `core.no_scm` in a project without
  a git repository.
- A killed DVC may leave a truncated dvc.lock or .dvc/tmp/rwlock, and then refuses to start. Without
  these files it finds the outputs in its cache.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deep_prompt.cli.yaml_edit import lines_of_anchors
from pipeline.arms import MULTITASK
from pipeline.artifacts.zoo import zoo_names
from pipeline.config import NAME, load_yaml
from pipeline.distributed.cluster import (
    environment_file_text,
    gpu_variables,
    load_cluster,
    rank_environment,
    read_hostfile,
)
from pipeline.errors import UserError, did_you_mean, first_line, quantity
from pipeline.params import Params
from stages.runtime.entry import log
from stages.runtime.params import load_values, parse_params
from stages.runtime.paths import (
    ARTIFACTS,
    CLUSTER,
    CORPORA,
    DVC_LOCK,
    DVC_RWLOCK,
    FEATURES,
    MIXTURES,
    MODELS,
    PARAMS,
    RESULTS,
    WORLD,
    recipe_of,
)

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.data.recipe import Recipe


def check_project() -> None:
    """Check and repair the project.

    Raises UserError with all problems of params.yaml, of the recipes of its tasks, and of
    cluster.yaml.
    """
    cluster_problems = _cluster_problems()
    try:
        values = load_values()
    except UserError as error:
        raise UserError(*error.problems, *cluster_problems) from None
    params, problems = parse_params(values, str(PARAMS))
    recipes, recipe_problems = _load_recipes(filter(NAME.fullmatch, params.tasks))
    problems += recipe_problems
    problems += _task_problems(params, recipes) + _shift_problems(params, recipes)
    problems += cluster_problems
    if problems:
        raise UserError(*problems)
    _warn_about_anchors(PARAMS)
    if ".." in Path(params.data_root).parts:
        log(
            f"warning: {PARAMS}: data_root is {params.data_root!r}, which leads elsewhere in "
            "`dvc exp run --temp` and --queue; write the absolute path"
        )
    _run_without_git(Path.cwd())
    _move_truncated_lock(DVC_LOCK)
    _remove_truncated_rwlock(DVC_RWLOCK)
    _delete_removed_outputs(params)
    checked = [str(PARAMS), *([str(CLUSTER)] if CLUSTER.exists() else [])]
    log(f"{', '.join(checked)}, {quantity(len(recipes), 'recipe')}: no problems")


def _delete_removed_outputs(params: Params) -> None:
    """Delete the data of tasks and mixtures that params.yaml no longer has; name their results.

    Artifacts and results stay, because they take long to make again.
    """
    for kind, names, folders in (
        ("task", params.tasks, (FEATURES, CORPORA)),
        ("mixture", params.mixtures, (MIXTURES,)),
    ):
        for path in (path for folder in folders for path in _outputs_of_others(folder, names)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            log(f"deleted {path}: {PARAMS} has no such {kind}")
    left = [
        str(path)
        for folder, names in (
            (ARTIFACTS / MULTITASK.name, params.tasks),
            (ARTIFACTS / "pretrain", params.mixtures),
            (MODELS, params.tasks),
            (RESULTS / MULTITASK.name, params.tasks),
        )
        for path in _outputs_of_others(folder, names)
    ]
    if left:
        log(
            f"warning: {PARAMS} has no tasks or mixtures for {', '.join(left)}; delete what you do "
            "not need, because stages in a clone without it may run again"
        )


def _outputs_of_others(folder: Path, names: Container[str]) -> list[Path]:
    """The files and folders in `folder` that do not have one of these names."""
    return [
        path
        for path in sorted(folder.glob("*"))
        if not path.name.startswith(".")  # of a stage that runs or was killed
        and path.name.removesuffix(".json") not in names
    ]


def _load_recipes(names: Iterable[str]) -> "tuple[dict[str, Recipe], list[str]]":
    """The valid recipes of tasks by name, and the problems of the others."""
    from pipeline.data.recipe import load_recipe

    recipes: dict[str, Recipe] = {}
    problems: list[str] = []
    for name in names:
        try:
            recipes[name] = load_recipe(recipe_of(name))
        except UserError as error:
            problems += error.problems
    return recipes, problems


def _task_problems(params: Params, recipes: "Mapping[str, Recipe]") -> list[str]:
    """The problems of the params of the tasks, as far as files tell them."""
    problems = _source_problems(params, recipes)
    for name, task in params.tasks.items():
        if name in recipes:
            problems += _recipe_problems(params, name, recipes[name])
        kind, _, source = task.init_from.partition("/")
        if kind == "imported" and not (ARTIFACTS / task.init_from).is_dir():
            problems.append(
                f"{PARAMS}: tasks.{name}.init_from: there is no {ARTIFACTS / task.init_from}; make "
                "it with `deep-prompt import`, or correct init_from"
            )
        if kind == "zoo" and source not in zoo_names():
            problems.append(
                f"{PARAMS}: tasks.{name}.init_from: the zoo has no "
                f"{source!r}{did_you_mean(source, zoo_names())}"
            )
    return problems


def _source_problems(params: Params, recipes: "Mapping[str, Recipe]") -> list[str]:
    """The problems of the sources of the tasks: missing folders, and recipes without a hub."""
    from stages.prepare import HUB

    root = Path(params.data_root)
    missing = {
        name: root / task.source
        for name, task in params.tasks.items()
        if task.source != HUB
        and not is_generated(params, root / task.source)
        and not (root / task.source).is_dir()
    }
    problems = [
        f"{PARAMS}: tasks.{name}.source: there is no folder {folder}; put the corpus there, or "
        "correct source or data_root"
        for name, folder in missing.items()
    ]
    if missing and not root.is_dir():
        problems = [
            f"{PARAMS}: data_root: there is no folder {root} (with the corpora of "
            f"{', '.join(missing)}); put them there, or correct data_root"
        ]
    return problems + [
        f"{PARAMS}: tasks.{name}.source is {HUB}, but {recipe_of(name)} has no hub; add it, or set "
        "a folder as source"
        for name, recipe in recipes.items()
        if params.tasks[name].source == HUB and recipe.hub is None
    ]


def is_generated(params: Params, folder: Path) -> bool:
    """Whether the stage `generate` writes the corpus in a folder."""
    return folder in {WORLD / corpus for corpus in params.generate.corpora}


def _recipe_problems(params: Params, name: str, recipe: "Recipe") -> list[str]:
    """The params of a task that do not fit the kind of task in its recipe."""
    from pipeline.tasks import check_answer_length
    from pipeline.training.arm_checks import check_arm

    key = f"{PARAMS}: tasks.{name}.max_answer_length"
    checks = [partial(check_answer_length, key, recipe.task, params.tasks[name].max_answer_length)]
    checks += [
        partial(check_arm, arm, name, recipe.task)
        for arm in (params.compared_arms if name in params.compare.tasks else ())
    ]
    return _problems_of(checks)


def _shift_problems(params: Params, recipes: "Mapping[str, Recipe]") -> list[str]:
    """The problems of `probe.out_of_domain`, as far as recipes tell them."""
    from pipeline.tasks import task_named
    from stages.evaluation.shifts import TaskClasses, shift_problems

    classes = {
        name: TaskClasses(recipe.task, task_named(recipe.task).classes(recipe.labels))
        for name, recipe in recipes.items()
    }
    return [
        problem
        for shift in params.probe.out_of_domain
        if shift.model in classes and shift.data in classes
        for problem in shift_problems(shift, classes[shift.model], classes[shift.data])
    ]


def _cluster_problems() -> list[str]:
    """The problems of cluster.yaml, of its hostfile, and of the variables that its ranks need."""
    try:
        cluster = load_cluster(CLUSTER)
    except UserError as error:
        return list(error.problems)
    checks: list[Callable[[], object]] = []
    if cluster.hostfile is not None:
        checks += [
            partial(read_hostfile, Path(cluster.hostfile)),
            partial(environment_file_text, cluster, os.environ),
        ]
    elif not cluster.is_single_process:
        checks.append(partial(rank_environment, cluster, os.environ))
        if cluster.is_one_machine:
            checks.append(partial(gpu_variables, cluster.ranks, os.environ))
    return _problems_of(checks)


def _problems_of(checks: Iterable[Callable[[], object]]) -> list[str]:
    """The problems that any of the checks raises."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems += error.problems
    return problems


def _warn_about_anchors(path: Path) -> None:
    """Log where params.yaml has values that several keys share."""
    if lines := lines_of_anchors(path):
        log(
            f"warning: {path}:{lines[0]}: has anchors or aliases (lines "
            f"{', '.join(map(str, lines))}); `dvc exp run -S` and `deep-prompt tune --apply` "
            "cannot change a value that several keys share: write the values out"
        )


def _run_without_git(project: Path) -> None:
    """Let DVC run in a project without git, such as a downloaded archive of it."""
    if any((folder / ".git").exists() for folder in (project, *project.parents)):
        return
    from dvc.config import Config

    if not (folder := project / ".dvc").is_dir() or Config(folder)["core"].get("no_scm"):
        return
    with Config(folder).edit("local") as config:
        config.setdefault("core", {})["no_scm"] = True
    log(
        "this folder is not a git repository: set core.no_scm in .dvc/config.local, so that DVC "
        "runs; after `git init`, undo it with `dvc config --local --unset core.no_scm`"
    )


def _move_truncated_lock(path: Path) -> None:
    """Rename dvc.lock if it is truncated."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(path) if path.exists() else {"schema": "2.0"})
    except (UserError, Invalid) as error:
        new_path = path.replace(path.with_suffix(".lock.torn"))
        log(
            f"{path} is truncated ({first_line(error)}): moved it to {new_path}. "
            "Nothing is lost: DVC finds the results in its cache."
        )


def _remove_truncated_rwlock(path: Path) -> None:
    """Remove DVC's list of files in use if it is truncated for a whole second.

    Another DVC process may be writing it at this moment.
    """
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
    log(f"{path} was truncated by a killed DVC: removed it")
