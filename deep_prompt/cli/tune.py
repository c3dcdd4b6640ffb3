"""deep-prompt tune: search the training params of an arm, scored on validation."""

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
from pipeline.arms import ARMS, MULTITASK
from pipeline.distributed.cluster import gpu_of_each_process
from pipeline.errors import Diverged, Stopped, UserError
from pipeline.params import Params, TrainParams
from pipeline.training.callbacks import TrainingCallback, TrainingRun
from stages.runtime.entry import log, log_wrote, report_errors, stops
from stages.runtime.params import arm_of, load_params
from stages.runtime.paths import PARAMS, SEARCH_SPACE, TUNING, WORK

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

    from pipeline.report.tuning_page import TrialResult

NUM_RANDOM_TRIALS = 5  # before the sampler fits its model


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "target",
        metavar="TASK",
        help="task of params.yaml, or pretrain/MIXTURE for a shared prompt",
    )
    parser.add_argument(
        "--arm",
        default=MULTITASK.name,
        metavar="ARM",
        help="arm of the task (default: %(default)s)",
    )
    parser.add_argument(
        "--space",
        type=Path,
        default=SEARCH_SPACE,
        metavar="FILE",
        help="search space (default: %(default)s)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="total number of trials, including those of earlier runs (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="number of parallel trials, each in one process on one GPU (default: %(default)s)",
    )
    parser.add_argument("--apply", action="store_true", help="write the best values to params.yaml")


def tune(arguments: Namespace) -> None:
    """Search an arm's training params with Optuna.

    Optuna proposes values from search.yaml. The first trial uses the values of params.yaml, except
    for the keys that search.yaml fixes. Each trial trains with the budget of the arm in params.yaml
    and is scored on validation. The test split is never read. tuning/ARM-TASK/ receives
    study.jsonl, trials.tsv and tuning.html.

    An interrupted search resumes, even in the middle of a trial. Changed params, inputs or search
    space start a new study. Run the previous stages first, for example `dvc repro featurize
    pretrain`.
    """
    if arguments.trials < 1 or arguments.workers < 1:
        raise UserError(
            f"--trials is {arguments.trials} and --workers {arguments.workers}; give 1 or more"
        )
    from pipeline.report.tuning_page import best_of

    params, target = load_params(), _target(arguments)
    settings, space = search.load_search(arguments.space, target, params)
    folder = TUNING / str(target)
    with _exclusive(folder):
        study = _study(target, params, settings.pruner, space)
        _requeue_interrupted(study)
        if not study.trials:
            _enqueue_current(study, target.training(params), space)
        failed = _search(arguments, target)
        results = _results(study, space)
    if not results:
        raise UserError(f"{folder}: no trial finished; see the errors above")
    _write_results(folder, target, study, results)
    if failed:
        raise UserError(
            f"workers failed: {', '.join(map(str, failed))}; see the errors above, then run the "
            "command again: it continues with the missing trials"
        )
    best = best_of(results)
    log(
        f"best validation {best.score:.2f} in trial {best.number} of {len(results)}: "
        f"{_format_values(best.values)}"
    )
    if arguments.apply:
        search.apply(
            target, {key: value for key, value in best.values.items() if _has_choice(space[key])}
        )
        log(f"wrote them to {PARAMS}")


def _enqueue_current(study: "Study", training: TrainParams, space: search.Space) -> None:
    """Let the first trial use the values of params.yaml, or log which of them are not in space."""
    current = {key: getattr(training, key) for key, values in space.items() if _has_choice(values)}
    outside = [key for key, value in current.items() if not search.contains(space[key], value)]
    if outside:
        values = ", ".join(f"{key} {current[key]}" for key in outside)
        log(f"no trial has the values of {PARAMS}, because the search space lacks {values}")
        return
    study.enqueue_trial({key: _encoded(space[key], value) for key, value in current.items()})


def _target(arguments: Namespace) -> search.Target:
    kind, _, mixture = arguments.target.partition("/")
    if mixture:
        if kind != "pretrain":
            raise UserError(f"found {arguments.target!r}; give a task's name, or pretrain/MIXTURE")
        return search.Target("pretrain", mixture)
    arm = arm_of(arguments.arm, "--arm: ")
    if not ARMS[arm].parts:
        raise UserError(f"--arm {arm}: this arm trains nothing; give an arm that trains")
    return search.Target(arm, arguments.target)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock a study. Without the lock, a second command would requeue the running trials."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder / "lock", fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"{folder}: another `deep-prompt tune` is running; wait for it, or use --workers"
            ) from None
        yield


@contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a file. Raises BlockingIOError if `flags` is LOCK_NB and it is not free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
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
    from pipeline.seeding import derive_seed

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(
        JournalFileBackend(str(TUNING / str(target) / "study.jsonl"))
    )
    pruners: dict[search.Pruner, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=NUM_RANDOM_TRIALS - 1),
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
    # A resumed study needs another seed: otherwise it would propose its first points again.
    seed = derive_seed(params.seed, worker, len(study.trials)) % (1 << 32)
    study.sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=NUM_RANDOM_TRIALS, multivariate=True
    )
    return study


