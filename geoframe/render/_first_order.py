"""Gradients that say so when they are differentiated again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def first_order(g: Tensor, name: str, *inputs: Tensor) -> Tensor:
    """The gradient `g`; with create_graph=True one that raises when it is differentiated again.

    torch's `once_differentiable` stays silent where the incoming gradient is a constant: a gradient penalty would
    then be constant without a word.
    """
    return _NoSecond.apply(g, name, *inputs) if torch.is_grad_enabled() else g


class _NoSecond(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, name: str, *inputs: Tensor) -> Tensor:
        ctx.name = name
        return g.clone()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"{ctx.name}: has first derivatives only, found a second one (create_graph=True); take the gradient "
            "penalty of something else, or finite differences"
        )
