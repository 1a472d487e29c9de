"""Bringing shapes of a category into one frame by their ordered keypoints, and how well that went."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe.transforms import procrustes, rotation_angle


def register_pairs(keypoints: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity transforms that bring shape a onto shape b by their ordered keypoints (n, K, 3).

    Args:
        pairs: (P, 2) int64, rows (a, b).

    Returns:
        rotation: (P, 3, 3) R_ba, ``scale * p @ R_ba.mT + t`` of shape a lies near shape b.
        residual: (P,) root mean square distance of the keypoints after it.
    """
    source, target = keypoints[pairs[:, 0]], keypoints[pairs[:, 1]]
    fit = procrustes(source, target, scale=True)
    return fit.R, (fit(source) - target).square().sum(-1).mean(-1).sqrt()


def relative_rotation_error(keypoints: Tensor, true_rotation: Tensor, pairs: Tensor) -> Tensor:
    """Degrees (P,) between the rotation found from keypoints (n, K, 3) and the true one from shape a to shape b.

    Args:
        true_rotation: (n, 3, 3) from the common frame of the data to each cloud. pairs: (P, 2) rows (a, b).

    Source: Fernandez-Labrador et al. 2020, figure 5.
    """
    found, _ = register_pairs(keypoints, pairs)
    true = true_rotation[pairs[:, 1]] @ true_rotation[pairs[:, 0]].mT
    return rotation_angle(found.double(), true.double()).rad2deg()


def random_pairs(n: int, count: int, *, seed: int = 0) -> Tensor:
    """(count, 2) rows of two different numbers below n."""
    check_int(n, "n", low=2)
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(n, (count,), generator=generator)
    return torch.stack([a, (a + torch.randint(1, n, (count,), generator=generator)) % n], dim=1)
