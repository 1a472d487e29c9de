"""Crops changed by chance: flips, affine maps, colours; or what a frozen backbone says of such crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe.warps import similarities


@dataclass(frozen=True)
class Augmentation:
    """What is done to a crop and its positions, by chance.

    Attributes:
        flip: probability of a flip, of symmetric templates.
        turn: degrees in the image plane, either way.
        zoom: log of the factor, either way.
        shift: in halves of the side, either way.
        color: strength of changes of contrast, brightness and tint.
    """

    flip: float = 0.5
    turn: float = 12.0
    zoom: float = 0.12
    shift: float = 0.08
    color: float = 0.3


class View(NamedTuple):
    """Crops, changed by chance.

    Attributes:
        flip: (n,) bool.
        affine: (n, 2, 3) maps of normalised positions, after the flip.
        image: (n, 3, S, S) in [0, 1]; empty where there are maps.
        mask: (n, S, S).
        distance: (n, S, S) see `mask_distance`, or None.
        maps: what a frozen backbone says of the images, or nothing.
    """

    flip: Tensor
    affine: Tensor
    image: Tensor
    mask: Tensor
    distance: Tensor | None
    maps: list[Tensor]

    @classmethod
    def joined(cls, parts: Sequence[View]) -> View:
        """Several as one."""
        fields = [(v.flip, v.affine, v.image, v.mask) for v in parts]
        flip, affine, image, mask = (torch.cat(x) for x in zip(*fields, strict=True))
        distances = [v.distance for v in parts if v.distance is not None]
        maps = [torch.cat(x) for x in zip(*(v.maps for v in parts), strict=True)]
        return cls(flip, affine, image, mask, torch.cat(distances) if distances else None, maps)

    def take(self, rows: Tensor) -> View:
        """Some of them."""
        flip, affine, image, mask = (x[rows] for x in self[:4])
        distance = None if self.distance is None else self.distance[rows]
        return View(flip, affine, image, mask, distance, [x[rows] for x in self.maps])


def affine_by_chance(n: int, a: Augmentation) -> Tensor:
    """(n, 2, 3) affine maps of normalised positions, drawn from torch's generator."""
    angle = torch.deg2rad(a.turn * (2 * torch.rand(n) - 1))
    zoom = torch.exp(a.zoom * (2 * torch.rand(n) - 1))
    shift = a.shift * (2 * torch.rand(n, 2) - 1)
    return similarities(angle, zoom, shift)


def moved(points: Tensor, affine: Tensor) -> Tensor:
    """Positions (n, V, 2) under affine maps (n, 2, 3)."""
    return points @ affine[:, :, :2].mT + affine[:, None, :, 2]


def warped(images: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Images (n, C, S, S) whose content went where affine maps (n, 2, 3) send it; which pixels are known (n, S, S)."""
    A = torch.cat([affine, affine.new_tensor([[[0.0, 0.0, 1.0]]]).expand(len(affine), 1, 3)], 1)
    back = torch.linalg.inv(A)[:, :2]
    grid = F.affine_grid(back, list(images.shape), align_corners=False)
    out = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return out, (grid.abs() <= 1).all(-1).to(images)


def recolored(image: Tensor, strength: float) -> Tensor:
    """Images (n, 3, S, S) of another contrast, brightness and tint, by chance."""
    if not strength:
        return image
    n = len(image)
    gain = torch.exp(strength * (2 * torch.rand(n, 1, 1, 1) - 1 + 0.5 * (2 * torch.rand(n, 3, 1, 1) - 1)))
    offset = 0.3 * strength * (2 * torch.rand(n, 1, 1, 1) - 1)
    middle = image.mean((1, 2, 3), keepdim=True)
    return ((image - middle) * gain + middle + offset).clamp(0, 1)
