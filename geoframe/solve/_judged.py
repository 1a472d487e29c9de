"""A pose and its rival: value and residual of each, and whether the points tell them apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe.solve import _weak
from geoframe.solve._moments import Moments, or_one, with_one

STARTS = {"alternation": 2, "joint": 3}  # rotations refined after the search over all of them
ODDS = 100.0  # to one, for the best pose against the second, from which on it is unique
UNSEEN = 1e-12  # of the size of the basis: coefficients whose equations are smaller are not determined
ROUNDING = 8.0  # units in the last place, of the points, that their distances are uncertain by
EXACT = 1e-9  # of the points' spread: distances that small are zero, as Newton's method stops there


class Rival(NamedTuple):
    """The second-best minimum of a pose problem, without gradient.

    Where no other minimum was found, the pose is that of the best one; value and residual are infinite.

    Attributes:
        R: (..., 3, 3) rotation.
        t: (..., 2) translation by weak perspective, (..., 3) by a pinhole.
        scale: (...) of weak perspective; ones for a pinhole.
        alpha: (..., K) coefficients.
        value: (...) the objective.
        residual: (...) as in the solution.
    """

    R: Tensor
    t: Tensor
    scale: Tensor
    alpha: Tensor
    value: Tensor
    residual: Tensor


def deformed(template: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    """(..., V, 3) template (..., V, 3) plus the sum of alpha (..., K) times the basis (..., K, V, 3)."""
    flat = basis.flatten(-2)
    offset = alpha @ flat if flat.ndim == 2 else (alpha[..., None, :] @ flat)[..., 0, :]
    return template + offset.unflatten(-1, basis.shape[-2:])


class Given(NamedTuple):
    """The problem as given, with one batch dimension: points, weights, template, basis, ridge."""

    u: Tensor
    v: Tensor
    T: Tensor
    basis: Tensor
    ridge: Tensor

    def take(self, rows: Tensor) -> Given:
        """Some samples."""
        T = self.T if self.T.ndim == 2 else self.T[rows]
        basis = self.basis if self.basis.ndim == 3 else self.basis[rows]
        return Given(self.u[rows], self.v[rows], T, basis, self.ridge[rows])


def affine_scale(mom: Moments) -> Tensor:
    """(B,) mean singular value of the best affine projection of the template, a start for a free scale."""
    G, H = mom.G[:, 0, 0].detach(), mom.H[:, 0].detach()
    trace = G.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    eye = torch.eye(3, dtype=G.dtype, device=G.device)
    M = torch.linalg.solve_ex(G + (1e-6 * trace + 1e-300) * eye, H.mT)[0].mT
    size = torch.linalg.svdvals(M).mean(1)
    return or_one(size)


def centred(mom: Moments, R: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """(B, 2) the translation that brings the middle of the shape to that of the points."""
    centre = (mom.mean_f * with_one(c)[..., None]).sum(1)
    return mom.mean_u - s[:, None] * (R[:, :2] @ centre[..., None])[..., 0]


def judged(given: Given, mom: Moments, R: Tensor, s: Tensor, c: Tensor) -> Rival:
    """A pose with its translation, value and residual, in the dtype of the points.

    Value and residual come from the points themselves: differences of moments cancel.
    """
    u, v, T, basis, gamma = given
    t = centred(mom, R, s, c)
    R, s, c, t, gamma, v, T, basis = (x.to(u.dtype) for x in (R, s, c, t, gamma, v, T, basis))
    columns = deformed(T.mT, basis.mT, c)  # coordinates last: products of rows of points are quicker
    away = torch.baddbmm((u - t[:, None]).mT, s[:, None, None] * R[:, :2], columns, alpha=-1)
    error = (v[:, None] * away.square()).sum((1, 2))
    tiny = torch.finfo(error.dtype).tiny  # for a finite gradient at zero
    residual = (error / or_one(mom.weight.to(u.dtype))).clamp_min(tiny).sqrt()
    return Rival(R, t, s, c, error + gamma * c.square().sum(1), residual)


def told_apart(
    extent: tuple[Tensor, Tensor], v: Tensor, best: Rival, second: Rival, n_unknowns: int
) -> Tensor:
    """(B,) bool: whether the best pose is at least ODDS times as likely as the second, by noise of unknown strength.

    Args:
        extent: (B,) sum of the weights and (B,) weighted squares of the points about their mean.
        v: (B, V) weights of the points.
        best: the lowest minimum.
        second: the second one, at infinity where there is none.
        n_unknowns: of the pose.
    """
    weight, size, v = *(x.detach() for x in extent), v.detach()
    n = weight.square() / or_one((v * v).sum(1).double())  # as many points of equal weight
    freedom = (2 * n - n_unknowns).clamp_min(1)
    least = max(ROUNDING * torch.finfo(best.value.dtype).eps, EXACT) ** 2 * size
    least = least + torch.finfo(torch.float64).tiny
    ratio = (second.value.double() + least) / (best.value.detach().double() + least)
    return freedom / 2 * ratio.log() > math.log(ODDS)


def extent(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the weights (B,), and weighted squares (B,) of points u (B, V, 2) about their mean."""
    weight = v.sum(1)
    mean = (v[..., None] * u).sum(1, keepdim=True) / or_one(weight)[:, None, None]
    return weight, (v * (u - mean).square().sum(-1)).sum(1)


def seen_coefficients(mom: Moments, R: Tensor, s: Tensor, gamma: Tensor) -> Tensor:
    """(B,) bool: whether the points and the ridge determine every coefficient."""
    out = torch.ones_like(s, dtype=torch.bool)
    with torch.no_grad():
        size = mom.G.diagonal(dim1=1, dim2=2)[..., 1:].diagonal(dim1=1, dim2=2).sum((1, 2)) * s**2
        rows = (gamma <= UNSEEN * size).nonzero()[:, 0]  # elsewhere the ridge alone does
        if mom.G.shape[1] > 1 and len(rows):
            there = mom.take(rows).detach()
            inner = _weak.model(there, R[rows], s[rows], gamma[rows], free=False).inner
            scale = inner.diagonal(dim1=1, dim2=2).clamp_min(0)
            least = torch.linalg.eigvalsh(inner / or_one(scale.amax(1))[:, None, None])[:, 0]
            out[rows] = (size[rows] > 0) & (scale.amin(1) > UNSEEN * size[rows]) & (least > UNSEEN)
    return out
