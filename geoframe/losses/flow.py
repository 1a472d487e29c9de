"""Losses of matches between images and of features that go with motion."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_shape


def structured_hinge_loss(scores: Tensor, truth: Tensor, *, alpha: float = 1.0, sigma: float = 1.0) -> Tensor:
    """How far wrong displacements come near the score of the true one, or above it.

    ``mean_p sum_q max(0, alpha (1 - exp(-d^2 / 2 sigma^2)) + S(q | p) - S(q* | p))`` with the distance d of q to the
    true place q*, both in samples of the score map, q* rounded to the nearest sample.

    Args:
        scores: (B, H, W, K, K), a map of any level; minus infinity where there is no score.
        truth: (B, H, W, 2), the true displacement (down, right) in samples; NaN where it is unknown.
        alpha: the largest margin.
        sigma: how fast the margin grows, samples.

    Returns:
        A scalar; patches whose true place is unknown, outside the window or without a score are left out. 0 if there
        are no others.

    Source: section 2.2 of the paper; rounding and what is left out as in the authors' layer. We take the mean over
    patches where the paper takes the sum.
    """
    K = check_shape(scores, "B H W K K", "scores")["K"]
    check_shape(truth, " ".join(map(str, (*scores.shape[:3], 2))), "truth")
    radius = (K - 1) // 2
    place = torch.where(torch.isfinite(truth), truth, float(K)).round().long() + radius
    inside = ((place >= 0) & (place < K)).all(-1)
    y, x = place.clamp(0, K - 1).unbind(-1)
    flat = scores.reshape(*scores.shape[:3], K * K)
    right = flat.gather(3, (y * K + x)[..., None])[..., 0]
    used = inside & torch.isfinite(right)
    if not bool(used.any()):
        return scores.new_zeros(()) * flat[torch.isfinite(flat)].sum()
    at = torch.arange(K, device=scores.device)
    far = (at[:, None] - y[used][:, None, None]).square() + (at - x[used][:, None, None]).square()
    margin = alpha * (1 - torch.exp(-far.to(scores.dtype) / (2 * sigma**2)))
    hinge = (margin + scores[used] - right[used][:, None, None]).clamp(min=0)
    return torch.where(far > 0, hinge, 0.0).sum((1, 2)).mean()


def displacement_in_samples(
    flow: Tensor, level: int, size: tuple[int, int], *, stride: int, step: int
) -> Tensor:
    """The true displacements of the patches of a level, in samples of its score maps.

    Args:
        flow: (B, 2, H, W), pixels, from image 0 to image 1; NaN where it is unknown.
        level: of the pyramid of `geoframe.layers.matching.deep_scores`.
        size: (h, w), the patches of that level.
        stride: pixels between patches.
        step: pixels between samples at level 0.

    Returns:
        (B, h, w, 2), down and right; NaN where it is unknown.
    """
    H, W = check_shape(flow, "B 2 H W", "flow")["H"], flow.shape[-1]
    before = stride // 2 if level == 0 else 0
    y, x = (
        (stride * torch.arange(n, device=flow.device) + before).clamp(max=limit - 1)
        for n, limit in zip(size, (H, W), strict=True)
    )
    return flow[:, :, y][..., x].flip(1).permute(0, 2, 3, 1) / (step * 2**level)
