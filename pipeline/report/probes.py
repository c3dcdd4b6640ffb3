"""The report's sections on probes: what an arm loses where its input is made harder, and what its
deep prompt does by layer.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.report import kinds, plots, stage_outputs
from pipeline.report.plots import Plot
from pipeline.report.render import Section
from pipeline.report.stage_outputs import Scores
from pipeline.report.tables import DASH, OURS, Cell, Table, arm_header, count, score

ROBUSTNESS = (
    "Each suite changes test rows and keeps their reference right; beside a score stands its "
    "difference from that of the rows as "
    "they are. A suite of which the backbone sees nothing (upper case where it is uncased, white "
    "space where rows are lists of "
    "words) costs nothing. A difference of a few points on few rows may not be significant."
)
PROMPTS = (
    "Attention mass is the share of its attention that a token gives to the prompt, by layer and "
    "head. The points lost without a "
    "layer's prompt are measured one layer at a time: what others can take over does not show."
)
TRANSFER = (
    "A row is a task's head, a column the prompt it is under: one tuned for another task, a "
    "mixture's shared one, or none. The "
    "cosine compares keys and values, token by token, with those of the task's own prompt. Prompts "
    "that started from the same "
    "one stay like it; what tuning added to it tells tasks apart (1: the same direction, 0: none "
    "in common)."
)
COSINES = {"cosine": "its prompt", "cosine_added": "what tuning added to its prompt"}


@dataclasses.dataclass(frozen=True)
class Probe:
    """One arm on one task: `suites` and `layers` are the tables that the stage `probe` writes.

    `kind` is the kind of task, None without its evaluation.
    """

    arm: str
    task: str
    kind: str | None
    primary: str
    figures: Scores
    suites: pd.DataFrame
    layers: pd.DataFrame


def probe_of(results: Path, arm: str, task: str) -> Probe | None:
    """What `results/probe/ARM/TASK` says; None where it is absent. Raises UserError: a malformed
    file.
    """
    folder = results / "probe" / arm / task
    values = stage_outputs.document(folder / "metrics.json")
    suites = stage_outputs.table(
        folder / "suites.tsv", ("suite", "score", "loss", "changed"), text="suite"
    )
    layers = stage_outputs.table(folder / "layers.tsv", ("layer", "score", "loss"))
    if values is None or suites is None or layers is None:
        return None
    figures = stage_outputs.numbers(
        {"probe": {key: values.get(key) for key in ("score", "rows")}},
        "probe",
        folder / "metrics.json",
    )
    evaluated = results / arm / task / "metrics.json"
    metrics = stage_outputs.document(evaluated)
    kind = None if metrics is None else kinds.kind_in(metrics, evaluated)
    return Probe(arm, task, kind, str(values.get("primary")), figures, suites, layers)


def shift_of(results: Path, arm: str, model: str, data: str) -> Scores | None:
    """What `results/out_of_domain/ARM/MODEL-on-DATA` says: scores at `home` and `there`, `loss`,
    `rows`; None where absent.
    """
    path = results / "out_of_domain" / arm / f"{model}-on-{data}" / "metrics.json"
    values = stage_outputs.document(path)
    keys = ("home", "there", "loss", "rows")
    return (
        None
        if values is None
        else stage_outputs.numbers(
            {"scores": {key: values.get(key) for key in keys}}, "scores", path
        )
    )


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The scores of a task's head by the prompt it is under, and how like the task's own each
    prompt is, by layer.
    """

    task: str
    scores: Scores
    cosines: pd.DataFrame


def transfer_of(results: Path, task: str) -> Transfer | None:
    """What `results/transfer/TASK` says; None where it is absent."""
    folder = results / "transfer" / task
    values = stage_outputs.document(folder / "metrics.json")
    cosines = stage_outputs.table(
        folder / "cosines.tsv", ("prompt", "layer", "cosine"), text="prompt"
    )
    if values is None or cosines is None:
        return None
    return Transfer(task, stage_outputs.numbers(values, "scores", folder / "metrics.json"), cosines)


