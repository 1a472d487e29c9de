"""Robust losses of the pose solvers: weights that outliers lose, and derivatives through the whole condition.

The loss is ``sum_i v_i rho(|e_i|^2; c)``: squared near zero, growing slower beyond c. c is a multiple of the median
distance, so that it follows the noise; it is part of the solution and so is differentiated, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geoframe.solve.implicit import implicit_solution

LOSSES = ("squared", "huber", "geman-mcclure")
# c over the standard deviation of a coordinate: 95 % of the squared loss's efficiency under Gaussian noise in the plane
TUNING = {"huber": 1.5, "geman-mcclure": 3.0}
MEDIAN = 1.1774100225154747  # sqrt(2 log 2): median length of two Gaussian coordinates, in standard deviations
LEAST_SCALE = 1e-6  # of the points' spread: smaller distances are rounding, not noise


def rho(square: Tensor, c: Tensor, loss: str) -> Tensor:
    """The loss of squared distances (..., V) at the scale c (..., 1): `square` itself near zero."""
    if loss == "huber":
        far = square > c.square()
        length = torch.where(far, square, torch.ones_like(square)).sqrt()
        return torch.where(far, 2 * c * length - c.square(), square)
    return square / (1 + square / c.square())


def weight(square: Tensor, c: Tensor, loss: str) -> Tensor:
    """The derivative of `rho` by `square` (..., V): what a point counts."""
    if loss == "huber":
        return (c / square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()).clamp_max(1)
    return (1 + square / c.square()).square().reciprocal()


def noise_scale(square: Tensor, v: Tensor, least: Tensor, loss: str) -> Tensor:
    """c (B, 1): TUNING times the standard deviation of a coordinate, by the weighted median of the distances."""
    order = square.argsort(1)
    reached = v.gather(1, order).cumsum(1)
    pick = (reached < 0.5 * reached[:, -1:]).sum(1, keepdim=True).clamp_max(square.shape[1] - 1)
    middle = square.gather(1, order.gather(1, pick))
    tiny = torch.finfo(square.dtype).tiny
    return TUNING[loss] * torch.maximum(middle.clamp_min(tiny).sqrt() / MEDIAN, least[:, None])


def polished(
    x: Tensor,
    conditions: Callable[[Tensor], Tensor],
    *,
    steps: int = 20,
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method on conditions (B, P) that vanish at the solution: unknowns (B, P), Jacobian, whether it is there.

    A step that does not lower the conditions is halved; samples are independent of one another.
    """
    f = conditions(x)
    for _ in range(steps):
        J = jacobian(conditions, x)
        step = -torch.linalg.lstsq(J, f[..., None]).solution[..., 0]
        length = torch.ones_like(x[:, :1])
        size = f.abs().amax(1, keepdim=True)
        for _ in range(4):
            trial = conditions(x + length * step)
            worse = ~(trial.abs().amax(1, keepdim=True) <= size)
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 4, length)
        better = trial.abs().amax(1, keepdim=True) < size
        x = torch.where(better, x + length * step, x)
        f = torch.where(better, trial, f)
        if not bool(better.any()):
            break
    return x, jacobian(conditions, x), f.abs().amax(1)


def jacobian(conditions: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(B, P, P) derivatives of the conditions, sample by sample independent."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        f = conditions(x)
        rows = [torch.autograd.grad(f[:, j].sum(), x, retain_graph=True)[0] for j in range(x.shape[1])]
    return torch.stack(rows, 1)


__all__ = ["LOSSES", "implicit_solution", "jacobian", "noise_scale", "polished", "rho", "weight"]
