"""Points of a cloud that are not of its object: stray points and outliers, and the floor that it stands on."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_finite, check_int
from geoframe.surface.clouds import Points, as_clouds

# Chosen on the training chairs of ModelNet10 and on procedural categories, see experiments/keypoint_confidence.
_NEIGHBOURS = 6
_SEEN = 512  # of the points, that neighbours are looked for among
_FAR = 4.0  # times the usual distance to the neighbours: an outlier whatever is around it
_SPARSE = 1.6  # times the usual distance, and as many times that of its neighbours
_SPARSER = 1.4  # the same in a cloud that is known to have outliers:
_MANY = 0.025  # so large a share was found in a first look
_VOTED = 256  # points from which on a cloud with many outliers is looked at in parts; in fewer a part tells too little
_PARTS, _ROUNDS = 4, 2  # such a cloud is looked at without each fourth of its points, so often,
_VOTING = (1.4, 1.25)  # by these limits, as many looks err less,
_VOTES = 0.8  # and a point is an outlier by so large a share of the looks that it is in
_MOST = 0.25  # share of the points that are outliers at most
_UNEVEN = 0.28  # standard deviation of the logarithms of the spacing of an uneven cloud
_STEEP = 0.2  # standard deviation of the plane fitted to them in a cloud that is thinner on one side; clean ones: 0.1
_BEYOND = 2.5  # times that plane is usual there, as its end is thinner still,
_MOST_RISE = 3.0  # and at most so much, as a logarithm
_UNEVEN_RANGE = (0.1, 10.0)  # of the spacing over its mean
_DIMENSION = 1.5  # of what the points lie on: of curves and surfaces
_SLAB = 0.04  # thickness of a floor, over the longest side of the cloud
_LEAST_FLOOR = 0.05  # share of the points that a floor has
_OUTSIDE = 0.25  # share of the floor's points that do not lie below the object
_REACH = 0.05  # around the object's outline, over its longest side


def isolated_points(points: Points) -> tuple[Tensor, Tensor]:
    """Which points of clouds are far from all others: stray points, and outliers scattered around or inside.

    A point is told by the mean distance to its six nearest among 512 of the points: at least four times what is usual
    in the cloud, or at least 1.6 times that and 1.6 times what is usual around its neighbours. In a cloud that gets
    thinner to one side more is usual there, so that a chair scanned from above keeps its feet. A cloud with many
    outliers is looked at a second time without them, more strictly. If it has 256 points or more, this is done eight
    times, each time without another fourth of its points and with lower limits, and outliers are those of five of the
    six looks that a point is in. Of chairs that takes as many outliers, and a third of the chair's own points of a
    single look. Outliers next to the surface are not found, and do little.

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
    if N <= 2 * _NEIGHBOURS:
        return torch.zeros(B, N, dtype=torch.bool).to(points.device), torch.ones(B, N).to(points.device)
    flat = centred_clouds(points.cpu(), by_median=False)[0]
    found, spacing = _look(flat, (_SPARSE, _SPARSER))
    if N >= _VOTED:
        for i in (found.double().mean(1) > _MANY).nonzero()[:, 0].tolist():
            found[i] = _voted(flat[i])
    lone = found & (found.double().mean(1) <= _MOST)[:, None]
    return lone.to(points.device), spacing.to(points.device)


