"""Losses of landmarks learned without labels: they move with the picture, keep apart, and tell what it looks like.

Probability maps are (B, K, h, w), each summing to 1 over its pixels; coordinates are normalised (`geoframe.warps`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_choice, check_int, check_shape


def alignment_loss(first: Tensor, second: Tensor, places: Tensor, truth: Tensor) -> Tensor:
    """Expected squared distance between a landmark in the first view and, carried there, in the second.

    ``1/K sum_k sum_uv |u - g(v)|^2 p(u | x, k) p(v | x', k)``, in time linear in the number of pixels.

    Args:
        first: (B, K, h, w) maps of the first view.
        second: (B, K, h, w) maps of the second.
        places: (h * w, 2) places of the first's pixels.
        truth: (B, h * w, 2) places of the second's pixels in the first view.

    Returns:
        A scalar, the mean over batch and landmarks; 0 if and only if the maps are points that correspond.

    Source: Thewlis 2019 (thesis), chapter 4 equation 6 and its linear form.
    """
    p, q = (x.flatten(2) for x in (first, second))
    sizes = check_shape(p, "B K N", "first")
    check_shape(q, f"{sizes['B']} {sizes['K']} {sizes['N']}", "second")
    check_shape(places, f"{sizes['N']} 2", "places")
    check_shape(truth, f"{sizes['B']} {sizes['N']} 2", "truth")
    spread = p @ places.square().sum(-1) + torch.einsum("bkn,bn->bk", q, truth.square().sum(-1))
    return (spread - 2 * ((p @ places) * (q @ truth)).sum(-1)).mean()


def diversity_loss(maps: Tensor, *, window: int = 4, form: str = "sum", stride: int | None = None) -> Tensor:
    """How much the maps of different landmarks overlap: ``K - sum_u max_k p(u | k)`` after pooling.

    Args:
        maps: (B, K, h, w).
        window: side of the pooled squares; landmarks farther apart than that cost nothing.
        form: "sum" pools by sums, as written; "mean" by means, as a re-implementation has it, smaller by window^2.
        stride: between windows; `window` by default.

    Returns:
        A scalar, the mean over the batch; 0 if and only if no two landmarks share a window.

    Source: Thewlis 2019, chapter 4 equation 8 and the one after it.
    """
    check_int(window, "window", low=1)
    check_choice(form, ("sum", "mean"), "form")
    pooled = F.avg_pool2d(maps, window, stride or window, ceil_mode=True, count_include_pad=False)
    if form == "sum":
        pooled = F.avg_pool2d(maps, window, stride or window, ceil_mode=True, divisor_override=1)
        total = float(maps.shape[1])
        return (total - pooled.amax(1).sum((1, 2))).mean()
    return (pooled.sum((1, 2, 3)) - pooled.amax(1).sum((1, 2))).mean()


def overlap_loss(maps: Tensor) -> Tensor:
    """``1/K^2 sum_rs sum_u p(u | r) p(u | s)`` over pairs of different landmarks; the quadratic form of diversity.

    Source: Thewlis 2019, chapter 4 equation 7, less its terms r = s, which no arrangement of landmarks can avoid.
    """
    p = maps.flatten(2)
    gram = p @ p.mT
    K = gram.shape[1]
    return (gram.sum((1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)).mean() / K**2


def soft_alignment_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of landmarks, both in the first view.

    Args:
        first: (B, K, 2) found there.
        second: (B, K, 2) found in the second view and carried to the first.

    Source: Thewlis 2019, chapter 4 equation 5.
    """
    return (first - second).square().sum(-1).mean()


def perceptual_loss(found: list[Tensor], true: list[Tensor]) -> Tensor:
    """Mean squared difference of a fixed network's features, summed over its layers; a scalar.

    Args:
        found: features (B, C, h, w) of a generated picture, one a layer.
        true: of the picture it should be; taken as constant.

    Source: Li et al. 2020, equation 6.
    """
    if len(found) != len(true):
        raise ValueError(f"true: expected {len(found)} layers, as many as found, found {len(true)}")
    return torch.stack([F.mse_loss(a, b.detach()) for a, b in zip(found, true, strict=True)]).sum()
