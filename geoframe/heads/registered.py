"""A frame on top of frozen features: two pictures are laid onto each other first, and matched within reach of that.

Features of a network that was pretrained for something else tell a wheel from a door but not the front wheel from the
rear one. Where two pictures of a category lie to each other, by an affine map, does: it is fitted to the matches that
both pictures agree on, by a robust regression that forgets outliers step by step, and then holds a match back that
would lie far from it. Nothing is trained.

Source: ours; the annealed robust fit follows the usual practice of graduated non-convexity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_shape
from geoframe.layers.correspondence import rows
from geoframe.warps import pixel_grid

_COARSE = 16  # side of the fields that are registered
_LEAST = 0.3  # cosine below which a mutual match counts nothing
_SCALES = (0.5, 0.15)  # of the robust fit's residuals, first and last, in half a picture's side
_STEPS = 8
_PRIOR = 1e-3  # weight of the identity, which holds a fit without matches
_FARTHEST = 4.0  # the penalty of a place saturates here
_TEMPERATURE = 0.02  # of cosines
_WINDOW = 5  # pixels of the field around the best match that the mean is taken over


def joined_features(
    maps: list[Tensor], weights: Sequence[float], size: int, *, centred: bool = False
) -> Tensor:
    """Feature maps of several strides, or of several sizes of a picture, as one field of unit vectors.

    Args:
        maps: (B, C_i, h_i, w_i) each.
        weights: of each map, whose vectors are normalised first; 0 leaves a map out.
        size: side of the field.
        centred: subtract each picture's mean vector: what all its places have in common tells none from another.

    Returns:
        (B, D, size, size).
    """
    if len(weights) != len(maps):
        raise ValueError(f"weights: expected {len(maps)}, one a map, found {len(weights)}")
    parts = [
        w * F.interpolate(F.normalize(x, dim=1), size=(size, size), mode="bilinear", align_corners=False)
        for x, w in zip(maps, weights, strict=True)
        if w
    ]
    field = F.normalize(torch.cat(parts, 1), dim=1)
    return F.normalize(field - field.mean((2, 3), keepdim=True), dim=1) if centred else field


def register(
    source: Tensor, target: Tensor, *, strength: float = 0.1, reach: float = 0.2, rounds: int = 2
) -> Tensor:
    """The affine maps that lay pictures onto others of their category.

    Args:
        source: (B, D, h, w) fields.
        target: (B, D, h, w) fields.
        strength: by how much a cosine is lowered at `reach` from the map, in a second round; twice that at most.
        reach: in half a picture's side.
        rounds: of matching and fitting.

    Returns:
        (B, 2, 3): points of the source, in normalised coordinates, go to A x + t in the target.
    """
    check_shape(source, "B D H W", "source")
    small = [rows(F.adaptive_avg_pool2d(x, _COARSE), length=1.0) for x in (source, target)]
    places = pixel_grid(_COARSE, _COARSE, like=source).reshape(-1, 2)
    score = small[0] @ small[1].mT
    held, fit = score, torch.eye(2, 3).to(source).expand(len(source), -1, -1)
    for _ in range(rounds):
        there, back = held.argmax(2), held.argmax(1)
        mutual = back.gather(1, there) == torch.arange(held.shape[1], device=held.device)
        sure = score.gather(2, there[..., None])[..., 0]
        fit = _robust_affine(places, places[there], mutual * (sure - _LEAST).clamp_min(0) + 1e-6)
        held = score - held_back(fit, places, places, strength=strength, reach=reach)
    return fit


def held_back(fit: Tensor, points: Tensor, places: Tensor, *, strength: float, reach: float) -> Tensor:
    """How much the scores of places in the target are lowered, for points of the source.

    Args:
        fit: (B, 2, 3), see `register`.
        points: (N, 2) or (B, N, 2) in the source.
        places: (M, 2) in the target.
        strength: see `register`.
        reach: see `register`.

    Returns:
        (B, N, M), from 0 to 4 `strength`.
    """
    points = points if points.ndim == 3 else points[None]
    goal = points @ fit[:, :, :2].mT + fit[:, None, :, 2]
    far = torch.cdist(goal, places.expand(len(goal), -1, -1)).square() / (2 * reach**2)
    return strength * far.clamp_max(_FARTHEST)


def match_registered(
    source: Tensor, target: Tensor, points: Tensor, *, strength: float = 0.1, reach: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Where points of pictures lie in other pictures of the category.

    Args:
        source: (B, D, h, w) fields, such as `joined_features`.
        target: (B, D, h, w).
        points: (B, P, 2) in the source, normalised.
        strength: see `register`; 0 matches by the features alone.
        reach: see `register`.

    Returns:
        points: (B, P, 2) in the target, with the precision of a part of a field's pixel.
        score: (B, P) cosine of the match; not calibrated.
    """
    unit = F.normalize(source, dim=1)
    own = F.grid_sample(unit, points[:, :, None].to(unit), padding_mode="border", align_corners=False)[
        ..., 0
    ].mT
    h, w = target.shape[2:]
    places = pixel_grid(h, w, like=target).reshape(-1, 2)
    score = F.normalize(own, dim=-1) @ rows(target, length=1.0).mT
    held = score
    if strength:
        fit = register(source, target, strength=strength, reach=reach)
        held = score - held_back(fit, points.to(score), places, strength=strength, reach=reach)
    best = held.argmax(-1)
    near = (places - places[best][:, :, None]).abs() <= _WINDOW * places.new_tensor([1 / w, 1 / h])
    p = torch.softmax((held / _TEMPERATURE).masked_fill(~near.all(-1), -torch.inf), -1)
    return p @ places, score.gather(2, best[..., None])[..., 0]


def _robust_affine(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """A, t (B, 2, 3) so that A a + t is near b (B, N, 2) for most of the weight (B, N); a is (N, 2)."""
    x = torch.cat([a, torch.ones_like(a[:, :1])], 1).expand(len(b), -1, -1)
    hold = _PRIOR * torch.eye(3).to(a)
    start = hold @ torch.eye(3, 2).to(a)
    w = weight
    fit = torch.eye(3, 2).to(a).expand(len(b), -1, -1)
    first, last = _SCALES
    for k in range(_STEPS):
        scale = first * (last / first) ** (k / (_STEPS - 1))
        xw = x.mT * w[:, None]
        fit = torch.linalg.solve(xw @ x + hold, xw @ b + start)
        off = (x @ fit - b).norm(dim=-1)
        w = weight * torch.exp(-off.square() / (2 * scale**2))
    return fit.mT
