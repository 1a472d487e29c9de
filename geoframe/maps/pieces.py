"""Components that were cut off a surface, laid rigidly on what its largest component leaves free of the other one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from geoframe._types import Floats, Ints
from geoframe.surface.mesh import Mesh
from geoframe.surface.topology import vertex_components
from geoframe.transforms import nearest_rotation

# Lengths are over sqrt(area). Chosen on three surfaces of the choosing half of `experiments/near_isometric` cut in two,
# but `LARGE`, from what it is for.
PIECE = 12  # vertices that a piece has at least
LARGE = 0.09  # standard deviation of its vertices, at least, without a landmark: as small as `FITS` it fits anywhere
AROUND = 150  # vertices of the largest component nearest to a piece, which tell where it goes
FREE = 0.02  # distance from what the largest component covers, from which a vertex is free
RESTS = 15  # steps of nearest places and motion
HELD = 5  # landmarks on a piece that count together as much as all its vertices
PRIOR = 1.3  # factor of the distance from other starts than the one from what is around, and of what is inside out
FITS = 0.03  # mean distance below which a piece fits
NORMALS = 0.1  # weight of unit normals beside positions: without them an arm lies on a thigh, or end to end

Held = list[tuple[int, Floats]]


@dataclass(frozen=True, eq=False)
class _Free:
    """What is free of the surface that a map goes to: points (n, 3), a tree of these, and one of these with normals."""

    points: Floats
    positions: Any
    tree: Any
    weight: float

    @classmethod
    def of(cls, points: Floats, normals: Floats, unit: float) -> _Free:
        weight = NORMALS * unit
        return cls(points, cKDTree(points), cKDTree(np.concatenate([points, weight * normals], 1)), weight)

    def nearest(self, points: Floats, normals: Floats) -> tuple[Floats, Ints]:
        """Distances (n,) in positions and normals, and which (n,)."""
        found: tuple[Floats, Ints] = self.tree.query(np.concatenate([points, self.weight * normals], 1))
        return found


def lay_pieces(
    out: Tensor, onto: Mesh, of: Mesh, largest: Mesh, there: Tensor, which: Tensor, landmarks: Tensor | None
) -> None:
    """Change a map where a component of a surface in pieces fits what the largest one leaves free.

    A piece is moved rigidly, at the size at which the largest component went over, to the nearest free places that
    face the same way until it rests: from where the vertices of that one around it went, and from where the map has
    it, turned in any way. The best fit is taken. Small components without a landmark, such as eyes, lie on the surface
    and stay where the map has them.

    Args:
        out: (V,) the map, changed in place.
        onto: the surface that the map goes to, in one piece.
        of: the surface in pieces, V vertices.
        largest: its largest component.
        there: for each vertex of `largest` one of `onto`.
        which: vertices of the other components.
        landmarks: (L, 2) rows (vertex of `onto`, vertex of `of`), or None.
    """
    verts, x, goal = (m.verts.detach().double().cpu().numpy() for m in (of, largest, onto))
    y = goal[there.cpu().numpy()]
    size, unit = float(largest.area) ** 0.5, float(onto.area) ** 0.5
    free = np.flatnonzero(cKDTree(y).query(goal)[0] > FREE * unit)
    several = [(rows, _held(rows, goal, landmarks)) for rows in _components(of, which)]
    pieces = [(rows, held) for rows, held in several if held or verts[rows].std(0).max() > LARGE * size]
    if len(free) < PIECE or not pieces:
        return
    normals, outward = (m.vertex_normals.detach().double().cpu().numpy() for m in (of, onto))
    normals = _turned_over(largest, y, outward[there.cpu().numpy()]) * normals
    places = _Free.of(goal[free], outward[free], unit)
    near, scale = cKDTree(x), _stretch(x, y)
    for rows, held in pieces:
        z, now = scale * verts[rows], goal[out[torch.as_tensor(rows)].cpu().numpy()]
        around = near.query(verts[rows].mean(0), min(AROUND, len(x)))[1]
        starts = [_moved(scale * x[around], y[around], z), *_turned(z, now, held)]
        best, least = None, np.inf
        for side in (1.0, -1.0):  # a piece may be wound otherwise than the largest component
            for i, start in enumerate(starts):
                fit = _rest(z, side * normals[rows], start, places, held)
                cost = fit.cost * (PRIOR if i else 1.0) * (PRIOR if side < 0 else 1.0)
                if cost < least:
                    best, least = fit, cost
        if best is not None and best.away < FITS * size * scale:
            out[torch.as_tensor(rows, device=out.device)] = torch.as_tensor(free[best.to], device=out.device)


def _turned_over(largest: Mesh, y: Floats, outward: Floats) -> float:
    """1, or -1 where the map of the largest component to y (n, 3) with normals (n, 3) turns most of it inside out."""
    faces = largest.faces.cpu().numpy()
    a, b, c = (y[faces[:, i]] for i in range(3))
    return -1.0 if (np.cross(b - a, c - a) * outward[faces].sum(1)).sum() < 0 else 1.0


def _components(of: Mesh, which: Tensor) -> list[Ints]:
    """Of some vertices those of each component, where these are not too few."""
    label = vertex_components(of.faces.cpu().numpy(), of.n_verts)[1]
    rows = which.cpu().numpy()
    several = [rows[label[rows] == c] for c in np.unique(label[rows])]
    return [mine for mine in several if len(mine) >= PIECE]


def _held(rows: Ints, goal: Floats, landmarks: Tensor | None) -> Held:
    """The landmarks on a piece: which of its vertices, and where each goes."""
    number = {int(v): i for i, v in enumerate(rows)}
    pairs = [] if landmarks is None else landmarks.tolist()
    return [(number[v], goal[u]) for u, v in pairs if v in number]


def _turned(z: Floats, now: Floats, held: Held) -> list[Floats]:
    """A piece z (n, 3) in 24 rotations about where it is now (n, 3) or a landmark goes; and by its landmarks."""
    pivot, place = (z[held[0][0]], held[0][1]) if held else (z.mean(0), now.mean(0))
    starts = [(z - pivot) @ turn.T + place for turn in Rotation.create_group("O").as_matrix()]
    if len(held) >= 3:
        starts.append(_moved(z[[i for i, _ in held]], np.array([p for _, p in held]), z))
    return starts


class _Fit(NamedTuple):
    """Where a piece rests: which free place each of its points goes to (n,), and the mean distance from these in
    positions and normals and from any free place, landmarks counting as `HELD` says."""

    to: Ints
    cost: float
    away: float


def _rest(z: Floats, normals: Floats, start: Floats, places: _Free, held: Held) -> _Fit:
    """Points z (n, 3) with normals (n, 3) moved rigidly from a start (n, 3) until they rest on free places."""
    often = len(z) // HELD if held else 0
    at = [i for i, _ in held] * often
    to = np.array([p for _, p in held] * often).reshape(-1, 3)
    here = np.concatenate([z, z[at]])
    moved, R = start, _rotation(z, start)
    for _ in range(RESTS):
        target = np.concatenate([places.points[places.nearest(moved, normals @ R.T)[1]], to])
        R = _rotation(here, target)
        moved = (z - here.mean(0)) @ R.T + target.mean(0)
    gap, found = places.nearest(moved, normals @ R.T)
    held_gap = np.linalg.norm(moved[at] - to, axis=1)
    cost, away = (
        float(np.concatenate([g, held_gap]).mean()) for g in (gap, places.positions.query(moved)[0])
    )
    return _Fit(found, cost, away)


def _moved(x: Floats, y: Floats, z: Floats) -> Floats:
    """Points z (n, 3) moved as x (m, 3) to y (m, 3) by the nearest motion."""
    return (z - x.mean(0)) @ _rotation(x, y).T + y.mean(0)


def _rotation(x: Floats, y: Floats) -> Floats:
    """(3, 3) the rotation that takes x (m, 3) nearest to y (m, 3), about their means."""
    turned: Floats = nearest_rotation(torch.as_tensor((y - y.mean(0)).T @ (x - x.mean(0)))).numpy()
    return turned


def _stretch(x: Floats, y: Floats) -> float:
    """How much longer short distances are between y (n, 3) than between x (n, 3): the middle of random ones."""
    rng = np.random.default_rng(0)
    i, j = rng.integers(len(x), size=(2, 20_000))
    long = np.linalg.norm(x[i] - x[j], axis=1)
    some = (long > 0) & (long <= np.quantile(long, 0.1))
    return float(np.median(np.linalg.norm(y[i] - y[j], axis=1)[some] / long[some]))
