"""Deep matching as differentiable layers: a pyramid of four-dimensional score maps, built up and decoded again.

Scores are tensors (B, H, W, K, K): for each of H x W patches of image 0, at positions p, and each displacement in a
window of K x K, K = 2 R + 1, how well the patch fits image 1 at q. Level l samples q every ``2^l`` cells of the
finest level and looks ``R_l`` samples each way, ``R_{l+1} = ceil(R_l / 2)``; q is relative to p, so that displacement
0 has the index R_l. Patches of level 0 lie on the grid of the descriptors, those of all coarser levels on its corners,
(H + 1) x (W + 1).

Upwards `pool`, `aggregate` and `power` turn S_l into S_{l+1}; downwards `disaggregate` and `unpool` bring Q_{l+1} to
level l, where S_l is added. `deep_scores` is the whole of it. Source: "Fully-trainable deep matching" (Thewlis et al.
2016), sections 2.1 and 2.3; corners outside the grid are left out of the average, as in the authors' operators, where
the text divides by four.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from geoframe._check import check_float, check_int, check_shape


class ScorePyramid(NamedTuple):
    """All score maps of deep matching.

    up: S_0 ... S_L; up[0] is (B, H, W, K_0, K_0), the others (B, H + 1, W + 1, K_l, K_l).
    down: Q_0 ... Q_L of the same shapes; minus infinity where no path from a coarser level arrives.
    """

    up: list[Tensor]
    down: list[Tensor]


def patch_descriptors(features: Tensor, *, size: int, spacing: int = 1) -> Tensor:
    """Descriptors of patches: features at size x size places around every pixel, beside one another.

    With features of unit length the descriptors have unit length too; beyond the border features are zero.

    Args:
        features: (B, C, H, W).
        size: places along a side; 1 returns the features.
        spacing: pixels between them. The patch of (y, x) has its first place at ``y - spacing * (size - 1) // 2``.

    Returns:
        (B, size * size * C, H, W), places row by row, the channels of one place beside one another.
    """
    check_shape(features, "B C H W", "features")
    check_int(size, "size", low=1)
    check_int(spacing, "spacing", low=1)
    before = spacing * (size - 1) // 2
    after = spacing * (size - 1) - before
    padded = F.pad(features, (before, after, before, after))
    H, W = features.shape[-2:]
    places = [
        padded[..., spacing * i : spacing * i + H, spacing * j : spacing * j + W]
        for i in range(size)
        for j in range(size)
    ]
    return torch.cat(places, dim=1) / size


def correlate(
    source: Tensor, target: Tensor, radius: int, *, stride: int = 1, offset: int = 0, step: int = 1
) -> Tensor:
    """Scores of level 0: products of descriptors of image 0 with those of image 1 around the same place.

    ``scores[b, i, j, m, n] = <source[b, :, i, j], target[b, :, y, x]>`` with ``y = stride * i + offset + step *
    (m - radius)`` and x likewise; 0 where (y, x) lies outside image 1, negative products are 0 too.

    Args:
        source: (B, D, H, W) descriptors of the patches.
        target: (B, D, H1, W1) descriptors of every pixel.
        radius: R, samples each way.
        stride: pixels of image 1 between neighbouring patches.
        offset: pixels of image 1 before the first patch.
        step: pixels between samples of q.

    Returns:
        (B, H, W, 2 R + 1, 2 R + 1).
    """
    B, D, H, W = source.shape
    check_shape(source, "B D H W", "source")
    check_shape(target, f"{B} {D} h w", "target")
    check_int(radius, "radius", low=0)
    K, reach = 2 * radius + 1, step * radius
    bottom = max(0, stride * (H - 1) + offset + reach + 1 - target.shape[-2])
    right = max(0, stride * (W - 1) + offset + reach + 1 - target.shape[-1])
    padded = F.pad(target, (reach, right, reach, bottom))
    found = _Correlation.apply(source, padded, K, stride, offset, step)  # type: ignore[no-untyped-call]
    return found.clamp(min=0)


class _Correlation(torch.autograd.Function):
    """Products of descriptors with windows, a row of patches at a time, so that windows are never held together.

    Autograd through the windows would make a field of zeros as large as the target for each of them.
    """

    @staticmethod
    def forward(
        ctx: Any, source: Tensor, padded: Tensor, K: int, stride: int, offset: int, step: int
    ) -> Tensor:
        """Scores (B, H, W, K, K) of descriptors (B, D, H, W) and a padded target (B, D, h, w)."""
        ctx.save_for_backward(source, padded)
        ctx.window = (K, stride, offset, step)
        H, W = source.shape[2:]
        reach = step * (K - 1)
        rows = source.new_empty(source.shape[0], H, W, K, K)
        for i in range(H):
            y = stride * i + offset
            band = padded[:, :, y : y + reach + 1 : step]
            windows = band.unfold(3, reach + 1, 1)[:, :, :, offset : offset + stride * W : stride, ::step]
            rows[:, i] = torch.einsum("bdw,bdmwn->bwmn", source[:, :, i], windows[:, :, :, :W])
        return rows

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of source and target; a window's goes straight to its place."""
        source, padded = ctx.saved_tensors
        K, stride, offset, step = ctx.window
        B, D, H, W = source.shape
        reach = step * (K - 1)
        of_source, of_target = torch.zeros_like(source), torch.zeros_like(padded)
        for i in range(H):
            y = slice(stride * i + offset, stride * i + offset + reach + 1, step)
            for j in range(W):
                x = slice(stride * j + offset, stride * j + offset + reach + 1, step)
                g = grad[:, i, j].reshape(B, 1, K * K)
                of_source[:, :, i, j] = (padded[:, :, y, x].reshape(B, D, K * K) * g).sum(2)
                of_target[:, :, y, x] += (source[:, :, i, j, None] * g).reshape(B, D, K, K)
        return of_source, of_target, None, None, None, None


