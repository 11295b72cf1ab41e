"""How two sets of seeds differ, and whether that is more than noise; one model for every criterion.

Noise is the half-width of the narrowest of three intervals: Student's t from the spread of the seeds, the same from the
differences of seeds that pair, and the normal interval of the spread that seeds are taken to have, since few hardly
tell their own. What choosing the narrowest costs is part of the simulation that the confidence comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import optimize, special

from trm_jax.comparison.thresholds import THRESHOLDS

Seeds = Mapping[int, float]  # seed → value
CONFIDENCES = (THRESHOLDS.confidence, 2 * THRESHOLDS.equal_confidence - 1)  # of both sides together


class Standing(StrEnum):
    """How one thing stands to another, in the sense in which more is better."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """a − b."""

    value: float
    noise: float  # half-width of its interval at the confidence of a difference; what lies within may be chance
    equal_noise: float  # the same at the confidence of an equality
    pairs: int  # seeds that were compared in pairs, 0 for none

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.noise:.3f}" if not np.isnan(self.value) else "–"

    def standing(self, margin: float) -> Standing:
        """How a stands to b, where differences within `margin` do not matter.

        Apart takes a difference beyond both margin and noise; equal takes both together within the margin.
        """
        if abs(self.value) > max(margin, self.noise):
            return Standing.BETTER if self.value > 0 else Standing.WORSE
        return Standing.EQUAL if abs(self.value) + self.equal_noise <= margin else Standing.UNDECIDED


def difference(a: Seeds, b: Seeds | float, assumed_sd: float, error: float = 0.0) -> Difference:
    """a − b, a threshold or the other side; of seeds that pair, where one side's are all among the other's, only these.

    Seeds are taken to differ by `assumed_sd` at least; `error` is a standard error that has nothing to do with seeds.
    """
    sides, threshold = ([a], b) if isinstance(b, float) else ([a, b], 0.0)
    shared = sorted(set.intersection(*map(set, sides)))
    pairs = len(shared) if len(sides) == 2 and 2 <= len(shared) == min(map(len, sides)) else 0
    x = [np.array([side[seed] for seed in (shared if pairs else side)], float) for side in sides]
    widening = float(np.sqrt(sum(1 / len(values) for values in x)))
    degrees = sum(len(values) - 1 for values in x)
    sd = float(np.sqrt(sum(((values - values.mean()) ** 2).sum() for values in x) / max(degrees, 1)))
    measured = [(sd * widening, degrees)]  # standard errors with their degrees of freedom
    if pairs:
        measured.append((float((x[0] - x[1]).std(ddof=1) / np.sqrt(pairs)), pairs - 1))
    noises = []
    for confidence in CONFIDENCES:
        z = special.ndtri((1 + confidence) / 2)
        widths = [special.stdtrit(degrees, (1 + confidence) / 2) * found for found, degrees in measured if degrees]
        noises.append(float(np.hypot(min([z * max(assumed_sd, sd) * widening, *widths]), z * error)))
    return Difference(float(x[0].mean() - (x[1].mean() if len(x) == 2 else threshold)), noises[0], noises[1], pairs)


def paired_task_error(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Standard error of the difference of two scores over the same tasks, from those on which they disagree: McNemar's.

    Half a task is added to each cell of the table (Agresti and Min 2005): agreeing on a few tasks is not certainty.
    """
    apart = np.array([a[task] - b[task] for task in sorted(a.keys() & b.keys())])
    n = len(apart) + 2
    return float(np.sqrt((apart**2).sum() + 1 - apart.sum() ** 2 / n) / n)


def task_error(shares: Sequence[float], tasks: Sequence[int]) -> float:
    """Standard error of the difference of two shares of solved tasks that are not known task by task.

    With Agresti and Caffo's shares (one success and one failure more): 0 of 32 is not certain."""
    moved = [((share * count + 1) / (count + 2), count + 2) for share, count in zip(shares, tasks, strict=True)]
    return float(np.sqrt(sum(share * (1 - share) / count for share, count in moved)))


def first_at(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """Step at which a noisy curve that rises first stands at `level`, by isotonic regression; infinity for never.

    The first passage of a smoothed curve comes the earlier the noisier it is; that of the best rising fit does not.
    """
    rising = optimize.isotonic_regression(values).x
    at = int(np.searchsorted(rising, level))
    around = slice(max(at - 1, 0), at + 1)
    return float(np.interp(level, rising[around], steps[around])) if at < len(rising) else np.inf


def part_means(values: np.ndarray, count: int) -> np.ndarray:
    """Means over so many equal parts of a curve; of fewer points, the points."""
    return np.array([part.mean() for part in np.array_split(values, min(count, len(values)))])
