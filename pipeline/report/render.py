"""Renders `report.html` and `report.md` from the outputs of the stages.

Both have the same sections and tables; only the HTML page has plots.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from pipeline.display.highlighting import to_html
from pipeline.files import atomic_write
from pipeline.report import confidence, mixtures, plots, prose, samples, tables
from pipeline.report.collect import Mixture, Published, ReportInputs, RunResult, collect
from pipeline.report.plots import Curve, Plot
from pipeline.report.tables import Table
from pipeline.tasks.base.marked_text import MarkedText

MAX_OPEN_ROWS = 12  # a longer table by label starts folded, below its plot


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with its text, tables, plots, an optional collapsible table, and marked texts."""

    title: str
    text: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
    folded: Table | None = None
    examples: tuple[MarkedText, ...] = ()

    @property
    def starts_open(self) -> bool:
        """Whether the collapsible table is short enough to start open."""
        return self.folded is not None and len(self.folded.rows) <= MAX_OPEN_ROWS


def write_report(
    results: Path,
    predictions: Path,
    runs: Path,
    mixture_files: Sequence[Path],
    tasks: Sequence[str],
    planned: Mapping[str, Collection[str]],
    output: Path,
    published: Published | None = None,
    extra_sections: Sequence[Section] = (),
    repeated: Collection[tuple[str, str, int]] = (),
) -> None:
    """Write `output/report.html`, a self-contained file, and `output/report.md`.

    Reads `results/ARM/TASK/`, `predictions/ARM/TASK/`, `runs/ARM/TASK/`, `runs/pretrain/MIXTURE/`
    and `mixture_files`, named MIXTURE.json. `planned` has the tasks of each arm; planned runs that
    are missing are shown as a dash. `published` has published scores to compare with. The
    `extra_sections` come last. `repeated` has the arm, task and seed of runs in
    `repeat/SEED/ARM/TASK/`. The same inputs give the same bytes.

    Raises UserError for a malformed file.
    """
    inputs = dataclasses.replace(
        collect(results, predictions, runs, mixture_files, tasks, planned, repeated),
        published=published or {},
    )
    sections = [_comparison(inputs)]
    for task in inputs.tasks:
        of_task = inputs.of_task(task)
        sections += [_task(task, of_task), *_confidence(task, of_task)]
    sections += [_mixture(mixture) for mixture in inputs.mixtures]
    sections += extra_sections
    for name in ("report.html", "report.md"):
        text = page(
            name,
            "Arms and tasks compared",
            prose.summary(inputs),
            sections,
            prose.glossary(inputs),
        )
        atomic_write(output / name, text)


def page(
    template: str,
    title: str,
    summary: str,
    sections: Sequence[Section],
    glossary: Mapping[str, str],
) -> str:
    """A page rendered from a template of this folder, such as `report.md`."""
    source = _environment().get_template(f"{template}.j2")
    return source.render(title=title, summary=summary, sections=sections, glossary=glossary)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = markdown
    environment.filters["spans"] = lambda texts: Markup(to_html(texts))  # it escapes all text
    environment.filters["anchor"] = lambda title: re.sub(r"\W+", "-", title).strip("-").lower()
    return environment


