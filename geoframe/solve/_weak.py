"""The weak-perspective objective on moments: value, derivatives, global starts and Newton's method.

Everything happens in the camera's frame: the moments are turned by R (`turn`), so that the projection is
``s [I 0]`` and its derivatives by a rotation vector w (``R -> exp(skew(w)) R``) and by log s are constants.
The coefficients are eliminated: ``c = argmin`` is a K x K solve for any R and s (variable projection), and the
Hessian is that of the reduced objective, exact. All in float64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe.solve._moments import Moments
from geoframe.transforms import reflection, rotation_angle, rotvec_to_rotation, skew

ENOUGH = 1e-16  # of the Newton decrement, twice the decrease still to come, relative to the size of the terms
ASKED = 1e-24  # where the iteration stops; rounding may keep an ill-conditioned problem from getting there
MOST_STEPS = 60  # Newton steps; a handful is usual
ANGLES = 16  # turns about the viewing direction that the search tries
CHUNK = 2**22  # numbers held at a time by the search


class State(NamedTuple):
    """A point of the iteration for N problems: pose, turned moments, objective and its derivatives.

    R (N, 3, 3), s (N,), G, H (as in Moments), c (N, K), E (N,), g (N, d), hessian (N, d, d) of the reduced
    objective; cross (N, d, K) and inner (N, K, K): mixed and second derivatives with the coefficients.
    """

    R: Tensor
    s: Tensor
    G: Tensor
    H: Tensor
    c: Tensor
    E: Tensor
    g: Tensor
    hessian: Tensor
    cross: Tensor
    inner: Tensor


class Optimum(NamedTuple):
    """Where the iteration ended: its state, whether at a strict minimum (N,) bool, and steps (N,) int."""

    state: State
    strict: Tensor
    steps: Tensor


def minimise(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, *, free: bool) -> Optimum:
    """Newton's method from R (N, 3, 3) and s (N,), each problem on its own.

    The Hessian's eigenvalues count by their absolute value, so that saddles repel; the step is at most a
    trust radius long, which shrinks where the objective would grow. Converged problems are frozen.
    """
    state = _state(mom, R, s, ridge, free)
    radius = torch.full_like(s, 0.7)
    steps = torch.zeros_like(s, dtype=torch.int64)
    floor = mom.uu + s**2 * mom.G[:, 0, :, 0].diagonal(dim1=1, dim2=2).sum(1)
    for _ in range(MOST_STEPS):
        step, decrement = _newton_step(state)
        active = (decrement > ASKED * floor) & (radius > 1e-9)
        if not bool(active.any()):
            break
        length = torch.linalg.vector_norm(step, dim=1)
        step = step * (radius / length.clamp_min(1e-300)).clamp_max(1.0)[:, None]
        scale = state.s * step[:, 3].exp() if free else state.s
        trial = _state(mom, rotvec_to_rotation(step[:, :3]) @ state.R, scale, ridge, free)
        better = active & (state.E + 1e-14 * floor >= trial.E)
        state = State(*(_where(better, a, b) for a, b in zip(trial, state, strict=True)))
        radius = torch.where(better, (2 * radius).clamp_max(1.0), torch.minimum(radius, length) / 4)
        steps += active
    lam = torch.linalg.eigvalsh(state.hessian)
    strict = (_newton_step(state)[1] <= ENOUGH * floor) & (lam[:, 0] > 1e-9 * lam[:, -1])
    return Optimum(state, strict, steps)


def _newton_step(state: State) -> tuple[Tensor, Tensor]:
    lam, V = torch.linalg.eigh(state.hessian)
    lam = lam.abs()
    lam = lam.clamp_min(1e-300).maximum(1e-12 * lam.amax(1, keepdim=True))
    along = (V.mT @ state.g[..., None])[..., 0]
    step = -(V @ (along / lam)[..., None])[..., 0]
    return step, (along.square() / lam).sum(1)


def _where(pick: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(pick.view(-1, *[1] * (a.ndim - 1)), a, b)


def turn(G: Tensor, H: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of the shapes turned by R (N, 3, 3)."""
    N, n = G.shape[:2]
    for _ in range(2):  # the last index each time, and swap
        G = (G.reshape(N, -1, 3) @ R.mT).reshape(N, 3 * n, 3 * n).mT
    return G.reshape(N, n, 3, n, 3), (H.reshape(N, -1, 3) @ R.mT).reshape(H.shape)


def _state(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, free: bool) -> State:
    G, H = turn(mom.G, mom.H, R)
    c, _, A = coefficients(G, H, s, ridge)
    P, q = _projected(G, H, s)
    first, second = generators(R.device, free)
    g, Y, D, spread = pose_gradient(G, H, s, c, first)
    n = len(first)
    LY = (first.reshape(2 * n, 3) @ Y).reshape(-1, n, 6)  # <M_j Y, M_k> / s^2
    hess = 2 * s[:, None, None] * (s[:, None, None] * (LY @ first.T) + (D @ second.T).reshape(-1, n, n))
    cross = 2 * s[:, None, None] * (first @ spread[:, :, 1:])
    E = mom.uu + _quadratic(P, q, c)
    if c.shape[1]:
        E = E + ridge * c.square().sum(1)
        hess = hess - cross @ torch.linalg.solve_ex(2 * A, cross.mT)[0]
    return State(R, s, G, H, c, E, g, (hess + hess.mT) / 2, cross, 2 * A)


