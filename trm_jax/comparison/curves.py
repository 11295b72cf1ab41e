"""The curves that a verdict rests on, as SVG that takes its colours from the page around it."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.runs import AXES
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, HALTED_STEPS, LOSS, PASS_2, Q_HEAD, STEPS

# matplotlib refuses to be imported where MPLBACKEND names a backend that is not installed here. A notebook hands its
# own on to the commands that it starts; pictures here are files and need none.
_named = {name: os.environ.pop(name) for name in ["MPLBACKEND"] if name in os.environ}
import matplotlib  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter  # noqa: E402

os.environ |= _named

# Okabe and Ito's colours, which stay apart for colour-blind readers, without the yellow that is lost on white; groups
# beyond the seventh repeat them dashed. The page has its own for the dark, by the same numbers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
INK, PALE = "#333334", "#ddddde"  # not to be taken for a colour of a curve when the page puts its own in their place
LOOK: dict[Any, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": PALE, "axes.grid": True,
    "axes.labelcolor": INK, "axes.axisbelow": True, "grid.color": PALE, "grid.linewidth": 0.6, "xtick.color": PALE,
    "ytick.color": PALE, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "lines.linewidth": 1.7,
    "lines.markersize": 3.5, "svg.fonttype": "none"}
PARTS = 150  # a curve is drawn as the means over so many parts of what was logged
FEW = 40  # points that are drawn one by one
ENCODER = "train/encoder_relative_var", "train/encoder_collapse_ratio"
GUIDES = {ANSWERED: THRESHOLDS.levels, EXACT: THRESHOLDS.levels, Q_HEAD: (THRESHOLDS.q_halt_accuracy,)}


@dataclass(frozen=True)
class Chart:
    tag: str
    axis: str

    @property
    def title(self) -> str:
        return f"{BY_TAG[self.tag].title}, by {AXES[self.axis]}"

    def shows(self, group: Group) -> bool:
        """It was logged and, in the case of a score, is not nothing but zeros."""
        return group.has(self.tag) and group.has_axis(self.axis) and (
            not BY_TAG[self.tag].is_evaluation or any(run.series[self.tag].values.any() for run in group.sound))


def charts(groups: Sequence[Group], axis: str | None = None) -> list[Chart]:
    """Exact accuracy by every axis, then what else the criteria look at; nothing that is empty.

    Args:
        axis: the usual one; by default the first that all groups have and are equally long on, else that all have.
    """
    shared = [axis for axis in AXES if all(group.has_axis(axis) for group in groups)]
    usual = axis or next((axis for axis in shared if equally_long(axis, *groups)), (shared or ["hours"])[0])
    exact = ANSWERED if any(group.exact == ANSWERED for group in groups) else EXACT
    steps = HALTED_STEPS if any(group.steps == HALTED_STEPS for group in groups) else STEPS
    made = [Chart(exact, axis) for axis in dict.fromkeys([usual, "epochs", "updates", "hours"])]
    made += [Chart(tag, usual) for tag in (PASS_2, Q_HEAD, steps, LOSS, *ENCODER)]
    return [chart for chart in made if any(map(chart.shows, groups))]


def svg(chart: Chart, groups: Sequence[Group]) -> str:
    """The chart as an element of a page, its colours those of the page's style."""
    stream = io.StringIO()
    with matplotlib.rc_context(LOOK | {"svg.hashsalt": f"{chart.tag} {chart.axis}"}):
        figure = Figure(figsize=(4.6, 2.75))
        figure.subplots_adjust(left=0.12, right=0.975, top=0.97, bottom=0.17)
        _draw(figure.subplots(), chart, groups)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg"):].replace(INK, "var(--soft)").replace(PALE, "var(--line)")
    for index, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--g{index})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{chart.title}" ', 1)


def _draw(axes: Axes, chart: Chart, groups: Sequence[Group]) -> None:
    metric, low, high = BY_TAG[chart.tag], np.inf, -np.inf
    for index, group in enumerate(groups):
        if chart.shows(group):
            x, mean, spread = _curve(group, chart)
            low, high, colour = min(low, mean.min()), max(high, mean.max()), COLOURS[index % len(COLOURS)]
            axes.plot(x, mean, color=colour, marker="o" if len(x) < FEW else None,
                      linestyle="-" if index < len(COLOURS) else "--")
            axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.16, linewidth=0)
    for level in GUIDES.get(chart.tag, ()):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
    is_log = metric.log_scale and 0 < 10 * low < high
    axes.set_yscale("log" if is_log else "linear")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)) if is_log else MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(StrMethodFormatter("{x:,g}"))
    if metric.share and not metric.is_evaluation:
        axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.set_xlabel(AXES[chart.axis])


def _curve(group: Group, chart: Chart) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where, mean over the seeds at the same steps, and their standard deviation, as far as all of them came."""
    found = []  # steps and values of each seed, both means over parts of what was logged
    for run in group.sound:
        series = run.series[chart.tag]
        found.append([np.array([part.mean() for part in np.array_split(column, min(PARTS, len(column)))])
                      for column in (series.steps, series.values)])
    steps = found[0][0]
    steps = steps[steps <= max(steps[0], min(ends[-1] for ends, _ in found))]
    places = np.array([np.interp(steps, *run.axes[chart.axis]) for run in group.sound])
    values = np.array([np.interp(steps, at, means) for at, means in found])
    return places.mean(axis=0), values.mean(axis=0), values.std(axis=0) * np.sqrt(len(values) / max(len(values) - 1, 1))
