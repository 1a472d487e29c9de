"""The To-The-Point layer: pose and deformation of a template from 2D points, one small problem a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_choice, check_finite, check_float, check_int, check_shape
from geoframe._precision import full_precision
from geoframe.camera import WeakPerspective
from geoframe.solve import _robust, _weak
from geoframe.solve._moments import Moments, moments, or_one, with_one
from geoframe.solve.implicit import implicit_solution
from geoframe.transforms import skew

STARTS = {"alternation": 2, "joint": 3}  # rotations refined after the search over all of them
ODDS = 100.0  # to one, for the best pose against the second, from which on it is unique
UNSEEN = 1e-12  # of the size of the basis: coefficients whose equations are smaller are not determined
ROUNDING = 8.0  # units in the last place, of the points, that their distances are uncertain by
CLOSE = (
    1e-2  # of the squares of the points: objectives that near are told apart by the points, not by moments
)
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


@dataclass(frozen=True, eq=False)
class Solution:
    """What `solve_pose` found, for samples of any leading shape (...).

    Attributes:
        R: (..., 3, 3) rotation, world to camera.
        t: (..., 2) translation, in the unit of the points.
        scale: (...) units of the points per unit of the template.
        alpha: (..., K) coefficients of the basis.
        value: (...) the objective, eq. 4.
        residual: (...) root of the weighted mean of the squared distances between points and projections, in the
            unit of the points. It tells whether the pose explains the points.
        converged: (...) bool, whether a strict minimum was reached. False for input that does not determine the pose
            even locally: fewer than three visible points, all of them in one place or on a line, coefficients that
            no point sees and no ridge holds. The answer is then still a lowest one found, finite, with a rotation
            R; it passes no gradient where the pose is not locally determined.
        unique: (...) bool, whether it converged and no other minimum explains the points almost as well. Three
            points, a flat template and an almost flat one under noise have two poses, mirrored in depth.
            "Almost as well": by noise of unknown strength the best pose is less than 100 times as likely as the
            second, ``(value_2 / value_1)^(nu / 2) < 100`` with ``nu = 2 N - 5`` (2 N - 6 with a free scale), N the
            effective number of points. Of the poses called unique 1 % or less should be wrong; measured in
            experiments/global_pose.
        second: the second-best minimum, a `Rival`.
        steps: (...) int64, Newton steps taken from the best start.
        weights: (..., V) what each point counted, from 0 to its visibility; with the squared loss its visibility.
    """

    R: Tensor
    t: Tensor
    scale: Tensor
    alpha: Tensor
    value: Tensor
    residual: Tensor
    converged: Tensor
    unique: Tensor
    second: Rival
    steps: Tensor
    weights: Tensor

    def shape(self, template: Tensor, basis: Tensor) -> Tensor:
        """(..., V, 3) the deformed template ``T + sum_k alpha_k B_k``, not turned."""
        return deformed(template, basis, self.alpha)

    def project(self, points: Tensor) -> Tensor:
        """(..., N, 2) where points (..., N, 3) of the template's frame land: ``scale (R X)_xy + t``."""
        return self.scale[..., None, None] * (points @ self.R[..., :2, :].mT) + self.t[..., None, :]

    def camera(self, size: tuple[int, int]) -> WeakPerspective:
        """The weak perspective cameras, for points in pixels of images of `size` (H, W)."""
        return WeakPerspective(self.R, self.t, self.scale, size)


