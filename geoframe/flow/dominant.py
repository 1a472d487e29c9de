"""The motion that most pixels share, and what moves otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe.flow.warp import pixel_grid


def dominant_motion(
    flow: Tensor, *, tolerance: float = 1.0, tries: int = 200, seed: int | torch.Generator = 0
) -> Tensor:
    """The affine motion that fits most pixels, by random samples of three and a least-squares fit to those it fits.

    Args:
        flow: (2, H, W), pixels; NaN where it is unknown.
        tolerance: pixels within which a pixel fits.
        tries: samples.
        seed: int or torch.Generator.

    Returns:
        (2, H, W), the affine motion at every pixel.

    Raises:
        ValueError: fewer than three pixels with a known flow.
    """
    H, W = check_shape(flow, "2 H W", "flow").values()
    check_int(tries, "tries", low=1)
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    grid = pixel_grid(H, W, like=torch.zeros(0, dtype=torch.float64)).flatten(1)
    size = max(H, W)
    places = torch.cat([grid / size - 0.5, torch.ones_like(grid[:1])]).T
    motion = flow.double().flatten(1).T
    known = torch.isfinite(motion).all(1).nonzero()[:, 0]
    if len(known) < 3:
        raise ValueError(f"flow: expected at least 3 pixels with a known flow, found {len(known)}")
    some = known[
        torch.randperm(len(known), generator=generator)[:3000]
    ]  # enough to tell one motion from another
    A, b = places[some], motion[some]
    triples = torch.randint(len(some), (tries, 3), generator=generator)
    found, info = torch.linalg.solve_ex(A[triples], b[triples])
    off = (A @ found - b).norm(dim=-1)
    count = torch.where(info == 0, (off < tolerance).sum(1), 0)
    fits = off[int(count.argmax())] < tolerance
    if int(fits.sum()) < 3:
        fits = torch.ones_like(fits)
    for _ in range(3):
        affine = torch.linalg.lstsq(A[fits], b[fits]).solution
        again = (A @ affine - b).norm(dim=-1) < tolerance
        fits = again if int(again.sum()) >= 3 else fits
    return (places @ affine).T.reshape(2, H, W).to(flow.dtype)


def otsu_threshold(values: Tensor, *, n_bins: int = 256) -> float:
    """The value that splits numbers into two groups of the least variance within them.

    Args:
        values: of any shape; NaN is left out.
        n_bins: of the histogram.

    Source: Otsu 1979.
    """
    values = values[torch.isfinite(values)].double().flatten()
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    counts = torch.histc(values, n_bins, low, high)
    centres = low + (high - low) * (torch.arange(n_bins, dtype=torch.float64) + 0.5) / n_bins
    below = counts.cumsum(0)
    total = (counts * centres).cumsum(0)
    above = below[-1] - below
    mean0, mean1 = total / below.clamp(min=1), (total[-1] - total) / above.clamp(min=1)
    between = below * above * (mean0 - mean1).square()
    return low + (high - low) * (int(between.argmax()) + 1) / n_bins


def moving_pixels(flow: Tensor, *, seed: int | torch.Generator = 0) -> Tensor:
    """Pixels that move otherwise than most do: the residual of `dominant_motion`, split by Otsu.

    Args:
        flow: (2, H, W) in pixels.
        seed: of the robust fit of the dominant motion.

    Returns:
        (H, W) bool.
    """
    residual = (flow - dominant_motion(flow, seed=seed)).norm(dim=0)
    return residual > otsu_threshold(residual)
