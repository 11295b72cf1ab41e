"""What decoder and encoders share. B batch, N queries, M keys, D hidden size, A heads, C head size."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor) -> Tensor:
    """Root-mean-square norm over the last axis, without weight; at least float32 inside."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def rotary_angles(length: int, head_dim: int) -> Tensor:
    """(length, C/2) angles of RoFormer at positions 0 … length-1, base 10000."""
    inverse_period = 10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    return torch.arange(length, dtype=torch.float32)[:, None] * inverse_period


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + C/2]) of x (B, N, A, C) by angles (N, C/2): the half-rotation layout."""
    cos, sin = (table.to(x.dtype)[:, None] for table in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over those entries of the last axis where mask is true; zeros, and no gradient, if none is."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1) * mask


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (B, N, D) over the true entries of mask (B, N); zero for a row without any."""
    return torch.einsum("bn,bnd->bd", mask.to(x.dtype), x) / mask.sum(1, keepdim=True).clamp(min=1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q (B, N, A, C), k and v (B, M, A, C), mask (B, M) true where a key may be seen → (B, N, A·C)."""
    scores = torch.einsum("bnac,bmac->banm", q, k) * q.shape[-1] ** -0.5
    weights = scores.softmax(-1) if mask is None else masked_softmax(scores, mask[:, None, None, :])
    return torch.einsum("banm,bmac->bnac", weights, v).flatten(2)


class Linear(nn.Linear):
    """A linear layer without bias, as nearly all here are."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)


class Embedding(nn.Module):
    """Token (or position) table whose checkpoint key ends in `embedding_weight`."""

    def __init__(self, rows: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(torch.randn(rows, hidden_size) * hidden_size**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens.long(), self.embedding_weight)


class SwiGLU(nn.Module):
    """down(silu(gate) · up); the inner width is a multiple of 256."""

    def __init__(self, size: int, expansion: float) -> None:
        super().__init__()
        inner = -(-round(expansion * size * 2 / 3) // 256) * 256
        self.gate_up_proj = Linear(size, 2 * inner)
        self.down_proj = Linear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class SelfAttention(nn.Module):
    """Full attention; the fused projection holds queries, keys and values of all heads, in that order."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = Linear(hidden_size, 3 * hidden_size)
        self.o_proj = Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, angles: Tensor | None) -> Tensor:
        """x (B, N, D), angles (N, C/2) or None for no rotation → (B, N, D)."""
        q, k, v = self.qkv_proj(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return self.o_proj(attend(q, k, v))


class Residual(nn.Module):
    """h ↦ rms(h + γ·f(h)) with `post` norm, h + γ·f(rms(h)) with `pre` norm; γ = 1 without layer scale.

    Base class of blocks with two branches, whose layer scales the checkpoint calls `gamma_1` and `gamma_2`.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(self, hidden_size: int, norm_style: str, layer_scale_init: float) -> None:
        super().__init__()
        if norm_style not in ("pre", "post"):
            raise ValueError(f"norm_style must be pre or post, not {norm_style!r}")
        self.norm_style = norm_style
        for name in ("gamma_1", "gamma_2"):
            scale = torch.full((hidden_size,), layer_scale_init) if layer_scale_init > 0 else None
            self.register_parameter(name, None if scale is None else nn.Parameter(scale))

    def add(self, h: Tensor, branch: Callable[[Tensor], Tensor], gamma: Tensor | None) -> Tensor:
        out = branch(rms_norm(h) if self.norm_style == "pre" else h)
        h = h + (out if gamma is None else gamma * out)
        return h if self.norm_style == "pre" else rms_norm(h)


class Block(Residual):
    """Self-attention, then SwiGLU."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        norm_style: str = "post",
        layer_scale_init: float = 0.0,
    ) -> None:
        super().__init__(hidden_size, norm_style, layer_scale_init)
        self.self_attn = SelfAttention(hidden_size, num_heads)
        self.mlp = SwiGLU(hidden_size, expansion)

    def forward(self, h: Tensor, angles: Tensor | None) -> Tensor:
        h = self.add(h, lambda x: self.self_attn(x, angles), self.gamma_1)
        return self.add(h, self.mlp, self.gamma_2)
