"""Sets of point clouds of one category, and batches of them: normalised, rotated, corrupted; all by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_finite, check_int, check_shape
from geoframe.surface.clouds import Points, as_clouds, as_points, box
from geoframe.surface.mesh import Mesh
from geoframe.transforms import rotation_about_axis

_SHARE_CLEAN = 0.75  # of the clouds of a batch, where batches are corrupted: most are to stay as they are


@dataclass(frozen=True, eq=False)
class CloudSet:
    """Point clouds of one category.

    Attributes:
        points: (n, N, 3) in the units of the files or normalised. Arrays and lists become tensors.
        names: one a cloud.
        up: the vertical axis, 0 to 2.
        labels: (n, N) int64 part of every point, or None.
        canonical: (n, N, 3) names of surface points, equal where points correspond, or None; procedural only.
        surfaces: the meshes that the points are of, in their frame, one a cloud, or None.

    Raises:
        TypeError: points that are not floating.
        ValueError: shapes that do not fit, NaN, no cloud, a single point repeated.
    """

    points: Tensor
    names: tuple[str, ...]
    up: int = 2
    labels: Tensor | None = None
    canonical: Tensor | None = None
    surfaces: tuple[Mesh, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_clouds(self.points, "points"))
        n, N = self.points.shape[:2]
        check_finite(self.points, "points")
        check_int(self.up, "up", low=0, high=2)
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.names) != n:
            raise ValueError(f"names: expected {n}, one a cloud, found {len(self.names)}")
        flat = (self.points.amax(1) - self.points.amin(1)).amax(-1) <= 0
        if bool(flat.any()):
            i = int(flat.nonzero()[0])
            raise ValueError(
                f"points: expected points that differ, but {self.names[i]} is one point repeated"
            )
        for name, pattern in (("labels", f"{n} {N}"), ("canonical", f"{n} {N} 3")):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_tensor(given, name))
                check_shape(getattr(self, name), pattern, name)
        if self.surfaces is not None and len(self.surfaces) != n:
            raise ValueError(f"surfaces: expected {n}, one a cloud, found {len(self.surfaces)}")

    def __len__(self) -> int:
        return len(self.points)

    def normalised(self) -> CloudSet:
        """The same clouds with boxes centred at the origin and longest side 2, as float32."""
        points, centre, half = normalise(self.points)
        surfaces = self.surfaces
        if surfaces is not None:
            frames = zip(surfaces, centre, half, strict=True)
            surfaces = tuple(m.with_verts((m.verts - c.to(m.verts)) / float(h)) for m, c, h in frames)
        return replace(self, points=points.float(), surfaces=surfaces)

    def standing(self, up: int) -> CloudSet:
        """The same clouds with another vertical axis: their axes are exchanged in a circle.

        Args:
            up: the axis that is to be vertical, 0 to 2.
        """
        shift = check_int(up, "up", low=0, high=2) - self.up
        if not shift:
            return self
        surfaces = self.surfaces
        if surfaces is not None:
            surfaces = tuple(m.with_verts(m.verts.roll(shift, -1)) for m in surfaces)
        return replace(self, points=self.points.roll(shift, -1), up=up, surfaces=surfaces)

    def rotated(self, degrees: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The points, each cloud rotated at random about the vertical.

        Args:
            degrees: the largest angle, in [0, 180].
            seed: of the angles.

        Returns:
            points: (n, N, 3).
            R: (n, 3, 3); ``rotated @ R`` are the points as they were.
        """
        generator = torch.Generator().manual_seed(seed)
        points, angle = rotate_randomly(self.points, degrees, up=self.up, generator=generator)
        return points, rotation_about_axis(angle, self.up)

    def first(self, n: int) -> CloudSet:
        """The first n clouds (all, if there are fewer)."""
        return self.only(range(len(self))[:n])

    def only(self, index: Iterable[int]) -> CloudSet:
        """The clouds of some numbers, in their order."""
        chosen = list(index)
        labels, canonical = (None if x is None else x[chosen] for x in (self.labels, self.canonical))
        surfaces = None if self.surfaces is None else tuple(self.surfaces[i] for i in chosen)
        names = tuple(self.names[i] for i in chosen)
        return CloudSet(self.points[chosen], names, self.up, labels, canonical, surfaces)


def normalise(points: Points) -> tuple[Tensor, Tensor, Tensor]:
    """Move and scale clouds so that their boxes are centred at the origin with longest side 2, so within [-1, 1].

    Args:
        points: (..., N, 3) tensor, array or list.

    Returns:
        points: (..., N, 3).
        centre: (..., 3).
        half: (...), half the longest side; ``points * half + centre`` are the old points.

    Raises:
        TypeError: not floating.
        ValueError: another shape, no points, NaN, points that are all the same.
    """
    points = as_points(points, "... N 3", "points")
    check_finite(points, "points")
    low, high = box(points)
    centre, half = (low + high) / 2, (high - low).amax(-1) / 2
    if not bool((half > 0).all()):
        raise ValueError("points: expected clouds of positive size, found one whose points are all the same")
    return (points - centre[..., None, :]) / half[..., None, None], centre, half


