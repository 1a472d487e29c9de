"""Where points of a surface are seen in an image, given the picture of the surface points that its pixels show."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from geoframe._types import Array, Floats, Ints

WALK = 4  # steps from the nearest pixel to the place between pixels
REACH = 0.5  # a point is seen where the picture passes it by at most so many steps between pixels
FARTHEST = 3.0  # pixels of one step, at most
FLAT = (
    1e-3  # a direction along which the surface changes by less than this share of the other is not solved for
)


class SeenPlaces:
    """Answers where surface points are seen; see `find`.

    Args:
        image: (H, W, 3) float64 the surface point that each pixel shows, NaN outside the foreground.
        group: (H, W) int64 numbers of places, where pixels are known only to show one of many places (such as
            vertices): pixels of one number are one place, seen at that pixel of them that is nearest to their mean.
            None where each pixel shows a point of its own: then places between pixels are found.
    """

    def __init__(self, image: Floats, group: Ints | None = None) -> None:
        shown = ~np.isnan(image[..., 0])
        self._image = image
        self._pixels = np.argwhere(shown)[:, ::-1]  # x, y
        steps = _steps(image)[:, shown]
        self._between = group is None
        self._reach = REACH * steps.min(0) if group is None else steps.max(0)
        if group is not None:
            self._gather(group[shown])
        self._tree = cKDTree(image[self._pixels[:, 1], self._pixels[:, 0]])

    def _gather(self, group: Ints) -> None:
        """Keep one pixel of each group."""
        _, place, count = np.unique(group, return_inverse=True, return_counts=True)
        n = len(count)
        mean = np.stack([np.bincount(place, self._pixels[:, i], n) for i in (0, 1)], 1) / count[:, None]
        order = np.lexsort((np.hypot(*(self._pixels - mean[place]).T), place))
        first = order[np.cumsum(count) - count]
        self._reach = np.maximum.reduceat(self._reach[order], np.cumsum(count) - count) if n else self._reach
        self._pixels = self._pixels[first]

    def find(self, points: Floats) -> tuple[Floats, Ints]:
        """Where surface points are seen.

        Args:
            points: (L, 3).

        Returns:
            pixels: (L, 2) pixel x, pixel y; NaN where the picture passes a point by more than half a step from pixel to
                pixel, and of groups by more than a whole one.
            nearest: (L, 2) whole column and row of the pixel that shows the nearest point; 0 where nothing is shown.
        """
        if not len(self._pixels) or not len(points):
            return np.full((len(points), 2), np.nan), np.zeros((len(points), 2), np.int64)
        gap, near = self._tree.query(points)
        at = self._pixels[near]
        out = at + 0.5
        if self._between:
            out, gap = self._walk(points, at, gap)
        out[gap > self._reach[near]] = np.nan
        return out, at

    def _walk(self, points: Floats, at: Ints, gap: Floats) -> tuple[Floats, Array]:
        """From the nearest pixels (L, 2) to places between pixels, by Gauss-Newton in the picture of surface points.

        A pixel of a grazing face stands for a long stretch of surface: so the nearest of all points that are shown may
        lie several pixels from the place that is looked for. What does not come nearer is not taken.
        """
        best: Floats = np.asarray(at + 0.5, np.float64)
        best_gap = gap.copy()
        last = np.array(self._image.shape[1::-1]) - 1
        for _ in range(WALK):
            place, along = self._linear(at)
            left = points - place
            step = np.einsum("nij,nj->ni", np.linalg.pinv(along, rcond=FLAT), left)
            step = np.clip(step, -FARTHEST, FARTHEST)
            rest = np.linalg.norm(left - np.einsum("nij,nj->ni", along, step), axis=1)
            better = (np.abs(step).max(1) <= 1) & (rest < best_gap)
            best[better] = at[better] + 0.5 + step[better]
            best_gap[better] = rest[better]
            new = np.clip(np.floor(at + 0.5 + step).astype(np.int64), 0, last)
            shown = ~np.isnan(self._image[new[:, 1], new[:, 0], 0])
            at = np.where(shown[:, None], new, at)
        return best, best_gap

    def _linear(self, at: Ints) -> tuple[Floats, Floats]:
        """Surface points (L, 3) at pixels (L, 2), and how they change along x and y (L, 3, 2).

        Of the neighbours in a direction both count where they are about as far away on the surface; else the nearer
        one, as the other may lie across an outline. Where neither is shown the change is zero.
        """
        place = self._image[at[:, 1], at[:, 0]]
        along = np.zeros((len(at), 3, 2))
        for axis in (0, 1):
            after, before = (sign * (self._neighbour(at, axis, sign) - place) for sign in (1, -1))
            far, near = (np.nan_to_num(np.linalg.norm(x, axis=1), nan=np.inf) for x in (after, before))
            both = np.maximum(far, near) < 2 * np.minimum(far, near)
            one = np.where((far <= near)[:, None], after, before)
            along[:, :, axis] = np.where(both[:, None], (after + before) / 2, np.nan_to_num(one))
        return place, along

    def _neighbour(self, at: Ints, axis: int, sign: int) -> Floats:
        """(L, 3) what the next pixel shows, NaN outside the image."""
        H, W = self._image.shape[:2]
        x, y = at[:, 0] + sign * (axis == 0), at[:, 1] + sign * (axis == 1)
        inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
        there = self._image[np.clip(y, 0, H - 1), np.clip(x, 0, W - 1)]
        return np.where(inside[:, None], there, np.nan)


def _steps(image: Floats) -> Array:
    """(2, H, W) how far on the surface it is from a pixel to the next one along y and along x: of the two sides of a
    direction the nearer one; 0 where neither is shown."""
    out = np.zeros((2, *image.shape[:2]))
    for axis in (0, 1):
        jump = np.nan_to_num(np.linalg.norm(np.diff(image, axis=axis), axis=-1), nan=np.inf)
        border = np.full((1, image.shape[1]) if axis == 0 else (image.shape[0], 1), np.inf)
        nearer = np.minimum(np.concatenate([jump, border], axis), np.concatenate([border, jump], axis))
        out[axis] = np.where(np.isfinite(nearer), nearer, 0.0)
    return out
