"""softmax(q kᵀ/√H) v, in the forms of which a run takes one (run/machine.py decides, at the start).

cudnn     NVIDIA's fused kernel: half precision on cards from Ampere on. T×U never leaves the chip.
xla       plain products, in tiles of up to a GiB; for accelerators without that kernel, and for float32.
blocked   the same in tiles that stay in a CPU's cache.

The last two have a gradient of their own, which keeps the output and the log-sum-exp of each query and computes T×U
anew, tile by tile (Dao et al. 2022; here a tile holds whole rows, so that no softmax is put together from parts).
Softmax is in float32 everywhere.

Shapes: B rows, T queries, U keys, N heads, H head size; G = B·N heads of all rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

FORMS = ("cudnn", "xla", "blocked")
TILE_BYTES = {"xla": 2**30, "blocked": 2**20}
KEPT = "attention"  # name of what a gradient needs of an attention: its output and log-sum-exp


def attend(q: jax.Array, k: jax.Array, v: jax.Array, form: str) -> jax.Array:
    """Attention of every query (B, T, N, H) to every key and value (B, U, N, H), in one of FORMS; (B, T, N, H)."""
    if form == "cudnn":
        return _fused(q, k, v)
    heads = (x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in (q, k, v))
    out = _tiled(*heads, TILE_BYTES[form])
    return out.reshape(q.shape[0], q.shape[2], q.shape[1], -1).swapaxes(1, 2)


def attend_masked(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """As `attend`, to the keys that mask (B, U) bool allows: the plain mean of v, never NaN, where it allows none."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :], implementation="xla")


def _fused(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The kernel refuses odd lengths in training: one token is added, which the lengths given tell it to ignore."""
    T = q.shape[1]
    lengths = None
    if T % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
        lengths = jnp.full(len(q), T, jnp.int32)
    return jax.nn.dot_product_attention(q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths,
                                        implementation="cudnn")[:, :T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _tiled(q: jax.Array, k: jax.Array, v: jax.Array, tile_bytes: int) -> jax.Array:
    return _forward(q, k, v, tile_bytes)[0]


def _forward(q: jax.Array, k: jax.Array, v: jax.Array, tile_bytes: int) -> tuple[jax.Array, jax.Array]:
    """Output (G, T, H) and log-sum-exp (G, T) of q (G, T, H) and k, v (G, U, H)."""
    group, blocks = tiling(len(q), q.shape[1], k.shape[1], tile_bytes)

    def heads(_: None, xs: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        q, k, v = xs
        found = jax.lax.scan(lambda _, q: (None, _tile(q, k, v)), None, _cut(q, blocks))[1]
        return None, jax.tree.map(lambda x: _join(x, q.shape[1]), found)

    out, lse = jax.lax.scan(heads, None, tuple(_grouped(x, group) for x in (q, k, v)))[1]
    return out.reshape(q.shape), lse.reshape(q.shape[:2])


def _keeping(q: jax.Array, k: jax.Array, v: jax.Array, tile_bytes: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out, lse = checkpoint_name(_forward(q, k, v, tile_bytes), KEPT)
    return out, (q, k, v, out, lse)


def _backward(tile_bytes: int, kept: tuple[jax.Array, ...], d_out: jax.Array) -> tuple[jax.Array, ...]:
    q, k, v, out, lse = kept
    group, blocks = tiling(len(q), q.shape[1], k.shape[1], tile_bytes)
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)  # Σ_u P_tu dP_tu

    def heads(_: None, xs: tuple[jax.Array, ...]) -> tuple[None, tuple[jax.Array, ...]]:
        k, v, *by_query = xs

        def block(sums: tuple[jax.Array, jax.Array],
                  by_query: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            dq, dk, dv = _tile_gradient(k, v, *by_query)
            return (sums[0] + dk, sums[1] + dv), dq

        nothing = (jnp.zeros_like(k.swapaxes(1, 2), jnp.float32), jnp.zeros_like(v.swapaxes(1, 2), jnp.float32))
        sums, dq = jax.lax.scan(block, nothing, tuple(_cut(x, blocks) for x in by_query))
        return None, (_join(dq, by_query[0].shape[1]), *(d.swapaxes(1, 2).astype(k.dtype) for d in sums))

    grads = jax.lax.scan(heads, None, tuple(_grouped(x, group) for x in (k, v, q, lse, d_out, delta)))[1]
    dq, dk, dv = (d.reshape(x.shape) for d, x in zip(grads, (q, k, v), strict=True))
    return dq, dk, dv


_tiled.defvjp(_keeping, _backward)


def _tile(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output and log-sum-exp of one tile: g heads, r queries, all keys."""
    scores = _scores(q, k)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    out = jnp.einsum("gru,guh->grh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / total).astype(q.dtype), (highest + jnp.log(total))[..., 0]


def _tile_gradient(k: jax.Array, v: jax.Array, q: jax.Array, lse: jax.Array, d_out: jax.Array,
                   delta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """d q, and this tile's part of d k and d v, (g, H, U) each in float32.

    With the tokens last, since the other way round XLA hands the two products to Eigen on CPUs, which is slower and
    with two virtual devices at work gave wrong sums (jax 0.10.2; tiles of 360, 450 and 600 queries of 1,800 tokens).
    """
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    weights = jnp.exp(_scores(q, k) - lse[..., None])
    d_weights = product("grh,guh->gru", d_out, v)
    d_scores = (weights * (d_weights - delta[..., None]) * q.shape[-1]**-0.5).astype(q.dtype)
    dq = product("gru,guh->grh", d_scores, k).astype(q.dtype)
    return dq, product("grh,gru->ghu", q, d_scores), product("grh,gru->ghu", d_out, weights.astype(v.dtype))


def _scores(q: jax.Array, k: jax.Array) -> jax.Array:
    return jnp.einsum("grh,guh->gru", q, k, preferred_element_type=jnp.float32) * q.shape[-1]**-0.5


def tiling(heads: int, queries: int, keys: int, tile_bytes: int) -> tuple[int, int]:
    """Heads of a tile, and blocks that the queries of a head are cut into; one of the two is 1."""
    bytes_a_head = 4 * queries * keys
    if bytes_a_head > tile_bytes:
        return 1, -(-bytes_a_head // tile_bytes)
    most = tile_bytes // bytes_a_head
    return next(group for group in range(min(most, heads), 0, -1) if heads % group == 0), 1


def _grouped(x: jax.Array, group: int) -> jax.Array:
    """(G, …) → (G / group, group, …)."""
    return x.reshape(-1, group, *x.shape[1:])


def _cut(x: jax.Array, blocks: int) -> jax.Array:
    """Queries (g, T, …) → (blocks, g, r, …); the last block is filled up with zeros, which add nothing anywhere."""
    g, T, *rest = x.shape
    r = -(-T // blocks)
    x = jnp.pad(x, ((0, 0), (0, r * blocks - T), *((0, 0) for _ in rest)))
    return x.reshape(g, blocks, r, *rest).swapaxes(0, 1)


def _join(x: jax.Array, T: int) -> jax.Array:
    """Undoes `_cut`."""
    x = x.swapaxes(0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :T]
