"""Where a context comes from: demonstration encoders, composed of a grid encoder, an aggregation and a latent, and
the table of task embeddings. All are rows of one table.

Shapes: B rows, K demonstration slots, S grid tokens, T context tokens, D hidden size.
"""

import dataclasses
from collections import ChainMap
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.errors import ConfigError, check_choice, check_numbers
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders.aggregate import MeanProjection, SetEncoder
from trm_jax.models.encoders.grid import POOLINGS, ClsGridEncoder, PooledGridEncoder
from trm_jax.models.encoders.latent import DemoLatent, Posterior, TaskLatent
from trm_jax.models.encoders.packing import encode_valid
from trm_jax.models.layers import Buffer


@dataclasses.dataclass(frozen=True)
class Parts:
    """What gives a context: which grid encoder, which aggregation, and where a latent is drawn; or a table."""

    grid: str
    aggregate: str
    latent: str | None = None

    def attends(self, seq_len: int) -> set[int]:
        """Lengths of the sequences of tokens that the grid encoder attends over, for canvases of so many tokens."""
        return set() if self.grid == "table" else {2 * seq_len + (self.grid == "cls")}


ENCODERS = {
    "standard": Parts(grid="pooled", aggregate="set"),
    "hybrid_standard": Parts(grid="cls", aggregate="set"),
    "hybrid_variational": Parts(grid="cls", aggregate="set", latent="task"),
    "lpn_standard": Parts(grid="cls", aggregate="mean"),
    "lpn_variational": Parts(grid="cls", aggregate="mean", latent="demo"),
}
SOURCES = ChainMap({"embedding": Parts(grid="table", aggregate="pad")}, ENCODERS)  # of context; a row there is one here

# The fields that only some parts read, which of them each part reads, and the value that stands for "not read".
READS: dict[str, tuple[str, ...]] = {
    "pooled": ("pooling_method", "norm_style"),
    "cls": (),
    "set": ("set_layers", "norm_style", "final_norm"),
    "mean": (),
    "table": ("embedding_width",),
    "pad": (),
}
NEUTRAL = {"pooling_method": "mean", "set_layers": 1, "norm_style": "post", "final_norm": True, "embedding_width": 0}


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
    embedding_width: int

    def __post_init__(self) -> None:
        check_choice("encoder.type", self.type, SOURCES)
        check_choice("encoder.pooling_method", self.pooling_method, POOLINGS)
        check_choice("encoder.norm_style", self.norm_style, ("pre", "post"))
        check_numbers("encoder", self, ["num_layers", "set_layers", "max_demos"], at_least=1)
        check_numbers("encoder", self, ["layer_scale_init", "embedding_width"], at_least=0)

    @property
    def unread(self) -> dict[str, Any]:
        """Fields that no part of this encoder reads and that say something all the same, with their neutral value."""
        parts = SOURCES[self.type]
        read = READS[parts.grid] + READS[parts.aggregate]
        return {field: neutral for field, neutral in NEUTRAL.items()
                if field not in read and getattr(self, field) != neutral}

    @property
    def variational(self) -> bool:
        return SOURCES[self.type].latent is not None


class Context(struct.PyTreeNode):
    """What the decoder reads of a row's demonstrations.

    Attributes:
        tokens: (B, T, D).
        posterior: the latent's distribution, (B, D) or (B, K, D); None for an encoder without latent.
        weight: 1 for each unit of the posterior that was encoded, (B,) or (B, K).
    """

    tokens: jax.Array
    posterior: Posterior | None = None
    weight: jax.Array | None = None

    @property
    def kl(self) -> jax.Array:
        """Mean KL over encoded rows (`hybrid_variational`) or demonstrations (`lpn_variational`); 0 without latent."""
        return jnp.zeros(()) if self.weight is None else self.kl_share(self.weight.sum())

    def kl_share(self, units: jax.Array) -> jax.Array:
        """What these rows add to the mean KL of a batch with `units` such units in all."""
        if self.posterior is None or self.weight is None:
            return jnp.zeros(())
        return jnp.where(self.weight, self.posterior.kl(), 0.0).sum() / jnp.maximum(units, 1)


