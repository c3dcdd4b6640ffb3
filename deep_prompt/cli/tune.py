"""deep-prompt tune: search an arm's training params on validation."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_prompt.cli import search_space as search
from pipeline.arms import MULTITASK
from pipeline.distributed.cluster import visible_gpus
from pipeline.errors import Diverged, Stopped, UserError
from pipeline.params import Params
from pipeline.seeding import derive_seed
from pipeline.training.callbacks import TrainingCallback, TrainingRun
from stages.runtime.entry import log, log_wrote, report_errors, stops
from stages.runtime.params import arm_of, load_params
from stages.runtime.paths import PARAMS, SEARCH_SPACE, TUNING, WORK

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

    from pipeline.report.tuning_page import TrialResult

RANDOM = 5  # trials at random points before the sampler models what it has seen


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "target",
        metavar="TASK",
        help="a task of params.yaml, or pretrain/MIXTURE for a shared prompt",
    )
    parser.add_argument(
        "--arm",
        default=MULTITASK.name,
        metavar="ARM",
        help="which of the task's arms (default: %(default)s)",
    )
    parser.add_argument(
        "--space",
        type=Path,
        default=SEARCH_SPACE,
        metavar="FILE",
        help="what to try (default: %(default)s)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="trials in all, those of earlier runs included (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="trials at once, each in a process, on a GPU of its own where there are any (default: %(default)s)",
    )
    parser.add_argument(
        "--apply", action="store_true", help="write the best values into params.yaml"
    )


def tune(given: Namespace) -> None:
    """Search an arm's training params: Optuna proposes values from search.yaml (the first trial has those of params.yaml), each
    trial trains at the budget that params.yaml gives the arm and is scored on validation; the test split is never read.

    tuning/ARM-TASK/ gets study.jsonl, trials.tsv and tuning.html (history, importance, score by value). Interrupted, it goes on
    where it was, trainings too; under changed params, inputs or space it starts a new study. Run the stages before it first,
    for instance by `dvc repro featurize pretrain`.
    """
    if given.trials < 1 or given.workers < 1:
        raise UserError(f"--trials is {given.trials} and --workers {given.workers}; give 1 or more")
    from pipeline.report.tuning_page import best_of

    params, target = load_params(), _target(given)
    wanted, space = search.load_search(given.space, target, params)
    folder = TUNING / str(target)
    with _alone(folder):
        study = _study(target, params, wanted.pruner, space)
        _take_up(study)
        own = {key: getattr(target.training(params), key) for key in space}
        if not study.trials and all(
            own[key] in values for key, values in space.items() if _is_open(values)
        ):
            study.enqueue_trial(
                {
                    key: _encoded(values, own[key])
                    for key, values in space.items()
                    if _is_open(values)
                }
            )
        _search(given, target)
        tried = _tried(study, space)
    if not tried:
        raise UserError(f"{folder}: no trial was finished; the errors above say why")
    _write(folder, target, study, tried)
    best = best_of(tried)
    log(
        f"best validation {best.score:.2f} in trial {best.number} of {len(tried)}: {_in_words(best.values)}"
    )
    if given.apply:
        search.apply(
            target, {key: value for key, value in best.values.items() if _is_open(space[key])}
        )
        log(f"{PARAMS} has them now")


def _target(given: Namespace) -> search.Target:
    kind, _, mixture = given.target.partition("/")
    if mixture:
        if kind != "pretrain":
            raise UserError(f"found {given.target!r}; give a task's name, or pretrain/MIXTURE")
        return search.Target("pretrain", mixture)
    return search.Target(arm_of(given.arm), given.target)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep two commands from searching the same thing: each would take the other's trials for interrupted ones."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another `deep-prompt tune` is at work on it; wait, or give --workers"
            ) from None
        yield


def _study(
    target: search.Target,
    params: Params,
    pruner: search.Pruner,
    space: search.Space,
    worker: int = 0,
) -> "Study":
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise UserError("optuna is not installed; pip install 'deep-prompt[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(
        JournalFileBackend(str(TUNING / str(target) / "study.jsonl"))
    )
    pruners: dict[search.Pruner, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=RANDOM - 1),
        "none": optuna.pruners.NopPruner(),
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner(),
    }
    study = optuna.create_study(
        storage=storage,
        study_name=search.digest(target, params, space),
        direction="maximize",
        load_if_exists=True,
        pruner=pruners[pruner],
    )
    # Seeded anew where it goes on: else it would propose the points that it began with again.
    seed = derive_seed(params.seed, worker, len(study.trials)) % (1 << 32)
    study.sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=RANDOM, multivariate=True
    )
    return study


def _take_up(study: "Study") -> None:
    """Have trials that were interrupted done again, first: their checkpoints are there."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _search(given: Namespace, target: search.Target) -> None:
    """Run the trials that are left, here or in processes of their own. Asked to stop, all leave checkpoints."""
    if given.workers == 1:
        _work(given, target, 0)
        return
    gpus = visible_gpus(given.workers, os.environ)
    context = multiprocessing.get_context("spawn")
    places = [gpus[number % len(gpus)] if gpus else None for number in range(given.workers)]
    workers = [
        context.Process(target=_worker, args=(given, target, number, gpu, os.getpid()))
        for number, gpu in enumerate(places)
    ]
    with stops() as stopped:
        for worker in workers:
            worker.start()
        told = False
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.1)
            if stopped and not told:
                told = True
                for worker in workers:
                    worker.terminate()
    if stopped:
        raise Stopped("stopped, with checkpoints")
    if all(worker.exitcode for worker in workers):
        raise UserError("every worker has failed; the errors above say why")


