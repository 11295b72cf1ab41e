"""The recursive decoder. B batch, S grid tokens, P context tokens, D hidden size, V vocabulary, N = P + S."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.torch_reference.layers import Block, Embedding, Linear, SwiGLU, rms_norm, rotary_angles


class Latents(NamedTuple):
    """What one ACT step hands to the next, without gradient."""

    z_H: Tensor  # (B, N, D)
    z_L: Tensor  # (B, N, D)


class Output(NamedTuple):
    """What one ACT step returns."""

    logits: Tensor  # (B, S, V)
    q_halt: Tensor  # (B,)
    q_continue: Tensor  # (B,)
    latents: Latents


class MixerBlock(nn.Module):
    """Post-norm block whose first SwiGLU, and the norm after it, run over the token axis."""

    def __init__(self, num_tokens: int, hidden_size: int, expansion: float) -> None:
        super().__init__()
        self.mlp_t = SwiGLU(num_tokens, expansion)
        self.mlp = SwiGLU(hidden_size, expansion)

    def forward(self, h: Tensor, angles: None) -> Tensor:
        h = h.mT
        h = rms_norm(h + self.mlp_t(h)).mT
        return rms_norm(h + self.mlp(h))


class Level(nn.Module):
    """The one stack that updates both latents: add the injection once, then the blocks."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, h: Tensor, injection: Tensor, angles: Tensor | None) -> Tensor:
        h = h + injection
        for layer in self.layers:
            h = layer(h, angles)
        return h


class PuzzleEmbedding(nn.Module):
    """One row per task variant. A buffer, because another optimiser trains it."""

    weights: Tensor

    def __init__(self, rows: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(rows, size))


class Decoder(nn.Module):
    """The Tiny Recursive Model behind a context of P tokens (checkpoint keys `inner.*`).

    Args:
        seq_len: S.
        puzzle_emb_len: P.
        pos_encodings: rope, learned or none.
        mlp_t: a SwiGLU over the token axis in place of attention.
        puzzle_emb_shape: rows and width of the table of puzzle embeddings; None in a model with an encoder.
    """

    H_init: Tensor
    L_init: Tensor

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        seq_len: int,
        puzzle_emb_len: int,
        L_layers: int,
        H_cycles: int,
        L_cycles: int,
        pos_encodings: str = "rope",
        mlp_t: bool = False,
        vocab_size: int = 12,
        puzzle_emb_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if pos_encodings not in ("rope", "learned", "none"):
            raise ValueError(f"pos_encodings must be rope, learned or none, not {pos_encodings!r}")
        self.num_context, self.num_tokens = puzzle_emb_len, puzzle_emb_len + seq_len
        self.head_dim, self.pos_encodings = hidden_size // num_heads, pos_encodings
        self.H_cycles, self.L_cycles = H_cycles, L_cycles

        self.embed_tokens = Embedding(vocab_size, hidden_size)
        self.lm_head = Linear(hidden_size, vocab_size)
        self.q_head = nn.Linear(hidden_size, 2)
        if puzzle_emb_shape is not None:
            self.puzzle_emb = PuzzleEmbedding(*puzzle_emb_shape)
        if pos_encodings == "learned":
            self.embed_pos = Embedding(self.num_tokens, hidden_size)
        block = (
            (lambda: MixerBlock(self.num_tokens, hidden_size, expansion))
            if mlp_t
            else (lambda: Block(hidden_size, num_heads, expansion))
        )
        self.L_level = Level([block() for _ in range(L_layers)])
        self.register_buffer("H_init", torch.randn(hidden_size))
        self.register_buffer("L_init", torch.randn(hidden_size))

    def initial_latents(self, batch_size: int) -> Latents:
        shape = (batch_size, self.num_tokens, -1)
        return Latents(self.H_init.expand(shape), self.L_init.expand(shape))

    def puzzle_context(self, identifiers: Tensor) -> Tensor:
        """Rows (B,) of the puzzle table, zero padded to P·D numbers and cut into tokens (B, P, D)."""
        return self.pad(self.puzzle_emb.weights[identifiers.long()])

    def pad(self, rows: Tensor) -> Tensor:
        """(B, W) → (B, P, D)."""
        hidden_size = self.H_init.shape[0]
        padded = F.pad(rows, (0, self.num_context * hidden_size - rows.shape[-1]))
        return padded.view(-1, self.num_context, hidden_size)

    def embed(self, context: Tensor, tokens: Tensor) -> Tensor:
        """context (B, P, D), tokens (B, S) → what every latent update is given, (B, N, D)."""
        x = torch.cat([context, self.embed_tokens(tokens)], dim=1)
        if self.pos_encodings == "learned":
            x = (x + self.embed_pos.embedding_weight) * 0.5**0.5
        return x * x.shape[-1] ** 0.5

    def forward(self, context: Tensor, tokens: Tensor, latents: Latents) -> Output:
        """One ACT step. Only the last H cycle carries gradient, to the weights and to the context alike."""
        x = self.embed(context, tokens)
        angles = rotary_angles(self.num_tokens, self.head_dim) if self.pos_encodings == "rope" else None

        def cycle(z_H: Tensor, z_L: Tensor) -> Latents:
            for _ in range(self.L_cycles):
                z_L = self.L_level(z_L, z_H + x, angles)
            return Latents(self.L_level(z_H, z_L, angles), z_L)

        with torch.no_grad():
            for _ in range(self.H_cycles - 1):
                latents = cycle(*latents)
        z_H, z_L = cycle(*latents)
        q_halt, q_continue = self.q_head(z_H[:, 0]).unbind(-1)
        logits = self.lm_head(z_H)[:, self.num_context :]
        return Output(logits, q_halt, q_continue, Latents(z_H.detach(), z_L.detach()))
