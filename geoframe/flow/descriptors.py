"""Descriptors of pixels made by hand: how strong the image changes in each of a few directions, near each pixel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_float, check_int, check_shape

_LUMA = (0.299, 0.587, 0.114)


def smooth(image: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of each channel; the border is continued by its own values.

    Args:
        image: (B, C, H, W).
        sigma: standard deviation in pixels; 0 changes nothing.
    """
    if sigma <= 0:
        return image
    reach = max(1, math.ceil(2.5 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    return _along(_along(image, kernel, 3), kernel, 2)


def _along(image: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """One axis of the smoothing, as a sum of shifted copies: `conv2d` takes several times as long for one channel."""
    reach, n = len(kernel) // 2, image.shape[dim]
    wide = F.pad(image, (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach), mode="replicate")
    found = wide.narrow(dim, reach, n) * kernel[reach]
    for k in range(1, reach + 1):
        both = wide.narrow(dim, reach - k, n) + wide.narrow(dim, reach + k, n)
        found = torch.add(found, both * kernel[reach + k])
    return found


def gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, each of the shape of `image` (B, C, H, W); one-sided at the border."""
    wide = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2


def oriented_gradients(
    image: Tensor,
    *,
    n_directions: int = 8,
    before: float = 1.0,
    middle: float = 1.0,
    after: float = 1.0,
    slope: float = 50.0,
    flat: float = 0.1,
) -> Tensor:
    """Descriptors of pixels in the manner of histograms of gradients, of unit length and without negative entries.

    The gradient of the smoothed grey image is split into its positive parts along a few directions; each is smoothed,
    saturated by ``2 / (1 + exp(-slope x)) - 1`` and smoothed again. A constant channel makes flat pixels alike.

    Args:
        image: (B, 3, H, W) or (B, 1, H, W) in [0, 1].
        n_directions: evenly around the circle.
        before: standard deviation, in pixels, of the smoothing of the image.
        middle: of the smoothing before the saturation.
        after: of that after it.
        slope: of the saturation, per unit of intensity a pixel.
        flat: value of the constant channel.

    Returns:
        (B, n_directions + 1, H, W).

    Source: descriptors of the kind that DeepMatching (Revaud et al. 2016) has for its atomic patches.
    """
    check_float(image, "image")
    C = check_shape(image, "B C H W", "image")["C"]
    check_int(n_directions, "n_directions", low=2)
    if C not in (1, 3):
        raise ValueError(f"image: expected 1 or 3 channels, found {C}; convert to RGB or grey first")
    if C == 3:
        weights = image.new_tensor(_LUMA)[:, None, None]
        image = (image * weights).sum(1, keepdim=True)
    gx, gy = gradients(smooth(image, before))
    angles = [2 * math.pi * k / n_directions for k in range(n_directions)]
    parts = torch.cat([math.cos(a) * gx + math.sin(a) * gy for a in angles], dim=1).clamp(min=0)
    parts = smooth(2 * torch.sigmoid(slope * smooth(parts, middle)) - 1, after)
    length = (parts.square().sum(1, keepdim=True) + flat**2).sqrt()
    return torch.cat([parts, torch.full_like(gx, flat)], dim=1) / length
