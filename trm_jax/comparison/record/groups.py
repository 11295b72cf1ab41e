"""Runs of one configuration that differ in the seed only: their means, spreads and differences.

Noise is a half-width: two values differ when they lie further apart than it. Between groups with several
seeds it is the 95 % interval of Student's t with pooled variance. A single seed cannot show the spread of
seeds: where one side has no more, noise is at least a floor, which stands for the spread that seeds are known
to have, and at least twice the slow wandering of that one run.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from trm_jax.comparison.record.metrics import BY_TAG
from trm_jax.comparison.record.runs import Run
from trm_jax.comparison.record.series import MIN_FINAL_POINTS

# 97.5 % quantiles of Student's t by degrees of freedom; beyond the table, the normal distribution's.
T_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
NORMAL_QUANTILE = 1.96
FLOOR_DEGREES = 3  # how much the spread that a floor stands for is believed: as if seen in so many seeds more
MIN_WINDOW_FRACTION = 0.01  # curves are smoothed over this share of the shortest run, or more
MIN_WINDOW_POINTS = 5  # … and over this many points of the run that logs most rarely


@dataclass(frozen=True)
class Estimate:
    """One number of a group."""

    mean: float
    spread: float  # standard deviation across seeds or, with one seed, of its block means; NaN for none
    seeds: int

    @property
    def noise(self) -> float:
        """Half-width of the mean's 95 % interval; with one seed, twice its wandering."""
        if self.seeds > 1:
            return t_quantile(self.seeds - 1) * self.spread / np.sqrt(self.seeds)
        return 0.0 if np.isnan(self.spread) else 2 * self.spread


class Standing(StrEnum):
    """How one value stands to another."""

    ABOVE = "above"
    BELOW = "below"
    EQUAL = "equal"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """a − b and its noise."""

    value: float
    noise: float

    def __neg__(self) -> "Difference":
        return Difference(-self.value, self.noise)

    def standing(self, margin: float) -> Standing:
        """How a stands to b, where differences within `margin` do not matter.

        Apart takes a difference larger than both margin and noise; equal takes difference and noise that stay
        within the margin together; everything else is undecided.
        """
        if abs(self.value) > max(margin, self.noise):
            return Standing.ABOVE if self.value > 0 else Standing.BELOW
        return Standing.EQUAL if abs(self.value) + self.noise <= margin else Standing.UNDECIDED

    def is_not_below(self, margin: float) -> bool:
        """Whether a is at least b's equal, give or take `margin`, even if they cannot be told apart."""
        return self.value - self.noise >= -margin


@dataclass(frozen=True, eq=False)
class Group:
    """One configuration with all its seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def mode(self) -> str:
        return self.runs[0].mode

    @property
    def seeds(self) -> int:
        """Different seeds; runs of the same seed are one."""
        return len({run.setting("train.seed") for run in self.runs})

    @property
    def diverged(self) -> bool:
        return any(run.diverged for run in self.runs)

    def setting(self, name: str) -> Any:
        return self.runs[0].setting(name)

    def has(self, tag: str) -> bool:
        return all(tag in run.series and len(run.series[tag]) for run in self.runs)

    def has_axis(self, axis: str) -> bool:
        return all(axis in run.axes for run in self.runs)

    def final(self, tag: str) -> Estimate:
        """Mean over the last tenth of every run, each of which must have logged the tag."""
        means, spreads = zip(*(run.series[tag].final_mean_and_spread() for run in self.runs), strict=True)
        return estimate(self._by_seed(means), spreads[0])

    def best(self, tag: str, window_steps: float) -> Estimate | None:
        """The best value, in training that of the smoothed curve; None where there is no best."""
        better = BY_TAG[tag].better
        if not better or not self.has(tag):
            return None
        pick = np.max if better == "high" else np.min
        width = 0.0 if BY_TAG[tag].is_evaluation else window_steps
        return estimate(self._by_seed([pick(run.series[tag].smoothed(width).values) for run in self.runs]))

    def reach(self, level: float, axis: str, window_steps: float) -> np.ndarray:
        """Where on `axis` each seed's smoothed train accuracy first is at `level`; infinity for never."""
        steps = [
            run.series["train/accuracy"].smoothed(window_steps).first_reaches(level) for run in self.runs
        ]
        return self._by_seed(
            [
                float(run.axes[axis](step)) if np.isfinite(step) else np.inf
                for run, step in zip(self.runs, steps, strict=True)
            ]
        )

    def is_long_enough(self, tag: str) -> bool:
        """Whether the last tenth of every run holds enough points of `tag` for a final value."""
        return all(len(run.series[tag].final_values()) >= MIN_FINAL_POINTS for run in self.runs)

    def until(self, axis: str, x: float) -> "Group":
        """The group as it was at `x` on `axis`."""
        return replace(self, runs=tuple(run.until(run.axes[axis].step_at(x)) for run in self.runs))

    def _by_seed(self, values: Sequence[float]) -> np.ndarray:
        """One value per run → the mean of each seed: runs that repeat a seed are no independent evidence."""
        seeds = [run.setting("train.seed") for run in self.runs]
        return np.array(
            [
                np.mean([value for value, of in zip(values, seeds, strict=True) if of == seed])
                for seed in dict.fromkeys(seeds)
            ]
        )