def deformed(template: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    """(..., V, 3) template (..., V, 3) plus the sum of alpha (..., K) times the basis (..., K, V, 3)."""
    flat = basis.flatten(-2)
    offset = alpha @ flat if flat.ndim == 2 else (alpha[..., None, :] @ flat)[..., 0, :]
    return template + offset.unflatten(-1, basis.shape[-2:])


@full_precision
def solve_pose(
    points: Tensor,
    visibility: Tensor | None,
    template: Tensor,
    basis: Tensor | None = None,
    *,
    ridge: float | Tensor = 1.0,
    scale: Tensor | str = "std",
    mode: str = "alternation",
    steps: int = 4,
    loss: str = "squared",
) -> Solution:
    """Rotation, translation and coefficients that project a deformable template onto 2D points.

    Minimises, for each sample on its own, ``sum_i v_i |u_i - (scale (R X_i)_xy + t)|^2 + ridge |alpha|^2`` with
    ``X = T + sum_k alpha_k B_k``. The global start is a search over all rotations, without random numbers; then
    Newton steps on the rotations. All iterations work on moments of the points, O(K^2) numbers a sample.

    Args:
        points: u (..., V, 2), in any unit.
        visibility: v (..., V), weights of at least 0, or None for ones.
        template: T (V, 3), or (..., V, 3) one a sample.
        basis: (K, V, 3) or (..., K, V, 3), or None for a rigid template.
        ridge: weight of the coefficients' squares, a number or one a sample, at least 0.
        scale: (...) the camera's scale; or "std", the weighted standard deviation of both coordinates of u, as in
            the paper; or "free", to find it too.
        mode: "alternation", `steps` times a rigid pose for the last shape, from the global start at first, and
            coefficients in closed form for the last pose, as in the paper; or "joint", the minimum over pose and
            coefficients together (variable projection).
        steps: number of alternations, at least 1; 1 to 4 in the paper.
        loss: "squared"; or "huber" or "geman-mcclure", which outliers move little or not at all: 20 % of 30 points
            may lie anywhere. Its scale follows the median distance. It is minimised jointly, whatever the mode, and
            needs a scale that is given or "free".

    Returns:
        Solution, computed in float64 and returned in the dtype of the points. Gradients reach points, visibility,
        template, basis, ridge and scale through the optimality conditions (implicit function theorem): once, not
        twice differentiable.

    Raises:
        TypeError: dtypes that are not floating.
        ValueError: shapes that do not agree, NaN, negative weights, a robust loss with the scale "std".

    Source: Kokkinos & Kokkinos 2021, To The Point, eq. 3-7. Differs from the released code, which weights by
        v^2, leaves the visibility out of eq. 7 and out of "std", solves a batch as one problem from a random
        start, and passes no gradient to the template.
    """
    check_choice(mode, ("alternation", "joint"), "mode")
    check_int(steps, "steps", low=1)
    check_choice(loss, _robust.LOSSES, "loss")
    u, v, T, B, gamma, s, batch = prepare(points, visibility, template, basis, ridge, scale)
    free = isinstance(scale, str) and scale == "free"
    given = Given(u, v, T, B, gamma)
    if loss != "squared":
        from geoframe.solve import _robust_weak

        if isinstance(scale, str) and scale == "std":
            raise ValueError(
                f"scale: expected 'free' or numbers with loss={loss!r}, found 'std'; outliers are part of the deviation"
            )
        best, second, good, unique, n_steps, weights = _robust_weak.solve(given, s, loss)
        return _solution(best, second, good, unique, n_steps, weights, batch, u.dtype)
    mom = moments(u, v, T, B)
    if s is None:
        s = affine_scale(mom) if free else spread(mom)
    solve = _joint if mode == "joint" else _alternate
    (R, s, c), good, n_steps, best, second = solve(given, mom, s, free, steps)
    if _asks_for_gradient(mom, s, gamma):
        best = judged(given, mom, R, s, c)
    enough = v.detach().count_nonzero(1) >= 3
    good = good & enough & seen_coefficients(mom, R, s, gamma)
    unique = good & told_apart((mom.weight, mom.uu), v, best, second, 6 if free else 5)
    return _solution(best, second, good, unique, n_steps, v, batch, u.dtype)


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


def prepare(
    points: Tensor,
    visibility: Tensor | None,
    template: Tensor,
    basis: Tensor | None,
    ridge: float | Tensor,
    scale: Tensor | str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, torch.Size]:
    """Checked input with one batch dimension B: u, v, T, basis, ridge (B,), scale (B,) or None, and the batch."""
    points = as_tensor(points, "points")
    template = as_tensor(template, "template", like=points)
    basis = None if basis is None else as_tensor(basis, "basis", like=points)
    visibility = None if visibility is None else as_tensor(visibility, "visibility", like=points)
    V = check_shape(check_float(points, "points"), "... V 2", "points")["V"]
    batch = points.shape[:-2]
    check_shape(check_float(template, "template"), f"... {V} 3", "template")
    if basis is None:
        basis = template.new_zeros(0, V, 3)
    check_shape(check_float(basis, "basis"), f"... K {V} 3", "basis")
    v = torch.ones_like(points[..., 0]) if visibility is None else visibility
    check_shape(check_float(v, "visibility"), f"... {V}", "visibility")
    for name, x in (("points", points), ("visibility", v), ("template", template), ("basis", basis)):
        check_finite(x, name)
    if bool((v < 0).any()):
        raise ValueError(f"visibility: expected weights of at least 0, found {float(v.detach().min()):.3g}")
    gamma = _per_sample(ridge, batch, points, "ridge")
    if bool((gamma < 0).any()):
        raise ValueError(f"ridge: expected at least 0, found {float(gamma.detach().min()):.3g}")
    s = None
    if isinstance(scale, str):
        check_choice(scale, ("std", "free"), "scale")
    else:
        s = _per_sample(scale, batch, points, "scale")
        if not bool((s > 0).all()):
            raise ValueError(f"scale: expected positive numbers, found {float(s.detach().min()):.3g}")
    template, basis = (
        x if x.ndim == n else x.expand(*batch, *x.shape[-n:]).reshape(-1, *x.shape[-n:])
        for x, n in ((template, 2), (basis, 3))
    )
    u, v = points.reshape(-1, V, 2), v.expand(*batch, V).reshape(-1, V)
    return u, v, template, basis, gamma, s, batch


def _per_sample(x: float | Tensor, batch: torch.Size, like: Tensor, name: str) -> Tensor:
    """(B,) float64 from a number or a tensor of the batch's shape."""
    x = torch.as_tensor(x, dtype=torch.float64, device=like.device)
    if x.ndim and x.shape != batch:
        raise ValueError(f"{name}: expected a number or shape {tuple(batch)}, found {tuple(x.shape)}")
    return x.expand(batch).reshape(-1)


def spread(mom: Moments) -> Tensor:
    """(B,) weighted standard deviation of both coordinates of the points; one where they all agree."""
    return or_one(mom.uu / (2 * or_one(mom.weight))).sqrt()


def affine_scale(mom: Moments) -> Tensor:
    """(B,) mean singular value of the best affine projection of the template, a start for a free scale."""
    G, H = mom.G[:, 0, 0].detach(), mom.H[:, 0].detach()
    trace = G.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    eye = torch.eye(3, dtype=G.dtype, device=G.device)
    M = torch.linalg.solve_ex(G + (1e-6 * trace + 1e-300) * eye, H.mT)[0].mT
    size = torch.linalg.svdvals(M).mean(1)
    return or_one(size)


def judged(given: Given, mom: Moments, R: Tensor, s: Tensor, c: Tensor) -> Rival:
    """A pose with its translation, value and residual, in the dtype of the points.

    Value and residual come from the points themselves: differences of moments cancel.
    """
    u, v, T, basis, gamma = given
    centre = (mom.mean_f * with_one(c)[..., None]).sum(1)
    t = mom.mean_u - s[:, None] * (R[:, :2] @ centre[..., None])[..., 0]
    R, s, c, t, gamma, v, T, basis = (x.to(u.dtype) for x in (R, s, c, t, gamma, v, T, basis))
    away = u - t[:, None] - s[:, None, None] * (deformed(T, basis, c) @ R[:, :2].mT)
    error = (v * away.square().sum(-1)).sum(1)
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


Pose = tuple[Tensor, Tensor, Tensor]  # R, scale, alpha
Found = tuple[
    Pose, Tensor, Tensor, Rival, Rival
]  # the best, whether it converged, steps; the two best, judged


def _alternate(given: Given, mom: Moments, s: Tensor, free: bool, steps: int) -> Found:
    """Eq. 5 and 6 in turn, from the two lowest rigid poses; each rotation is differentiated through its optimality."""
    gamma, still = given.ridge, mom.detach()
    nothing, alpha = torch.zeros_like(gamma), mom.G.new_zeros(len(s), mom.G.shape[1] - 1)
    with torch.no_grad():
        first, second, told = _weak.two_lowest(
            still.collapse(alpha), s, nothing, STARTS["alternation"], free=free
        )
        poses = _chain(still, first, gamma, free, steps)
        rivals = [second] * steps  # one that is far behind is not followed
        near = told & (second.values[:, 0] - first.values[:, 0] <= _weak.REFLECTED * mom.uu)
        rows = near.nonzero()[:, 0]
        if len(rows) and steps > 1:
            start = _weak.Optimum(*(x[rows] for x in second))
            followed = _chain(still.take(rows), start, gamma[rows], free, steps)
            rivals = [_weak.Optimum(*map(_replaced, second, [rows] * 5, x)) for x in followed]
        ends = [
            (x[-1].R, x[-1].s, _weak.coefficients(still, x[-1].R, x[-1].s, gamma)) for x in (poses, rivals)
        ]
        swap, lower, higher = _ranked(given, still, ends, told)
        if bool(swap.any()):
            poses = [
                _weak.Optimum(*map(_chosen, [swap] * 5, y, x)) for x, y in zip(poses, rivals, strict=True)
            ]
        good = torch.stack([pose.strict for pose in poses]).all(0)
        n_steps = torch.stack([pose.steps for pose in poses]).sum(0)
    R, scale, alpha_end = (_chosen(swap, y, x) for x, y in zip(*ends, strict=True))
    if _asks_for_gradient(mom, s, gamma):
        for pose in poses:
            R, scale, _ = _differentiable(mom.collapse(alpha), s, nothing, pose, free)
            alpha = _weak.coefficients(mom, R, scale, gamma)
        alpha_end = alpha
    return (R, scale, alpha_end), good, n_steps, lower, higher


def _chain(mom: Moments, start: _weak.Optimum, gamma: Tensor, free: bool, steps: int) -> list[_weak.Optimum]:
    """The poses of the alternation from a rigid one."""
    return [start, *_weak.alternate(mom, start.R, start.s, gamma, steps - 1, free=free)]


def _joint(given: Given, mom: Moments, s: Tensor, free: bool, _: int) -> Found:
    """The minimum over pose and coefficients together."""
    still, gamma = mom.detach(), given.ridge
    with torch.no_grad():
        *found, told = _weak.two_lowest(still, s, gamma, STARTS["joint"], free=free)
        ends = [(x.R, x.s, _weak.coefficients(still, x.R, x.s, gamma)) for x in found]
        swap, lower, higher = _ranked(given, still, ends, told)
        best = _weak.Optimum(*map(_chosen, [swap] * 5, found[1], found[0]))
    return _differentiable(mom, s, gamma, best, free), best.strict, best.steps, lower, higher


def _ranked(given: Given, mom: Moments, ends: list[Pose], told: Tensor) -> tuple[Tensor, Rival, Rival]:
    """Whether the second of two poses is the lower one (B,), and both in that order.

    The second is at infinity where it is the same. Far above the first it is judged by the moments alone.
    """
    given = Given(*(x.detach() for x in given))
    a, b = judged(given, mom, *ends[0]), _judged_by_moments(given, mom, *ends[1])
    told = told & ((ends[0][0] - ends[1][0]).square().sum((1, 2)) > 2 * _weak.SAME**2)
    rows = (told & (b.value <= 2 * a.value + CLOSE * mom.uu)).nonzero()[:, 0]
    if len(rows):
        near = judged(given.take(rows), mom.take(rows), *(x[rows] for x in ends[1]))
        b = Rival(*map(_replaced, b, [rows] * 6, near))
    swap = told & (b.value < a.value)
    if bool(swap.any()):
        a, b = (Rival(*map(_chosen, [swap] * 6, x, y)) for x, y in ((b, a), (a, b)))
    none = b.value.new_full((), torch.inf)
    return swap, a, b._replace(value=b.value.where(told, none), residual=b.residual.where(told, none))


def _judged_by_moments(given: Given, mom: Moments, R: Tensor, s: Tensor, c: Tensor) -> Rival:
    """As `judged`, to the rounding of the moments."""
    rigid = mom.collapse(c)
    M = s[:, None, None] * R[:, :2]
    error = mom.uu + (M * (M @ rigid.G[:, 0, 0] - 2 * rigid.H[:, 0])).sum((1, 2))
    error = error.clamp_min(0)
    t = mom.mean_u - (M @ rigid.mean_f[:, 0, :, None])[..., 0]
    value, residual = error + given.ridge * c.square().sum(1), (error / or_one(mom.weight)).sqrt()
    return Rival(*(x.to(given.u.dtype) for x in (R, t, s, c, value, residual)))


def _replaced(x: Tensor, rows: Tensor, y: Tensor) -> Tensor:
    """x with other rows."""
    x = x.clone()
    x[rows] = y
    return x


def _chosen(which: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rows of x where `which`, else of y."""
    return torch.where(which.view(-1, *[1] * (x.ndim - 1)), x, y)


def _asks_for_gradient(mom: Moments, s: Tensor, gamma: Tensor) -> bool:
    return any(x.requires_grad for x in (mom.G, mom.H, s, gamma))


def _differentiable(
    mom: Moments, s: Tensor, gamma: Tensor, best: _weak.Optimum, free: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """R, scale and coefficients of a minimum as functions of the moments, the ridge and a given scale."""
    d, K = 4 if free else 3, mom.G.shape[1] - 1
    hessian, c = best.values[:, d + 1 :].reshape(-1, d, d), best.s.new_zeros(len(s), 0)
    if K:
        with torch.no_grad():
            there = _weak.model(mom.detach(), best.R, best.s, gamma, free=free)
        hessian, c = there.hessian(), there.c
    if not _asks_for_gradient(mom, s, gamma):
        return best.R, best.s, c

    def gradient(x: Tensor, G: Tensor, H: Tensor, gamma: Tensor, scale: Tensor) -> Tensor:
        return _weak.full_gradient(G, H, best.R, scale, x[:, d:], gamma, free=free)

    x = torch.cat([c.new_zeros(len(s), d), c], 1)
    scale = best.s if free else s
    x = implicit_solution(x, hessian, best.strict, gradient, mom.G, mom.H, gamma, scale)
    R = best.R + skew(x[:, :3]) @ best.R
    return R, best.s * (1 + x[:, 3]) if free else s, x[:, d:]


def _solution(
    best: Rival,
    second: Rival,
    good: Tensor,
    unique: Tensor,
    steps: Tensor,
    weights: Tensor,
    batch: torch.Size,
    dtype: torch.dtype,
) -> Solution:
    """The fields in the batch's shape and the points' dtype."""
    first, other = ([x.to(dtype).reshape(batch + x.shape[1:]) for x in pose] for pose in (best, second))
    R, t, scale, alpha, value, residual = first
    good, unique, steps = (x.reshape(batch) for x in (good, unique, steps))
    weights = weights.to(dtype).reshape(*batch, -1)
    return Solution(R, t, scale, alpha, value, residual, good, unique, Rival(*other), steps, weights)
