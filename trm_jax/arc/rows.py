"""Examples written onto canvases: what a variant shows of a task, and the arrays of a number of such rows."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from trm_jax.arc import augment, grids
from trm_jax.arc.augment import Variant
from trm_jax.arc.grids import Grid, Shape
from trm_jax.arc.tasks import Pair

PADDING = -1  # stands for the number of anything that a padded row does not have


class Placed(NamedTuple):
    """A pair as its variant shows it, and where on the canvas."""

    input: Grid
    output: Grid | None
    offset: Shape


class Visit(NamedTuple):
    """A variant of a task, ready to be written: demonstrations, which its rows share, and a query each."""

    task: int
    demos: list[Placed]
    queries: list[Placed]


def place(
    pairs: Iterable[Pair], variant: Variant, side: int, rng: np.random.Generator | None = None
) -> list[Placed]:
    """Shows pairs as a variant; with `rng` each is shifted by an offset of its own."""
    placed = []
    for pair in pairs:
        found = [None if grid is None else variant.apply(grid) for grid in (pair.input, pair.output)]
        shapes = [grid.shape for grid in found if grid is not None]
        placed.append(Placed(*found, (0, 0) if rng is None else augment.random_offset(rng, shapes, side)))
    return placed


class Rows:
    """The arrays of `count` rows, written one row at a time; rows never written are padding."""

    def __init__(self, count: int, max_demos: int, side: int):
        self._inputs = np.zeros((count, side, side), np.uint8)
        self._answers = np.zeros((count, side, side), np.uint8)
        self._demos = np.zeros((count, max_demos, 2, side, side), np.uint8)
        self._demo_mask = np.zeros((count, max_demos), bool)
        self._task = np.full(count, PADDING, np.int32)
        self._last: tuple[int, Visit] | None = None  # the row before and its visit

    def write(self, row: int, visit: Visit, query: int) -> None:
        """Writes one row of at most `max_demos` demonstrations. A visit's rows should follow one another."""
        placed = visit.queries[query]
        grids.write(placed.input, self._inputs[row], placed.offset)
        if placed.output is not None:
            grids.write(placed.output, self._answers[row], placed.offset)
        if self._last and self._last[1] is visit:
            self._demos[row] = self._demos[self._last[0]]
        else:
            for slot, demo in enumerate(visit.demos):
                grids.write(demo.input, self._demos[row, slot, 0], demo.offset)
                grids.write(demo.output, self._demos[row, slot, 1], demo.offset)
        self._demo_mask[row, : len(visit.demos)] = True
        self._task[row] = visit.task
        self._last = row, visit

    def arrays(self) -> dict[str, np.ndarray]:
        """inputs (B, S), demos (B, K, 2, S) uint8; labels (B, S), task (B,) int32; demo_mask (B, K) bool."""
        count, max_demos = self._demo_mask.shape
        return {
            "inputs": self._inputs.reshape(count, -1),
            "labels": grids.labels(self._answers.reshape(count, -1)),
            "demos": self._demos.reshape(count, max_demos, 2, -1),
            "demo_mask": self._demo_mask,
            "task": self._task,
        }
