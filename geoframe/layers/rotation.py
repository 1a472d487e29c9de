"""Rotations about an axis of coordinates, and of six numbers. All act on row vectors as ``p @ R.mT``."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_int, check_shape


def turn(direction: Tensor, up: int) -> Tensor:
    """Rotations (..., 3, 3) about axis `up` by the angle of `direction` (..., 2), counter-clockwise from above.

    `direction` is (cos, sin) and need not be of length 1. About z, (0, 1) sends x to y.
    """
    check_shape(direction, "... 2", "direction")
    check_int(up, "up", low=0, high=2)
    unit = direction / direction.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(direction.dtype).tiny)
    c, s = unit.unbind(-1)
    R = direction.new_zeros(*direction.shape[:-1], 3, 3)
    a, b = (up + 1) % 3, (up + 2) % 3
    R[..., up, up] = 1
    R[..., a, a], R[..., a, b], R[..., b, a], R[..., b, b] = c, -s, s, c
    return R


def turn_by(angle: Tensor, up: int) -> Tensor:
    """Rotations (..., 3, 3) about axis `up` by `angle` (...) in radians, counter-clockwise from above."""
    return turn(torch.stack([angle.cos(), angle.sin()], dim=-1), up)


def six_to_rotation(x: Tensor) -> Tensor:
    """Rotations (..., 3, 3) whose first two columns are x (..., 6) made orthonormal (Gram-Schmidt).

    Source: Zhou et al. 2019, "On the continuity of rotation representations in neural networks".
    """
    check_shape(x, "... 6", "x")
    tiny = torch.finfo(x.dtype).tiny
    a = x[..., :3] / x[..., :3].norm(dim=-1, keepdim=True).clamp(min=tiny)
    b = x[..., 3:] - (a * x[..., 3:]).sum(-1, keepdim=True) * a
    b = b / b.norm(dim=-1, keepdim=True).clamp(min=tiny)
    return torch.stack([a, b, torch.linalg.cross(a, b)], dim=-1)
