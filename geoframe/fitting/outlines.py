"""Outlines of drawn meshes and of masks: how the vertices on the one have to move to lie on the other."""

from __future__ import annotations

from typing import NamedTuple

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
    from geoframe._compiled import share_rows
    from geoframe.fitting._outline_loops import distances

    check_shape(mask, "B H W", "mask")
    m = mask.bool().cpu().contiguous().numpy()
    away = np.empty(m.shape)
    share_rows(lambda first, last: distances(m, first, last, away), len(m))
    found = np.where(m, 0.5 - away, away - 0.5) * (away > 0)
    return torch.from_numpy(found.astype(np.float32)).to(mask.device)


class MaskOutlines(NamedTuple):
    """Outlines of masks, and what `outline_moves` needs to know of them.

    Attributes:
        distance: (B, H, W) of each pixel's centre from the outline, see `signed_distance`.
        outward: (B, 2, H, W) direction, of length 1, in which the distance grows.
        points: (n, 2) of the outline, the nearest one to each pixel along it; of one mask after the other.
        ends: (B,) where those of each mask end.
    """

    distance: Tensor
    outward: Tensor
    points: Tensor
    ends: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> MaskOutlines:
        """Of masks (B, H, W) bool; an empty or full one has no outline."""
        distance = signed_distance(mask)
        wide = F.pad(distance[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        slope_x = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
        slope_y = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
        outward = torch.stack([slope_x, slope_y], 1) / torch.hypot(slope_x, slope_y).clamp_min(1e-12)[:, None]
        edge = (distance < 0) & (distance > _BORDER)
        b, y, x = torch.nonzero(edge, as_tuple=True)
        centres = torch.stack([x, y], 1) + 0.5
        points = centres - distance[b, y, x, None] * outward[b, :, y, x]
        return cls(distance, outward, points, edge.sum((1, 2)).cumsum(0))


def outline_moves(
    screen: Tensor, drawn: Tensor, outlines: MaskOutlines, *, reach: float
) -> tuple[Tensor, Tensor]:
    """Moves of the vertices on the outline of a drawn mesh to the outline of a mask.

    Each goes to the nearest point there; and each pixel of the mask's outline pulls the vertex that is nearest to it,
    so that parts of the mask which the mesh leaves free are reached, too.

    Args:
        screen: (B, V, 2) pixels of the vertices.
        drawn: (B, H, W) bool, the mesh.
        outlines: of the B masks (H, W).
        reach: pixels, beyond which a vertex is not moved: what is near it there is another part.

    Returns:
        moves: (B, V, 2) pixels.
        weight: (B, V): 0 for vertices that are not on the outline, at most 1 for the nearest point and each pixel that
            pulls, less for long moves.
    """
    from geoframe._compiled import share_rows
    from geoframe.fitting._outline_loops import pulls

    screen = screen.detach()
    wide = F.pad(drawn.to(screen), (1, 1, 1, 1))
    columns = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    around = (columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]) / 9
    maps = torch.cat([around[:, None], outlines.distance[:, None].to(screen), outlines.outward.to(screen)], 1)
    H, W = drawn.shape[-2:]
    at = 2 * screen / screen.new_tensor([W, H]) - 1
    read = F.grid_sample(maps, at[:, :, None], padding_mode="border", align_corners=False)[..., 0]
    away, slope = read[:, 1], read[:, 2:] / torch.hypot(read[:, 2], read[:, 3]).clamp_min(1e-12)[:, None]
    near = (read[:, 0] < _INSIDE) & (away.abs() < 2 * reach)
    weight = (near & (away.abs() < reach)) / (1 + (2 * away / reach).square())
    pull = -weight[..., None] * away[..., None] * slope.mT
    places, rows, points, ends = (
        x.detach().cpu().contiguous().numpy() for x in (screen, near, *outlines[2:])
    )
    total, moved = (x.cpu().contiguous().numpy() for x in (weight, pull))

    def run(first: int, last: int) -> None:
        pulls(places, rows, points, ends, reach, first, last, total, moved)

    share_rows(run, len(near))
    weight, pull = torch.from_numpy(total).to(screen.device), torch.from_numpy(moved).to(screen.device)
    return pull / weight.clamp_min(1e-9)[..., None], weight
