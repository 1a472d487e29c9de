"""Bringing shapes of a category into one frame by their ordered keypoints, and how well that went."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_index, check_int, check_shape
from geoframe.surface.clouds import Points, as_clouds, as_points
from geoframe.transforms import Similarity, procrustes, rotation_angle, rotation_from_direction


def fit_similarity(source: Points, target: Points, *, up: int | None) -> Similarity:
    """The similarity that brings ordered points nearest to others in the least-squares sense.

    Where clouds stand upright, as scans and models do, the vertical is known and only one angle is left to find.

    Args:
        source: (..., K, 3).
        target: (..., K, 3).
        up: the axis to rotate about, 0 to 2; None for any rotation.

    Returns:
        R (..., 3, 3), t (..., 3) and scale (...); ``scale * R x + t`` of the source lie near the target.

    Raises:
        TypeError: not floating.
        ValueError: another shape, no points, an axis out of range.
    """
    source, target = as_points(source, "... K 3", "source"), as_points(target, "... K 3", "target")
    if up is None:
        return procrustes(source, target, scale=True)
    check_int(up, "up", low=0, high=2)
    mean1, mean2 = source.mean(-2), target.mean(-2)
    x, y = source - mean1[..., None, :], target - mean2[..., None, :]
    a, b = (up + 1) % 3, (up + 2) % 3
    cosine = (x[..., a] * y[..., a] + x[..., b] * y[..., b]).sum(-1)
    sine = (x[..., a] * y[..., b] - x[..., b] * y[..., a]).sum(-1)
    R = rotation_from_direction(torch.stack([cosine, sine], dim=-1), up)
    spread = x.square().sum((-1, -2)).clamp(min=torch.finfo(x.dtype).tiny)
    scale = ((x @ R.mT) * y).sum((-1, -2)) / spread
    return Similarity(R, mean2 - scale[..., None] * (R @ mean1[..., None])[..., 0], scale)


def register_pairs(keypoints: Points, pairs: Points, *, up: int | None = None) -> tuple[Tensor, Tensor]:
    """Similarity transforms that bring shape a onto shape b by their ordered keypoints.

    Args:
        keypoints: (n, K, 3) of n shapes.
        pairs: (P, 2) int64, rows (a, b).
        up: the axis to rotate about, 0 to 2; None for any rotation.

    Returns:
        rotation: (P, 3, 3), R_ba; ``scale * p @ R_ba.mT + t`` of shape a lies near shape b.
        residual: (P,) root mean square distance of the keypoints after it.

    Raises:
        TypeError: not floating, pairs that are not integers.
        ValueError: another shape, pairs out of range.
    """
    keypoints = as_clouds(keypoints, "keypoints")
    pairs = _pairs(pairs, len(keypoints))
    source, target = keypoints[pairs[:, 0]], keypoints[pairs[:, 1]]
    fit = fit_similarity(source, target, up=up)
    return fit.R, (fit(source) - target).square().sum(-1).mean(-1).sqrt()


def relative_rotation_error(
    keypoints: Points, true_rotation: Points, pairs: Points, *, up: int | None = None
) -> Tensor:
    """Angle between the rotation found from keypoints and the true one, from shape a to shape b.

    Args:
        keypoints: (n, K, 3) of n shapes.
        true_rotation: (n, 3, 3) from the common frame of the data to each cloud.
        pairs: (P, 2) int64, rows (a, b).
        up: the axis to rotate about, 0 to 2; None for any rotation.

    Returns:
        (P,) degrees in [0, 180]; lower is better.

    Raises:
        TypeError, ValueError: as `register_pairs`.

    Source: Fernandez-Labrador et al. 2020, figure 5, where rotated shapes are brought onto three aligned templates;
        here the pairs are given, and both may be rotated.
    """
    found, _ = register_pairs(keypoints, pairs, up=up)
    true_rotation = as_points(true_rotation, "n 3 3", "true_rotation")
    pairs = _pairs(pairs, len(true_rotation))
    true = true_rotation[pairs[:, 1]] @ true_rotation[pairs[:, 0]].mT
    return rotation_angle(found.double(), true.double()).rad2deg()


def random_pairs(n: int, count: int, *, seed: int = 0) -> Tensor:
    """Rows of two different numbers below n.

    Args:
        n: at least 2.
        count: of rows.
        seed: of the choice.

    Returns:
        (count, 2) int64.
    """
    check_int(n, "n", low=2)
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(n, (count,), generator=generator)
    return torch.stack([a, (a + torch.randint(1, n, (count,), generator=generator)) % n], dim=1)


def _pairs(pairs: Points, n: int) -> Tensor:
    """(P, 2) int64 as a tensor."""
    out = as_tensor(pairs, "pairs")
    check_shape(out, "P 2", "pairs")
    check_index(out, n, "pairs", what="shapes")
    return out.long()
