"""params.yaml as checked dataclasses."""

from collections.abc import Collection
from dataclasses import replace

from pipeline.arms import ARMS, MULTITASK, PRETRAIN_PARAMS, ArmName
from pipeline.config import load_yaml, parse
from pipeline.errors import UserError, did_you_mean
from pipeline.params import MixtureParams, Params, Values, unused_keys
from stages.runtime.paths import PARAMS


def load_params() -> Params:
    """params.yaml of the working folder. Raises UserError with every problem that can be told from
    it alone.
    """
    return check_params(load_yaml(PARAMS), str(PARAMS))


def check_params(values: Values, where: str) -> Params:
    """Plain values as checked params; `where` names their file in messages."""
    params = parse(Params, values, where)
    problems = [
        problem for check in (_names, _arms, _repeat, _probe) for problem in check(params, where)
    ]
    problems += _useless_in_pretrain(values["pretrain"], where)
    if problems:
        raise UserError(*problems)
    return params


def _names(params: Params, where: str) -> list[str]:
    problems = []
    for name, task in params.tasks.items():
        kind, source = task.init_from.split("/")
        if kind == "pretrain" and source not in params.mixtures:
            problems.append(
                f"{where}: tasks.{name}.init_from: no mixture "
                f"{source!r}{did_you_mean(source, params.mixtures)}"
            )
        elif kind == "pretrain" and name not in params.corpora_of(source):
            problems.append(
                f"{where}: tasks.{name}.init_from: {source!r} does not hold {name!r}; add it to "
                "the mixture's corpora"
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
        listed = () if mixture.corpora == "all" else mixture.corpora
        unknown = [
            corpus
            for corpus in (*listed, *mixture.weights, *mixture.shares)
            if corpus not in params.tasks
        ]
        problems += [
            f"{where}: mixtures.{name}: no task {corpus!r}{did_you_mean(corpus, params.tasks)}"
            for corpus in unknown
        ]
        if name not in params.pretrain:
            problems.append(
                f"{where}: pretrain: key {name!r} is missing; say how that mixture is trained"
            )
    problems += [
        f"{where}: compare.tasks: no task {name!r}{did_you_mean(name, params.tasks)}"
        for name in params.compare.tasks
        if name not in params.tasks
    ]
    problems += [
        f"{where}: compare.published: {source}: {what} {name!r}{did_you_mean(name, known)}"
        for source, arms in params.compare.published.items()
        for arm, scores in arms.items()
        for what, names, known in (
            ("no arm", [arm], ARMS),
            ("no task", scores, params.tasks),
        )
        for name in names
        if name not in known
    ]
    return problems


def _arms(params: Params, where: str) -> list[str]:
    problems = [
        f"{where}: arms: unknown key {arm!r}{did_you_mean(arm, ARMS)}"
        for arm in params.arms
        if arm not in ARMS
    ]
    for arm in params.compared_arms:
        for task in params.tasks_of(arm):
            try:
                if task in params.tasks:
                    params.training(arm, task, where)
            except UserError as error:
                problems += error.problems
    for name, training in params.pretrain.items():
        try:
            training.learning_rates(MULTITASK.name)
        except ValueError as error:
            problems.append(f"{where}: pretrain.{name}: {error}")
    return list(dict.fromkeys(problems))


def _useless_in_pretrain(pretrain: dict[str, Values], where: str) -> list[str]:
    return [
        f"{where}: pretrain.{name}: {key} is set, but a shared prompt does not use it; remove it"
        for name, values in pretrain.items()
        for key in unused_keys(PRETRAIN_PARAMS, values)
    ]


def _repeat(params: Params, where: str) -> list[str]:
    repeat = params.repeat
    problems = _not_run(params, where, "repeat", repeat.arms, repeat.tasks)
    if len(set(repeat.seeds)) < len(repeat.seeds):
        problems.append(
            f"{where}: repeat.seeds: found {', '.join(map(str, repeat.seeds))}; give each seed once"
        )
    if params.seed in repeat.seeds:
        problems.append(
            f"{where}: repeat.seeds: has {params.seed}, which is `seed` and run anyway; remove it"
        )
    return problems


def _probe(params: Params, where: str) -> list[str]:
    probe = params.probe
    known = [shift.model for shift in probe.out_of_domain if shift.model in params.tasks]
    problems = _not_run(params, where, "probe", probe.arms, (*probe.tasks, *known))
    problems += [
        f"{where}: probe.out_of_domain: no task {name!r}{did_you_mean(name, params.tasks)}"
        for shift in probe.out_of_domain
        for name in (shift.data, shift.model)
        if name not in params.tasks
    ]
    return list(dict.fromkeys(problems))


def _not_run(
    params: Params, where: str, key: str, arms: Collection[ArmName], tasks: Collection[str]
) -> list[str]:
    """What of `arms` and `tasks` is not known, or not run."""
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


def arm_of(word: str) -> ArmName:
    """The arm that a command's word names. Raises UserError where there is no such arm."""
    if word not in ARMS:
        raise UserError(f"no arm {word!r}{did_you_mean(word, ARMS)}")
    return ARMS[word].name


def seeded(params: Params, word: str) -> Params:
    """The params with the seed that a command's word names, or as they are ("": no seed is named).
    Raises UserError where it is not one of `repeat.seeds`.
    """
    if not word:
        return params
    if word not in map(str, params.repeat.seeds):
        raise UserError(f"{PARAMS}: repeat.seeds: no seed {word!r}; add it")
    return replace(params, seed=int(word))


def mixture_of(params: Params, name: str) -> MixtureParams:
    """A mixture's params. Raises UserError where params.yaml has no such mixture."""
    if name not in params.mixtures:
        raise UserError(
            f"{PARAMS}: mixtures: no mixture {name!r}{did_you_mean(name, params.mixtures)}"
        )
    return params.mixtures[name]