def _requeue_interrupted(study: "Study") -> None:
    """Put interrupted trials at the front of the queue; they resume from their checkpoints."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _search(arguments: Namespace, target: search.Target) -> list[int]:
    """Run the remaining trials, in this process or in workers. A stop signal saves checkpoints.

    Returns the numbers of the workers that failed.
    """
    if arguments.workers == 1:
        _work(arguments, target, 0)
        return []
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_worker, args=(arguments, target, number, gpu, os.getpid()))
        for number, gpu in enumerate(gpu_of_each_process(arguments.workers, os.environ))
    ]
    with stops() as stop_signals:
        for worker in workers:
            worker.start()
        terminated = False
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.1)
            if stop_signals and not terminated:
                terminated = True
                for worker in workers:
                    worker.terminate()
    if stop_signals:
        raise Stopped("stopped, with checkpoints")
    return [number for number, worker in enumerate(workers) if worker.exitcode]


def _worker(
    arguments: Namespace, target: search.Target, number: int, gpu: str, parent: int
) -> None:
    from stages.runtime.parent_process import end_with

    end_with(parent)
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // arguments.workers))
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with report_errors(f"worker {number}: "):
        _work(arguments, target, number)


def _work(arguments: Namespace, target: search.Target, number: int) -> None:
    """Run trials until the study has the requested number."""
    from optuna.trial import TrialState

    params = load_params()
    settings, space = search.load_search(arguments.space, target, params)
    study = _study(target, params, settings.pruner, space, number)
    while (trial := _next_trial(study, target, arguments.trials)) is not None:
        values = {key: _proposed(trial, key, values) for key, values in space.items()}
        log(f"trial {trial.number}: {_format_values(values)}")
        score, pruned = _trial(trial, target, params, values, quiet=arguments.workers > 1)
        study.tell(trial, *((None, TrialState.PRUNED) if pruned else (score, TrialState.COMPLETE)))
        log(f"trial {trial.number}: validation {score:.2f}{', pruned' * pruned}")


def _next_trial(study: "Study", target: search.Target, total: int) -> "Trial | None":
    """A new trial; None if the study has `total` trials. Only one worker asks at a time."""
    from optuna.trial import TrialState

    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    with _locked(WORK / "tune" / str(target) / "ask.lock"):
        if len(study.get_trials(deepcopy=False, states=counted)) >= total:
            return None
        return study.ask()


def _trial(
    trial: "Trial", target: search.Target, params: Params, values: dict[str, Any], quiet: bool
) -> tuple[float, bool]:
    """Train a trial.

    Returns its best validation score (0 if it diverges), and whether it was pruned.
    """
    from stages import finetune, pretrain
    from stages.training.run import fit

    training = search.varied(params, target, values)
    # The values identify the trial, because an interrupted trial resumes with another number.
    stage = f"tune/{target}/{search.name_of(values)}"
    with contextlib.ExitStack() as stack:
        # Workers with equal values have one folder of checkpoints, so the second one waits.
        stack.enter_context(_locked(WORK / f"{stage}.lock"))
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
            result = run.best_score, run.pruned
        except UserError as error:
            if not isinstance(error.__cause__, Diverged):
                raise
            result = 0.0, False
        shutil.rmtree(WORK / stage, ignore_errors=True)
    return result


class _Pruning(TrainingCallback):
    """Reports the best score so far to Optuna, whose pruner may end the trial early."""

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial

    def validated(self, run: TrainingRun) -> None:
        self._trial.report(run.best_score, int(run.validation[-1]["step"]))

    def should_prune(self, run: TrainingRun) -> bool:
        return bool(self._trial.should_prune())


def _has_choice(values: search.Range | search.Choices) -> bool:
    """Whether there is more than one value."""
    return isinstance(values, search.Range) or len(values) > 1


def _proposed(trial: "Trial", key: str, values: search.Range | search.Choices) -> Any:
    if isinstance(values, search.Range):
        return _decoded(values, trial.suggest_float(key, values.low, values.high, log=values.log))
    return _decoded(
        values,
        trial.suggest_categorical(key, list(map(json.dumps, values)))
        if _has_choice(values)
        else None,
    )


def _decoded(values: search.Range | search.Choices, parameter: Any) -> Any:
    """The value of an Optuna parameter; None if the key has only one value."""
    if isinstance(values, search.Range):
        return search.rounded(parameter)
    return values[0] if parameter is None else json.loads(parameter)


def _encoded(values: search.Range | search.Choices, value: Any) -> Any:
    """The inverse of `_decoded`. A choice may be an integer where the param is a float."""
    if isinstance(values, search.Range):
        return value
    return json.dumps(next(choice for choice in values if search.is_equal(choice, value)))


def _results(study: "Study", space: search.Space) -> "list[TrialResult]":
    from optuna.trial import TrialState

    from pipeline.report.tuning_page import TrialResult

    finished = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [
        TrialResult(
            trial.number,
            float(trial.value or 0.0),
            trial.state == TrialState.PRUNED,
            len(trial.intermediate_values),
            {key: _decoded(values, trial.params.get(key)) for key, values in space.items()},
        )
        for trial in finished
    ]


def _write_results(
    folder: Path, target: search.Target, study: "Study", results: "list[TrialResult]"
) -> None:
    import optuna

    from pipeline.report.tuning_page import write_tuning

    complete = [trial for trial in results if not trial.pruned]
    varied = {
        key for key in results[0].values if len({str(trial.values[key]) for trial in complete}) > 1
    }
    importance = (
        optuna.importance.get_param_importances(study)
        if varied and len({trial.score for trial in complete}) > 1
        else {}
    )
    write_tuning(folder, str(target), results, importance)
    log_wrote(folder / "trials.tsv", folder / "tuning.html")


def _format_values(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
