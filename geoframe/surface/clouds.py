"""Small operations on batches of point sets that several layers, losses and measures share."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_finite, check_float, check_shape


def check_clouds(points: Tensor, n: int, name: str = "points") -> Tensor:
    """Require a batch of clouds (B, N, 3), finite, each with at least `n` points that differ.

    Raises:
        TypeError, ValueError: not floating, another shape, NaN, too few points, one point repeated.
    """
    N = check_shape(check_float(points, name), "B N 3", name)["N"]
    if n > N:
        raise ValueError(
            f"{name}: expected at least {n} points a cloud, found {N}; sample more or ask for fewer nodes"
        )
    check_finite(points, name)
    flat = (points.amax(1) - points.amin(1)).amax(-1) <= 0
    if bool(flat.any()):
        raise ValueError(
            f"{name}: expected points that differ, but cloud {int(flat.nonzero()[0])} is a single point repeated"
        )
    return points


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, N, C) at index (B, ...) int64 into N, each within its batch entry: (B, ..., C)."""
    flat = index.flatten(1)
    return x.gather(1, flat[..., None].expand(-1, -1, x.shape[-1])).view(*index.shape, x.shape[-1])


def nearest_sq(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (B, Q) of every query (B, Q, D) to the nearest of points (B, N, D), and its index (B, Q).

    Differentiable in both; the choice of the neighbour is a constant. Brute force over (B, Q, N), meant for
    the few thousand points of a training batch.
    """
    with torch.no_grad():
        index = torch.cdist(query, points).argmin(-1)
    return (query - gather_rows(points, index)).square().sum(-1), index


def box(points: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner (..., 3) of the axis-aligned boxes of points (..., N, 3)."""
    return points.amin(-2), points.amax(-2)
