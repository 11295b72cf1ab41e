"""The table of task embeddings: sign-SGD on the rows that occur in a batch, and on no other.

Neither a gradient nor moments of the whole table exist, which has a million rows in the published models.
"""

import jax
import jax.numpy as jnp


def update_rows(table: jax.Array, row: jax.Array, grads: jax.Array, rate: jax.Array,
                weight_decay: float) -> jax.Array:
    """w ← w · (1 − rate · weight_decay) − rate · sign(g) for every row that occurs, g summed over its occurrences.

    Args:
        table: (N, W) float32.
        row: (B,) int32, rows of the table that were looked up in the whole batch; one may occur several times.
        grads: (B, W) gradients with respect to what was looked up.
        rate: learning rate; 0 leaves the table as it is.

    Returns:
        The table, (N, W). sign(0) = 0: a row whose gradients cancel decays all the same.
    """
    first = jnp.argmax(row[:, None] == row[None, :], axis=1)  # where each row occurs first
    summed = jax.ops.segment_sum(grads, first, len(row))[first]
    new = table[row] * (1 - rate * weight_decay) - rate * jnp.sign(summed)
    return table.at[row].set(new)  # each occurrence writes the same
