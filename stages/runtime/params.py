"""Load params.yaml into dataclasses, and check that its keys are consistent."""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from pipeline.arms import ARMS, MULTITASK, PRETRAIN_PARAMS, ArmName
from pipeline.config import NAME, load_yaml, parse_valid
from pipeline.errors import UserError, did_you_mean
from pipeline.params import MixtureParams, Params, TrainParams, Values, unused_keys
from stages.runtime.paths import PARAMS, PRESETS


def load_params() -> Params:
    """Load params.yaml of the working folder.

    Raises UserError with all problems of the file. The check reads no other file.
    """
    return check_params(load_values(), str(PARAMS))


def load_values() -> Values:
    """Load the plain values of params.yaml of the working folder.

    Raises UserError if it is not a YAML mapping. If it is missing or empty, the message names the
    command that writes it.
    """
    is_empty = not PARAMS.exists() or not PARAMS.stat().st_size
    if is_empty and (PRESETS / "default.yaml").exists():
        raise UserError(
            f"{PARAMS}: {'is empty' if PARAMS.exists() else 'no such file'}; write it with "
            "`deep-prompt preset default`"
        )
    return load_yaml(PARAMS)


def check_params(values: Values, where: str) -> Params:
    """Parse and check plain values. `where` is the name of their file in messages.

    Raises UserError with all problems.
    """
    params, problems = parse_params(values, where)
    if problems:
        raise UserError(*problems)
    return params


def parse_params(values: Values, where: str) -> tuple[Params, list[str]]:
    """The params of plain values, and all problems of the values.

    Invalid values do not hide other problems: see `pipeline.config.parse_valid`.
    """
    params, problems = parse_valid(Params, values, where)
    problems = _name_problems(values, where) + problems
    if values.get("tasks") == {}:
        problems.append(f"{where}: tasks is empty; add a task")
    if not problems or _has_sections(values):
        problems += [
            *_reference_problems(params, where),
            *_arm_problems(params, where),
            *_repeat_problems(params, where),
            *_probe_problems(params, where),
            *_pretrain_problems(params, values["pretrain"], where),
        ]
    return params, problems


def _has_sections(values: Values) -> bool:
    """Whether there are the sections that others refer to. Without one, each name is unknown."""
    names = ("tasks", "mixtures", "pretrain", "arms", "compare")
    if not all(isinstance(values.get(name), dict) for name in names):
        return False
    tasks, arms, compare = values["tasks"], values["arms"], values["compare"]
    return (
        bool(tasks)
        and all(isinstance(arm, dict) for arm in arms.values())
        and all(isinstance(compare.get(key), list) for key in ("arms", "tasks"))
    )


def _name_problems(values: Values, where: str) -> list[str]:
    """The names of tasks and mixtures that DVC, a path or the shell would misread."""
    problems = []
    for section in ("tasks", "mixtures"):
        names = values.get(section)
        for name in names if isinstance(names, dict) else ():
            if not isinstance(name, str):
                problems.append(
                    f"{where}: {section}: the name {name!r} is not text, and DVC would leave it "
                    f'out; write it in quotes: "{name}"'
                )
            elif not NAME.fullmatch(name):
                problems.append(
                    f"{where}: {section}: the name {name!r} cannot be used in paths and commands; "
                    "use only letters, digits, _ and -, and no - at the beginning"
                )
    return problems


