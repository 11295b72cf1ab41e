"""Metrics of one update, as (sum, count) pairs that stay on the device.

Shapes: B rows, T context tokens, D hidden size.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from trm_jax.losses import RowLosses
from trm_jax.models.encoders import Context


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


def context_metrics(context: Context, rows: jax.Array, task: jax.Array) -> Metrics:
    """What tells whether the encoder collapses, over the rows (B,) that were encoded in this step.

    `encoder_cross_sample_var` is the variance over all of them, `encoder_within_task_var` the variance over
    variants and queries of one task (mean over tasks with two rows or more), both averaged over the T·D numbers
    of a context; `encoder_collapse_ratio` is within / cross: near 0 the context tells tasks apart, near 1 it does
    not. `encoder_token_std` is the unbiased standard deviation over rows, `encoder_norm` a token's mean L2 norm.
    """
    tokens = jax.lax.stop_gradient(context.tokens).astype(jnp.float32)
    weight = rows.astype(jnp.float32)
    count = weight.sum()
    present = (count > 0).astype(jnp.float32)

    flat = tokens.reshape(len(tokens), -1)
    centred = (flat - (weight @ flat / jnp.maximum(count, 1))[None]) * weight[:, None]
    square = jnp.square(centred).sum(axis=0)
    token_std = jnp.sqrt(square / jnp.maximum(count - 1, 1)).mean()
    cross = (square / jnp.maximum(count, 1)).mean()
    within, tasks = _within_task_variance(flat, weight, task)
    repeated = (tasks > 0).astype(jnp.float32)

    metrics = {
        "encoder_norm": mean_over(jnp.linalg.norm(tokens, axis=-1).mean(axis=-1), rows),
        "encoder_token_std": Mean(token_std * present, present),
        "encoder_cross_sample_var": Mean(cross * present, present),
        "encoder_within_task_var": Mean(within * repeated, repeated),
        "encoder_collapse_ratio": Mean(within / jnp.maximum(cross, 1e-12) * repeated, repeated),
    }
    if context.posterior is not None and context.weight is not None:
        metrics["kl_loss"] = Mean(jax.lax.stop_gradient(context.kl) * present, present)
        metrics["posterior_std"] = mean_over(jax.lax.stop_gradient(context.posterior.std()), context.weight)
    return metrics


def _within_task_variance(flat: jax.Array, weight: jax.Array, task: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean over tasks with at least two rows of the mean squared deviation from the task's mean; their number."""
    same = (task[:, None] == task[None, :]) * weight[:, None] * weight[None, :]
    size = same.sum(axis=1)
    deviation = flat - same @ flat / jnp.maximum(size, 1)[:, None]
    share = jnp.where(size >= 2, weight / jnp.maximum(size, 1), 0.0)  # sums to one per task
    tasks = share.sum()
    return share @ jnp.square(deviation).mean(axis=1) / jnp.maximum(tasks, 1), tasks


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