def _worker(
    given: Namespace, target: search.Target, number: int, gpu: int | str | None, parent: int
) -> None:
    from stages.runtime.parent_process import end_with

    end_with(parent)
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // given.workers))
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    with report_errors(f"worker {number}: "):
        _work(given, target, number)


def _work(given: Namespace, target: search.Target, number: int) -> None:
    """Trial after trial, until there are as many as were asked for."""
    from optuna.trial import TrialState

    params = load_params()
    wanted, space = search.load_search(given.space, target, params)
    study = _study(target, params, wanted.pruner, space, number)
    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    while len(study.get_trials(deepcopy=False, states=counted)) < given.trials:
        trial = study.ask()
        values = {key: _proposed(trial, key, values) for key, values in space.items()}
        log(f"trial {trial.number}: {_in_words(values)}")
        score, pruned = _trial(trial, target, params, values, quiet=given.workers > 1)
        study.tell(trial, *((None, TrialState.PRUNED) if pruned else (score, TrialState.COMPLETE)))
        log(f"trial {trial.number}: validation {score:.2f}{', pruned' * pruned}")


def _trial(
    trial: "Trial", target: search.Target, params: Params, values: dict[str, Any], quiet: bool
) -> tuple[float, bool]:
    """The best validation score, and whether the trial was ended before its time. One that diverges scores 0."""
    from stages import finetune, pretrain
    from stages.training.run import fit

    training = search.varied(params, target, values)
    stage = f"tune/{target}/{search.name_of(values)}"  # not by its number: taken up again, it has another
    with contextlib.ExitStack() as stack:
        if quiet:
            stack.enter_context(
                contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w")))
            )
        setup = (
            pretrain.set_up(target.name, training, params)
            if target.arm == "pretrain"
            else finetune.set_up(target.arm, target.name, training, params)
        )
        arm = MULTITASK.name if target.arm == "pretrain" else target.arm
        try:
            run, _ = fit(stage, arm, setup, training, params, [_Pruning(trial)])
            found = run.best_score, run.pruned
        except UserError as error:
            if not isinstance(error.__cause__, Diverged):
                raise
            found = 0.0, False
    shutil.rmtree(WORK / stage, ignore_errors=True)
    return found


class _Pruning(TrainingCallback):
    """Reports a trial's best score so far to Optuna, and ends the trial where its pruner says so."""

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial

    def validated(self, run: TrainingRun) -> None:
        self._trial.report(run.best_score, int(run.validation[-1]["step"]))

    def should_prune(self, run: TrainingRun) -> bool:
        return bool(self._trial.should_prune())


def _is_open(values: search.Range | search.Choices) -> bool:
    """Whether there is anything to choose."""
    return isinstance(values, search.Range) or len(values) > 1


def _proposed(trial: "Trial", key: str, values: search.Range | search.Choices) -> Any:
    if isinstance(values, search.Range):
        return _decoded(values, trial.suggest_float(key, values.low, values.high, log=values.log))
    return _decoded(
        values,
        trial.suggest_categorical(key, list(map(json.dumps, values))) if _is_open(values) else None,
    )


def _decoded(values: search.Range | search.Choices, parameter: Any) -> Any:
    """A value out of what Optuna has for it; None: there is nothing to choose."""
    if isinstance(values, search.Range):
        return search.rounded(parameter)
    return values[0] if parameter is None else json.loads(parameter)


def _encoded(values: search.Range | search.Choices, value: Any) -> Any:
    """The inverse of `_decoded`."""
    return value if isinstance(values, search.Range) else json.dumps(value)


def _tried(study: "Study", space: search.Space) -> "list[TrialResult]":
    from optuna.trial import TrialState

    from pipeline.report.tuning_page import TrialResult

    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [
        TrialResult(
            trial.number,
            float(trial.value or 0.0),
            trial.state == TrialState.PRUNED,
            len(trial.intermediate_values),
            {key: _decoded(values, trial.params.get(key)) for key, values in space.items()},
        )
        for trial in done
    ]


def _write(folder: Path, target: search.Target, study: "Study", tried: "list[TrialResult]") -> None:
    import optuna

    from pipeline.report.tuning_page import write_tuning

    complete = [trial for trial in tried if not trial.pruned]
    varied = {
        key for key in tried[0].values if len({str(trial.values[key]) for trial in complete}) > 1
    }
    importance = (
        optuna.importance.get_param_importances(study)
        if varied and len({one.score for one in complete}) > 1
        else {}
    )
    write_tuning(folder, str(target), tried, importance)
    log_wrote(folder / "trials.tsv", folder / "tuning.html")


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
