"""How two sets of seeds differ, and whether that is more than noise; one model for every criterion.

A configuration has one value per seed. Noise is the half-width of the narrowest of three intervals around a difference:
Student's t from the spread of the seeds, the same from the differences of seeds that pair, and the normal interval of
the spread that seeds are taken to have, since few seeds hardly tell their own. What choosing the narrowest costs is
part of the simulation that the confidence comes from.
"""

from collections.abc import Mapping, Sequence
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
    """a − b; of seeds that pair, where one side's are all among the other's, only these.

    Args:
        assumed_sd: between the seeds of one configuration.
    """
    shared = sorted(a.keys() & b.keys())
    pairs = len(shared) if 2 <= len(shared) == min(len(a), len(b)) else 0
    x, y = (np.array([side[seed] for seed in (shared if pairs else side)], float) for side in (a, b))
    degrees, widening = len(x) + len(y) - 2, float(np.sqrt(1 / len(x) + 1 / len(y)))
    sd = float(np.sqrt((((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / max(degrees, 1)))
    measured = [(sd * widening, degrees)]
    if pairs:
        measured.append((float((x - y).std(ddof=1) / np.sqrt(pairs)), pairs - 1))
    return _interval(float(x.mean() - y.mean()), measured, max(assumed_sd, sd) * widening, pairs)


def above(a: Seeds, threshold: float, assumed_sd: float) -> Difference:
    """a − threshold."""
    values = np.array(list(a.values()), float)
    n, sd = len(values), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return _interval(float(values.mean()) - threshold, [(sd / np.sqrt(n), n - 1)], max(assumed_sd, sd) / np.sqrt(n))


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


def _interval(value: float, measured: Sequence[tuple[float, int]], assumed_error: float, pairs: int = 0) -> Difference:
    """The narrowest interval of the standard errors that were measured, with their degrees of freedom, and assumed."""
    noises = []
    for confidence in (THRESHOLDS.confidence, 2 * THRESHOLDS.equal_confidence - 1):
        widths = [special.stdtrit(degrees, (1 + confidence) / 2) * error for error, degrees in measured if degrees]
        noises.append(float(min([*widths, _quantile(confidence) * assumed_error])))
    return Difference(value, noises[0], noises[1], pairs)


def _quantile(confidence: float) -> float:
    """Standard errors to either side that a normal interval of this confidence has."""
    return float(special.ndtri((1 + confidence) / 2))
