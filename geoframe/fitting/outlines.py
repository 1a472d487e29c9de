"""Outlines of drawn meshes and of masks: how the vertices on the one have to move to lie on the other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geoframe._check import check_shape

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
    """Moves of the vertices on the outline of a drawn mesh to the nearest point of the outline of a mask.

    Args:
        screen: (B, V, 2) pixels of the vertices.
        drawn: (B, H, W) bool, the mesh.
        distance: (B, H, W) see `signed_distance`, of the mask.
        reach: pixels, beyond which a vertex is not moved: what is near it there is another part.

    Returns:
        moves: (B, V, 2) pixels.
        weight: (B, V) in [0, 1]: 0 for vertices that are not on the outline, less than 1 for long moves.
    """
    around = F.avg_pool2d(F.pad(drawn[:, None].to(screen), (1, 1, 1, 1)), 3, 1)
    wide = F.pad(distance[:, None].to(screen), (1, 1, 1, 1), mode="replicate")[:, 0]
    slope_x = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    slope_y = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    maps = torch.cat([around, torch.stack([distance.to(screen), slope_x, slope_y], 1)], 1)
    H, W = drawn.shape[-2:]
    at = 2 * screen / screen.new_tensor([W, H]) - 1
    read = F.grid_sample(maps, at[:, :, None], padding_mode="border", align_corners=False)[..., 0]
    away, slope = read[:, 1], F.normalize(read[:, 2:], dim=1).transpose(1, 2)
    near = (read[:, 0] < _INSIDE) & (away.abs() < reach)
    return -away[..., None] * slope, near / (1 + (2 * away / reach).square())
