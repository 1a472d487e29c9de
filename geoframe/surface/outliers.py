"""Points of a cloud that are not of its object: stray points and outliers, and the floor that it stands on."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_finite, check_int
from geoframe.surface.clouds import Points, as_clouds, box

# Chosen on the training chairs of ModelNet10 and on procedural categories, see experiments/keypoint_confidence.
_NEIGHBOURS = 6
_SEEN = 512  # of the points, that neighbours are looked for among
_FAR = 4.0  # times the usual distance to the neighbours: an outlier whatever is around it
_SPARSE = 1.6  # times the usual distance, and as many times that of its neighbours
_SPARSER = 1.4  # the same in a cloud that is known to have outliers:
_MANY = 0.025  # so large a share was found in a first look
_MOST = 0.25  # share of the points that are outliers at most
_UNEVEN = 0.28  # standard deviation of the logarithms of the spacing of an uneven cloud
_UNEVEN_RANGE = (0.1, 10.0)  # of the spacing over its mean
_SLAB = 0.04  # thickness of a floor, over the longest side of the cloud
_LEAST_FLOOR = 0.05  # share of the points that a floor has
_OUTSIDE = 0.25  # share of the floor's points that do not lie below the object
_REACH = 0.05  # around the object's outline, over its longest side


def isolated_points(points: Points) -> tuple[Tensor, Tensor]:
    """Which points of clouds are far from all others: stray points, and outliers scattered around or inside.

    A point is told by the mean distance to its six nearest among 512 of the points: at least four times what is usual
    in the cloud, or at least 1.6 times that and 1.6 times what is usual around its neighbours, so that the thin parts
    of a cloud of uneven density stay. A cloud with many outliers is looked at a second time without them, more
    strictly. Outliers next to the surface are not found, and do little.

    Args:
        points: (B, N, 3) in any units.

    Returns:
        isolated: (B, N) bool; none where it would be more than a quarter of a cloud's points: nobody knows what is
            outside then.
        spacing: (B, N) float32, mean distance to the six nearest, over the largest coordinate about the median.

    Raises:
        TypeError: not floating.
        ValueError: another shape, NaN.
    """
    points = as_clouds(points, "points").detach()
    check_finite(points, "points")
    B, N = points.shape[:2]
    lone, spacing = torch.zeros(B, N, dtype=torch.bool), torch.ones(B, N)
    if N <= 2 * _NEIGHBOURS:
        return lone.to(points.device), spacing.to(points.device)
    centred = (points - points.median(1, keepdim=True).values).cpu().double()
    flat = (centred / centred.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)).float()
    some = torch.linspace(0, N - 1, min(N, _SEEN)).long()  # spread, as files are sorted in places
    for i, cloud in enumerate(flat):
        found, spacing[i] = _sparse(cloud, some, _SPARSE)
        if float(found.double().mean()) > _MANY and (~found[some]).sum() > 2 * _NEIGHBOURS:
            found = found | _sparse(cloud, some[~found[some]], _SPARSER)[0]
        if float(found.double().mean()) <= _MOST:
            lone[i] = found
    return lone.to(points.device), spacing.to(points.device)


def even_index(spacing: Tensor, left: Tensor) -> Tensor:
    """Points to take instead of those of clouds, so that surfaces of uneven density become even.

    Points are taken the more often the farther they are from others, by the square of the distance, as of a surface.
    Clouds that are about even stay as they are.

    Args:
        spacing: (B, N), see `isolated_points`.
        left: (B, N) bool, the points that may be taken; where some may not, others take their places.

    Returns:
        (B, N) int64.
    """
    N = spacing.shape[1]
    weight = torch.where(left, spacing, spacing.new_zeros(()))
    usual = weight.sum(1, keepdim=True) / left.sum(1, keepdim=True).clamp(min=1)
    logs = (weight / usual.clamp(min=1e-12)).clamp(*_UNEVEN_RANGE).log()
    middle = (logs * left).sum(1, keepdim=True) / left.sum(1, keepdim=True).clamp(min=1)
    uneven = ((logs - middle).square() * left).sum(1) / left.sum(1).clamp(min=1)
    share = torch.where((uneven.sqrt() > _UNEVEN)[:, None], (2 * logs).exp(), torch.ones_like(logs)) * left
    ends = share.double().cumsum(1)
    places = (torch.arange(N, device=spacing.device) + 0.5) / N
    index = torch.searchsorted(ends, (places * ends[:, -1:]).contiguous()).clamp(max=N - 1)
    as_it_is = left.all(1) & (uneven.sqrt() <= _UNEVEN)
    return torch.where(as_it_is[:, None], torch.arange(N, device=spacing.device), index)


def _sparse(cloud: Tensor, some: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Which points of a cloud (N, 3) float32 are isolated, by their neighbours among cloud[some], and the spacing."""
    from geoframe.surface._sparse import neighbour_distances

    axis = int(cloud.abs().median(0).values.argmax())  # along the longest one few points are near a point
    turned = cloud.roll(-axis, 1).contiguous()
    seen = some[turned[some, 0].argsort()]
    distance = torch.empty(len(cloud), _NEIGHBOURS)
    index = torch.empty(len(cloud), _NEIGHBOURS, dtype=torch.long)
    neighbour_distances(turned.numpy(), seen.numpy(), _NEIGHBOURS, distance.numpy(), index.numpy())
    own = distance.sqrt_().mean(-1)
    usual, around = own[some].median(), own[index].mean(-1)
    return (usual > 0) & ((own > _FAR * usual) | ((own > limit * usual) & (own > limit * around))), own


