"""Matches and flow between two images.

found = match_images(image0, image1)   # (3, H, W) in [0, 1] each
found.points0, found.points1           # (N, 2) x and y in pixels
found.flow                             # (2, H, W), from image 0 to image 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import as_floats, check_finite, check_int, check_shape
from geoframe._files import atomic_path
from geoframe._random import seeded
from geoframe.flow import (
    confidence_from_signs,
    edge_strength,
    flow_signs,
    interpolate_matches,
    refine_flow,
    values_at,
)
from geoframe.layers.match_volume import MatchVolume
from geoframe.layers.matching import n_levels
from geoframe.models.deep_matching.network import DeepMatcher, build
from geoframe.models.deep_matching.recipe import OURS, Recipe
from geoframe.pixels import PixelMap
from geoframe.training import fit, load_model, save_model

KIND = "deep matching"
_STEPS_AN_EPOCH = 250
_BUDGET = 1.2e8  # entries of the largest stored level, about 1 GB in all
CELL = 2  # patches; a side of the cells of image 1 in which a match has to be the best
_POLISH = 2  # pixels that a match moves at most when its place is found to parts of a pixel
_AGREED = 3.0  # pixels between a match and the flow that its confidence allows for
_BLANK = 0.02  # edge strength, half a grey level a pixel: an image without any more has nothing to match
_DOUBTFUL = 0.5  # mean confidence below which there is a warning
_PLACES = 64  # that are compared along the longer side of an object
_LEAST_COVER = 0.25  # of such a place that has to be foreground
_SMALLEST = 8  # pixels along a side, below which there is no patch to match


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """Matches between two images, and the flow between them.

    Attributes:
        points0: (N, 2) float32, x and y in image 0; the centre of the first pixel is at 0.5.
        points1: (N, 2) float32 in image 1.
        score: (N,) float32, the final score of deep matching, divided by the number of its levels: in [0, 1].
        confidence: (N,) float32 in [0, 1], how likely the match is right to 3 pixels.
        flow: (2, H, W) float32, from image 0 to image 1, pixels; NaN where it is unknown.
        flow_confidence: (H, W) float32 in [0, 1], how likely the flow is right to 3 pixels.
    """

    points0: Tensor
    points1: Tensor
    score: Tensor
    confidence: Tensor
    flow: Tensor
    flow_confidence: Tensor

    @property
    def mean_confidence(self) -> float:
        """How likely the flow is right, on average over the pixels where it is known; 0 where it is known nowhere."""
        known = torch.isfinite(self.flow).all(0)
        return float(self.flow_confidence[known].mean()) if bool(known.any()) else 0.0

    @property
    def warning(self) -> str:
        """What to beware of, or nothing: the flow is likely to be wrong at half of the pixels or more."""
        sure = self.mean_confidence
        if sure >= _DOUBTFUL:
            return ""
        return (
            f"the flow is likely to be right at {sure:.0%} of the pixels only: the images may have little in common, "
            "or things may have moved farther than the radius of the search"
        )

    def save(self, path: str | Path) -> None:
        """Write points0, points1, score and confidence into an npz file, whole or not at all."""
        names = ("points0", "points1", "score", "confidence")
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{name: getattr(self, name).numpy() for name in names})


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

    Matches that contradict the flow made of all of them, by more than the spacing of the patches, are left out.

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
    edges = edge_strength(first)
    flow, _ = interpolate_matches(points0, points1, edges)
    flow = refine_flow(first, second, flow)
    flow_confidence = confidence_from_signs(flow_signs(first, second, flow, points0, points1))
    if min(float(edges.max()), float(edge_strength(second).max())) < _BLANK:
        flow_confidence = torch.zeros_like(flow_confidence)
    off = (points1 - points0 - values_at(flow, points0)).norm(dim=1)
    confidence = values_at(flow_confidence[None], points0)[:, 0] * torch.exp(-(off / _AGREED).square())
    keep = off <= matcher.stride * downscale
    keep = keep if bool(keep.any()) else ~keep
    points0, points1, score, confidence = (x[keep] for x in (points0, points1, score, confidence))
    return ImageMatches(points0, points1, score, confidence, flow, flow_confidence)


def match_fields(
    field0: Tensor,
    field1: Tensor,
    *,
    cell: float = 1.0,
    stride: int = 2,
    radius: int | None = None,
    levels: int = 6,
    exponent: float = 1.4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Deep matching of any embeddings of pixels, such as those of two animals: scores come from them, not from patches.

    Args:
        field0: (D, h, w), of image 0; compared by their cosines.
        field1: (D, h1, w1), of image 1.
        cell: pixels of the image that a place of the fields stands for.
        stride: places of image 0 between matches.
        radius: how far matches are searched, places each way; by default everywhere.
        levels: of the pyramid.
        exponent: of all levels.

    Returns:
        points0 (N, 2), points1 (N, 2) in pixels of the images, and score (N,), see `ImageMatches`.

    Raises:
        ValueError: fields of different D, or empty ones.
    """
    D = check_shape(field0, "D h w", "field0")["D"]
    check_shape(field1, f"{D} h1 w1", "field1")
    for name, x in (("field0", field0), ("field1", field1)):
        check_finite(x, name, remedy="leave such pixels out, as zeros")
    radius = max(*field0.shape[1:], *field1.shape[1:]) if radius is None else radius
    check_int(radius, "radius", low=1)
    check_int(stride, "stride", low=1)
    features = [F.normalize(x.float(), dim=0).numpy() for x in (field0, field1)]
    volume = score_volume(features, 1, 1, stride, radius, 1, (exponent,) * levels, True)
    found = volume.decode(CELL * stride)
    keep = torch.from_numpy(found.reciprocal)
    points0, points1 = (
        cell * (torch.from_numpy(x.copy()).float()[keep] + 0.5)
        for x in (volume.centres(), found.target[..., ::-1])
    )
    return points0, points1, torch.from_numpy(found.score)[keep] / (len(volume.exponents) + 1)


