"""Losses of one ACT step.

Shapes: B rows, S grid tokens, V vocabulary. Everything is in float32.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import struct

from trm_jax.data.arc.grids import IGNORE
from trm_jax.errors import check_choice, check_numbers


def stablemax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−log s(x_label) / Σ s(x) with s(x) = x + 1 for x ≥ 0, 1 / (1 − x) below (Prieto et al. 2025, eq. 5).

    Args:
        logits: (…, V) float32.
        labels: (…) int, a class each.

    Returns:
        (…) loss per position. log s of the label is taken as ±log1p|x|, exact where s would lose its small part;
        no other logarithm of a class is taken.
    """
    below, above = _parts(logits)
    s = jnp.where(logits < 0, 1.0 / (1.0 - below), 1.0 + above)
    below, above = _parts(jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0])
    return jnp.log(s.sum(axis=-1)) - (jnp.log1p(above) - jnp.log1p(-below))


def _parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x below 0 and x above, 0 elsewhere; at 0 itself the second has the gradient, as s has from either side."""
    return jnp.where(x < 0, x, 0.0), jnp.where(x < 0, 0.0, x)


TOKEN_LOSSES = {
    "stablemax": stablemax_cross_entropy,
    "softmax": optax.losses.softmax_cross_entropy_with_integer_labels,
}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The `loss` section; configs/base.py says what each field means."""

    type: str
    kl_weight: float
    contrastive_weight: float
    contrastive_temperature: float

    def __post_init__(self) -> None:
        check_choice("loss.type", self.type, TOKEN_LOSSES)
        check_numbers("loss", self, ["kl_weight", "contrastive_weight"], at_least=0)
        check_numbers("loss", self, ["contrastive_temperature"], above=0)


class RowLosses(struct.PyTreeNode):
    """Losses and correctness of each row, all (B,).

    Attributes:
        lm: mean token loss over labelled positions; 0 for a row without labels.
        q_halt: cross-entropy of the halt logit with `correct`.
        accuracy: share of labelled positions predicted right; 0 for a row without labels.
        correct: bool, every labelled position is right; True for a row without labels.
        labelled: bool, the row has labels.
    """

    lm: jax.Array
    q_halt: jax.Array
    accuracy: jax.Array
    correct: jax.Array
    labelled: jax.Array


def row_losses(logits: jax.Array, q_halt: jax.Array, labels: jax.Array, loss_type: str) -> RowLosses:
    """Losses of every row from logits (B, S, V), halt logits (B,) and labels (B, S) with -100 ignored."""
    valid = labels != IGNORE
    count = valid.sum(axis=1)
    divisor = jnp.maximum(count, 1)
    token_loss = TOKEN_LOSSES[loss_type](logits, jnp.where(valid, labels, 0))
    right = (jnp.argmax(logits, axis=-1) == labels) & valid
    correct = right.sum(axis=1) == count
    return RowLosses(
        lm=jnp.where(valid, token_loss, 0.0).sum(axis=1) / divisor,
        q_halt=optax.losses.sigmoid_binary_cross_entropy(q_halt, correct.astype(jnp.float32)),
        accuracy=right.sum(axis=1) / divisor,
        correct=correct,
        labelled=count > 0,
    )


def total_loss(rows: RowLosses, kl: jax.Array, kl_weight: float, batch_rows: int) -> jax.Array:
    """What these rows add to the loss of a batch: its mean of token loss + ½ · halt loss, + `kl_weight` · kl.

    Args:
        kl: the rows' share of the batch's mean KL.
        batch_rows: of the whole batch, over all devices.
    """
    return (rows.lm.sum() + 0.5 * rows.q_halt.sum()) / batch_rows + kl_weight * kl
