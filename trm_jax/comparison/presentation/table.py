"""All numbers of all groups, once as rows for people and once as plain values for summary.json."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_jax.comparison.judgement.halting import movement, tenths
from trm_jax.comparison.judgement.presets import preset_of, series_of
from trm_jax.comparison.record.groups import Estimate, Group, estimate
from trm_jax.comparison.record.metrics import (
    AXES,
    COLLAPSE_RATIO,
    GRADIENT_SHARE,
    LEVELS,
    METRICS,
    RELATIVE_VAR,
    STEPS,
    STEPS_PER_SAMPLE,
)
from trm_jax.comparison.wording import number, percent, with_spread

NOTHING = "–"
STEP_TAGS = (STEPS_PER_SAMPLE, STEPS)
KEY_AXES = ("epochs", "hours")
KEY_TAGS = (
    "train/accuracy",
    "train/exact_accuracy",
    "eval/pass@2",
    "eval/exact_accuracy",
    "eval/accuracy",
    "train/q_halt_accuracy",
    STEPS_PER_SAMPLE,
    STEPS,
    RELATIVE_VAR,
    COLLAPSE_RATIO,
    GRADIENT_SHARE,
    "perf/samples_per_s",
)


@dataclass(frozen=True)
class Cell:
    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    topic: str
    name: str
    cells: tuple[Cell, ...]  # one per group
    is_key: bool = False  # stands in the short table


def rows(groups: list[Group], window_steps: float) -> list[Row]:
    """Length of training, time to each level of train accuracy, then every metric that was logged."""
    made = [
        Row("Length of training", title, tuple(_length(group, axis) for group in groups), axis in KEY_AXES)
        for axis, title in AXES.items()
    ]
    for level in LEVELS:
        for axis, title in AXES.items():
            cells = tuple(_reach(group, level, axis, window_steps) for group in groups)
            made.append(Row(f"To {percent(level)} train accuracy", title, cells, axis in KEY_AXES))
    for metric in METRICS:
        if not any(group.has(metric.tag) for group in groups):
            continue
        cells = tuple(_metric(group, metric.tag, window_steps) for group in groups)
        made.append(Row(metric.topic, metric.title, cells, metric.tag in KEY_TAGS))
        if metric.tag in STEP_TAGS:
            cells = tuple(_movement(group, metric.tag) for group in groups)
            made.append(
                Row(metric.topic, f"{metric.title}: last tenth − first", cells, metric.tag in KEY_TAGS)
            )
    return made


def as_text(groups: list[Group], made: list[Row]) -> str:
    """The rows in columns for a terminal."""
    lines = [["", *(group.label for group in groups)]]
    topic = None
    for row in made:
        if row.topic != topic:
            topic = row.topic
            lines.append([topic])
        cells = [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells]
        lines.append([f"  {row.name}", *cells])
    widths = [
        max(len(line[column]) for line in lines if len(line) > column) for column in range(len(groups) + 1)
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in lines
    )


def values(group: Group, window_steps: float) -> dict[str, Any]:
    """Everything the table says of one group, as plain numbers; None where there is nothing to say."""
    return {
        "label": group.label,
        "mode": group.mode,
        "mode_is_inferred": group.runs[0].mode_is_inferred,
        "series": series_of(group),
        "preset": preset_of(group),
        "runs": [
            {
                "path": str(run.path),
                "label": run.label,
                "seed": run.setting("train.seed"),
                "progress": run.progress,
                "length": run.end | {"batches": run.last_step},
                "missing_axes": run.missing_axes,
                "notes": list(run.notes),
            }
            for run in group.runs
        ],
        "final": {m.tag: _plain(group.final(m.tag)) for m in METRICS if group.has(m.tag)},
        "best": {
            m.tag: _plain(group.best(m.tag, window_steps)) for m in METRICS if group.has(m.tag) and m.better
        },
        "reach": {
            str(level): {
                axis: _reached(group, level, axis, window_steps) for axis in AXES if group.has_axis(axis)
            }
            for level in LEVELS
        },
    }


def _length(group: Group, axis: str) -> Cell:
    if not group.has_axis(axis):
        return Cell("unknown")
    ends = estimate([run.end[axis] for run in group.runs])
    return Cell(with_spread(ends.mean, ends.spread))


def _reached(group: Group, level: float, axis: str, window_steps: float) -> list[float | None]:
    """The time of each seed; None for a seed that never got there."""
    if not group.has("train/accuracy"):
        return [None] * group.seeds
    times = group.reach(level, axis, window_steps)
    return [float(time) if np.isfinite(time) else None for time in times]


def _reach(group: Group, level: float, axis: str, window_steps: float) -> Cell:
    if not group.has_axis(axis):
        return Cell("unknown")
    if not group.has("train/accuracy"):
        return Cell(NOTHING)
    there = [time for time in _reached(group, level, axis, window_steps) if time is not None]
    if not there:
        return Cell("never")
    mean = estimate(there)
    note = "" if len(there) == group.seeds else f"{len(there)} of {group.seeds} seeds"
    return Cell(with_spread(mean.mean, mean.spread), note)


def _metric(group: Group, tag: str, window_steps: float) -> Cell:
    if not group.has(tag):
        return Cell(NOTHING)
    final, best = group.final(tag), group.best(tag, window_steps)
    return Cell(with_spread(final.mean, final.spread), f"best {number(best.mean)}" if best else "")


def _movement(group: Group, tag: str) -> Cell:
    """Trend and range of the tenths of a run, mean over the seeds."""
    if not group.has(tag):
        return Cell(NOTHING)
    means = [tenths(run.series[tag])[0] for run in group.runs]
    trend = np.mean([mean[-1] - mean[0] for mean in means])
    widest = np.mean([movement(run.series[tag])[0] for run in group.runs])
    return Cell(f"{trend:+.2f}", f"range {number(float(widest))}")


def _plain(value: Estimate | None) -> dict[str, float | int | None] | None:
    """Strict JSON knows no NaN."""
    if value is None:
        return None
    return {
        "mean": value.mean,
        "spread": value.spread if math.isfinite(value.spread) else None,
        "seeds": value.seeds,
    }
