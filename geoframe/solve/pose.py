"""The To-The-Point layer: pose and deformation of a template from 2D points, one small problem a sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_choice, check_finite, check_float, check_int, check_shape
from geoframe._precision import full_precision
from geoframe.camera import WeakPerspective
from geoframe.solve import _robust, _robust_weak, _weak
from geoframe.solve._judged import (
    STARTS,
    Given,
    affine_scale,
    centred,
    deformed,
    judged,
    seen_coefficients,
    told_apart,
)
from geoframe.solve._judged import Rival as Rival
from geoframe.solve._moments import Moments, moments, or_one
from geoframe.solve.implicit import implicit_solution
from geoframe.transforms import skew

CLOSE = (
    1e-2  # of the squares of the points: objectives that near are told apart by the points, not by moments
)


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
    start: Solution | None = None,
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
        start: what was found for nearly the same points: the alternation goes on from its two poses, and nothing is
            searched for. It is a constant: no gradient reaches it.

    Returns:
        Solution, computed in float64 and returned in the dtype of the points. Gradients reach points, visibility,
        template, basis, ridge and scale through the optimality conditions (implicit function theorem): once, not
        twice differentiable.

    Raises:
        TypeError: dtypes that are not floating.
        ValueError: shapes that do not agree, NaN, negative weights, a robust loss with the scale "std", a start with
            another mode than "alternation", with a robust loss or for another number of samples.

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
    if start is not None:
        if mode != "alternation" or loss != "squared" or start.scale.shape != batch:
            raise ValueError(
                f"start: expected one for mode 'alternation', loss 'squared' and samples of shape {tuple(batch)}, "
                f"found {mode!r}, {loss!r} and {tuple(start.scale.shape)}"
            )
        check_finite(start.R, "start.R")
        check_finite(start.scale, "start.scale")
    if loss != "squared":
        if isinstance(scale, str) and scale == "std":
            raise ValueError(
                f"scale: expected 'free' or numbers with loss={loss!r}, found 'std'; outliers are part of the deviation"
            )
        best, second, good, unique, n_steps, weights = _robust_weak.solve(given, s, loss)
        return _solution(best, second, good, unique, n_steps, weights, batch, u.dtype)
    mom = moments(u, v, T, B)
    if s is None:
        s = affine_scale(mom) if free else spread(mom)
    if mode == "joint":
        (R, s, c), good, n_steps, best, second = _joint(given, mom, s, free)
    else:
        (R, s, c), good, n_steps, best, second = _alternate(given, mom, s, free, steps, start)
    if _asks_for_gradient(mom, s, gamma):
        best = judged(given, mom, R, s, c)
    enough = v.detach().count_nonzero(1) >= 3
    good = good & enough & seen_coefficients(mom, R, s, gamma)
    unique = good & told_apart((mom.weight, mom.uu), v, best, second, 6 if free else 5)
    return _solution(best, second, good, unique, n_steps, v, batch, u.dtype)


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


Pose = tuple[Tensor, Tensor, Tensor]  # R, scale, alpha
Found = tuple[
    Pose, Tensor, Tensor, Rival, Rival
]  # the best, whether it converged, steps; the two best, judged


def _alternate(
    given: Given, mom: Moments, s: Tensor, free: bool, steps: int, start: Solution | None
) -> Found:
    """Eq. 5 and 6 in turn, from the two lowest rigid poses or those of `start`; each rotation is differentiated through
    its optimality."""
    gamma, still = given.ridge, mom.detach()
    steps = steps if mom.G.shape[1] > 1 or start is not None else 1  # there is nothing to take turns with
    nothing, alpha = torch.zeros_like(gamma), mom.G.new_zeros(len(s), mom.G.shape[1] - 1)
    with torch.no_grad():
        if start is None:
            first, second, told = _weak.two_lowest(
                still.collapse(alpha), s, nothing, STARTS["alternation"], free=free
            )
        else:
            first, second, told = _gone_on_from(start, s, free)
        chain = partial(_chain, free=free, steps=steps, rigid=start is None)
        poses = chain(still, first, gamma)
        rivals = _weak.Optimum(*(x.expand(steps, *x.shape) for x in second))  # not followed if far behind
        near = told & (second.values[:, 0] - first.values[:, 0] <= _weak.REFLECTED * mom.uu)
        rows = near.nonzero()[:, 0]
        if len(rows) and (steps > 1 or start is not None):
            followed = chain(still.take(rows), _weak.Optimum(*(x[rows] for x in second)), gamma[rows])
            rivals = _weak.Optimum(*(x.index_copy(1, rows, y) for x, y in zip(rivals, followed, strict=True)))
        end = _ended(still, poses.at(-1), gamma)
        ends = [end, _ended_where(told, still, rivals.at(-1), gamma, end)]
        swap, lower, higher = _ranked(given, still, ends, told)
        if bool(swap.any()):
            first = _weak.Optimum(*map(_chosen, [swap] * 5, second, first))
            poses = _weak.Optimum(*map(_chosen, [swap.expand(steps, -1)] * 5, rivals, poses))
        good, n_steps = poses.strict.all(0), poses.steps.sum(0)
    R, scale, alpha_end, _ = (_chosen(swap, y, x) for x, y in zip(*ends, strict=True))
    if _asks_for_gradient(mom, s, gamma):
        if start is not None:
            alpha = _weak.coefficients(mom, first.R, first.s if free else s, gamma)
        for i in range(steps):
            R, scale, _ = _differentiable(mom.collapse(alpha), s, nothing, poses.at(i), free)
            alpha = _weak.coefficients(mom, R, scale, gamma)
        alpha_end = alpha
    return (R, scale, alpha_end), good, n_steps, lower, higher


def _gone_on_from(start: Solution, s: Tensor, free: bool) -> tuple[_weak.Optimum, _weak.Optimum, Tensor]:
    """The two poses of a solution, and whether there is a second one (B,) bool; scales are given if not free."""
    told = start.second.value.isfinite().flatten()
    out = []
    for pose in (start, start.second):
        R, scale, value = pose.R.detach().reshape(-1, 3, 3).double(), pose.scale.detach(), pose.value.detach()
        R = 1.5 * R - 0.5 * R @ R.mT @ R  # a rotation to more digits than those of float32
        at = scale.flatten().double() if free else s.detach()
        no_derivatives = (0, 4 + 4**2 if free else 3 + 3**2)  # those of the last problem are none of this one
        values = torch.nn.functional.pad(value.reshape(-1, 1).double(), no_derivatives)
        out.append(_weak.Optimum(R, at, values, start.converged.flatten(), 0 * start.steps.flatten()))
    first, second = out
    return first, _weak.Optimum(*map(_chosen, [told] * 5, second, first)), told


def _chain(
    mom: Moments, start: _weak.Optimum, gamma: Tensor, *, free: bool, steps: int, rigid: bool
) -> _weak.Optimum:
    """The poses (steps, B, ...) of the alternation: `start` is the first, if it is of the rigid template, or before."""
    if not rigid:
        return _weak.alternate(mom, start.R, start.s, gamma, steps, free=free)
    if steps == 1:
        return _weak.Optimum(*(x[None] for x in start))
    more = _weak.alternate(mom, start.R, start.s, gamma, steps - 1, free=free)
    return _weak.Optimum(*(torch.cat([x[None], y]) for x, y in zip(start, more, strict=True)))


def _joint(given: Given, mom: Moments, s: Tensor, free: bool) -> Found:
    """The minimum over pose and coefficients together."""
    still, gamma = mom.detach(), given.ridge
    with torch.no_grad():
        *found, told = _weak.two_lowest(still, s, gamma, STARTS["joint"], free=free)
        ends = [_ended(still, x, gamma) for x in found]
        swap, lower, higher = _ranked(given, still, ends, told)
        best = _weak.Optimum(*map(_chosen, [swap] * 5, found[1], found[0]))
    return _differentiable(mom, s, gamma, best, free), best.strict, best.steps, lower, higher


class _End(NamedTuple):
    """Where a search ended: rotation, scale, coefficients, and the objective to the rounding of the moments."""

    R: Tensor
    s: Tensor
    c: Tensor
    value: Tensor


def _ended(mom: Moments, pose: _weak.Optimum, gamma: Tensor) -> _End:
    return _End(pose.R, pose.s, *_weak.coefficients_and_value(mom, pose.R, pose.s, gamma))


def _ended_where(told: Tensor, mom: Moments, pose: _weak.Optimum, gamma: Tensor, other: _End) -> _End:
    """Of the samples where `told`; elsewhere it is the other one."""
    rows = told.nonzero()[:, 0]
    if not len(rows):
        return other
    there = _ended(mom.take(rows), _weak.Optimum(*(x[rows] for x in pose)), gamma[rows])
    return _End(*map(_replaced, other, [rows] * len(other), there))


def _ranked(given: Given, mom: Moments, ends: list[_End], told: Tensor) -> tuple[Tensor, Rival, Rival]:
    """Whether the second of two poses is the lower one (B,), and both in that order.

    The second is at infinity where it is the same. Far above the first it is judged by the moments alone.
    """
    given = Given(*(x.detach() for x in given))
    first, second = ends
    a = judged(given, mom, first.R, first.s, first.c)
    error = (second.value - given.ridge * second.c.square().sum(1)).clamp_min(0)
    residual = (error / or_one(mom.weight)).sqrt()
    b = (second.R, centred(mom, second.R, second.s, second.c), second.s, second.c, second.value, residual)
    b = Rival(*(x.to(given.u.dtype) for x in b))
    told = told & ((first.R - second.R).square().sum((1, 2)) > 2 * _weak.SAME**2)
    rows = (told & (b.value <= 2 * a.value + CLOSE * mom.uu)).nonzero()[:, 0]
    if len(rows):
        near = judged(given.take(rows), mom.take(rows), *(x[rows] for x in second[:3]))
        b = Rival(*map(_replaced, b, [rows] * 6, near))
    swap = told & (b.value < a.value)
    if bool(swap.any()):
        a, b = (Rival(*map(_chosen, [swap] * 6, x, y)) for x, y in ((b, a), (a, b)))
    none = b.value.new_full((), torch.inf)
    b = b._replace(value=b.value.where(told, none), residual=b.residual.where(told, none))
    alone = a._replace(value=b.value, residual=b.residual)
    return swap, a, Rival(*map(_chosen, [told] * 6, b, alone))


def _replaced(x: Tensor, rows: Tensor, y: Tensor) -> Tensor:
    """x with other rows."""
    return x.index_copy(0, rows, y)


def _chosen(which: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rows of x where `which`, else of y."""
    return torch.where(which.view(*which.shape, *[1] * (x.ndim - which.ndim)), x, y)


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
