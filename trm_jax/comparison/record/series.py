"""One scalar over a training run, and what is read off it: smoothed curve, last part, step of a level.

Shapes: N logged points. A *step* is one batch, whatever the training mode does with it.
"""

from dataclasses import dataclass, field, replace

import numpy as np

FINAL_FRACTION = 0.1  # "final" means the last tenth of a run's steps
MIN_FINAL_POINTS = 4  # fewer points than this in the last tenth: the run is too short to have a final value
FINAL_BLOCKS = 5  # the last tenth is cut into this many blocks, whose means show its slow wandering


def _no_points() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class Series:
    """Finite values in order of steps; points that were logged as NaN or infinite are kept apart."""

    steps: np.ndarray  # (N,) batches done, strictly increasing
    values: np.ndarray  # (N,) float64
    wall_s: np.ndarray = field(default_factory=_no_points)  # (N,) s since 1970; empty for derived series
    bad_steps: np.ndarray = field(default_factory=_no_points)  # steps of the values that are not finite

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def spacing_steps(self) -> float:
        """Median distance of two logged points; 0 with fewer than two."""
        return float(np.median(np.diff(self.steps))) if len(self) > 1 else 0.0

    def until(self, step: float) -> "Series":
        """The series as it was when `step` batches were done."""
        keep = self.steps <= step
        wall_s = self.wall_s[keep] if len(self.wall_s) else self.wall_s
        return Series(self.steps[keep], self.values[keep], wall_s, self.bad_steps[self.bad_steps <= step])

    def as_counter(self) -> "Series":
        """The series of something counted, with what a restart at zero has lost put back."""
        rise = np.diff(self.values, prepend=0.0)
        return replace(self, values=np.cumsum(np.where(rise < 0, self.values, rise)))

    def smoothed(self, window_steps: float) -> "Series":
        """Centred mean over `window_steps`.

        The window is in steps and not in points: runs that log at different intervals are smoothed alike.
        """
        low = np.searchsorted(self.steps, self.steps - window_steps / 2, side="left")
        high = np.searchsorted(self.steps, self.steps + window_steps / 2, side="right")
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        return Series(self.steps, (sums[high] - sums[low]) / (high - low), self.wall_s, self.bad_steps)

    def final_values(self) -> np.ndarray:
        """Values of the last tenth of the steps; at least the last value, where there is one."""
        if not len(self):
            return self.values
        return self.values[self.steps >= (1 - FINAL_FRACTION) * self.steps[-1]]

    def final_mean_and_spread(self) -> tuple[float, float]:
        """Mean of the last tenth, and the standard deviation of its block means (NaN with a single point).

        Block means and not single points: the noise of a batch averages out, what stays is how far the run
        still drifts and wanders, which is the nearest thing to the spread between seeds that one seed can
        show.
        """
        values = self.final_values()
        if not len(values):
            return np.nan, np.nan
        if len(values) == 1:
            return float(values[0]), np.nan
        blocks = np.array_split(values, min(FINAL_BLOCKS, len(values)))
        return float(values.mean()), float(np.std([block.mean() for block in blocks], ddof=1))

    def first_reaches(self, level: float) -> float:
        """Step, interpolated, at which the series first stands at `level` or above; infinity for never."""
        above = np.flatnonzero(self.values >= level)
        if not len(above):
            return np.inf
        after = above[0]
        if after == 0:
            return float(self.steps[0])
        before = after - 1
        share = (level - self.values[before]) / (self.values[after] - self.values[before])
        return float(self.steps[before] + share * (self.steps[after] - self.steps[before]))

    def diverged(self) -> bool:
        """Whether most of what was logged in the last tenth is not finite."""
        if not len(self.bad_steps):
            return False
        start = (1 - FINAL_FRACTION) * max(self.bad_steps[-1], self.steps[-1] if len(self) else 0)
        return int((self.bad_steps >= start).sum()) > int((self.steps >= start).sum())
