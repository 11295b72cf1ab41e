"""The rows of one evaluation: every query of every chosen variant of every task, exactly once.

Rows run over tasks, within a task over its variants, within a variant over its queries. Variant 0 is the
identity; the others are a pure function of (seed, task id): more variants continue the list of fewer.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from trm_jax.data.arc import augment, grids
from trm_jax.data.arc.augment import Variant
from trm_jax.data.arc.rows import PADDING
from trm_jax.data.arc.table import Table
from trm_jax.data.arc.tasks import Task
from trm_jax.data.arc.voting import Votes


class Place(NamedTuple):
    """Where a row stands: index of the task in the plan, number of the variant, index of the query."""

    task: int
    variant: int
    query: int


class EvalPlan:
    """`len(plan)` rows; `plan.locate(row)` says what a row is.

    Args:
      tasks: in the order of the rows.
      variants: per task, at least 1; of a task with fewer rows in the table, those that it has.
      seed: of the random variants, not negative.
      colours: whether these permute the colours.
      table: the embedding table in which the model looks variants up, None for a model that reads demonstrations.
    Raises:
      ValueError: no task, or a number of variants that no task has.
      TaskError: a task or variant that has no row in the table.
    """

    def __init__(self, tasks: Sequence[Task], variants: int, seed: int, table: Table | None = None,
                 colours: bool = True):
        if not tasks:
            raise ValueError("no task to evaluate")
        if not 1 <= variants <= augment.most_variants(colours):
            raise ValueError(f"{variants} variants per task: 1 to {augment.most_variants(colours)} are possible")
        if table is not None:
            table.check(tasks, variants)
        self.tasks = tuple(tasks)
        self.variants = variants
        self._seed, self._colours = seed, colours
        self._table = table
        self._counts = [variants if table is None else min(variants, table.held(task.id)) for task in tasks]
        rows = (count * len(task.queries) for count, task in zip(self._counts, tasks, strict=True))
        self._first_row = np.cumsum([0, *rows])  # and the end
        self._of_task = functools.lru_cache(maxsize=16)(self._draw)  # batches visit tasks in order

    def __len__(self) -> int:
        return int(self._first_row[-1])

    def locate(self, row: int) -> Place:
        """Raises IndexError unless 0 ≤ row < len(plan)."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        task = int(np.searchsorted(self._first_row, row, side="right")) - 1
        variant, query = divmod(row - int(self._first_row[task]), len(self.tasks[task].queries))
        return Place(task, variant, query)

    def variant(self, task: int, number: int) -> Variant:
        """Variant `number` of the task with index `task`."""
        return self._of_task(task)[number]

    def table_row(self, task: int, number: int) -> int:
        """Row of variant `number` of a task in the embedding table, 0 without one."""
        return 0 if self._table is None else self._table.row(self.tasks[task].id, number)

    def variant_number(self, place: Place) -> int:
        """Running number of (task, variant), which the queries of a variant share."""
        return place.task * self.variants + place.variant

    def vote(self, votes: Votes, rows: Iterable[int], tokens: np.ndarray, q_halt: Iterable[float]) -> None:
        """Casts a batch's predictions, mapped back, as votes. Padded rows are skipped wherever they stand.

        Args:
          rows: (B,) row numbers, PADDING for padded ones.
          tokens: (B, S) predicted tokens.
          q_halt: (B,) logits.
        """
        side = math.isqrt(tokens.shape[-1])
        for row, canvas, logit in zip(rows, tokens, q_halt, strict=True):
            if row == PADDING:
                continue
            place = self.locate(int(row))
            grid = grids.crop(canvas, side)
            if grid is not None:
                grid = self.variant(place.task, place.variant).invert(grid)
            votes.add(self.tasks[place.task].id, place.query, place.variant, grid, float(logit))

    def _draw(self, task: int) -> list[Variant]:
        task_id, count = self.tasks[task].id, self._counts[task]
        if self._table is None:
            return augment.fixed_variants(task_id, count, self._seed, self._colours)
        return self._table.variants(task_id, count, self._seed, self._colours)
