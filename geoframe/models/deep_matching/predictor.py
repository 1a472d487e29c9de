"""Matches and flow between two images.

found = match_images(image0, image1)   # (3, H, W) in [0, 1] each
found.points0, found.points1           # (N, 2) x and y in pixels
found.flow                             # (2, H, W), from image 0 to image 1
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import as_floats, check_finite, check_int, check_shape
from geoframe._files import atomic_path
from geoframe.flow import edge_strength, interpolate_matches, refine_flow
from geoframe.layers.match_volume import MatchVolume
from geoframe.layers.matching import n_levels
from geoframe.models.deep_matching.network import DeepMatcher

_log = logging.getLogger(__name__)

_BUDGET = 1.2e8  # entries of the largest stored level, about 1 GB in all
_CELL = 4  # pixels; a side of the cells of image 1 in which a match has to be the best
_POLISH = 2  # pixels that a match moves at most when its place is found to parts of a pixel
_SMALLEST = 8  # pixels along a side, below which there is no patch to match


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """Matches between two images, and the flow between them.

    Attributes:
        points0: (N, 2) float32, x and y in image 0; the centre of the first pixel is at 0.5.
        points1: (N, 2) float32 in image 1.
        score: (N,) float32, the final score of deep matching, divided by the number of its levels: in [0, 1].
        flow: (2, H, W) float32, from image 0 to image 1, pixels.
    """

    points0: Tensor
    points1: Tensor
    score: Tensor
    flow: Tensor

    def save(self, path: str | Path) -> None:
        """Write points0, points1 and score into an npz file, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{name: getattr(self, name).numpy() for name in ("points0", "points1", "score")})


def match_images(
    image0: Any,
    image1: Any,
    *,
    matcher: DeepMatcher | None = None,
    radius: int | None = None,
    downscale: int | None = None,
    half: bool = True,
) -> ImageMatches:
    """Match two images and find the flow between them.

    Args:
        image0: (3, H, W) or (1, H, W) in [0, 1]; tensor, array or list.
        image1: likewise, of any size.
        matcher: by default the one made by hand.
        radius: how far matches are searched, pixels each way; by default as the matcher has it.
        downscale: match at 1 / downscale of the size; the flow is refined at full size. By default the smallest of
            1, 2, 4, ... that keeps the scores in about a gigabyte.
        half: keep scores in 16 bits.

    Returns:
        Matches and flow.

    Raises:
        TypeError: not numbers.
        ValueError: another shape, NaN, values outside [0, 1], images too small, a radius or downscale out of range.
    """
    first, second = as_image(image0, "image0"), as_image(image1, "image1")
    matcher = DeepMatcher() if matcher is None else matcher
    radius = check_int(matcher.radius if radius is None else radius, "radius", low=matcher.step)
    if downscale is None:
        downscale = _downscale(first.shape[1:], radius, matcher)
    check_int(downscale, "downscale", low=1)
    points0, points1, score = quasi_dense(
        first, second, matcher, radius=radius, downscale=downscale, half=half
    )
    flow, _ = interpolate_matches(points0, points1, edge_strength(first))
    return ImageMatches(points0, points1, score, refine_flow(first, second, flow))


def quasi_dense(
    first: Tensor, second: Tensor, matcher: DeepMatcher, *, radius: int, downscale: int, half: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Matches of a grid of patches that are the best of their patch and of their place in image 1.

    Args:
        first: (3, H, W) image 0.
        second: (3, H1, W1) image 1.
        matcher: descriptors, exponents and window.
        radius: pixels at full size.
        downscale: see `match_images`.
        half: see `match_images`.

    Returns:
        points0 (N, 2), points1 (N, 2) and score (N,), see `ImageMatches`.
    """
    small = [_shrunk(x, downscale) for x in (first, second)]
    with torch.no_grad():
        features = [matcher.features(x[None])[0].float().numpy() for x in small]
    samples = max(1, round(radius / downscale / matcher.step))
    grid = [-(-(n - matcher.stride // 2) // matcher.stride) for n in small[0].shape[1:]]
    levels = max(1, n_levels(*grid, samples, matcher.levels))
    exponents = tuple(float(x) for x in matcher.exponents.detach()[:levels])
    volume = MatchVolume(
        *features,
        size=matcher.size,
        spacing=matcher.spacing,
        stride=matcher.stride,
        radius=samples,
        step=matcher.step,
        exponents=exponents,
        half=half,
    )
    found = volume.decode(_CELL)
    place, _ = volume.polish(found.target, _POLISH)
    keep = torch.from_numpy(found.reciprocal & np.isfinite(found.score))
    points0 = torch.from_numpy(volume.centres()).float()[keep] + 0.5
    points1 = torch.from_numpy(place[..., ::-1].copy()).float()[keep] + 0.5
    scale = [
        torch.tensor([a / b for a, b in zip(big.shape[:0:-1], x.shape[:0:-1], strict=True)])
        for big, x in zip((first, second), small, strict=True)
    ]
    score = torch.from_numpy(found.score)[keep] / (levels + 1)
    return points0 * scale[0], points1 * scale[1], score


def as_image(x: Any, name: str) -> Tensor:
    """An image (3, H, W) float32, if `x` is one: grey ones get three channels.

    Raises:
        TypeError, ValueError: see `match_images`.
    """
    image = as_floats(x, name).detach().cpu().float()
    sizes = check_shape(image, "C H W", name)
    if sizes["C"] not in (1, 3):
        raise ValueError(f"{name}: expected 1 or 3 channels first, found shape {tuple(image.shape)}")
    if min(sizes["H"], sizes["W"]) < _SMALLEST:
        raise ValueError(
            f"{name}: expected at least {_SMALLEST} pixels along each side, found {sizes['W']} x {sizes['H']}"
        )
    check_finite(image, name, remedy="fill or crop them first")
    low, high = float(image.min()), float(image.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(f"{name}: expected values in [0, 1], found {low:.4g} to {high:.4g}; divide by 255")
    return image.expand(3, -1, -1)


def _downscale(size: Any, radius: int, matcher: DeepMatcher) -> int:
    """The smallest power of two that keeps the scores in the budget."""
    factor = 1
    while factor < 64:
        patches = size[0] * size[1] / (matcher.stride * factor) ** 2
        if patches * (radius / factor / matcher.step + 2) ** 2 <= _BUDGET:
            break
        factor *= 2
    return factor


def _shrunk(image: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return image
    size = [max(_SMALLEST, round(n / factor)) for n in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
