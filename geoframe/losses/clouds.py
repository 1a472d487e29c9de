"""Losses of clouds, nodes and keypoints: scalars of batches.

Lengths are in the unit of the points; category keypoints are trained at scale 2, where the longest side of a cloud's
box is 2. Points are taken as tensors, arrays or lists. Where the paper and its released code disagree, the paper's form
is the default and the code's has a name.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from geoframe._check import check_choice
from geoframe.surface.clouds import Points, as_cloud_pair, as_clouds, box, nearest_sq

_FORMS = ("squared_sum", "mean")
_STEP_SHARE = 1 / 8  # width of the step in `outside_loss` over its reach; a sharp one has no gradient
_PROBE_REACH = 1.2  # distances in `local_shape_loss` are cut off here, in radii: what is farther is not local
_TINY = 1e-6  # keeps a standard deviation and an inertia of zero invertible


def chamfer_loss(a: Points, b: Points, *, form: str = "squared_sum") -> Tensor:
    """How far two sets of points are from each other, averaged over the batch.

    Args:
        a: (B, N, 3).
        b: (B, M, 3).
        form: "squared_sum", the paper's: squared distances to the nearest point of the other set, summed over the
            points of both sides; "mean", the released code's: distances, averaged over each side, then added.

    Returns:
        A scalar of at least 0.

    Raises:
        TypeError: not floating.
        ValueError: another shape, batches of different length, an empty cloud or batch, an unknown form.

    Source: Fernandez-Labrador et al. 2020, equation 5.
    """
    a, b = as_cloud_pair(a, b, ("a", "b"))
    return _one_sided(a, b, form) + _one_sided(b, a, form)


def inclusivity_loss(nodes: Points, points: Points, *, form: str = "squared_sum") -> Tensor:
    """How far nodes are from the nearest points of their cloud, averaged over the batch.

    Args:
        nodes: (B, M, 3).
        points: (B, N, 3).
        form: as in `chamfer_loss`.

    Returns:
        A scalar of at least 0.

    Raises:
        TypeError, ValueError: as `chamfer_loss`.

    Source: Fernandez-Labrador et al. 2020, equation 7.
    """
    nodes, points = as_cloud_pair(nodes, points, ("nodes", "points"))
    return _one_sided(nodes, points, form)


def coverage_loss(nodes: Points, points: Points, *, form: str = "volume") -> Tensor:
    """How different in size the axis-aligned boxes of nodes and cloud are; Huber's loss, averaged over the batch.

    Args:
        nodes: (B, M, 3).
        points: (B, N, 3).
        form: "volume", the paper's: of the two volumes; "sides", the released code's: of the three lengths, averaged.

    Returns:
        A scalar of at least 0.

    Raises:
        TypeError, ValueError: as `chamfer_loss`.

    Source: Fernandez-Labrador et al. 2020, equation 6.
    """
    nodes, points = as_cloud_pair(nodes, points, ("nodes", "points"))
    check_choice(form, ("volume", "sides"), "form")
    mine, whole = ((high - low) for low, high in map(box, (nodes, points)))
    if form == "volume":
        mine, whole = mine.prod(-1), whole.prod(-1)
    return torch.nn.functional.smooth_l1_loss(mine, whole)


def extent_loss(keypoints: Points, points: Points) -> Tensor:
    """Mean distance between the walls of the axis-aligned boxes of keypoints and cloud.

    Unlike `coverage_loss` it compares where the boxes are, not only how large, and its gradient does not fade near the
    minimum.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).

    Returns:
        A scalar of at least 0, the mean over the six walls and the batch.

    Raises:
        TypeError, ValueError: as `chamfer_loss`.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    walls = [torch.cat(box(x), dim=-1) for x in (keypoints, points)]
    return (walls[0] - walls[1]).abs().mean()


def outside_loss(keypoints: Points, points: Points, *, reach: float) -> Tensor:
    """Share of the keypoints that are farther than `reach` from their cloud, smoothed to have a gradient.

    The step at `reach` is a logistic curve, an eighth of it wide: keypoints much nearer or much farther get no
    gradient.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).
        reach: a positive length.

    Returns:
        A scalar in (0, 1).

    Raises:
        TypeError, ValueError: as `chamfer_loss`.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    gap = _distance(nearest_sq(keypoints, points)[0])
    return ((gap - reach) / (reach * _STEP_SHARE)).sigmoid().mean()


def separation_loss(keypoints: Points, *, distance: float) -> Tensor:
    """How much closer than `distance` the nearest other keypoint is, squared, averaged over keypoints and batch.

    Args:
        keypoints: (B, K, 3).
        distance: a length.

    Returns:
        A scalar in [0, distance^2].

    Raises:
        TypeError: not floating.
        ValueError: another shape, no keypoints or an empty batch.
    """
    keypoints = as_clouds(keypoints, "keypoints")
    gap = (keypoints[:, :, None] - keypoints[:, None]).square().sum(-1)
    gap = gap + 1e6 * torch.eye(gap.shape[1], dtype=gap.dtype, device=gap.device)  # none is near itself
    return (distance - _distance(gap.amin(-1))).relu().square().mean()


def local_shape_loss(keypoints: Points, points: Points, *, radius: float) -> Tensor:
    """How much the surroundings of keypoint k differ from shape to shape, as a length.

    Fifteen probes, the keypoint itself and fourteen places at `radius` from it, measure their distances to the cloud,
    at most 1.2 `radius`. The loss is the standard deviation of each of them over the batch, averaged over probes and
    keypoints. It draws a keypoint to an edge that all shapes have rather than to the middle of a wall.

    Args:
        keypoints: (B, K, 3) in the common frame.
        points: (B, N, 3) in the same frame.
        radius: a positive length.

    Returns:
        A scalar of at least 0. Its gradient is twice that of the standard deviation.

    Raises:
        TypeError, ValueError: as `chamfer_loss`.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    axes = torch.eye(3, dtype=keypoints.dtype, device=keypoints.device)
    side = torch.tensor([-1.0, 1.0], dtype=keypoints.dtype, device=keypoints.device)
    corners = torch.cartesian_prod(side, side, side) / 3**0.5
    way = radius * torch.cat([torch.zeros_like(axes[:1]), axes, -axes, corners])
    probes = (keypoints[:, :, None] + way).flatten(1, 2)
    d = _distance(nearest_sq(probes, points)[0]).clamp(max=_PROBE_REACH * radius)
    off_sq = (d - _mean_of_all(d.detach())).square()
    # The divisor is a constant: so the gradients of several processes add up to that of one.
    return (off_sq / (_mean_of_all(off_sq.detach()) + _TINY).sqrt()).mean()


def upright_loss(canonical: Points) -> Tensor:
    """Mean angle by which shapes are rotated against their average, to first order.

    What differs between canonical shapes is to be their shape: then a rigid motion fitted to two of them finds no
    rotation.

    Args:
        canonical: (B, K, 3) ordered keypoints in the common frame.

    Returns:
        A scalar of at least 0, in radians.

    Raises:
        TypeError: not floating.
        ValueError: another shape, no keypoints or an empty batch.
    """
    canonical = as_clouds(canonical, "canonical")
    x = canonical - canonical.mean(1, keepdim=True)
    average = _mean_of_all(x.detach())
    torque = torch.linalg.cross(average.expand_as(x), x).sum(1)
    inertia = average.square().sum() * torch.eye(3, dtype=x.dtype, device=x.device) - average.mT @ average
    inertia = inertia + _TINY * torch.eye(3, dtype=x.dtype, device=x.device)
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