def sections(
    results: Path, arms: Sequence[str], tasks: Sequence[str], shifts: Sequence[tuple[str, str]]
) -> list[Section]:
    """Sections of what was probed; `shifts` are (model's task, data's task). Raises UserError: a
    malformed file.
    """
    found = [probe for task in tasks for arm in arms if (probe := probe_of(results, arm, task))]
    by_task = {task: [probe for probe in found if probe.task == task] for task in tasks}
    perturbed = {
        task: tried
        for task, probes in by_task.items()
        if (tried := [probe for probe in probes if len(probe.suites)])
    }
    left_out = {probe.task: probe.kind for probe in found if probe.task not in perturbed}
    moved = (
        [(arm, [shift_of(results, arm, *shift) for shift in shifts]) for arm in arms]
        if shifts
        else []
    )
    tables = [_suites(task, probes) for task, probes in perturbed.items()]
    tables += [_out_of_domain(shifts, moved)] if moved else []
    drawn = [
        _losses(
            f"{task}: points lost by suite", {probe.arm: probe.suites for probe in probes}, "suite"
        )
        for task, probes in perturbed.items()
    ]
    text = " ".join([ROBUSTNESS, *(_not_perturbed(*pair) for pair in left_out.items())])
    return [
        *([Section("Robustness", text, tuple(tables), tuple(drawn))] if found or moved else []),
        *_prompts(by_task),
        *_transfer([made for task in tasks if (made := transfer_of(results, task))]),
    ]


def _not_perturbed(task: str, kind: str | None) -> str:
    return f"No suite was tried on {task}. {kinds.about_features(kind) if kind else ''}".strip()


def _suites(task: str, probes: Sequence[Probe]) -> Table:
    names = list(dict.fromkeys(name for probe in probes for name in probe.suites["suite"]))
    columns = (
        Cell("arm"),
        Cell("as they are", _measured(probes)),
        *(Cell(name.replace("_", " ")) for name in names),
    )
    return Table(
        f"{task}: test rows made harder",
        columns,
        tuple(_suite_row(probe, names) for probe in probes),
    )


def _measured(probes: Sequence[Probe]) -> str:
    rows, name = probes[0].figures.get("rows"), kinds.title(probes[0].kind, probes[0].primary)
    return f"{name} · {count(rows)} rows"


def _suite_row(probe: Probe, names: Sequence[str]) -> tuple[Cell, ...]:
    cells = {
        row["suite"]: Cell(
            score(row["score"]), _change(row["loss"]) if row["changed"] else "reads the same"
        )
        for row in probe.suites.to_dict("records")
    }
    return (
        arm_header(probe.arm),
        Cell(score(probe.figures.get("score"))),
        *(cells.get(name, Cell(DASH)) for name in names),
    )


def _change(loss: float | None) -> str:
    """A loss as the difference that it makes to a score: `−3.2`."""
    return (
        ""
        if loss is None or math.isnan(loss)
        else f"{round(-loss, 1) + 0.0:+.1f}".replace("-", "−")
    )


def _out_of_domain(
    shifts: Sequence[tuple[str, str]], moved: Sequence[tuple[str, Sequence[Scores | None]]]
) -> Table:
    columns = [Cell("arm")]
    for model, data in shifts:
        columns += [Cell(f"{model} at home", "labels of both"), Cell(f"{model} on {data}")]
    rows = []
    for arm, each in moved:
        pairs = [
            (
                Cell(score(found.get("home"))),
                Cell(score(found.get("there")), _change(found.get("loss"))),
            )
            for found in (shift or {} for shift in each)
        ]
        rows.append((arm_header(arm), *(cell for pair in pairs for cell in pair)))
    return Table("Out of domain", tuple(columns), tuple(rows))


