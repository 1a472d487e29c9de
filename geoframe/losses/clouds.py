"""Losses of category keypoints: scalars of batches of clouds, nodes and keypoints, all in the frame of scale 2.

Where the paper and its released code disagree, the paper's form is the default and the code's has a name.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from geoframe._check import check_choice, check_float, check_shape
from geoframe.surface.clouds import box, nearest_sq

_FORMS = ("squared_sum", "mean")


def chamfer_loss(a: Tensor, b: Tensor, *, form: str = "squared_sum") -> Tensor:
    """How far two sets of points a (B, N, 3) and b (B, M, 3) are from each other, over the batch on average.

    Args:
        form: "squared_sum", the paper's: squared distances to the nearest of the other set, summed over the
            points of both sides; "mean", the released code's: distances, averaged over each side.

    Source: Fernandez-Labrador et al. 2020, equation 5.
    """
    _check_pair(a, b, ("a", "b"))
    return _one_sided(a, b, form) + _one_sided(b, a, form)


def inclusivity_loss(nodes: Tensor, points: Tensor, *, form: str = "squared_sum") -> Tensor:
    """How far nodes (B, M, 3) are from the nearest points (B, N, 3) of the cloud; `form` as in `chamfer_loss`.

    Source: equation 7.
    """
    _check_pair(nodes, points, ("nodes", "points"))
    return _one_sided(nodes, points, form)


def coverage_loss(nodes: Tensor, points: Tensor, *, form: str = "volume") -> Tensor:
    """How different the axis-aligned boxes of nodes (B, M, 3) and cloud (B, N, 3) are, Huber, batch average.

    Args:
        form: "volume", the paper's: of the two volumes; "sides", the released code's: of the three lengths,
            averaged.

    Source: equation 6.
    """
    _check_pair(nodes, points, ("nodes", "points"))
    check_choice(form, ("volume", "sides"), "form")
    mine, whole = ((high - low) for low, high in map(box, (nodes, points)))
    if form == "volume":
        mine, whole = mine.prod(-1), whole.prod(-1)
    return torch.nn.functional.smooth_l1_loss(mine, whole)


def extent_loss(keypoints: Tensor, points: Tensor) -> Tensor:
    """Mean distance between the six walls of the boxes of keypoints (B, N, 3) and points (B, M, 3).

    Unlike `coverage_loss` it tells where the box is, not only how large, and pulls as hard near the end.
    """
    _check_pair(keypoints, points, ("keypoints", "points"))
    walls = [torch.cat(box(x), dim=-1) for x in (keypoints, points)]
    return (walls[0] - walls[1]).abs().mean()


def outside_loss(keypoints: Tensor, points: Tensor, *, reach: float) -> Tensor:
    """Share of keypoints (B, N, 3) farther than `reach` from the cloud (B, M, 3), softened to have a gradient.

    The step at `reach` is a logistic curve, an eighth as wide: what is hopelessly far pulls as little as what
    is well within.
    """
    _check_pair(keypoints, points, ("keypoints", "points"))
    return ((_distance(nearest_sq(keypoints, points)[0]) - reach) / (reach / 8)).sigmoid().mean()


def separation_loss(keypoints: Tensor, *, distance: float) -> Tensor:
    """Mean over keypoints (B, N, 3) of how much closer than `distance` the nearest other one is, squared."""
    check_shape(check_float(keypoints, "keypoints"), "B N 3", "keypoints")
    gap = (keypoints[:, :, None] - keypoints[:, None]).square().sum(-1)
    gap = gap + 1e6 * torch.eye(gap.shape[1], dtype=gap.dtype, device=gap.device)
    return (distance - _distance(gap.amin(-1))).relu().square().mean()


def local_shape_loss(keypoints: Tensor, points: Tensor, *, radius: float) -> Tensor:
    """How differently the surroundings of keypoint k look from shape to shape, as a length.

    15 probes, the keypoint itself and others at `radius` from it, measure their distances to the cloud (up to
    1.2 `radius`); the loss is the standard deviation of each over the batch, averaged. A keypoint on an edge that
    all shapes have is better than one in the middle of a wall.

    Args:
        keypoints: (B, K, 3), points: (B, N, 3), both in the common frame.
    """
    _check_pair(keypoints, points, ("keypoints", "points"))
    axes = torch.eye(3, dtype=keypoints.dtype, device=keypoints.device)
    side = torch.tensor([-1.0, 1.0], dtype=keypoints.dtype, device=keypoints.device)
    corners = torch.cartesian_prod(side, side, side) / 3**0.5
    way = radius * torch.cat([torch.zeros_like(axes[:1]), axes, -axes, corners])
    probes = (keypoints[:, :, None] + way).flatten(1, 2)
    d = _distance(nearest_sq(probes, points)[0]).clamp(max=1.2 * radius)
    off_sq = (d - _mean_of_all(d.detach())).square()
    # Divided by a constant, so that the gradient of processes adds up; twice that of the standard deviation.
    return (off_sq / (_mean_of_all(off_sq.detach()) + 1e-6).sqrt()).mean()


def upright_loss(canonical: Tensor) -> Tensor:
    """Mean angle, in radians and to first order, by which shapes (B, N, 3) are turned against their average.

    What differs from shape to shape is to be shape: a rigid motion fitted to two of them then finds no turn.
    """
    check_shape(check_float(canonical, "canonical"), "B N 3", "canonical")
    x = canonical - canonical.mean(1, keepdim=True)
    average = _mean_of_all(x.detach())
    torque = torch.linalg.cross(average.expand_as(x), x).sum(1)
    inertia = average.square().sum() * torch.eye(3, dtype=x.dtype, device=x.device) - average.mT @ average
    inertia = inertia + 1e-6 * torch.eye(3, dtype=x.dtype, device=x.device)
    return _distance(torch.linalg.solve(inertia, torque[..., None])[..., 0].square().sum(-1)).mean()


def _mean_of_all(x: Tensor) -> Tensor:
    """Mean of x (B, ...) over the batch, the shares of all processes together under `torch.distributed`."""
    mean = x.mean(0)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean


def _one_sided(query: Tensor, points: Tensor, form: str) -> Tensor:
    check_choice(form, _FORMS, "form")
    d_sq = nearest_sq(query, points)[0]
    return d_sq.sum(-1).mean() if form == "squared_sum" else _distance(d_sq).mean()


def _distance(d_sq: Tensor) -> Tensor:
    """Square root with a finite derivative, 0, at 0."""
    positive = d_sq > 0
    return torch.where(positive, torch.where(positive, d_sq, torch.ones_like(d_sq)).sqrt(), d_sq)


def _check_pair(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    for x, name in zip((a, b), names, strict=True):
        check_shape(check_float(x, name), "B N 3", name)
    if len(a) != len(b):
        raise ValueError(f"{names[1]}: expected the {len(a)} batch entries of {names[0]}, found {len(b)}")
