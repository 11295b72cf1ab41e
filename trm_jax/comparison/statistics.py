"""How two sets of seeds differ, and whether that is more than noise; one model for every criterion.

A configuration has one value per seed. Noise is the half-width of an interval around a difference: Student's t from
the spread of the seeds or, where that is narrower, the normal interval of the spread that seeds are taken to have
(few seeds cannot tell their own spread: three differ by chance ten times as much as other three). Seeds that both
sides have are compared in pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import optimize, special

from trm_jax.comparison.thresholds import THRESHOLDS

Seeds = Mapping[int, float]  # seed → value


class Standing(StrEnum):
    """How one thing stands to another, in the sense in which more is better."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    UNDECIDED = "undecided"

    def __neg__(self) -> "Standing":
        return {Standing.BETTER: Standing.WORSE, Standing.WORSE: Standing.BETTER}.get(self, self)


@dataclass(frozen=True)
class Difference:
    """a − b.

    Attributes:
        noise: half-width of its interval at the confidence of a difference; what lies within may be chance.
        equal_noise: the same at the confidence of an equality.
        pairs: seeds that were compared in pairs, 0 for none.
    """

    value: float
    noise: float
    equal_noise: float
    pairs: int = 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.noise:.3f}"

    def __neg__(self) -> "Difference":
        return Difference(-self.value, self.noise, self.equal_noise, self.pairs)

    def standing(self, margin: float) -> Standing:
        """How a stands to b, where differences within `margin` do not matter.

        Apart takes a difference larger than both margin and noise; equal takes difference and noise that stay within
        the margin together; everything else is undecided.
        """
        if abs(self.value) > max(margin, self.noise):
            return Standing.BETTER if self.value > 0 else Standing.WORSE
        return Standing.EQUAL if abs(self.value) + self.equal_noise <= margin else Standing.UNDECIDED

    def with_noise(self, error: float) -> "Difference":
        """The same with an independent standard error more."""
        return Difference(self.value, float(np.hypot(self.noise, _quantile(THRESHOLDS.confidence) * error)),
                          float(np.hypot(self.equal_noise, _quantile(2 * THRESHOLDS.equal_confidence - 1) * error)),
                          self.pairs)


def difference(a: Seeds, b: Seeds, assumed_sd: float) -> Difference:
    """a − b, in pairs where every seed of one side is among the other's and there are two or more.

    Args:
        assumed_sd: between the seeds of one configuration.
    """
    shared = sorted(a.keys() & b.keys())
    if 2 <= len(shared) == min(len(a), len(b)):
        apart = np.array([a[seed] - b[seed] for seed in shared])
        n, sd = len(apart), float(apart.std(ddof=1))
        return _interval(float(apart.mean()), sd / np.sqrt(n), n - 1,
                         max(assumed_sd * np.sqrt(2), sd) / np.sqrt(n), pairs=n)
    sides = [np.array(list(side.values()), float) for side in (a, b)]
    degrees = sum(len(side) - 1 for side in sides)
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in sides)
    sd = np.sqrt(squares / degrees) if degrees else 0.0
    widening = np.sqrt(sum(1 / len(side) for side in sides))
    return _interval(float(sides[0].mean() - sides[1].mean()), sd * widening, degrees,
                     max(assumed_sd, sd) * widening)


def above(a: Seeds, threshold: float, assumed_sd: float) -> Difference:
    """a − threshold."""
    values = np.array(list(a.values()), float)
    n, sd = len(values), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return _interval(float(values.mean()) - threshold, sd / np.sqrt(n), n - 1, max(assumed_sd, sd) / np.sqrt(n))


def paired_task_error(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Standard error of the difference of two scores over the same tasks, from the tasks on which they disagree.

    McNemar's, with half a task added to each cell of the table (Agresti and Min 2005), so that two scores that agree on
    every one of a few tasks are not certain to agree on all others.
    """
    apart = np.array([a[task] - b[task] for task in sorted(a.keys() & b.keys())])
    n = len(apart) + 2
    return float(np.sqrt((apart**2).sum() + 1 - apart.sum() ** 2 / n) / n)


def task_error(shares: tuple[float, float], tasks: tuple[int, int]) -> float:
    """Standard error of the difference of two shares of solved tasks that are not known task by task.

    The shares are Agresti and Caffo's (one success and one failure more), so that 0 of 32 is not certain.
    """
    moved = [((share * count + 1) / (count + 2), count + 2) for share, count in zip(shares, tasks, strict=True)]
    return float(np.sqrt(sum(share * (1 - share) / count for share, count in moved)))


def first_at(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """Step at which a noisy curve that rises first stands at `level`, by isotonic regression; infinity for never.

    The first passage of a smoothed curve comes the earlier the noisier it is; that of the best rising fit does not.
    """
    if not len(values):
        return np.inf
    rising = optimize.isotonic_regression(values).x
    there = int(np.searchsorted(rising, level))
    if there == len(rising):
        return np.inf
    if there == 0:
        return float(steps[0])
    share = (level - rising[there - 1]) / (rising[there] - rising[there - 1])
    return float(steps[there - 1] + share * (steps[there] - steps[there - 1]))


def _interval(value: float, error: float, degrees: int, assumed_error: float, pairs: int = 0) -> Difference:
    noises = []
    for confidence in (THRESHOLDS.confidence, 2 * THRESHOLDS.equal_confidence - 1):
        assumed = _quantile(confidence) * assumed_error
        measured = float(special.stdtrit(degrees, (1 + confidence) / 2)) * error if degrees else np.inf
        noises.append(float(min(assumed, measured)))
    return Difference(value, noises[0], noises[1], pairs)


def _quantile(confidence: float) -> float:
    """Standard errors to either side that a normal interval of this confidence has."""
    return float(special.ndtri((1 + confidence) / 2))
