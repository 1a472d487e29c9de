"""Poses that would explain masks, for many pictures at once: a bank of silhouettes over all views."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe.fitting.views import (
    GRID_SIDE,
    ROLLS,
    Poses,
    ball,
    directions,
    framed,
    moments_of,
    peaks,
    rolls,
)
from geoframe.render import rasterize
from geoframe.surface.mesh import Mesh

_BLOCK = 32  # masks at once: 36 turned copies of each


class Hypotheses(NamedTuple):
    """H poses of each of n pictures, the most promising first, in halves of the side from the middle.

    Attributes:
        R: (n, H, 3, 3).
        t: (n, H, 2).
        scale: (n, H).
        overlap: (n, H) of the silhouettes, moved and scaled to one centroid and area; -1 where there are fewer.
    """

    R: Tensor
    t: Tensor
    scale: Tensor
    overlap: Tensor


@torch.no_grad()
def mask_hypotheses(
    mesh: Mesh,
    masks: Tensor,
    *,
    n: int = 4,
    up: Tensor | None = None,
    tilt: float = 40.0,
    steep: float = 60.0,
    below: float = 10.0,
) -> Hypotheses:
    """The most promising poses for each of many masks, at least 25 degrees apart.

    Args:
        mesh: the template.
        masks: (N, S, S) in [0, 1], none empty.
        n: H, hypotheses a mask.
        up: (3,) the template's upward direction: only poses count that show it within `tilt` of the image's upward
            direction, from no higher than `steep` and from no lower than `below`. None takes all rotations. A view
            from above and one from below, turned about, have almost the same outline, and photographs of what
            stands on the ground are from above: this alone tells front from back in many of them.
        tilt: degrees.
        steep: degrees.
        below: degrees.

    Raises:
        ValueError: shapes that do not fit, an empty mask.
    """
    S = check_shape(masks, "N S S", "masks")["S"]
    check_int(n, "n", low=1)
    if not bool((masks.sum((1, 2)) > 0).all()):
        raise ValueError("masks: expected some foreground in each, found an empty one; leave it out")
    verts = mesh.verts.float()
    frames, (centre, radius) = directions().to(verts), ball(verts)
    half = GRID_SIDE / 2
    views = Poses(frames, frames.new_full((len(frames), 2), half), (0.95 * half / radius).expand(len(frames)))
    size = (GRID_SIDE, GRID_SIDE)
    seen = rasterize(verts, mesh.faces, views.camera(centre, size)).mask.to(verts)
    angles = torch.arange(ROLLS).to(verts) * (2 * math.pi / ROLLS)
    ours = framed(seen, torch.zeros_like(angles[:1]))[:, 0].flatten(1)
    roll = rolls(angles)
    R = (roll[None] @ frames[:, None]).flatten(0, 1)
    allowed = torch.ones(len(R), dtype=torch.bool)
    if up is not None:
        shown = R @ torch.nn.functional.normalize(up.to(verts), dim=0)  # image up is -y
        steepest, lowest = (math.sin(math.radians(x)) for x in (steep, below))
        level = (shown[:, 2] > -steepest) & (shown[:, 2] < lowest)  # away from the camera: seen from below
        allowed = level & (torch.atan2(shown[:, 0].abs(), -shown[:, 1]) < math.radians(tilt))
    from_centre, from_size = moments_of(seen)
    rows = []
    for part in masks.to(verts).split(_BLOCK):
        theirs = framed(part, angles).flatten(2)  # (b, ROLLS, m)
        overlap = torch.einsum("dm,brm->bdr", ours, theirs)
        score = overlap / (ours.sum(1)[None, :, None] + theirs.sum(2)[:, None] - overlap).clamp_min(1e-9)
        to_centre, to_size = moments_of(part)
        for b in range(len(part)):
            s = torch.where(allowed, score[b].flatten(), -torch.inf)
            picks = peaks(R, s, n)
            view, turn = picks // ROLLS, picks % ROLLS
            ratio = to_size[b] / from_size[view]
            away = (roll[turn, :2, :2] @ (half - from_centre[view])[..., None])[..., 0]
            middle, scale = to_centre[b] + ratio[:, None] * away, ratio * views.scale[view]
            t = middle - scale[:, None] * (R[picks] @ centre)[:, :2]
            short = n - len(picks)
            again = torch.cat([torch.arange(len(picks)), torch.zeros(short, dtype=torch.int64)])
            found = torch.cat([s[picks], s.new_full((short,), -1.0)])
            rows.append((R[picks][again], 2 * t[again] / S - 1, 2 * scale[again] / S, found))
    return Hypotheses(*(torch.stack(x) for x in zip(*rows, strict=True)))
