"""Compiled loops over the features of points: the first layer of a PointNet and its last step, pooling."""

from __future__ import annotations

from typing import Any

from geoframe._compiled import compiled_sums


@compiled_sums
def first_layer(points: Any, weight: Any, bias: Any, out: Any) -> None:
    """Positive parts (N, C) of ``points @ weight + bias``, of points (N, 3), weight (3, C) and bias (C,)."""
    a, b, c = weight[0], weight[1], weight[2]
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        row = out[n]
        for k in range(len(row)):
            value = x * a[k] + y * b[k] + z * c[k] + bias[k]
            row[k] = 0 if value <= 0 else value  # NaN stays


@compiled_sums
def pool_positive(x: Any, bias: Any, most: Any, mean: Any) -> None:
    """Maxima and means (B, C) over clouds of the positive parts of ``x + bias``, of x (B N, C) and bias (C,)."""
    N = len(x) // len(most)
    for i in range(len(most)):
        high, total = most[i], mean[i]
        high[:] = 0
        total[:] = 0
        for n in range(i * N, (i + 1) * N):
            row = x[n]
            for k in range(len(row)):
                value = row[k] + bias[k]
                value = 0 if value <= 0 else value  # NaN stays, here and below
                high[k] = high[k] if value <= high[k] else value
                total[k] += value
        for k in range(len(total)):
            total[k] /= N
