"""Where outlines pass between neighbouring pixels, compiled for the CPU: see `geoframe.render.outline`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled, share
from geoframe._types import Array
from geoframe.render._scene import Scene

MOST_STEPS = 4096  # faces between two pixels; a surface so fine within a pixel is noise
FINE = 2  # pixels of a picture for each face
CLOSE = 1e-6  # pixels by which rounding may move an outline


def crossings(scene: Scene, owner: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `geoframe.render._outline_torch.crossings`."""
    B, H, W = owner.shape
    screen = np.ascontiguousarray(scene.screen.detach().numpy(), np.float64)
    faces, seen, z = scene.faces.numpy(), owner.numpy(), depth.detach().numpy()
    found: list[Array] = [np.empty((0, 3), np.int64)] * B
    shared = _across(faces[: scene.n_faces]) if scene.n_faces is not None and B else None

    def run(b: int) -> None:
        first, last = scene.starts[b], scene.starts[b + 1]
        across = _across(faces[first:last]) if shared is None else shared
        out = np.empty((2 * H * W, 3), np.int64)  # untouched pages cost nothing
        many = FINE * (last - first) > H * W  # walking is quicker than looking for folds
        near = np.full((H, W, 2), many)
        near[:, -1, 1] = near[-1, :, 0] = False
        if not many:
            _mark(screen, faces[first:last], across, near)
        n = _crossings(screen, faces[first:last], across, near, seen[b], z[b], first, b * H * W, out)
        found[b] = out[:n]

    share(run, [(b,) for b in range(B)])
    table = torch.from_numpy(np.concatenate(found) if B else np.empty((0, 3), np.int64))
    return table[:, 0], table[:, 1], table[:, 2]


def _across(faces: Array) -> Array:
    """(F, 3) the half-edge 4 g + j on the other side of edge i of face f; negative at borders and where three faces
    meet. (Shifts are quicker than divisions by 3.)"""
    if not len(faces):
        return np.empty((0, 3), np.int64)
    low = int(faces.min())
    return _matched(faces, low, int(faces.max()) - low + 1)


@compiled
def _matched(faces, low, n_verts):
    F = faces.shape[0]
    first, after = np.full(n_verts, -1), np.empty(4 * F, np.int64)
    across = np.full((F, 3), -1)
    for f in range(F):
        for i in range(3):
            p, q = faces[f, i], faces[f, (i + 1) % 3]
            if p == q:
                continue
            start = min(p, q) - low
            h = first[start]
            while h >= 0:
                g, j = h >> 2, h & 3
                a, b = faces[g, j], faces[g, (j + 1) % 3]
                if (a == p and b == q) or (a == q and b == p):
                    break
                h = after[h]
            if h < 0:
                after[4 * f + i] = first[start]
                first[start] = 4 * f + i
            elif across[h >> 2, h & 3] == -1:
                across[h >> 2, h & 3], across[f, i] = 4 * f + i, h
            elif across[h >> 2, h & 3] >= 0:  # a third face: all of them end here
                other = across[h >> 2, h & 3]
                across[h >> 2, h & 3] = across[other >> 2, other & 3] = -2
    return across


@compiled
def _mark(screen, faces, across, near):
    """Mark the pairs of pixels, right and down of each, that a border or a fold of any layer passes: no other
    pair can have an outline, and on most pictures these are few."""
    F = len(faces)
    turn = np.empty(F, np.int8)
    for f in range(F):
        turn[f] = _turn(screen, faces, f)
    for f in range(F):
        for i in range(3):
            p, q = faces[f, i], faces[f, i + 1 if i < 2 else 0]
            h = across[f, i]
            if h >= 0:
                g = h >> 2
                if g < f:
                    continue
                both = turn[f] * turn[g] if faces[g, h & 3] != p else -turn[f] * turn[g]  # wound alike or not
                if both > 0:
                    continue
            _mark_edge(screen, p, q, near)