def match_pixel_maps(
    image0: Any, image1: Any, map0: PixelMap, map1: PixelMap, *, places: int = _PLACES
) -> ImageMatches:
    """Match two pictures of one category by the embeddings of their pixels, as two animals of different coats.

    Args:
        image0: (3, H, W) in [0, 1]; its edges bound the flow.
        image1: (3, H1, W1), of any size.
        map0: of image 0, with embeddings, as `geoframe.models.surface_embedding.Predictor.predict` gives it.
        map1: of image 1, with embeddings of the same space.
        places: that are compared along the longer side of each object.

    Returns:
        Matches, and a flow that is NaN outside the foreground of image 0. Confidences are those of the two maps,
        multiplied: how likely both pixels are where their maps say.

    Raises:
        ValueError: maps without embeddings or foreground, of another size than their image, of different spaces.
    """
    images = as_image(image0, "image0"), as_image(image1, "image1")
    grids = [_grid(m, x, k, places) for m, x, k in zip((map0, map1), images, (0, 1), strict=True)]
    at0, at1, score = match_fields(grids[0][0], grids[1][0], stride=1)
    points0, points1 = (at * cell + corner for at, (_, cell, corner) in zip((at0, at1), grids, strict=True))
    inside = (
        values_at(map0.mask[None].float(), points0)[:, 0] * values_at(map1.mask[None].float(), points1)[:, 0]
        > 0.25
    )
    points0, points1, score = points0[inside], points1[inside], score[inside]
    sure = values_at(map0.confidence[None], points0)[:, 0] * values_at(map1.confidence[None], points1)[:, 0]
    if not len(score):
        unknown = torch.full((2, *map0.size), torch.nan)
        return ImageMatches(points0, points1, score, sure, unknown, torch.zeros(map0.size))
    flow, _ = interpolate_matches(points0, points1, edge_strength(images[0]), weights=sure.clamp(min=1e-3))
    flow = torch.where(map0.mask, flow.float(), torch.nan)
    rows, columns = torch.nonzero(map0.mask, as_tuple=True)
    goal = torch.stack([columns, rows], dim=1) + 0.5 + flow[:, rows, columns].T
    flow_confidence = torch.zeros(map0.size)
    flow_confidence[rows, columns] = (
        map0.confidence[rows, columns] * values_at(map1.confidence[None], goal)[:, 0]
    )
    return ImageMatches(points0, points1, score, sure, flow, flow_confidence)