class ContextSource(nnx.Module):
    """Abstract: what gives rows their context."""

    def noise(self, key: jax.Array, rows: int, slots: int) -> jax.Array | None:
        """Standard normal noise of the latent, None for a source without one."""
        return None

    def latent_units(self, valid: jax.Array, rows: jax.Array) -> jax.Array | None:
        """Which units of the latent are encoded where `rows` (B,) are, of valid (B, K): (B, K), (B,) or None."""
        return None

    def entries(self, row: jax.Array) -> jax.Array | None:
        """Rows (B,) of the source's table, (B, W), which take gradient in the table's place; None without a table."""
        return None

    def __call__(self, demos: jax.Array, valid: jax.Array, *, entries: jax.Array | None = None,
                 eps: jax.Array | None = None, rows: jax.Array | None = None) -> Context:
        """The context of rows with these demonstrations (B, K, 2, S), or with these `entries` of the table."""
        raise NotImplementedError


class Embedding(ContextSource):
    """A table of task embeddings, as in the TRM without encoder: a row of W numbers for each variant of a task.

    The table is no parameter: only rows that occur in a batch are updated (dynamics/table.py).
    """

    def __init__(self, arch: ArchConfig, width: int, table_rows: int):
        width = width or arch.hidden_size
        if width > arch.puzzle_emb_len * arch.hidden_size:
            raise ConfigError(f"encoder.embedding_width={width} is more than the {arch.puzzle_emb_len} x "
                              f"{arch.hidden_size} numbers of a context (arch.puzzle_emb_len, arch.hidden_size)")
        self.table = Buffer(jnp.zeros((table_rows, width), jnp.float32))
        self.shape = (arch.puzzle_emb_len, arch.hidden_size)

    def entries(self, row: jax.Array) -> jax.Array:
        return self.table[...][row]

    def __call__(self, demos: jax.Array, valid: jax.Array, *, entries: jax.Array | None = None,
                 eps: jax.Array | None = None, rows: jax.Array | None = None) -> Context:
        """The entries (B, W), zero padded to T·D numbers and cut into tokens (B, T, D)."""
        assert entries is not None  # those that `entries` found
        T, D = self.shape
        return Context(jnp.pad(entries, ((0, 0), (0, T * D - entries.shape[1]))).reshape(-1, T, D))


class Encoder(ContextSource):
    """Demonstrations → context."""

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
        self.keep = arch.remat_mode == "none"

    def noise(self, key: jax.Array, rows: int, slots: int) -> jax.Array | None:
        """Standard normal noise of the latent: (rows, K, D), (rows, D), or None for an encoder without one."""
        if self.demo_latent is not None:
            return jax.random.normal(key, (rows, slots, self.hidden_size))
        if self.task_latent is not None:
            return jax.random.normal(key, (rows, self.hidden_size))
        return None

    def latent_units(self, valid: jax.Array, rows: jax.Array) -> jax.Array | None:
        if self.demo_latent is not None:
            return valid & rows[:, None]
        return rows if self.task_latent is not None else None

    def __call__(self, demos: jax.Array, valid: jax.Array, *, entries: jax.Array | None = None,
                 eps: jax.Array | None = None, rows: jax.Array | None = None) -> Context:
        """Encodes the valid demonstrations of the chosen rows, packed.

        Args:
            demos: (B, K, 2, S) tokens.
            valid: (B, K) bool, which slots hold a demonstration.
            entries: None, there is no table.
            eps: noise of the latent as `noise` draws it; None takes the mean (evaluation).
            rows: (B,) bool, which rows to encode; None means all. The others' context is meaningless.
        """
        rows = jnp.ones(len(demos), bool) if rows is None else rows
        valid = valid & rows[:, None]
        graph, weights = nnx.split(self.grid_encoder)

        def encode(weights: nnx.State, pairs: jax.Array) -> jax.Array:
            return nnx.merge(graph, weights)(pairs)

        vectors = encode_valid(encode, weights, demos, valid, keep=self.keep)
        return self.contextualise(vectors, valid, rows, eps)

    def contextualise(self, vectors: jax.Array, valid: jax.Array, rows: jax.Array,
                      eps: jax.Array | None) -> Context:
        """Vectors (B, K, D) of the demonstrations, zero where not valid (B, K) → context of `rows` (B,)."""
        posterior = None
        if self.demo_latent is not None:
            vectors, posterior = self.demo_latent(vectors, eps)
        tokens = self.set_encoder(vectors, valid)
        if self.task_latent is not None:
            tokens, posterior = self.task_latent(tokens, eps)
        return Context(tokens, posterior, self.latent_units(valid, rows))


def make_source(arch: ArchConfig, config: EncoderConfig, table_rows: int, rngs: nnx.Rngs) -> ContextSource:
    """What `config.type` names; `table_rows` are those of the embedding table, 0 where there is none."""
    if SOURCES[config.type].grid == "table":
        return Embedding(arch, config.embedding_width, table_rows)
    return Encoder(arch, config, rngs)
