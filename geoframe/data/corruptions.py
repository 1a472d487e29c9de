"""What happens to clouds before anyone predicts on them: outliers, floors, cuts, other axes, units and positions.

Each kind takes clouds at scale 2 (`geoframe.data.normalise`) to worse ones, and tells the similarity transform that
what is left of the shape went through: places on the clean cloud are to be found again at ``moved(places)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe.data.clouds import corrupt
from geoframe.surface.clouds import Points, as_clouds, gather_rows
from geoframe.transforms import Similarity, rotation_about_axis, rotvec_to_rotation

_OUTLIERS = 0.05  # share of the points that become outliers
_AROUND = 2.0  # half side of the cube that outliers around a cloud are in, whose own is 1
_STRAY = 1.5  # lengths of the cloud from its middle to one stray point
_FLOOR_SHARE = 0.3  # of the points that lie on the floor
_FLOOR_SIDES = (1.2, 2.0)  # of the square floor, in lengths of the cloud
_FLOOR_NOISE = 0.004  # of the heights of the floor
_CUT = 0.3
_UTM = (456_789.0, 5_432_109.0, 312.0)  # of coordinates of a country's grid, in metres
_VIEW_CELLS = 48  # a side of the picture that decides what is seen from a side


class Corrupted(NamedTuple):
    """Clouds after a corruption.

    Attributes:
        points: (B, N, 3) float64.
        moved: the similarity transforms, one a cloud, from the clean clouds to these.
    """

    points: Tensor
    moved: Similarity


class _Draw(NamedTuple):
    """What a kind works on: clouds (B, N, 3) float64 at scale 2, their vertical axis, and a generator."""

    points: Tensor
    up: int
    generator: torch.Generator

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def directions(self) -> Tensor:
        """(B, 3) unit vectors."""
        way = torch.randn(len(self.points), 3, generator=self.generator, dtype=torch.float64)
        return way / way.norm(dim=-1, keepdim=True)

    def replaced(self, new: Tensor) -> Tensor:
        """The clouds with their first points, after a shuffle, replaced by new ones (B, n, 3)."""
        N = self.points.shape[1]
        order = self.uniform(len(self.points), N).argsort(1)
        return torch.cat([new, gather_rows(self.points, order[:, new.shape[1] :])], dim=1)

    def kept(self, height: Tensor, share: float) -> Tensor:
        """The share of the points that is highest by `height` (B, N), repeated so that N stays."""
        B, N = height.shape
        left = height.argsort(1, descending=True)[:, : max(1, round(share * N))]
        again = torch.randint(left.shape[1], (B, N - left.shape[1]), generator=self.generator)
        return gather_rows(self.points, torch.cat([left, left.gather(1, again)], dim=1))


def corruptions() -> tuple[str, ...]:
    """The names of the kinds that `corrupted` knows."""
    return tuple(_KINDS)


def corrupted(points: Points, kind: str, *, up: int = 2, seed: int = 0) -> Corrupted:
    """Corrupt clouds in one way.

    Args:
        points: (B, N, 3) at scale 2, in any rotation about the vertical.
        kind: one of `corruptions`.
        up: the vertical axis, 0 to 2.
        seed: of all that is random.

    Returns:
        The worse clouds, float64, with the similarity transforms that the clean ones went through.

    Raises:
        TypeError: not floating.
        ValueError: an unknown kind, another shape.
    """
    make = _KINDS[check_choice(kind, tuple(_KINDS), "kind")]
    check_int(up, "up", low=0, high=2)
    clouds = as_clouds(points, "points").detach().cpu().double()
    made = make(_Draw(clouds, up, torch.Generator().manual_seed(seed)))
    return made if isinstance(made, Corrupted) else Corrupted(made, _similarity(len(clouds)))


def _similarity(
    n: int, R: Tensor | None = None, t: tuple[float, float, float] = (0, 0, 0), scale: float = 1.0
) -> Similarity:
    """n times the same translation and scale, with rotations (n, 3, 3) or one (3, 3)."""
    R = torch.eye(3, dtype=torch.float64) if R is None else R
    shift = torch.tensor(t, dtype=torch.float64).expand(n, 3)
    return Similarity(R.expand(n, 3, 3), shift, torch.full((n,), scale, dtype=torch.float64))


def _moved(d: _Draw, R: Tensor | None = None, **more: float | tuple[float, float, float]) -> Corrupted:
    motion = _similarity(len(d.points), R, **more)  # type: ignore[arg-type]
    return Corrupted(motion(d.points), motion)


def _clean(d: _Draw) -> Tensor:
    return d.points


def _stray_point(d: _Draw) -> Tensor:
    """One point far outside."""
    return d.replaced(2 * _STRAY * d.directions()[:, None])


def _outliers(half: float) -> Callable[[_Draw], Tensor]:
    """A share of the points somewhere in a cube."""

    def make(d: _Draw) -> Tensor:
        B, N = d.points.shape[:2]
        return d.replaced(half * (2 * d.uniform(B, round(_OUTLIERS * N), 3) - 1))

    return make


def _floor(d: _Draw) -> Tensor:
    """The object stands on a square floor that reaches beyond it."""
    B, N = d.points.shape[:2]
    n = round(_FLOOR_SHARE * N)
    low, high = _FLOOR_SIDES
    side = 2 * (low + (high - low) * d.uniform(B, 1, 1))
    flat = side * (d.uniform(B, n, 3) - 0.5)
    ground = d.points[..., d.up].amin(1, keepdim=True)
    flat[..., d.up] = ground + _FLOOR_NOISE * torch.randn(B, n, generator=d.generator, dtype=torch.float64)
    return d.replaced(flat)


def _turned(degrees: float) -> Callable[[_Draw], Corrupted]:
    """Rotated about the vertical."""
    return lambda d: _moved(d, rotation_about_axis(torch.tensor(math.radians(degrees)).double(), d.up))


def _tilted(degrees: float) -> Callable[[_Draw], Corrupted]:
    """Rotated about a random horizontal axis."""

    def make(d: _Draw) -> Corrupted:
        way = d.directions()
        way[:, d.up] = 0
        return _moved(d, rotvec_to_rotation(math.radians(degrees) * way / way.norm(dim=-1, keepdim=True)))

    return make


def _upside_down(d: _Draw) -> Corrupted:
    """Half a turn about a horizontal axis."""
    return _moved(d, rotation_about_axis(torch.tensor(math.pi).double(), (d.up + 1) % 3))


def _other_up(d: _Draw) -> Corrupted:
    """Another axis is the vertical one."""
    return _moved(d, torch.eye(3, dtype=torch.float64).roll(1, 0))


def _cut(d: _Draw) -> Tensor:
    """Without what lies farthest on a random side."""
    return corrupt(d.points, missing=_CUT, generator=d.generator)


def _cut_below(d: _Draw) -> Tensor:
    """Without the lowest part."""
    return d.kept(d.points[..., d.up], 1 - _CUT)


def _half(d: _Draw) -> Tensor:
    """One half by a vertical plane, at random."""
    way = d.directions()
    way[:, d.up] = 0
    return d.kept((d.points @ way[..., None])[..., 0], 0.5)


def _lateral_half(d: _Draw) -> Tensor:
    """One half by the plane across the first horizontal axis."""
    return d.kept(d.points[..., (d.up + 1) % 3], 0.5)


def _nearer_half(d: _Draw) -> Tensor:
    """The half that is nearest to a sensor that looks down a little."""
    way = d.directions()
    way[:, d.up] = 0.35 * way.norm(dim=-1)
    return d.kept((d.points @ way[..., None])[..., 0], 0.5)


def _one_view(d: _Draw) -> Tensor:
    """What a sensor sees that looks down a little: the nearest points in the cells of its picture."""
    way = d.directions()
    way[:, d.up] = 0.5 * way.norm(dim=-1)
    seen = torch.zeros(d.points.shape[:2], dtype=torch.float64)
    for i, (cloud, towards) in enumerate(zip(d.points, way / way.norm(dim=-1, keepdim=True), strict=True)):
        right = torch.linalg.cross(torch.eye(3, dtype=torch.float64)[d.up], towards)
        right = right / right.norm()
        above = torch.linalg.cross(towards, right)
        cell = ((cloud @ torch.stack([right, above], 1) / 2 + 1) / 2 * _VIEW_CELLS).long()
        number = cell[:, 0] * 4 * _VIEW_CELLS + cell[:, 1]
        depth = cloud @ towards
        front = torch.full((16 * _VIEW_CELLS**2,), -math.inf, dtype=torch.float64)
        front = front.scatter_reduce(0, number, depth, "amax")
        seen[i] = (depth >= front[number] - 0.1).double()
    share = seen.mean(1)
    return torch.cat(
        [
            _Draw(d.points[i : i + 1], d.up, d.generator).kept(seen[i : i + 1], float(share[i]))
            for i in range(len(seen))
        ]
    )


def _top_heavy(d: _Draw) -> Tensor:
    """Points are the denser the higher they lie."""
    N = d.points.shape[1]
    z = d.points[..., d.up]
    height = (z - z.amin(1, keepdim=True)) / (z.amax(1, keepdim=True) - z.amin(1, keepdim=True))
    chosen = torch.multinomial(0.05 + height.square(), N, replacement=True, generator=d.generator)
    return gather_rows(d.points, chosen)


def _noise(d: _Draw) -> Tensor:
    """Gaussian noise of 2 % of the length."""
    return corrupt(d.points, noise=0.04, generator=d.generator)


def _few_points(d: _Draw) -> Tensor:
    """Half of the points only, repeated."""
    return d.kept(d.uniform(*d.points.shape[:2]), 0.5)


_KINDS: dict[str, Callable[[_Draw], Tensor | Corrupted]] = {
    "clean": _clean,
    "stray point": _stray_point,
    "outliers around": _outliers(_AROUND),
    "outliers inside": _outliers(1.0),
    "map coordinates": lambda d: _moved(d, t=_UTM, scale=0.5),
    "millimetres": lambda d: _moved(d, scale=1000.0),
    "turned 60": _turned(60),
    "turned 75": _turned(75),
    "turned 90": _turned(90),
    "turned 180": _turned(180),
    "tilted 10": _tilted(10),
    "tilted 15": _tilted(15),
    "upside down": _upside_down,
    "another axis up": _other_up,
    "floor": _floor,
    "cut 30 %": _cut,
    "cut 30 % below": _cut_below,
    "half": _half,
    "lateral half": _lateral_half,
    "nearer half": _nearer_half,
    "one view": _one_view,
    "top-heavy": _top_heavy,
    "noise 2 %": _noise,
    "few points": _few_points,
}
