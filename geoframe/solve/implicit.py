"""Differentiating a solution through its optimality condition, not through the iterations that found it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SINGULAR = (
    1e-11  # smallest over largest eigenvalue, with a unit diagonal, of a Hessian that counts as singular
)


def implicit_solution(
    x: Tensor, hessian: Tensor, good: Tensor, gradient_fn: Callable[..., Tensor], *data: Tensor
) -> Tensor:
    """The minimiser `x` as a differentiable function of the data: its value is `x`, unchanged.

    At a minimum ``g(x, data) = 0``, g the gradient of the objective; hence ``dx = -hessian^-1 dg/d(data)``.

    Args:
        x: (B, d) minimisers, found by any means.
        hessian: (B, d, d) symmetric, second derivatives there.
        good: (B,) bool, where the Hessian is positive definite; elsewhere the gradient is zero, since the
            minimiser is not a function of the data.
        gradient_fn: ``gradient_fn(x, *data) -> (B, d)``, differentiable in the data.
        data: tensors that the objective depends on.

    Source: implicit function theorem; Gould, Hartley & Campbell 2019, Deep Declarative Networks, prop. 4.1.
    """
    return _Implicit.apply(x, hessian, good, gradient_fn, *data)


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        hessian: Tensor,
        good: Tensor,
        gradient_fn: Callable[..., Tensor],
        *data: Tensor,
    ) -> Tensor:
        ctx.gradient_fn = gradient_fn
        ctx.save_for_backward(x, hessian, good, *data)
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hessian, good, *data = ctx.saved_tensors
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        safe = torch.where(good[:, None, None], hessian, eye)
        adjoint = -_solved(safe, torch.where(good[:, None], grad, 0.0))
        needed = ctx.needs_input_grad[4:]
        with torch.enable_grad():
            leaves = [d.detach().requires_grad_(n) for d, n in zip(data, needed, strict=True)]
            g = ctx.gradient_fn(x, *leaves)
        wanted = [leaf for leaf, n in zip(leaves, needed, strict=True) if n]
        grads = iter(torch.autograd.grad(g, wanted, adjoint, allow_unused=True))
        return None, None, None, None, *(next(grads) if n else None for n in needed)


def _solved(hessian: Tensor, right: Tensor) -> Tensor:
    """``hessian^-1 right`` (B, d); where the Hessian is singular the solution without part in its kernel."""
    scale = hessian.diagonal(dim1=1, dim2=2).abs().clamp_min(torch.finfo(hessian.dtype).tiny).rsqrt()
    scale = scale.clamp_max(
        1 / SINGULAR**2 * scale.amin(1, keepdim=True)
    )  # an unknown that nothing depends on
    scaled = scale[:, :, None] * hessian * scale[:, None]
    x = torch.linalg.solve_ex(scaled, (scale * right)[..., None])[0][..., 0]
    poor = (
        ~torch.isfinite(x).all(1) | (x.abs().amax(1) > (scale * right).abs().amax(1) / SINGULAR)
    ).nonzero()[:, 0]
    if len(poor):
        inverse = torch.linalg.pinv(scaled[poor], rtol=SINGULAR, hermitian=True)
        x[poor] = (inverse @ (scale * right)[poor, :, None])[..., 0]
    return scale * x
