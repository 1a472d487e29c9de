"""Finite groups that act on pictures of the plane and on the channels of a field at once.

An object frame of a symmetric category obeys ``psi(h x) = rho(h) psi(x)``: a picture that is mirrored (or turned) by h
has its embedding mirrored (or turned) by rho(h), a matrix of channels. The groups here hold both actions.

Source: Thewlis 2019 (thesis), chapter 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe.warps import Warp, affine_warp


@dataclass(frozen=True)
class Group:
    """A group of G elements; element 0 is the identity.

    Attributes:
        plane: (G, 2, 2), the element h as a linear map of normalised coordinates, from old places to new ones.
        channels: (G, D, D), its action rho(h) on embeddings, as columns.
    """

    plane: Tensor
    channels: Tensor

    def __len__(self) -> int:
        return len(self.plane)

    def act(self, element: int, field: Tensor) -> Tensor:
        """rho(h) on the channels of a field (B, D, h, w); its pixels stay where they are."""
        check_shape(field, f"B {self.channels.shape[1]} H W", "field")
        return torch.einsum("cd,bdhw->bchw", self.channels[element].to(field), field)

    def move(self, element: int, points: Tensor) -> Tensor:
        """Where h brings points (..., 2) of a picture; normalised."""
        return points @ self.plane[element].to(points).mT

    def warp(self, element: int, n: int = 1) -> Warp:
        """The warp that samples h x from x, n times."""
        back = torch.linalg.inv(self.plane[element])
        return affine_warp(torch.cat([back, back.new_zeros(2, 1)], 1).repeat(n, 1, 1))


def trivial_group(dim: int) -> Group:
    """The identity alone.

    Args:
        dim: D, channels of the field.
    """
    return Group(torch.eye(2)[None], torch.eye(check_int(dim, "dim", low=1))[None])


def mirror_group(dim: int, *, flipped: int = 1) -> Group:
    """The identity and the mirroring of left and right, which negates the first channels.

    Args:
        dim: D, channels of the field.
        flipped: how many of them change sign; 1 is the paper's.
    """
    check_int(flipped, "flipped", low=1, high=check_int(dim, "dim", low=1))
    sign = torch.ones(dim)
    sign[:flipped] = -1
    plane = torch.stack([torch.eye(2), torch.diag(torch.tensor([-1.0, 1.0]))])
    return Group(plane, torch.stack([torch.eye(dim), torch.diag(sign)]))


def rotation_group(order: int, dim: int, *, planes: int = 1) -> Group:
    """The turns by multiples of 360 / order degrees, which turn the first pairs of channels by as much.

    Args:
        order: how many turns; 3 and 5 are the paper's.
        dim: D, channels of the field.
        planes: how many pairs of channels are turned.
    """
    check_int(order, "order", low=1)
    check_int(planes, "planes", low=1, high=check_int(dim, "dim", low=2) // 2)
    plane, channels = [], []
    for k in range(order):
        a = 2 * math.pi * k / order
        R = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        plane.append(R)
        channels.append(torch.block_diag(*[R] * planes, torch.eye(dim - 2 * planes)))
    return Group(torch.stack(plane), torch.stack(channels))


def named_group(name: str, dim: int) -> Group:
    """A group by its name: "none", "mirror" (a quarter of the channels change sign), "rotation-N".

    Raises:
        ValueError: another name.
    """
    if name == "none":
        return trivial_group(dim)
    if name == "mirror":
        return mirror_group(dim, flipped=max(1, dim // 4))
    head, _, order = name.partition("-")
    if head == "rotation" and order.isdigit() and int(order) > 0:
        return rotation_group(int(order), dim, planes=max(1, dim // 4))
    raise ValueError(
        f"group: expected 'none', 'mirror' or 'rotation-N', such as 'rotation-5', found {name!r}"
    )
