"""Where the pixels of a picture are in another one, and backgrounds that move."""

from __future__ import annotations

import numpy as np

from geoframe._types import Array, Bools, Ints
from geoframe.data._shots import Subject, View


def object_flow(
    face: Ints, bary: Array, subject: Subject, view: View, depth: Array, reach: float
) -> tuple[Array, Bools]:
    """How the points of an object's pixels move to another picture.

    Args:
        face: (S, S) of the first picture, -1 where the object is not seen.
        bary: (S, S, 3).
        subject: the object in the second picture.
        view: of the second picture.
        depth: (2 S + 1, 2 S + 1) of the second picture, as `nearest_faces` gives it.
        reach: how far behind the nearest surface a point still counts as seen.

    Returns:
        flow (S, S, 2), 0 outside; and where the point is in the second picture and not hidden there, (S, S).
    """
    size = len(face)
    mask = face >= 0
    corners = subject.verts[subject.faces[face[mask]]].astype(np.float64)
    there = view.project((bary[mask].astype(np.float64)[..., None] * corners).sum(1))
    flow, seen = np.zeros((size, size, 2), np.float32), np.zeros((size, size), bool)
    rows, cols = np.nonzero(mask)
    flow[mask] = there[:, :2] - np.stack([cols, rows], 1) - 0.5
    inside = ((there[:, :2] >= 0) & (there[:, :2] < size) & (there[:, 2:] > 0)).all(1)
    col, row = np.clip(np.round(2 * there[:, :2]), 0, 2 * size).astype(np.int64).T
    seen[mask] = inside & (there[:, 2] <= depth[row, col] + reach)
    return flow, seen


def drawn_shift(rng: np.random.Generator, size: int, motion: float) -> Array:
    """(2, 3) affine map of the pixels of a background to a second picture: turned, larger or smaller, moved."""
    turn, zoom = motion * rng.normal(0, 0.12), np.exp(motion * rng.normal(0, 0.1))
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    matrix = np.array([[c, -s], [s, c]])
    middle = np.full(2, size / 2)
    shift = middle - matrix @ middle + motion * rng.normal(0, 0.12, 2) * size
    return np.concatenate([matrix, shift[:, None]], 1)


def cut(canvas: Array, size: int, back: Array | None = None) -> Array:
    """The middle of a canvas (T, T, 3) as a picture (S, S, 3), or what is there after its pixels moved.

    Args:
        canvas: larger than the picture on all sides; beyond it, its border goes on.
        size: S.
        back: (2, 3) affine map from pixels of the picture to where they come from; None changes nothing.
    """
    margin = (len(canvas) - size) // 2
    if back is None:
        return np.ascontiguousarray(canvas[margin : margin + size, margin : margin + size])
    at = np.arange(size) + 0.5
    x = back[0, 0] * at + back[0, 1] * at[:, None] + back[0, 2] + margin - 0.5
    y = back[1, 0] * at + back[1, 1] * at[:, None] + back[1, 2] + margin - 0.5
    last = len(canvas) - 1.001
    x, y = np.clip(x, 0, last), np.clip(y, 0, last)
    c, r = x.astype(np.int64), y.astype(np.int64)
    u, v = (x - c).astype(np.float32)[..., None], (y - r).astype(np.float32)[..., None]
    upper = canvas[r, c] * (1 - u) + canvas[r, c + 1] * u
    lower = canvas[r + 1, c] * (1 - u) + canvas[r + 1, c + 1] * u
    out: Array = upper * (1 - v) + lower * v
    return out


def inverse(affine: Array) -> Array:
    """(2, 3) the map back."""
    matrix = np.linalg.inv(affine[:, :2])
    return np.concatenate([matrix, -matrix @ affine[:, 2:]], 1)


def background_flow(affine: Array, covered: Bools) -> tuple[Array, Bools]:
    """How the pixels of a background move by an affine map (2, 3), (S, S, 2), and where they are seen afterwards.

    Args:
        affine: from pixels of the first picture to the second one.
        covered: (S, S) pixels of the second picture that show something else.
    """
    size = len(covered)
    at = np.arange(size) + 0.5
    here = np.stack(np.broadcast_arrays(at, at[:, None]), -1)
    there = here @ affine[:, :2].T + affine[:, 2]
    return (there - here).astype(np.float32), ~hits(there, covered, beyond=True)


def hits(there: Array, where: Bools, *, beyond: bool) -> Bools:
    """Whether the pixels at places (..., 2) are among those `where` (S, S); `beyond` the border says the last word."""
    size = len(where)
    to = np.floor(np.nan_to_num(there, nan=-1)).astype(np.int64)
    inside = ((to >= 0) & (to < size)).all(-1)
    to = np.clip(to, 0, size - 1)
    return np.where(inside, where[to[..., 1], to[..., 0]], beyond)