def _reference_problems(params: Params, where: str) -> list[str]:
    problems = []
    for name, task in params.tasks.items():
        kind, source = task.init_from.split("/")
        if kind == "pretrain" and source not in params.mixtures:
            problems.append(
                f"{where}: tasks.{name}.init_from: no mixture "
                f"{source!r}{did_you_mean(source, params.mixtures)}"
            )
        elif kind == MULTITASK.name and (source == name or source not in params.tasks):
            hint = did_you_mean(source, set(params.tasks) - {name})
            problems.append(f"{where}: tasks.{name}.init_from: no other task {source!r}{hint}")
        elif kind in ARMS and source not in params.tasks_of(ARMS[kind].name):
            problems.append(
                f"{where}: tasks.{name}.init_from: the arm {kind} is not run on {source!r}; add "
                "both to compare"
            )
    for name, mixture in params.mixtures.items():
        named = {
            "corpora": () if mixture.corpora == "all" else mixture.corpora,
            "weights": mixture.weights,
            "shares": mixture.shares,
        }
        problems += [
            f"{where}: mixtures.{name}.{key}: no task "
            f"{corpus!r}{did_you_mean(corpus, params.tasks)}"
            for key, corpora in named.items()
            for corpus in corpora
            if corpus not in params.tasks
        ]
        corpora = params.corpora_of(name)
        is_known = mixture.shares.keys() <= params.tasks.keys()
        if mixture.shares and is_known and mixture.shares.keys() != {*corpora}:
            problems.append(
                f"{where}: mixtures.{name}.shares: found {', '.join(mixture.shares)}; give one for "
                f"each of {', '.join(corpora)}"
            )
        if name not in params.pretrain:
            problems.append(
                f"{where}: pretrain: key {name!r} is missing; "
                "add the training params of that mixture"
            )
    problems += [
        f"{where}: pretrain: no mixture {name!r}{did_you_mean(name, params.mixtures)}"
        for name in params.pretrain
        if name not in params.mixtures
    ]
    problems += _cycle_problems(params, where)
    problems += [
        f"{where}: compare: arms has {arm}, which runs on every task anyway; remove it"
        for arm in params.compare.arms
        if not ARMS[arm].baseline
    ]
    problems += [
        f"{where}: compare.tasks: no task {name!r}{did_you_mean(name, params.tasks)}"
        for name in params.compare.tasks
        if name not in params.tasks
    ]
    return problems + _published_problems(params, where)


def _cycle_problems(params: Params, where: str) -> list[str]:
    """One problem for each cycle of tasks that start from the prompt of another."""
    starts = {
        name: task.init_from.removeprefix(f"{MULTITASK.name}/")
        for name, task in params.tasks.items()
        if task.init_from.startswith(f"{MULTITASK.name}/")
    }
    problems, seen = [], set[str]()
    for first in starts:
        path = [first]
        while (start := starts.get(path[-1])) is not None and start not in (*path, *seen):
            path.append(start)
        if start == first and len(path) > 1:
            problems.append(
                f"{where}: tasks: {' -> '.join((*path, first))}: each starts from the prompt of "
                "the next (init_from), so none can be the first; change one of them"
            )
        seen.update(path)
    return problems


def _published_problems(params: Params, where: str) -> list[str]:
    problems = []
    for source, arms in params.compare.published.items():
        prefix = f"{where}: compare.published: {source}"
        for arm, scores in arms.items():
            if arm not in ARMS:
                problems.append(f"{prefix}: no arm {arm!r}{did_you_mean(arm, ARMS)}")
            problems += [
                f"{prefix}: no task {task!r}{did_you_mean(task, params.tasks)}"
                for task in scores
                if task not in params.tasks
            ]
    return problems


def _arm_problems(params: Params, where: str) -> list[str]:
    problems = [
        f"{where}: arms: unknown key {arm!r}{did_you_mean(arm, ARMS)}"
        for arm in params.arms
        if arm not in ARMS
    ]
    runs = [(arm, task) for arm in params.compared_arms for task in params.tasks_of(arm)]
    runs += [  # Overrides of arms that do not run are checked too.
        (ARMS[arm].name, task)
        for task, values in params.tasks.items()
        for arm in values.overrides
        if arm in params.arms
    ]
    for arm, task in dict.fromkeys(runs):
        try:
            if task in params.tasks:
                training = params.training(arm, task, where)
                problems += _factor_problems(params, arm, task, training, where)
        except UserError as error:
            problems += error.problems
    # A problem of the arm itself is also one with the overrides of each task.
    overridden = re.compile(r"( with tasks\.[^ .]+\.\w+)(?=: )")
    return [
        problem
        for problem in dict.fromkeys(problems)
        if (of_arm := overridden.sub("", problem, 1)) == problem or of_arm not in problems
    ]


def _factor_problems(
    params: Params, arm: ArmName, task: str, training: TrainParams, where: str
) -> list[str]:
    """The problem of an MLP that would compute a prompt without the factors of its task."""
    mixture = params.tasks[task].init_from.removeprefix("pretrain/")
    shared = params.pretrain.get(mixture)
    if not ARMS[arm].from_artifact or not training.projection_size:
        return []
    if shared is None or not shared.factor_rank:
        return []
    return [
        f"{where}: arms.{arm}: projection_size is {training.projection_size}, and "
        f"pretrain.{mixture}: factor_rank {shared.factor_rank}; but the MLP computes a prompt "
        f"without the factors of {task}; remove one of them"
    ]


