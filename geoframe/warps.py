"""Warps of the plane: affine maps and thin-plate splines of images, masks and points, exact wherever they are asked.

A warp g sends points of a new picture, the view, to points of the picture it is made from, the source. So the view is
``source(g(u))`` and a warp is sampled without being inverted; `Warp.inverse` carries points of the source into the
view. ``Warp.after`` composes, so that a view of a view is sampled once, from the source.

Coordinates are normalised: x to the right and y down, -1 and 1 at the outer edges of the picture (align_corners=False),
so that they do not depend on its size. `to_pixels` and `to_normalised` convert to pixels, whose centres lie at
integers + 0.5.

Source: Thewlis 2019 (thesis), chapters 4 to 7, for the use of warps; the random numbers of `random_warp` are those of
the released code of chapter 7, which draws the non-linear weights of a spline and not displacements of its centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import as_floats, check_choice, check_int, check_shape

_TINY = 1e-30  # r^2 log r^2 is 0 at 0
_NEWTON_STEPS = 60  # a warp that does not fold needs 5 to 10
_CLOSE = {torch.float32: 2e-6, torch.float64: 1e-11}  # of half a picture's side: 1e-4 px of 100 and far below


def to_pixels(points: Tensor, height: int, width: int) -> Tensor:
    """Normalised coordinates (..., 2) as pixels of a picture of that size; centres of pixels are integers + 0.5."""
    return (points + 1) * points.new_tensor([width / 2, height / 2])


def to_normalised(pixels: Tensor, height: int, width: int) -> Tensor:
    """Pixels (..., 2) as normalised coordinates in [-1, 1]; the inverse of `to_pixels`."""
    return pixels / pixels.new_tensor([width / 2, height / 2]) - 1


def pixel_grid(height: int, width: int, *, like: Tensor | None = None) -> Tensor:
    """Centres of the pixels of a picture in normalised coordinates.

    Args:
        height: in pixels.
        width: in pixels.
        like: dtype and device are those of this tensor; float32 on the CPU without it.

    Returns:
        (height, width, 2), x first.
    """
    check_int(height, "height", low=1)
    check_int(width, "width", low=1)
    kind: dict[str, Any] = {} if like is None else {"dtype": like.dtype, "device": like.device}
    x = (torch.arange(width, **kind) * 2 + 1) / width - 1
    y = (torch.arange(height, **kind) * 2 + 1) / height - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


@dataclass(frozen=True)
class _Spline:
    """x -> A x + t + sum_k w_k U(|x - c_k|); an affine map has no centres."""

    affine: Tensor  # (B, 2, 3)
    centres: Tensor  # (n, 2)
    weights: Tensor  # (B, n, 2)

    def __call__(self, points: Tensor) -> Tensor:
        out = points @ self.affine[:, :, :2].mT + self.affine[:, None, :, 2]
        if len(self.centres):
            out = out + _kernel(points, self.centres) @ self.weights
        return out

    def jacobian(self, points: Tensor) -> Tensor:
        J = self.affine[:, None, :, :2].expand(-1, points.shape[1], -1, -1)
        if not len(self.centres):
            return J
        d = points[:, :, None] - self.centres
        r2 = d.square().sum(-1)
        slope = 2 * (r2.clamp_min(_TINY).log() + 1)  # dU/dx = slope * (x - c)
        return J + torch.einsum("bnk,bnkj,bki->bnij", slope, d, self.weights)


def _kernel(points: Tensor, centres: Tensor) -> Tensor:
    """U = r^2 log r^2 between points (B, N, 2) and centres (n, 2): (B, N, n)."""
    x, y = points[..., :1] - centres[:, 0], points[..., 1:] - centres[:, 1]
    r2 = x.square() + y.square()
    return r2 * r2.clamp_min(_TINY).log()


@dataclass(frozen=True)
class Warp:
    """A batch of B warps of the plane, each a chain of affine maps and splines; see the top of this file.

    Make one with `affine_warp`, `spline_warp`, `random_warp`, `mirror_warp` or `Warp.after`.

    Attributes:
        steps: applied one after another, the last first.
    """

    steps: tuple[_Spline, ...]

    def __len__(self) -> int:
        return len(self.steps[0].affine)

    def __call__(self, points: Any) -> Tensor:
        """Where points of the view come from in the source.

        Args:
            points: (B, N, 2), or (N, 2) for the same points in every picture; normalised.

        Returns:
            (B, N, 2) normalised.
        """
        points = self._points(points)
        for step in reversed(self.steps):
            points = step(points)
        return points

    def jacobian(self, points: Any) -> Tensor:
        """Derivatives (B, N, 2, 2) at points (B, N, 2) or (N, 2): row i has the derivatives of coordinate i."""
        points = self._points(points)
        points = points.expand(max(len(self), len(points)), -1, -1)
        J = torch.eye(2, dtype=points.dtype, device=points.device).expand(*points.shape, 2)
        for step in reversed(self.steps):
            J, points = step.jacobian(points) @ J, step(points)
        return J

    def after(self, inner: Warp) -> Warp:
        """The composition u -> self(inner(u)): `inner` makes a view of the view that `self` makes of the source."""
        if len(inner) != len(self) and 1 not in (len(inner), len(self)):
            raise ValueError(
                f"inner: expected {len(self)} warps, as many as in this batch, found {len(inner)}"
            )
        return Warp((*self.steps, *inner.steps))

    def inverse(self, points: Any) -> tuple[Tensor, Tensor]:
        """Where points of the source are seen in the view, by Newton's method.

        Args:
            points: (B, N, 2) or (N, 2) in the source, normalised.

        Returns:
            points: (B, N, 2) in the view; ``warp(points)`` are those given.
            found: (B, N) bool, False where the method did not converge: there the warp folds.
        """
        goal = self._points(points)
        goal = goal.expand(max(len(self), len(goal)), -1, -1)
        tolerance = _CLOSE.get(goal.dtype, 1e-3)
        x, best = self._affine_inverse(goal), None
        for _ in range(_NEWTON_STEPS):
            off = self(x) - goal
            error = off.norm(dim=-1)
            if best is None:
                best, least = x, error
            else:
                better = error < least
                best, least = torch.where(better[..., None], x, best), torch.where(better, error, least)
            if bool((error <= tolerance).all()):
                break
            J = self.jacobian(x)
            a, b, c, d = J[..., 0, 0], J[..., 0, 1], J[..., 1, 0], J[..., 1, 1]
            det = a * d - b * c
            det = torch.where(det.abs() < 1e-6, torch.full_like(det, 1e-6).copysign(det), det)
            step = (
                torch.stack(
                    [d * off[..., 0] - b * off[..., 1], a * off[..., 1] - c * off[..., 0]],
                    -1,
                )
                / det[..., None]
            )
            # a step is at most a quarter of the picture, so that a near-fold does not throw a point away
            x = x - step * (0.5 / step.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
        assert best is not None
        return best, least <= 10 * tolerance

    def sample(
        self, image: Tensor, size: tuple[int, int] | int | None = None, *, border: str = "zeros"
    ) -> Tensor:
        """The view of pictures: bilinear values of the source where the warp sends the centres of the view's pixels.

        Args:
            image: (B, C, H, W) floating.
            size: of the view, (height, width) or one number for both; that of the source by default.
            border: what lies outside of the source: "zeros", "border" (the nearest pixel) or "reflection".

        Returns:
            (B, C, height, width).
        """
        grid = self.grid(_size(image, size), like=image)
        check_choice(border, ("zeros", "border", "reflection"), "border")
        return F.grid_sample(image, grid, mode="bilinear", padding_mode=border, align_corners=False)

    def sample_mask(self, mask: Tensor, size: tuple[int, int] | int | None = None) -> Tensor:
        """The view of masks (B, H, W) bool, by the nearest pixel; False outside of the source."""
        grid = self.grid(_size(mask, size), like=self.steps[0].affine)
        values = F.grid_sample(
            mask[:, None].to(grid.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False
        )
        return values[:, 0] > 0.5

    def grid(self, size: tuple[int, int] | int, *, like: Tensor | None = None) -> Tensor:
        """Where the centres of the pixels of a view come from: (B, height, width, 2) normalised."""
        height, width = (size, size) if isinstance(size, int) else size
        affine = self.steps[0].affine
        centres = pixel_grid(height, width, like=affine)
        out = self(centres.reshape(-1, 2)).unflatten(1, (height, width))
        return out if like is None else out.to(like)

    def flow(self, size: tuple[int, int] | int) -> Tensor:
        """Displacement in pixels from each pixel of the view to its place in a source of that size: (B, 2, H, W)."""
        height, width = (size, size) if isinstance(size, int) else size
        centres = pixel_grid(height, width, like=self.steps[0].affine)
        move = (self.grid((height, width)) - centres) * centres.new_tensor([width / 2, height / 2])
        return move.movedim(-1, 1)

    def _points(self, points: Any) -> Tensor:
        points = as_floats(points, "points").to(self.steps[0].affine)
        if points.ndim == 2:
            points = points[None]
        check_shape(points, "B N 2", "points")
        if len(points) not in (1, len(self)) and len(self) != 1:
            raise ValueError(f"points: expected {len(self)} pictures, one a warp, found {len(points)}")
        return points  # a batch of one is broadcast by the first step

    def _affine_inverse(self, points: Tensor) -> Tensor:
        """The inverse of the affine parts, where Newton's method starts."""
        for step in self.steps:
            points = torch.linalg.solve(step.affine[:, :, :2], (points - step.affine[:, None, :, 2]).mT).mT
        return points


