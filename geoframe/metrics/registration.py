"""Bringing shapes of a category into one frame by their ordered keypoints, and how well that went."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe.transforms import Similarity, procrustes, rotation_angle, rotation_from_direction


def fit_turn(source: Tensor, target: Tensor, *, up: int | None) -> Similarity:
    """The similarity that brings ordered points (..., K, 3) nearest to others, turning about axis `up` only.

    In the least-squares sense; None turns about any axis. Where clouds stand upright, as scans and models do,
    the vertical is known and only one angle is left to find.
    """
    if up is None:
        return procrustes(source, target, scale=True)
    mean1, mean2 = source.mean(-2), target.mean(-2)
    x, y = source - mean1[..., None, :], target - mean2[..., None, :]
    a, b = (up + 1) % 3, (up + 2) % 3
    cosine = (x[..., a] * y[..., a] + x[..., b] * y[..., b]).sum(-1)
    sine = (x[..., a] * y[..., b] - x[..., b] * y[..., a]).sum(-1)
    R = rotation_from_direction(torch.stack([cosine, sine], dim=-1), up)
    spread = x.square().sum((-1, -2)).clamp(min=torch.finfo(x.dtype).tiny)
    scale = ((x @ R.mT) * y).sum((-1, -2)) / spread
    return Similarity(R, mean2 - scale[..., None] * (R @ mean1[..., None])[..., 0], scale)


def register_pairs(keypoints: Tensor, pairs: Tensor, *, up: int | None = None) -> tuple[Tensor, Tensor]:
    """Similarity transforms that bring shape a onto shape b by their ordered keypoints (n, K, 3).

    Args:
        pairs: (P, 2) int64, rows (a, b). up: the axis to turn about; None for any rotation.

    Returns:
        rotation: (P, 3, 3) R_ba, ``scale * p @ R_ba.mT + t`` of shape a lies near shape b.
        residual: (P,) root mean square distance of the keypoints after it.
    """
    source, target = keypoints[pairs[:, 0]], keypoints[pairs[:, 1]]
    fit = fit_turn(source, target, up=up)
    return fit.R, (fit(source) - target).square().sum(-1).mean(-1).sqrt()


def relative_rotation_error(
    keypoints: Tensor, true_rotation: Tensor, pairs: Tensor, *, up: int | None = None
) -> Tensor:
    """Degrees (P,) between the rotation found from keypoints (n, K, 3) and the true one from shape a to shape b.

    Args:
        true_rotation: (n, 3, 3) from the common frame of the data to each cloud.
        pairs: (P, 2) rows (a, b). up: as in `fit_turn`.

    Source: Fernandez-Labrador et al. 2020, figure 5, where turned shapes are brought onto three aligned templates;
        here the pairs are given, and both may be turned.
    """
    found, _ = register_pairs(keypoints, pairs, up=up)
    true = true_rotation[pairs[:, 1]] @ true_rotation[pairs[:, 0]].mT
    return rotation_angle(found.double(), true.double()).rad2deg()


def random_pairs(n: int, count: int, *, seed: int = 0) -> Tensor:
    """(count, 2) rows of two different numbers below n."""
    check_int(n, "n", low=2)
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(n, (count,), generator=generator)
    return torch.stack([a, (a + torch.randint(1, n, (count,), generator=generator)) % n], dim=1)
