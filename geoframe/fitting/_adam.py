"""Adam for a few small tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.95)  # of the mean of the gradients and of their squares


class Adam:
    """Adam's steps on leaves, each with a rate of its own.

    torch.optim's takes the same steps; its first use in a process imports the compiler of torch, two seconds that are
    longer than many a fit.

    Args:
        rates: leaves that require a gradient, with their rates.
    """

    def __init__(self, rates: Sequence[tuple[Tensor, float]]) -> None:
        self.rates = list(rates)
        self.means = [(torch.zeros_like(x), torch.zeros_like(x)) for x, _ in self.rates]
        self.steps = 0

    def step(self, loss: Tensor, speed: float = 1.0) -> None:
        """One step down a scalar loss, at `speed` times the rates."""
        grads = torch.autograd.grad(loss, [x for x, _ in self.rates])
        self.steps += 1
        first, second = (1 - beta**self.steps for beta in BETAS)
        with torch.no_grad():
            for (x, rate), (mean, square), g in zip(self.rates, self.means, grads, strict=True):
                mean.lerp_(g, 1 - BETAS[0])
                square.lerp_(g * g, 1 - BETAS[1])
                x -= speed * rate * (mean / first) / ((square / second).sqrt() + 1e-8)
