"""The curves that a verdict rests on, as SVG that takes its colours from the page around it."""

import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trm_jax.comparison.groups import Group, equally_long
from trm_jax.comparison.runs import AXES
from trm_jax.comparison.statistics import part_means
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

# Stand for colours of the page's style, which knows light and dark; groups beyond the last colour repeat them dashed.
INK, PALE, COLOURS = "#0000e0", "#0000e1", [f"#0000f{index}" for index in range(7)]
LOOK: dict[Any, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": PALE, "axes.grid": True,
    "axes.labelcolor": INK, "axes.axisbelow": True, "grid.color": PALE, "grid.linewidth": 0.6, "xtick.color": PALE,
    "ytick.color": PALE, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "lines.linewidth": 1.7,
    "lines.markersize": 3.5, "svg.fonttype": "none"}
PARTS = 150  # a curve is drawn as the means over so many parts of what was logged
ENCODER = "train/encoder_relative_var", "train/encoder_collapse_ratio"
GUIDES = {ANSWERED: THRESHOLDS.levels, EXACT: THRESHOLDS.levels, Q_HEAD: (THRESHOLDS.q_halt_accuracy,)}


def charts(groups: Sequence[Group], axis: str | None = None) -> list[tuple[str, str]]:
    """Title and SVG of exact accuracy by every axis, then of what else the criteria look at; nothing that is empty.

    The usual `axis` is by default the first that all groups have and are equally long on, else that all have.
    """
    shared = [axis for axis in AXES if all(group.has_axis(axis) for group in groups)]
    usual = axis or next((axis for axis in shared if equally_long(axis, *groups)), (shared or ["hours"])[0])
    exact = ANSWERED if any(group.exact == ANSWERED for group in groups) else EXACT
    steps = HALTED_STEPS if any(group.steps == HALTED_STEPS for group in groups) else STEPS
    wanted = [(exact, axis) for axis in dict.fromkeys([usual, "epochs", "updates", "hours"])]
    wanted += [(tag, usual) for tag in (PASS_2, Q_HEAD, steps, LOSS, *ENCODER)]
    return [_chart(tag, axis, shown) for tag, axis in wanted if (
        shown := {index: group for index, group in enumerate(groups) if _has_curve(group, tag, axis)})]


def _has_curve(group: Group, tag: str, axis: str) -> bool:
    """It was logged and, in the case of a score, is not nothing but zeros."""
    return group.has(tag) and group.has_axis(axis) and (
        not BY_TAG[tag].is_evaluation or any(run.series[tag].values.any() for run in group.sound))


def _chart(tag: str, axis: str, groups: Mapping[int, Group]) -> tuple[str, str]:
    """Title, and the chart as an element of a page, its colours those of the page's style."""
    title, stream = f"{BY_TAG[tag].title}, by {AXES[axis]}", io.StringIO()
    with matplotlib.rc_context(LOOK | {"svg.hashsalt": f"{tag} {axis}"}):
        figure = Figure(figsize=(4.6, 2.75))
        figure.subplots_adjust(left=0.12, right=0.975, top=0.97, bottom=0.17)
        _draw(figure.subplots(), tag, axis, groups)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue().partition("<svg")[2].replace(INK, "var(--soft)").replace(PALE, "var(--line)")
    return title, f'<svg role="img" aria-label="{title}"' + re.sub("#0000f(.)", r"var(--g\1)", text)


def _draw(axes: Axes, tag: str, axis: str, groups: Mapping[int, Group]) -> None:
    metric, low, high = BY_TAG[tag], np.inf, -np.inf
    for index, group in groups.items():
        x, mean, spread = _curve(group, tag, axis)
        low, high, colour = min(low, mean.min()), max(high, mean.max()), COLOURS[index % len(COLOURS)]
        axes.plot(x, mean, color=colour, marker="o" if len(x) < 40 else None,
                  linestyle="-" if index < len(COLOURS) else "--")
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.16, linewidth=0)
    for level in GUIDES.get(tag, ()):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (1, 3)))
    is_log = metric.log_scale and 0 < 10 * low < high
    axes.set(xlabel=AXES[axis], xlim=(0, None), yscale="log" if is_log else "linear")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)) if is_log else MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(StrMethodFormatter("{x:,g}"))
    if metric.share and not metric.is_evaluation:
        axes.set_ylim(0, 1.02)


def _curve(group: Group, tag: str, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where, mean over the seeds at the same steps, and their standard deviation, as far as all of them came."""
    found = [[part_means(column, PARTS) for column in (run.series[tag].steps, run.series[tag].values)]
             for run in group.sound]  # steps and values of each seed
    steps = found[0][0]
    steps = steps[steps <= max(steps[0], min(ends[-1] for ends, _ in found))]
    places = np.array([np.interp(steps, *run.axes[axis]) for run in group.sound])
    values = np.array([np.interp(steps, at, means) for at, means in found])
    return places.mean(axis=0), values.mean(axis=0), values.std(axis=0) * np.sqrt(len(values) / max(len(values) - 1, 1))
