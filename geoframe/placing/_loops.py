"""Compiled loops of `geoframe.placing`: boxes along given axes, and how many points lie in each cell of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums


@compiled_sums
def boxes_along(clouds: Any, rows: Any, axes: Any, low: Any, high: Any) -> None:
    """Lowest and highest coordinates (n, 3) along the columns of axes (n, 3, 3), of clouds[rows], clouds (B, N, 3)."""
    for i in range(len(rows)):
        cloud, R = clouds[rows[i]], axes[i]
        for c in range(3):
            a, b, d = R[0, c], R[1, c], R[2, c]
            least = most = cloud[0, 0] * a + cloud[0, 1] * b + cloud[0, 2] * d
            for n in range(len(cloud)):
                x = cloud[n, 0] * a + cloud[n, 1] * b + cloud[n, 2] * d
                least, most = min(least, x), max(most, x)
            low[i, c], high[i, c] = least, most


@compiled_sums
def put_in_boxes(clouds: Any, rows: Any, middle: Any, half: Any, out: Any) -> None:
    """Write clouds[rows] less the middles (n, 3), over half their sizes (n,), into the same rows of `out`."""
    for i in range(len(rows)):
        cloud, placed, scale = clouds[rows[i]], out[rows[i]], 1 / half[i]
        x, y, z = middle[i, 0], middle[i, 1], middle[i, 2]
        for n in range(len(cloud)):
            placed[n, 0] = (cloud[n, 0] - x) * scale
            placed[n, 1] = (cloud[n, 1] - y) * scale
            placed[n, 2] = (cloud[n, 2] - z) * scale


@compiled_sums
def count_in_cells(points: Any, sizes: Any, out: Any) -> None:
    """Shares of points in the cells of a box, folded across; each counts in the eight cells around it.

    Args:
        points: (B, N, 3) across, along, up.
        sizes: (3,) int64, cells a side.
        out: (B, cells) to be overwritten.
    """
    B, N = points.shape[:2]
    at, part = np.empty(3, np.int64), np.empty(3, points.dtype)
    for i in range(B):
        out[i] = 0
        for n in range(N):
            for c in range(3):
                x = abs(points[i, n, 0]) if c == 0 else (points[i, n, c] + 1) / 2
                x = min(x, 1.0) * sizes[c] - 0.5
                x = min(x if x > 0 else 0.0, sizes[c] - 1.001)  # NaN: 0
                at[c] = int(x)
                part[c] = x - at[c]
            for corner in range(8):
                weight, cell = 1.0 / N, 0
                for c in range(3):
                    step = corner >> (2 - c) & 1
                    weight *= part[c] if step else 1 - part[c]
                    cell = cell * sizes[c] + at[c] + step
                out[i, cell] += weight
