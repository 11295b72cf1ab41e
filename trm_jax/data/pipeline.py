"""Tasks → examples → batches, made in background threads and resumable.

B rows of the global batch, K = max_demos demonstration slots, S = side² tokens. Every row is a pure function
of the seed and its number: a position in the data is one integer, `get_state()` and `set_state()` of the
iterators resume exactly, and batches do not depend on the number P of processes, which make their share each.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Sequence

import grain
import numpy as np
from flax import struct

from trm_jax.data.arc import augment, editions, grids, rows, sources, tasks
from trm_jax.data.arc.editions import Edition
from trm_jax.data.arc.plan import EvalPlan
from trm_jax.data.arc.rows import PADDING, Rows, Visit
from trm_jax.data.arc.tasks import Pair, Task, TaskError, TaskSet
from trm_jax.dynamics.act import Batch
from trm_jax.errors import ConfigError, check_numbers

# Making a batch holds the interpreter lock nearly throughout: more threads would not make more batches.
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
MAX_NAMED = 5  # tasks that a line of the log spells out


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section of a config. `max_train_groups` and `max_eval_groups`: 0 means all."""

    source: str
    max_grid_size: int
    max_train_groups: int
    max_eval_groups: int
    augment: bool
    global_batch_size: int

    def __post_init__(self) -> None:
        check_numbers("data", self, ["max_grid_size"], at_least=1, at_most=grids.MAX_SIDE)
        check_numbers("data", self, ["max_train_groups", "max_eval_groups"], at_least=0)
        check_numbers("data", self, ["global_batch_size"], at_least=1)


@dataclasses.dataclass(frozen=True)
class Split:
    """The tasks of a run.

    Attributes:
      train: those to train on; evaluation: those to score. Both sorted by id.
      all_evaluation: the whole evaluation set, with what was left out: the total to report beside a score.
      report: what was dropped or left out and why, one line each, for the log.
      edition: which evaluation set it is; notes: what has to be known to read a score on it.
    """

    train: tuple[Task, ...]
    evaluation: tuple[Task, ...]
    all_evaluation: tuple[Task, ...]
    report: tuple[str, ...]
    edition: Edition
    notes: tuple[str, ...]


def load_tasks(config: DataConfig) -> Split:
    """Reads `config.source`, drops what must not or cannot be used, and keeps the first groups in id order.

    Raises:
      TaskError: the source is unknown, missing or malformed, or holds no task to evaluate.
    """
    found, report = sources.load(config.source), []
    edition = editions.edition(config.source, found.version, found.evaluation)
    notes = [*unreadable(found), *([edition.note] if edition.note else [])]
    if not found.evaluation:
        raise TaskError(f"{config.source} holds no evaluation task, only {len(found.train)} train tasks: a run is "
                        "scored on evaluation tasks; put some beside them")
    train = found.train
    if found.held_out:
        train, shared = tasks.without_shared(train, found.evaluation)
        if shared:
            report.append(f"train tasks that also stand in the evaluation set: dropped {', '.join(shared)}")
    else:
        report.append(f"{config.source} makes no split: evaluation tasks are train tasks, not held out")
    unanswered = [task.id for task in train if not task.answers]
    if unanswered:
        report.append(f"train tasks without any known answer: left out {', '.join(unanswered)}")
    train = tuple(task for task in train if task.answers)
    side = config.max_grid_size
    return Split(
        train=_limit(train, "train", side, config.max_train_groups, report),
        evaluation=_limit(found.evaluation, "evaluation", side, config.max_eval_groups, report),
        all_evaluation=found.evaluation,
        report=(*report, f"evaluation set: {edition}", *notes),
        edition=edition,
        notes=tuple(notes),
    )


def unreadable(found: TaskSet) -> list[str]:
    """The line of a log that says which tasks of a source were left out because they could not be read."""
    reasons = found.left_out
    if not reasons:
        return []
    more = f"; and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    return [f"tasks that cannot be read: left out {len(reasons)} ({'; '.join(reasons[:MAX_NAMED])}{more})"]


def _limit(found: tuple[Task, ...], kind: str, side: int, count: int, report: list[str]) -> tuple[Task, ...]:
    """Keeps the first `count` tasks (0: all) that fit the canvas, and adds to the report."""
    fitting, too_large = tasks.fitting(found, side)
    if too_large:
        report.append(f"{len(too_large)} of {len(found)} {kind} tasks do not fit {side}x{side}: left out")
    if 0 < count < len(fitting):
        report.append(f"the first {count} of {len(fitting)} {kind} tasks are used")
    return fitting[: count or None]


def rows_per_epoch(train: Sequence[Task]) -> int:
    """Number of queries with a known answer."""
    return sum(len(task.answers) for task in train)


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

    An epoch visits every task once, in random order; each of its queries with a known answer becomes a row,
    and rows run on across epochs. With `config.augment` a visit shows a random variant and a random choice of
    at most `max_demos` demonstrations, each pair shifted on the canvas; without, the task as it is.

    Raises:
      TaskError: no task to train on.
      ConfigError: the batch does not divide by the processes.
    """
    if not rows_per_epoch(train):
        side = config.max_grid_size
        raise TaskError(f"{config.source}: no train task fits {side}x{side} and has a known answer")
    share = _share(config.global_batch_size, process_index, process_count)
    batches = grain.MapDataset.source(_TrainBatches(train, config, seed, max_demos, share))
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

    def __init__(self, train: Sequence[Task], config: DataConfig, seed: int, max_demos: int, share: range):
        self._train = train
        self._config = config
        self._seed = seed
        self._max_demos = max_demos
        self._share = share
        self._queries = np.array([len(task.answers) for task in train])
        self._epoch = functools.lru_cache(maxsize=32)(self._draw_epoch)

    def __len__(self) -> int:
        return sys.maxsize  # grain's own number for an endless repetition

    def __getitem__(self, number: int) -> Batch:
        written = Rows(len(self._share), self._max_demos, self._config.max_grid_size)
        visit = functools.lru_cache(maxsize=1)(self._visit)
        per_epoch = int(self._queries.sum())
        for i, row in enumerate(self._share):
            epoch, position = divmod(number * self._config.global_batch_size + row, per_epoch)
            order, ends = self._epoch(epoch)
            at = int(np.searchsorted(ends, position, side="right"))
            task = int(order[at])
            written.write(i, visit(epoch, task), position - int(ends[at] - self._queries[task]))
        return Batch(**written.arrays())

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Tasks in the order of this epoch, and the row at which the rows of each end."""
        order = self._rng(epoch, 0).permutation(len(self._train))
        return order, np.cumsum(self._queries[order])

    def _visit(self, epoch: int, index: int) -> Visit:
        task, side = self._train[index], self._config.max_grid_size
        demos: Sequence[Pair] = task.demos
        rng, variant = None, augment.IDENTITY
        if self._config.augment:
            rng = self._rng(epoch, 1 + index)
            variant = augment.random_variant(rng)
            if len(demos) > self._max_demos:
                demos = [demos[i] for i in np.sort(rng.permutation(len(demos))[: self._max_demos])]
        shown = rows.place(demos[: self._max_demos], variant, side, rng)
        queries = rows.place([task.queries[query] for query in task.answers], variant, side, rng)
        return Visit(index, shown, queries)

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        """Stream 0 orders the epoch, 1 + task index belongs to a task's visit."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self._seed, epoch, stream))))


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
        return Visit(index, shown, rows.place(task.queries, variant, self._side))
