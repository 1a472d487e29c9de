"""Points of a frozen network, and where an object lies by them: clusters, similarities, mirrored shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe.layers.correspondence import rows
from geoframe.warps import pixel_grid

N_ANCHORS = 160
_TEMPERATURE = 0.03  # of the soft-argmax of an anchor, whose scores are cosines
_STIFF = 0.003  # variance of a point, in squares of half a picture, below which all points count the same
_BATCH = 32
_SAMPLES = 30_000  # embeddings that clusters are learned from
_ROUNDS = 15
_SWAP_LIMIT = 0.4  # of the shape's size: how far a mirrored mean shape may miss itself


class Look(NamedTuple):
    """What a frozen network says about views (B, 3, S, S).

    Attributes:
        field: (B, D, h, w) embeddings, or scores; None for a network that has only points.
        points: (B, K, 2) points of its own, normalised; None for a network that has only a field.
    """

    field: Tensor | None
    points: Tensor | None


Looker = Callable[[Tensor], Look]


def similarity(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """R (n, 2, 2), a turn times a scale, and t (n, 2), so that ``a @ R.mT + t`` is nearest to b (n, K, 2)."""
    w = weight / weight.sum(1, keepdim=True)
    ma, mb = ((w[..., None] * x).sum(1) for x in (a, b))
    da, db = a - ma[:, None], b - mb[:, None]
    size = (w * da.square().sum(-1)).sum(1).clamp_min(1e-8)
    c = (w * (da * db).sum(-1)).sum(1) / size
    s = (w * (da[..., 0] * db[..., 1] - da[..., 1] * db[..., 0])).sum(1) / size
    small = (c.square() + s.square()).sqrt() < 1e-3  # all points in one place: keep the picture as it is
    c, s = torch.where(small, 1.0, c), torch.where(small, 0.0, s)
    R = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], 1)
    return R, mb - (R @ ma[..., None])[..., 0]


def place_on(points: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity that brings points (n, K, 2) onto their means; what strays counts less."""
    weight = (1 / (spread + _STIFF)).expand(len(points), -1)
    goal = mean.expand_as(points)
    R, t = similarity(points, goal, weight)
    for _ in range(4):
        off = (points @ R.mT + t[:, None] - mean).square().sum(-1)
        R, t = similarity(points, goal, weight / (off + spread + 1e-6).sqrt())
    return R, t


def undo(points: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """The points (n, L, 2) that ``x @ R.mT + t`` brings to those given; R (n, 2, 2), t (n, 2)."""
    return torch.linalg.solve(R, (points - t[:, None]).mT).mT


def pooled_spread(spread: Tensor, n: int, others: Tensor, mean: Tensor) -> Tensor:
    """Variances (K,) of n pictures, together with those of others (m, K, 2) that are laid onto the means."""
    pooled = spread
    for _ in range(2):
        R, t = place_on(others, mean, pooled)
        off = (others @ R.mT + t[:, None] - mean).square().sum(-1)
        pooled = (spread * n + off.clamp_max(1.0).sum(0)) / (n + len(others))
    return pooled


def points_of(look: Look, anchors: Tensor, temperature: float = _TEMPERATURE) -> Tensor:
    """The network's points (n, K, 2), or the soft-argmax of its clusters."""
    if look.points is not None:
        return look.points
    assert look.field is not None
    h, w = look.field.shape[2:]
    place = pixel_grid(h, w).reshape(-1, 2)
    found = [
        torch.softmax(anchors @ rows(f, length=1.0).mT / temperature, -1) @ place
        for f in look.field.float().split(_BATCH)
    ]
    return torch.cat(found)


def clusters_of(look: Look, more: Look | None, seed: int) -> Tensor:
    """Unit vectors (K, D) in the middle of the clusters of the embedding."""
    if look.points is not None:
        return look.points.new_zeros(0)
    fields = [x.field for x in (look, more) if x is not None and x.field is not None]
    draw = torch.Generator().manual_seed(seed)
    x = torch.cat([f.flatten(2).mT.flatten(0, 1) for f in fields])
    x = F.normalize(x[torch.randperm(len(x), generator=draw)[:_SAMPLES]].float(), dim=-1)
    return cluster_directions(x, N_ANCHORS, seed=seed)


def cluster_directions(x: Tensor, k: int, *, rounds: int = _ROUNDS, seed: int = 0) -> Tensor:
    """k-means on the sphere.

    Args:
        x: (n, D) unit vectors.
        k: how many clusters; n if that is less.
        rounds: of Lloyd's algorithm.
        seed: of the first centres, which are rows of x.

    Returns:
        (k, D) unit vectors.
    """
    draw = torch.Generator().manual_seed(seed)
    centres = x[torch.randperm(len(x), generator=draw)[:k]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in x.split(1 << 14)])
        total = torch.zeros_like(centres).index_add_(0, nearest, x)
        there = torch.bincount(nearest, minlength=len(centres)) > 0
        centres = torch.where(there[:, None], F.normalize(total, dim=1), centres)
    return centres


def stable_directions(fields: Tensor, k: int, *, sharpness: float, seed: int = 0) -> Tensor:
    """Directions of an embedding that find the same K places of the object in all pictures, apart from each other.

    Clusters of the embedding are many more than K. All pictures' soft-argmax points of these are laid onto their mean
    by similarities; what strays from it least, and lies apart from what was taken before, is taken.

    Args:
        fields: (n, D, h, w) embeddings of pictures of the category.
        k: K.
        sharpness: of the soft-argmax, the factor of the cosines.
        seed: of the clusters.

    Returns:
        (K, D) unit vectors.
    """
    look = Look(fields, None)
    anchors = clusters_of(look, None, seed)
    if k > len(anchors):
        raise ValueError(f"k: expected at most {len(anchors)} landmarks, found {k}")
    points = points_of(look, anchors, 1 / sharpness)
    mean, spread = points.mean(0), points.var(0, correction=0).sum(-1)
    for _ in range(10):
        R, t = place_on(points, mean, spread)
        straight = points @ R.mT + t[:, None]
        mean = straight.mean(0)
        spread = (straight - mean).square().sum(-1).mean(0)
    order, apart = spread.argsort().tolist(), float(mean.std()) * 2
    while True:
        chosen: list[int] = []
        for i in order:
            far = [float((mean[i] - mean[j]).norm()) for j in chosen]
            if len(chosen) < k and (not far or min(far) >= apart):
                chosen.append(i)
        if len(chosen) == k:
            return anchors[chosen]
        apart *= 0.8


def mirror_swap(points: Tensor) -> Tensor | None:
    """Which landmark of a mirrored picture is which: (L,) int64, its own inverse; None if the shape has no mirror.

    Args:
        points: (n, L, 2) landmarks; their mean shape, mirrored, is laid onto itself.
    """
    from scipy.optimize import linear_sum_assignment

    y = points.double()
    mean = y.mean(0)
    R, t = similarity(y, mean.expand_as(y), torch.ones_like(y[..., 0]))
    mean = (y @ R.mT + t[:, None]).mean(0)
    mean = mean - mean.mean(0)
    size = mean.square().sum(-1).mean().sqrt()
    flipped = mean * mean.new_tensor([-1.0, 1.0])
    far = torch.cdist(flipped, mean)
    swap = torch.as_tensor(linear_sum_assignment(far.square().numpy())[1])
    ok = bool((swap[swap] == torch.arange(len(swap))).all()) and bool(size > 0)
    worst = float(far.gather(1, swap[:, None]).amax() / size.clamp_min(1e-12))
    return swap if ok and worst < _SWAP_LIMIT and bool((swap != torch.arange(len(swap))).any()) else None
