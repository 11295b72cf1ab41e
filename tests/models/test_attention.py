"""The forms of attention against a plain softmax in float64, with every gradient."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.models import attention
from trm_jax.models.attention import attend, attend_masked, tiling

SHAPES = [(2, 7, 7, 3, 4), (1, 12, 5, 2, 6), (3, 16, 16, 1, 8)]  # B, T, U, N, H; odd lengths, head sizes of all kinds
TILES = [4, 300, 10**9]  # bytes: a query at a time, blocks or groups that do not divide, everything at once


def plain(q, k, v):
    scores = np.einsum("btnh,bunh->bntu", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bntu,bunh->btnh", weights, v), weights


def plain_gradients(q, k, v, d_out):
    _, weights = plain(q, k, v)
    d_weights = np.einsum("btnh,bunh->bntu", d_out, v)
    d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return (np.einsum("bntu,bunh->btnh", d_scores, k), np.einsum("bntu,btnh->bunh", d_scores, q),
            np.einsum("bntu,btnh->bunh", weights, d_out))


def arrays(B, T, U, N, H):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(B, length, N, H)) for length in (T, U, U, T)]


@functools.partial(jax.jit, static_argnames="form")
def with_gradients(q, k, v, d_out, form):
    out, gradient = jax.vjp(lambda q, k, v: attend(q, k, v, form), q, k, v)
    return out, *gradient(d_out)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tile_bytes", TILES)
def test_tiles_equal_plain_softmax_with_every_gradient(monkeypatch, tile_bytes, dtype):
    monkeypatch.setitem(attention.TILE_BYTES, "blocked", tile_bytes)
    with_gradients.clear_cache()
    atol = 2e-6 if dtype == "float32" else 6e-2
    for shape in SHAPES:
        exact = [np.asarray(jnp.asarray(x, dtype), np.float64) for x in arrays(*shape)]
        found = with_gradients(*(jnp.asarray(x, dtype) for x in exact), form="blocked")
        expected = plain(*exact[:3])[0], *plain_gradients(*exact)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, rtol=0, atol=atol)


def test_large_scores_neither_overflow_nor_vanish():
    q = jnp.asarray([[[[200.0, 0.0]], [[-200.0, 0.0]]]])
    out, *gradients = with_gradients(q, q, q, jnp.ones_like(q), form="xla")
    np.testing.assert_allclose(out, q)
    assert all(bool(jnp.isfinite(x).all()) for x in gradients)


@pytest.mark.parametrize(("heads", "length", "limit", "expected"), [
    (128, 104, 2**20, (16, 1)), (32, 500, 2**20, (1, 1)), (8, 1801, 2**20, (1, 13)), (512, 1800, 2**30, (64, 1)),
    (6, 10, 4 * 400, (3, 1)), (7, 10, 4 * 400, (1, 1))])
def test_tiles_fit_their_bytes_and_divide_the_heads(heads, length, limit, expected):
    group, blocks = found = tiling(heads, length, length, limit)
    assert found == expected and heads % group == 0
    assert group * -(-length // blocks) * length * 4 <= limit * 1.01


def test_no_array_of_queries_by_keys_is_kept():
    """What goes from the forward to the backward pass: q, k, v, the output and one number for each query and head."""
    q = jax.ShapeDtypeStruct((2, 40, 2, 4), jnp.float32)
    kept = jax.eval_shape(lambda q: jax.vjp(lambda q, k, v: attend(q, k, v, "blocked"), q, q, q)[1], q)
    assert sum(x.size for x in jax.tree.leaves(kept)) <= 4 * 2 * 40 * 2 * 4 + 2 * 40 * 2


def test_an_empty_mask_gives_the_mean_and_a_mask_leaves_out():
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in arrays(2, 3, 5, 2, 4))
    mask = jnp.asarray([[1, 1, 0, 1, 0], [0] * 5], bool)
    out = attend_masked(q, k, v, mask)
    np.testing.assert_allclose(out[1], jnp.broadcast_to(v[1].mean(axis=0), out[1].shape), atol=1e-6)
    alone = attend_masked(q[:1], k[:1, mask[0]], v[:1, mask[0]], jnp.ones((1, 3), bool))
    np.testing.assert_allclose(out[:1], alone, atol=1e-6)


@pytest.mark.parametrize("length", [7, 8])
def test_an_odd_length_is_filled_up_for_the_fused_kernel(monkeypatch, length):
    """What is handed to the kernel is even, and with the lengths given exact in value and gradient."""
    real, seen = jax.nn.dot_product_attention, []

    def stand_in(q, k, v, implementation, **lengths):
        assert implementation == "cudnn"
        seen.append(q.shape[1])
        return real(q, k, v, implementation="xla", **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    exact = arrays(2, length, length, 3, 8)
    with_gradients.clear_cache()
    found = with_gradients(*(jnp.asarray(x, jnp.float32) for x in exact), form="cudnn")
    with_gradients.clear_cache()
    for ours, theirs in zip(found, (plain(*exact[:3])[0], *plain_gradients(*exact)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    assert seen == [8]


@pytest.mark.parametrize("length", [916, 1801])
def test_the_fused_kernel_is_lowered_forward_and_backward(monkeypatch, length):
    """jax's own checks of it stay active; only what they ask the driver is answered here."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91400)
    monkeypatch.setattr(fused, "check_compute_capability", lambda *_: True)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda *_: False)
    q = jax.ShapeDtypeStruct((2, length, 8, 64), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda q: attend(q, q, q, "cudnn").astype(jnp.float32).sum()))
    text = gradient.trace(q).lower(lowering_platforms=("cuda",)).as_text()
    assert set(re.findall(r"__cudnn\$fmha\w*", text)) >= {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}