def reprojection(mom: Moments, R: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """(N,) weighted sum of the squared reprojection errors at the best translation."""
    return mom.uu + _quadratic(*_projected(*turn(mom.G, mom.H, R), s), c)


def with_one(c: Tensor) -> Tensor:
    """(N, K+1) coefficients of the template, one, and of the basis, c (N, K)."""
    return torch.cat([c.new_ones(len(c), 1), c], 1)


def _quadratic(P: Tensor, q: Tensor, c: Tensor) -> Tensor:
    ones = with_one(c)
    return (((P @ ones[..., None])[..., 0] - 2 * q) * ones).sum(1)


def _projected(G: Tensor, H: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """``P_kl = tr(M G_kl M^T)`` (N, K+1, K+1) and ``q_k = <M, H_k>`` (N, K+1) for M = s [I 0]."""
    P = s[:, None, None] ** 2 * (G[:, :, 0, :, 0] + G[:, :, 1, :, 1])
    return P, s[:, None] * (H[:, 0, :, 0] + H[:, 1, :, 1])


def coefficients(G: Tensor, H: Tensor, s: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best coefficients (N, K) for turned moments; where the solve worked (N,); and its matrix (N, K, K).

    Source: To The Point, eq. 7, with the visibility inside the moments.
    """
    P, q = _projected(G, H, s)
    K = P.shape[1] - 1
    eye = torch.eye(K, dtype=P.dtype, device=P.device)
    A = P[:, 1:, 1:] + ridge[:, None, None] * eye
    # a coefficient that nothing sees and no ridge holds is zero
    trace = A.diagonal(dim1=1, dim2=2).sum(1) if K else s
    A = A + (1e-14 * trace + 1e-300)[:, None, None] * eye
    c, info = torch.linalg.solve_ex(A, (q[:, 1:] - P[:, 1:, 0])[..., None])
    good = info == 0
    return torch.where(good[:, None], c[..., 0], 0.0), good, A


def pose_gradient(
    G: Tensor, H: Tensor, s: Tensor, c: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient (N, d) by the pose; G(c) (N, 3, 3); half its gradient by M, D (N, 6); dD/dc (N, 6, K+1)."""
    N, n = G.shape[:2]
    ones = with_one(c)[:, None]
    half = (ones @ G.reshape(N, n, -1)).reshape(N, 3, n, 3)  # [b, k, a] = sum_l c_l G[l, b, k, a] = Y_k[a, b]
    Y = (ones @ half.transpose(1, 2).reshape(N, n, 9)).reshape(N, 3, 3)
    Y = (Y + Y.mT) / 2
    Hk = H.transpose(2, 3).reshape(N, 6, n)
    D = s[:, None] * Y[:, :2].reshape(N, 6) - (Hk @ ones.mT)[..., 0]
    g = 2 * s[:, None] * (D @ first.T)
    both = half.permute(0, 3, 1, 2) + half.permute(0, 1, 3, 2)  # (Y_k + Y_k^T)[a, b] as [a, b, k]
    return g, Y, D, s[:, None, None] * both[:, :2].reshape(N, 6, n) - Hk


def full_gradient(G: Tensor, H: Tensor, s: Tensor, c: Tensor, ridge: Tensor, first: Tensor) -> Tensor:
    """Gradient (N, d + K) by pose and coefficients, for turned moments."""
    P, q = _projected(G, H, s)
    by_c = (P @ with_one(c)[..., None])[:, 1:, 0] - q[:, 1:] + ridge[:, None] * c
    return torch.cat([pose_gradient(G, H, s, c, first)[0], 2 * by_c], 1)


@lru_cache(maxsize=8)
def generators(device: torch.device, free: bool) -> tuple[Tensor, Tensor]:
    """First (d, 6) and second (d * d, 6) derivatives of [I 0] by the rotation vector (and log s)."""
    W = [*skew(torch.eye(3, dtype=torch.float64)), torch.eye(3, dtype=torch.float64)][: 4 if free else 3]
    first = torch.stack([w[:2].reshape(6) for w in W])
    second = torch.stack([((a @ b + b @ a) / 2)[:2].reshape(6) for a in W for b in W])
    return first.to(device), second.to(device)


def starts(mom: Moments, s: Tensor, ridge: Tensor, n_starts: int) -> Tensor:
    """The most promising rotations (B, n_starts, 3, 3) of a search over all rotations.

    For every viewing direction of a grid the coefficients are eliminated and the turn about the direction is
    the best of a trigonometric polynomial. Local minima over the grid, the lowest first; the last start is the
    first one mirrored in depth at the template's flattest plane, which weak perspective can hardly tell apart.
    """
    size = max(1, CHUNK // (len(_half_sphere(s.device)[0]) * (mom.G.shape[1] + 2 * ANGLES) ** 2))
    parts = [
        _starts(mom.take(rows), s[rows], ridge[rows], n_starts)
        for rows in torch.arange(len(s), device=s.device).split(size)
    ]
    return torch.cat(parts)


def _starts(mom: Moments, s: Tensor, ridge: Tensor, n_starts: int) -> Tensor:
    frames, neighbours = _half_sphere(s.device)
    B, n, N = len(s), mom.G.shape[1], len(frames)
    dirs = frames[:, 2]
    nn = (dirs[:, :, None] * dirs[:, None, :]).reshape(N, 9)
    Gkl = mom.G.permute(0, 1, 3, 2, 4).reshape(B, n * n, 9)
    across = torch.eye(3, dtype=s.dtype, device=s.device).reshape(9) - nn
    P = s[:, None, None] ** 2 * (Gkl @ across.T)  # (B, n * n, N)
    P = P.reshape(B, n, n, N).permute(0, 3, 1, 2)
    # e_i . h_jk for the two axes i of the image plane and the rows j of H
    e = torch.einsum("fia,bjka->bfijk", frames[:, :2], mom.H) * s[:, None, None, None, None]
    plus = torch.stack([e[:, :, 0, 0] + e[:, :, 1, 1], e[:, :, 1, 0] - e[:, :, 0, 1]], -2)
    minus = torch.stack([e[:, :, 0, 0] - e[:, :, 1, 1], -e[:, :, 1, 0] - e[:, :, 0, 1]], -2)
    b = torch.stack([plus, minus], 2)  # (B, N, 2 sides, cos|sin, n)
    angle = torch.arange(ANGLES, dtype=s.dtype, device=s.device) * (2 * torch.pi / ANGLES)
    wave = torch.stack([angle.cos(), angle.sin()], -1)  # (ANGLES, 2)
    gain = 2 * (b[..., 0] @ wave.T) - P[:, :, None, None, 0, 0]
    if n > 1:
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
    value = torch.cat([best[..., 0], best[..., 1]], 1)  # (B, 2 N): directions, then their opposites
    at = torch.cat([at[..., 0], at[..., 1]], 1)
    peak = value >= value[:, neighbours].amax(-1)
    spread = value.amax(1, keepdim=True) - value.amin(1, keepdim=True) + 1
    pick = torch.where(peak, value, value - spread).topk(n_starts - 1, dim=1).indices
    R = _rotation(frames, pick, at.gather(1, pick))
    return torch.cat([R, _twin(mom, R[:, :1])], 1)


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


def _twin(mom: Moments, R: Tensor) -> Tensor:
    """The pose R (B, m, 3, 3) of the template mirrored at its flattest plane, seen from behind: Necker's cube."""
    flat = torch.linalg.eigh(mom.G[:, 0, :, 0])[1][..., 0]
    depth = torch.tensor([1.0, 1.0, -1.0], dtype=R.dtype, device=R.device)
    return depth[:, None] * (R @ reflection(flat)[:, None])


@lru_cache(maxsize=4)
def _half_sphere(device: torch.device) -> tuple[Tensor, Tensor]:
    """Frames (81, 3, 3), rows e1, e2, direction, of half the directions of an icosphere; the neighbours
    (162, 6) of all directions, the opposites numbered after the halves."""
    from geoframe.surface.shapes import icosphere

    dirs = icosphere(2).verts.double()
    first = (dirs @ dirs.new_tensor([1.0, 1e-3, 1e-6])) > 0  # one of each pair of opposites
    half = dirs[first]
    e1 = torch.linalg.cross(half, torch.eye(3, dtype=half.dtype)[half.abs().argmin(1)])
    e1 = torch.nn.functional.normalize(e1, dim=1)
    frames = torch.stack([e1, torch.linalg.cross(half, e1), half], 1)
    dirs = torch.cat([half, -half])
    return frames.to(device), (dirs @ dirs.T).topk(7, dim=1).indices[:, 1:].to(device)


def best_of(optimum: Optimum, n_starts: int, uu: Tensor) -> tuple[Tensor, Tensor]:
    """Of each sample's `n_starts` optima in a row: the number of the lowest (B,), and whether it is the only one.

    It is not where another pose, more than 0.001 radians away, is as low to rounding.
    """
    E = optimum.state.E.reshape(-1, n_starts)
    R = optimum.state.R.reshape(-1, n_starts, 3, 3)
    best = E.argmin(1)
    rows = torch.arange(len(E), device=E.device)
    as_low = E - E[rows, best][:, None] <= 1e-10 * uu[:, None]
    elsewhere = rotation_angle(R, R[rows, best][:, None]) > 1e-3
    return rows * n_starts + best, ~(as_low & elsewhere).any(1)
