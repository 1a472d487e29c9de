"""Symmetric meshes of any size on a member's surface, every vertex a known canonical point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from geoframe._types import Bools, Floats, Ints
from geoframe.surface.implicit import Field, march, project
from geoframe.surface.remesh import coarsen, flip_edges
from geoframe.zoo.deform import Warp


@dataclass(frozen=True, eq=False)
class Skin:
    """Vertices as canonical points (V, 3), faces (F, 3), the mirror map (V,), and the vertices of the pins."""

    canonical: Tensor
    faces: Tensor
    mirror: Tensor
    pins: list[int]


@dataclass(frozen=True, eq=False)
class Half:
    """The right half (z >= 0) of a canonical surface as a fine mesh, with slivers.

    Attributes:
        verts: (V, 3).
        faces: (F, 3).
        field: what is 0 on it.
        size: canonical points to relative edge lengths.
    """

    verts: Floats
    faces: Ints
    field: Field
    size: Field


def skin(fine: Half, warp: Warp, n_verts: int, pins: Tensor, seed: int) -> Skin:
    """Well-shaped triangles on the image of a canonical surface, exactly symmetric.

    Args:
        fine: the right half of the canonical surface.
        warp: keeps z = 0 where it is.
        n_verts: about how many.
        pins: (n, 3) canonical surface points, z >= 0, that become vertices.
        seed: of the triangulation.
    """
    goal = n_verts // 2 + int(0.4 * np.sqrt(n_verts))  # the rim counts for both halves
    canonical, faces, rim = _finer(fine, 3 * goal)
    hold = np.zeros(len(canonical), np.int64)
    hold[rim] = 1
    pinned = _pin(canonical, hold, pins)

    def on_surface(points: Floats) -> Floats:
        out, finite = points.copy(), np.isfinite(points).all(1)
        x = torch.as_tensor(points[finite])
        y = warp.forward(_settle(fine.field, warp.inverse(x), steps=1)).numpy()
        y[points[finite, 2] == 0, 2] = 0
        out[finite] = y
        return out

    x = warp.forward(torch.as_tensor(canonical)).numpy()
    x[hold % 2 == 1, 2] = 0
    apex = len(x)  # closes the half
    faces = np.concatenate([faces, np.insert(_rim(faces)[:, ::-1], 2, apex, axis=1)])
    size = np.append(fine.size(torch.as_tensor(canonical)).numpy(), 1.0)
    x, hold = np.append(x, [[np.nan] * 3], 0), np.append(hold, 0)
    kept = np.arange(len(x))
    for n, settled in ((3 * goal, _stay), (goal + 1, on_surface)):  # few points need settling
        x, faces, own = coarsen(x, faces, n, on_surface=settled, size=size, hold=hold, seed=seed)
        x, kept, hold, size = on_surface(x), kept[own], hold[own], size[own]
    for _ in range(12):
        faces = flip_edges(x, faces, hold)
        x = on_surface(_relax(x, faces, size, hold))
    for _ in range(3):
        faces = flip_edges(x, faces, hold)
    vertex = np.full(apex + 1, -1)
    vertex[kept] = np.arange(len(kept))
    faces = faces[(faces < len(x) - 1).all(1)]
    half = _settle(fine.field, warp.inverse(torch.as_tensor(x[:-1])), steps=40)
    on_rim = hold[:-1] % 2 == 1
    half[torch.as_tensor(on_rim), 2] = 0.0
    half[torch.as_tensor(vertex[pinned])] = pins
    return Skin(*_both_halves(half, faces, on_rim), [int(v) for v in vertex[pinned]])


def right_half(field: Field, size: Field, low: Tensor, high: Tensor, spacing: float) -> Half:
    """March over a grid that has z = 0 as one of its planes, and keep what lies to the right of it."""
    half = float(torch.ceil(high[2] / spacing)) * spacing
    low, high = low.clone(), high.clone()
    low[2], high[2] = -half, half
    nearby = _skip_far(field, low, high, 3 * spacing)
    verts, faces = march(nearby, low, high, spacing, torch.eye(3, dtype=torch.float64))
    middle = np.abs(verts[:, 2]) < 1e-6 * spacing
    verts[middle, 2] = 0
    faces = faces[(verts[faces, 2] >= 0).all(1) & (verts[faces, 2] > 0).any(1)]
    used, faces = np.unique(_largest_piece(faces), return_inverse=True)
    verts = _settle(field, torch.as_tensor(verts[used]), steps=3).numpy()
    return Half(verts, faces.reshape(-1, 3), field, size)


def _largest_piece(faces: Ints) -> Ints:
    """Without the surfaces of hollows that the parts enclose."""
    n = faces.max() + 1
    links = sp.coo_matrix(
        (np.ones(2 * len(faces)), (faces[:, :2].T.ravel(), faces[:, 1:].T.ravel())), shape=(n, n)
    )
    piece = connected_components(links, directed=False)[1][faces[:, 0]]
    return faces[piece == np.bincount(piece).argmax()]


def _skip_far(field: Field, low: Tensor, high: Tensor, step: float) -> Field:
    """`field`, but far from its surface the value at the nearest point of a coarse grid, which has the same sign
    where values change by less than twice the distance."""
    axes = [
        torch.arange(float(a), float(b) + step, step, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        coarse = torch.cat([field(g) for g in grid.split(2**14)]).reshape([len(a) for a in axes])

    def near(points: Tensor) -> Tensor:
        i, j, k = ((points - low) / step).round().long().unbind(1)
        i, j, k = (x.clamp(0, n - 1) for x, n in zip((i, j, k), coarse.shape, strict=True))
        out = coarse[i, j, k]
        close = out.abs() < 2 * step
        out[close] = field(points[close])
        return out

    return near


def _stay(points: Floats) -> Floats:
    """The points as they are."""
    return points


def _settle(field: Field, points: Tensor, steps: int) -> Tensor:
    """Newton steps to the surface, for points that are not there yet; z = 0 is kept."""
    points, middle = points.clone(), points[:, 2] == 0
    off = torch.arange(len(points))
    for _ in range(steps):
        points[off] = torch.cat([project(field, p) for p in points[off].split(2**14)])
        points[middle, 2] = 0.0
        if steps > 5:
            with torch.no_grad():
                off = off[field(points[off]).abs() > 1e-13]
    return points


def _finer(fine: Half, n_verts: int) -> tuple[Floats, Ints, Ints]:
    """The half with at least `n_verts` vertices, by splitting every triangle into four; and the vertices of its rim."""
    verts, faces = fine.verts, fine.faces
    while len(verts) < n_verts:
        ends = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        edges, which = np.unique(ends, axis=0, return_inverse=True)
        a, b, c = len(verts) + which.reshape(3, -1)
        middle = _settle(fine.field, torch.as_tensor(verts[edges].mean(1)), steps=2).numpy()
        verts = np.concatenate([verts, middle])
        x, y, z = faces.T
        faces = np.concatenate([np.stack(f, 1) for f in ((x, a, c), (y, b, a), (z, c, b), (a, b, c))])
    return verts.copy(), faces, np.unique(_rim(faces))


def _pin(canonical: Floats, hold: Ints, pins: Tensor) -> Ints:
    """Move the vertex nearest to each pin there, and hold it; the vertices (n,)."""
    chosen = []
    for pin in pins.numpy():
        among = np.flatnonzero(hold == (1 if pin[2] == 0 else 0))
        vertex = among[((canonical[among] - pin) ** 2).sum(1).argmin()]
        canonical[vertex] = pin
        hold[vertex] += 2
        chosen.append(vertex)
    return np.array(chosen, dtype=np.int64)


def _rim(faces: Ints) -> Ints:
    """(n, 2) directed edges that have a face on their left only."""
    there = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = [faces.max() + 1, 1]
    return there[~np.isin(there @ key, there[:, ::-1] @ key)]


def _relax(x: Floats, faces: Ints, size: Floats, hold: Ints) -> Floats:
    """Free vertices go half way to the mean of their neighbours along the surface; those of the rim along it."""
    i, j = faces.ravel(), np.roll(faces, -1, 1).ravel()  # every edge of a closed mesh, both ways
    rim = hold % 2 == 1
    a, b, c = x[faces].transpose(1, 0, 2)
    normal = np.zeros_like(x)
    for k in range(3):
        np.add.at(normal, faces[:, k], np.nan_to_num(np.cross(b - a, c - a)))
    normal[rim, 2] = 0
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-300)
    good = np.isfinite(x[i]).all(1) & np.isfinite(x[j]).all(1) & (rim[j] | ~rim[i])
    i, j = i[good], j[good]
    weight = 1 / size[j]
    total = np.bincount(i, weight, len(x))
    mean = np.stack([np.bincount(i, weight * x[j, k], len(x)) for k in range(3)], 1)
    free = (hold < 2) & (total > 0)
    step = mean[free] / total[free, None] - x[free]
    step -= (step * normal[free]).sum(1, keepdims=True) * normal[free]
    moved = x.copy()
    moved[free] += 0.5 * step
    return moved


def _both_halves(half: Tensor, faces: Ints, rim: Bools) -> tuple[Tensor, Tensor, Tensor]:
    """The half and its mirror image, joined along the rim: canonical points, faces and the mirror map."""
    inner = np.flatnonzero(~rim)
    other = np.arange(len(rim))
    other[inner] = len(rim) + np.arange(len(inner))
    image = half[torch.as_tensor(inner)] * half.new_tensor([1, 1, -1])
    both = np.concatenate([faces, other[faces][:, ::-1]])
    return (
        torch.cat([half, image]),
        torch.as_tensor(both),
        torch.as_tensor(np.concatenate([other, inner])),
    )
