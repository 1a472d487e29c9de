"""The To-The-Point layer: pose and deformation of a template from 2D points, one small problem a sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import check_choice, check_finite, check_float, check_int, check_shape
from geoframe.camera import WeakPerspective
from geoframe.solve import _weak
from geoframe.solve._moments import Moments, moments, or_one, with_one
from geoframe.solve.implicit import implicit_solution
from geoframe.transforms import skew

STARTS = {"alternation": 2, "joint": 3}  # rotations refined after the search over all of them


@dataclass(frozen=True, eq=False)
class Solution:
    """What `solve_pose` found, for samples of any leading shape (...).

    Attributes:
        R: (..., 3, 3) rotation, world to camera. t: (..., 2) in the unit of the points. scale: (...) points' unit
            a unit of the template. alpha: (..., K) coefficients of the basis.
        value: (...) the objective, eq. 4. residual: (...) root of the weighted mean of the squared distances of
            points and projections, in the unit of the points.
        converged: (...) bool, whether a strict minimum was reached that no other pose found equals. False for
            input that does not determine the pose: fewer than three visible points, all in one place or on a
            line, a flat template (two poses mirrored in depth explain it alike). The answer is then still a
            lowest one found, finite, with a rotation R; it passes no gradient where the pose is not even
            locally determined. Whether the pose explains the points is not told here but by `residual`.
        steps: (...) int64, Newton steps taken from the best start.
    """

    R: Tensor
    t: Tensor
    scale: Tensor
    alpha: Tensor
    value: Tensor
    residual: Tensor
    converged: Tensor
    steps: Tensor

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
) -> Solution:
    """Rotation, translation and coefficients that project a deformable template onto 2D points.

    Minimises, for each sample on its own, ``sum_i v_i |u_i - (scale (R X_i)_xy + t)|^2 + ridge |alpha|^2`` with
    ``X = T + sum_k alpha_k B_k``. The global start is a search over all rotations, without random numbers; then
    Newton steps on the rotations. All iterations work on moments of the points, O(K^2) numbers a sample.

    Args:
        points: u (..., V, 2), in any unit. visibility: v (..., V), weights of at least 0, or None for ones.
        template: T (V, 3), or (..., V, 3) one a sample. basis: (K, V, 3) or (..., K, V, 3), or None for a rigid
            template.
        ridge: weight of the coefficients' squares, a number or one a sample, at least 0.
        scale: (...) the camera's scale; or "std", the weighted standard deviation of both coordinates of u, as
            in the paper; or "free", to find it too.
        mode: "alternation", `steps` times a rigid pose for the last shape, from the global start at first, and
            coefficients in closed form for the last pose, as in the paper; or "joint", the minimum over pose and
            coefficients together (variable projection).
        steps: number of alternations, 1 to 4 in the paper.

    Gradients reach points, visibility, template, basis, ridge and scale through the optimality conditions
    (implicit function theorem): once, not twice differentiable. Computed in float64, returned in the dtype of
    the points.

    Raises:
        TypeError, ValueError: dtypes and shapes that do not agree, NaN, negative weights.

    Source: Kokkinos & Kokkinos 2021, To The Point, eq. 3-7. Differs from the released code, which weights by
        v^2, leaves the visibility out of eq. 7 and out of "std", solves a batch as one problem from a random
        start, and passes no gradient to the template.
    """
    check_choice(mode, ("alternation", "joint"), "mode")
    check_int(steps, "steps", low=1)
    u, v, T, B, gamma, s, batch = prepare(points, visibility, template, basis, ridge, scale)
    mom = moments(u, v, T, B)
    free = isinstance(scale, str) and scale == "free"
    if s is None:
        s = _spread(mom) if not free else affine_scale(mom)
    solve = _joint if mode == "joint" else _alternate
    R, s, c, good, n_steps = solve(mom, s, gamma, free, steps)
    good = good & (v.detach().count_nonzero(1) >= 3)
    return _solution((u, v, T, B), mom, R, s, c, gamma, good, n_steps, batch)


def prepare(
    points: Tensor,
    visibility: Tensor | None,
    template: Tensor,
    basis: Tensor | None,
    ridge: float | Tensor,
    scale: Tensor | str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, torch.Size]:
    """Checked input with one batch dimension B: u, v, T, basis, ridge (B,), scale (B,) or None, and the batch."""
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


def _spread(mom: Moments) -> Tensor:
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


def _search(
    mom: Moments, s: Tensor, gamma: Tensor, free: bool, n_starts: int
) -> tuple[_weak.Optimum, Tensor]:
    """The lowest minimum found from the global starts, and whether it is unique (B,)."""
    R = _weak.starts(mom, s, gamma, n_starts)
    each = torch.arange(len(s), device=s.device).repeat_interleave(n_starts)
    found = _weak.minimise(mom.take(each), R.flatten(0, 1), s[each], gamma[each], free=free)
    return _weak.lowest(found, n_starts, mom.uu)


Found = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # R, scale, alpha, converged, steps


def _alternate(mom: Moments, s: Tensor, gamma: Tensor, free: bool, steps: int) -> Found:
    """Eq. 5 and 6 in turn; each rotation is differentiated through its own optimality."""
    nothing, still = torch.zeros_like(gamma), mom.detach()
    alpha = mom.G.new_zeros(len(s), mom.G.shape[1] - 1)
    with torch.no_grad():
        best, unique = _search(still.collapse(alpha), s, nothing, free, STARTS["alternation"])
        poses = [best, *_weak.alternate(still, best.R, best.s, gamma, steps - 1, free=free)]
        good = torch.stack([unique, *(pose.strict for pose in poses)]).all(0)
        n_steps = torch.stack([pose.steps for pose in poses]).sum(0)
    for best in poses if _asks_for_gradient(mom, s, gamma) else poses[-1:]:
        R, s, _ = _differentiable(mom.collapse(alpha), s, nothing, best, free)
        alpha = _weak.coefficients(mom, R, s, gamma)
    return R, s, alpha, good, n_steps


def _asks_for_gradient(mom: Moments, s: Tensor, gamma: Tensor) -> bool:
    return any(x.requires_grad for x in (mom.G, mom.H, s, gamma))


def _joint(mom: Moments, s: Tensor, gamma: Tensor, free: bool, _: int) -> Found:
    """The minimum over pose and coefficients together."""
    with torch.no_grad():
        best, unique = _search(mom.detach(), s, gamma, free, STARTS["joint"])
    R, s, alpha = _differentiable(mom, s, gamma, best, free)
    return R, s, alpha, best.strict & unique, best.steps


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
    given: tuple[Tensor, Tensor, Tensor, Tensor],
    mom: Moments,
    R: Tensor,
    s: Tensor,
    c: Tensor,
    gamma: Tensor,
    good: Tensor,
    steps: Tensor,
    batch: torch.Size,
) -> Solution:
    """Translation and residual, the latter from the points themselves: the moments' differences cancel."""
    u, v, T, B = given
    centre = (mom.mean_f * with_one(c)[..., None]).sum(1)
    t = mom.mean_u - s[:, None] * (R[:, :2] @ centre[..., None])[..., 0]
    R, s, c, t, gamma, v, T, B = (x.to(u.dtype) for x in (R, s, c, t, gamma, v, T, B))
    away = u - t[:, None] - s[:, None, None] * (deformed(T, B, c) @ R[:, :2].mT)
    error = (v * away.square().sum(-1)).sum(1)
    tiny = torch.finfo(error.dtype).tiny
    residual = (
        (error / or_one(mom.weight.to(u.dtype))).clamp_min(tiny).sqrt()
    )  # with a finite gradient at zero
    value = error + gamma * c.square().sum(1)
    R, t, s, c, value, residual = (x.reshape(batch + x.shape[1:]) for x in (R, t, s, c, value, residual))
    return Solution(R, t, s, c, value, residual, good.reshape(batch), steps.reshape(batch))