def _look(clouds: Tensor, limits: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Which points (B, N) of clouds (B, N, 3) are isolated, and their spacing; the second limit is that of a cloud with
    many."""
    from geoframe._compiled import share_rows
    from geoframe.surface._sparse import spacings_around

    B, N = clouds.shape[:2]
    some = torch.linspace(0, N - 1, min(N, _SEEN)).long()  # spread, as files are sorted in places
    spacing, around = torch.empty(B, N), torch.empty(B, N)

    x, seen, own, near = (t.numpy() for t in (clouds.contiguous(), some, spacing, around))
    share_rows(lambda a, b: spacings_around(x[a:b], seen, _NEIGHBOURS, own[a:b], near[a:b]), B)
    usual = _lower_medians(spacing[:, some])[:, None]
    usual = usual * _slope(clouds, spacing, some, usual)
    found = _sparse(spacing, around, usual, limits[0])
    for i in (found.double().mean(1) > _MANY).nonzero()[:, 0].tolist():
        if (left := some[~found[i, some]]).numel() > 2 * _NEIGHBOURS:
            rest, beside = _spacing(clouds[i], left)
            found[i] |= _sparse(rest, beside, rest[left].median() * usual[i] / usual[i].amin(), limits[1])
    return found, spacing


def _voted(cloud: Tensor) -> Tensor:
    """Which points (N,) of a cloud (N, 3) are isolated in most of the looks at parts of it, see `isolated_points`."""
    N = len(cloud)
    generator = torch.Generator().manual_seed(0)
    parts = torch.ones(_ROUNDS * _PARTS, N, dtype=torch.bool)
    for i in range(_ROUNDS):
        order, n = torch.randperm(N, generator=generator), N // _PARTS
        for k in range(_PARTS):
            parts[i * _PARTS + k, order[k * n : (k + 1) * n]] = False
    rows = parts.nonzero()[:, 1].view(len(parts), -1)
    found, _ = _look(cloud[rows], _VOTING)
    votes = torch.zeros(N).index_add_(0, rows.flatten(), found.float().flatten())
    return votes >= _VOTES * parts.sum(0)


def even_index(spacing: Tensor, left: Tensor) -> Tensor:
    """Points to take instead of those of clouds, so that surfaces of uneven density become even.

    Points are taken the more often the farther they are from others: by the distance to the power of 1.5, between that
    of the points of a curve, as thin legs are, and of a surface.
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
    share = (
        torch.where((uneven.sqrt() > _UNEVEN)[:, None], (_DIMENSION * logs).exp(), torch.ones_like(logs))
        * left
    )
    ends = share.double().cumsum(1)
    places = (torch.arange(N, device=spacing.device) + 0.5) / N
    index = torch.searchsorted(ends, (places * ends[:, -1:]).contiguous()).clamp(max=N - 1)
    as_it_is = left.all(1) & (uneven.sqrt() <= _UNEVEN)
    return torch.where(as_it_is[:, None], torch.arange(N, device=spacing.device), index)


def _spacing(cloud: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distances (N,) of a cloud (N, 3) float32 to the nearest of cloud[some], and what is usual around each."""
    from geoframe.surface._sparse import spacing_around

    own, around = torch.empty(len(cloud)), torch.empty(len(cloud))
    spacing_around(cloud.numpy(), some.numpy(), _NEIGHBOURS, own.numpy(), around.numpy())
    return own, around


def _sparse(own: Tensor, around: Tensor, usual: Tensor, limit: float) -> Tensor:
    """Which points are isolated, by their spacing, that of their neighbours, and what is usual where they are."""
    return (usual > 0) & ((own > _FAR * usual) | ((own > limit * usual) & (own > limit * around)))


def _slope(clouds: Tensor, spacing: Tensor, some: Tensor, usual: Tensor) -> Tensor:
    """(B, N) by how much wider the spacing of clouds (B, N, 3) is than elsewhere, as they get thinner to one side.

    A plane is fitted to the logarithms of the spacing, over the `usual` (B, 1); where that says little all is 1.
    """
    seen, own = clouds[:, some], spacing[:, some]
    middle = seen.mean(1, keepdim=True)
    size = (seen - middle).square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
    seen = ((seen - middle) / size).clamp(-2, 2)
    y = (own / usual.clamp(min=1e-12)).clamp(*_UNEVEN_RANGE).log()
    centred = seen - seen.mean(1, keepdim=True)
    square = centred.mT @ centred + 0.01 * len(some) * torch.eye(3)
    plane = torch.linalg.solve(square, centred.mT @ (y - y.mean(1, keepdim=True))[..., None])
    slope = torch.ones_like(spacing)
    for i in ((seen @ plane)[..., 0].std(1) > _STEEP).nonzero()[:, 0].tolist():
        rise = (((clouds[i] - middle[i]) / size[i]).clamp(-2, 2) @ plane[i])[:, 0]
        slope[i] = (_BEYOND * rise).clamp(0, _MOST_RISE).exp()
    return slope


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
    from geoframe.surface._outliers import layers

    clouds = points.cpu().to(torch.promote_types(points.dtype, torch.float32)).contiguous()
    B, N = clouds.shape[:2]
    level, slab = clouds.new_empty(B, 2), torch.empty(B, N, dtype=torch.bool)
    counts = torch.empty(B, 2, dtype=torch.int64)
    layers(clouds.numpy(), up, _SLAB, _REACH, level.numpy(), slab.numpy(), counts.numpy())
    within, outside = counts.unbind(1)
    floor = torch.zeros_like(slab)
    enough = (within >= _LEAST_FLOOR * N) & (N - within >= 3) & (outside >= _OUTSIDE * within)
    for i in enough.nonzero()[:, 0].tolist():
        above = clouds[i][~slab[i]]
        if not bool((above != above[0]).any()):
            continue  # one point repeated stands on no floor
        rows, (height, thick) = slab[i].nonzero()[:, 0], level[i].tolist()
        feet = above[above[:, up] < height + 3 * thick]
        near = torch.zeros(len(rows), dtype=torch.bool)
        if len(feet):
            near = torch.cdist(clouds[i][rows], feet).amin(1) <= 1.5 * thick
        floor[i, rows[~near]] = True
    return floor.to(points.device)


def centred_clouds(points: Tensor, *, by_median: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Clouds on the CPU about their middles, whose size outliers do not change.

    Args:
        points: (B, N, 3) floating, finite.
        by_median: the unit is the median of the points' largest coordinates, not the maximum.

    Returns:
        points: (B, N, 3) float32.
        middle: (B, 3) float64, median of each coordinate.
        unit: (B,) float64; ``points * unit + middle`` are the clouds.
    """
    from geoframe._compiled import share_rows
    from geoframe.surface._outliers import centred

    x = points.detach().double().contiguous()
    middle, unit, out = x.new_empty(len(x), 3), x.new_empty(len(x)), x.new_empty(x.shape, dtype=torch.float32)
    clouds, *made = (t.numpy() for t in (x, middle, unit, out))
    share_rows(lambda a, b: centred(clouds[a:b], by_median, *(t[a:b] for t in made)), len(x))
    return out, middle, unit


def _lower_medians(rows: Tensor) -> Tensor:
    """(R,) as `torch.median` of rows (R, N) on the CPU, in half its time."""
    from geoframe.surface._outliers import medians

    out = rows.new_empty(len(rows))
    medians(rows.contiguous().numpy(), out.numpy())
    return out
