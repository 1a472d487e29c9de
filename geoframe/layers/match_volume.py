"""Deep matching without gradients, compiled for the CPU: the scores of `geoframe.layers.matching` in little memory.

A score map of level l is needed at the switches of its pooling only, where it equals the pooled one. So the maps S_0
and S_l themselves, four times as large, live for one patch at a time; pooled scores are stored in 32 or 16 bits (a
fixed point: they lie in [0, 1]).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from geoframe._compiled import compiled, compiled_sums, share
from geoframe._types import Array

_STEPS = 65535.0  # of 16 bits


class Decoded(NamedTuple):
    """The best match of every patch.

    score: (H, W) float32, Q_0; minus infinity where no path arrives inside image 1.
    target: (H, W, 2) int64, (y, x) in image 1.
    reciprocal: (H, W) bool, whether no patch elsewhere has a better match in the same cell of image 1.
    """

    score: Array
    target: Array
    reciprocal: Array


class MatchVolume:
    """Pooled scores and switches of all levels, for one pair of images.

    Args:
        features0: (C, H0, W0) float32, of the pixels of image 0.
        features1: (C, H1, W1) float32, of image 1.
        size: places along a side of a patch.
        spacing: pixels between places.
        stride: pixels between patches, and so beta = stride // 2 before the first.
        radius: R_0, samples each way.
        step: pixels between samples of q.
        exponents: the power of each level.
        half: store scores in 16 bits.
    """

    def __init__(
        self,
        features0: Array,
        features1: Array,
        *,
        size: int,
        spacing: int,
        stride: int,
        radius: int,
        step: int,
        exponents: tuple[float, ...],
        half: bool,
    ) -> None:
        self.stride, self.offset, self.step = stride, stride // 2, step
        self.places = _places(size, spacing, len(features0))
        self.target_size = features1.shape[1:]
        self.grid = tuple(-(-(n - self.offset) // stride) for n in features0.shape[1:])
        self.sizes = [2 * radius + 1]
        for _ in exponents:
            radius = (radius + 1) // 2
            self.sizes.append(2 * radius + 1)
        self.exponents = exponents
        self.scale = _STEPS if half else 1.0
        self.dtype = np.uint16 if half else np.float32
        self.pooled: list[Array] = []
        self.switches: list[Array] = []
        self._level_0(features0, features1, size, spacing)
        for level in range(len(exponents)):
            self._level_up(level, last=level == len(exponents) - 1)

    def _level_0(self, features0: Array, features1: Array, size: int, spacing: int) -> None:
        channel, dy, dx, n = self.places
        before, after = spacing * (size - 1) // 2, spacing * (size - 1) - spacing * (size - 1) // 2
        step = self.step
        padded0, padded1 = (
            np.pad(f, ((0, 0), (before, after), (before, after + step - 1))) for f in (features0, features1)
        )
        H, W = self.grid
        self.weights = np.zeros((H, W, len(channel)), np.float32)
        y, x = (self.offset + self.stride * np.arange(n) for n in (H, W))
        rows, columns = y[:, None, None] + dy[:n], x[None, :, None] + dx[:n]
        self.weights[..., :n] = padded0[channel[:n], rows, columns] / (size * size)
        wide = padded1.shape[2] // step * step
        self.phases = np.ascontiguousarray(  # columns that one row of samples reads lie beside one another
            padded1[:, :, :wide].reshape(*padded1.shape[:2], -1, step).transpose(0, 1, 3, 2)
        )
        pooled = np.empty((H, W, self.sizes[1], self.sizes[1]), self.dtype)
        switches = np.empty(pooled.shape, np.uint8)

        def run(i: int) -> None:
            _correlate_row(
                self.weights[i], self.phases, channel, dy, dx, self.offset + self.stride * i, self.stride,
                self.offset, self.sizes[0], *self.target_size, self.scale, pooled[i], switches[i],
            )  # fmt: skip

        share(run, [(i,) for i in range(H)])
        self.pooled.append(pooled)
        self.switches.append(switches)

    def _level_up(self, level: int, *, last: bool) -> None:
        """S_{level + 1} from the pooled scores of `level`, and pooled again unless it is the last."""
        below, (H, W) = self.pooled[level], self.grid
        K = self.sizes[level + 1]
        finer = K if last else self.sizes[level + 2]
        out = np.empty((H + 1, W + 1, finer, finer), np.float32 if last else self.dtype)
        switches = np.empty((0,) * 4 if last else out.shape, np.uint8)
        low, high = (-1, 0) if level == 0 else (-(2 ** (level - 1)), 2 ** (level - 1))
        scale = 1.0 if last else self.scale

        def run(i: int) -> None:
            _aggregate_row(
                below, i, low, high, self.exponents[level], 1 / self.scale, scale, last, out, switches
            )

        share(run, [(i,) for i in range(H + 1)])
        if last:
            self.top = out
        else:
            self.pooled.append(out)
            self.switches.append(switches)

    def centres(self) -> Array:
        """(H, W, 2) int64, x and y of the pixel of image 0 that each patch stands for."""
        y, x = (self.offset + self.stride * np.arange(n) for n in self.grid)
        return np.stack(np.broadcast_arrays(x[None], y[:, None]), axis=-1)

    def decode(self, cell: int, apart: int = 1) -> Decoded:
        """The best match of every patch.

        Args:
            cell: side of the square cells of image 1, pixels, in which a match has to be the best of all patches to
                be reciprocal.
            apart: patches; a rival that is at most so many away along both axes is no objection: where image 1 is
                smaller, neighbours share a cell.
        """
        down = self.top
        for level in reversed(range(1, len(self.exponents))):
            down = self._level_down(down, level)
        (H, W), (H1, W1) = self.grid, self.target_size
        score, target = np.full((H, W), -np.inf, np.float32), np.zeros((H, W, 2), np.int64)
        cells = (-(-H1 // cell), -(-W1 // cell))
        jobs = min(H, 16)
        best, of = np.full((jobs, *cells), -np.inf, np.float32), np.full((jobs, *cells), -1, np.int64)

        def run(job: int) -> None:
            for i in range(job, H, jobs):
                _decode_row(
                    down, self.pooled[0][i], self.switches[0][i], i, self.offset, self.stride, self.step,
                    self.sizes[0], 1 / self.scale, H1, W1, cell, score[i], target[i], best[job], of[job],
                )  # fmt: skip

        share(run, [(job,) for job in range(jobs)])
        winner = np.take_along_axis(of, best.argmax(0)[None], 0)[0]
        won = winner[target[..., 0] // cell, target[..., 1] // cell]
        rows, columns = np.indices((H, W))
        far = np.maximum(np.abs(won // W - rows), np.abs(won % W - columns))
        return Decoded(score, target, np.isfinite(score) & (far <= apart))

    def polish(self, target: Array, reach: int) -> tuple[Array, Array]:
        """Matches moved to the best place near by, to parts of a pixel.

        Args:
            target: (H, W, 2) int64 of `decode`.
            reach: pixels each way.

        Returns:
            place: (H, W, 2) float32, (y, x).
            score: (H, W) float32, S_0 there.
        """
        place, score = np.empty(target.shape, np.float32), np.empty(target.shape[:2], np.float32)
        channel, dy, dx, _ = self.places

        def run(i: int) -> None:
            _polish_row(
                self.weights[i], self.phases, channel, dy, dx, target[i], reach, *self.target_size, place[i], score[i]
            )  # fmt: skip

        share(run, [(i,) for i in range(len(target))])
        return place, score

    def _level_down(self, above: Array, level: int) -> Array:
        """Q_level of Q_{level + 1}."""
        K, (H, W) = self.sizes[level], self.grid
        out = np.empty((H + 1, W + 1, K, K), np.float32)
        reach = 2 ** (level - 1)

        def run(i: int) -> None:
            _down_row(above, self.pooled[level], self.switches[level], i, reach, 1 / self.scale, out)

        share(run, [(i,) for i in range(H + 1)])
        return out


def _places(size: int, spacing: int, channels: int) -> tuple[Array, Array, Array, int]:
    """Channel, row and column of every entry of a patch, and their number; the loop takes four at a time."""
    every = [(c, spacing * i, spacing * j) for i in range(size) for j in range(size) for c in range(channels)]
    n = len(every)
    every += [(0, 0, 0)] * (-n % 4)  # with weights of zero
    channel, dy, dx = (np.array(x) for x in zip(*every, strict=True))
    return channel, dy, dx, n


@compiled_sums
def _correlate_row(
    weights: Any,
    features: Any,
    channel: Any,
    dy: Any,
    dx: Any,
    y: int,
    stride: int,
    offset: int,
    K: int,
    height: int,
    width: int,
    scale: float,
    pooled: Any,
    switches: Any,
) -> None:
    """Pooled scores of one row of patches."""
    R, step = (K - 1) // 2, features.shape[2]
    scores = np.empty((K, K), np.float32)
    for j in range(weights.shape[0]):
        x = offset + stride * j
        first, last = max(0, R - x // step), min(K, (width - 1 - x) // step + R + 1)
        n = max(last - first, 0)
        left = x + step * (first - R)
        for m in range(K):
            scores[m, :] = 0
            at = y + step * (m - R)
            if at < 0 or at >= height or n == 0:
                continue
            row = scores[m, first : first + n]
            for d in range(0, len(channel), 4):
                a, b, c, e = weights[j, d], weights[j, d + 1], weights[j, d + 2], weights[j, d + 3]
                s, t, u, v = left + dx[d], left + dx[d + 1], left + dx[d + 2], left + dx[d + 3]
                fa = features[channel[d], at + dy[d], s % step, s // step : s // step + n]
                fb = features[channel[d + 1], at + dy[d + 1], t % step, t // step : t // step + n]
                fc = features[channel[d + 2], at + dy[d + 2], u % step, u // step : u // step + n]
                fe = features[channel[d + 3], at + dy[d + 3], v % step, v // step : v // step + n]
                for k in range(n):
                    row[k] += a * fa[k] + b * fb[k] + c * fc[k] + e * fe[k]
            for k in range(n):
                row[k] = min(max(row[k], np.float32(0)), np.float32(1))
        _pool(scores, np.float32(1), scale, pooled[j], switches[j])


@compiled
def _pool(scores: Any, exponent: float, scale: float, pooled: Any, switches: Any) -> None:
    """Maxima over 3 x 3 at every second place, to a power; switches count the nine row by row."""
    K, k = scores.shape[0], pooled.shape[0]
    shift = (K - 1) // 2 - (k - 1)  # of the centre of window 0
    rounding = 0.5 if scale > 1 else 0.0
    along = np.empty((K, k), np.float32)
    column = np.empty((K, k), np.uint8)
    for m in range(K):
        for j in range(k):
            c = 2 * j + shift
            best, at = np.float32(-1), np.uint8(0)
            for s in range(3):
                n = c + s - 1
                if n >= 0 and n < K and scores[m, n] > best:
                    best, at = scores[m, n], np.uint8(s)
            along[m, j], column[m, j] = best, at
    for i in range(k):
        c = 2 * i + shift
        for j in range(k):
            best, at = np.float32(-1), np.uint8(0)
            for s in range(3):
                m = c + s - 1
                if m >= 0 and m < K and along[m, j] > best:
                    best, at = along[m, j], np.uint8(3 * s + column[m, j])
            value = best if exponent == 1 else best**exponent
            pooled[i, j] = value * scale + rounding
            switches[i, j] = at


@compiled
def _aggregate_row(
    below: Any,
    i: int,
    low: int,
    high: int,
    exponent: float,
    unit: float,
    scale: float,
    last: bool,
    out: Any,
    switches: Any,
) -> None:
    """Means over corners to a power, of one row of patches; pooled unless they are the last."""
    H, W, K = below.shape[0], below.shape[1], below.shape[2]
    scores = np.empty((K, K), np.float32)
    for j in range(out.shape[1]):
        scores[:] = 0
        count = 0
        for dy in (low, high):
            for dx in (low, high):
                y, x = i + dy, j + dx
                if y >= 0 and y < H and x >= 0 and x < W:
                    count += 1
                    part = below[y, x]
                    for m in range(K):
                        for n in range(K):
                            scores[m, n] += part[m, n]
        factor = np.float32(unit / max(count, 1))
        for m in range(K):
            for n in range(K):
                scores[m, n] *= factor
        if last:
            for m in range(K):
                for n in range(K):
                    out[i, j, m, n] = scores[m, n] ** exponent
        else:
            _pool(scores, exponent, scale, out[i, j], switches[i, j])


@compiled
def _coarse(above: Any, i: int, j: int, low: int, high: int, coarse: Any) -> None:
    """The highest score of the patches that have (i, j) as a corner; minus infinity for none."""
    H, W, k = above.shape[0], above.shape[1], above.shape[2]
    coarse[:] = -np.inf
    for dy in (low, high):
        for dx in (low, high):
            y, x = i - dy, j - dx
            if y >= 0 and y < H and x >= 0 and x < W:
                part = above[y, x]
                for m in range(k):
                    for n in range(k):
                        coarse[m, n] = max(coarse[m, n], part[m, n])


@compiled
def _down_row(above: Any, pooled: Any, switches: Any, i: int, reach: int, unit: float, out: Any) -> None:
    """Q_l of one row of patches."""
    K, k = out.shape[2], above.shape[2]
    shift = (K - 1) // 2 - (k - 1)
    coarse = np.empty((k, k), np.float32)
    for j in range(out.shape[1]):
        _coarse(above, i, j, -reach, reach, coarse)
        here = out[i, j]
        here[:] = -np.inf
        for m in range(k):
            for n in range(k):
                s = switches[i, j, m, n]
                y, x = 2 * m + shift + s // 3 - 1, 2 * n + shift + s % 3 - 1
                value = np.float32(coarse[m, n] + unit * pooled[i, j, m, n])
                if value > here[y, x]:
                    here[y, x] = value


@compiled
def _decode_row(
    above: Any,
    pooled: Any,
    switches: Any,
    i: int,
    offset: int,
    stride: int,
    step: int,
    K: int,
    unit: float,
    height: int,
    width: int,
    cell: int,
    score: Any,
    target: Any,
    best: Any,
    of: Any,
) -> None:
    """The best place of every patch of a row, and the best patch of every cell as far as this row knows."""
    k, W = above.shape[2], pooled.shape[0]
    shift = (K - 1) // 2 - (k - 1) - (K - 1) // 2
    coarse = np.empty((k, k), np.float32)
    for j in range(W):
        _coarse(above, i, j, -1, 0, coarse)
        for m in range(k):
            for n in range(k):
                value = np.float32(coarse[m, n] + unit * pooled[j, m, n])
                if value == -np.inf:
                    continue
                s = switches[j, m, n]
                y = offset + stride * i + step * (2 * m + shift + s // 3 - 1)
                x = offset + stride * j + step * (2 * n + shift + s % 3 - 1)
                if y < 0 or y >= height or x < 0 or x >= width:
                    continue
                if value > score[j]:
                    score[j], target[j, 0], target[j, 1] = value, y, x
                if value > best[y // cell, x // cell]:
                    best[y // cell, x // cell], of[y // cell, x // cell] = value, i * W + j


@compiled_sums
def _polish_row(
    weights: Any,
    features: Any,
    channel: Any,
    dy: Any,
    dx: Any,
    target: Any,
    reach: int,
    height: int,
    width: int,
    place: Any,
    score: Any,
) -> None:
    """The highest score of level 0 near the matches of a row, and the top of the parabola through its neighbours."""
    step, side = features.shape[2], 2 * reach + 3
    near = np.empty((side, side), np.float32)
    for j in range(len(weights)):
        ty, tx = target[j, 0], target[j, 1]
        for m in range(side):
            for n in range(side):
                y, x = ty + m - reach - 1, tx + n - reach - 1
                total = np.float32(-1)
                if y >= 0 and y < height and x >= 0 and x < width:
                    total = np.float32(0)
                    for d in range(len(channel)):
                        s = x + dx[d]
                        total += weights[j, d] * features[channel[d], y + dy[d], s % step, s // step]
                near[m, n] = total
        bm, bn = reach + 1, reach + 1
        for m in range(1, side - 1):
            for n in range(1, side - 1):
                if near[m, n] > near[bm, bn]:
                    bm, bn = m, n
        top = near[bm, bn]
        up, down, left, right = near[bm - 1, bn], near[bm + 1, bn], near[bm, bn - 1], near[bm, bn + 1]
        place[j, 0], place[j, 1], score[j] = ty + bm - reach - 1, tx + bn - reach - 1, top
        if top >= up and top >= down and up >= 0 and down >= 0 and 2 * top > up + down:
            place[j, 0] += np.float32(0.5) * (up - down) / (up + down - 2 * top)
        if top >= left and top >= right and left >= 0 and right >= 0 and 2 * top > left + right:
            place[j, 1] += np.float32(0.5) * (left - right) / (left + right - 2 * top)
