"""An articulated arm of coloured capsules, drawn by our own rasterizer, with the exact flow between its poses.

The arm of the thesis (chapter 5, section 4.1) came from a physics engine; this one swings by smooth random angles
within limits. It is anchored in the lower left corner.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe.render import rasterize

LINKS = 5
_LENGTHS = (0.26, 0.22, 0.19, 0.16, 0.13)  # of the picture's side, between joints
_RADII = (0.060, 0.052, 0.045, 0.040, 0.036)
_LIMIT = 50.0  # degrees a joint bends either way
_FIRST = 45.0  # degrees above the horizontal, about which the first link swings
_ARC = 8  # triangles of half a capsule's end
_COLOURS = (
    (0.85, 0.30, 0.25),
    (0.95, 0.75, 0.25),
    (0.35, 0.70, 0.35),
    (0.30, 0.50, 0.85),
    (0.65, 0.40, 0.75),
)


class ArmFilm(NamedTuple):
    """Pairs of poses of the arm.

    Attributes:
        first: (n, 3, S, S) uint8.
        second: (n, 3, S, S) uint8, a moment later.
        flow: (n, 2, S, S) pixels from each pixel of the second to its place in the first; NaN on the background and
            where the first does not show it.
        centres: (n, LINKS, 2) centres of the capsules in the second, in pixels.
    """

    first: Tensor
    second: Tensor
    flow: Tensor
    centres: Tensor


def film(n: int, *, size: int = 90, seed: int = 0, step: float = 0.12) -> ArmFilm:
    """Random pairs of poses.

    Args:
        n: how many.
        size: S in pixels.
        seed: of the poses.
        step: how far a moment later is, as a share of a joint's whole swing.
    """
    draw = torch.Generator().manual_seed(seed)
    swing = torch.rand(4 * n + 20, LINKS, generator=draw) * 2 - 1
    later = (swing + step * torch.randn(swing.shape, generator=draw)).clamp(-1, 1)
    inside = [((_pose(x, size)[0][..., :2] - size / 2).abs() <= size / 2).all((1, 2)) for x in (swing, later)]
    kept = torch.nonzero(inside[0] & inside[1])[:n, 0]  # the whole arm is in the picture
    if len(kept) < n:
        raise ValueError(f"n: expected at most {len(kept)} of these poses in the picture, found {n}")
    (a, _), (b, centres) = (_pose(x[kept], size) for x in (swing, later))
    faces, link = _faces()
    colours = torch.tensor(_COLOURS)[link]
    pictures, marks = [], []
    for verts in (a, b):
        seen = rasterize(verts, faces, (size, size))
        marks.append(seen)
        colour = colours[seen.face_id.clamp_min(0)]
        # a stripe along each capsule, so that places along it are told by shade as well as by shape
        shade = 0.75 + 0.25 * torch.where(seen.face_id >= 0, seen.barycentric[..., 0], 0)[..., None]
        pictures.append(torch.where(seen.mask[..., None], colour * shade, 0.95))
    seen = marks[1]
    corner = faces[seen.face_id.clamp_min(0)]
    there = torch.gather(a[..., :2], 1, corner.reshape(n, -1)[..., None].expand(-1, -1, 2))
    place = (seen.barycentric[..., None] * there.view(n, size, size, 3, 2)).sum(-2)
    line = torch.arange(size) + 0.5
    own = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    at = place.floor().long().clamp(0, size - 1)
    hit = (
        marks[0]
        .face_id.view(n, -1)
        .gather(1, (at[..., 1] * size + at[..., 0]).view(n, -1))
        .view(n, size, size)
    )
    same = (hit >= 0) & (link[hit.clamp_min(0)] == link[seen.face_id.clamp_min(0)])
    flow = torch.where((seen.mask & same)[..., None], place - own, torch.nan)
    first, second = ((p.movedim(-1, 1) * 255).round().to(torch.uint8) for p in pictures)
    return ArmFilm(first, second, flow.movedim(-1, 1), centres)


def _faces() -> tuple[Tensor, Tensor]:
    """Faces (F, 3) of all capsules, fans around their centres, and the link (F,) of each."""
    rim = 2 * (_ARC + 1)
    fan = [(0, 1 + i, 1 + (i + 1) % rim) for i in range(rim)]
    faces = torch.tensor([[tuple(v + k * (rim + 1) for v in f) for f in fan] for k in range(LINKS)])
    return faces.reshape(-1, 3), torch.arange(LINKS).repeat_interleave(rim)


def _pose(swing: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Vertices (n, V, 3) on the screen and centres (n, LINKS, 2) of arms whose joints are swung by (n, LINKS)."""
    n = len(swing)
    turn = torch.cumsum(torch.deg2rad(swing * torch.tensor([30.0] + [_LIMIT] * (LINKS - 1))), 1)
    angle = turn + math.radians(_FIRST)
    joint = torch.tensor([0.08, 0.92]).expand(n, 2)
    verts, centres = [], []
    half = torch.linspace(-math.pi / 2, math.pi / 2, _ARC + 1)
    for k in range(LINKS):
        along = torch.stack([angle[:, k].cos(), -angle[:, k].sin()], -1)
        end = joint + _LENGTHS[k] * along
        middle = (joint + end) / 2
        rim = []
        for base, around in ((end, half), (joint, half + math.pi)):
            direction = angle[:, k, None] + around
            rim.append(base[:, None] + _RADII[k] * torch.stack([direction.cos(), -direction.sin()], -1))
        verts.append(torch.cat([middle[:, None], *rim], 1))
        centres.append(middle)
        joint = end
    flat = torch.cat(verts, 1) * size
    depth = torch.arange(LINKS, dtype=torch.float32).repeat_interleave(
        2 * (_ARC + 1) + 1
    )  # the base lies in front
    return torch.cat([flat, depth.expand(n, -1)[..., None]], -1), torch.stack(centres, 1) * size
