"""The curves that a verdict rests on, as SVG that takes its colours from the page around it."""

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trm_jax.comparison.criteria import exact_tag
from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.runs import AXES, Run
from trm_jax.comparison.thresholds import THRESHOLDS
from trm_jax.metric_table import ANSWERED, BY_TAG, EXACT, HALTED_STEPS, LOSS, Q_HEAD, STEPS

# matplotlib refuses to be imported where MPLBACKEND names a backend that is not installed here. A notebook hands its
# own on to the commands that it starts; pictures here are files and need none.
_named = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
import matplotlib  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: E402

if _named is not None:
    os.environ["MPLBACKEND"] = _named

# Okabe and Ito's colours, which stay apart for colour-blind readers, without the yellow that is lost on white; groups
# beyond the seventh repeat them dashed. The page has its own for the dark, by the same numbers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
INK, PALE = "#333334", "#ddddde"  # not to be taken for a colour of a curve when the page puts its own in their place
CELLS = 150  # a curve is the mean over so many parts of the longest run
FEW = 40  # points that are drawn one by one
TAGS = ("eval/pass@2", Q_HEAD, HALTED_STEPS, STEPS, LOSS, "train/encoder_relative_var", "train/encoder_collapse_ratio")


@dataclass(frozen=True)
class Chart:
    tag: str
    axis: str
    groups: tuple[int, ...]  # those that have it

    @property
    def title(self) -> str:
        return f"{BY_TAG[self.tag].title}, by {AXES[self.axis]}"


def charts(groups: Sequence[Group], axis: str | None = None) -> list[Chart]:
    """Exact accuracy by every axis that the runs share, then what else the criteria look at; nothing that is empty."""
    usual = axis or usual_axis(groups)
    exact = next((tag for tag in (ANSWERED, EXACT) if any(exact_tag(group) == tag for group in groups)), "")
    wanted = [(exact, found) for found in dict.fromkeys([usual, "epochs", "updates", "hours"]) if exact and found]
    has_halted = any(group.has(HALTED_STEPS) for group in groups)
    wanted += [(tag, usual) for tag in TAGS if not (tag == STEPS and has_halted)]
    made = [Chart(tag, x, tuple(i for i, group in enumerate(groups) if _has_data(group, tag, x))) for tag, x in wanted]
    return [chart for chart in made if chart.groups]


def usual_axis(groups: Sequence[Group]) -> str:
    """The first axis that all groups have and are equally long on, or else the first that all have."""
    shared = [axis for axis in ("epochs", "updates", "samples", "hours") if all(g.has_axis(axis) for g in groups)]
    return next((axis for axis in shared if equally_long(axis, *groups)), (shared or ["hours"])[0])


def svg(chart: Chart, groups: Sequence[Group]) -> str:
    """The chart as an element of a page, its colours those of the page's style."""
    figure = Figure(figsize=(4.6, 2.75))
    FigureCanvasSVG(figure)
    figure.subplots_adjust(left=0.12, right=0.975, top=0.97, bottom=0.17)
    axes = figure.subplots()
    _draw(axes, chart, groups)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{chart.tag} {chart.axis}"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg"):].replace(INK, "var(--soft)").replace(PALE, "var(--line)")
    for index, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--g{index})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{chart.title}" ', 1)


def _draw(axes: Axes, chart: Chart, groups: Sequence[Group]) -> None:
    drawn = []
    for index in chart.groups:
        x, mean, spread = _curve(groups[index], chart)
        drawn.append(mean)
        axes.plot(x, mean, color=_colour(index), dashes=_dash(index), linewidth=1.7,
                  marker="o" if len(x) < FEW else None, markersize=3.5)
        axes.fill_between(x, mean - spread, mean + spread, color=_colour(index), alpha=0.16, linewidth=0)
    metric = BY_TAG[chart.tag]
    for level in _guides(chart, groups):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
    everything = np.concatenate(drawn)
    if metric.log_scale and everything.min() > 0 and everything.max() > 10 * everything.min():
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    if metric.share and not metric.is_evaluation:
        axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.set_xlabel(AXES[chart.axis], fontsize=8.5, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=PALE, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)


def _curve(group: Group, chart: Chart) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where, mean over the seeds, and one standard deviation: across seeds or, with one, of what was logged there."""
    found = [_points(run, chart) for run in group.runs if run.has(chart.tag)]
    end = max(x[-1] for x, _ in found)
    cells = min(CELLS, max(len(x) for x, _ in found))
    table = np.full((2, len(found), cells), np.nan)  # x and value per run
    within = np.zeros(cells)
    for run, (x, values) in enumerate(found):
        cell = np.clip(np.ceil(x / end * cells).astype(int) - 1, 0, cells - 1)
        counts = np.bincount(cell, minlength=cells)
        with np.errstate(invalid="ignore"):
            table[:, run] = [np.bincount(cell, column, minlength=cells) / counts for column in (x, values)]
            within = np.sqrt(np.bincount(cell, (values - table[1, run][cell]) ** 2, minlength=cells) / counts)
    there = np.isfinite(table[1]).any(axis=0)
    table = table[:, :, there]
    spread = np.nanstd(table[1], axis=0) * np.sqrt(len(found) / (len(found) - 1)) if len(found) > 1 else within[there]
    return np.nanmean(table[0], axis=0), np.nanmean(table[1], axis=0), spread


def _points(run: Run, chart: Chart) -> tuple[np.ndarray, np.ndarray]:
    series = run.series[chart.tag]
    return np.array([run.axes[chart.axis](step) for step in series.steps]), series.values


def _has_data(group: Group, tag: str, axis: str) -> bool:
    """Logged, and in the case of a score not nothing but zeros."""
    if not group.has(tag) or not group.has_axis(axis):
        return False
    return not BY_TAG[tag].is_evaluation or any(run.series[tag].values.any() for run in group.runs if run.has(tag))


def _guides(chart: Chart, groups: Sequence[Group]) -> list[float]:
    """Levels to draw across a chart: the thresholds that the verdict uses."""
    if chart.tag in (ANSWERED, EXACT):
        return list(THRESHOLDS.levels)
    if chart.tag == Q_HEAD:
        return [THRESHOLDS.q_halt_accuracy]
    if chart.tag in (HALTED_STEPS, STEPS):
        return sorted({float(groups[i].runs[0].setting("arch.halt_max_steps") or 0) for i in chart.groups} - {0.0})
    return []


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _dash(index: int) -> tuple[float | None, ...]:
    return (None, None) if index < len(COLOURS) else (5, 2.5)
