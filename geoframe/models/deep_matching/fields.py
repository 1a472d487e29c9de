"""Deep matching of embeddings of pixels instead of patches: two photographs of one category.

maps = [embedding.predict(x)[0] for x in (image0, image1)]   # geoframe.models.surface_embedding
found = match_pixel_maps(image0, image1, *maps)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_finite, check_int, check_shape
from geoframe.flow import edge_strength, interpolate_matches, sample_at
from geoframe.models.deep_matching.predictor import CELL, ImageMatches, as_image, score_volume
from geoframe.pixels import PixelMap

_PLACES = 64  # along the longer side of an object
_LEAST_COVER = 0.25  # of a place that has to be foreground


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
    inside = _looked_up(map0.mask.float(), points0) * _looked_up(map1.mask.float(), points1) > 0.25
    points0, points1, score = points0[inside], points1[inside], score[inside]
    sure = _looked_up(map0.confidence, points0) * _looked_up(map1.confidence, points1)
    if not len(score):
        unknown = torch.full((2, *map0.size), torch.nan)
        return ImageMatches(points0, points1, score, sure, unknown, torch.zeros(map0.size))
    flow, _ = interpolate_matches(points0, points1, edge_strength(images[0]), weights=sure.clamp(min=1e-3))
    flow = torch.where(map0.mask, flow.float(), torch.nan)
    rows, columns = torch.nonzero(map0.mask, as_tuple=True)
    goal = torch.stack([columns, rows], dim=1) + 0.5 + flow[:, rows, columns].T
    flow_confidence = torch.zeros(map0.size)
    flow_confidence[rows, columns] = map0.confidence[rows, columns] * _looked_up(map1.confidence, goal)
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


def _looked_up(field: Tensor, points: Tensor) -> Tensor:
    """Values (N,) of a field (H, W) at points (N, 2)."""
    return sample_at(field[None, None].float(), points.T[None, :, None].float())[0, 0, 0]
