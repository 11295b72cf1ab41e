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
        square: (N, F) sum of squared deviations from the group's mean; or (N, 1), the mean of these over F.
    """

    count: jax.Array
    mean: jax.Array
    square: jax.Array


def moments(values: jax.Array, weight: jax.Array, group: jax.Array, groups: int, pooled: bool = False) -> Moments:
    """Moments of `values` (B, F) with `weight` (B,), 0 or 1, in `groups` groups named by `group` (B,) int.

    Args:
        pooled: take the mean over F of the squared deviations before they are added up.
    """
    values = values.astype(jnp.float32)
    member = jax.nn.one_hot(group, groups, dtype=jnp.float32) * weight.astype(jnp.float32)[:, None]
    count = member.sum(axis=0)
    mean = jnp.matmul(member.T, values, precision=_EXACT) / jnp.maximum(count, 1)[:, None]
    square = jnp.square(values - jnp.matmul(member, mean, precision=_EXACT))
    square = square.mean(axis=1, keepdims=True) if pooled else square
    return Moments(count, mean, jnp.matmul(member.T, square, precision=_EXACT))


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the vectors of both."""
    count = a.count + b.count
    share = (b.count / jnp.maximum(count, 1))[:, None]
    apart = b.mean - a.mean
    between = jnp.square(apart) * a.count[:, None] * share
    if a.square.shape != between.shape:
        between = between.mean(axis=1, keepdims=True)
    return Moments(count, a.mean + apart * share, a.square + b.square + between)


class Statistics(struct.PyTreeNode):
    """What `collapse_metrics` is made of; statistics of several batches are added up by `add`.

    Attributes:
        context: of the context, F = T·D, in one group.
        by_task: of the context by task, in F numbers or a sketch of them.
        norm: L2 norm of a context token.
        latent: of the posterior's mean, in one group, F = D; None for an encoder without latent, as the next two.
        kl: of the posterior to the prior, per encoded row or demonstration.
        std: of the posterior.
    """

    context: Moments
    by_task: Moments
    norm: Mean
    latent: Moments | None
    kl: Mean | None
    std: Mean | None


def sketch(values: jax.Array, width: int, key: jax.Array) -> jax.Array:
    """(B, F) → (B, width): sums of F / width numbers each under random signs (Charikar, Chen & Farach-Colton 2002).

    The mean square of values and of their differences keeps its expectation over keys.
    """
    F = values.shape[1]
    signed = values * jax.random.rademacher(key, (1, F), values.dtype) * (width / F) ** 0.5
    return jnp.pad(signed, ((0, 0), (0, -F % width))).reshape(len(values), -1, width).sum(axis=1)


def measure(context: Context, rows: jax.Array, group: jax.Array, groups: int, width: int | None = None,
            key: jax.Array | None = None) -> Statistics:
    """Statistics of the rows (B,) bool of a context, whose tasks are `group` (B,) of 0..groups−1.

    Args:
        width, key: rows of a task are compared in a `sketch` of so many numbers; None: in all F.
    """
    context = jax.lax.stop_gradient(context)
    tokens = context.tokens.astype(jnp.float32)
    norm = mean_over(jnp.linalg.norm(tokens, axis=-1).mean(axis=-1), rows)
    values = tokens.reshape(len(tokens), -1)
    compared = values
    if width is not None and key is not None and width < values.shape[1]:
        compared = sketch(values, width, key)
    by_task = moments(compared, rows, group, groups, pooled=True)
    found = Statistics(_of_all(values, rows), by_task, norm, None, None, None)
    if context.posterior is None or context.weight is None:
        return found
    mu, units = context.posterior.mu, context.weight.reshape(-1)
    return found.replace(latent=_of_all(mu.reshape(-1, mu.shape[-1]), units),
                         kl=mean_over(context.posterior.kl(), context.weight),
                         std=mean_over(context.posterior.std(), context.weight))


def _of_all(values: jax.Array, weight: jax.Array) -> Moments:
    """Moments in one group."""
    return moments(values, weight, jnp.zeros(len(values), jnp.int32), 1)


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
    rows, mean, square = found.context.count[0], found.context.mean[0], found.context.square[0]
    count, in_task = found.by_task.count, found.by_task.square[:, 0]
    repeated, freedom = count > 1, jnp.maximum(rows - 1, 0)
    within_freedom = jnp.maximum(count - 1, 0).sum()

    std = jnp.sqrt(square / jnp.maximum(freedom, 1)).mean()
    power = (square + rows * jnp.square(mean)).mean()
    within, total = in_task.sum(), square.mean()
    per_task = in_task / jnp.maximum(count, 1)
    varies = (within > _ROUNDING * total).astype(jnp.float32)
    metrics = {
        "encoder_norm": found.norm,
        "encoder_token_std": Mean(std * freedom, freedom),
        "encoder_cross_sample_var": Mean(total / jnp.maximum(rows, 1) * freedom, freedom),
        "encoder_within_task_var": mean_over(per_task, repeated),
        "encoder_relative_var": Mean(total, power * freedom / jnp.maximum(rows, 1)),
        "encoder_collapse_ratio": Mean(within * varies, varies * total * within_freedom / jnp.maximum(freedom, 1)),
    }
    if found.latent is not None and found.kl is not None and found.std is not None:
        units = jnp.maximum(found.latent.count[0] - 1, 0)
        metrics |= {"kl_loss": found.kl, "posterior_std": found.std,
                    "posterior_mean_var": Mean(found.latent.square.mean(), units)}
    return metrics
