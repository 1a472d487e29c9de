"""Measures of landmarks in images: how far, how consistent, how symmetric. Points are (n, L, 2) of one unit.

Source: Thewlis 2019 (thesis), chapters 4 to 7; Sanchez & Tzimiropoulos 2019 for the forward and the backward error and
for stability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_float, check_shape


def percent_error(found: Tensor, true: Tensor, size: Tensor) -> Tensor:
    """Mean distance of the landmarks of each image, in percent of a length of that image.

    Args:
        found: (n, L, 2).
        true: (n, L, 2); landmarks with NaN do not count.
        size: (n,) lengths, such as the distance between the eyes (inter-ocular error).

    Returns:
        (n,) percent; NaN for an image without a known landmark.
    """
    sizes = check_shape(check_float(found, "found"), "N L 2", "found")
    check_shape(true, f"{sizes['N']} {sizes['L']} 2", "true")
    check_shape(size, f"{sizes['N']}", "size")
    return 100 * (found - true).norm(dim=-1).nanmean(1) / size


def box_side(points: Tensor) -> Tensor:
    """Longer side (n,) of the box of known landmarks (n, L, 2)."""
    known = torch.isfinite(points)
    high = torch.where(known, points, -torch.inf).amax(1)
    low = torch.where(known, points, torch.inf).amin(1)
    return (high - low).amax(-1)


def stability_error(found: Tensor, moved: Tensor, size: Tensor) -> Tensor:
    """How far landmarks of a warped picture are from the warped landmarks of the picture, in percent.

    Args:
        found: (n, K, 2) landmarks of the pictures.
        moved: (n, K, 2) landmarks of the warped pictures, brought back to the pictures.
        size: (n,) lengths.

    Returns:
        (n,) percent.
    """
    return percent_error(moved, found, size)


def symmetry_transfer_error(found: Tensor, true: Tensor, swap: Tensor, size: Tensor) -> Tensor:
    """How far a landmark's mirrored descriptor lands from the landmark's counterpart, in percent.

    Args:
        found: (n, L, 2) where the mirrored descriptor of landmark l of an image was found in it.
        true: (n, L, 2) landmarks.
        swap: (L,) int64, the counterpart of each landmark, its own number on the plane of symmetry.
        size: (n,) lengths.

    Returns:
        (n,) percent, over the landmarks that have a counterpart other than themselves.
    """
    check_shape(swap, f"{true.shape[1]}", "swap")
    paired = swap != torch.arange(len(swap), device=swap.device)
    return percent_error(found[:, paired], true[:, swap][:, paired], size)


def calibration_gap(confidence: Tensor, right: Tensor, *, bins: int = 5) -> float:
    """How far confidence is from the share of answers that are right: its mean difference over bins of equal size.

    Args:
        confidence: (n,) in [0, 1].
        right: (n,) bool.
        bins: of answers in the order of their confidence.

    Returns:
        0 for a perfect confidence; about 0.4 / sqrt(n / bins) for a perfect one by chance.
    """
    n = check_shape(check_float(confidence, "confidence"), "N", "confidence")["N"]
    check_shape(right, f"{n}", "right")
    order = confidence.argsort()
    parts = zip(confidence[order].tensor_split(bins), right[order].tensor_split(bins), strict=True)
    gaps = [abs(float(c.mean() - r.float().mean())) for c, r in parts if len(c)]
    return sum(gaps) / len(gaps)
