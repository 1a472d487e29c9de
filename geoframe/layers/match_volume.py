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
        channel, dy, dx, n = _places(size, spacing, len(features0))
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
        phases = np.ascontiguousarray(  # columns that one row of samples reads lie beside one another
            padded1[:, :, :wide].reshape(*padded1.shape[:2], -1, step).transpose(0, 1, 3, 2)
        )
        self.line, across = step * phases.shape[3], np.arange(step)[:, None] + dx
        row = (channel * phases.shape[1] + dy) * step + across % step
        self.starts = row * phases.shape[3] + across // step
        self.flat = phases.reshape(-1)
        pooled = np.empty((H, W, self.sizes[1], self.sizes[1]), self.dtype)
        switches = np.empty(pooled.shape, np.uint8)

        def run(i: int) -> None:
            _correlate_row(
                self.weights[i], self.flat, self.starts, self.line, self.offset + self.stride * i, self.stride,
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

        def run(i: int) -> None:
            _polish_row(
                self.weights[i], self.flat, self.starts, self.line, target[i], reach, *self.target_size,
                place[i], score[i],
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
    """Channel, row and column of every entry of a patch, and their number; the loop takes eight at a time."""
    every = [(c, spacing * i, spacing * j) for i in range(size) for j in range(size) for c in range(channels)]
    n = len(every)
    every += [(0, 0, 0)] * (-n % 8)  # with weights of zero
    channel, dy, dx = (np.array(x) for x in zip(*every, strict=True))
    return channel, dy, dx, n


@compiled_sums
def _correlate_row(
    weights: Any,
    flat: Any,
    starts: Any,
    line: int,
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
    """Pooled scores of one row of patches.

    Entry d of a patch at (y, x) stands at ``line y + starts[x % step, d] + x // step`` of the flat features: slices of
    them would take longer than the sums.
    """
    R, step, D = (K - 1) // 2, starts.shape[0], starts.shape[1]
    scores = np.empty((K, K), np.float32)
    for j in range(weights.shape[0]):
        x, w = offset + stride * j, weights[j]
        first, last = max(0, R - x // step), min(K, (width - 1 - x) // step + R + 1)
        n, start = np.uintp(max(last - first, 0)), starts[x % step]
        for m in range(K):
            scores[m, :] = 0
            at = y + step * (m - R)
            if at < 0 or at >= height or n == 0:
                continue
            sums, left = scores[m, first : first + n], line * at + x // step + first - R
            for d in range(0, D, 8):
                a0, a1, a2, a3 = w[d], w[d + 1], w[d + 2], w[d + 3]
                a4, a5, a6, a7 = w[d + 4], w[d + 5], w[d + 6], w[d + 7]
                s0, s1 = np.uintp(left + start[d]), np.uintp(left + start[d + 1])
                s2, s3 = np.uintp(left + start[d + 2]), np.uintp(left + start[d + 3])
                s4, s5 = np.uintp(left + start[d + 4]), np.uintp(left + start[d + 5])
                s6, s7 = np.uintp(left + start[d + 6]), np.uintp(left + start[d + 7])
                for k in range(n):
                    low = a0 * flat[s0 + k] + a1 * flat[s1 + k] + a2 * flat[s2 + k] + a3 * flat[s3 + k]
                    high = a4 * flat[s4 + k] + a5 * flat[s5 + k] + a6 * flat[s6 + k] + a7 * flat[s7 + k]
                    sums[k] += low + high
            for k in range(n):
                sums[k] = min(max(sums[k], np.float32(0)), np.float32(1))
        _pool(scores, np.float32(1), scale, pooled[j], switches[j])


@compiled
def _pool(scores: Any, exponent: float, scale: float, pooled: Any, switches: Any) -> None:
    """Maxima over 3 x 3 at every second place, to a power; switches count the nine row by row.

    The columns are taken apart into those in the middle of a window and those between two windows, so that the
    comparisons run along memory.
    """
    K, k = scores.shape[0], pooled.shape[0]
    left = (k - 1) - (K - 1) // 2  # 0, or 1: the first and the last window have their middle outside
    middle, beside = np.full((3, k), np.float32(-1)), np.full((3, k + 1), np.float32(-1))
    best, at = np.empty(k, np.float32), np.empty(k, np.int32)
    rounding = 0.5 if scale > 1 else 0.0
    for i in range(k):
        for s in range(3):
            m = 2 * i - left + s - 1
            if m < 0 or m >= K:
                middle[s], beside[s] = -1, -1
                continue
            inner, outer = middle[s, left : k - left], beside[s, 1:k]
            a, b = scores[m, left:], scores[m, 1 - left :]
            for j in range(len(inner)):
                inner[j] = a[2 * j]
            for j in range(len(outer)):
                outer[j] = b[2 * j]
        best[:], at[:] = -1, 0
        for s in range(3):
            before, here, after = beside[s], middle[s], beside[s, 1:]
            for j in range(k):
                top, of = best[j], at[j]
                of = np.int32(3 * s) if before[j] > top else of
                top = max(top, before[j])
                of = np.int32(3 * s + 1) if here[j] > top else of
                top = max(top, here[j])
                of = np.int32(3 * s + 2) if after[j] > top else of
                best[j], at[j] = max(top, after[j]), of
        values, codes = pooled[i], switches[i]
        for j in range(k):
            value = best[j] if exponent == 1 else best[j] ** exponent
            values[j] = value * scale + rounding
            codes[j] = at[j]


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
    flat: Any,
    starts: Any,
    line: int,
    target: Any,
    reach: int,
    height: int,
    width: int,
    place: Any,
    score: Any,
) -> None:
    """The highest score of level 0 near the matches of a row, and the top of the parabola through its neighbours."""
    step, side = starts.shape[0], 2 * reach + 3
    near = np.empty((side, side), np.float32)
    for j in range(len(weights)):
        ty, tx = target[j, 0], target[j, 1]
        for m in range(side):
            for n in range(side):
                y, x = ty + m - reach - 1, tx + n - reach - 1
                total = np.float32(-1)
                if y >= 0 and y < height and x >= 0 and x < width:
                    total = np.float32(0)
                    start, left = starts[x % step], line * y + x // step
                    for d in range(len(start)):
                        total += weights[j, d] * flat[left + start[d]]
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
