"""Curves to draw: every metric of every group in 300 cells of its run, whatever the number of logged points.

Shapes: C cells. The line is the mean over a cell and the seeds; the band is one standard deviation, across
seeds or, with one seed, of what was logged within the cell.
"""

from dataclasses import dataclass

import numpy as np

from trm_jax.comparison.judgement.halting import PLAN_MAX_STEPS, Q_HALT_ACCURACY, fewest_steps_of
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.metrics import COLLAPSE_RATIO, LEVELS, METRICS, STEPS, STEPS_PER_SAMPLE, Metric
from trm_jax.comparison.record.series import Series

CELLS = 300
# Okabe and Ito's colours, which stay apart for colour-blind readers, without the yellow that is lost on
# white; runs beyond the seventh repeat the colours with the next dash pattern (lengths of line and gap).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES = ((), (6, 3), (2, 2))


@dataclass(frozen=True, eq=False)
class Line:
    """One metric of one group; (C,) each, NaN in empty cells."""

    group: int
    mean: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class Chart:
    metric: Metric
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Style:
    colour: str
    dash: tuple[int, ...]


def style(group: int) -> Style:
    return Style(COLOURS[group % len(COLOURS)], DASHES[group // len(COLOURS) % len(DASHES)])


def guides(metric: Metric, groups: list[Group]) -> list[float]:
    """Levels to draw across a chart: the thresholds that the verdict uses."""
    if metric.tag == "train/accuracy":
        return list(LEVELS)
    if metric.tag in ("train/q_halt_accuracy", "eval/q_halt_accuracy"):
        return [Q_HALT_ACCURACY]
    if metric.tag == COLLAPSE_RATIO:
        return [1.0]
    if metric.tag in (STEPS, STEPS_PER_SAMPLE):
        drawn = [group for group in groups if group.has(metric.tag)]
        fewest = {fewest_steps_of(group) for group in drawn}
        most = {float(group.setting("arch.halt_max_steps") or PLAN_MAX_STEPS) for group in drawn}
        return sorted(fewest | most)
    return []


def charts(groups: list[Group]) -> list[Chart]:
    """One chart for every metric that some group has logged."""
    made = []
    for metric in METRICS:
        lines = tuple(
            _line(index, group, metric.tag) for index, group in enumerate(groups) if group.has(metric.tag)
        )
        if lines:
            made.append(Chart(metric, lines))
    return made


def cell_edges(group: Group) -> np.ndarray:
    """(C + 1,) steps between which the cells of a group lie; a step on an edge is the cell's before it."""
    return np.linspace(0, max(run.last_step for run in group.runs), CELLS + 1)


def axis_of_cells(group: Group, axis: str) -> np.ndarray:
    """(C,) where the ends of a group's cells lie on `axis`, which the group must have; mean over the seeds.

    Ends and not middles: what a run logs last stands where the run ends.
    """
    ends = cell_edges(group)[1:]
    return np.mean([run.axes[axis](ends) for run in group.runs], axis=0)


def _line(index: int, group: Group, tag: str) -> Line:
    edges = cell_edges(group)
    cells = [_cell_means(run.series[tag], edges) for run in group.runs]
    means = np.stack([mean for mean, _ in cells])
    counts = np.isfinite(means).sum(axis=0)
    filled = np.where(np.isfinite(means), means, 0)
    mean = np.divide(filled.sum(axis=0), counts, out=np.full(CELLS, np.nan), where=counts > 0)
    if group.seeds == 1:
        return Line(index, mean, cells[0][1])
    apart = np.where(np.isfinite(means), (means - mean) ** 2, 0).sum(axis=0)
    spread = np.sqrt(np.divide(apart, counts - 1, out=np.full(CELLS, np.nan), where=counts > 1))
    return Line(index, mean, spread)


def _cell_means(series: Series, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) means and standard deviations of what was logged in each cell; NaN in empty cells."""
    cell = np.clip(np.searchsorted(edges, series.steps, side="left") - 1, 0, CELLS - 1)
    counts = np.bincount(cell, minlength=CELLS)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.bincount(cell, series.values, minlength=CELLS) / counts
        squares = np.bincount(cell, (series.values - means[cell]) ** 2, minlength=CELLS) / counts
    return means, np.where(counts > 1, np.sqrt(squares), np.nan)