def floor_points(points: Points, up: int) -> Tensor:
    """Which points of clouds are a floor that the object stands on: a flat layer at the bottom that reaches beyond it.

    The floor's points right below what stands on it stay, so that the object keeps its feet.

    Args:
        points: (B, N, 3) in any units, without outliers below the floor.
        up: the vertical axis, 0 to 2.

    Returns:
        (B, N) bool; none where the lowest layer is small, or no wider than what is above it.

    Raises:
        TypeError: not floating.
        ValueError: another shape, NaN.
    """
    points = as_clouds(points, "points").detach()
    check_finite(points, "points")
    check_int(up, "up", low=0, high=2)
    z = points[..., up]
    height = z.amax(1) - z.amin(1)
    size = (points.amax(1) - points.amin(1)).amax(-1)
    side = [(up + 1) % 3, (up + 2) % 3]
    level = z.quantile(0.02, dim=1, keepdim=True) if z.shape[1] < 2**24 else z.amin(1, keepdim=True)
    slab = (z - level).abs() <= _SLAB * torch.minimum(size, height)[:, None]
    slab |= z < level
    floor = torch.zeros_like(slab)
    enough = (slab.double().mean(1) >= _LEAST_FLOOR) & ((~slab).sum(1) >= 3)
    for i in enough.nonzero()[:, 0].tolist():
        above = points[i][~slab[i]]
        if not bool((above != above[0]).any()):
            continue  # one point repeated stands on no floor
        low, high = box(above[:, side])
        reach = _REACH * float((high - low).amax())
        flat = points[i][:, side]
        outside = ((flat < low - reach) | (flat > high + reach)).any(-1)
        if float(outside[slab[i]].double().mean()) < _OUTSIDE:
            continue
        rows = slab[i].nonzero()[:, 0]
        thick = _SLAB * float(torch.minimum(size, height)[i])
        feet = above[above[:, up] < float(level[i]) + 3 * thick]
        near = torch.zeros(len(rows), dtype=torch.bool, device=points.device)
        if len(feet):
            near = torch.cdist(points[i][rows], feet).amin(1) <= 1.5 * thick
        floor[i, rows[~near]] = True
    return floor
