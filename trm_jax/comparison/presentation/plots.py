"""The curves as PNG pictures: one per topic, and an overview of what the verdict rests on."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from trm_jax.comparison.judgement.alignment import is_equal
from trm_jax.comparison.judgement.verdict import Verdict
from trm_jax.comparison.presentation.curves import Chart, axis_of_cells, guides, style
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.metrics import AXES, RELATIVE_VAR, STEPS, STEPS_PER_SAMPLE, TOPICS, Metric
from trm_jax.comparison.wording import number, seeds

PREFERRED_AXES = ("epochs", "updates", "samples", "hours")
OVERVIEW_TAGS = (
    "train/accuracy",
    "train/exact_accuracy",
    "eval/pass@2",
    "train/q_halt_accuracy",
    STEPS_PER_SAMPLE,
    RELATIVE_VAR,
    STEPS,
)
OVERVIEW_CHARTS = 6  # the first so many of these that were logged
COLUMNS = 3
INK, PALE = "#333333", "#dddddd"


def save_pngs(folder: Path, groups: list[Group], charts: list[Chart], verdict: Verdict, axis: str) -> None:
    """Draws overview.png, and one picture for each topic, over `axis` into `folder`."""
    pages = [("overview", verdict.headline, textwrap.fill(verdict.why, 150), overview(charts))]
    for topic in TOPICS:
        chosen = [chart for chart in charts if chart.metric.topic == topic]
        if chosen:
            pages.append((topic.lower().replace(" ", "_").replace("-", "_"), topic, "", chosen))
    for name, title, why, chosen in pages:
        _figure(groups, chosen, title, why, axis).savefig(folder / f"{name}.png", dpi=110)


def overview(charts: list[Chart]) -> list[Chart]:
    """The charts that the verdict rests on; all of them where none is there."""
    by_tag = {chart.metric.tag: chart for chart in charts}
    return [by_tag[tag] for tag in OVERVIEW_TAGS if tag in by_tag][:OVERVIEW_CHARTS] or charts


def usual_axis(groups: list[Group]) -> str:
    """The first axis that all groups have and are equally long on, or else the first that all have."""
    shared = [axis for axis in PREFERRED_AXES if all(group.has_axis(axis) for group in groups)]
    return next((axis for axis in shared if is_equal(axis, *groups)), (shared or ["hours"])[0])


def _figure(groups: list[Group], charts: list[Chart], title: str, why: str, axis: str) -> Figure:
    columns = min(COLUMNS, len(charts))
    row_count = -(-len(charts) // columns)
    figure = Figure(
        figsize=(max(4.6 * columns, 6.5), 3.1 * row_count + 1.0), facecolor="white", layout="constrained"
    )
    room = "\n" * len(why.splitlines())
    figure.suptitle(title + room, x=0.01, ha="left", fontsize=15, fontweight="bold", color=INK)
    figure.text(0.01, 1 - 0.36 / figure.get_figheight(), why, ha="left", va="top", fontsize=11, color=INK)
    grid = figure.subplots(row_count, columns, squeeze=False).ravel()
    for axes, chart in zip(grid, charts, strict=False):
        _draw(axes, groups, chart, axis)
    for axes in grid[len(charts) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=style(i).colour, dashes=style(i).dash or (None, None), linewidth=2.2)
        for i in range(len(groups))
    ]
    labels = [f"{group.label} ({group.mode}, {seeds(group.seeds)})" for group in groups]
    figure.legend(
        handles, labels, loc="outside lower left", ncols=min(4, len(groups)), frameon=False, fontsize=10
    )
    return figure


def _draw(axes: Axes, groups: list[Group], chart: Chart, axis: str) -> None:
    for line in chart.lines:
        if not groups[line.group].has_axis(axis):
            continue
        x = axis_of_cells(groups[line.group], axis)
        there = np.isfinite(line.mean)
        look = style(line.group)
        few = there.sum() < 20  # evaluations are points that deserve to be seen
        axes.plot(
            x[there],
            line.mean[there],
            color=look.colour,
            dashes=look.dash or (None, None),
            linewidth=1.8,
            marker="o" if few else None,
            markersize=4,
        )
        spread = np.nan_to_num(line.spread[there])
        low, high = line.mean[there] - spread, line.mean[there] + spread
        axes.fill_between(x[there], low, high, color=look.colour, alpha=0.15, linewidth=0)
    for level in guides(chart.metric, groups):
        axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
    if chart.metric.log_scale and _is_positive(chart):
        axes.set_yscale("log", nonpositive="clip")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    _dress(axes, chart.metric, axis)


def _is_positive(chart: Chart) -> bool:
    return all((line.mean[np.isfinite(line.mean)] > 0).all() for line in chart.lines)


def _dress(axes: Axes, metric: Metric, axis: str) -> None:
    axes.set_title(metric.title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(AXES[axis], fontsize=9, color=INK)
    axes.grid(color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.tick_params(labelsize=8.5, color=PALE, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
