"""Gaussian latents of the variational encoders (Kingma & Welling 2014).

Shapes: … any leading axes, D hidden size. Statistics and KL are in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.models.decoder import ArchConfig
from trm_jax.models.layers import linear, rms_norm

MAX_LOG_VARIANCE = 10.0


class Posterior(struct.PyTreeNode):
    """Diagonal Gaussian q(z | demonstrations): mean `mu` and `log_variance`, both (…, D)."""

    mu: jax.Array
    log_variance: jax.Array

    def sample(self, eps: jax.Array | None) -> jax.Array:
        """μ + ε σ with standard normal `eps` (…, D); the mean where `eps` is None."""
        return self.mu if eps is None else self.mu + eps * jnp.exp(0.5 * self.log_variance)

    def kl(self) -> jax.Array:
        """KL to the unit normal, summed over D: ½ Σ (μ² + σ² − 1 − log σ²), shape (…)."""
        terms = jnp.square(self.mu) + jnp.exp(self.log_variance) - 1.0 - self.log_variance
        return 0.5 * terms.sum(axis=-1)

    def std(self) -> jax.Array:
        """Posterior standard deviation, mean over D, shape (…)."""
        return jnp.exp(0.5 * self.log_variance).mean(axis=-1)


class DemoLatent(nnx.Module):
    """A latent per demonstration, before aggregation: vectors (B, K, D) → their samples."""

    def __init__(self, arch: ArchConfig, rngs: nnx.Rngs):
        d = arch.hidden_size
        self.mu_proj = linear(d, d, arch.dtype, rngs, bias=0.0)
        self.logvar_proj = linear(d, d, arch.dtype, rngs, bias=0.0)

    def __call__(self, vectors: jax.Array, eps: jax.Array | None) -> tuple[jax.Array, Posterior]:
        posterior = Posterior(self.mu_proj(vectors).astype(jnp.float32),
                              self.logvar_proj(vectors).astype(jnp.float32))
        return posterior.sample(eps).astype(vectors.dtype), posterior


class TaskLatent(nnx.Module):
    """One latent per row, after aggregation: tokens (B, T, D) → tokens decoded from its sample."""

    def __init__(self, arch: ArchConfig, rngs: nnx.Rngs):
        d = arch.hidden_size
        self.mu_proj = linear(d, d, arch.dtype, rngs, bias=0.0)
        self.logvar_proj = linear(d, d, arch.dtype, rngs, bias=0.0, kernel_init=nnx.initializers.zeros)
        self.decode_proj = linear(d, arch.puzzle_emb_len * d, arch.dtype, rngs)

    def __call__(self, tokens: jax.Array, eps: jax.Array | None) -> tuple[jax.Array, Posterior]:
        pooled = rms_norm(tokens.mean(axis=1))
        log_variance = self.logvar_proj(pooled).astype(jnp.float32)
        posterior = Posterior(self.mu_proj(pooled).astype(jnp.float32),
                              jnp.clip(log_variance, -MAX_LOG_VARIANCE, MAX_LOG_VARIANCE))
        decoded = self.decode_proj(posterior.sample(eps).astype(tokens.dtype))
        return decoded.reshape(tokens.shape), posterior
