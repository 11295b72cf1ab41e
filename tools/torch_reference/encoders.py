"""The five demo encoders. B batch, K demo slots, S grid tokens, T context tokens, D hidden size.

Every slot is encoded, valid or not: this is the dense computation that a packed one has to agree with.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tools.torch_reference.grid_encoders import DeepGridEncoder, PooledGridEncoder
from tools.torch_reference.layers import Linear, Residual, SwiGLU, attend, masked_mean, rms_norm


class Context(NamedTuple):
    """What an encoder hands to the decoder."""

    tokens: Tensor  # (B, T, D)
    kl: Tensor | None  # (), None where the encoder is not variational


class CrossBlock(Residual):
    """Cross-attention from the context tokens to the demos, then SwiGLU."""

    def __init__(
        self, hidden_size: int, num_heads: int, expansion: float, norm_style: str, layer_scale_init: float
    ) -> None:
        super().__init__(hidden_size, norm_style, layer_scale_init)
        self.num_heads = num_heads
        self.q_proj = Linear(hidden_size, hidden_size)
        self.k_proj = Linear(hidden_size, hidden_size)
        self.v_proj = Linear(hidden_size, hidden_size)
        self.o_proj = Linear(hidden_size, hidden_size)
        self.mlp = SwiGLU(hidden_size, expansion)

    def forward(self, h: Tensor, demos: Tensor, mask: Tensor) -> Tensor:
        heads = (self.num_heads, -1)
        k, v = (proj(demos).unflatten(-1, heads) for proj in (self.k_proj, self.v_proj))

        def attention(x: Tensor) -> Tensor:
            return self.o_proj(attend(self.q_proj(x).unflatten(-1, heads), k, v, mask))

        h = self.add(h, attention, self.gamma_1)
        return self.add(h, self.mlp, self.gamma_2)


class SetEncoder(nn.Module):
    """T learned queries look at the valid demos; `pre` normalises the queries only, never the demos.

    `final_norm=False` is the older set encoder that the online and the cached golden trajectories ran with.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        expansion: float,
        num_layers: int,
        num_tokens: int,
        norm_style: str,
        layer_scale_init: float,
        final_norm: bool,
    ) -> None:
        super().__init__()
        self.final_norm = final_norm
        self.query_tokens = nn.Parameter(torch.randn(num_tokens, hidden_size))
        self.layers = nn.ModuleList(
            CrossBlock(hidden_size, num_heads, expansion, norm_style, layer_scale_init)
            for _ in range(num_layers)
        )

    def forward(self, demos: Tensor, mask: Tensor) -> Tensor:
        """demos (B, K, D), mask (B, K) → (B, T, D)."""
        h = self.query_tokens.expand(len(demos), -1, -1)
        for layer in self.layers:
            h = layer(h, demos, mask)
        return rms_norm(h) if self.final_norm else h


def sample(mu: Tensor, logvar: Tensor, eps: Tensor | None) -> Tensor:
    """Reparameterised Gaussian, or its mean where no noise is given."""
    return mu if eps is None else mu + eps * torch.exp(0.5 * logvar)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, 1)), summed over the last axis."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)


class Encoder(nn.Module):
    """Base: encodes each demo slot by itself; a subclass aggregates the slots to a context."""

    def __init__(self, grid_encoder: nn.Module) -> None:
        super().__init__()
        self.grid_encoder = grid_encoder

    def forward(self, inputs: Tensor, outputs: Tensor, mask: Tensor, eps: Tensor | None = None) -> Context:
        """inputs and outputs (B, K, S), mask (B, K), eps: noise of a variational encoder or None."""
        demos = self.grid_encoder(inputs.flatten(0, 1), outputs.flatten(0, 1)).unflatten(0, mask.shape)
        return self.aggregate(demos, mask, eps)

    def aggregate(self, demos: Tensor, mask: Tensor, eps: Tensor | None) -> Context:
        """demos (B, K, D) → context."""
        raise NotImplementedError


class SetContext(Encoder):
    """`standard`, `hybrid_standard`."""

    def __init__(self, grid_encoder: nn.Module, set_encoder: SetEncoder) -> None:
        super().__init__(grid_encoder)
        self.set_encoder = set_encoder

    def aggregate(self, demos: Tensor, mask: Tensor, eps: Tensor | None) -> Context:
        return Context(self.set_encoder(demos, mask), None)


