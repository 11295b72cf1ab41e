"""Whether the encoder collapses: how its contexts vary over tasks and within them, as an analysis of variance.

Shapes: B rows, N groups (tasks), F numbers of a context (T·D), D hidden size.
"""

import jax
import jax.numpy as jnp
from flax import struct

from trm_jax.dynamics.metrics import Mean, Metrics, mean_over
from trm_jax.models.encoders import Context

# A share of the variance within which all rows of a task are the same: they show the same demonstrations.
_ROUNDING = 1e-10
_EXACT = jax.lax.Precision.HIGHEST  # a product in half precision would make variance of its rounding


class Moments(struct.PyTreeNode):
    """Moments of vectors by group, which batches can be added to without loss (Chan, Golub & LeVeque 1983).

    Attributes:
        count: (N,) vectors in each group.
        mean: (N, F), 0 for a group without any.
        square: (N, F) sum of squared deviations from the group's mean.
    """

    count: jax.Array
    mean: jax.Array
    square: jax.Array


def moments(values: jax.Array, weight: jax.Array, group: jax.Array, groups: int) -> Moments:
    """Moments of `values` (B, F) with `weight` (B,), 0 or 1, in `groups` groups named by `group` (B,) int."""
    values = values.astype(jnp.float32)
    member = jax.nn.one_hot(group, groups, dtype=jnp.float32) * weight.astype(jnp.float32)[:, None]
    count = member.sum(axis=0)
    mean = jnp.matmul(member.T, values, precision=_EXACT) / jnp.maximum(count, 1)[:, None]
    deviation = values - jnp.matmul(member, mean, precision=_EXACT)
    return Moments(count, mean, jnp.matmul(member.T, jnp.square(deviation), precision=_EXACT))


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the vectors of both."""
    count = a.count + b.count
    share = (b.count / jnp.maximum(count, 1))[:, None]
    apart = b.mean - a.mean
    return Moments(count, a.mean + apart * share, a.square + b.square + jnp.square(apart) * a.count[:, None] * share)


class Statistics(struct.PyTreeNode):
    """What `collapse_metrics` is made of; statistics of several batches are added up by `add`.

    Attributes:
        context: of the context by task, F = T·D.
        norm: L2 norm of a context token.
        latent: of the posterior's mean, in one group, F = D; None for an encoder without latent, as the next two.
        kl: of the posterior to the prior, per encoded row or demonstration.
        std: of the posterior.
    """

    context: Moments
    norm: Mean
    latent: Moments | None
    kl: Mean | None
    std: Mean | None


def measure(context: Context, rows: jax.Array, group: jax.Array, groups: int) -> Statistics:
    """Statistics of the rows (B,) bool of a context, whose tasks are `group` (B,) of 0..groups−1."""
    context = jax.lax.stop_gradient(context)
    tokens = context.tokens.astype(jnp.float32)
    norm = mean_over(jnp.linalg.norm(tokens, axis=-1).mean(axis=-1), rows)
    by_task = moments(tokens.reshape(len(tokens), -1), rows, group, groups)
    if context.posterior is None or context.weight is None:
        return Statistics(by_task, norm, None, None, None)
    mu, units = context.posterior.mu, context.weight.astype(jnp.float32).reshape(-1)
    latent = moments(mu.reshape(-1, mu.shape[-1]), units, jnp.zeros(len(units), jnp.int32), 1)
    return Statistics(by_task, norm, latent, Mean(context.kl * units.sum(), units.sum()),
                      mean_over(context.posterior.std(), context.weight))


def add(a: Statistics, b: Statistics) -> Statistics:
    """Statistics of the rows of both."""
    return jax.tree.map(lambda x, y: merge(x, y) if isinstance(x, Moments) else x + y, a, b,
                        is_leaf=lambda node: isinstance(node, Moments))


def collapse_metrics(found: Statistics) -> Metrics:
    """The metrics, averaged over the F numbers of a context where they are variances.

    encoder_norm              mean L2 norm of a token
    encoder_token_std         standard deviation over rows, unbiased
    encoder_cross_sample_var  variance over rows of all tasks
    encoder_within_task_var   variance within a task (variants and queries), mean over tasks with two rows or more
    encoder_relative_var      variance over rows / mean square: 0 when the context is the same for everything
    encoder_collapse_ratio    variance within tasks / variance over all rows, both unbiased: 0 when all of the
                              variation tells tasks apart, 1 on average when none of it does; left out when all
                              rows of a task are the same, as without augmentation
    kl_loss, posterior_std    mean KL and mean standard deviation of the posterior
    posterior_mean_var        variance of the posterior's mean: 0 when the latent says nothing of the demonstrations
                              (the activity of Burda et al. 2016, section 5)

    The first four are defined as in the PyTorch trainers. Each metric weighs by its degrees of freedom, so that
    the mean over steps is not pulled down by steps that encode a row or two.
    """
    by_task = found.context
    rows, repeated = by_task.count.sum(), by_task.count > 1
    tasks, freedom = repeated.sum(), jnp.maximum(rows - 1, 0)
    within_freedom = jnp.maximum(by_task.count - 1, 0).sum()
    count = by_task.count[:, None]
    grand = (count * by_task.mean).sum(axis=0) / jnp.maximum(rows, 1)

    within = by_task.square.sum(axis=0)
    total = within + (count * jnp.square(by_task.mean - grand[None])).sum(axis=0)
    power = (within + (count * jnp.square(by_task.mean)).sum(axis=0)).mean()
    std = jnp.sqrt(total / jnp.maximum(freedom, 1)).mean()
    per_task = by_task.square.mean(axis=1) / jnp.maximum(by_task.count, 1)
    within, total = within.mean(), total.mean()
    varies = (within > _ROUNDING * total).astype(jnp.float32)
    metrics = {
        "encoder_norm": found.norm,
        "encoder_token_std": Mean(std * freedom, freedom),
        "encoder_cross_sample_var": Mean(total / jnp.maximum(rows, 1) * freedom, freedom),
        "encoder_within_task_var": Mean(jnp.where(repeated, per_task, 0).sum(), tasks.astype(jnp.float32)),
        "encoder_relative_var": Mean(total, power * freedom / jnp.maximum(rows, 1)),
        "encoder_collapse_ratio": Mean(within * varies, varies * total * within_freedom / jnp.maximum(freedom, 1)),
    }
    if found.latent is not None and found.kl is not None and found.std is not None:
        units = jnp.maximum(found.latent.count[0] - 1, 0)
        metrics |= {"kl_loss": found.kl, "posterior_std": found.std,
                    "posterior_mean_var": Mean(found.latent.square.mean(), units)}
    return metrics


def context_metrics(context: Context, rows: jax.Array, task: jax.Array) -> Metrics:
    """`collapse_metrics` of one batch: of its rows (B,) bool, whose tasks have any numbers `task` (B,)."""
    first = jnp.argmax(task[:, None] == task[None, :], axis=1)  # names a task by the first row of it
    return collapse_metrics(measure(context, rows, first, len(task)))