def _pretrain_problems(params: Params, values: dict[str, Values], where: str) -> list[str]:
    problems: list[str] = []
    for name, keys in values.items():
        if not isinstance(keys, dict):  # a problem that `parse_params` has
            continue
        try:
            check_pretrain_params(params.pretrain[str(name)], keys, f"{where}: pretrain.{name}")
        except UserError as error:
            problems += error.problems
    return problems


def check_pretrain_params(training: TrainParams, keys: Iterable[str], where: str) -> None:
    """Raise UserError if the training params of a shared prompt, with these keys, are invalid."""
    problems = [
        f"{where}: {key} is set, but a shared prompt does not use it; remove it"
        for key in unused_keys(PRETRAIN_PARAMS, keys)
    ]
    problems += [f"{where}: {problem}" for problem in training.problems_of(MULTITASK.name)]
    if problems:
        raise UserError(*problems)


def _repeat_problems(params: Params, where: str) -> list[str]:
    repeat = params.repeat
    problems = _comparison_problems(params, where, "repeat", repeat.arms, repeat.tasks)
    problems += [
        f"{where}: repeat: arms has {arm}, which no seed changes; remove it"
        for arm in repeat.arms
        if not ARMS[arm].parts
    ]
    if len(set(repeat.seeds)) < len(repeat.seeds):
        problems.append(
            f"{where}: repeat.seeds: found {', '.join(map(str, repeat.seeds))}; give each seed once"
        )
    if params.seed in repeat.seeds:
        problems.append(
            f"{where}: repeat.seeds: has {params.seed}, the value of `seed`, which always runs; "
            "remove it"
        )
    return problems


def _probe_problems(params: Params, where: str) -> list[str]:
    probe = params.probe
    models = [shift.model for shift in probe.out_of_domain if shift.model in params.tasks]
    problems = _comparison_problems(params, where, "probe", probe.arms, (*probe.tasks, *models))
    problems += [
        f"{where}: probe.out_of_domain: no task {name!r}{did_you_mean(name, params.tasks)}"
        for shift in probe.out_of_domain
        for name in (shift.data, shift.model)
        if name not in params.tasks
    ]
    return list(dict.fromkeys(problems))


def _comparison_problems(
    params: Params, where: str, key: str, arms: Collection[ArmName], tasks: Collection[str]
) -> list[str]:
    """The problems of `arms` and `tasks` at `key`: unknown tasks, and pairs that are not run."""
    problems = [
        f"{where}: {key}.tasks: no task {name!r}{did_you_mean(name, params.tasks)}"
        for name in tasks
        if name not in params.tasks
    ]
    for arm in arms:
        problems += [
            f"{where}: {key}.arms: {arm} is not run on {name!r}; add both to compare, or remove "
            f"one from {key}"
            for name in sorted((params.tasks.keys() & tasks) - set(params.tasks_of(arm)))
        ]
    return problems


def arm_of(name: str, prefix: str = "") -> ArmName:
    """The arm with this name. Raises UserError if there is none; its message has the prefix."""
    if name not in ARMS:
        raise UserError(f"{prefix}no arm {name!r}{did_you_mean(name, ARMS)}")
    return ARMS[name].name


def with_seed(params: Params, seed: str) -> Params:
    """The params with `seed` in place of their seed ("": unchanged).

    Raises UserError if `seed` is not in `repeat.seeds`.
    """
    if not seed:
        return params
    if seed not in map(str, params.repeat.seeds):
        raise UserError(f"{PARAMS}: repeat.seeds: no seed {seed!r}; add it")
    return replace(params, seed=int(seed))


def mixture_of(params: Params, name: str) -> MixtureParams:
    """The params of a mixture. Raises UserError if params.yaml has no such mixture."""
    if name not in params.mixtures:
        raise UserError(
            f"{PARAMS}: mixtures: no mixture {name!r}{did_you_mean(name, params.mixtures)}"
        )
    return params.mixtures[name]
