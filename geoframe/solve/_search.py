"""The search over all rotations: for every direction of a grid, by how much a template seen from there lowers the
objective of `geoframe.solve._weak`. No random numbers; all in float64."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from geoframe.solve._moments import Moments
from geoframe.transforms import rotvec_to_rotation

ANGLES = 16  # turns about the viewing direction that the search tries
HOPELESS = 0.25  # of the range over all directions: a peak that much lower than the highest is not refined
CHUNK = 2**22  # numbers held at a time by the search
TILTED = (
    0.31,
    0.47,
    0.23,
)  # turn of the directions of the search, so that no plane of a template is met head-on


def starts(mom: Moments, s: Tensor, ridge: Tensor, n_starts: int) -> Tensor:
    """The most promising rotations (B, n_starts, 3, 3) of a search over all rotations.

    For every viewing direction of a grid the coefficients are eliminated and the turn about the direction is
    the best of a trigonometric polynomial. Local minima over the grid, the lowest first;
    one that is far above the lowest, which a step of the grid cannot make up for, is replaced by the lowest.
    """
    frames, neighbours = _half_sphere(s.device)
    height, at = heights(mom, s, ridge, frames)
    if s.device.type == "cpu":
        from geoframe.solve import _numba_search

        return _numba_search.picked(height, at, frames, neighbours, n_starts, HOPELESS)
    return picked_in_torch(height, at, frames, neighbours, n_starts)


def picked_in_torch(height: Tensor, at: Tensor, frames: Tensor, neighbours: Tensor, n_starts: int) -> Tensor:
    """The rotations of `starts` from heights and angles (B, 2 N), on any device; the reference."""
    peak = height >= height[:, neighbours].amax(-1)
    spread = height.amax(1, keepdim=True) - height.amin(1, keepdim=True)
    highest, pick = torch.where(peak, height, height - 2 * spread).topk(n_starts, dim=1)
    pick = torch.where(highest[:, :1] - highest > HOPELESS * spread, pick[:, :1], pick)
    return _rotation(frames, pick, at.gather(1, pick))


def heights(mom: Moments, s: Tensor, ridge: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the best shape, turned by the best angle about a direction, lowers the objective (B, 2 N), and that
    angle (B, 2 N): for the N directions frames[:, 2], then for their opposites."""
    if s.device.type == "cpu":
        from geoframe.solve import _numba_search

        return _numba_search.heights(mom, s, ridge, frames, ANGLES)
    size = max(1, CHUNK // (len(frames) * (mom.G.shape[1] ** 2 + 4 * ANGLES)))
    rows = torch.arange(len(s), device=s.device).split(size)
    parts = [heights_in_torch(mom.take(r), s[r], ridge[r], frames) for r in rows]
    best, at = (torch.cat(x) for x in zip(*parts, strict=True))
    return best, at


def heights_in_torch(mom: Moments, s: Tensor, ridge: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """`heights` on any device; the reference."""
    B, n, N = len(s), mom.G.shape[1], len(frames)
    dirs = frames[:, 2]
    nn = (dirs[:, :, None] * dirs[:, None, :]).reshape(N, 9)
    Gkl = mom.G.reshape(B, n * n, 9)
    across = torch.eye(3, dtype=s.dtype, device=s.device).reshape(9) - nn
    P = s[:, None, None] ** 2 * (Gkl @ across.T)  # (B, n * n, N)
    P = P.reshape(B, n, n, N).permute(0, 3, 1, 2)
    # e_i . h_jk for the two axes i of the image plane and the rows j of H
    e = torch.einsum("fia,bkja->bfijk", frames[:, :2], mom.H) * s[:, None, None, None, None]
    plus = torch.stack([e[:, :, 0, 0] + e[:, :, 1, 1], e[:, :, 1, 0] - e[:, :, 0, 1]], -2)
    minus = torch.stack([e[:, :, 0, 0] - e[:, :, 1, 1], -e[:, :, 1, 0] - e[:, :, 0, 1]], -2)
    b = torch.stack([plus, minus], 2)  # (B, N, 2 sides, cos|sin, n)
    angle = torch.arange(ANGLES, dtype=s.dtype, device=s.device) * (2 * torch.pi / ANGLES)
    wave = torch.stack([angle.cos(), angle.sin()], -1)  # (ANGLES, 2)
    if n == 1:
        best = 2 * torch.hypot(b[..., 0, 0], b[..., 1, 0]) - P[:, :, None, 0, 0]
        at = torch.atan2(b[..., 1, 0], b[..., 0, 0])
    else:
        gain = 2 * (b[..., 0] @ wave.T) - P[:, :, None, None, 0, 0]
        A = P[:, :, 1:, 1:] + ridge[:, None, None, None] * torch.eye(n - 1, dtype=s.dtype, device=s.device)
        A.diagonal(dim1=-2, dim2=-1).add_(
            1e-12 * A.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) + 1e-300
        )
        rhs = torch.cat([b[..., 1:].flatten(2, 3), P[:, :, None, 1:, 0]], 2).mT  # (B, N, K, 5)
        L, _ = torch.linalg.cholesky_ex(A)
        X = torch.linalg.solve_triangular(L, rhs, upper=False)
        gram = X.mT @ X  # (B, N, 5, 5)
        for side, rows in enumerate(([0, 1, 4], [2, 3, 4])):
            full = torch.cat([wave, -torch.ones_like(wave[:, :1])], 1)
            part = gram[:, :, rows][:, :, :, rows]
            gain[:, :, side] += ((full @ part) * full).sum(-1)
        best, at = _peak(gain)  # (B, N, 2)
    return best.mT.flatten(1), at.mT.flatten(1)


def _peak(gain: Tensor) -> tuple[Tensor, Tensor]:
    """Height and angle of the highest of periodic samples (..., ANGLES), by a parabola through three."""
    at = gain.argmax(-1, keepdim=True)
    left, mid, right = (gain.gather(-1, (at + i) % ANGLES)[..., 0] for i in (-1, 0, 1))
    bend = (2 * mid - left - right).clamp_min(torch.finfo(gain.dtype).tiny)
    shift = ((right - left) / (2 * bend)).clamp(-0.5, 0.5)
    return mid + shift * (right - left) / 4, (at[..., 0] + shift) * (2 * torch.pi / ANGLES)


def _rotation(frames: Tensor, pick: Tensor, angle: Tensor) -> Tensor:
    """Rotations (B, m, 3, 3) from directions, numbers >= N being the opposites, and turns about them."""
    N = len(frames)
    sign = torch.where(pick < N, 1.0, -1.0).to(frames.dtype)[..., None]
    e1, e2, e3 = frames[pick % N].unbind(-2)
    e2, e3 = sign * e2, sign * e3
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    return torch.stack([cos * e1 + sin * e2, cos * e2 - sin * e1, e3], -2)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is kept serves callers with a gradient, too
def _half_sphere(device: torch.device) -> tuple[Tensor, Tensor]:
    """Frames (81, 3, 3), rows e1, e2, direction, of half the directions of an icosphere; the neighbours
    (162, 6) of all directions, the opposites numbered after the halves."""
    from geoframe.surface.shapes import icosphere

    dirs = icosphere(2).verts.double() @ rotvec_to_rotation(torch.tensor(TILTED, dtype=torch.float64)).T
    first = (dirs @ dirs.new_tensor([1.0, 1e-3, 1e-6])) > 0  # one of each pair of opposites
    half = dirs[first]
    e1 = torch.linalg.cross(half, torch.eye(3, dtype=half.dtype)[half.abs().argmin(1)])
    e1 = torch.nn.functional.normalize(e1, dim=1)
    frames = torch.stack([e1, torch.linalg.cross(half, e1), half], 1)
    dirs = torch.cat([half, -half])
    return frames.to(device), (dirs @ dirs.T).topk(7, dim=1).indices[:, 1:].to(device)
