"""What a run can be laid over other runs by: optimiser updates, samples seen, epochs, wall-clock hours.

An axis that cannot be computed is missing with a reason, never guessed: of a PyTorch run without its
all_config.yaml, batch size and number of groups are not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_jax.comparison.record.events import Events
from trm_jax.comparison.record.metrics import SAMPLES
from trm_jax.comparison.record.series import Series


@dataclass(frozen=True, eq=False)
class Axis:
    """Piecewise linear from batches done to updates, samples, epochs or hours; prolonged at both ends."""

    steps: np.ndarray
    x: np.ndarray

    def __call__(self, steps: np.ndarray | float) -> np.ndarray:
        return _prolonged_interp(np.asarray(steps, float), self.steps, self.x)

    def step_at(self, x: float) -> float:
        return float(_prolonged_interp(np.asarray(x, float), self.x, self.steps))


def axes_of(events: Events, config: Mapping[str, Any], mode: str) -> tuple[dict[str, Axis], dict[str, str]]:
    """The axes of a run, keyed as metrics.AXES, and the reasons of those it has not."""
    mode_section, data = config.get("mode", {}), config.get("data", {})
    batch_size, groups = data.get("global_batch_size"), data.get("max_train_groups")
    axes, missing = {}, {}

    if mode == "original":
        axes["updates"] = _proportional(1)
    elif mode_section.get("num_act_steps"):
        axes["updates"] = _proportional(mode_section["num_act_steps"])
    else:
        missing["updates"] = "no configuration: the updates per batch are not known"

    if _has_points(events, SAMPLES):
        axes["samples"] = _logged(events.series[SAMPLES])
    elif batch_size:
        axes["samples"] = _proportional(batch_size)
    else:
        missing["samples"] = "neither train/samples nor a batch size"

    if _has_points(events, "train/epoch"):
        axes["epochs"] = _logged(events.series["train/epoch"])
    elif batch_size and groups:
        axes["epochs"] = _proportional(batch_size / groups)
    else:
        missing["epochs"] = "neither train/epoch nor a batch size and a number of groups"

    hours = _hours(events)
    if hours is None:
        missing["hours"] = "a single logged step has no duration"
    else:
        axes["hours"] = hours
    return axes, missing


def _has_points(events: Events, tag: str) -> bool:
    return tag in events.series and len(events.series[tag]) > 0


def _proportional(rate: float) -> Axis:
    return Axis(np.array([0.0, 1.0]), np.array([0.0, float(rate)]))


def _logged(series: Series) -> Axis:
    """An axis that the run logged itself; it starts at 0."""
    after_start = series.steps > 0
    steps, x = series.steps[after_start].astype(float), series.values[after_start]
    return Axis(np.concatenate([[0.0], steps]), np.maximum.accumulate(np.concatenate([[0.0], x])))


def _hours(events: Events) -> Axis | None:
    """Hours that a process was writing this run; the time between two sessions does not count."""
    densest = max(events.series.values(), key=len)
    if len(densest) < 2:
        return None
    knots, elapsed = [], []
    total = 0.0
    end = -np.inf
    for first, last in sorted(events.sessions_s):
        first = max(first, end)  # two writers at once count once
        if last > first:
            knots += [first, last]
            elapsed += [total, total + last - first]
            total, end = elapsed[-1], last
    if not total:
        return None
    hours = np.interp(densest.wall_s, knots, elapsed) / 3600
    return Axis(densest.steps.astype(float), np.maximum.accumulate(hours))


def _prolonged_interp(x: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation, with the mean slope beyond the last knot and flat before the first."""
    slope = (values[-1] - values[0]) / (knots[-1] - knots[0]) if knots[-1] > knots[0] else 0.0
    return np.interp(x, knots, values) + np.maximum(x - knots[-1], 0) * slope
