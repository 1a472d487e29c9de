"""Compiled loops over points and pixels of one picture: projection, shadows, noise."""

from __future__ import annotations

import numpy as np

from geoframe._compiled import compiled


@compiled
def project(points, R, t, focal, px, py, out):
    """Points (n, 3) to pixel x, pixel y and depth, into out (n, 3)."""
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        a = R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]
        b = R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]
        c = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
        out[i, 0] = a / c * focal + px
        out[i, 1] = b / c * focal + py
        out[i, 2] = c


@compiled
def extent(points, out):
    """Least and greatest coordinates of points (n, 3) into out (2, 3)."""
    out[0, :] = np.inf
    out[1, :] = -np.inf
    for i in range(len(points)):
        for c in range(3):
            out[0, c] = min(out[0, c], points[i, c])
            out[1, c] = max(out[1, c], points[i, c])


@compiled
def shadow(points, sx, sz, R, t, focal, px, py, wide, dense, out):
    """Multiply out (S, S) by what points (n, 3) leave of the light on the ground y = 0.

    Args:
        points: (n, 3).
        sx: how far a point's shadow lies from its foot along x, for each unit of height.
        sz: the same along z.
        R: (3, 3) of the view.
        t: (3,).
        focal: pixels.
        px: principal point.
        py: principal point.
        wide: half width of the blur in pixels.
        dense: how dark it gets, and how quickly, (2,).
        out: (S, S).
    """
    S = len(out)
    count = np.zeros((S, S), np.float32)
    for i in range(len(points)):
        x, z = points[i, 0] - sx * points[i, 1], points[i, 2] - sz * points[i, 1]
        c = R[2, 0] * x + R[2, 2] * z + t[2]
        if c <= 0:
            continue
        u = (R[0, 0] * x + R[0, 2] * z + t[0]) / c * focal + px
        v = (R[1, 0] * x + R[1, 2] * z + t[1]) / c * focal + py
        if 0 <= u < S and 0 <= v < S:
            count[int(v), int(u)] += 1
    for _ in range(2):
        box_blur(count, wide)
    for row in range(S):
        for col in range(S):
            if count[row, col] > 0:
                out[row, col] *= 1 - dense[0] * (1 - np.exp(-dense[1] * count[row, col]))


@compiled
def box_blur(image, reach):
    """Mean over a square of 2 reach + 1 pixels, in place; beyond the border there is nothing."""
    h, w = image.shape
    line = np.empty(max(h, w), np.float32)
    n = np.float32(1.0 / (2 * reach + 1))
    for row in range(h):
        total = np.float32(0)
        for col in range(min(reach, w)):
            total += image[row, col]
        for col in range(w):
            if col + reach < w:
                total += image[row, col + reach]
            if col - reach - 1 >= 0:
                total -= image[row, col - reach - 1]
            line[col] = total * n
        for col in range(w):
            image[row, col] = max(line[col], np.float32(0))
    for col in range(w):
        total = np.float32(0)
        for row in range(min(reach, h)):
            total += image[row, col]
        for row in range(h):
            if row + reach < h:
                total += image[row + reach, col]
            if row - reach - 1 >= 0:
                total -= image[row - reach - 1, col]
            line[row] = total * n
        for row in range(h):
            image[row, col] = max(line[row], np.float32(0))


@compiled
def texture(tile, tile2, rows, cols, at, color, tone, hue, top, bottom, out):
    """A colour with noise of light and of hue into the part of out (h, w, 3) between two lines.

    Args:
        tile: (n, n) noise of the light, periodic.
        tile2: (n, n) noise of the hue.
        rows: (h,) rows of the tiles to read, between whole ones a mean of both.
        cols: (w,) columns, 0 or more.
        at: (4,) whole numbers, where reading begins in the one and in the other.
        color: (3,).
        tone: (3,) how strong the noise of the light is.
        hue: (3,) how strong the noise of the hue is.
        top: (w,) first row of each column that is painted.
        bottom: (w,) the row after its last one.
        out: (h, w, 3).
    """
    n = len(tile)
    for i in range(len(rows)):
        r = int(rows[i])
        y = rows[i] - r
        a, b = (r + at[0]) % n, (r + at[2]) % n
        a1 = (a + 1) % n
        for j in range(len(cols)):
            if i < top[j] or i >= bottom[j]:
                continue
            c = int(cols[j])
            x = cols[j] - c
            d = (c + at[1]) % n
            d1 = (d + 1) % n
            light = (1 - y) * ((1 - x) * tile[a, d] + x * tile[a, d1])
            light += y * ((1 - x) * tile[a1, d] + x * tile[a1, d1])
            other = tile2[b, (c + at[3]) % n]
            for k in range(3):
                out[i, j, k] = color[k] + tone[k] * light + hue[k] * other
