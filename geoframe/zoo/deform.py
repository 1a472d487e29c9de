"""Invertible smooth maps of space, each with its inverse, that make the members of a family from one template.

Every step changes one coordinate by a function that is increasing in it and depends on the other two as it
likes: such a step is a bijection of space whatever its parameters, and so is a chain of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geoframe._check import check_shape

AtPoints = Callable[[Tensor], Tensor]


class Step(Protocol):
    """A bijection of space: `forward` and `inverse` take (N, 3) float64 points to (N, 3)."""

    def forward(self, points: Tensor) -> Tensor:
        """Where the points go."""
        ...

    def inverse(self, points: Tensor) -> Tensor:
        """Where the points come from."""
        ...


@dataclass(frozen=True, eq=False)
class Warp:
    """Steps one after the other."""

    steps: tuple[Step, ...]

    def forward(self, points: Tensor) -> Tensor:
        """Canonical points (..., 3) to the member's."""
        x = points.reshape(-1, 3)
        for step in self.steps:
            x = step.forward(x)
        return x.reshape(points.shape)

    def inverse(self, points: Tensor) -> Tensor:
        """The member's points (..., 3) to canonical ones."""
        x = points.reshape(-1, 3)
        for step in reversed(self.steps):
            x = step.inverse(x)
        return x.reshape(points.shape)


