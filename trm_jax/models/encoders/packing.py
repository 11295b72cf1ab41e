"""Encode real demonstrations only.

ARC tasks have 3.3 demonstrations on average in 10 slots, and with `encode="once"` only rows that start need
theirs. The valid slots are gathered to the front, encoded chunk by chunk, and scattered back; a chunk without a
valid slot is skipped at run time. The work is therefore proportional to the valid slots whatever their number,
no batch overflows, and memory is that of one chunk, whose activations are recomputed in the backward pass.

Shapes: B rows, K demonstration slots, S grid tokens, D hidden size.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

MAX_CHUNK = 64  # enough tokens to fill an accelerator: 64 pairs of 30×30 grids are 115,200
CHUNKS = 16  # of a small batch, so that the share of idle slots in the last chunk stays small


def encode_valid(encode: Callable[[jax.Array], jax.Array], demos: jax.Array, valid: jax.Array) -> jax.Array:
    """Applies `encode` (N, 2, S) → (N, D) to the valid slots of demos (B, K, 2, S); zeros elsewhere.

    Args:
        encode: grid encoder; each pair's result must depend on that pair only.
        demos: tokens of the demonstration pairs.
        valid: (B, K) bool, the slots to encode.

    Returns:
        (B, K, D), equal to encoding every slot and zeroing the invalid ones.
    """
    B, K = valid.shape
    slots = B * K
    chunk = min(MAX_CHUNK, -(-slots // CHUNKS))
    capacity = -(-slots // chunk) * chunk

    pairs = demos.reshape(slots, *demos.shape[2:])
    order = jnp.nonzero(valid.reshape(slots), size=capacity, fill_value=slots)[0]
    order = order.reshape(-1, chunk)
    shape = jax.eval_shape(encode, jax.ShapeDtypeStruct((chunk, *pairs.shape[1:]), pairs.dtype))

    @functools.partial(jax.checkpoint, prevent_cse=False)  # a scan's body is not merged with its own gradient
    def encode_chunk(index: jax.Array) -> jax.Array:
        return jax.lax.cond(
            index[0] < slots,
            lambda: encode(pairs.at[index].get(mode="clip")),
            lambda: jnp.full(shape.shape, (0 * index[0]).astype(shape.dtype)),  # zeros, of this device as those are
        )

    _, vectors = jax.lax.scan(lambda _, index: (None, encode_chunk(index)), None, order)
    packed = jnp.zeros((slots, *shape.shape[1:]), shape.dtype)
    packed = packed.at[order.reshape(-1)].set(vectors.reshape(capacity, -1), mode="drop")
    return packed.reshape(B, K, -1)
