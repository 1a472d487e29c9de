"""Robust losses of the pose solvers: weights that outliers lose, and derivatives through the whole condition.

The loss is ``sum_i v_i rho(|e_i|^2; c)``: squared near zero, growing slower beyond c. c is a multiple of the median
distance, so that it follows the noise; it is part of the solution and so is differentiated, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOSSES = ("squared", "huber", "geman-mcclure")
# c over the standard deviation of a coordinate: 95 % of the squared loss's efficiency under Gaussian noise in the plane
TUNING = {"huber": 1.5, "geman-mcclure": 3.0}
MEDIAN = (
    1.1774100225154747  # sqrt(2 log 2): median length of two Gaussian coordinates, in standard deviations
)
DONE = 1e-13  # of the unknowns' own units: rounding
THERE = 1e-6  # of the unknowns' own units: how far from the solution counts as converged
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


class Fit(NamedTuple):
    """A robust fit: unknowns with log c at the end (B, P + 1), the Jacobian of its conditions, whether it is a strict
    minimum (B,), and the weights of the points (B, V)."""

    y: Tensor
    jacobian: Tensor
    strict: Tensor
    weights: Tensor


class Problem(NamedTuple):
    """A pose problem with a robust loss.

    Attributes:
        loss: one of LOSSES but "squared".
        squares: ``squares(x, *data) -> (B, V)`` squared distances at the unknowns x (B, P).
        shape: which of the unknowns are coefficients.
    """

    loss: str
    squares: Callable[..., Tensor]
    shape: slice

    def conditions(
        self, y: Tensor, u: Tensor, v: Tensor, T: Tensor, basis: Tensor, ridge: Tensor, *more: Tensor
    ) -> Tensor:
        """(B, P + 1) what vanishes at the solution: the gradient of the objective, and c less that of the distances."""
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            x, log_c = y[:, :-1], y[:, -1:]
            square = self.squares(x, u, v, T, basis, ridge, *more)
            E = (v * rho(square, log_c.exp(), self.loss)).sum(1) + ridge * x[:, self.shape].square().sum(1)
            g = torch.autograd.grad(E.sum(), x, create_graph=True)[0]
            c = noise_scale(square, v, LEAST_SCALE * deviation(u, v), self.loss)
            return torch.cat([g, log_c - c.log()], 1)

    def weights(self, y: Tensor, *data: Tensor) -> Tensor:
        """(B, V) what every point counts."""
        return data[1] * weight(self.squares(y[:, :-1], *data), y[:, -1:].exp(), self.loss)

    def value(self, y: Tensor, *data: Tensor) -> Tensor:
        """(B,) the objective."""
        x = y[:, :-1]
        loss = (data[1] * rho(self.squares(x, *data), y[:, -1:].exp(), self.loss)).sum(1)
        return loss + data[4] * x[:, self.shape].square().sum(1)

    def polished(self, x: Tensor, *data: Tensor, steps: int = 20) -> Fit:
        """Newton's method on the conditions from unknowns (B, P) near the solution, halving steps that do not help."""
        data = tuple(d.detach() for d in data)
        square = self.squares(x, *data)
        c = noise_scale(square, data[1], LEAST_SCALE * deviation(data[0], data[1]), self.loss)
        y = torch.cat([x, c.log()], 1)

        def conditions(y: Tensor) -> Tensor:
            return self.conditions(y, *data)

        J = jacobian(conditions, y)
        scale = (
            J.diagonal(dim1=1, dim2=2).abs().clamp_min(1e-300)
        )  # of the conditions: their derivatives by themselves
        f = conditions(y).detach() / scale
        for _ in range(steps):
            if bool((f.abs().amax(1) < DONE).all()):
                break
            step = -torch.linalg.solve_ex(J, (f * scale)[..., None])[0][..., 0]
            step = torch.nan_to_num(step)
            length = torch.ones_like(y[:, :1])
            size = f.square().sum(1, keepdim=True)
            for _ in range(5):
                trial = conditions(y + length * step).detach() / scale
                better = trial.square().sum(1, keepdim=True) < size
                if bool(better.all()):
                    break
                length = torch.where(better, length, length / 4)
            if not bool(better.any()):
                break
            y, f = torch.where(better, y + length * step, y), torch.where(better, trial, f)
            J = jacobian(conditions, y)
        inner = J[:, :-1, :-1]
        lam = torch.linalg.eigvalsh((inner + inner.mT) / 2)
        strict = (lam[:, 0] > 1e-12 * lam[:, -1]) & (f.abs().amax(1) < THERE)
        return Fit(y, J, strict, self.weights(y, *data))


def deviation(u: Tensor, w: Tensor) -> Tensor:
    """(B,) weighted standard deviation of both coordinates of points u (B, V, 2)."""
    total = w.sum(1).clamp_min(torch.finfo(w.dtype).tiny)
    mean = (w[..., None] * u).sum(1, keepdim=True) / total[:, None, None]
    spread = (w[..., None] * (u - mean).square()).sum((1, 2)) / (2 * total)
    return torch.where(spread > 0, spread, torch.ones_like(spread)).sqrt()


def jacobian(conditions: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """(B, P, P) derivatives of the conditions, sample by sample independent."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        f = conditions(y)
        rows = [torch.autograd.grad(f[:, j].sum(), y, retain_graph=True)[0] for j in range(y.shape[1])]
    return torch.stack(rows, 1)
