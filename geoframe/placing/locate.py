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
from geoframe.surface.clouds import box, gather_rows
from geoframe.surface.outliers import even_index, floor_points, isolated_points
from geoframe.transforms import Similarity, rotation_angle, rotvec_to_rotation

INFERENCE_BATCH = 32  # clouds; larger batches leave the cache of a CPU and take longer
_SETTLED = 2e-3  # change of centre, size and rotation (radians) in a round that is none
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
    """

    points: Tensor
    motion: Similarity
    dropped: Tensor
    tilt: Tensor
    grown: Tensor


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
    for i in range(rounds):
        new = turned(model, points[moving], any_turn=any_turn)
        axes = (new @ frame.mT).to(clouds)
        low, high = box(clouds[moving] @ axes)
        if walls is not None:
            more = walls[moving].to(clouds) * (high - low).amax(-1, keepdim=True) / 2
            low, high = low - more[:, :3], high + more[:, 3:]
        middle = (axes @ (low + high)[..., None] / 2)[..., 0]
        size = (high - low).amax(-1) / 2
        change = torch.maximum(
            (middle - centre[moving]).norm(dim=-1) / size, (size / half[moving]).log().abs()
        )
        still = (change < _SETTLED) & (rotation_angle(new, rotation[moving]).to(change) < _SETTLED)
        rotation[moving], centre[moving], half[moving] = new, middle, size
        points[moving] = (clouds[moving] - middle[:, None]) / size[:, None, None]
        moving = moving[~still] if i else moving
        if not len(moving):
            break
    return points, centre, half, rotation


def turned(model: Network, points: Tensor, *, any_turn: bool) -> Tensor:
    """Rotations (B, 3, 3) from the canonical frame to clouds (B, N, 3) at scale 2, from some of their points."""
    some = thinned(points, _POSE_POINTS).to(model.basis.basis)
    more = {"any_turn": any_turn} if finds_pose(model) else {}
    return torch.cat([model.rotation(p, **more) for p in some.split(INFERENCE_BATCH)])


def thinned(points: Tensor, n: int) -> Tensor:
    """(B, n, 3) every so many-th point of clouds (B, N, 3); all where there are fewer."""
    N = points.shape[1]
    return points if n >= N else points[:, torch.linspace(0, N - 1, n).long()]


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
    clouds = clouds.double()
    origin = clouds.median(1).values
    spread = (clouds - origin[:, None]).abs().amax(-1).median(1).values
    spread = torch.where(spread > 0, spread, (clouds - origin[:, None]).abs().amax((1, 2)))
    x = ((clouds - origin[:, None]) / spread.clamp(min=1e-300)[:, None, None]).float()
    dropped = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    if clean:
        dropped, spacing = isolated_points(x)
        floor = floor_points(torch.where(dropped[..., None], x.median(1, keepdim=True).values, x), model.up)
        dropped = dropped | floor
        x = gather_rows(x, even_index(spacing, ~dropped))
    points, centre, half, rotation = settle(model, x, any_turn=any_turn, rounds=rounds)
    B = len(x)
    lean = torch.eye(3).repeat(B, 1, 1).to(x)  # from the upright object to the cloud
    walls = torch.zeros(B, 6).to(x)
    if placement is not None and finds_pose(model):
        frame = symmetry_frame(model.basis)
        rows = torch.arange(B, device=x.device)
        kinds = torch.ones(
            B, 2, dtype=torch.bool, device=x.device
        )  # whether there is something to do about either
        for i in range(placements):
            axes = (rotation[rows] @ frame.mT).to(x)
            local = normalise(thinned(x[rows], N_SEEN) @ lean[rows] @ axes)[0].to(frame)
            parts = [placement(p) for p in local.split(INFERENCE_BATCH)]
            tilt, beyond = (torch.cat(p).to(x) for p in zip(*parts, strict=True))
            if i == 0:
                leans, ends = (
                    tilt.norm(dim=-1) > placement.least_tilt,
                    beyond.abs().amax(-1) > placement.least_wall,
                )
                kinds = torch.stack([leans, ends], 1)
                some = kinds.any(1)
                rows, kinds, axes, tilt, beyond = (
                    rows[some],
                    kinds[some],
                    axes[some],
                    tilt[some],
                    beyond[some],
                )
                if not len(rows):
                    break
            step = axes @ rotvec_to_rotation(tilt * kinds[:, :1]) @ axes.mT
            lean[rows] = lean[rows] @ step
            walls[rows] = beyond * kinds[:, 1:]
            there = x[rows] @ lean[rows]
            again = settle(model, there, any_turn=any_turn, walls=walls[rows], rounds=rounds)
            points[rows], centre[rows], half[rows], rotation[rows] = again
    canonical = finds_pose(model)
    whole = lean @ rotation.to(x) if canonical else lean
    points = points @ rotation.to(points) if canonical else points
    scale = half.double() * spread
    middle = (lean.double() @ centre.double()[..., None])[..., 0] * spread[:, None] + origin
    tilt_degrees = rotation_angle(lean).rad2deg()
    return Located(
        points, Similarity(whole.double(), middle, scale), dropped, tilt_degrees, walls.abs().amax(-1)
    )
