"""Report sections on probes: robustness to perturbations, deep prompts by layer, transfer."""

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
    "Each suite perturbs the test examples so that the references stay correct. The note of a "
    "score is the difference from the score on the unchanged examples. A suite has no effect if "
    "the backbone does not see the change (upper case with an uncased backbone, white space in "
    "lists of words). A difference of a few points on few examples may not be significant."
)
CONSISTENCY = (
    "Each test example is asked with all templates of its relation. The table has the share of "
    "pairs of templates whose best answers are equal, right or wrong. A template with its subject "
    "after its object is left out, because a decoder cannot be asked with it."
)
PROMPTS = (
    "Attention mass is the share of a token's attention on the prompt, by layer and head. The "
    "points lost without a layer's prompt are measured one layer at a time, so they do not show "
    "effects for which other layers can compensate."
)
TRANSFER = (
    "Each row is the head of a task. Each column is the prompt that it is used with: the prompt of "
    "a task, the shared prompt of a mixture, or none. The cosine compares keys and values, token "
    "by token, with those of the task's prompt. Prompts with the same initialization stay similar "
    "to it. The cosine of the changes made by tuning distinguishes tasks better (1: same "
    "direction, 0: orthogonal)."
)
COSINES = {"cosine": "its prompt", "cosine_added": "the change of its prompt by tuning"}


@dataclasses.dataclass(frozen=True)
class Probe:
    """One arm on one task: `suites` and `layers` are the tables of the stage `probe`.

    `measures` are the score on unchanged examples and the number of rows. `kind` is the kind of
    task, None if the arm is not evaluated on the task. `consistency` is empty if the kind has no
    paraphrases.
    """

    arm: str
    task: str
    kind: str | None
    primary: str
    measures: Scores
    consistency: Scores
    suites: pd.DataFrame
    layers: pd.DataFrame


def probe_of(results: Path, arm: str, task: str) -> Probe | None:
    """The content of `results/probe/ARM/TASK`; None if absent.

    Raises UserError for a malformed file.
    """
    folder = results / "probe" / arm / task
    values = stage_outputs.document(folder / "metrics.json")
    suites = stage_outputs.table(
        folder / "suites.tsv", ("suite", "score", "loss", "changed"), text="suite"
    )
    layers = stage_outputs.table(folder / "layers.tsv", ("layer", "score", "loss"))
    if values is None or suites is None or layers is None:
        return None
    measures = stage_outputs.numbers(
        {"probe": {key: values.get(key) for key in ("score", "rows")}},
        "probe",
        folder / "metrics.json",
    )
    evaluated = results / arm / task / "metrics.json"
    metrics = stage_outputs.document(evaluated)
    kind = None if metrics is None else kinds.kind_in(metrics, evaluated)
    consistency = stage_outputs.numbers(values, "consistency", folder / "metrics.json")
    primary = str(values.get("primary"))
    return Probe(arm, task, kind, primary, measures, consistency, suites, layers)