def pool(scores: Tensor, *, reach: int = 1) -> tuple[Tensor, Tensor]:
    """Maximum over displacements at most `reach` samples away, at every second displacement; and where it stood.

    Args:
        scores: (B, H, W, K, K), K = 2 R + 1.
        reach: samples each way.

    Returns:
        pooled: (B, H, W, K', K') with ``K' = 2 ceil(R / 2) + 1``.
        switches: as `pooled`, int64; the flat index in K x K of each maximum.
    """
    sizes = check_shape(scores, "B H W K K", "scores")
    K = sizes["K"]
    radius = (K - 1) // 2
    coarse = (radius + 1) // 2
    pad = reach + 2 * coarse - radius
    flat = F.pad(scores.reshape(-1, 1, K, K), (pad, pad, pad, pad), value=-torch.inf)
    pooled, at = F.max_pool2d(flat, 2 * reach + 1, stride=2, return_indices=True)
    wide = K + 2 * pad
    switches = (at // wide - pad) * K + at % wide - pad
    shape = (*scores.shape[:3], 2 * coarse + 1, 2 * coarse + 1)
    return pooled.reshape(shape), switches.reshape(shape)


def unpool(scores: Tensor, switches: Tensor, size: int) -> Tensor:
    """Scores at the places they were pooled from, the highest where several meet; minus infinity elsewhere.

    Args:
        scores: (B, H, W, K', K').
        switches: as `scores`; of `pool`.
        size: K of the result.

    Returns:
        (B, H, W, K, K).
    """
    flat = scores.reshape(*scores.shape[:3], -1)
    empty = flat.new_full((*scores.shape[:3], size * size), -torch.inf)
    filled = empty.scatter_reduce(3, switches.reshape(flat.shape), flat, "amax")
    return filled.reshape(*scores.shape[:3], size, size)


def _span(index_from: int, index_to: int, shift: int) -> tuple[slice, slice]:
    """Slices (of indices a in 0..from-1, of b = a - shift in 0..to-1) of all that have a partner."""
    low, high = max(0, shift), min(index_from, index_to + shift)
    return slice(low, max(low, high)), slice(low - shift, max(low, high) - shift)


def _corners(level: int) -> tuple[int, int]:
    """Index of the two corners along an axis, relative to a patch of the next level."""
    return (-1, 0) if level == 0 else (-(2 ** (level - 1)), 2 ** (level - 1))


def aggregate(scores: Tensor, level: int) -> Tensor:
    """Scores of larger patches: the mean over the four corners, as far as those are on the grid.

    Args:
        scores: (B, H, W, K, K), pooled scores of level `level`.
        level: l; corners lie ``2^l / 2`` patches away. From level 0 the grid grows by one each way.

    Returns:
        (B, H', W', K, K).
    """
    check_int(level, "level", low=0)
    h, w = scores.shape[1:3]
    H, W = (h + 1, w + 1) if level == 0 else (h, w)
    total = scores.new_zeros(scores.shape[0], H, W, *scores.shape[3:])
    count = scores.new_zeros(H, W, 1, 1)
    for dy in _corners(level):
        for dx in _corners(level):
            (y, to_y), (x, to_x) = _span(h, H, dy), _span(w, W, dx)
            part = F.pad(
                scores[:, y, x],
                (0, 0, 0, 0, to_x.start, W - to_x.stop, to_y.start, H - to_y.stop),
            )
            total = total + part
            count[to_y, to_x] += 1
    return total / count.clamp(min=1)


def disaggregate(scores: Tensor, level: int) -> Tensor:
    """Scores of the corners of larger patches: the highest of the four patches that have them as a corner.

    Args:
        scores: (B, H', W', K, K), scores of level ``level + 1``.
        level: l.

    Returns:
        (B, H, W, K, K); minus infinity for corners of no patch.
    """
    check_int(level, "level", low=0)
    H, W = scores.shape[1:3]
    h, w = (H - 1, W - 1) if level == 0 else (H, W)
    best = scores.new_full((scores.shape[0], h, w, *scores.shape[3:]), -torch.inf)
    for dy in _corners(level):
        for dx in _corners(level):
            (y, from_y), (x, from_x) = _span(h, H, dy), _span(w, W, dx)
            part = F.pad(
                scores[:, from_y, from_x],
                (0, 0, 0, 0, x.start, w - x.stop, y.start, h - y.stop),
                value=-torch.inf,
            )
            best = torch.maximum(best, part)
    return best


def power(scores: Tensor, exponent: Tensor | float) -> Tensor:
    """Non-negative scores to a power; at 0 value and gradients are 0.

    Args:
        scores: of any shape; negative ones count as 0.
        exponent: positive; a scalar.
    """
    positive = scores > 0
    safe = torch.where(positive, scores, torch.ones_like(scores))
    return torch.where(positive, safe**exponent, torch.zeros_like(scores))


def n_levels(height: int, width: int, radius: int, most: int = 6) -> int:
    """Levels worth building: corners of the last are still on the grid, its window has more than one sample.

    Args:
        height: patches down.
        width: patches across.
        radius: R_0.
        most: upper bound, L.
    """
    level = 0
    while level < most and radius > 0 and 2**level <= max(height, width):
        radius, level = (radius + 1) // 2 if radius > 1 else 0, level + 1
    return level


def deep_scores(scores: Tensor, exponents: Tensor | Sequence[float], *, reach: int = 1) -> ScorePyramid:
    """Build the pyramid of scores and decode it: what deep matching is but for its descriptors.

    Args:
        scores: (B, H, W, K, K), S_0; K odd.
        exponents: (L,), the power of each level after its aggregation; their number is the number of levels.
        reach: of the pooling, in samples.

    Returns:
        The pyramid; ``down[0]`` holds the final score of each match.

    Raises:
        TypeError, ValueError: scores of another type or shape.
    """
    check_float(scores, "scores")
    K = check_shape(scores, "B H W K K", "scores")["K"]
    if K % 2 == 0:
        raise ValueError(f"scores: expected windows of an odd number of displacements, found {K} x {K}")
    up, switches = [scores], []
    for level, exponent in enumerate(exponents):
        pooled, at = pool(up[-1], reach=reach)
        switches.append(at)
        up.append(power(aggregate(pooled, level), exponent))
    down = [up[-1]]
    for level in reversed(range(len(switches))):
        coarse = disaggregate(down[0], level)
        down.insert(0, up[level] + unpool(coarse, switches[level], up[level].shape[-1]))
    return ScorePyramid(up, down)