@dataclass(frozen=True, eq=False)
class Shift:
    """Adds `amount` to one coordinate; `amount` sees the points with that coordinate set to 0."""

    axis: int
    amount: AtPoints

    def forward(self, points: Tensor) -> Tensor:
        """x_axis + amount(others)."""
        return _with_axis(points, self.axis, points[:, self.axis] + self.amount(_hide(points, self.axis)))

    def inverse(self, points: Tensor) -> Tensor:
        """x_axis - amount(others)."""
        return _with_axis(points, self.axis, points[:, self.axis] - self.amount(_hide(points, self.axis)))


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiplies one coordinate by a positive `factor`, which sees the points with that coordinate set to 0."""

    axis: int
    factor: AtPoints

    def forward(self, points: Tensor) -> Tensor:
        """x_axis * factor(others)."""
        return _with_axis(points, self.axis, points[:, self.axis] * self.factor(_hide(points, self.axis)))

    def inverse(self, points: Tensor) -> Tensor:
        """x_axis / factor(others)."""
        return _with_axis(points, self.axis, points[:, self.axis] / self.factor(_hide(points, self.axis)))


@dataclass(frozen=True, eq=False)
class Push:
    """Moves what is near a place along one axis: adds ``amount exp(-|(p - place) / radii|^2)`` to a coordinate.

    Attributes:
        axis: the coordinate.
        amount: at most 0.9 of the radius along the axis (0.55 for a pair, whose two
            bumps may meet), which keeps the coordinate increasing.
        place, radii: (3,).
        pair: also at the mirror image of the place, mirrored.
    """

    axis: int
    amount: float
    place: Tensor
    radii: Tensor
    pair: bool = False

    def __post_init__(self) -> None:
        radius, most = float(self.radii[self.axis]), 0.55 if self.pair else 0.9
        if abs(self.amount) > most * radius:
            raise ValueError(
                f"amount: expected at most {most} of the radius {radius:.3g}, found {self.amount:.3g}"
            )

    def forward(self, points: Tensor) -> Tensor:
        """The push."""
        return _with_axis(points, self.axis, points[:, self.axis] + self._bump(points)[0])

    def inverse(self, points: Tensor) -> Tensor:
        """Newton's method, kept between bounds that close in on the one root."""
        y = points[:, self.axis]
        low, high, x = y - 2 * abs(self.amount), y + 2 * abs(self.amount), y
        for _ in range(60):
            value, slope = self._bump(_with_axis(points, self.axis, x))
            off = x + value - y
            if float(off.abs().max()) < 1e-14:
                break
            low, high = torch.where(off < 0, x, low), torch.where(off > 0, x, high)
            step = x - off / (1 + slope)
            x = torch.where((step > low) & (step < high), step, (low + high) / 2)
        return _with_axis(points, self.axis, x)

    def _bump(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """What is added (N,), and its derivative along the axis."""
        value, slope = torch.zeros_like(points[:, 0]), torch.zeros_like(points[:, 0])
        for sign in (1.0, -1.0) if self.pair else (1.0,):
            q = (points - self.place * points.new_tensor([1, 1, sign])) / self.radii
            amount = self.amount * (sign if self.axis == 2 else 1.0)
            here = amount * torch.exp(-(q**2).sum(1))
            value = value + here
            slope = slope - 2 * q[:, self.axis] / self.radii[self.axis] * here
        return value, slope


@dataclass(frozen=True, eq=False)
class Stretch:
    """Takes `knots` of one coordinate to `places`, which may change along another coordinate.

    Attributes:
        axis: the coordinate that moves.
        knots: (k,) increasing, k >= 2.
        places: (levels, k), each row increasing.
        along: the other coordinate, or a function of the points with `axis` set to 0.
        levels: (levels,) its
            values at the rows, increasing; rows between are mixtures, beyond the ends they are the end rows.
            One row needs neither.

    Source: Gregory and Delbourgo 1982, monotone rational quadratic splines; linear beyond the end knots.
    """

    axis: int
    knots: Tensor
    places: Tensor
    along: int | AtPoints = 0
    levels: Tensor | None = None

    def __post_init__(self) -> None:
        k = check_shape(self.knots, "k", "knots")["k"]
        n = check_shape(self.places, f"n {k}", "places")["n"]
        if k < 2 or not bool((self.knots.diff() > 0).all() and (self.places.diff(dim=1) > 0).all()):
            raise ValueError("knots, places: expected at least 2 columns and increasing rows")
        if (n > 1) != (self.levels is not None) or (n > 1 and self.along == self.axis):
            raise ValueError("levels: expected one for each row of places, along another axis")
        if self.levels is not None:
            check_shape(self.levels, str(n), "levels")
            if not bool((self.levels.diff() > 0).all()):
                raise ValueError("levels: expected increasing numbers")

    def forward(self, points: Tensor) -> Tensor:
        """The spline."""
        x = points[:, self.axis].contiguous()
        i = torch.searchsorted(self.knots, x).clamp(1, len(self.knots) - 1)
        k0, k1, y0, y1, d0, d1 = self._bin(points, i)
        t = (x - k0) / (k1 - k0)
        s = (y1 - y0) / (k1 - k0)
        u = t.clamp(0, 1)
        inside = y0 + (y1 - y0) * (s * u**2 + d0 * u * (1 - u)) / (s + (d0 + d1 - 2 * s) * u * (1 - u))
        out = inside + (t - u) * (k1 - k0) * torch.where(t < 0, d0, d1)
        return _with_axis(points, self.axis, out)

    def inverse(self, points: Tensor) -> Tensor:
        """The spline's inverse, the root of a quadratic."""
        y = points[:, self.axis]
        low, high, t = self._between(points)
        rows = torch.lerp(self.places[low], self.places[high], t[:, None])
        i = (rows < y[:, None]).sum(1).clamp(1, len(self.knots) - 1)
        k0, k1, y0, y1, d0, d1 = self._bin(points, i)
        s = (y1 - y0) / (k1 - k0)
        v = torch.minimum(torch.maximum(y, y0), y1)
        bend = (v - y0) * (d0 + d1 - 2 * s)
        a, b, c = (y1 - y0) * (s - d0) + bend, (y1 - y0) * d0 - bend, -s * (v - y0)
        u = 2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())
        out = k0 + u * (k1 - k0) + (y - v) / torch.where(y < y0, d0, d1)
        return _with_axis(points, self.axis, out)

    def _between(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows (N,) below and above the points, and how far (N,) they are from the one to the other."""
        if self.levels is None:
            zero = torch.zeros(len(points), dtype=torch.int64)
            return zero, zero, zero.double()
        if isinstance(self.along, int):
            x = points[:, self.along].contiguous()
        else:
            x = self.along(_hide(points, self.axis))
        high = torch.searchsorted(self.levels, x).clamp(1, len(self.levels) - 1)
        start = self.levels[high - 1]
        return high - 1, high, ((x - start) / (self.levels[high] - start)).clamp(0, 1)

    def _bin(self, points: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        """Knots, places and slopes (N,) at the beginning and end of bin i (N,), counted from 1."""
        low, high, t = self._between(points)
        k = len(self.knots)
        at = [(i + j).clamp(0, k - 1) for j in (-2, -1, 0, 1)]
        x = [self.knots[j] for j in at]
        y = [torch.lerp(self.places[low, j], self.places[high, j], t) for j in at]
        before, secant, after = ((y[j + 1] - y[j]) / (x[j + 1] - x[j]).clamp(min=1e-300) for j in range(3))
        d0 = torch.where(i > 1, 2 * before * secant / (before + secant), secant)
        d1 = torch.where(i < k - 1, 2 * secant * after / (secant + after), secant)
        return x[1], x[2], y[1], y[2], d0, d1


def smooth_step(x: Tensor, start: float, end: float) -> Tensor:
    """0 at `start`, 1 at `end` (either may be the larger), once continuously differentiable."""
    t = ((x - start) / (end - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _hide(points: Tensor, axis: int) -> Tensor:
    return _with_axis(points, axis, torch.zeros_like(points[:, axis]))


def _with_axis(points: Tensor, axis: int, values: Tensor) -> Tensor:
    columns = [values if i == axis else points[:, i] for i in range(3)]
    return torch.stack(columns, dim=1)


def stretch(
    axis: int,
    knots: Sequence[float],
    rows: Mapping[float, Sequence[float]] | Sequence[float],
    along: int | AtPoints = 0,
) -> Stretch:
    """A `Stretch` from plain numbers: one row of places, or rows by their level along another axis."""
    x = torch.tensor(knots, dtype=torch.float64)
    if not isinstance(rows, Mapping):
        return Stretch(axis, x, torch.tensor([list(rows)], dtype=torch.float64))
    places = torch.tensor([list(r) for r in rows.values()], dtype=torch.float64)
    return Stretch(axis, x, places, along, torch.tensor(list(rows), dtype=torch.float64))


def push(
    axis: int,
    amount: float,
    place: tuple[float, float, float],
    radii: tuple[float, float, float],
    pair: bool = False,
) -> Push:
    """A `Push` from plain numbers."""
    return Push(
        axis, amount, torch.tensor(place, dtype=torch.float64), torch.tensor(radii, dtype=torch.float64), pair
    )