def _size(image: Tensor, size: tuple[int, int] | int | None) -> tuple[int, int]:
    if size is None:
        return int(image.shape[-2]), int(image.shape[-1])
    return (size, size) if isinstance(size, int) else size


def affine_warp(affine: Any) -> Warp:
    """The warps u -> A u + t.

    Args:
        affine: (B, 2, 3), A beside t, in normalised coordinates.
    """
    affine = as_floats(affine, "affine")
    check_shape(affine, "B 2 3", "affine")
    n = len(affine)
    return Warp((_Spline(affine, affine.new_zeros(0, 2), affine.new_zeros(n, 0, 2)),))


def mirror_warp(n: int = 1, *, like: Tensor | None = None) -> Warp:
    """The warp that mirrors pictures left to right, n times."""
    kind: dict[str, Any] = {} if like is None else {"dtype": like.dtype, "device": like.device}
    return affine_warp(torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], **kind).repeat(n, 1, 1))


def spline_warp(centres: Any, targets: Any, *, stiffness: float = 0.0) -> Warp:
    """The thin-plate splines that send centres to targets and bend as little as possible between.

    Args:
        centres: (n, 2) in the view, at least three that do not lie on a line; normalised.
        targets: (B, n, 2) in the source.
        stiffness: how much less the splines bend, at the price of missing the targets; 0 meets them.

    Raises:
        ValueError: fewer than three centres, or centres that coincide or lie on one line.
    """
    centres = as_floats(centres, "centres")
    targets = as_floats(targets, "targets").to(centres)
    n = check_shape(centres, "N 2", "centres")["N"]
    B = check_shape(targets, f"B {n} 2", "targets")["B"]
    K = _kernel(centres[None], centres)[0] + stiffness * torch.eye(n).to(centres)
    P = torch.cat([centres, torch.ones_like(centres[:, :1])], 1)
    system = torch.cat([torch.cat([K, P], 1), torch.cat([P.T, K.new_zeros(3, 3)], 1)])
    solved, info = torch.linalg.solve_ex(system, torch.cat([targets, targets.new_zeros(B, 3, 2)], 1))
    if int(info.max()) or n < 3 or not bool(torch.isfinite(solved).all()):
        raise ValueError(
            f"centres: expected at least three that are apart and not on one line, found {n}; spread them out"
        )
    return Warp((_Spline(solved[:, n:].mT, centres, solved[:, :n]),))