def rotate_randomly(
    points: Points, degrees: float, *, up: int = 2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Rotate every cloud about the vertical by an angle uniform in [-degrees, degrees].

    Args:
        points: (B, N, 3) tensor, array or list.
        degrees: in [0, 180].
        up: the vertical axis, 0 to 2.
        generator: of the angles.

    Returns:
        points: (B, N, 3).
        angle: (B,) radians, counter-clockwise seen from above.

    Raises:
        TypeError: not floating.
        ValueError: another shape, an angle out of range.
    """
    points = as_clouds(points, "points")
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees: expected a number in [0, 180], found {degrees}")
    u = torch.rand(len(points), generator=generator, dtype=points.dtype)
    angle = (math.radians(degrees) * (2 * u - 1)).to(points.device)
    return points @ rotation_about_axis(angle, up).mT, angle


def corrupt(
    points: Points,
    *,
    missing: float = 0.0,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut off a part of every cloud on one side, and add Gaussian noise.

    The side is a direction drawn for each cloud; points that are left are repeated, so that N stays.

    Args:
        points: (B, N, 3) tensor, array or list.
        missing: share of the points that is cut off, in [0, 1).
        noise: standard deviation in each coordinate, in the unit of the points.
        generator: of directions, repeated points and noise.

    Returns:
        (B, N, 3).

    Raises:
        TypeError: not floating.
        ValueError: another shape, numbers out of range.
    """
    points = as_clouds(points, "points")
    if not 0 <= missing < 1 or noise < 0:
        raise ValueError(
            f"missing, noise: expected a share below 1 and a length, found {missing} and {noise}"
        )
    B, N = points.shape[:2]
    if missing > 0:
        way = torch.randn(B, 3, generator=generator, dtype=points.dtype).to(points.device)
        order = (points @ way[..., None])[..., 0].argsort(1)
        left = order[:, : max(1, round(N * (1 - missing)))]
        again = torch.randint(left.shape[1], (N - left.shape[1],), generator=generator).to(points.device)
        kept = torch.cat([left, left[:, again]], dim=1)
        points = points.gather(1, kept[..., None].expand(-1, -1, 3))
    if noise > 0:
        points = points + noise * torch.randn(points.shape, generator=generator, dtype=points.dtype).to(
            points
        )
    return points


@dataclass(frozen=True)
class CloudBatches:
    """The batches of an epoch, as dicts of tensors; a pure function of seed and epoch.

    ``batches(epoch, rank, world)`` gives the share of process `rank` of every batch; the shares of all `world`
    processes together are the batch of one. What does not fill a batch is dropped (unless it is all there is).

    A batch holds `points` (B, N, 3), `seen` (B, n_seen, 3), which are some of the same and may be corrupted, `angle`
    (B,) in radians and `index` (B,) into the clouds.

    Attributes:
        clouds: normalised.
        batch_size: of all processes together.
        n_points: of a cloud, drawn anew for every batch.
        n_seen: how many of them the model is shown; None for all.
        degrees: the largest rotation about the vertical.
        missing: largest share of the points that is cut off of what the model sees.
        noise: largest standard deviation of the noise in what the model sees.
        seed: of all that is random.
    """

    clouds: CloudSet
    batch_size: int = 32
    n_points: int = 1024
    n_seen: int | None = None
    degrees: float = 45.0
    missing: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_int(self.batch_size, "batch_size", low=1)
        check_int(self.n_points, "n_points", low=2, high=self.clouds.points.shape[1])
        if self.n_seen is not None:
            check_int(self.n_seen, "n_seen", low=2, high=self.n_points)

    @property
    def n_batches(self) -> int:
        """Batches an epoch."""
        return max(1, len(self.clouds) // self.batch_size)

    def __call__(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch.

        Args:
            epoch: from 0.
            rank: of this process.
            world: number of processes; `batch_size` is to be a multiple of it.
        """
        if self.batch_size % world:
            raise ValueError(f"batch_size: expected a multiple of {world} processes, found {self.batch_size}")
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.clouds), generator=generator)
        for i in range(self.n_batches):
            index = order[i * self.batch_size : (i + 1) * self.batch_size]
            batch = self._draw(index, generator)
            yield {name: x[rank::world] for name, x in batch.items()}

    def _draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        pool = self.clouds.points[index]
        N = pool.shape[1]
        pool = pool[:, torch.randperm(N, generator=generator)[: self.n_points]]
        points, angle = rotate_randomly(pool, self.degrees, up=self.clouds.up, generator=generator)
        seen = points[:, : self.n_seen]
        if self.missing or self.noise:
            u = torch.rand(2, generator=generator).tolist()
            worse = corrupt(seen, missing=self.missing * u[0], noise=self.noise * u[1], generator=generator)
            clean = (torch.rand(len(points), generator=generator) < _SHARE_CLEAN).to(points.device)
            seen = torch.where(clean[:, None, None], seen, worse)
        return {"points": points, "seen": seen, "angle": angle, "index": index}
