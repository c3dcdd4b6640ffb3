"""report: compare the metrics and curves of all runs, in Markdown and self-contained HTML."""

from itertools import product

from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.report import probes, write_report
from stages.runtime.entry import log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import MIXTURES, PREDICTIONS, REPORT, RESULTS, RUNS


def report() -> None:
    """Write report/report.md and report/report.html."""
    params = load_params()
    mixtures = [MIXTURES / f"{name}.json" for name in params.mixtures]
    stale = [
        path.stem
        for path in mixtures
        if set(load_json(path)["corpora"]) != set(params.corpora_of(path.stem))
    ]
    if stale:
        raise UserError(
            f"mixture {', '.join(stale)}: its corpora differ from those in params.yaml, because "
            "DVC does not detect a removed corpus; run `deep-prompt check`, then `dvc repro`"
        )
    results, probe = RESULTS, params.probe
    shifts = [(shift.model, shift.data) for shift in probe.out_of_domain]
    probe_sections = probes.sections(results, probe.arms, probe.tasks, shifts)
    repetitions = list(product(params.repeat.arms, params.repeat.tasks, params.repeat.seeds))
    write_report(
        results,
        PREDICTIONS,
        RUNS,
        mixtures,
        tuple(params.tasks),
        {arm: params.tasks_of(arm) for arm in params.compared_arms},
        REPORT,
        params.compare.published,
        probe_sections,
        repetitions,
    )
    log_wrote(REPORT / "report.md", REPORT / "report.html")


if __name__ == "__main__":
    run(report)
