"""Shapes that no collection at hand holds: odd ones of a category, and objects of none.

A score that is calibrated on the clouds of a collection takes whatever is odder for wrong. So it learns from odd shapes
that are made of the ones at hand, and from objects that are put together of boxes what is of another category.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe.placing.placement import varied
from geoframe.surface.clouds import box

_CROSSED = 0.5  # share of the odd shapes that are made of two
_ABOVE = 0.7  # of these, the share that are cut into an upper and a lower part; others into front and back
_FEWEST = 1 / 3  # of the points of a cloud that two parts have to have together
_PARTS = 4  # of an object, at most; each is a plate, a pair of legs, a wall, two sides, a block, a column
_THIN = (0.01, 0.06)  # half thickness of plates and walls, at scale 2
_THICK = (0.06, 0.25)


def unusual(points: Tensor, generator: torch.Generator) -> Tensor:
    """Odd shapes of a category: half are made of two shapes each, and all are varied.

    Args:
        points: (B, N, 3) whole and upright, in the frame of the plane of symmetry (across, along, up), at scale 2.
        generator: of all that is random.

    Returns:
        (B, N, 3), boxes at scale 2.
    """
    both = torch.rand(len(points), 1, 1, generator=generator).to(points) < _CROSSED
    return varied(torch.where(both, crossed(points, generator), points), generator)


def crossed(points: Tensor, generator: torch.Generator) -> Tensor:
    """Each shape with a part of another one: the upper or the lower one, the front or the back.

    Both are cut at the same share of their boxes, and the part is stretched to the box of the first.

    Args:
        points: (B, N, 3), see `unusual`.
        generator: of all that is random.

    Returns:
        (B, N, 3), boxes at scale 2; a shape stays as it is where both parts together have hardly any points.
    """
    B, N = points.shape[:2]
    low, high = box(points)
    half = ((high - low) / 2).clamp(min=1e-6)[:, None]
    own = (points - (low + high)[:, None] / 2) / half
    other = own[torch.randperm(B, generator=generator)]
    axes = torch.where(torch.rand(B, generator=generator) < _ABOVE, 2, 1).tolist()
    heights = (torch.rand(B, generator=generator) - 0.5).tolist()
    signs = torch.where(torch.rand(B, generator=generator) < 0.5, 1.0, -1.0).tolist()
    out = points.clone()
    for i, (axis, height, sign) in enumerate(zip(axes, heights, signs, strict=True)):
        whole = torch.cat(
            [own[i][sign * own[i][:, axis] < height], other[i][sign * other[i][:, axis] >= height]]
        )
        if len(whole) < _FEWEST * N:
            continue
        some = torch.randperm(len(whole), generator=generator)
        out[i] = _boxed(whole[some.repeat(-(-N // len(whole)))[:N]] * half[i])
    return out


def objects(n: int, n_points: int, generator: torch.Generator) -> Tensor:
    """Things of no category. Three in four are like furniture: one to four plates, legs, walls, blocks or columns; of
    every fourth the parts are anywhere.

    Args:
        n: how many.
        n_points: of each.
        generator: of all that is random.

    Returns:
        (n, n_points, 3) points on the parts in proportion to their areas, symmetric across, boxes at scale 2, in the
        frame (across, along, up).
    """
    check_int(n, "n", low=0)
    check_int(n_points, "n_points", low=2)
    makes = [_scattered if i % 4 == 3 else _parts for i in range(n)]
    clouds = [_on_boxes(make(generator), n_points, generator) for make in makes]
    return torch.stack(clouds) if clouds else torch.empty(0, n_points, 3)


def _parts(generator: torch.Generator) -> Tensor:
    """(k, 6) middles and half sizes of boxes; those that are not in the middle are mirrored later."""

    def draw(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    width, depth, height = draw(0.25), draw(0.25), draw(0.15)
    tops = (draw(-1), draw(-1), 1.0)
    made: list[tuple[float, ...]] = []
    for _ in range(1 + int(draw(0, _PARTS))):
        top = tops[int(draw(0, 3))]
        floor = -1.0 if draw() < 0.7 else min(top - 0.05, draw(-1, 1))
        middle, tall = (floor + top) / 2, max((top - floor) / 2, 0.02)
        thin = draw(*(_THIN if draw() < 0.7 else _THICK))
        w, d = (width, depth) if draw() < 0.6 else (width * draw(0.3), depth * draw(0.3))
        y = 0.0 if draw() < 0.6 else (depth - d) * (1 if draw() < 0.5 else -1)
        kind = draw()
        if kind < 0.3:
            made.append((0, y, top - thin, w, d, thin))
        elif kind < 0.55:
            r = draw(0.02, 0.1)
            made += [(max(w - r, 0), a, middle, r, r, tall) for a in (r - d, d - r)]
        elif kind < 0.7:
            made.append((0, (depth - thin) * (1 if draw() < 0.5 else -1), middle, w, thin, tall))
        elif kind < 0.8:
            made.append((max(w - thin, 0), y, middle, thin, d, tall))
        elif kind < 0.92:
            made.append((0, y, middle, w, d, tall))
        else:
            r = draw(0.03, 0.15)
            made.append((0, 0, middle, r, r, tall))
    return torch.tensor(made) * torch.tensor([1, 1, height]).repeat(2)


def _scattered(generator: torch.Generator) -> Tensor:
    """(k, 6) as of `_parts`, boxes anywhere, most of them thin."""
    k = int(torch.randint(1, 7, (1,), generator=generator))
    u = torch.rand(2, k + 1, 3, generator=generator)
    extent = 0.2 + 0.8 * u[:, -1:]  # a shape may be flat or narrow as a whole
    middle = (2 * u[0, :-1] - 1) * extent[0]
    middle[torch.rand(k, generator=generator) < 0.4, 0] = 0
    return torch.cat([middle, (0.03 + 0.97 * u[1, :-1].pow(2.5)) * extent[1]], 1)


def _on_boxes(boxes: Tensor, n_points: int, generator: torch.Generator) -> Tensor:
    """(n_points, 3) on the faces of boxes (k, 6) and of their mirror images, at scale 2."""
    middle, half = boxes[:, :3], boxes[:, 3:]
    areas = half.prod(1, keepdim=True) / half * torch.where(middle[:, :1] == 0, 1.0, 2.0)
    pick = torch.multinomial(areas.flatten(), n_points, replacement=True, generator=generator)
    which, axis = pick // 3, pick % 3
    sides = torch.where(torch.rand(n_points, 2, generator=generator) < 0.5, -1.0, 1.0)
    u = 2 * torch.rand(n_points, 3, generator=generator) - 1
    u[torch.arange(n_points), axis] = sides[:, 0]
    x = u * half[which] + middle[which]
    x[:, 0] = x[:, 0] * sides[:, 1]
    return _boxed(x)


def _boxed(x: Tensor) -> Tensor:
    """Points (n, 3) with their box at scale 2."""
    low, high = x.amin(0), x.amax(0)
    return (x - (low + high) / 2) / ((high - low).amax() / 2).clamp(min=1e-6)
