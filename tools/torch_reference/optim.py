"""AdamATan2, and sign-SGD on the rows of a table that occur."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class AdamATan2(torch.optim.Optimizer):
    """Adam with atan2 in place of the division (arXiv:2407.05872), without its scale constants.

    A parameter whose gradient is None stands still: value, moments and the count of its own updates.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                state["step"] += 1
                m = state["exp_avg"].lerp_(p.grad, 1 - beta1)
                v = state["exp_avg_sq"].lerp_(p.grad.square(), 1 - beta2)
                denominator = v.sqrt() / (1 - beta2 ** state["step"]) ** 0.5
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(torch.atan2(m, denominator), alpha=lr / (1 - beta1 ** state["step"]))


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
