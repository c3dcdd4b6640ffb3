"""mix@MIXTURE: sizes -> rates, how often each corpus will be seen, and what leaks from one corpus's train into another's test."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.config import load_json
from pipeline.data.leakage import Leaks, find_leaks
from pipeline.errors import UserError
from pipeline.features.subset import Subset
from pipeline.features.table import FeatureTable
from pipeline.files import write_json
from pipeline.mixing.rates import RATE_SCALE, sampling_rates, steps_for
from pipeline.mixing.schedule import Schedule, TokenBudgetBatches
from pipeline.params import MixtureParams, TrainParams
from pipeline.seeding import Ints
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params, mixture_of
from stages.runtime.paths import EXAMPLES, FEATURES, MIXTURE_CORPORA, MIXTURES, PARAMS


def mix(mixture: str) -> None:
    """Write data/mixtures/MIXTURE.json."""
    params = load_params()
    how, training = mixture_of(params, mixture), params.pretrain[mixture]
    source = MIXTURE_CORPORA / f"{mixture}.json"
    members = load_json(source)
    log_read(source)
    leaks = _leaks(members)
    _say_leaks(leaks, how, f"{PARAMS}: mixtures.{mixture}")
    dropped = (
        leaks.train_rows if how.on_leak == "drop" else dict.fromkeys(members, np.zeros(0, np.int64))
    )
    try:
        corpora = _corpora(members, dropped, how, training)
    except ValueError as error:
        raise UserError(f"{PARAMS}: mixtures.{mixture}: {error}") from None
    warnings = list(_warnings(corpora, how))
    for name, corpus in corpora.items():
        log(
            f"{name}: {corpus['rows']} examples, share {corpus['share']:.3f}, {corpus['epochs']:.2f} epochs"
            + f"; {corpus['dropped']} dropped, for they leak" * bool(corpus["dropped"])
        )
    for warning in warnings:
        log(f"warning: {warning}")
    output = MIXTURES / f"{mixture}.json"
    temperature = None if how.temperature == "equal" or how.shares else how.temperature
    write_json(
        output,
        {
            "corpora": corpora,
            "features": members,
            "temperature": temperature,
            "cap": how.cap,
            "shares": how.shares,
            "leaks": leaks.pairs,
            "on_leak": how.on_leak,
            "warnings": warnings,
            "unit": RATE_SCALE,
            "dropped": {name: rows.tolist() for name, rows in dropped.items() if len(rows)},
        },
    )
    log_wrote(output)


def _leaks(members: Mapping[str, Any]) -> Leaks:
    def texts(name: str, split: str) -> Iterator[str]:
        task = task_named(members[name]["task"])
        return (
            task.text(example)
            for example in read_examples(EXAMPLES / name / f"{split}.parquet", task)
        )

    return find_leaks(list(members), texts)


def _say_leaks(leaks: Leaks, how: MixtureParams, where: str) -> None:
    """Raise UserError with all pairs where they are to make it fail."""
    lines = [
        f"{leak['rows']} {leak['split']} rows of {leak['held_out']} are in train rows of {leak['train']} ({leak['equal']} "
        f"equal, {leak['contained']} contained), for example {leak['examples'][0]!r}"
        for leak in leaks.pairs
    ]
    if lines and how.on_leak == "fail":
        raise UserError(
            *(
                f"{where}: {line}; correct the corpora, or set on_leak: drop or report"
                for line in lines
            )
        )
    for line in lines:
        log(f"warning: {line}")


def _corpora(
    members: Mapping[str, Any],
    dropped: Mapping[str, Ints],
    how: MixtureParams,
    training: TrainParams,
) -> dict[str, dict[str, Any]]:
    """What is drawn of each corpus. Raises ValueError where the mixture cannot be made."""
    sizes = {
        name: summary["splits"]["train"]["examples"] - len(dropped[name])
        for name, summary in members.items()
    }
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise ValueError(
            f"all train rows of {', '.join(empty)} leak; correct it, or leave it out of corpora"
        )
    per_epoch = {
        name: _micro_batches(name, dropped[name], training.tokens_per_micro_batch)
        for name in members
    }
    num_micro_batches = (
        steps_for(per_epoch.values(), training.micro_batches_per_step, training.epochs)
        * training.micro_batches_per_step
    )
    rates = sampling_rates(sizes, how, num_micro_batches)
    schedule = Schedule(tuple(rates.values()))
    counts = {name: schedule.count(index, num_micro_batches) for index, name in enumerate(members)}
    return {
        name: {
            "rows": sizes[name],
            "dropped": len(dropped[name]),
            "rate": rates[name],
            "share": rates[name] / RATE_SCALE,
            "micro_batches": counts[name],
            "epochs": counts[name] / per_epoch[name],
        }
        for name in members
    }


def _micro_batches(name: str, dropped: Ints, tokens_per_micro_batch: int) -> int:
    """How many an epoch of a corpus has."""
    table = FeatureTable(FEATURES / name / "train")
    left = Subset(table, dropped) if len(dropped) else table
    return TokenBudgetBatches(
        left.lengths, tokens_per_micro_batch, 0, left.tokens, left.longest
    ).per_epoch


def _warnings(corpora: Mapping[str, Any], how: MixtureParams) -> Iterator[str]:
    for name, corpus in corpora.items():
        if corpus["epochs"] > how.most_epochs:
            yield (
                f"{name} is seen {corpus['epochs']:.1f} times over, more than most_epochs, {how.most_epochs:g}; lower its "
                "share, or the epochs of pretrain"
            )
        elif corpus["epochs"] < how.least_epochs:
            yield (
                f"{name} is barely seen: {100 * corpus['epochs']:.1f} % of it, less than least_epochs, {how.least_epochs:g}; "
                "raise its share, or the epochs of pretrain"
            )


if __name__ == "__main__":
    run(mix)
