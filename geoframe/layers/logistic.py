"""Logistic regression with a small penalty, by Newton's method: what evidence becomes a probability by."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_shape

_STEPS = 60
_CLOSE = 1e-8  # change of a weight at which the steps end


def fit_logistic(x: Tensor, y: Tensor, *, penalty: float, weight: Tensor | None = None) -> Tensor:
    """The w that minimises ``sum_i weight_i log(1 + exp(-s_i x_i . w)) + n penalty |w|^2 / 2``.

    s_i is 1 where y_i holds, and -1 elsewhere.

    Args:
        x: (n, d); a column of ones gives a constant, which is penalised like the others.
        y: (n,) bool.
        penalty: above 0, so that there is an answer where a plane parts the two kinds.
        weight: (n,) of each row; 1 by default.

    Returns:
        (d,) float64; ``sigmoid(x @ w)`` is the probability that y holds.

    Raises:
        ValueError: another shape, no rows, a penalty that is not positive.
    """
    sizes = check_shape(x, "N D", "x")
    check_shape(y, f"{sizes['N']}", "y")
    if not sizes["N"]:
        raise ValueError("x: expected at least one row, found none")
    if not penalty > 0:
        raise ValueError(f"penalty: expected a positive number, found {penalty}")
    x, goal = x.detach().double(), y.double()
    share = torch.ones_like(goal) if weight is None else weight.double()
    small = penalty * len(x) * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    w = x.new_zeros(x.shape[1])
    for _ in range(_STEPS):
        p = torch.sigmoid(x @ w)
        bend = x.T @ (x * (p * (1 - p) * share)[:, None]) + small
        step = torch.linalg.solve(bend, x.T @ ((p - goal) * share) + small @ w)
        w = w - step
        if float(step.abs().max()) < _CLOSE:
            break
    return w