@compiled
def _mark_edge(screen, p, q, near):
    H, W = near.shape[:2]
    for sideways in range(2):
        lines, cells = (H, W) if sideways else (W, H)
        up, vp, uq, vq = (
            screen[p, 1 - sideways] - 0.5,
            screen[p, sideways] - 0.5,
            screen[q, 1 - sideways] - 0.5,
            screen[q, sideways] - 0.5,
        )
        low, high = min(vp, vq), max(vp, vq)
        if high < 0 or low > lines - 1:
            continue
        for line in range(math.ceil(max(low, 0.0)), math.floor(min(high, lines - 1.0)) + 1):
            if (vp - line >= 0) == (vq - line >= 0):
                continue
            u = up + (uq - up) * ((line - vp) / (vq - vp))
            if not -1 < u < cells:
                continue
            for cell in range(math.floor(u - CLOSE), math.floor(u + CLOSE) + 1):
                if 0 <= cell < cells - 1:
                    row, col = (line, cell) if sideways else (cell, line)
                    near[row, col, sideways] = True


@compiled
def _crossings(screen, faces, across, near, owner, depth, first, pixel, out):
    H, W = owner.shape
    n = 0
    for row in range(H):
        for col in range(W):
            here = owner[row, col] - first
            for sideways in range(2):
                if not near[row, col, sideways]:
                    continue
                r, c = row + 1 - sideways, col + sideways
                there = owner[r, c] - first
                if here == there or (owner[row, col] < 0 and owner[r, c] < 0):
                    continue
                forward = owner[r, c] < 0 or (owner[row, col] >= 0 and depth[row, col] <= depth[r, c])
                for turn in range(2):  # from the nearer pixel first
                    if forward == (turn == 0):
                        if owner[row, col] < 0:
                            continue
                        edge = _walk(screen, faces, across, here, there, col + 0.5, row + 0.5, sideways, 1.0)
                        one, two = row * W + col, r * W + c
                    else:
                        if owner[r, c] < 0:
                            continue
                        edge = _walk(screen, faces, across, there, here, c + 0.5, r + 0.5, sideways, -1.0)
                        one, two = r * W + c, row * W + col
                    if edge >= 0:
                        out[n, 0], out[n, 1], out[n, 2] = pixel + one, pixel + two, 3 * first + edge
                        n += 1
                        break
    return n


@compiled
def _walk(screen, faces, across, f, goal, x, y, sideways, step):
    """From a pixel centre over the faces to the next one: the half-edge where the surface ends in between, or -1.

    v is across the way, u along it: the way is v = 0 from u = 0 to u = 1.
    """
    along, beside = 1 - sideways, sideways
    u0, v0 = (x, y) if sideways else (y, x)
    edge, most = -1, -np.inf
    for i in range(3):
        p, q = faces[f, i], faces[f, (i + 1) % 3]
        vp, vq = screen[p, beside] - v0, screen[q, beside] - v0
        if (vp >= 0) != (vq >= 0):
            up, uq = step * (screen[p, along] - u0), step * (screen[q, along] - u0)
            u = up + (uq - up) * (vp / (vp - vq))
            if u > most:
                edge, most = i, u
    if edge < 0:
        return -1
    side = _turn(screen, faces, f)
    for _ in range(MOST_STEPS):
        if most >= 1:
            return -1
        h = across[f, edge]
        if h < 0:
            return 3 * f + edge
        g, j = h >> 2, h & 3
        if faces[g, j] == faces[f, edge]:  # the neighbour is wound the other way
            side = -side
        if _turn(screen, faces, g) * side < 0:
            return 3 * f + edge
        f = g
        if f == goal:
            return -1
        following = j + 1 if j < 2 else 0
        opposite = following + 1 if following < 2 else 0
        third, p = faces[f, opposite], faces[f, following]
        vp = screen[third, beside] - v0
        if (vp >= 0) != (screen[p, beside] - v0 >= 0):
            edge = following
        else:
            edge, p = opposite, faces[f, j]
        vq = screen[p, beside] - v0
        if vp == vq:
            return -1
        up, uq = step * (screen[third, along] - u0), step * (screen[p, along] - u0)
        most = up + (uq - up) * (vp / (vp - vq))
    return -1


@compiled
def _turn(screen, faces, f):
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = screen[a, 0], screen[a, 1]
    twice = (screen[b, 0] - ax) * (screen[c, 1] - ay) - (screen[b, 1] - ay) * (screen[c, 0] - ax)
    return 1 if twice > 0 else (-1 if twice < 0 else 0)
