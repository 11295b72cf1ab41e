"""The recursive decoder: one ACT step of the Tiny Recursive Model (Jolicoeur-Martineau 2025).

Shapes: B rows, S grid tokens, T context tokens in front of them, D hidden size, V vocabulary.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx, struct

from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.errors import ConfigError, check_choice, check_numbers
from trm_jax.models.attention import FORMS
from trm_jax.models.layers import (
    Block,
    Buffer,
    Embed,
    SelfAttention,
    TokenSwiGLU,
    linear,
    rotary,
    truncated_normal,
)
from trm_jax.models.remat import REMAT, remat

Q_HEAD_BIAS = -5.0  # a fresh model hardly ever halts
POS_ENCODINGS = ("rope", "learned", "none")
DTYPES = ("float32", "bfloat16")
AUTO = "auto"  # left to the machine that a run starts on


@dataclasses.dataclass(frozen=True)
class ArchConfig:
    """The `arch` section; configs/base.py says what each field means.

    Where `forward_dtype`, `attention` and `remat` are "auto", run/machine.py puts in their place what suits the
    machine. A model made with "auto" is one that works anywhere: float32, XLA's attention, products kept.
    """

    hidden_size: int
    num_heads: int
    expansion: float
    L_layers: int
    H_cycles: int
    L_cycles: int
    puzzle_emb_len: int
    pos_encodings: str
    mlp_t: bool
    forward_dtype: str
    attention: str
    remat: str
    halt_max_steps: int
    halt_exploration_prob: float

    def __post_init__(self) -> None:
        check_choice("arch.pos_encodings", self.pos_encodings, POS_ENCODINGS)
        check_choice("arch.forward_dtype", self.forward_dtype, (AUTO, *DTYPES))
        check_choice("arch.attention", self.attention, (AUTO, *FORMS))
        check_choice("arch.remat", self.remat, (AUTO, *REMAT))
        check_numbers("arch", self, ["hidden_size", "num_heads", "L_layers", "H_cycles", "L_cycles", "puzzle_emb_len",
                                     "halt_max_steps"], at_least=1)
        check_numbers("arch", self, ["expansion"], above=0)
        check_numbers("arch", self, ["halt_exploration_prob"], at_least=0, at_most=1)
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            raise ConfigError(f"arch.hidden_size={self.hidden_size} must be an even multiple of "
                              f"arch.num_heads={self.num_heads}")

    @property
    def dtype(self) -> jnp.dtype:
        """Type of activations."""
        return jnp.dtype("float32" if self.forward_dtype == AUTO else self.forward_dtype)

    @property
    def attention_form(self) -> str:
        """Form of self-attention, one of `attention.FORMS`."""
        return "xla" if self.attention == AUTO else self.attention

    @property
    def remat_mode(self) -> str:
        """What the backward pass computes again, one of `remat.REMAT`."""
        return "dots" if self.remat == AUTO else self.remat


class Latents(struct.PyTreeNode):
    """The two recurrent states of a row, each (B, T+S, D)."""

    z_H: jax.Array
    z_L: jax.Array


class Stack(nnx.Module):
    """The one stack of post-norm blocks that serves both updates; `z` (B, T+S, D) + `injection` → same."""

    def __init__(self, arch: ArchConfig, length: int, rngs: nnx.Rngs):
        def mixer() -> nnx.Module:
            if arch.mlp_t:
                return TokenSwiGLU(length, arch.expansion, arch.dtype, rngs)
            return SelfAttention(arch.hidden_size, arch.num_heads, arch.attention_form, arch.dtype, rngs)

        self.layers = nnx.List([
            Block(mixer(), arch.hidden_size, arch.expansion, arch.dtype, rngs,
                  mixer_norm_axis=1 if arch.mlp_t else -1)
            for _ in range(arch.L_layers)
        ])
        self.length = length
        self.head_dim = arch.hidden_size // arch.num_heads if arch.pos_encodings == "rope" else None

    def __call__(self, z: jax.Array, injection: jax.Array) -> jax.Array:
        table = None if self.head_dim is None else rotary(self.length, self.head_dim)
        z = z + injection
        for layer in self.layers:
            z = layer(z, table)
        return z


class Decoder(nnx.Module):
    """Query tokens and context → answer, refined over ACT steps that the caller repeats.

    Args:
        arch: sizes and cycles.
        seq_len: S, tokens of one grid canvas.
    """

    def __init__(self, arch: ArchConfig, seq_len: int, rngs: nnx.Rngs):
        d, length = arch.hidden_size, arch.puzzle_emb_len + seq_len
        self.arch = arch
        self.H_init = Buffer(truncated_normal(1.0)(rngs.params(), (d,)))
        self.L_init = Buffer(truncated_normal(1.0)(rngs.params(), (d,)))
        self.embed_tokens = Embed(VOCAB_SIZE, d, arch.dtype, rngs)
        learned = arch.pos_encodings == "learned"
        self.embed_pos = nnx.Param(truncated_normal(d**-0.5)(rngs.params(), (length, d))) if learned else None
        self.L_level = Stack(arch, length, rngs)
        self.lm_head = linear(d, VOCAB_SIZE, arch.dtype, rngs)
        self.q_head = linear(d, 2, jnp.float32, rngs, bias=Q_HEAD_BIAS, kernel_init=nnx.initializers.zeros,
                             precision=jax.lax.Precision.HIGHEST)  # else a GPU would round to TF32

    def initial(self, rows: int) -> Latents:
        """The state of rows that start, (rows, T+S, D) each."""
        shape = (rows, self.L_level.length, self.arch.hidden_size)
        z_H, z_L = (jnp.broadcast_to(v[...].astype(self.arch.dtype)[None, None], shape)
                    for v in (self.H_init, self.L_init))
        return Latents(z_H, z_L)

    def embed(self, tokens: jax.Array, context: jax.Array) -> jax.Array:
        """Context (B, T, D) and query tokens (B, S) → the injection x (B, T+S, D)."""
        x = jnp.concatenate([context.astype(self.arch.dtype), self.embed_tokens(tokens)], axis=1)
        if self.embed_pos is not None:
            x = (x + self.embed_pos[...].astype(x.dtype)[None]) * 0.5**0.5
        return x * self.arch.hidden_size**0.5

    def __call__(self, z: Latents, tokens: jax.Array,
                 context: jax.Array) -> tuple[Latents, jax.Array, jax.Array]:
        """One ACT step: H_cycles × (L_cycles × z_L ← L(z_L + z_H + x);  z_H ← L(z_H + z_L)).

        Only the last H-cycle carries gradient, and none leaves through the returned state.

        Returns:
            The new state, logits (B, S, V) in float32, and q = (halt, continue) logits (B, 2) in float32.
        """
        x = self.embed(tokens, context)
        graph, weights = nnx.split(self.L_level)

        @functools.partial(remat, how=self.arch.remat_mode)
        def level(weights: nnx.State, z: jax.Array, injection: jax.Array) -> jax.Array:
            return nnx.merge(graph, weights)(z, injection)

        def cycle(weights: nnx.State, z: Latents, x: jax.Array) -> Latents:
            injection = z.z_H + x
            z_L = jax.lax.fori_loop(0, self.arch.L_cycles, lambda _, z_L: level(weights, z_L, injection), z.z_L)
            return Latents(level(weights, z.z_H, z_L), z_L)

        fixed, still_x = jax.lax.stop_gradient((weights, x))
        z = jax.lax.stop_gradient(z)
        z = jax.lax.fori_loop(0, self.arch.H_cycles - 1, lambda _, z: cycle(fixed, z, still_x), z)
        z = cycle(weights, z, x)

        logits = self.lm_head(z.z_H[:, self.arch.puzzle_emb_len:]).astype(jnp.float32)
        q = self.q_head(z.z_H[:, 0].astype(jnp.float32))
        return jax.lax.stop_gradient(z), logits, q
