"""Demonstration encoders: rows of one table, composed of a grid encoder, an aggregation and a latent.

Shapes: B rows, K demonstration slots, S grid tokens, T context tokens, D hidden size.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.errors import check_choice, check_numbers
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders.aggregate import MeanProjection, SetEncoder
from trm_jax.models.encoders.grid import POOLINGS, ClsGridEncoder, PooledGridEncoder
from trm_jax.models.encoders.latent import DemoLatent, Posterior, TaskLatent
from trm_jax.models.encoders.packing import encode_valid
from trm_jax.models.remat import remat

RowFunction = Callable[..., Any]
PerShard = Callable[[RowFunction], RowFunction]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What an encoder is made of: which grid encoder, which aggregation, and where a latent is drawn."""

    grid: str
    aggregate: str
    latent: str | None = None


ENCODERS = {
    "standard": Parts(grid="pooled", aggregate="set"),
    "hybrid_standard": Parts(grid="cls", aggregate="set"),
    "hybrid_variational": Parts(grid="cls", aggregate="set", latent="task"),
    "lpn_standard": Parts(grid="cls", aggregate="mean"),
    "lpn_variational": Parts(grid="cls", aggregate="mean", latent="demo"),
}

# The fields that only some parts read, which of them each part reads, and the value that stands for "not read".
READS: dict[str, tuple[str, ...]] = {
    "pooled": ("pooling_method", "norm_style"),
    "cls": (),
    "set": ("set_layers", "norm_style", "final_norm"),
    "mean": (),
}
# Of the chunks that all demonstration slots would make, the share whose activations `arch.remat` keeps. A twentieth is
# more than a step of encode="once" encodes once its rows have spread over their ACT steps.
KEPT_SHARE = {"none": 1.0, "dots": 1 / 20, "full": 0.0}
NEUTRAL = {"pooling_method": "mean", "set_layers": 1, "norm_style": "post", "final_norm": True}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The `encoder` section; configs/base.py says what each field means."""

    type: str
    num_layers: int
    pooling_method: str
    set_layers: int
    norm_style: str
    layer_scale_init: float
    final_norm: bool
    max_demos: int

    def __post_init__(self) -> None:
        check_choice("encoder.type", self.type, ENCODERS)
        check_choice("encoder.pooling_method", self.pooling_method, POOLINGS)
        check_choice("encoder.norm_style", self.norm_style, ("pre", "post"))
        check_numbers("encoder", self, ["num_layers", "set_layers", "max_demos"], at_least=1)
        check_numbers("encoder", self, ["layer_scale_init"], at_least=0)

    @property
    def unread(self) -> dict[str, Any]:
        """Fields that no part of this encoder reads and that say something all the same, with their neutral value."""
        parts = ENCODERS[self.type]
        read = READS[parts.grid] + READS[parts.aggregate]
        return {field: neutral for field, neutral in NEUTRAL.items()
                if field not in read and getattr(self, field) != neutral}

    @property
    def variational(self) -> bool:
        return ENCODERS[self.type].latent is not None


class Context(struct.PyTreeNode):
    """What the decoder reads of a row's demonstrations.

    Attributes:
        tokens: (B, T, D).
        kl: scalar, KL per encoded row (`hybrid_variational`) or valid demonstration (`lpn_variational`); 0 for
            an encoder without latent.
        posterior: the latent's distribution, (B, D) or (B, K, D); None for an encoder without latent.
        weight: 1 for each unit of the posterior that was encoded, (B,) or (B, K).
    """

    tokens: jax.Array
    kl: jax.Array
    posterior: Posterior | None
    weight: jax.Array | None


class Encoder(nnx.Module):
    """Demonstrations → context, for every row of the table."""

    def __init__(self, arch: ArchConfig, config: EncoderConfig, rngs: nnx.Rngs):
        parts = ENCODERS[config.type]
        self.grid_encoder: ClsGridEncoder | PooledGridEncoder
        if parts.grid == "cls":
            self.grid_encoder = ClsGridEncoder(arch, config.num_layers, config.layer_scale_init, rngs)
        else:
            self.grid_encoder = PooledGridEncoder(arch, config.num_layers, config.norm_style,
                                                  config.layer_scale_init, config.pooling_method, rngs)
        self.set_encoder: SetEncoder | MeanProjection
        if parts.aggregate == "set":
            self.set_encoder = SetEncoder(arch, config.set_layers, config.norm_style, config.layer_scale_init,
                                          config.final_norm, rngs)
        else:
            self.set_encoder = MeanProjection(arch, rngs)
        self.demo_latent = DemoLatent(arch, rngs) if parts.latent == "demo" else None
        self.task_latent = TaskLatent(arch, rngs) if parts.latent == "task" else None
        self.hidden_size = arch.hidden_size
        self.remat = arch.remat_mode

    def noise(self, key: jax.Array, rows: int, slots: int) -> jax.Array | None:
        """Standard normal noise of the latent: (rows, K, D), (rows, D), or None for an encoder without one."""
        if self.demo_latent is not None:
            return jax.random.normal(key, (rows, slots, self.hidden_size))
        if self.task_latent is not None:
            return jax.random.normal(key, (rows, self.hidden_size))
        return None

    def __call__(self, demos: jax.Array, valid: jax.Array, *, eps: jax.Array | None = None,
                 rows: jax.Array | None = None, per_shard: PerShard = lambda f: f) -> Context:
        """Encodes the valid demonstrations of the chosen rows, packed.

        Args:
            demos: (B, K, 2, S) tokens.
            valid: (B, K) bool, which slots hold a demonstration.
            eps: noise of the latent as `noise` draws it; None takes the mean (evaluation).
            rows: (B,) bool, which rows to encode; None means all. The others' context is meaningless.
            per_shard: wraps f(weights, *rows) so that it runs on each device's rows by itself.
        """
        rows = jnp.ones(len(demos), bool) if rows is None else rows
        valid = valid & rows[:, None]
        graph, weights = nnx.split(self.grid_encoder)

        def encode(weights: nnx.State, pairs: jax.Array) -> jax.Array:
            return nnx.merge(graph, weights)(pairs)

        if self.remat == "dots":
            encode = remat(encode, self.remat)
        encode_rows = functools.partial(encode_valid, encode, kept_share=KEPT_SHARE[self.remat])
        return self.contextualise(per_shard(encode_rows)(weights, demos, valid), valid, rows, eps)

    def contextualise(self, vectors: jax.Array, valid: jax.Array, rows: jax.Array,
                      eps: jax.Array | None) -> Context:
        """Vectors (B, K, D) of the demonstrations, zero where not valid (B, K) → context of `rows` (B,)."""
        posterior = weight = None
        if self.demo_latent is not None:
            vectors, posterior = self.demo_latent(vectors, eps)
            weight = valid
        tokens = self.set_encoder(vectors, valid)
        if self.task_latent is not None:
            tokens, posterior = self.task_latent(tokens, eps)
            weight = rows
        return Context(tokens, _mean_kl(posterior, weight), posterior, weight)


def _mean_kl(posterior: Posterior | None, weight: jax.Array | None) -> jax.Array:
    if posterior is None or weight is None:
        return jnp.zeros(())
    return jnp.where(weight, posterior.kl(), 0.0).sum() / jnp.maximum(weight.sum(), 1)