def shift_of(results: Path, arm: str, model: str, data: str) -> Scores | None:
    """The content of `results/out_of_domain/ARM/MODEL-on-DATA`; None if absent.

    The keys are the scores `in_domain` and `out_of_domain`, `loss` and `rows`.
    Raises UserError for a malformed file.
    """
    path = results / "out_of_domain" / arm / f"{model}-on-{data}" / "metrics.json"
    values = stage_outputs.document(path)
    keys = ("in_domain", "out_of_domain", "loss", "rows")
    if values is None:
        return None
    return stage_outputs.numbers({"scores": {key: values.get(key) for key in keys}}, "scores", path)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The scores of a task's head by prompt, and the similarity of each prompt by layer.

    The similarity is the cosine with the prompt of the task.
    """

    task: str
    scores: Scores
    cosines: pd.DataFrame


def transfer_of(results: Path, task: str) -> Transfer | None:
    """The content of `results/transfer/TASK`; None if absent.

    Raises UserError for a malformed file.
    """
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
    """The sections on the available probes; `shifts` has pairs of (model's task, data's task).

    Raises UserError for a malformed file.
    """
    all_probes = [
        probe for task in tasks for arm in arms if (probe := probe_of(results, arm, task))
    ]
    by_task = {task: [probe for probe in all_probes if probe.task == task] for task in tasks}
    perturbed = {
        task: with_suites
        for task, probes in by_task.items()
        if (with_suites := [probe for probe in probes if len(probe.suites)])
    }
    not_perturbed = {probe.task: probe.kind for probe in all_probes if probe.task not in perturbed}
    out_of_domain = (
        [(arm, [shift_of(results, arm, *shift) for shift in shifts]) for arm in arms]
        if shifts
        else []
    )
    tables = [_suites(task, probes) for task, probes in perturbed.items()]
    tables += [_out_of_domain(shifts, out_of_domain)] if out_of_domain else []
    charts = [_suite_losses(task, probes) for task, probes in perturbed.items()]
    text = " ".join([ROBUSTNESS, *(_not_perturbed(*pair) for pair in not_perturbed.items())])
    return [
        *(
            [Section("Robustness", text, tuple(tables), tuple(charts))]
            if all_probes or out_of_domain
            else []
        ),
        *_consistency([probe for probe in all_probes if probe.consistency]),
        *_prompts(by_task),
        *_transfer([value for task in tasks if (value := transfer_of(results, task))]),
    ]


def _not_perturbed(task: str, kind: str | None) -> str:
    return f"{task} was not perturbed. {kinds.about_features(kind) if kind else ''}".strip()


def _suites(task: str, probes: Sequence[Probe]) -> Table:
    """The score of each arm on the unchanged and on the perturbed test examples of each suite."""
    names = list(dict.fromkeys(name for probe in probes for name in probe.suites["suite"]))
    columns = (
        Cell("arm"),
        Cell("unchanged", _metric_and_rows(probes)),
        *(Cell(name.replace("_", " ")) for name in names),
    )
    return Table(
        f"{task}: perturbed test examples",
        columns,
        tuple(_suite_row(probe, names) for probe in probes),
    )


def _suite_losses(task: str, probes: Sequence[Probe]) -> Plot:
    """The points that each arm loses in each suite."""
    suites = {probe.arm: probe.suites for probe in probes}
    return _losses(f"{task}: points lost by suite", suites, "suite")


def _metric_and_rows(probes: Sequence[Probe]) -> str:
    rows, name = probes[0].measures.get("rows"), kinds.title(probes[0].kind, probes[0].primary)
    return f"{name} · {count(rows)} examples"


def _suite_row(probe: Probe, names: Sequence[str]) -> tuple[Cell, ...]:
    cells = {
        row["suite"]: Cell(
            score(row["score"]), _change(row["loss"]) if row["changed"] else "same input"
        )
        for row in probe.suites.to_dict("records")
    }
    return (
        arm_header(probe.arm),
        Cell(score(probe.measures.get("score"))),
        *(cells.get(name, Cell(DASH)) for name in names),
    )


def _change(loss: float | None) -> str:
    """A loss as a signed change of the score, such as `−3.2`; empty if undefined."""
    if loss is None or math.isnan(loss):
        return ""
    return f"{round(-loss, 1) + 0.0:+.1f}".replace("-", "−")


def _consistency(probes: Sequence[Probe]) -> Iterator[Section]:
    """The share of pairs of paraphrases with the same answer, with the prompt and without."""
    if not probes:
        return
    rows = tuple(
        (
            Cell(probe.task),
            arm_header(probe.arm),
            *(
                Cell(score(probe.consistency.get(name)))
                for name in ("with_prompt", "without_prompt")
            ),
            *(Cell(count(probe.consistency.get(name))) for name in ("pairs", "refused")),
        )
        for probe in probes
    )
    names = ("task", "arm", "with the prompt", "without", "pairs", "left out")
    table = Table("Pairs of paraphrases with the same answer, %", tuple(map(Cell, names)), rows)
    yield Section("Consistency", CONSISTENCY, (table,))


def _out_of_domain(
    shifts: Sequence[tuple[str, str]], out_of_domain: Sequence[tuple[str, Sequence[Scores | None]]]
) -> Table:
    """The score of each arm on its own task's test rows, and on those of another task."""
    columns = [Cell("arm")]
    for model, data in shifts:
        columns += [Cell(f"{model} in domain", "shared labels"), Cell(f"{model} on {data}")]
    rows = []
    for arm, arm_scores in out_of_domain:
        pairs = [
            (
                Cell(score(scores.get("in_domain"))),
                Cell(score(scores.get("out_of_domain")), _change(scores.get("loss"))),
            )
            for scores in (shift or {} for shift in arm_scores)
        ]
        rows.append((arm_header(arm), *(cell for pair in pairs for cell in pair)))
    return Table("Out of domain", tuple(columns), tuple(rows))