class SetGaussianContext(SetContext):
    """`hybrid_variational`: a Gaussian after aggregation, eps (B, D); KL mean over the batch."""

    def __init__(
        self, grid_encoder: nn.Module, set_encoder: SetEncoder, hidden_size: int, num_tokens: int
    ) -> None:
        super().__init__(grid_encoder, set_encoder)
        self.mu_proj = nn.Linear(hidden_size, hidden_size)
        self.logvar_proj = nn.Linear(hidden_size, hidden_size)
        self.decode_proj = Linear(hidden_size, num_tokens * hidden_size)

    def aggregate(self, demos: Tensor, mask: Tensor, eps: Tensor | None) -> Context:
        tokens = self.set_encoder(demos, mask)
        pooled = rms_norm(tokens.mean(1))
        mu, logvar = self.mu_proj(pooled), self.logvar_proj(pooled).clamp(-10, 10)
        z = sample(mu, logvar, eps)
        return Context(self.decode_proj(z).view_as(tokens), kl_divergence(mu, logvar).mean())


class MeanContext(Encoder):
    """`lpn_standard`."""

    def __init__(self, grid_encoder: nn.Module, hidden_size: int, num_tokens: int) -> None:
        super().__init__(grid_encoder)
        self.output_proj = Linear(hidden_size, num_tokens * hidden_size)

    def aggregate(self, demos: Tensor, mask: Tensor, eps: Tensor | None) -> Context:
        return Context(self.project(masked_mean(demos, mask)), None)

    def project(self, z: Tensor) -> Tensor:
        """(B, D) → (B, T, D)."""
        return self.output_proj(z).unflatten(-1, (-1, z.shape[-1]))


class MeanGaussianContext(MeanContext):
    """`lpn_variational`: a Gaussian per demo, eps (B, K, D); KL mean over all valid demos of the batch."""

    def __init__(self, grid_encoder: nn.Module, hidden_size: int, num_tokens: int) -> None:
        super().__init__(grid_encoder, hidden_size, num_tokens)
        self.mu_proj = nn.Linear(hidden_size, hidden_size)
        self.logvar_proj = nn.Linear(hidden_size, hidden_size)

    def aggregate(self, demos: Tensor, mask: Tensor, eps: Tensor | None) -> Context:
        mu, logvar = self.mu_proj(demos), self.logvar_proj(demos)
        tokens = self.project(masked_mean(sample(mu, logvar, eps), mask))
        kl = (kl_divergence(mu, logvar) * mask).sum() / mask.sum().clamp(min=1)
        return Context(tokens, kl)


def make_encoder(
    name: str,
    *,
    hidden_size: int,
    num_heads: int,
    expansion: float,
    num_layers: int,
    num_tokens: int,
    set_layers: int = 1,
    pooling_method: str = "mean",
    norm_style: str = "post",
    layer_scale_init: float = 0.0,
    vocab_size: int = 12,
    final_norm: bool = True,
) -> Encoder:
    """An encoder by name. Options that its parts do not have are without effect, as in the original."""
    sizes: dict[str, Any] = {"hidden_size": hidden_size, "num_heads": num_heads, "expansion": expansion}
    style: dict[str, Any] = {"norm_style": norm_style, "layer_scale_init": layer_scale_init}
    grid: dict[str, Any] = {**sizes, "num_layers": num_layers, "vocab_size": vocab_size}

    def set_encoder() -> SetEncoder:
        return SetEncoder(
            **sizes, **style, num_layers=set_layers, num_tokens=num_tokens, final_norm=final_norm
        )

    match name:
        case "standard":
            pooled = PooledGridEncoder(**grid, **style, pooling_method=pooling_method)
            return SetContext(pooled, set_encoder())
        case "hybrid_standard":
            return SetContext(DeepGridEncoder(**grid), set_encoder())
        case "hybrid_variational":
            return SetGaussianContext(DeepGridEncoder(**grid), set_encoder(), hidden_size, num_tokens)
        case "lpn_standard":
            return MeanContext(DeepGridEncoder(**grid), hidden_size, num_tokens)
        case "lpn_variational":
            return MeanGaussianContext(DeepGridEncoder(**grid), hidden_size, num_tokens)
    raise ValueError(f"no encoder is called {name!r}")
