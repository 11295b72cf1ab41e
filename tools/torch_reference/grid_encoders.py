"""One demonstration pair → one vector. B pairs, S grid tokens, D hidden size."""

import torch
from torch import Tensor, nn

from tools.torch_reference.layers import (
    Block,
    Embedding,
    Linear,
    SelfAttention,
    SwiGLU,
    attend,
    masked_mean,
    masked_softmax,
    rms_norm,
    rotary_angles,
)

PAD = 0


class PairEmbedding(nn.Module):
    """Base of the grid encoders: [input; output] of a pair as one sequence, scaled by √D."""

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.input_embed = Embedding(vocab_size, hidden_size)
        self.output_embed = Embedding(vocab_size, hidden_size)

    def embed(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """inputs and outputs (B, S) → (B, 2S, D)."""
        x = torch.cat([self.input_embed(inputs), self.output_embed(outputs)], dim=1)
        return x * x.shape[-1] ** 0.5


class PooledGridEncoder(PairEmbedding):
    """`standard`: blocks, a pooling over the tokens that are not PAD, a linear."""

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        num_layers: int,
        vocab_size: int,
        pooling_method: str,
        norm_style: str,
        layer_scale_init: float,
    ) -> None:
        super().__init__(hidden_size, vocab_size)
        self.num_heads, self.pooling_method = num_heads, pooling_method
        self.layers = nn.ModuleList(
            Block(hidden_size, num_heads, expansion, norm_style, layer_scale_init) for _ in range(num_layers)
        )
        if pooling_method == "attention":
            self.pool_query = nn.Parameter(torch.randn(1, hidden_size))
            self.pool_q_proj = Linear(hidden_size, hidden_size)
            self.pool_k_proj = Linear(hidden_size, hidden_size)
            self.pool_v_proj = Linear(hidden_size, hidden_size)
            self.pool_o_proj = Linear(hidden_size, hidden_size)
        elif pooling_method == "weighted":
            self.pool_weight_proj = Linear(hidden_size, 1)
        elif pooling_method != "mean":
            raise ValueError(f"pooling_method must be mean, attention or weighted, not {pooling_method!r}")
        self.pool_proj = Linear(hidden_size, hidden_size)

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """inputs and outputs (B, S) → one vector per pair, (B, D); finite for a pair of empty grids."""
        h = self.embed(inputs, outputs)
        angles = rotary_angles(h.shape[1], h.shape[2] // self.num_heads)
        for layer in self.layers:
            h = layer(h, angles)
        return self.pool_proj(self.pool(h, torch.cat([inputs, outputs], dim=1) != PAD))

    def pool(self, h: Tensor, mask: Tensor) -> Tensor:
        """h (B, 2S, D), mask (B, 2S) → (B, D)."""
        if self.pooling_method == "attention":
            heads = (self.num_heads, -1)
            q = self.pool_q_proj(self.pool_query).expand(len(h), 1, -1).unflatten(-1, heads)
            k, v = (proj(h).unflatten(-1, heads) for proj in (self.pool_k_proj, self.pool_v_proj))
            return self.pool_o_proj(attend(q, k, v, mask)).squeeze(1)
        if self.pooling_method == "weighted":
            weights = masked_softmax(self.pool_weight_proj(h).squeeze(-1), mask)
            return torch.einsum("bn,bnd->bd", weights, h)
        return masked_mean(h, mask)


class DeepBlock(SelfAttention):
    """Pre-norm block whose checkpoint holds the attention's weights beside `mlp`, not below `self_attn`."""

    def __init__(self, hidden_size: int, num_heads: int, expansion: float) -> None:
        super().__init__(hidden_size, num_heads)
        self.mlp = SwiGLU(hidden_size, expansion)

    def forward(self, h: Tensor, angles: Tensor | None) -> Tensor:
        h = h + super().forward(rms_norm(h), angles)
        return h + self.mlp(rms_norm(h))


class DeepGridEncoder(PairEmbedding):
    """Of the other four encoders: a CLS token before the pair, whose last state is the pair's vector."""

    def __init__(
        self, *, hidden_size: int, num_heads: int, expansion: float, num_layers: int, vocab_size: int
    ) -> None:
        super().__init__(hidden_size, vocab_size)
        self.num_heads = num_heads
        self.cls_token = nn.Parameter(torch.randn(1, 1, hidden_size))
        self.layers = nn.ModuleList(DeepBlock(hidden_size, num_heads, expansion) for _ in range(num_layers))

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """inputs and outputs (B, S) → one vector per pair, (B, D)."""
        x = self.embed(inputs, outputs)
        angles = rotary_angles(x.shape[1], x.shape[2] // self.num_heads)
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        # CLS has no position: angle 0 leaves it as it is, and the first grid token has position 0 as well.
        angles = torch.cat([torch.zeros_like(angles[:1]), angles])
        for layer in self.layers:
            h = layer(h, angles)
        return rms_norm(h[:, 0])
