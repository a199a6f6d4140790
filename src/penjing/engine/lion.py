"""Lion: the sign of a momentum (Chen et al. 2023, arXiv 2302.06675, algorithm 2). torch has none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """w <- (1 - lr wd) w - lr sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g.

    Every weight that ever had a gradient moves by `lr` at every step, ten times AdamW's usual move: rates are
    3 to 10 times smaller, and weight decay as much larger for the same strength (section 5 of the paper).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; the loop computes losses, so there is no closure."""
        assert closure is None, "the loop computes losses"
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            grads, means = [p.grad for p in weights], [self._mean(p) for p in weights]
            first, second = group["betas"]
            moves = torch._foreach_lerp(means, grads, 1 - first)
            torch._foreach_sign_(moves)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, moves, alpha=-group["lr"])
            torch._foreach_lerp_(means, grads, 1 - second)

    def _mean(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "mean" not in state:
            state["mean"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        return state["mean"]