def markdown(text: str) -> str:
    """Plain text escaped for Markdown, also for table cells: no markup, HTML or line breaks."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$#!])|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _comparison(inputs: ReportInputs) -> Section:
    shown = tuple(
        table for table in (tables.comparison(inputs), tables.differences(inputs)) if table
    )
    return Section("Comparison", prose.about_cost(inputs), shown)


def _task(task: str, runs: Sequence[RunResult]) -> Section:
    """The scores of a task: metrics, costs, curves, and F1 by label with a marker for each arm."""
    charts = [plot for plot in (_validation(task, runs), _loss(task, runs)) if plot]
    frame, by_label = tables.label_scores(runs), tables.labels(runs)
    if frame is not None:
        charts.append(plots.label_dots(f"{task}: F1 by label, test", frame))
    candidates = (
        tables.test_metrics(runs),
        *tables.label_metrics(runs),
        samples.table(runs),
        tables.cost(runs),
    )
    shown = tuple(table for table in candidates if table)
    return Section(task, prose.about_task(runs), shown, tuple(charts), by_label)


def _confidence(task: str, runs: Sequence[RunResult]) -> Iterator[Section]:
    """The confidence of the arms, its calibration, and the mistakes of the displayed arm."""
    candidates = (
        confidence.calibration(runs),
        confidence.measures(runs),
        confidence.confusion(runs),
        confidence.mistakes(runs),
    )
    shown = tuple(table for table in candidates if table)
    if shown:
        yield Section(
            f"{task}: confidence and mistakes",
            confidence.about(runs),
            shown,
            tuple(confidence.plots_of(task, runs)),
        )


def _validation(task: str, runs: Sequence[RunResult]) -> Plot | None:
    """The validation score of each arm by step, with a ring at the selected step."""
    curves = {}
    for run in runs:
        values = plots.curve(run.training.validation, "score")
        if values is not None:
            curves[run.arm] = _line(run.arm, values, run.training.facts.get("best_step"))
    name = tables.metric_name(runs) or "score"
    return plots.lines(f"{task}: validation {name}", name, curves) if curves else None


def _loss(task: str, runs: Sequence[RunResult]) -> Plot | None:
    """The training loss of each arm by step, smoothed."""
    curves = {}
    for run in runs:
        values = plots.curve(run.training.train, "loss")
        if values is not None:
            curves[run.arm] = _line(run.arm, plots.smooth(values))
    return plots.lines(f"{task}: training loss", "loss", curves) if curves else None


def _line(arm: str, values: "pd.Series[float]", mark: float | None = None) -> Curve:
    return Curve(values, plots.arm_color(arm), plots.DASHES[plots.arm_order(arm)], mark)


def _mixture(mixture: Mixture) -> Section:
    """The training of a shared prompt, by task, and the shares of its corpora."""
    candidates = (
        mixtures.pretraining(mixture),
        mixtures.shares(mixture),
        mixtures.consumed_by_corpus(mixture),
        mixtures.leaks(mixture),
    )
    shown = [table for table in candidates if table]
    training, charts = mixture.training, []
    for frame, prefix, title in (
        (training.validation, "score", "validation score"),
        (training.train, "loss", "training loss"),
    ):
        curves = _by_task(frame, prefix, training.facts.get("best_step"))
        if curves:
            charts.append(plots.lines(f"{mixture.name}: {title} by task", prefix, curves))
    bars = {name: (rows, rate) for name, rows, rate in _shares(mixture)}
    if bars:
        charts.append(plots.share_bars(f"{mixture.name}: shares of the corpora", bars))
    realized = mixtures.shares_by_unit(mixture)
    if realized:
        charts.append(
            plots.bars(f"{mixture.name}: shares intended and realized", "% of the run", realized)
        )
    return Section(
        f"Shared prompt: {mixture.name}", prose.about_mixture(mixture), tuple(shown), tuple(charts)
    )


def _by_task(frame: pd.DataFrame | None, prefix: str, best_step: float | None) -> dict[str, Curve]:
    """One line per task, if the stage recorded them separately, and one for all tasks."""
    names = [
        str(name)
        for name in ([] if frame is None else frame.columns)
        if str(name).startswith(prefix)
    ]
    lines = {}
    for index, name in enumerate(sorted(names, key=lambda name: (name == prefix, name))):
        values = plots.curve(frame, name)
        if values is None:
            continue
        shown = values if prefix == "score" else plots.smooth(values)
        color = "#000000" if name == prefix else plots.TASK_COLORS[index % len(plots.TASK_COLORS)]
        dashes = plots.DASHES[index % len(plots.DASHES)] if name != prefix else ":"
        task = name.removeprefix(prefix).removeprefix("_")
        lines[task or "all"] = Curve(shown, color, dashes, best_step if name == "score" else None)
    return lines


def _shares(mixture: Mixture) -> Iterator[tuple[str, float, float]]:
    corpora = mixture.corpora or {}
    total = sum(corpus.get("rows") or 0 for corpus in corpora.values())
    for name, corpus in corpora.items():
        rows, share = corpus.get("rows"), corpus.get("share")
        if total and rows is not None and share is not None:
            yield name, rows / total, share
