"""Small operations on batches of point sets that several layers, losses and measures share."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from geoframe._check import as_tensor, check_finite, check_float, check_shape

Points = Tensor | ArrayLike  # what public functions take: as_points and as_clouds make tensors of it


def as_points(x: Points, pattern: str, name: str) -> Tensor:
    """Coordinates as a floating tensor of a known shape.

    Args:
        x: a floating tensor, an array or nested lists; whole numbers of arrays and lists become floating.
        pattern: of the shape, such as "B N 3" or "... N 3", see `check_shape`; the last but one counts points.
        name: of the argument, for messages.

    Returns:
        A tensor; a tensor that was given, as it is.

    Raises:
        TypeError: a tensor that is not floating, or no numbers.
        ValueError: another shape, no points.
    """
    points = as_tensor(x, name)
    if points is not x and not points.is_floating_point() and not points.is_complex():
        points = points.to(torch.get_default_dtype())
    check_shape(check_float(points, name), pattern, name)
    if not points.shape[-2]:
        raise ValueError(
            f"{name}: expected at least one point a cloud, found shape {tuple(points.shape)}; leave out what is empty"
        )
    return points


def as_clouds(x: Points, name: str) -> Tensor:
    """A batch of clouds (B, N, 3) with at least one cloud and one point, see `as_points`.

    Raises:
        TypeError: a tensor that is not floating, or no numbers.
        ValueError: another shape, no clouds, no points.
    """
    points = as_points(x, "B N 3", name)
    if not len(points):
        raise ValueError(f"{name}: expected at least one cloud, found shape {tuple(points.shape)}")
    return points


def as_cloud_pair(a: Points, b: Points, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Two batches of clouds (B, N, 3) and (B, M, 3), see `as_clouds`.

    Raises:
        TypeError: a tensor that is not floating, or no numbers.
        ValueError: another shape, no clouds, no points, batches of different length.
    """
    first, second = (as_clouds(x, name) for x, name in zip((a, b), names, strict=True))
    if len(first) != len(second):
        raise ValueError(
            f"{names[1]}: expected the {len(first)} batch entries of {names[0]}, found {len(second)}"
        )
    return first, second


def check_clouds(points: Tensor, n: int, name: str = "points") -> Tensor:
    """Require a batch of clouds (B, N, 3), finite, each with at least `n` points, not all the same.

    Args:
        points: (B, N, 3) floating.
        n: the smallest number of points.
        name: of the argument, for messages.

    Returns:
        The points.

    Raises:
        TypeError: not a floating tensor.
        ValueError: another shape, too few points, NaN or infinity, one point repeated.
    """
    N = check_shape(check_float(points, name), "B N 3", name)["N"]
    if n > N:
        raise ValueError(
            f"{name}: expected at least {n} points a cloud, found {N}; sample more or ask for fewer nodes"
        )
    low, high = box(points.detach())
    size = (high - low).amax(-1)
    if not bool(torch.isfinite(size).all()):
        check_finite(points, name)
    flat = size <= 0
    if bool(flat.any()):
        raise ValueError(
            f"{name}: expected points that differ, but cloud {int(flat.nonzero()[0])} is a single point repeated"
        )
    return points


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of a batch of tables, each taken within its batch entry.

    Args:
        x: (B, N, C).
        index: (B, ...) int64, in [0, N).

    Returns:
        (B, ..., C).
    """
    flat = index.flatten(1)
    return x.gather(1, flat[..., None].expand(-1, -1, x.shape[-1])).view(*index.shape, x.shape[-1])


def thinned(points: Tensor, n: int) -> Tensor:
    """(B, n, 3) every so many-th point of clouds (B, N, 3); all where there are fewer."""
    N = points.shape[1]
    return points if n >= N else points[:, torch.linspace(0, N - 1, n).long()]


def nearest_sq(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of every query to the nearest point of its cloud, and which one that is.

    Differentiable in both arguments; the choice of the neighbour is a constant. All B Q N distances are computed,
    which is meant for the few thousand points of a training batch.

    Args:
        query: (B, Q, D).
        points: (B, N, D), N at least 1.

    Returns:
        distance: (B, Q), squared.
        index: (B, Q) int64, in [0, N).

    Raises:
        ValueError: no points.
    """
    if not points.shape[1]:
        raise ValueError(f"points: expected at least one point a cloud, found shape {tuple(points.shape)}")
    with torch.no_grad():
        index = torch.cdist(query, points).argmin(-1)
    return (query - gather_rows(points, index)).square().sum(-1), index


def nearest_distances(query: Tensor, points: Tensor) -> Tensor:
    """Distance (B, Q) of every query (B, Q, 3) to the nearest point of its cloud (B, N, 3); without a gradient.

    On the CPU in single precision this takes a tenth of the time of `nearest_sq`.
    """
    if query.dtype != torch.float32 or query.device.type != "cpu":
        return nearest_sq(query.detach(), points.detach())[0].sqrt()
    from geoframe._compiled import share_rows
    from geoframe.surface._sparse import least_distances

    out = torch.empty(query.shape[:2])
    q, p, d = (x.detach().contiguous().numpy() for x in (query, points.to(query), out))
    share_rows(lambda a, b: least_distances(q[a:b], p[a:b], d[a:b]), len(q))
    return out.sqrt_()


def box(points: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner (..., 3) of the axis-aligned boxes of points (..., N, 3)."""
    if points.requires_grad and torch.is_grad_enabled():
        return points.amin(-2), points.amax(-2)
    plain = points.device.type == "cpu" and points.dtype in (torch.float32, torch.float64)
    if not (plain and points.ndim == 3 and points.shape[-1] == 3 and points.shape[1]):
        low, high = points.aminmax(dim=-2)
        return low, high
    from geoframe.surface._sparse import boxes

    low, high = points.new_empty(len(points), 3), points.new_empty(len(points), 3)
    boxes(points.detach().contiguous().numpy(), low.numpy(), high.numpy())
    return low, high
