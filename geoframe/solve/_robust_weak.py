"""The weak perspective pose with a robust loss: a graduated start over all rotations, then Newton on all conditions."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe.solve import _robust, _weak
from geoframe.solve._judged import (
    STARTS,
    Given,
    Rival,
    affine_scale,
    deformed,
    judged,
    seen_coefficients,
    told_apart,
)
from geoframe.solve._moments import moments, or_one
from geoframe.solve.implicit import implicit_solution
from geoframe.transforms import rotvec_to_rotation, skew

GLOBAL = 14  # rounds of the start that search all rotations, while the loss grows robust
LOCAL = 30  # rounds at the wanted loss from the last pose
LENIENT = 64.0  # times the square of c in the first round: almost the squared loss
TIGHTER = 1.5  # by what it is divided each round


def solve(given: Given, s: Tensor | None, loss: str) -> tuple[Rival, Rival, Tensor, Tensor, Tensor, Tensor]:
    """The best pose and the second, whether the best converged and is unique, steps, and what each point counted.

    Source: graduated non-convexity, Yang et al. 2020; derivatives by the implicit function theorem, through the
    median that sets the loss's scale, too.
    """
    data = tuple(x.double() for x in given)
    data = (*data, s) if s is not None else data
    plain = Given(*(x.detach() for x in data[:5]))
    with torch.no_grad():
        R, size, c, t = _start(plain, None if s is None else s.detach(), loss)
    K = c.shape[1]
    x = torch.cat([torch.zeros_like(R[:, 0]), t, c, *([size.log()[:, None]] if s is None else [])], 1)
    for _ in range(2):  # the rotation vector starts at zero in the second pass, where its form is exact
        problem = _problem(R, K, loss)
        fit = problem.polished(x, *data)
        R = rotvec_to_rotation(fit.y[:, :3]) @ R
        x = torch.cat([torch.zeros_like(R[:, 0]), fit.y[:, 3:-1]], 1)
    R = rotvec_to_rotation(-fit.y[:, :3]) @ R  # the frame of the fit
    y = fit.y
    if any(d.requires_grad for d in data):
        y = implicit_solution(y, fit.jacobian.mT, fit.strict, problem.conditions, *data)
    weights = problem.weights(y, *data)
    residual = (weights * problem.squares(y[:, :-1], *data)).sum(1) / or_one(weights.sum(1))
    turned = R + skew(y[:, :3]) @ R
    size = s if s is not None else y[:, 5 + K].exp()
    value, tiny = problem.value(y, *data), torch.finfo(torch.float64).tiny
    best = Rival(turned, y[:, 3:5], size, y[:, 5 : 5 + K], value, residual.clamp_min(tiny).sqrt())
    with torch.no_grad():
        second, good, unique = _second(plain, Rival(*(x.detach() for x in best)), weights.detach(), s is None)
        good = good & fit.strict & (plain.v.count_nonzero(1) >= 3)
    return (
        best,
        second,
        good,
        unique & good,
        torch.full_like(good, GLOBAL + LOCAL, dtype=torch.int64),
        weights,
    )


def inlier_weights(plain: Given) -> Tensor:
    """(B, V) weights that outliers have lost, by weak perspective with a free scale and the Geman-McClure loss."""
    R, s, c, t = _start(plain, None, "geman-mcclure")
    square = _problem(R, c.shape[1], "geman-mcclure").squares(
        torch.cat([torch.zeros_like(R[:, 0]), t, c, s.log()[:, None]], 1), *plain
    )
    least = _robust.LEAST_SCALE * _robust.deviation(plain.u, plain.v)
    c = _robust.noise_scale(square, plain.v, least, "geman-mcclure")
    return plain.v * _robust.weight(square, c, "geman-mcclure")


def _start(plain: Given, s: Tensor | None, loss: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotation, scale, coefficients and translation near the robust minimum."""
    u, v, T, basis, ridge = plain
    w, free = v, s is None
    least = _robust.LEAST_SCALE * _robust.deviation(u, v)
    for k in range(GLOBAL + LOCAL):
        mom = moments(u, w, T, basis)
        size = affine_scale(mom) if s is None else s
        if k < GLOBAL:
            best, *_ = _weak.two_lowest(mom, size, ridge, STARTS["joint"], free=free)
        else:
            best = _weak.minimise(mom, best.R, best.s if free else size, ridge, free=free)
        c = _weak.coefficients(mom, best.R, best.s, ridge)
        t = judged(plain, mom, best.R, best.s, c).t
        away = u - t[:, None] - best.s[:, None, None] * (deformed(T, basis, c) @ best.R[:, :2].mT)
        square = away.square().sum(-1)
        kind = "geman-mcclure" if k < GLOBAL else loss
        lenient = max(1.0, LENIENT / TIGHTER**k) ** 0.5
        w = v * _robust.weight(square, lenient * _robust.noise_scale(square, v, least, kind), kind)
    return best.R, best.s, c, t


def _problem(R: Tensor, K: int, loss: str) -> _robust.Problem:
    """Unknowns: rotation vector on top of R, translation, K coefficients, logarithm of the scale unless given."""

    def squares(
        x: Tensor, u: Tensor, v: Tensor, T: Tensor, basis: Tensor, ridge: Tensor, *s: Tensor
    ) -> Tensor:
        size = s[0] if s else x[:, 5 + K].exp()
        W = skew(x[:, :3])
        M = size[:, None, None] * (R + W @ (R + W @ R / 2))[:, :2]
        return (u - x[:, None, 3:5] - deformed(T, basis, x[:, 5 : 5 + K]) @ M.mT).square().sum(-1)

    return _robust.Problem(loss, squares, slice(5, 5 + K))


def _second(plain: Given, best: Rival, weights: Tensor, free: bool) -> tuple[Rival, Tensor, Tensor]:
    """The second pose at the weights of the best one, whether the coefficients are determined, and uniqueness."""
    given = plain._replace(v=weights)
    mom = moments(given.u, weights, given.T, given.basis)
    *found, told = _weak.two_lowest(mom, best.scale, given.ridge, STARTS["joint"], free=False)
    other = [(x.R - best.R).square().sum((1, 2)) > 2 * _weak.SAME**2 for x in found]
    # the first of the two that is not the best pose itself
    pick = _weak.Optimum(
        *(torch.where(other[0].view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(*found, strict=True))
    )
    there = other[0] | (other[1] & told)
    second = judged(given, mom, pick.R, pick.s, _weak.coefficients(mom, pick.R, pick.s, given.ridge))
    none = torch.full_like(second.value, torch.inf)
    second = second._replace(
        value=second.value.where(there, none), residual=second.residual.where(there, none)
    )
    here = judged(given, mom, best.R, best.scale, best.alpha)
    unique = told_apart((mom.weight, mom.uu), weights, here, second, 6 if free else 5)
    return second, seen_coefficients(mom, best.R, best.scale, given.ridge), unique
