"""Encode real demonstrations only.

ARC tasks have 3.3 demonstrations on average in 10 slots, and with `encode="once"` only rows that start need
theirs. The valid slots are gathered to the front and encoded chunk by chunk, in a loop that ends with the last of
them, forward and backward. The work is therefore proportional to the valid slots whatever their number, and no batch
overflows. The backward pass finds the activations of all chunks in memory, whose size is that of all slots, or computes
them again, a chunk at a time.

Nothing in here crosses devices, so that each may have another number of chunks to encode.

Shapes: B rows, K demonstration slots, S grid tokens, D hidden size, N slots of a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CHUNKS = 128  # of a batch, so that the share of idle slots in the last chunk stays small
MIN_TOKENS = 256  # of a chunk, so that its matrix products are worth their start, and stay in a CPU's cache
MAX_PAIRS = 64  # of a chunk, whose activations stand in memory at once: 115,200 tokens of 30×30 grids

Tree = Any
Encode = Callable[[Tree, jax.Array], jax.Array]  # (weights, pairs (N, 2, S)) → vectors (N, D)
Gradient = Callable[[jax.Array], tuple[Tree]]  # of the vectors → of the weights
Rebuild = Callable[[Tree, list[jax.Array]], Gradient]  # (weights, activations) → gradient


def encode_valid(encode: Encode, weights: Tree, demos: jax.Array, valid: jax.Array, *, keep: bool) -> jax.Array:
    """Applies `encode` to the valid slots of demos (B, K, 2, S); zeros elsewhere.

    Args:
        encode: grid encoder; each pair's result must depend on that pair only.
        weights: what it is differentiated by.
        demos: tokens of the demonstration pairs.
        valid: (B, K) bool, the slots to encode.
        keep: the backward pass finds all activations in memory.

    Returns:
        (B, K, D), equal to encoding every slot and zeroing the invalid ones.
    """
    B, K = valid.shape
    pairs = demos.reshape(B * K, *demos.shape[2:])
    N = chunk_size(B * K, pairs[0].size)
    return _packed(encode, N, keep, weights, pairs, valid.reshape(-1)).reshape(B, K, -1)


def chunk_size(slots: int, tokens: int) -> int:
    """Pairs of a chunk, for a batch of so many slots of so many tokens each."""
    return min(slots, MAX_PAIRS, max(-(-slots // CHUNKS), -(-MIN_TOKENS // tokens)))


class Chunks:
    """The valid slots in their order, cut into chunks of N; the last is filled up with a slot that does not exist."""

    def __init__(self, N: int, pairs: jax.Array, valid: jax.Array):
        self.pairs = pairs
        size = -(-len(pairs) // N) * N
        self.order = jnp.nonzero(valid, size=size, fill_value=len(pairs))[0].reshape(-1, N)
        self.count = -(-valid.sum() // N)

    def take(self, i: jax.Array | int) -> jax.Array:
        """Pairs (N, 2, S) of chunk `i`."""
        return self.pairs.at[self.order[i]].get(mode="clip")

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """Zeros whose type says that devices may write different things into them, as they do."""
        return jnp.full(shape, (0 * self.order[0, 0]).astype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _packed(encode: Encode, N: int, keep: bool, weights: Tree, pairs: jax.Array, valid: jax.Array) -> jax.Array:
    """Vectors (slots, D) of pairs (slots, 2, S), zero where not valid (slots,)."""
    return _forward(encode, N, False, weights, pairs, valid)[0]


def _forward(encode: Encode, N: int, keep: bool, weights: Tree, pairs: jax.Array,
             valid: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    chunks = Chunks(N, pairs, valid)
    vector = jax.eval_shape(encode, weights, chunks.take(0))
    shapes = _tape(encode, weights, chunks)[0] if keep else []

    def body(i: jax.Array, loop: tuple[jax.Array, list[jax.Array]]) -> tuple[jax.Array, list[jax.Array]]:
        if keep:
            vectors, found, _ = _taped(encode, weights, chunks.take(i))
        else:
            vectors, found = encode(weights, chunks.take(i)), []
        return (loop[0].at[chunks.order[i]].set(vectors, mode="drop"),
                [array.at[i].set(leaf) for array, leaf in zip(loop[1], found, strict=True)])

    start = (chunks.zeros((len(pairs), vector.shape[1]), vector.dtype),
             [chunks.zeros((len(chunks.order), *leaf.shape), leaf.dtype) for leaf in shapes])
    out, activations = jax.lax.fori_loop(0, chunks.count, body, start)
    return out, (weights, pairs, valid, activations)


def _backward(encode: Encode, N: int, keep: bool, found: tuple[Any, ...],
              d_out: jax.Array) -> tuple[Tree, None, None]:
    weights, pairs, valid, activations = found
    chunks = Chunks(N, pairs, valid)
    rebuild = _tape(encode, weights, chunks)[1] if keep else None

    def body(i: jax.Array, sums: Tree) -> Tree:
        if rebuild is None:
            _, gradient = jax.vjp(lambda weights: encode(weights, chunks.take(i)), weights)
        else:
            gradient = rebuild(weights, [array[i] for array in activations])
        d_vectors = d_out.at[chunks.order[i]].get(mode="fill", fill_value=0)
        return jax.tree.map(jnp.add, sums, gradient(d_vectors)[0])

    return jax.lax.fori_loop(0, chunks.count, body, jax.tree.map(jnp.zeros_like, weights)), None, None


_packed.defvjp(_forward, _backward)


def _taped(encode: Encode, weights: Tree, pairs: jax.Array) -> tuple[jax.Array, list[jax.Array], Rebuild]:
    """Vectors of a chunk, what its gradient reads besides the weights, and how the two become the gradient again."""
    vectors, gradient = jax.vjp(lambda weights: encode(weights, pairs), weights)
    leaves, structure = jax.tree.flatten(gradient)
    number = {id(weight): i for i, weight in enumerate(jax.tree.leaves(weights))}
    numbers = [number.get(id(leaf)) for leaf in leaves]

    def rebuild(weights: Tree, activations: list[jax.Array]) -> Gradient:
        there, others = jax.tree.leaves(weights), iter(activations)
        return jax.tree.unflatten(structure, [next(others) if i is None else there[i] for i in numbers])

    return vectors, [leaf for leaf, i in zip(leaves, numbers, strict=True) if i is None], rebuild


def _tape(encode: Encode, weights: Tree, chunks: Chunks) -> tuple[list[jax.ShapeDtypeStruct], Rebuild]:
    """Shapes of a chunk's activations and how its gradient is put together again, without computing anything."""
    rebuilds: list[Rebuild] = []

    def trace(weights: Tree, pairs: jax.Array) -> list[jax.Array]:
        _, activations, rebuild = _taped(encode, weights, pairs)
        rebuilds.append(rebuild)
        return activations

    return jax.eval_shape(trace, weights, chunks.take(0)), rebuilds[0]
