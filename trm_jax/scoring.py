"""One evaluation: every query of every chosen variant of every task, predicted, mapped back, voted and scored.

Training, `evaluate` and `solve` share it. Nothing survives from one evaluation into the next.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from trm_jax.arc.plan import EvalPlan
from trm_jax.arc.rows import PADDING
from trm_jax.arc.tasks import Task
from trm_jax.arc.voting import Score, Votes, score
from trm_jax.data import EvalBatch, eval_batches
from trm_jax.errors import ConfigError, check_choice
from trm_jax.inference import HALTING, predict
from trm_jax.mesh import Mesh, by_rows, check_divides, per_shard, replicated, to_global, to_hosts
from trm_jax.state import Tree


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The `eval` section; configs/base.py says what each field means."""

    augmentations: int
    halt: str
    batch_size: int
    pass_ks: tuple[int, ...]

    def __post_init__(self) -> None:
        check_choice("eval.halt", self.halt, HALTING)
        if self.augmentations < 1:
            raise ConfigError(f"eval.augmentations={self.augmentations} must be at least 1, the task as it is")
        if not self.pass_ks or min(self.pass_ks) < 1:
            raise ConfigError(f"eval.pass_ks={self.pass_ks} must name at least one K, all positive")


@dataclasses.dataclass
class Tally:
    """What has been predicted so far in one evaluation; `batches` finished ones are in it.

    Attributes:
        votes: of every query.
        sums: metric → [sum, count]; those of rows are added in the order of rows, so that neither batch size nor
            device count changes them.
    """

    votes: Votes = dataclasses.field(default_factory=Votes)
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    batches: int = 0

    def add(self, name: str, total: float, count: float) -> None:
        """Adds to the sum and count of a metric."""
        entry = self.sums.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += count

    def means(self) -> dict[str, float]:
        """Metric → mean, for those that have been counted."""
        return {name: total / count for name, (total, count) in self.sums.items() if count}


class Evaluator:
    """Evaluates parameters on a fixed choice of tasks and variants.

    Args:
        graph: static graph of the model.
        tasks: to evaluate; they must fit the canvas.
        config: variants, halting, batch size and the K of pass@K.
        side: of the canvas.
        max_demos: demonstration slots.
        seed: of the variants.
    """

    def __init__(self, mesh: Mesh, graph: nnx.GraphDef, tasks: Sequence[Task], config: EvalConfig, *,
                 loss_type: str, side: int, max_demos: int, seed: int):
        check_divides("eval.batch_size", config.batch_size, mesh)
        self.plan = EvalPlan(tasks, config.augmentations, seed)
        self.config = config
        self._mesh = mesh
        self._batches = functools.partial(
            eval_batches, self.plan, side=side, batch_size=config.batch_size, max_demos=max_demos,
            process_index=jax.process_index(), process_count=jax.process_count())
        rows, everywhere = by_rows(mesh), replicated(mesh)
        self._predict = jax.jit(
            functools.partial(predict, graph, config.halt, loss_type, per_shard(mesh)),
            in_shardings=(everywhere, everywhere, rows, rows), out_shardings=(rows, rows, everywhere))

    @property
    def batch_count(self) -> int:
        """Batches of one evaluation."""
        return math.ceil(len(self.plan) / self.config.batch_size)

    def run(self, params: Tree, buffers: Tree, tally: Tally) -> Iterator[Tally]:
        """Continues `tally` to the end, yielding it after each batch; the next batch is under way meanwhile."""
        pending: Any = None
        for local in self._batches(first_batch=tally.batches):
            batch: EvalBatch = to_global(self._mesh, local)
            out = (batch.row, *self._predict(params, buffers, batch.batch, batch.variant))
            if pending is not None:
                yield self._record(tally, pending)
            pending = out
        if pending is not None:
            yield self._record(tally, pending)

    def score(self, tally: Tally) -> Score:
        """pass@K of the votes."""
        return score(tally.votes, self.plan.tasks, self.config.pass_ks)

    def tags(self, tally: Tally) -> dict[str, float]:
        """TensorBoard tag → value: eval/pass@K and the mean of every metric."""
        passed = {f"eval/pass@{k}": value for k, value in self.score(tally).pass_at.items()}
        return {f"eval/{name}": value for name, value in tally.means().items()} | passed

    def _record(self, tally: Tally, out: Any) -> Tally:
        row, prediction, rows, diagnostics = to_hosts(out)
        self.plan.vote(tally.votes, row, prediction.tokens, prediction.q_halt)
        real = row != PADDING
        counted = rows.labelled & real
        halt_right = (prediction.q_halt >= 0) == rows.correct
        values = {"accuracy": (rows.accuracy, counted), "exact_accuracy": (rows.correct, counted),
                  "q_halt_accuracy": (halt_right, counted), "steps": (prediction.steps, real)}
        for name, (value, among) in values.items():
            for number in np.asarray(value, np.float64)[among]:
                tally.add(name, float(number), 1.0)
        for name, mean in diagnostics.items():
            tally.add(name, float(mean.sum), float(mean.count))
        tally.batches += 1
        return tally
