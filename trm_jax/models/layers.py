"""Layers shared by decoder and encoders.

Shapes: B rows, T tokens, U tokens attended to, D hidden size, N heads, H = D / N head size.
Parameters are float32; `dtype` is the type that matrix products are computed in.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trm_jax.models.attention import attend, attend_masked

RMS_NORM_EPS = 1e-5
ROPE_BASE = 10_000.0
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a unit normal truncated at ±2

Dtype = jnp.dtype | type
Rotary = tuple[np.ndarray, np.ndarray]


class Buffer(nnx.Variable):
    """A fixed array that belongs to the checkpoint but is never trained, averaged or decayed."""


class _Keys:
    def __init__(self, key: jax.Array):
        self._key, self._used = key, 0

    def params(self) -> jax.Array:
        self._used += 1
        return jax.random.fold_in(self._key, self._used - 1)


def parameter_keys(seed: int | jax.Array) -> nnx.Rngs:
    """Gives a model's parameters the keys of nnx.Rngs(seed).

    That counts them in a variable of its own, by which tracing a model takes four times as long.
    """
    return cast(nnx.Rngs, _Keys(jax.random.key(seed) if isinstance(seed, int) else seed))


def truncated_normal(std: float) -> nnx.Initializer:
    """Normal truncated at ±2σ and rescaled so that its standard deviation is `std`."""
    return jax.nn.initializers.truncated_normal(std / TRUNCATED_STD)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, weight: jax.Array, precision: jax.lax.Precision | None = None) -> jax.Array:
    """x (…, I) · weight (I, O) → (…, O), whose gradient by the weight is written as xᵀ · dy.

    JAX's own rule computes dyᵀ · x and turns the result around, for which XLA turns dy around on CPUs: four times the
    time, where dy is the wider of the two.
    """
    return jnp.matmul(x, weight, precision=precision)


def _product(x: jax.Array, weight: jax.Array,
             precision: jax.lax.Precision | None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.matmul(x, weight, precision=precision), (x, weight)


def _product_gradient(precision: jax.lax.Precision | None, kept: tuple[jax.Array, jax.Array],
                      dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    rows = tuple(range(x.ndim - 1))
    return (jnp.matmul(dy, weight.T, precision=precision),
            jax.lax.dot_general(x, dy, ((rows, rows), ((), ())), precision=precision))


product.defvjp(_product, _product_gradient)


def linear(inner: int, outer: int, dtype: Dtype, rngs: nnx.Rngs, *, bias: float | None = None,
           kernel_init: nnx.Initializer | None = None, precision: jax.lax.Precision | None = None) -> nnx.Linear:
    """Linear map, without bias unless its initial value is given; σ = 1/√fan_in unless `kernel_init` is given."""
    return nnx.Linear(inner, outer, use_bias=bias is not None, dtype=dtype, param_dtype=jnp.float32, rngs=rngs,
                      kernel_init=kernel_init or truncated_normal(inner**-0.5), precision=precision,
                      bias_init=nnx.initializers.constant(bias or 0.0), dot_general=_linear_product)


def _linear_product(x: jax.Array, kernel: jax.Array, dimension_numbers: Any,
                    precision: jax.lax.Precision | None = None, **_: Any) -> jax.Array:
    """`product`, as nnx.Linear calls it: always with the last axis of x and the first of the kernel."""
    return product(x, kernel, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rms_norm(x: jax.Array, axis: int = -1) -> jax.Array:
    """x / √(mean x² + ε) along `axis`, no weight, computed in float32 (Zhang & Sennrich 2019).

    Its gradient reads y, which the next product keeps anyway, and one float32 a vector: nothing of x.
    """
    return _rms_norm(x, axis)[0]


def _rms_norm(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=axis, keepdims=True) + RMS_NORM_EPS)
    y = (x32 * scale).astype(x.dtype)
    return y, (y, scale)


def _rms_norm_gradient(axis: int, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    y, dy32 = kept[0].astype(jnp.float32), dy.astype(jnp.float32)
    return ((kept[1] * (dy32 - y * jnp.mean(y * dy32, axis=axis, keepdims=True))).astype(dy.dtype),)


rms_norm.defvjp(_rms_norm, _rms_norm_gradient)


class Embed(nnx.Module):
    """Token embedding (…) int → (…, D), σ = 1/√D.

    The look-up is a product with one-hot rows: with a dozen tokens it costs next to nothing, and its gradient
    is a matrix product too, where a gather's would be a scatter of every token onto the same dozen rows.
    """

    def __init__(self, vocab_size: int, hidden_size: int, dtype: Dtype, rngs: nnx.Rngs):
        self.embedding = nnx.Param(truncated_normal(hidden_size**-0.5)(rngs.params(), (vocab_size, hidden_size)))
        self.dtype = dtype

    def __call__(self, tokens: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(tokens, self.embedding.shape[0], dtype=self.dtype)
        return product(one_hot, self.embedding[...].astype(self.dtype))


@functools.cache
def rotary(length: int, head_dim: int) -> Rotary:
    """Cosine and sine tables (length, H), float32, half-rotation layout (Su et al. 2021, eq. 34)."""
    frequencies = ROPE_BASE ** -(np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies).astype(np.float32)
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles), np.sin(angles)


def rotate(x: jax.Array, table: Rotary) -> jax.Array:
    """Rotates the last `len(table)` of x's tokens (B, T, N, H); tokens in front of them stay as they are."""
    cos, sin = (t[None, :, None, :] for t in table)
    still, turned = jnp.split(x, [x.shape[1] - cos.shape[1]], axis=1)
    turned = turned.astype(jnp.float32)
    first, second = jnp.split(turned, 2, axis=-1)
    turned = turned * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return jnp.concatenate([still, turned.astype(x.dtype)], axis=1)


