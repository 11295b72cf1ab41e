"""AdamATan2, and sign-SGD on the rows of a table that occur."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class AdamATan2:
    """Adam with atan2 in place of the division (arXiv:2407.05872), without its scale constants.

    A parameter whose gradient is None stands still: value, moments and the count of its own updates. It is no
    torch.optim.Optimizer, the first use of which imports the compiler: seconds in every process.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self.params, self.lr, self.betas, self.weight_decay = list(params), lr, betas, weight_decay
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        beta1, beta2 = self.betas
        for p in self.params:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            state["step"] += 1
            m = state["exp_avg"].lerp_(p.grad, 1 - beta1)
            v = state["exp_avg_sq"].lerp_(p.grad.square(), 1 - beta2)
            denominator = v.sqrt() / (1 - beta2 ** state["step"]) ** 0.5
            p.mul_(1 - self.lr * self.weight_decay)
            p.sub_(torch.atan2(m, denominator), alpha=self.lr / (1 - beta1 ** state["step"]))


class RowSignSGD:
    """Sign-SGD on the rows of `table` (N, W) that were looked up; no other row is touched, not even by decay."""

    def __init__(self, table: Tensor, lr: float, weight_decay: float) -> None:
        self.table, self.lr, self.weight_decay = table, lr, weight_decay

    def look_up(self, rows: Tensor) -> Tensor:
        """Copies of these rows (B,), through which the gradient reaches `step`."""
        self.rows, self.copies = rows.long(), self.table[rows.long()].clone().requires_grad_()
        return self.copies

    @torch.no_grad()
    def step(self) -> None:
        rows, place = self.rows.unique(return_inverse=True)
        summed = torch.zeros_like(self.table[rows]).index_add_(0, place, self.copies.grad)
        self.table[rows] = self.table[rows] * (1 - self.lr * self.weight_decay) - self.lr * summed.sign()
