"""Metrics of one update, as (sum, count) pairs that stay on the device until the host is handed them as one array.

Shapes: B rows.
"""

import math
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trm_jax.dynamics.losses import RowLosses


class Mean(struct.PyTreeNode):
    """A mean in two parts, so that steps, shards and batches can be added up before dividing."""

    sum: jax.Array
    count: jax.Array


Metrics = dict[str, Mean]


def mean_over(values: jax.Array, weight: jax.Array) -> Mean:
    """Weighted mean of equal-shaped `values` and bool or float `weight`."""
    weight = weight.astype(jnp.float32)
    return Mean(jnp.where(weight > 0, values * weight, 0.0).sum(), weight.sum())


def single(value: jax.Array) -> Mean:
    """A quantity that each update has one of."""
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones(()))


def solving_metrics(rows: RowLosses, q_halt: jax.Array, halted: jax.Array | None = None) -> Metrics:
    """How well the rows are solved; rows without labels do not count, and `halted` rows are told apart.

    Args:
        rows: losses and correctness, (B,) each.
        q_halt: (B,) halt logits.
        halted: (B,) rows that halted in this step; None leaves the `halted_*` metrics out.
    """
    every = jnp.ones_like(rows.labelled)
    metrics = {
        "lm_loss": mean_over(rows.lm, every),
        "q_halt_loss": mean_over(rows.q_halt, every),
        "accuracy": mean_over(rows.accuracy, rows.labelled),
        "exact_accuracy": mean_over(rows.correct, rows.labelled),
        "q_halt_accuracy": mean_over((q_halt >= 0) == rows.correct, rows.labelled),
    }
    if halted is not None:
        metrics["halted_accuracy"] = mean_over(rows.accuracy, rows.labelled & halted)
        metrics["halted_exact_accuracy"] = mean_over(rows.correct, rows.labelled & halted)
    return metrics


class Packed(struct.PyTreeNode, Mapping[str, Mean]):
    """The metrics of a step as one array, so that the host is handed one and not fifty.

    Attributes:
        numbers: (M, 2), the bits of sums and counts as int32, so that whole numbers stay exact.
        names: of the M metrics.
        whole: those of them whose sum is a whole number.
    """

    numbers: jax.Array
    names: tuple[str, ...] = struct.field(pytree_node=False)
    whole: frozenset[str] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, metrics: Metrics) -> "Packed":
        """Packs them, under jit."""
        numbers = [jax.lax.bitcast_convert_type(number, jnp.int32) for mean in metrics.values() for number in (
            mean.sum, mean.count)]
        whole = frozenset(name for name, mean in metrics.items() if mean.sum.dtype == jnp.int32)
        return cls(jnp.stack(numbers).reshape(-1, 2), tuple(metrics), whole)

    def __getitem__(self, name: str) -> Mean:
        pair = np.asarray(self.numbers)[self.names.index(name)]
        total, count = pair.view(np.float32)
        return Mean(pair[0] if name in self.whole else total, count)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class NonFiniteError(FloatingPointError):
    """A metric became infinite or NaN; the message names the step and the metrics."""


def summarise(first_step: int, window: list[Metrics]) -> dict[str, float]:
    """Means over the updates of a window, by name without "train/"; a metric that nothing counted is left out.

    Args:
        first_step: number of the window's first update.
        window: host values.

    Raises:
        NonFiniteError: some update gave a number that is not finite.
    """
    for step, metrics in enumerate(window, first_step):
        bad = {name: float(mean.sum) for name, mean in metrics.items() if not math.isfinite(mean.sum)}
        if bad:
            listed = ", ".join(f"{name}={value}" for name, value in bad.items())
            raise NonFiniteError(f"step {step}: {listed}")
    sums = {name: sum(float(metrics[name].sum) for metrics in window) for name in window[0]}
    counts = {name: sum(float(metrics[name].count) for metrics in window) for name in window[0]}
    return {name: sums[name] / counts[name] for name in sums if counts[name]}
