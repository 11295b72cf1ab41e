"""Aggregation: the vectors of a row's demonstrations → T context tokens.

Shapes: B rows, K demonstration slots, T context tokens, D hidden size. Vectors of invalid slots are zero.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders.grid import LEARNED_TOKEN_STD
from trm_jax.models.layers import Block, CrossAttention, linear, rms_norm, truncated_normal


class SetEncoder(nnx.Module):
    """Cross-attention from T learned queries to the demonstrations, in `set_layers` blocks.

    In pre-norm blocks the queries are normed, keys and values are not. `final_norm` closes with an RMS norm.
    """

    def __init__(self, arch: ArchConfig, set_layers: int, norm_style: str, layer_scale_init: float,
                 final_norm: bool, rngs: nnx.Rngs):
        d = arch.hidden_size
        self.query_tokens = nnx.Param(truncated_normal(LEARNED_TOKEN_STD)(rngs.params(), (arch.puzzle_emb_len, d)))
        self.layers = nnx.List([
            Block(CrossAttention(d, arch.num_heads, arch.dtype, rngs), d, arch.expansion, arch.dtype, rngs,
                  norm_style=norm_style, layer_scale_init=layer_scale_init)
            for _ in range(set_layers)
        ])
        self.final_norm = final_norm

    def __call__(self, vectors: jax.Array, valid: jax.Array) -> jax.Array:
        """Vectors (B, K, D), valid (B, K) → tokens (B, T, D)."""
        queries = self.query_tokens[...].astype(vectors.dtype)[None]
        tokens = jnp.broadcast_to(queries, (vectors.shape[0], *queries.shape[1:]))
        for layer in self.layers:
            tokens = layer(tokens, vectors, valid)
        return rms_norm(tokens) if self.final_norm else tokens


class MeanProjection(nnx.Module):
    """Mean over the valid demonstrations, then one linear map to T·D."""

    def __init__(self, arch: ArchConfig, rngs: nnx.Rngs):
        self.output_proj = linear(arch.hidden_size, arch.puzzle_emb_len * arch.hidden_size, arch.dtype, rngs)

    def __call__(self, vectors: jax.Array, valid: jax.Array) -> jax.Array:
        """Vectors (B, K, D), valid (B, K) → tokens (B, T, D)."""
        B, _, D = vectors.shape
        total = jnp.where(valid[..., None], vectors, 0).sum(axis=1)
        mean = total / jnp.maximum(valid.sum(axis=1, keepdims=True), 1).astype(total.dtype)
        return self.output_proj(mean).reshape(B, -1, D)
