"""Where the object of a cloud is: which points are of it, how it is turned and tilted, its centre and size.

All of it is found together: a box needs a rotation, a rotation a box, and both need points that are of the object.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from geoframe.data import normalise
from geoframe.layers import KeypointBasis, symmetry_frame
from geoframe.placing.placement import N_SEEN, Placement
from geoframe.surface.clouds import box, gather_rows, thinned
from geoframe.surface.outliers import centred_clouds, even_index, floor_points, isolated_points
from geoframe.transforms import Similarity, rotation_angle, rotvec_to_rotation

INFERENCE_BATCH = 32  # clouds; larger batches leave the cache of a CPU and take longer
_SETTLED = 2e-3  # change of the box in a round that is none: the same box has the same rotation
_MOST_ROUNDS = 15
_QUICK_ROUNDS = 3
_POSE_POINTS = 1024  # that the rotation is found from: with half as many it changes twice as much by outliers
_PLACEMENTS = 3  # times that tilt and walls are looked for, where there is something to find


class Network(Protocol):
    """What is needed of a network of category keypoints."""

    basis: KeypointBasis
    up: int

    def rotation(self, points: Tensor) -> Tensor:
        """Rotations (B, 3, 3) from the canonical frame to clouds (B, N, 3) at scale 2."""
        ...


def finds_pose(model: Any) -> bool:
    """Whether a network finds the rotation first, on its own, and can look for any turn."""
    return hasattr(model, "pose")


class Located(NamedTuple):
    """Where the objects of clouds are.

    Attributes:
        points: (B, N, 3) at scale 2, upright; in the canonical frame where the network finds the rotation first.
        motion: similarity transforms from there to the clouds, float64.
        dropped: (B, N) bool, points that are taken for outliers or for a floor, and are replaced by others.
        tilt: (B,) degrees by which the object leans.
        grown: (B,) the largest distance from a wall of the object to that of the points, at scale 2.
        left: (B, 2) tilt (radians) and largest distance of a wall (at scale 2) that are still found of `points`; 0
            where there is no placement.
    """

    points: Tensor
    motion: Similarity
    dropped: Tensor
    tilt: Tensor
    grown: Tensor
    left: Tensor


@torch.no_grad()
def settle(
    model: Network,
    clouds: Tensor,
    *,
    any_turn: bool = False,
    walls: Tensor | None = None,
    rounds: int = _MOST_ROUNDS,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise clouds by the box that is aligned with their plane of symmetry, as far as the network knows it.

    The axis-aligned box of a rotated cloud is another one than that of the cloud before, and so is its centre. So the
    rotation is found and undone, and the cloud boxed again, until nothing changes.

    Args:
        model: a trained network.
        clouds: (B, N, 3) in any units.
        any_turn: look for the rotation about the vertical everywhere, whatever the largest one in training.
        walls: (B, 6) how far the object's box is outside of that of the points, at the scale of `points`; None for 0.
        rounds: how often the rotation is found at most.

    Returns:
        points: (B, N, 3) at scale 2.
        centre: (B, 3).
        half: (B,), half the longest side; ``points * half + centre`` are the clouds.
        rotation: (B, 3, 3) from the canonical frame to the clouds.
    """
    points, centre, half = normalise(clouds)
    frame = symmetry_frame(model.basis)
    rotation = torch.eye(3).to(frame).repeat(len(clouds), 1, 1)
    moving = torch.arange(len(clouds), device=clouds.device)
    for _ in range(rounds):
        some = points if len(moving) == len(points) else points[moving]
        new = turned(model, some, any_turn=any_turn)
        axes = (new @ frame.mT).to(clouds)
        low, high = _boxes_along(clouds, moving, axes)
        if walls is not None:
            more = walls[moving].to(clouds) * (high - low).amax(-1, keepdim=True) / 2
            low, high = low - more[:, :3], high + more[:, 3:]
        middle = (axes @ (low + high)[..., None] / 2)[..., 0]
        size = (high - low).amax(-1) / 2
        change = torch.maximum(
            (middle - centre[moving]).norm(dim=-1) / size, (size / half[moving]).log().abs()
        )
        rotation[moving], centre[moving], half[moving] = new, middle, size
        _put_in_boxes(clouds, moving, middle, size, points)
        moving = moving[change >= _SETTLED]
        if not len(moving):
            break
    return points, centre, half, rotation