def t_quantile(degrees: int) -> float:
    return T_QUANTILES[degrees - 1] if degrees <= len(T_QUANTILES) else NORMAL_QUANTILE


def estimate(values: Iterable[float], spread_of_one: float = np.nan) -> Estimate:
    """Mean and spread of one value per seed; `spread_of_one` is what a single seed says of its own spread."""
    seeds = np.array(list(values), float)
    spread = float(seeds.std(ddof=1)) if len(seeds) > 1 else spread_of_one
    return Estimate(float(seeds.mean()), spread, len(seeds))


def difference(a: Estimate, b: Estimate, floor: float) -> Difference:
    """a − b with its noise; `floor` is the least noise that is believed where a side has one seed."""
    singles = [side for side in (a, b) if side.seeds == 1]
    several = [side for side in (a, b) if side.seeds > 1]
    degrees = sum(side.seeds - 1 for side in several)
    squares = sum((side.seeds - 1) * side.spread**2 for side in several)
    widening = float(np.sqrt(1 / a.seeds + 1 / b.seeds))
    if not singles:
        return Difference(a.mean - b.mean, t_quantile(degrees) * float(np.sqrt(squares / degrees)) * widening)
    # A few seeds on the other side add to what the floor says of their spread, and do not replace it: alone,
    # two seeds that happen to lie apart would make everything noise, and two that do not, nothing.
    of_floor = floor / (t_quantile(FLOOR_DEGREES) * np.sqrt(2))
    degrees += FLOOR_DEGREES
    spread = float(np.sqrt((squares + FLOOR_DEGREES * of_floor**2) / degrees))
    wandering = float(np.hypot.reduce([side.noise for side in singles]))
    return Difference(a.mean - b.mean, max(floor, t_quantile(degrees) * spread * widening, wandering))


def group_runs(runs: list[Run]) -> list[Group]:
    """Groups the runs whose configurations are equal but for `train.seed`; a run without one stays alone."""
    members: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        members.setdefault(_key(run) or f"run {index}", []).append(run)
    labels = [_shared_label([run.label for run in group]) for group in members.values()]
    return [
        Group(label if labels.count(label) == 1 else group[0].label, tuple(group))
        for label, group in zip(labels, members.values(), strict=True)
    ]


def smoothing_window(groups: list[Group]) -> float:
    """One window, in steps, for all runs: how a curve is smoothed changes when it reaches a level."""
    runs = [run for group in groups for run in group.runs]
    spacings = [run.series["train/accuracy"].spacing_steps for run in runs if "train/accuracy" in run.series]
    shortest = min(run.last_step for run in runs)
    return max([MIN_WINDOW_FRACTION * shortest, *(MIN_WINDOW_POINTS * spacing for spacing in spacings)])


def _key(run: Run) -> str | None:
    if not run.config:
        return None
    train = {field: value for field, value in run.config.get("train", {}).items() if field != "seed"}
    return json.dumps({**run.config, "train": train}, sort_keys=True, default=str)


def _shared_label(labels: list[str]) -> str:
    """`o1` for o1_seed0 and o1_seed1."""
    stem = re.sub(r"[-_. ]*(seed|s)[-_. ]*\d+$", "", labels[0]) if len(labels) > 1 else ""
    return stem if stem and all(label.startswith(stem) for label in labels) else labels[0]