def _grid(found: PixelMap, image: Tensor, number: int, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean embeddings (D, h, w) of cells around an object, the sides of a cell (2,) and the corner (2,), pixels."""
    name = f"map{number}"
    if found.embedding is None:
        raise ValueError(f"{name}: expected a map with embeddings, found none; predict it from the image")
    if found.size != tuple(image.shape[1:]):
        raise ValueError(
            f"{name}: expected the size of image{number}, {tuple(image.shape[1:])}, found {found.size}"
        )
    rows, columns = torch.nonzero(found.mask, as_tuple=True)
    if not len(rows):
        raise ValueError(f"{name}: expected some foreground, found none; give predict a box of the object")
    check_int(places, "places", low=2)
    corner = torch.stack([columns.min(), rows.min()])
    width, height = (torch.stack([columns.max(), rows.max()]) + 1 - corner).tolist()
    cell = max(width, height) / places
    size = [max(2, round(n / cell)) for n in (height, width)]
    y, x = slice(int(corner[1]), int(corner[1]) + height), slice(int(corner[0]), int(corner[0]) + width)
    cover = found.mask[y, x].float()
    both = torch.cat([found.embedding[y, x].permute(2, 0, 1).float() * cover, cover[None]])
    if cell > 1:
        mean = F.interpolate(both[None], size=size, mode="area")[0]
    else:
        mean = F.interpolate(both[None], size=size, mode="bilinear", align_corners=False)[0]
    field = torch.where(mean[-1] >= _LEAST_COVER, mean[:-1], 0.0)
    return field, torch.tensor([width / size[1], height / size[0]]), corner.float()


def score_volume(
    features: Sequence[Any],
    size: int,
    spacing: int,
    stride: int,
    radius: int,
    step: int,
    exponents: tuple[float, ...],
    half: bool,
) -> MatchVolume:
    """The volume of a pair of fields (C, H, W), with as many levels as are worth building; see `MatchVolume`."""
    grid = [max(1, -(-(n - stride // 2) // stride)) for n in features[0].shape[1:]]
    levels = max(1, n_levels(grid[0], grid[1], radius, len(exponents)))
    return MatchVolume(
        *features,
        size=size,
        spacing=spacing,
        stride=stride,
        radius=radius,
        step=step,
        exponents=exponents[:levels],
        half=half,
    )


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
    exponents = tuple(float(x) for x in matcher.exponents.detach())
    volume = score_volume(
        features, matcher.size, matcher.spacing, matcher.stride, samples, matcher.step, exponents, half
    )
    found = volume.decode(CELL * matcher.stride)
    place, _ = volume.polish(found.target, _POLISH)
    keep = torch.from_numpy(found.reciprocal)
    points0 = torch.from_numpy(volume.centres()).float()[keep] + 0.5
    points1 = torch.from_numpy(place[..., ::-1].copy()).float()[keep] + 0.5
    scale = [
        torch.tensor([a / b for a, b in zip(big.shape[:0:-1], x.shape[:0:-1], strict=True)])
        for big, x in zip((first, second), small, strict=True)
    ]
    score = torch.from_numpy(found.score)[keep] / (len(volume.exponents) + 1)
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


@dataclass(frozen=True, eq=False)
class Predictor:
    """A matcher with what belongs to it.

    Attributes:
        model: in evaluation mode.
        about: how it was trained.
    """

    model: DeepMatcher
    about: dict[str, Any] = field(default_factory=dict)

    def predict(self, image0: Any, image1: Any, **options: Any) -> ImageMatches:
        """Matches and flow, see `match_images`."""
        return match_images(image0, image1, matcher=self.model, **options)

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and model.json into a folder, which is made if need be."""
        save_model(folder, self.model, {"settings": self.model.settings, "about": self.about}, kind=KIND)


def load(folder: str | Path) -> Predictor:
    """Read what `Predictor.save` or `train` wrote.

    Raises:
        ValueError: nothing there, files of something else, weights that do not fit.
    """
    model, about = load_model(folder, lambda about: build(about["settings"]), kind=KIND)
    return Predictor(model.eval(), about["about"])


def train(
    pairs: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Predictor:
    """Learn exponents and descriptors from pairs of images with a true flow; a run that was killed goes on.

    Args:
        pairs: gives the pair of a number: image0, image1 (3, H, W) in [0, 1] and flow (2, H, W), NaN where it is
            unknown; all of one size, the same each time it is asked for a number.
        out: folder for model, state and logs.
        recipe: what is learned and how.
        seed: of weights and of the numbers of the pairs.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done) after every step.

    Returns:
        The predictor, which is also in `out`.

    Raises:
        ValueError: see `geoframe.training.fit`.
    """
    with seeded(seed):
        model = build(recipe.settings)
    model.exponents.requires_grad_("exponents" in recipe.learned)
    if model.descriptor is not None:
        model.descriptor.requires_grad_("features" in recipe.learned)

    def batches(epoch: int, rank: int, world: int) -> Iterator[dict[str, Tensor]]:
        for step in range(_STEPS_AN_EPOCH):
            first = (epoch * _STEPS_AN_EPOCH + step) * recipe.batch_size * world + rank * recipe.batch_size
            drawn = [pairs(seed * 1_000_003 + first + i) for i in range(recipe.batch_size)]
            columns = (torch.stack(x) for x in zip(*drawn, strict=True))
            yield dict(zip(("image0", "image1", "flow"), columns, strict=True))

    about = {"recipe": recipe.name, "learned": list(recipe.learned), "seed": seed}
    run = {**about, "settings": model.settings, "losses": _plain(asdict(recipe.losses))}
    fit(
        model,
        batches,
        recipe.losses,
        out=out,
        schedule=recipe.schedule,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        bad_steps="skip",
        run=run,
        progress=progress,
    )
    predictor = Predictor(model.eval(), about)
    predictor.save(out)
    return predictor


def _plain(losses: dict[str, Any]) -> dict[str, Any]:
    """Levels as words, as JSON has them."""
    return {k: {str(i): w for i, w in v.items()} if isinstance(v, dict) else v for k, v in losses.items()}
