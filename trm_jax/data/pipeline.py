"""Rows → batches, made in background threads and resumable.

B rows of the global batch, K = max_demos demonstration slots, S = side² tokens. Every row is a pure function
of the seed and its number: a position in the data is one integer, `get_state()` and `set_state()` of the
iterators resume exactly, and batches do not depend on the number P of processes, which make their share each.
"""

import functools
import math
import sys
from collections.abc import Sequence

import grain
import numpy as np
from flax import struct

from trm_jax.data.arc import rows
from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.rows import PADDING, Rows, Visit
from trm_jax.data.arc.tasks import Task, TaskError
from trm_jax.data.sampling import Sampler
from trm_jax.data.split import DataConfig
from trm_jax.dynamics.act import Batch
from trm_jax.errors import ConfigError

# Making a batch holds the interpreter lock nearly throughout: more threads would not make more batches.
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def train_batches(
    train: Sequence[Task],
    config: DataConfig,
    *,
    seed: int,
    max_demos: int,
    process_index: int,
    process_count: int,
) -> grain.DatasetIterator:
    """This process's share, B/P rows each, of an endless sequence of `Batch`es.

    `sampling` says which rows they are. With `config.augment` a visit shows a random variant and a random choice of
    at most `max_demos` demonstrations, each pair shifted on the canvas; without, the task as it is.

    Raises:
      TaskError: no task to train on.
      ConfigError: the batch does not divide by the processes.
    """
    if not train:
        side = config.max_grid_size
        raise TaskError(f"{config.source}: no train task fits {side}x{side} and has a known answer beside a "
                        "demonstration")
    share = _share(config.global_batch_size, process_index, process_count)
    sampler = Sampler(train, config, seed, max_demos)
    batches = grain.MapDataset.source(
        _TrainBatches(sampler, config.max_grid_size, config.global_batch_size, max_demos, share))
    return iter(batches.to_iter_dataset(_READ))


def eval_batches(
    plan: EvalPlan,
    *,
    side: int,
    batch_size: int,
    max_demos: int,
    process_index: int,
    process_count: int,
    first_batch: int = 0,
) -> grain.DatasetIterator:
    """This process's share, B/P rows each, of the `EvalBatch`es of a plan from number `first_batch` on.

    Every row of the plan comes exactly once, with the first `max_demos` demonstrations, never shifted. Labels
    of a query without a known answer are IGNORE throughout.

    Raises:
      ConfigError: the batch does not divide by the processes.
    """
    share = _share(batch_size, process_index, process_count)
    batches = grain.MapDataset.source(_EvalBatches(plan, side, batch_size, max_demos, share))
    return iter(batches[first_batch:].to_iter_dataset(_READ))


def _share(batch_size: int, process_index: int, process_count: int) -> range:
    """This process's rows within each global batch."""
    if batch_size % process_count:
        raise ConfigError(f"a batch of {batch_size} rows does not divide by {process_count} processes")
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


class _TrainBatches:
    """Batches by number, for grain."""

    def __init__(self, sampler: Sampler, side: int, batch_size: int, max_demos: int, share: range):
        self._sampler = sampler
        self._side = side
        self._batch_size = batch_size
        self._max_demos = max_demos
        self._share = share

    def __len__(self) -> int:
        return sys.maxsize  # grain's own number for an endless repetition

    def __getitem__(self, number: int) -> Batch:
        written = Rows(len(self._share), self._max_demos, self._side)
        visit = functools.lru_cache(maxsize=1)(self._sampler.visit)
        for i, row in enumerate(self._share):
            place = self._sampler.locate(number * self._batch_size + row)
            written.write(i, visit(place.epoch, place.task), place.query)
        return Batch(**written.arrays())


class EvalBatch(struct.PyTreeNode):
    """A batch and where its rows stand in the plan.

    Attributes:
      row: (B,) int32 row of the plan; PADDING (-1) for the rows that fill up the last batch, which have no
        demonstrations, no labels and no task, and count for nothing.
      variant: (B,) int32 running number of (task, variant), or PADDING. Rows of a variant are adjacent and
        have the same demonstrations.
    """

    batch: Batch
    row: np.ndarray
    variant: np.ndarray


class _EvalBatches:
    """Batches by number, for grain."""

    def __init__(self, plan: EvalPlan, side: int, batch_size: int, max_demos: int, share: range):
        self._plan = plan
        self._side = side
        self._batch_size = batch_size
        self._max_demos = max_demos
        self._share = share

    def __len__(self) -> int:
        return math.ceil(len(self._plan) / self._batch_size)

    def __getitem__(self, number: int) -> EvalBatch:
        count = len(self._share)
        written = Rows(count, self._max_demos, self._side)
        row, variant = np.full(count, PADDING, np.int32), np.full(count, PADDING, np.int32)
        visit = functools.lru_cache(maxsize=1)(self._visit)
        first = number * self._batch_size + self._share.start
        for i in range(min(count, len(self._plan) - first)):
            place = self._plan.locate(first + i)
            written.write(i, visit(place.task, place.variant), place.query)
            row[i], variant[i] = first + i, self._plan.variant_number(place)
        return EvalBatch(Batch(**written.arrays()), row, variant)

    def _visit(self, index: int, number: int) -> Visit:
        task, variant = self._plan.tasks[index], self._plan.variant(index, number)
        shown = rows.place(task.demos[: self._max_demos], variant, self._side)
        queries = rows.place(task.queries, variant, self._side)
        return Visit(index, shown, queries, self._plan.table_row(index, number))
