"""Useful operations of an update, by formula: what the model needs, whoever computes it and however.

A multiplication and its addition are two. Matrix products and attention count, element-wise operations do not; a
gradient costs twice its forward pass; what is recomputed, or computed on an empty slot, is of no use.
N tokens, D hidden size, W inner width of a SwiGLU, S grid tokens, T context tokens, K demonstration slots.
"""

from trm_jax.data.arc.grids import VOCAB_SIZE
from trm_jax.models.decoder import ArchConfig
from trm_jax.models.encoders import ENCODERS, EncoderConfig
from trm_jax.models.layers import swiglu_width
from trm_jax.run.settings import Settings

WITH_GRADIENT = 3  # times the forward pass


def update(settings: Settings, encoded_rows: float, encoded_demos: float) -> float:
    """Operations of one update, for each row of the batch.

    Args:
        encoded_rows: share of the rows whose context is computed in this update.
        encoded_demos: demonstrations encoded for it, for each row of the batch.
    """
    arch, encoder, S = settings.arch, settings.encoder, settings.seq_len
    encoding = encoded_demos * demonstration(arch, encoder, S) + encoded_rows * aggregation(arch, encoder)
    applications = arch.H_cycles - 1 + WITH_GRADIENT  # of the H-cycles only the last has a gradient
    return WITH_GRADIENT * (encoding + heads(arch, S)) + applications * h_cycle(arch, S)


def answer(settings: Settings, encoded_rows: float, encoded_demos: float) -> float:
    """Operations of an evaluation's answer, for each row: encoded once, then every ACT step."""
    arch, encoder, S = settings.arch, settings.encoder, settings.seq_len
    encoding = encoded_demos * demonstration(arch, encoder, S) + encoded_rows * aggregation(arch, encoder)
    return encoding + arch.halt_max_steps * (arch.H_cycles * h_cycle(arch, S) + heads(arch, S))


def h_cycle(arch: ArchConfig, seq_len: int) -> float:
    """Forward pass of one H-cycle on one row: L_cycles + 1 applications of the stack."""
    N = arch.puzzle_emb_len + seq_len
    mixer = _swiglu(arch.hidden_size, N, arch.expansion) if arch.mlp_t else _self_attention(N, arch.hidden_size)
    block = mixer + _swiglu(N, arch.hidden_size, arch.expansion)
    return (arch.L_cycles + 1) * arch.L_layers * block


def heads(arch: ArchConfig, seq_len: int) -> float:
    """Forward pass of the token and halting heads on one row."""
    return 2 * arch.hidden_size * (seq_len * VOCAB_SIZE + 2)


def demonstration(arch: ArchConfig, encoder: EncoderConfig, seq_len: int) -> float:
    """Forward pass of the grid encoder on one pair."""
    parts, D = ENCODERS[encoder.type], arch.hidden_size
    N = 2 * seq_len + (parts.grid == "cls")
    total = encoder.num_layers * (_self_attention(N, D) + _swiglu(N, D, arch.expansion))
    if parts.grid == "pooled":
        pooling = {"mean": 2 * N * D, "attention": 4 * D * D + 4 * N * D * D + 4 * N * D, "weighted": 4 * N * D}
        total += pooling[encoder.pooling_method] + 2 * D * D
    return total + (4 * D * D if parts.latent == "demo" else 0)


def aggregation(arch: ArchConfig, encoder: EncoderConfig) -> float:
    """Forward pass from the vectors of one row's demonstrations to its context."""
    parts, D, T, K = ENCODERS[encoder.type], arch.hidden_size, arch.puzzle_emb_len, encoder.max_demos
    project = 2 * D * T * D  # one vector → T tokens
    latent = 4 * D * D + project if parts.latent == "task" else 0
    if parts.aggregate == "mean":
        return project + latent
    attention = 4 * T * D * D + 4 * K * D * D + 4 * T * K * D
    return encoder.set_layers * (attention + _swiglu(T, D, arch.expansion)) + latent


def _self_attention(tokens: int, size: int) -> float:
    return 8 * tokens * size * size + 4 * tokens * tokens * size


def _swiglu(rows: int, size: int, expansion: float) -> float:
    return 6 * rows * size * swiglu_width(size, expansion)
