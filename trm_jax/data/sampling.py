"""Which pairs form a training row: the order in which tasks are visited, and what a visit shows and asks.

An epoch visits every task once, in random order. A visit of a task with queries asks each that has a known
answer, a row each; a visit of a task without queries asks one of its pairs, drawn anew, and shows the others
(leave one out): one row. Rows run on across epochs. All of it is a pure function of (seed, epoch, index).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trm_jax.data.arc import augment, rows
from trm_jax.data.arc.augment import Variant
from trm_jax.data.arc.rows import Visit
from trm_jax.data.arc.tasks import Pair, Task
from trm_jax.data.split import DataConfig


class Place(NamedTuple):
    """Where a training row stands: the epoch, the task's index, and which of the visit's queries it is."""

    epoch: int
    task: int
    query: int


class Sampler:
    """Visits of `train`, shown as `config` says, with at most `max_demos` demonstrations each."""

    def __init__(self, train: Sequence[Task], config: DataConfig, seed: int, max_demos: int):
        self._train = train
        self._config = config
        self._seed = seed
        self._max_demos = max_demos
        self._rows = np.array([len(task.answers) if task.queries else 1 for task in train], int)  # of a visit
        self._epoch = functools.lru_cache(maxsize=32)(self._draw_epoch)
        self._fixed = functools.lru_cache(maxsize=None)(self._draw_fixed)

    @property
    def rows_per_epoch(self) -> int:
        return int(self._rows.sum())

    def locate(self, row: int) -> Place:
        """What the row with this running number is."""
        epoch, position = divmod(row, self.rows_per_epoch)
        order, ends = self._epoch(epoch)
        at = int(np.searchsorted(ends, position, side="right"))
        task = int(order[at])
        return Place(epoch, task, position - int(ends[at] - self._rows[task]))

    def visit(self, epoch: int, index: int) -> Visit:
        """The visit of the task with this index: with `config.augment` each pair is shifted on the canvas."""
        task, side, augmented = self._train[index], self._config.max_grid_size, self._config.augment
        rng = self._rng(epoch, 1 + index)
        demos, queries = self._left_out(task, rng)
        number, variant = self._variant(index, rng)
        if len(demos) > self._max_demos and (augmented or not task.queries):
            demos = [demos[i] for i in np.sort(rng.permutation(len(demos))[: self._max_demos])]
        shifts = rng if augmented else None
        shown = rows.place(demos[: self._max_demos], variant, side, shifts)
        return Visit(index, shown, rows.place(queries, variant, side, shifts),
                     index * self._config.variants + number)

    def _left_out(self, task: Task, rng: np.random.Generator) -> tuple[Sequence[Pair], Sequence[Pair]]:
        """Demonstrations to choose from, and queries."""
        if task.queries:
            return task.demos, [task.queries[query] for query in task.answers]
        asked = int(rng.integers(len(task.demos)))
        return task.demos[:asked] + task.demos[asked + 1 :], [task.demos[asked]]

    def _variant(self, index: int, rng: np.random.Generator) -> tuple[int, Variant]:
        """One of the task's fixed variants and its number, or a fresh one."""
        if self._config.variants:
            number = int(rng.integers(self._config.variants))
            transform, *colours = self._fixed(index)[number].tolist()
            return number, Variant(transform, tuple(colours))
        if not self._config.augment:
            return 0, augment.IDENTITY
        return 0, augment.random_variant(rng, self._config.permute_colours)

    def _draw_fixed(self, index: int) -> np.ndarray:
        """(variants, 11) uint8, transform and colours: as objects a thousand tasks' would fill half a gigabyte."""
        fixed = augment.fixed_variants(self._train[index].id, self._config.variants, self._seed,
                                       self._config.permute_colours)
        return np.array([(variant.transform, *variant.colours) for variant in fixed], np.uint8)

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Tasks in the order of this epoch, and the row at which the rows of each end."""
        order = self._rng(epoch, 0).permutation(len(self._train))
        return order, np.cumsum(self._rows[order])

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        """Stream 0 orders the epoch, 1 + task index belongs to a task's visit."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self._seed, epoch, stream))))