def _boxes_along(clouds: Tensor, rows: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (n, 3) and (n, 3) of clouds[rows] (n, N, 3) along the columns of axes (n, 3, 3)."""
    if clouds.device.type != "cpu" or clouds.dtype not in (torch.float32, torch.float64):
        return box(clouds[rows] @ axes)
    from geoframe.placing._loops import boxes_along

    low, high = torch.empty_like(axes[:, 0]), torch.empty_like(axes[:, 0])
    boxes_along(*(x.contiguous().numpy() for x in (clouds, rows, axes)), low.numpy(), high.numpy())
    return low, high


def _put_in_boxes(clouds: Tensor, rows: Tensor, middle: Tensor, half: Tensor, points: Tensor) -> None:
    """Overwrite points[rows] by the clouds in the boxes with these middles (n, 3) and half sizes (n,)."""
    if clouds.device.type != "cpu" or clouds.dtype not in (torch.float32, torch.float64):
        points[rows] = (clouds[rows] - middle[:, None]) / half[:, None, None]
        return
    from geoframe.placing._loops import put_in_boxes

    put_in_boxes(*(x.contiguous().numpy() for x in (clouds, rows, middle, half)), points.numpy())


def turned(model: Network, points: Tensor, *, any_turn: bool) -> Tensor:
    """Rotations (B, 3, 3) from the canonical frame to clouds (B, N, 3) at scale 2, from some of their points."""
    some = thinned(points, _POSE_POINTS).to(model.basis.basis)
    more = {"any_turn": any_turn} if finds_pose(model) else {}
    return torch.cat([model.rotation(p, **more) for p in some.split(INFERENCE_BATCH)])


@torch.no_grad()
def locate(
    model: Network,
    placement: Placement | None,
    clouds: Tensor,
    *,
    clean: bool = True,
    any_turn: bool = True,
    quick: bool = False,
) -> Located:
    """Find the objects of clouds.

    Args:
        model: a trained network.
        placement: finds tilt and walls; None leaves clouds upright and takes the box of their points.
        clouds: (B, N, 3) in any units, the vertical axis as in the model.
        clean: leave out outliers and floors.
        any_turn: as in `settle`.
        quick: settle and place less than is needed, to see whether that is worth while.
    """
    rounds, placements = (_QUICK_ROUNDS, 1) if quick else (_MOST_ROUNDS, _PLACEMENTS)
    x, origin, spread = (t.to(clouds.device) for t in centred_clouds(clouds.cpu(), by_median=True))
    dropped = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    if clean:
        dropped, spacing = isolated_points(x)
        floor = floor_points(x.masked_fill(dropped[..., None], 0), model.up)
        dropped = dropped | floor
        x = gather_rows(x, even_index(spacing, ~dropped))
    settled = settle(model, x, any_turn=any_turn, rounds=rounds)
    B = len(x)
    lean, walls, left = torch.eye(3).repeat(B, 1, 1).to(x), torch.zeros(B, 6).to(x), torch.zeros(B, 2).to(x)
    if placement is not None and finds_pose(model):
        lean, walls, left = _placed(model, placement, x, settled, any_turn, rounds, placements)
    points, centre, half, rotation = settled
    canonical = finds_pose(model)
    whole = lean @ rotation.to(x) if canonical else lean
    points = points @ rotation.to(points) if canonical else points
    scale = half.double() * spread
    middle = (lean.double() @ centre.double()[..., None])[..., 0] * spread[:, None] + origin
    tilt_degrees = rotation_angle(lean).rad2deg()
    motion = Similarity(whole.double(), middle, scale)
    return Located(points, motion, dropped, tilt_degrees, walls.abs().amax(-1), left)


def _placed(
    model: Network,
    placement: Placement,
    x: Tensor,
    settled: tuple[Tensor, Tensor, Tensor, Tensor],
    any_turn: bool,
    rounds: int,
    times: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tilt and walls of clouds, where there is something to find; what `settle` said of those is overwritten.

    Args:
        model: as of `locate`.
        placement: likewise.
        x: (B, N, 3) clouds.
        settled: what `settle` says of them.
        any_turn: as of `locate`.
        rounds: as of `settle`.
        times: how often it is looked for.

    Returns:
        lean: (B, 3, 3) rotations from the upright objects to the clouds.
        walls: (B, 6), see `settle`.
        left: (B, 2), see `Located`.
    """
    frame, B = symmetry_frame(model.basis), len(x)
    rotation = settled[3]
    lean, walls = torch.eye(3).repeat(B, 1, 1).to(x), torch.zeros(B, 6).to(x)

    def look(points: Tensor) -> tuple[Tensor, Tensor]:
        parts = [placement(p) for p in points.to(frame).split(INFERENCE_BATCH)]
        tilt, beyond = (torch.cat(p).to(x) for p in zip(*parts, strict=True))
        return tilt, beyond

    rows = torch.arange(B, device=x.device)
    for i in range(times):
        axes = (rotation[rows] @ frame.mT).to(x)
        tilt, beyond = look(normalise(thinned(x[rows], N_SEEN) @ (lean[rows] @ axes))[0])
        if i == 0:
            left = _sizes(tilt, beyond)
            kinds = left > torch.stack([placement.least_tilt, placement.least_wall]).to(left)
            rows = kinds.any(1).nonzero()[:, 0]
            if not len(rows):
                return lean, walls, left
            axes, tilt, beyond, kinds = axes[rows], tilt[rows], beyond[rows], kinds[rows]
        step = axes @ rotvec_to_rotation(tilt * kinds[:, :1]) @ axes.mT
        lean[rows] = lean[rows] @ step
        walls[rows] = beyond * kinds[:, 1:]
        there = x[rows] @ lean[rows]
        again = settle(model, there, any_turn=any_turn, walls=walls[rows], rounds=rounds)
        for old, new in zip(settled, again, strict=True):
            old[rows] = new
    axes = (rotation[rows] @ frame.mT).to(x)
    left[rows] = _sizes(*look(thinned(settled[0][rows], N_SEEN) @ axes))
    return lean, walls, left


def _sizes(tilt: Tensor, walls: Tensor) -> Tensor:
    """(B, 2) angles of rotation vectors (B, 3), and the largest of distances (B, 6)."""
    return torch.stack([tilt.norm(dim=-1), walls.abs().amax(-1)], 1)
