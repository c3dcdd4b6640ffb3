"""mix@MIXTURE: sizes -> rates, how often each corpus will be seen, and what leaks from one corpus's train into another's test."""

from pathlib import Path
from typing import Any

from pipeline.config import load_json
from pipeline.examples import read_examples
from pipeline.features import FeatureTable
from pipeline.files import write_json
from pipeline.leakage import find_leaks
from pipeline.mixture import UNIT, Packing, Schedule, sampling_rates
from pipeline.tasks import task_named
from stages.command import run, say, say_read, say_wrote
from stages.params import load_params, mixture_of


def mix(mixture: str) -> None:
    """Write data/mixtures/MIXTURE.json."""
    params = load_params()
    how = mixture_of(params, mixture)
    source = Path("data/members") / f"{mixture}.json"
    members = load_json(source)
    say_read(source)
    sizes = {name: summary["splits"]["train"]["examples"] for name, summary in members.items()}
    rates = sampling_rates(sizes, how)
    training = params.pretrain[mixture]
    tables = {name: FeatureTable(Path("data/features") / name / "train") for name in members}
    per_epoch = {name: Packing(table.lengths, training.batch_tokens, 0, table.tokens, table.longest).per_epoch
                 for name, table in tables.items()}
    drawn = round(training.epochs * sum(per_epoch.values()))
    schedule = Schedule(tuple(rates.values()))
    corpora: dict[str, Any] = {}
    for index, name in enumerate(members):
        micro_batches = schedule.count(index, drawn)
        corpora[name] = {"rows": sizes[name], "rate": rates[name], "share": rates[name] / UNIT, "micro_batches": micro_batches,
                         "epochs": micro_batches / per_epoch[name]}
        say(f"{name}: {sizes[name]} examples, share {rates[name] / UNIT:.3f}, {corpora[name]['epochs']:.2f} epochs")
    leaks = _leaks(members)
    for leak in leaks:
        say(f"warning: {leak['rows']} {leak['split']} rows of {leak['held_out']} are in the train rows of {leak['train']}")
    output = Path("data/mixtures") / f"{mixture}.json"
    write_json(output, {"corpora": corpora, "features": members, "temperature": how.temperature, "cap": how.cap, "leaks": leaks,
                        "unit": UNIT})
    say_wrote(output)


def _leaks(members: dict[str, Any]) -> list[dict[str, Any]]:
    def texts(name: str, split: str) -> Any:
        task = task_named(members[name]["task"])
        return (task.text(example) for example in read_examples(Path("data/examples") / name / f"{split}.parquet", task))

    return find_leaks(list(members), texts)


if __name__ == "__main__":
    run(mix)