def _losses(caption: str, tables: Mapping[str, pd.DataFrame], key: str) -> Plot:
    """A group of bars for each `key` of the arms' tables."""
    groups: dict[str, dict[str, float]] = {}
    for arm, table in tables.items():
        for row in table.to_dict("records"):
            groups.setdefault(_name(row[key]), {})[arm] = row["loss"]
    return plots.bars(caption, "points lost", groups, max_rows=48)


def _name(key: str | float) -> str:
    return key.replace("_", " ") if isinstance(key, str) else f"{key:.0f}"


def _prompts(by_task: Mapping[str, Sequence[Probe]]) -> Iterator[Section]:
    tables, drawn = [], []
    for task, probes in by_task.items():
        deep = {probe.arm: probe.layers for probe in probes if len(probe.layers)}
        if deep:
            tables.append(_layers(task, deep))
            drawn += [
                plots.heatmap(
                    f"{task}, {arm}: attention mass on the prompt", "head", "layer", _heads(layers)
                )
                for arm, layers in deep.items()
            ]
            drawn.append(
                _losses(f"{task}: points lost without the prompt in a layer", deep, "layer")
            )
    if tables:
        yield Section("Deep prompts by layer", PROMPTS, tuple(tables), tuple(drawn))


def _heads(layers: pd.DataFrame) -> pd.DataFrame:
    """Attention mass: index layer, a column a head."""
    heads = {
        name.removeprefix("head_"): layers[name].to_numpy()
        for name in layers.columns
        if name.startswith("head_")
    }
    return pd.DataFrame(heads, index=layers["layer"].astype(int))


def _layers(task: str, deep: Mapping[str, pd.DataFrame]) -> Table:
    columns = [
        Cell("layer"),
        *(
            cell
            for arm in deep
            for cell in (arm_header(arm, "without it"), Cell("attention to it", arm))
        ),
    ]
    cells: dict[int, dict[str, tuple[Cell, Cell]]] = {}
    for arm, layers in deep.items():
        means = _heads(layers).mean(axis=1)
        for row, (layer, mass) in zip(layers.to_dict("records"), means.items(), strict=True):
            cells.setdefault(int(str(layer)), {})[arm] = (
                Cell(score(row["score"]), _change(row["loss"])),
                Cell(f"{mass:.2f}"),
            )
    rows = tuple(
        (Cell(str(layer)), *(cell for arm in deep for cell in of_arm.get(arm, (Cell(DASH),) * 2)))
        for layer, of_arm in sorted(cells.items())
    )
    return Table(f"{task}: the prompt by layer", tuple(columns), rows)


def _transfer(found: Sequence[Transfer]) -> Iterator[Section]:
    if not found:
        return
    prompts = list(dict.fromkeys(prompt for transfer in found for prompt in transfer.scores))
    rows = tuple(
        (
            Cell(transfer.task),
            *(
                Cell(score(transfer.scores.get(prompt)), best=prompt == f"{OURS}/{transfer.task}")
                for prompt in prompts
            ),
        )
        for transfer in found
    )
    table = Table("Test score under each prompt", (Cell("head"), *map(Cell, prompts)), rows)
    drawn = [
        plots.heatmap(
            f"{transfer.task}: cosine of {what} and others'", "layer", "", frame, low=_low(frame)
        )
        for transfer in found
        for column, what in COSINES.items()
        if len(frame := _by_layer(transfer.cosines, column))
    ]
    yield Section("Prompts of other tasks", TRANSFER, (table,), tuple(drawn))


def _by_layer(cosines: pd.DataFrame, column: str) -> pd.DataFrame:
    """Index prompt, a column a layer: those that have the number."""
    known = cosines.dropna(subset=column).assign(layer=lambda frame: frame["layer"].astype(int))
    return known.pivot_table(index="prompt", columns="layer", values=column, sort=False)


def _low(frame: pd.DataFrame) -> float:
    """A twentieth at or below the least value, so that differences show."""
    return min(math.floor(20 * float(frame.min().min())) / 20, 0.95)
