"""A contrastive term on contexts: two variants of one task lie nearer to each other than to other tasks.

InfoNCE (van den Oord et al. 2018, eq. 4) on cosine similarities, as in SimCLR (Chen et al. 2020). A row's context is
to find that of a second variant of its demonstrations, drawn anew in every update, among the second variants of all
rows that are encoded in the update. Other rows of its own task stay out: they would be false negatives.

Shapes: B rows, K demonstration slots, S grid tokens (side²), T context tokens, D hidden size, N rows of this device.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from trm_jax.data.arc.grids import COLOURS, EOS, FIRST_COLOUR, PAD

_EXACT = jax.lax.Precision.HIGHEST  # at a low temperature half precision would decide who is nearest


class Variants(struct.PyTreeNode):
    """A variant of each row: where its demonstrations' cells go, and in which colours.

    Attributes:
        row: (B,) int32, the row's number in the batch.
        mirror: (B, 3) bool: transpose, then flip up-down, then left-right; the eight make the dihedral group.
        colours: (B, 10) uint8, the colour that each becomes; 0 stays.
    """

    row: jax.Array
    mirror: jax.Array
    colours: jax.Array


def draw_variants(key: jax.Array, rows: int) -> Variants:
    """A uniformly drawn variant for each of `rows` rows."""
    mirror_key, colour_key = jax.random.split(key)
    permute = jax.vmap(lambda key: jax.random.permutation(key, jnp.arange(1, COLOURS, dtype=jnp.uint8)))
    return Variants(jnp.arange(rows), jax.random.bernoulli(mirror_key, shape=(rows, 3)),
                    jnp.pad(permute(jax.random.split(colour_key, rows)), ((0, 0), (1, 0))))


def shown(demos: jax.Array, variants: Variants) -> jax.Array:
    """Demonstrations (B, K, 2, S) as these variants show them; the EOS border is drawn anew, below and right."""
    B, *inner, S = demos.shape
    side = math.isqrt(S)
    canvas = demos.reshape(B, -1, side, side)
    transpose, up_down, left_right = (variants.mirror[:, i].reshape(B, 1, 1, 1) for i in range(3))
    canvas = jnp.where(transpose, canvas.swapaxes(-1, -2), canvas)
    canvas = jnp.where(up_down, canvas[..., ::-1, :], canvas)
    canvas = jnp.where(left_right, canvas[..., ::-1], canvas)
    cells = canvas >= FIRST_COLOUR
    below = jnp.pad(cells[..., :-1, :], ((0, 0), (0, 0), (1, 0), (0, 0)))
    right = jnp.pad(cells[..., :-1], ((0, 0), (0, 0), (0, 0), (1, 0)))
    colour = jnp.where(cells, canvas - FIRST_COLOUR, 0).reshape(B, -1)
    renamed = jnp.take_along_axis(variants.colours, colour, axis=1).reshape(canvas.shape) + FIRST_COLOUR
    border = jnp.where(below | right, EOS, PAD).astype(demos.dtype)
    return jnp.where(cells, renamed.astype(demos.dtype), border).reshape(B, *inner, S)


class Pooled(struct.PyTreeNode):
    """What contexts are compared by.

    Attributes:
        vector: (N, D) mean over a context's tokens, of unit length.
        row, task: (N,) int32, the row's number in the batch, and which original task it is of.
        encoded: (N,) bool, rows that are encoded in this update; the others count for nothing.
    """

    vector: jax.Array
    row: jax.Array
    task: jax.Array
    encoded: jax.Array


def pool(tokens: jax.Array) -> jax.Array:
    """Contexts (N, T, D) → unit vectors (N, D), float32."""
    mean = tokens.astype(jnp.float32).mean(axis=1)
    return mean * jax.lax.rsqrt(jnp.square(mean).sum(axis=1, keepdims=True) + 1e-12)


def info_nce(own: Pooled, second: Pooled, temperature: float) -> jax.Array:
    """The sum over own rows of −log(e^(s·s⁺/τ) / Σ e^(s·sʲ/τ)), j over the row's second variant and other tasks'.

    Args:
        own: rows in their own variant.
        second: the second variants of all rows of the batch, wherever they lie.
        temperature: τ.
    """
    similar = jnp.matmul(own.vector, second.vector.T, precision=_EXACT) / temperature
    partner = own.row[:, None] == second.row[None]
    other = (own.task[:, None] != second.task[None]) & second.encoded[None]
    compared = jnp.where(partner | other, similar, -jnp.inf)
    loss = jax.nn.logsumexp(compared, axis=1) - jnp.where(partner, similar, 0.0).sum(axis=1)
    return jnp.where(own.encoded, loss, 0.0).sum()