def similarities(angle: Tensor, scale: Tensor, shift: Tensor, *, aspect: float = 1.0) -> Tensor:
    """Rotations, scalings and shifts as affine maps (n, 2, 3), A beside t, in normalised coordinates.

    Args:
        angle: (n,) in radians.
        scale: (n,) factors.
        shift: (n, 2); 2 is a whole picture.
        aspect: width over height of the pictures, so that what is rotated keeps its shape.
    """
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [
        torch.stack([cos, -sin / aspect, shift[:, 0]], -1),
        torch.stack([sin * aspect, cos, shift[:, 1]], -1),
    ]
    return torch.stack(rows, 1)


def random_warp(
    n: int,
    *,
    rotation: float = 5.0,
    scale: float = 0.1,
    shift: float = 0.1,
    bend: float = 0.001,
    strong_bend: float = 0.01,
    control: int = 10,
    aspect: float = 1.0,
    seed: int | torch.Generator = 0,
) -> Warp:
    """Random rotations, scalings, shifts and bendings, all normally distributed.

    Args:
        n: how many.
        rotation: standard deviation in degrees.
        scale: standard deviation of the logarithm of the scale.
        shift: standard deviation in each coordinate; 2 is a whole picture.
        bend: standard deviation of the non-linear weights of the splines; 0, with `strong_bend` 0, for affine warps.
        strong_bend: standard deviation of half of the weights, drawn by chance, as in the released code.
        control: centres a side of the splines' square grid on [-1, 1]^2.
        aspect: width over height of the pictures, so that what is rotated keeps its shape.
        seed: an int or a generator.

    Source: released code of Thewlis et al. 2019, whose scale is 1 + N(0, scale); ours is its exponential, which is
        never negative, and our kernel is r^2 log r^2 where theirs has r^2 log(r^2 + 1e-5).
    """
    check_int(n, "n", low=1)
    check_int(control, "control", low=2)
    draw = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    angle, grow = torch.randn(2, n, generator=draw) * torch.tensor([[math.radians(rotation)], [scale]])
    move = torch.randn(n, 2, generator=draw) * shift
    affine = similarities(angle, grow.exp(), move, aspect=aspect)
    if not bend and not strong_bend:
        return affine_warp(affine)
    line = torch.linspace(-1, 1, control)
    centres = torch.cartesian_prod(line, line)
    weights = (
        torch.randn(2, n, len(centres), 2, generator=draw)
        * torch.tensor([bend, strong_bend])[:, None, None, None]
    )
    strong = torch.rand(weights[0].shape, generator=draw) < 0.5
    return Warp((_Spline(affine, centres, torch.where(strong, weights[1], weights[0])),))
