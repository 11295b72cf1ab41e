"""Grid encoders: one demonstration pair → one vector.

Shapes: N pairs, S tokens of one grid, D hidden size. A pair (N, 2, S) is read as [input; output], 2S tokens.
PAD tokens attend and are attended like any other, as in the PyTorch models; pooling leaves them out.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from trm_jax.data.arc.grids import PAD, VOCAB_SIZE
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.layers import (
    Block,
    CrossAttention,
    Embed,
    SelfAttention,
    linear,
    rms_norm,
    rotary,
    truncated_normal,
)

LEARNED_TOKEN_STD = 0.02  # of CLS and query tokens


class GridEncoder(nnx.Module):
    """Abstract: token tables for input and output grids and a stack of self-attention blocks."""

    def __init__(self, arch: ArchConfig, num_layers: int, norm_style: str, layer_scale_init: float,
                 rngs: nnx.Rngs):
        d = arch.hidden_size
        self.input_embed = Embed(VOCAB_SIZE, d, arch.dtype, rngs)
        self.output_embed = Embed(VOCAB_SIZE, d, arch.dtype, rngs)
        self.layers = nnx.List([
            Block(SelfAttention(d, arch.num_heads, arch.attention_form, arch.dtype, rngs), d, arch.expansion,
                  arch.dtype, rngs, norm_style=norm_style, layer_scale_init=layer_scale_init)
            for _ in range(num_layers)
        ])
        self.scale = d**0.5
        self.head_dim = d // arch.num_heads

    def __call__(self, pairs: jax.Array) -> jax.Array:
        """Encodes pairs (N, 2, S) of tokens into vectors (N, D)."""
        raise NotImplementedError

    def _embed(self, pairs: jax.Array) -> jax.Array:
        tokens = [self.input_embed(pairs[:, 0]), self.output_embed(pairs[:, 1])]
        return jnp.concatenate(tokens, axis=1) * self.scale

    def _run(self, x: jax.Array, positions: int) -> jax.Array:
        table = rotary(positions, self.head_dim)
        for layer in self.layers:
            x = layer(x, table)
        return x


class PooledGridEncoder(GridEncoder):
    """The grid encoder of `standard`: blocks over 2S tokens, pooled over those that are not PAD, then linear."""

    def __init__(self, arch: ArchConfig, num_layers: int, norm_style: str, layer_scale_init: float,
                 pooling_method: str, rngs: nnx.Rngs):
        super().__init__(arch, num_layers, norm_style, layer_scale_init, rngs)
        self.pool = POOLINGS[pooling_method](arch, rngs)
        self.pool_proj = linear(arch.hidden_size, arch.hidden_size, arch.dtype, rngs)

    def __call__(self, pairs: jax.Array) -> jax.Array:
        tokens = pairs.reshape(pairs.shape[0], -1)
        hidden = self._run(self._embed(pairs), tokens.shape[1])
        return self.pool_proj(self.pool(hidden, tokens != PAD))


class ClsGridEncoder(GridEncoder):
    """The deep grid encoder: pre-norm blocks over [CLS; 2S tokens], the RMS norm of CLS.

    CLS is neither scaled nor rotated; the first token after it has position 0 (Macfarlane & Bonnet 2024).
    """

    def __init__(self, arch: ArchConfig, num_layers: int, layer_scale_init: float, rngs: nnx.Rngs):
        super().__init__(arch, num_layers, "pre", layer_scale_init, rngs)
        self.cls_token = nnx.Param(truncated_normal(LEARNED_TOKEN_STD)(rngs.params(), (1, 1, arch.hidden_size)))

    def __call__(self, pairs: jax.Array) -> jax.Array:
        tokens = self._embed(pairs)
        cls = jnp.broadcast_to(self.cls_token[...].astype(tokens.dtype), (tokens.shape[0], 1, tokens.shape[2]))
        hidden = self._run(jnp.concatenate([cls, tokens], axis=1), tokens.shape[1])
        return rms_norm(hidden[:, 0])


class MeanPool(nnx.Module):
    """Mean of hidden (N, 2S, D) over mask (N, 2S); zeros where the mask is empty."""

    def __init__(self, arch: ArchConfig, rngs: nnx.Rngs):
        del arch, rngs  # nothing to learn

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        total = jnp.einsum("ntd,nt->nd", hidden, mask.astype(hidden.dtype), preferred_element_type=jnp.float32)
        return (total / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)).astype(hidden.dtype)


class AttentionPool(nnx.Module):
    """One learned query attends to the tokens that mask (N, 2S) allows; zeros where it is empty."""

    def __init__(self, arch: ArchConfig, rngs: nnx.Rngs):
        self.query = nnx.Param(truncated_normal(LEARNED_TOKEN_STD)(rngs.params(), (1, arch.hidden_size)))
        self.attention = CrossAttention(arch.hidden_size, arch.num_heads, arch.dtype, rngs)

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        query = jnp.broadcast_to(self.query[...].astype(hidden.dtype)[None], (len(hidden), 1, hidden.shape[2]))
        return self.attention(query, hidden, mask)[:, 0] * mask.any(axis=1, keepdims=True)


class WeightedPool(nnx.Module):
    """Softmax-weighted mean of hidden (N, 2S, D) over mask (N, 2S); zeros where the mask is empty."""

    def __init__(self, arch: ArchConfig, rngs: nnx.Rngs):
        self.weight_proj = linear(arch.hidden_size, 1, arch.dtype, rngs)

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        scores = self.weight_proj(hidden)[..., 0].astype(jnp.float32)
        weights = jnp.where(mask, jax.nn.softmax(scores, axis=1, where=mask), 0.0)
        return jnp.einsum("nt,ntd->nd", weights.astype(hidden.dtype), hidden)


POOLINGS = {"mean": MeanPool, "attention": AttentionPool, "weighted": WeightedPool}