def _losses(caption: str, tables: Mapping[str, pd.DataFrame], key: str) -> Plot:
    """One group of bars for each value of column `key` in the tables of the arms."""
    groups: dict[str, dict[str, float]] = {}
    for arm, table in tables.items():
        for row in table.to_dict("records"):
            groups.setdefault(_name(row[key]), {})[arm] = row["loss"]
    return plots.bars(caption, "points lost", groups, max_rows=48)


def _name(key: str | float) -> str:
    return key.replace("_", " ") if isinstance(key, str) else f"{key:.0f}"


def _prompts(by_task: Mapping[str, Sequence[Probe]]) -> Iterator[Section]:
    """The deep prompt of each arm by layer: the attention to it, and what is lost without it."""
    tables, charts = [], []
    for task, probes in by_task.items():
        deep = {probe.arm: probe.layers for probe in probes if len(probe.layers)}
        if deep:
            tables.append(_layers(task, deep))
            charts += [
                plots.heatmap(
                    f"{task}, {arm}: attention mass on the prompt", "head", "layer", _heads(layers)
                )
                for arm, layers in deep.items()
            ]
            charts.append(
                _losses(f"{task}: points lost without the prompt in a layer", deep, "layer")
            )
    if tables:
        yield Section("Deep prompts by layer", PROMPTS, tuple(tables), tuple(charts))


def _heads(layers: pd.DataFrame) -> pd.DataFrame:
    """Attention mass: one row per layer, one column per head."""
    heads = {
        name.removeprefix("head_"): layers[name].to_numpy()
        for name in layers.columns
        if name.startswith("head_")
    }
    return pd.DataFrame(heads, index=layers["layer"].astype(int))


def _layers(task: str, deep: Mapping[str, pd.DataFrame]) -> Table:
    """The score without the prompt in one layer, and the attention to the prompt in this layer."""
    columns = [
        Cell("layer"),
        *(
            cell
            for arm in deep
            for cell in (arm_header(arm, "without prompt"), Cell("attention to prompt", arm))
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


def _transfer(transfers: Sequence[Transfer]) -> Iterator[Section]:
    """Heads under the prompts of other tasks, and the similarity of the prompts by layer."""
    if not transfers:
        return
    prompts = list(dict.fromkeys(prompt for transfer in transfers for prompt in transfer.scores))
    rows = tuple(
        (
            Cell(transfer.task),
            *(
                Cell(score(transfer.scores.get(prompt)), best=prompt == f"{OURS}/{transfer.task}")
                for prompt in prompts
            ),
        )
        for transfer in transfers
    )
    table = Table("Test score with each prompt", (Cell("head"), *map(Cell, prompts)), rows)
    charts = [
        plots.heatmap(
            f"{transfer.task}: cosine of {compared} and those of others",
            "layer",
            "",
            frame,
            low=_low(frame),
        )
        for transfer in transfers
        for column, compared in COSINES.items()
        if len(frame := _by_layer(transfer.cosines, column))
    ]
    yield Section("Prompts of other tasks", TRANSFER, (table,), tuple(charts))


def _by_layer(cosines: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row per prompt and one column per layer, without undefined values."""
    known = cosines.dropna(subset=column).assign(layer=lambda frame: frame["layer"].astype(int))
    return known.pivot_table(index="prompt", columns="layer", values=column, sort=False)


def _low(frame: pd.DataFrame) -> float:
    """The lower end of the color scale: the minimum, rounded down to a multiple of 0.05."""
    return min(math.floor(20 * float(frame.min().min())) / 20, 0.95)
