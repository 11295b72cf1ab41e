"""Examples written onto canvases: what a variant shows of a task, and the arrays of a number of such rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from trm_jax.data.arc import augment, grids
from trm_jax.data.arc.augment import Variant
from trm_jax.data.arc.grids import Shape
from trm_jax.data.arc.tasks import Pair

PADDING = -1  # stands for the number of anything that a padded row does not have


class Placed(NamedTuple):
    """A pair as its variant shows it, and where on the canvas."""

    pair: Pair
    offset: Shape

    def write(self, input_canvas: np.ndarray, output_canvas: np.ndarray) -> None:
        """Onto (side, side) canvases of PAD; an unknown output leaves its canvas alone."""
        grids.write(self.pair.input, input_canvas, self.offset)
        if self.pair.output is not None:
            grids.write(self.pair.output, output_canvas, self.offset)


class Visit(NamedTuple):
    """A variant of a task, ready to be written: demonstrations, which its rows share, and a query each.

    `table_row` is the variant's row in an embedding table, 0 where there is none.
    """

    task: int
    demos: list[Placed]
    queries: list[Placed]
    table_row: int = 0


def place(
    pairs: Iterable[Pair], variant: Variant, side: int, rng: np.random.Generator | None = None
) -> list[Placed]:
    """Shows pairs as a variant; with `rng` each is shifted by an offset of its own."""
    placed = []
    for pair in pairs:
        shown = Pair(variant.apply(pair.input), None if pair.output is None else variant.apply(pair.output))
        offset = (0, 0) if rng is None else augment.random_offset(rng, shown.shapes, side)
        placed.append(Placed(shown, offset))
    return placed


class Rows:
    """The arrays of `count` rows, written one row at a time; rows never written are padding."""

    def __init__(self, count: int, max_demos: int, side: int):
        self._inputs = np.zeros((count, side, side), np.uint8)
        self._answers = np.zeros((count, side, side), np.uint8)
        self._demos = np.zeros((count, max_demos, 2, side, side), np.uint8)
        self._demo_mask = np.zeros((count, max_demos), bool)
        self._task = np.full(count, PADDING, np.int32)
        self._table_row = np.zeros(count, np.int32)
        self._last: tuple[int, Visit] | None = None  # the row before and its visit

    def write(self, row: int, visit: Visit, query: int) -> None:
        """Writes one row of at most `max_demos` demonstrations. A visit's rows should follow one another."""
        visit.queries[query].write(self._inputs[row], self._answers[row])
        if self._last and self._last[1] is visit:
            self._demos[row] = self._demos[self._last[0]]
        else:
            for slot, demo in enumerate(visit.demos):
                demo.write(*self._demos[row, slot])
        self._demo_mask[row, : len(visit.demos)] = True
        self._task[row] = visit.task
        self._table_row[row] = visit.table_row
        self._last = row, visit

    def arrays(self) -> dict[str, Any]:
        """inputs (B, S), demos (B, K, 2, S) uint8; labels (B, S), task, row (B,) int32; demo_mask (B, K) bool."""
        count, max_demos = self._demo_mask.shape
        return {
            "inputs": self._inputs.reshape(count, -1),
            "labels": grids.labels(self._answers.reshape(count, -1)),
            "demos": self._demos.reshape(count, max_demos, 2, -1),
            "demo_mask": self._demo_mask,
            "task": self._task,
            "row": self._table_row,
        }
