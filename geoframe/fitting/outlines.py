"""Outlines of drawn meshes and of masks: how the vertices on the one have to move to lie on the other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geoframe._check import check_shape

_BORDER = -0.8  # pixels: the centres of those along the outline, on its inner side, are no farther from it
_INSIDE = 0.8  # drawn share of the 3 x 3 pixels around a vertex, from which on it is not on the outline


def signed_distance(mask: Tensor) -> Tensor:
    """How far each pixel's centre is from the outline of a mask, negative inside.

    Args:
        mask: (B, H, W) bool; of an empty or full one all distances are 0.

    Returns:
        (B, H, W) float32 pixels.
    """
    from scipy.ndimage import distance_transform_edt

    check_shape(mask, "B H W", "mask")
    out = []
    for m in mask.cpu().numpy():
        if m.all() or not m.any():
            out.append(np.zeros(m.shape, np.float32))
            continue
        outside, inside = (distance_transform_edt(x) for x in (~m, m))
        out.append(np.where(m, 0.5 - inside, outside - 0.5).astype(np.float32))
    return torch.from_numpy(np.stack(out)).to(mask.device)


def outline_moves(screen: Tensor, drawn: Tensor, distance: Tensor, *, reach: float) -> tuple[Tensor, Tensor]:
    """Moves of the vertices on the outline of a drawn mesh to the outline of a mask.

    Each goes to the nearest point there; and each pixel of the mask's outline pulls the vertex that is nearest to it,
    so that parts of the mask which the mesh leaves free are reached, too.

    Args:
        screen: (B, V, 2) pixels of the vertices.
        drawn: (B, H, W) bool, the mesh.
        distance: (B, H, W) see `signed_distance`, of the mask.
        reach: pixels, beyond which a vertex is not moved: what is near it there is another part.

    Returns:
        moves: (B, V, 2) pixels.
        weight: (B, V): 0 for vertices that are not on the outline, at most 1 for the nearest point and each pixel that
            pulls, less for long moves.
    """
    around = F.avg_pool2d(F.pad(drawn[:, None].to(screen), (1, 1, 1, 1)), 3, 1)
    wide = F.pad(distance[:, None].to(screen), (1, 1, 1, 1), mode="replicate")[:, 0]
    slope_x = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    slope_y = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    outward = torch.stack([slope_x, slope_y], 1) / torch.hypot(slope_x, slope_y).clamp_min(1e-12)[:, None]
    maps = torch.cat([around, distance[:, None].to(screen), outward], 1)
    H, W = drawn.shape[-2:]
    at = 2 * screen / screen.new_tensor([W, H]) - 1
    read = F.grid_sample(maps, at[:, :, None], padding_mode="border", align_corners=False)[..., 0]
    away, slope = read[:, 1], F.normalize(read[:, 2:], dim=1).transpose(1, 2)
    near = (read[:, 0] < _INSIDE) & (away.abs() < 2 * reach)
    weight = (near & (away.abs() < reach)) / (1 + (2 * away / reach).square())
    pull = -weight[..., None] * away[..., None] * slope
    for b in range(len(screen)):
        edge = torch.nonzero((distance[b] < 0) & (distance[b] > _BORDER))
        rows = torch.nonzero(near[b])[:, 0]
        if not len(edge) or not len(rows):
            continue
        y, x = edge.unbind(1)
        goal = edge.flip(1).to(screen) + 0.5 - distance[b, y, x].to(screen)[:, None] * outward[b, :, y, x].T
        far, nearest = torch.cdist(goal, screen[b, rows]).min(1)
        counted = (far < reach) / (1 + (2 * far / reach).square())
        vertex = rows[nearest]
        weight[b].index_add_(0, vertex, counted)
        pull[b].index_add_(0, vertex, counted[:, None] * (goal - screen[b, vertex]))
    return pull / weight.clamp_min(1e-9)[..., None], weight