class SelfAttention(nnx.Module):
    """Full multi-head self-attention with one fused qkv projection, (B, T, D) → (B, T, D).

    Args:
        form: of the attention, one of `attention.FORMS`.
    """

    def __init__(self, hidden_size: int, num_heads: int, form: str, dtype: Dtype, rngs: nnx.Rngs):
        self.qkv_proj = linear(hidden_size, 3 * hidden_size, dtype, rngs)
        self.o_proj = linear(hidden_size, hidden_size, dtype, rngs)
        self.num_heads = num_heads
        self.form = form

    def __call__(self, x: jax.Array, table: Rotary | None) -> jax.Array:
        q, k, v = (part.reshape(*x.shape[:2], self.num_heads, -1) for part in jnp.split(self.qkv_proj(x), 3, axis=-1))
        if table is not None:
            q, k = rotate(q, table), rotate(k, table)
        return self.o_proj(attend(q, k, v, self.form).reshape(x.shape))


class CrossAttention(nnx.Module):
    """Queries (B, T, D) attend to the items (B, U, D) that mask (B, U) allows; returns (B, T, D)."""

    def __init__(self, hidden_size: int, num_heads: int, dtype: Dtype, rngs: nnx.Rngs):
        self.q_proj = linear(hidden_size, hidden_size, dtype, rngs)
        self.k_proj = linear(hidden_size, hidden_size, dtype, rngs)
        self.v_proj = linear(hidden_size, hidden_size, dtype, rngs)
        self.o_proj = linear(hidden_size, hidden_size, dtype, rngs)
        self.num_heads = num_heads

    def __call__(self, queries: jax.Array, items: jax.Array, mask: jax.Array) -> jax.Array:
        def heads(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], self.num_heads, -1)

        q, k, v = heads(self.q_proj(queries)), heads(self.k_proj(items)), heads(self.v_proj(items))
        return self.o_proj(attend_masked(q, k, v, mask).reshape(queries.shape))


def swiglu_width(size: int, expansion: float) -> int:
    """Inner width of a SwiGLU: 2/3 · expansion · size, rounded, then up to a multiple of 256."""
    return -(-round(expansion * size * 2 / 3) // 256) * 256


class SwiGLU(nnx.Module):
    """down(silu(gate) · up) over the last axis (Shazeer 2020)."""

    def __init__(self, size: int, expansion: float, dtype: Dtype, rngs: nnx.Rngs):
        width = swiglu_width(size, expansion)
        self.gate_up_proj = linear(size, 2 * width, dtype, rngs)
        self.down_proj = linear(width, size, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(_gated(self.gate_up_proj(x)))


@jax.checkpoint  # else five arrays of this width would be kept, of which four cost next to nothing to compute
def _gated(gate_up: jax.Array) -> jax.Array:
    gate, up = jnp.split(gate_up, 2, axis=-1)
    return jax.nn.silu(gate) * up


class TokenSwiGLU(SwiGLU):
    """SwiGLU over the token axis of (B, T, D), the `mlp_t` in place of attention."""

    def __call__(self, x: jax.Array, *_: object) -> jax.Array:
        return super().__call__(x.swapaxes(1, 2)).swapaxes(1, 2)


class Block(nnx.Module):
    """Token mixing, then a SwiGLU, each with a residual, an RMS norm and optionally a layer scale γ.

    post: h = rms(h + γ f(h));  pre: h = h + γ f(rms(h)).  `mixer_norm_axis` is 1 where the mixer works along
    the tokens (mlp_t), whose norm is over them too.
    """

    def __init__(self, mixer: Callable[..., jax.Array], hidden_size: int, expansion: float, dtype: Dtype,
                 rngs: nnx.Rngs, *, norm_style: str = "post", layer_scale_init: float = 0.0,
                 mixer_norm_axis: int = -1):
        self.mixer = mixer
        self.mlp = SwiGLU(hidden_size, expansion, dtype, rngs)
        self.norm_style = norm_style
        self.mixer_norm_axis = mixer_norm_axis
        scaled = layer_scale_init > 0
        self.gamma_1 = nnx.Param(jnp.full((hidden_size,), layer_scale_init, jnp.float32)) if scaled else None
        self.gamma_2 = nnx.Param(jnp.full((hidden_size,), layer_scale_init, jnp.float32)) if scaled else None

    def __call__(self, x: jax.Array, *mixer_args: object) -> jax.Array:
        x = self._residual(x, lambda h: self.mixer(h, *mixer_args), self.gamma_1, self.mixer_norm_axis)
        return self._residual(x, self.mlp, self.gamma_2, -1)

    def _residual(self, x: jax.Array, f: Callable[[jax.Array], jax.Array], gamma: nnx.Param | None,
                  axis: int) -> jax.Array:
        update = f(rms_norm(x, axis) if self.norm_style == "pre" else x)
        if gamma is not None:
            update = update * gamma[...].astype(x.dtype)[None, None, :]
        return x + update if self.norm_style == "pre" else rms_norm(x + update, axis)
