"""mix@MIXTURE: compute the rates of a mixture, and find training rows that leak held-out rows."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.config import load_json
from pipeline.data.leakage import Leaks, find_leaks
from pipeline.errors import UserError, quantity
from pipeline.features.subset import FeatureSubset
from pipeline.features.table import FeatureTable, Table
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
    mixture_params, training = mixture_of(params, mixture), params.pretrain[mixture]
    source = MIXTURE_CORPORA / f"{mixture}.json"
    summaries = load_json(source)
    log_read(source)
    leaks = _find_leaks(summaries)
    _log_leaks(leaks, mixture_params, f"{PARAMS}: mixtures.{mixture}")
    dropped = (
        leaks.train_rows
        if mixture_params.on_leak == "drop"
        else dict.fromkeys(summaries, np.zeros(0, np.int64))
    )
    try:
        corpora = _corpora(summaries, dropped, mixture_params, training)
    except ValueError as error:
        raise UserError(f"{PARAMS}: mixtures.{mixture}: {error}") from None
    warnings = list(_warnings(corpora, mixture_params))
    for name, corpus in corpora.items():
        log(
            f"{name}: {quantity(corpus['rows'], 'example')}, share {corpus['share']:.3f}, "
            f"{corpus['epochs']:.2f} epochs"
            + f"; dropped {corpus['dropped']} that leak"
            * bool(corpus["dropped"])
        )
    for warning in warnings:
        log(f"warning: {warning}")
    output = MIXTURES / f"{mixture}.json"
    temperature = (
        None
        if mixture_params.temperature == "equal" or mixture_params.shares
        else mixture_params.temperature
    )
    write_json(
        output,
        {
            "corpora": corpora,
            "features": summaries,
            "temperature": temperature,
            "cap": mixture_params.cap,
            "shares": mixture_params.shares,
            "leaks": leaks.pairs,
            "on_leak": mixture_params.on_leak,
            "warnings": warnings,
            "unit": RATE_SCALE,
            "dropped": {name: rows.tolist() for name, rows in dropped.items() if len(rows)},
        },
    )
    log_wrote(output)


def _find_leaks(summaries: Mapping[str, Any]) -> Leaks:
    def texts(name: str, split: str) -> Iterator[str]:
        task = task_named(summaries[name]["task"])
        return (
            task.text(example)
            for example in read_examples(EXAMPLES / name / f"{split}.parquet", task)
        )

    return find_leaks(list(summaries), texts)


def _log_leaks(leaks: Leaks, mixture_params: MixtureParams, where: str) -> None:
    """Log all leaks, or raise UserError with them if `on_leak` is fail."""
    lines = [
        f"the texts of {quantity(leak['rows'], leak['split'] + ' row')} of {leak['held_out']} "
        f"are in training rows of {leak['train']} ({leak['equal']} equal, {leak['contained']} "
        f"contained), for example {leak['examples'][0]!r}"
        for leak in leaks.pairs
    ]
    if lines and mixture_params.on_leak == "fail":
        raise UserError(
            *(
                f"{where}: {line}; correct the corpora, or set on_leak: drop or report"
                for line in lines
            )
        )
    for line in lines:
        log(f"warning: {line}")


def _corpora(
    summaries: Mapping[str, Any],
    dropped: Mapping[str, Ints],
    mixture_params: MixtureParams,
    training: TrainParams,
) -> dict[str, dict[str, Any]]:
    """Rate, micro-batches and epochs of each corpus. Raises ValueError if no rates are possible."""
    sizes = {
        name: summary["splits"]["train"]["examples"] - len(dropped[name])
        for name, summary in summaries.items()
    }
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise ValueError(
            f"all training rows of {', '.join(empty)} leak; correct the corpus, or remove it from "
            "corpora"
        )
    per_epoch = {
        name: _micro_batches(name, dropped[name], training.tokens_per_micro_batch)
        for name in summaries
    }
    num_micro_batches = (
        steps_for(per_epoch.values(), training.micro_batches_per_step, training.epochs)
        * training.micro_batches_per_step
    )
    rates = sampling_rates(sizes, mixture_params, num_micro_batches)
    schedule = Schedule(tuple(rates.values()))
    counts = {
        name: schedule.count(index, num_micro_batches) for index, name in enumerate(summaries)
    }
    return {
        name: {
            "rows": sizes[name],
            "dropped": len(dropped[name]),
            "rate": rates[name],
            "share": rates[name] / RATE_SCALE,
            "micro_batches": counts[name],
            "epochs": counts[name] / per_epoch[name],
        }
        for name in summaries
    }


def _micro_batches(name: str, dropped: Ints, tokens_per_micro_batch: int) -> int:
    """The number of micro-batches in an epoch of a corpus."""
    table = FeatureTable(FEATURES / name / "train")
    kept: Table = FeatureSubset(table, dropped) if len(dropped) else table
    return TokenBudgetBatches(
        kept.lengths, tokens_per_micro_batch, 0, kept.tokens, kept.longest
    ).per_epoch


def _warnings(corpora: Mapping[str, Any], mixture_params: MixtureParams) -> Iterator[str]:
    for name, corpus in corpora.items():
        if corpus["epochs"] > mixture_params.max_epochs:
            yield (
                f"{name}: {corpus['epochs']:.1f} epochs are more than max_epochs "
                f"({mixture_params.max_epochs:g}); lower its share, or the epochs of pretrain"
            )
        elif corpus["epochs"] < mixture_params.min_epochs:
            yield (
                f"{name}: {corpus['epochs']:.3f} epochs are less than min_epochs "
                f"({mixture_params.min_epochs:g}); raise its share, or the epochs of pretrain"
            )


if __name__ == "__main__":
    run(mix)
