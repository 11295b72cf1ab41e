"""Token losses and the loss head of an ACT step. B batch, S grid tokens, V vocabulary."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(s(x_label) / Σ s(x)) with s(x) = x + 1 for x ≥ 0, 1/(1 - x) below, in float64.

    logits (B, S, V), labels (B, S) → (B, S) float64, 0 where ignored.
    """
    x = logits.double()
    # Both branches are kept finite, for where() multiplies the gradient of the branch not taken by zero.
    s = torch.where(x < 0, 1 / (1 - x.clamp(max=0)), x.clamp(min=0) + 1)
    valid = labels != IGNORE
    chosen = s.gather(-1, labels.where(valid, 0).long()[..., None]).squeeze(-1)
    return (s.sum(-1).log() - chosen.log()) * valid


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """logits (B, S, V), labels (B, S) → (B, S), 0 where ignored."""
    return F.cross_entropy(logits.mT, labels.long(), ignore_index=IGNORE, reduction="none")


TOKEN_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "stablemax": stablemax_cross_entropy,
    "softmax": softmax_cross_entropy,
}


def num_right(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labelled positions predicted right, and labelled positions, both (B,)."""
    valid = labels != IGNORE
    return ((logits.argmax(-1) == labels) & valid).sum(-1), valid.sum(-1)


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) all labelled positions are predicted right; true for a row without any."""
    right, labelled = num_right(logits, labels)
    return right == labelled


class Loss(NamedTuple):
    """Sums over the batch, as the PyTorch project's loss head returns them."""

    total: Tensor  # lm + q_halt / 2 + kl_weight · kl, which the trainer divides by B and differentiates
    lm: Tensor
    q_halt: Tensor


def act_loss(
    logits: Tensor,
    q_halt: Tensor,
    labels: Tensor,
    *,
    kl: Tensor | None = None,
    kl_weight: float = 0.0,
    token_loss: str = "stablemax",
) -> Loss:
    """Loss of one ACT step; q_halt (B,) learns to tell whether the whole sequence is right.

    kl is a mean already, so that dividing the total by B leaves it with a weight of kl_weight / B.
    """
    per_token = TOKEN_LOSSES[token_loss](logits, labels)
    lm = (per_token.sum(-1) / (labels != IGNORE).sum(-1).clamp(min=1)).sum()
    target = is_right(logits, labels).to(q_halt.dtype)
    q_loss = F.binary_cross_entropy_with_logits(q_halt, target, reduction="sum")
    total = lm + 0.5 * q_loss
    return Loss(total if kl is None else total + kl_weight * kl, lm, q_loss)


def act_metrics(logits: Tensor, q_halt: Tensor, labels: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Sums over the rows that are `counted` (B,) and have a label; `count` is their number."""
    right, labelled = num_right(logits, labels)
    counted = counted & (labelled > 0)
    exact = right == labelled
    rows = {
        "count": torch.ones_like(right),
        "accuracy": right / labelled.clamp(min=1),
        "exact_accuracy": exact,
        "q_halt_accuracy": (q_halt >= 0) == exact,
    }
    return {name: (values * counted).sum() for name, values in rows.items()}


def context_statistics(tokens: Tensor) -> dict[str, Tensor]:
    """How far the contexts (B, T, D) of different rows differ; a collapsed encoder shows in the last two."""
    return {
        "output_mean": tokens.mean(),
        "output_std": tokens.std(),
        "output_norm": tokens.norm(dim=-1).mean(),
        "token_std": tokens.std(0).mean(),
        "cross_sample_var": tokens.var(0, unbiased=False).mean(),
    }
