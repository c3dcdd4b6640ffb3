"""The plots of the report, as SVG text for the page. Equal numbers give equal bytes."""

import dataclasses
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pipeline.arms import ARMS
from pipeline.errors import shorten

# Arms have colors of Okabe and Ito's palette (see pipeline.arms), tasks of Paul Tol's palette
# "muted". An arm and a task never share a color. Line styles and markers help readers who cannot
# distinguish the colors.
OTHER_COLOR = "#CC79A7"
TASK_COLORS = (
    "#332288",
    "#44AA99",
    "#CC6677",
    "#999933",
    "#88CCEE",
    "#882255",
    "#117733",
    "#DDCC77",
    "#AA4499",
)
DASHES = (
    "-",
    "--",
    "-.",
    (0, (9, 2)),
    (0, (1.5, 1)),
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (1, 3)),
    (0, (4, 4)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 4.8  # Inches. Narrow plots stay legible on a phone, and two fit side by side.
MAX_POINTS = 300  # per curve
STYLE: dict[str, Any] = {
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": "#8a8f98",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": "#3d434d",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#6b7280",
    "ytick.color": "#6b7280",
    "xtick.labelcolor": "#3d434d",
    "ytick.labelcolor": "#3d434d",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A drawing with a caption. `text` is its description for screen readers."""

    caption: str
    text: str
    svg: Markup


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve. The index of `values` is x; `mark` is the x of a ring on the curve."""

    values: "pd.Series[float]"
    color: str
    dashes: Any = "-"
    mark: float | None = None


def arm_color(arm: str) -> str:
    """The color of an arm, the same in every plot of the report."""
    return ARMS[arm].color if arm in ARMS else OTHER_COLOR


def arm_order(arm: str) -> int:
    """The index of an arm's line style and marker: its position in ARMS."""
    return list(ARMS).index(arm) % len(DASHES) if arm in ARMS else len(DASHES) - 1


def curve(frame: pd.DataFrame | None, column: str) -> "pd.Series[float] | None":
    """The finite values of `column` by step. None if there are none."""
    if frame is None or column not in frame:
        return None
    finite = np.isfinite(frame[column]) & np.isfinite(frame["step"])
    return frame[finite].set_index("step")[column] if finite.any() else None


def smooth(values: "pd.Series[float]") -> "pd.Series[float]":
    """The exponential moving mean over about 1/30 of the run, at no more than MAX_POINTS steps."""
    mean = values.ewm(span=max(1, len(values) / 30)).mean()
    keep = np.unique(np.linspace(0, len(mean) - 1, min(MAX_POINTS, len(mean))).astype(int))
    return mean.iloc[keep]


def lines(caption: str, axis: str, curves: Mapping[str, Curve]) -> Plot:
    """Curves by step. A loss axis is logarithmic if its values span more than a factor of 10."""
    with _style():
        figure, axes = _figure(2.9)
        for name, line in curves.items():
            # matplotlib omits names with a leading underscore from the legend.
            # A zero-width space before the underscore prevents this.
            label = "\u200b" + name if name.startswith("_") else name
            marker = "o" if len(line.values) == 1 else ""
            axes.plot(
                line.values.index,
                line.values,
                color=line.color,
                ls=line.dashes,
                label=label,
                marker=marker,
            )
            if line.mark is not None and line.mark in line.values.index:
                height = line.values[~line.values.index.duplicated(keep="last")][line.mark]
                axes.plot([line.mark], [height], "o", mfc="white", mec=line.color, mew=1.5, ms=5.5)
        low = min(line.values.min() for line in curves.values())
        high = max(line.values.max() for line in curves.values())
        if axis == "loss" and low > 0 and high / low > 10:
            axes.set_yscale("log")
            axes.yaxis.set(
                major_locator=LogLocator(subs=(1, 2, 5)),
                major_formatter="{x:g}",
                minor_formatter=NullFormatter(),
            )
        axes.set(xlabel="step", ylabel=axis)
        _legend(figure, axes, len(curves))
        text = "; ".join(
            f"{name} ends at {line.values.iloc[-1]:.3g} (step {line.values.index[-1]:g})"
            for name, line in curves.items()
        )
        return Plot(caption, text, _svg(figure, caption, text))


def percent_curves(
    caption: str, axis_x: str, axis_y: str, curves: Mapping[str, Curve], diagonal: bool = False
) -> Plot:
    """Curves with both axes in percent. `diagonal` adds the line x = y."""
    with _style():
        figure, axes = _figure(2.9)
        if diagonal:
            axes.plot([0, 100], [0, 100], color=OTHER_COLOR, lw=0.8, ls=":")
        for name, line in curves.items():
            marker = "o" if len(line.values) <= 20 else ""
            axes.plot(
                line.values.index,
                line.values,
                color=line.color,
                ls=line.dashes,
                label=name,
                marker=marker,
                ms=4,
            )
        axes.set(
            xlabel=axis_x, ylabel=axis_y, xlim=(0, 100), ylim=(0, 100) if diagonal else (0, None)
        )
        _legend(figure, axes, len(curves))
        text = "; ".join(
            f"{name}: {axis_y} {line.values.iloc[-1]:.3g} at {line.values.index[-1]:.3g}"
            for name, line in curves.items()
        )
        return Plot(caption, text, _svg(figure, caption, text))


def label_dots(caption: str, frame: pd.DataFrame, max_rows: int = 25) -> Plot:
    """F1 by label: one row per label, one marker per arm.

    `frame` has the labels as its index, and the columns `support` and one per arm.
    """
    with _style():
        shown = frame.head(max_rows)
        figure, axes = _figure(1.1 + 0.2 * len(shown))
        for arm in shown.columns.drop("support"):
            order = arm_order(arm)
            axes.plot(
                shown[arm],
                range(len(shown)),
                MARKERS[order],
                color=arm_color(arm),
                label=arm,
                ms=6,
                mec="white",
                mew=0.6,
                alpha=0.9,
            )
        axes.set(xlabel="F1", ylim=(len(shown) - 0.4, -0.6))
        axes.set_yticks(range(len(shown)), [shorten(str(label), 24) for label in shown.index])
        _legend(figure, axes, len(shown.columns) - 1)
        omitted = len(frame) > max_rows
        note = f"The {max_rows} most frequent of {len(frame)} labels. " if omitted else ""
        text = note + "The table has the numbers."
        return Plot(caption, text, _svg(figure, caption, text))


def share_bars(caption: str, corpora: Mapping[str, tuple[float, float]]) -> Plot:
    """Two bars per corpus: its share of the rows and its sampling rate, both as fractions."""
    with _style():
        figure, axes = _figure(0.9 + 0.5 * len(corpora))
        for side, name, color in (
            (-0.19, "share of rows", "#b8bfca"),
            (0.19, "sampled share", "#332288"),
        ):
            widths = [100 * pair[side > 0] for pair in corpora.values()]
            bars = axes.barh(
                [row + side for row in range(len(corpora))],
                widths,
                height=0.36,
                color=color,
                label=name,
            )
            axes.bar_label(
                bars, [f"{width:.1f}" for width in widths], padding=3, fontsize=8, color="#3d434d"
            )
        axes.set(xlabel="% of the mixture", ylim=(len(corpora) - 0.45, -0.55))
        axes.set_yticks(range(len(corpora)), [shorten(name, 24) for name in corpora])
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        _legend(figure, axes, 2)
        text = "; ".join(
            f"{name} {100 * rows:.1f} % of rows, sampled {100 * rate:.1f} %"
            for name, (rows, rate) in corpora.items()
        )
        return Plot(caption, text, _svg(figure, caption, text))


def histogram(
    caption: str, axis: str, values: Mapping[str, "np.ndarray[Any, Any]"], mark: float | None = None
) -> Plot:
    """The distribution of values in several splits, in percent of the rows of each split.

    `mark` is the position of a vertical line at a limit.
    """
    with _style():
        figure, axes = _figure(2.9)
        shown = {name: numbers for name, numbers in values.items() if len(numbers)}
        top = max((float(np.quantile(numbers, 0.995)) for numbers in shown.values()), default=1.0)
        end = 1.05 * max(top, mark or 0.0, 1.0)
        # Integer bin widths, so that all bins contain the same number of integers.
        edges = np.arange(0, end + 1, max(1, round(end / 40)))
        for index, (name, numbers) in enumerate(shown.items()):
            heights, _ = np.histogram(np.minimum(numbers, edges[-1]), edges)
            axes.stairs(
                100 * heights / len(numbers),
                edges,
                color=TASK_COLORS[index],
                ls=DASHES[index],
                lw=1.6,
                label=name,
            )
        if mark is not None:
            axes.axvline(mark, color="#D55E00", lw=1.2, label=f"limit {mark:g}")
        axes.set(xlabel=axis, ylabel="% of rows")
        _legend(figure, axes, len(shown) + (mark is not None))
        text = "; ".join(
            f"{name}: median {np.median(numbers):.0f}, at most {numbers.max():.0f}"
            for name, numbers in shown.items()
        )
        return Plot(caption, text, _svg(figure, caption, text))


def bars(
    caption: str, axis: str, groups: Mapping[str, Mapping[str, float]], max_rows: int = 20
) -> Plot:
    """Horizontal bars by row and name: `groups` maps rows to names to values.

    Only the first `max_rows` rows are drawn.
    """
    with _style():
        shown = dict(list(groups.items())[:max_rows])
        names = list(dict.fromkeys(name for values in shown.values() for name in values))
        height = 0.8 / max(1, len(names))
        figure, axes = _figure(1.0 + (0.14 + 0.1 * len(names)) * len(shown))
        for index, name in enumerate(names):
            heights = [row - 0.4 + height * (index + 0.5) for row in range(len(shown))]
            widths = [values.get(name, 0.0) for values in shown.values()]
            color = arm_color(name) if name in ARMS else TASK_COLORS[index % len(TASK_COLORS)]
            axes.barh(heights, widths, height=height * 0.9, color=color, label=name)
        axes.set(xlabel=axis, ylim=(len(shown) - 0.45, -0.55))
        axes.set_yticks(range(len(shown)), [shorten(name, 24) for name in shown])
        axes.grid(visible=False, axis="y")
        _legend(figure, axes, len(names))
        note = f"The first {max_rows} of {len(groups)}. " if len(groups) > max_rows else ""
        text = note + "; ".join(
            f"{row} " + ", ".join(f"{name} {value:.1f}" for name, value in values.items())
            for row, values in shown.items()
        )
        return Plot(caption, text, _svg(figure, caption, text))


def scatter(
    caption: str,
    axis: tuple[str, str],
    groups: Mapping[str, "pd.Series[float]"],
    best: "pd.Series[float] | None" = None,
    log: bool = False,
) -> Plot:
    """Points by group. The index of a series is x; `axis` has the names of x and y.

    `best` is the running best value, as a step curve.
    """
    with _style():
        figure, axes = _figure(2.9)
        for index, (name, values) in enumerate(groups.items()):
            axes.plot(
                values.index,
                values,
                MARKERS[index],
                color=TASK_COLORS[index],
                label=name,
                ms=5,
                alpha=0.85,
            )
        if best is not None:
            axes.step(best.index, best, where="post", color="#D55E00", lw=1.4, label="best so far")
        axes.set(xlabel=axis[0], ylabel=axis[1], xscale="log" if log else "linear")
        _legend(figure, axes, len(groups) + (best is not None))
        text = "; ".join(
            f"{name}: {len(values)} points, {values.min():.3g} to {values.max():.3g}"
            for name, values in groups.items()
            if len(values)
        )
        return Plot(caption, text, _svg(figure, caption, text))


def heatmap(caption: str, x: str, y: str, frame: pd.DataFrame, low: float = 0.0) -> Plot:
    """A heatmap of `frame`, white at `low` and darkest at 1: columns along x, the index along y."""
    with _style():
        figure, axes = _figure(1.3 + 0.26 * len(frame))
        colors = matplotlib.colormaps["Blues"].resampled(10)
        cells = axes.pcolormesh(
            frame.to_numpy(), cmap=colors, vmin=low, vmax=1.0, edgecolors="white", linewidth=0.5
        )
        every = -(-len(frame.columns) // 16)
        axes.set(xlabel=x, ylabel=y, ylim=(len(frame), 0))
        axes.set_xticks(
            np.arange(len(frame.columns))[::every] + 0.5,
            [shorten(str(name), 24) for name in frame.columns[::every]],
        )
        axes.set_yticks(
            np.arange(len(frame)) + 0.5, [shorten(str(name), 24) for name in frame.index]
        )
        axes.grid(visible=False)
        figure.colorbar(cells, ax=axes).outline.set_visible(False)
        text = "; ".join(
            f"{y} {name}: {row.min():.2f} to {row.max():.2f}".strip()
            for name, row in frame.iterrows()
        )
        return Plot(caption, text, _svg(figure, caption, text))


def _style() -> Any:
    return matplotlib.style.context(["default", STYLE])


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes, entries: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside upper center",
        ncols=min(3, entries),
        handlelength=2.4,
        columnspacing=1.4,
    )


def _svg(figure: Figure, title: str, text: str) -> Markup:
    """The SVG element without prolog and metadata. Its ids are unique on the page."""
    buffer = io.StringIO()
    layout = figure.get_layout_engine()
    assert layout is not None, "set by `_figure`"
    # The font of the page draws the text, so a glyph may be missing in the font of matplotlib.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        layout.execute(figure)
        figure.set_layout_engine(None)  # otherwise `savefig` draws the figure twice
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    svg = buffer.getvalue()
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :]).replace(
        "xlink:href", "href"
    )
    key = "plot-" + re.sub(r"\W+", "-", title).strip("-").lower()
    svg = (
        re.sub(r'\bid="', f'id="{key}-', svg)
        .replace('href="#', f'href="#{key}-')
        .replace("url(#", f"url(#{key}-")
    )
    head = f'<svg role="img" aria-labelledby="{key}-title {key}-text"'
    body = (
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-text">{escape(text)}</desc>'
    )
    size, rest = svg.removeprefix("<svg").split(">", 1)
    size = re.sub(r'\b(width|height)="[^"]*"', "", size)
    return Markup(f"{head}{size}>{body}{rest}")
