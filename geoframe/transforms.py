"""Rotations, reflections and similarities of space: exact at the singular places, differentiable elsewhere.

Points are rows ``(..., N, 3)``; a matrix acts on columns: ``points @ R.mT``. Every function takes any leading
batch shape, computes in the dtype and on the device of its input, and batches broadcast. NumPy arrays and lists are
taken as well as tensors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geoframe._check import as_floats, as_tensor, check_float, check_int, check_shape

NOT_ROTATION = 1e-3  # largest entry of R R^T - I: float32 and rounded files pass, other matrices do not


class Similarity(NamedTuple):
    """``x -> scale * R x + t``: rotation (or reflection) R (..., 3, 3), translation t (..., 3), scale (...)."""

    R: Tensor
    t: Tensor
    scale: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """(..., N, 3) moved points."""
        points = as_tensor(points, "points", like=self.R)
        return self.scale[..., None, None] * (points @ self.R.mT) + self.t[..., None, :]

    def inverse(self) -> Similarity:
        """The similarity that undoes this one."""
        scale = 1 / self.scale
        back = -scale[..., None] * (self.R.mT @ self.t[..., None])[..., 0]
        return Similarity(self.R.mT, back, scale)

    def after(self, first: Similarity) -> Similarity:
        """``self.after(first)(x) == self(first(x))``."""
        moved = self(first.t[..., None, :])[..., 0, :]
        return Similarity(self.R @ first.R, moved, self.scale * first.scale)


def skew(w: Tensor) -> Tensor:
    """(..., 3, 3) matrix of the cross product: ``skew(w) @ x == cross(w, x)``, for w (..., 3)."""
    w = as_floats(w, "w")
    check_shape(w, "... 3", "w")
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def rotvec_to_rotation(w: Tensor) -> Tensor:
    """Exponential map: rotation (..., 3, 3) about w (..., 3) by ``|w|`` radians, smooth at w = 0.

    Source: Rodrigues' formula, its two coefficients by their series where ``|w|`` is small.
    """
    w = as_floats(w, "w")
    check_shape(w, "... 3", "w")
    square = w.square().sum(-1)[..., None, None]
    small = square < 1e-2 if w.dtype == torch.float64 else square < 0.25
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    sinc = torch.where(
        small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72))), angle.sin() / angle
    )
    half = (angle / 2).sin() / angle
    versine = torch.where(
        small, 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90))), 2 * half * half
    )
    W = skew(w)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + sinc * W + versine * (W @ W)


def rotation_to_rotvec(R: Tensor) -> Tensor:
    """Logarithm: w (..., 3) with ``|w| <= pi`` and ``rotvec_to_rotation(w) == R``, also at half turns (roma)."""
    import roma

    return roma.rotmat_to_rotvec(check_rotation(R, "R"))


def check_rotation(R: Tensor, name: str) -> Tensor:
    """Require proper rotations (..., 3, 3), to NOT_ROTATION.

    Args:
        R: a tensor, array or list.
        name: of the argument, for the message.

    Returns:
        R as a tensor.

    Raises:
        TypeError: not a floating dtype.
        ValueError: another shape, a reflection, or a matrix that is not orthonormal.
    """
    R = as_floats(R, name)
    check_shape(R, "... 3 3", name)
    with torch.no_grad():
        wide = R.detach().double()
        error = (wide @ wide.mT - torch.eye(3, dtype=wide.dtype, device=wide.device)).abs().amax((-1, -2))
        if not bool((error <= NOT_ROTATION).all()):
            worst = float(error.nan_to_num(nan=torch.inf).max()) if error.numel() else 0.0
            raise ValueError(
                f"{name}: expected rotations, found a matrix whose R R^T differs from the identity by {worst:.3g}; "
                "take nearest_rotation(...) of it, or divide it by its scale"
            )
        if bool((torch.linalg.det(wide) < 0).any()):
            raise ValueError(
                f"{name}: expected rotations, found a reflection (determinant -1); flip one axis to make it proper"
            )
    return R


def rotation_angle(R1: Tensor, R2: Tensor | None = None) -> Tensor:
    """Angle of a rotation, or between two; accurate near 0 and near pi.

    Args:
        R1: (..., 3, 3) rotations.
        R2: (..., 3, 3) others, or None for the identity.

    Returns:
        (...) radians, from 0 to pi.

    Raises:
        TypeError, ValueError: matrices that are no rotations.

    Source: ``atan2(2 sin, 2 cos)``, the sine from the skew part, the cosine from the trace.
    """
    R1 = check_rotation(R1, "R1")
    R = R1 if R2 is None else check_rotation(R2, "R2").to(R1.device).mT @ R1
    trace = R.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(torch.linalg.vector_norm(_axial(R), dim=-1), trace - 1)


def random_rotations(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random rotations, uniform over all rotations.

    Args:
        n: how many.
        generator: its state decides; None takes torch's global one.
        dtype: floating; None is torch's default.
        device: of the result, and of the generator.

    Returns:
        (n, 3, 3).
    """
    q = torch.randn(n, 4, generator=generator, dtype=dtype, device=device)
    return quaternion_to_rotation(torch.nn.functional.normalize(q, dim=-1))


def quaternion_to_rotation(q: Tensor) -> Tensor:
    """Rotation (..., 3, 3) of a unit quaternion (..., 4) in the order x, y, z, w (as roma and scipy)."""
    q = as_floats(q, "q")
    check_shape(q, "... 4", "q")
    v, w = q[..., :3], q[..., 3, None, None]
    W = skew(v)
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + 2 * (w * W + W @ W)


def reflection(normal: Tensor) -> Tensor:
    """Mirror (..., 3, 3) ``I - 2 n n^T`` at the plane through the origin with `normal` (..., 3) of any length."""
    normal = as_floats(normal, "normal")
    check_shape(normal, "... 3", "normal")
    n = torch.nn.functional.normalize(normal, dim=-1, eps=torch.finfo(normal.dtype).tiny)
    eye = torch.eye(3, dtype=n.dtype, device=n.device)
    return eye - 2 * n[..., :, None] * n[..., None, :]


def nearest_rotation(M: Tensor) -> Tensor:
    """The proper rotation R (..., 3, 3) that maximises ``tr(R^T M)``, for any M (..., 3, 3).

    Differentiable; a matrix of rank below 2, or a mirrored one whose two smallest singular values agree, has
    several nearest rotations: one of them is returned, and its gradient is zero.

    roma's `special_procrustes` gives the same to 3e-13 and took 1.0 to 2.0 times as long, for 1, 162 and 5,000
    matrices, with and without the backward pass (``experiments.bench.procrustes``, one thread of a busy CPU).

    Source: Markley 1993 (FOAM): no singular value decomposition, a few operations on the whole batch; one
        Newton step on the rotations makes it exact. Derivative: ``(tr(S) I - S) w = axial(R^T dM)`` with
        ``S = R^T M``.
    """
    M = as_floats(M, "M")
    check_shape(M, "... 3 3", "M")
    return _NearestRotation.apply(M)


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, M: Tensor) -> Tensor:
        R = _nearest_rotation(M)
        ctx.save_for_backward(M, R)
        return R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        M, R = ctx.saved_tensors
        # dR = R skew(w), (tr S - S) w = axial(R^T dM); tr S - S is symmetric, so the adjoint is the same solve
        y = (_spin_inverse(R.mT @ M) @ _axial(R.mT @ grad)[..., None])[..., 0]
        return R @ skew(y)


def _nearest_rotation(M: Tensor) -> Tensor:
    """FOAM with the batch in the last dimension, where elementwise work on 3 x 3 matrices is quick."""
    eps = torch.finfo(M.dtype).eps
    B = M.reshape(-1, 3, 3).permute(1, 2, 0).contiguous()
    B = B / B.abs().amax((0, 1)).clamp_min(torch.finfo(M.dtype).tiny)
    B = B / B.square().sum((0, 1)).clamp_min(0.5).sqrt()  # unit norm; a zero matrix stays zero
    wrap = B[[0, 1, 2, 0, 1]][:, [0, 1, 2, 0, 1]]
    cofactor = wrap[1:4, 1:4] * wrap[2:, 2:] - wrap[1:4, 2:] * wrap[2:, 1:4]
    det, square = (B[0] * cofactor[0]).sum(0), 4 * cofactor.square().sum((0, 1))
    # The sum x of the singular values, the last one with the sign of det, is the largest root of
    # (x^2 - 1)^2 - 8 det x - 4 |cofactor|^2; Newton's iteration falls to it from above.
    x, det8 = torch.full_like(det, 3**0.5), 8 * det
    for _ in range(14):
        inner = x * x - 1
        fall = (inner * inner - det8 * x - square) / (4 * x * inner - det8).clamp_min(1e-3)
        x = x - fall
        if not bool((fall > 8 * eps).any()):
            break
    kappa = (x * x - 1) / 2
    zeta = kappa * x - det  # (s1 + s2)(s2 + s3)(s3 + s1) of those singular values
    R = ((kappa + 1) * B + x * cofactor - _times(B, _times(B.transpose(0, 1), B))) / zeta.clamp_min(1e-3)
    R = R + _towards(R, B)
    gram = _times(R.transpose(0, 1), R)
    R = 1.5 * R - 0.5 * _times(R, gram)  # a Newton-Schulz step: orthonormal to the square of the error
    error = (gram - torch.eye(3, dtype=M.dtype, device=M.device)[..., None]).abs().amax((0, 1))
    bad = (zeta < 1e-2) | ~(error < eps**0.5)
    R = R.permute(2, 0, 1).contiguous()
    if bool(bad.any()):  # several nearest rotations, or almost
        U, _, Vh = torch.linalg.svd(B[..., bad].permute(2, 0, 1))
        U[..., 2] *= torch.linalg.det(U @ Vh)[:, None].sign()
        R[bad] = U @ Vh
    return R.reshape(M.shape)


def _times(A: Tensor, B: Tensor) -> Tensor:
    """Products of matrices (3, 3, N)."""
    return (A[:, :, None] * B[None]).sum(1)


def _towards(R: Tensor, B: Tensor) -> Tensor:
    """``R skew(w)`` (3, 3, N), the Newton step from the rotations R to the maximum of tr(R^T B)."""
    S = _times(R.transpose(0, 1), B)
    a, b, c = S[1, 1] + S[2, 2], S[0, 0] + S[2, 2], S[0, 0] + S[1, 1]  # tr(S) I - S, symmetric
    f, g, h = -(S[1, 2] + S[2, 1]) / 2, -(S[0, 2] + S[2, 0]) / 2, -(S[0, 1] + S[1, 0]) / 2
    x, y, z = S[2, 1] - S[1, 2], S[0, 2] - S[2, 0], S[1, 0] - S[0, 1]
    A, F, G, H = b * c - f * f, g * h - a * f, f * h - b * g, f * g - c * h  # its cofactors
    det = (a * A + h * H + g * G).clamp_min(1e-9)
    w = torch.stack(
        [A * x + H * y + G * z, H * x + (a * c - g * g) * y + F * z, G * x + F * y + (a * b - h * h) * z]
    )
    u, v, w = w / det
    return torch.stack([R[:, 1] * w - R[:, 2] * v, R[:, 2] * u - R[:, 0] * w, R[:, 0] * v - R[:, 1] * u], 1)


def _axial(X: Tensor) -> Tensor:
    """(..., 3) with ``skew(axial(X)) = X - X^T``."""
    return torch.stack(
        [X[..., 2, 1] - X[..., 1, 2], X[..., 0, 2] - X[..., 2, 0], X[..., 1, 0] - X[..., 0, 1]], -1
    )


def _spin_inverse(S: Tensor) -> Tensor:
    """Inverse of ``tr(S) I - sym(S)`` (..., 3, 3), its second derivative; zero where that is singular."""
    S = (S + S.mT) / 2
    trace = S.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    K = trace * torch.eye(3, dtype=S.dtype, device=S.device) - S
    cofactor = torch.linalg.cross(K[..., [1, 2, 0], :], K[..., [2, 0, 1], :], dim=-1)
    det = (K[..., 0, :] * cofactor[..., 0, :]).sum(-1)[..., None, None]
    good = det > 1e-9 * trace.abs() ** 3
    return torch.where(good, cofactor / torch.where(good, det, torch.ones_like(det)), 0.0)


def procrustes(
    source: Tensor, target: Tensor, *, weights: Tensor | None = None, scale: bool = False
) -> Similarity:
    """The rigid motion, or similarity, that brings points nearest to other points.

    Minimises ``sum_i w_i |scale * R source_i + t - target_i|^2`` over proper rotations; mirrored points are
    not mirrored back. Differentiable.

    Args:
        source: (..., N, 3) points.
        target: (..., N, 3) where each of them should go.
        weights: (..., N) non-negative, or None for equal ones.
        scale: also find the best scale.

    Raises:
        TypeError, ValueError: shapes that do not agree, weights below zero or all zero.

    Source: Horn 1987; Umeyama 1991 (scale).
    """
    source = as_floats(source, "source")
    target = check_float(as_tensor(target, "target", like=source), "target")
    check_shape(source, "... N 3", "source")
    if target.shape[-2:] != source.shape[-2:]:
        raise ValueError(f"target: expected {source.shape[-2]} points of 3, found {tuple(target.shape)}")
    w = torch.ones_like(source[..., 0]) if weights is None else as_tensor(weights, "weights", like=source)
    if w.shape[-1] != source.shape[-2] or bool((w < 0).any()) or not bool((w.sum(-1) > 0).all()):
        raise ValueError(
            f"weights: expected ({source.shape[-2]},) numbers of at least 0, not all 0, found {tuple(w.shape)}"
        )
    w = (w / w.sum(-1, keepdim=True))[..., None]
    mean1, mean2 = (w * source).sum(-2), (w * target).sum(-2)
    x, y = source - mean1[..., None, :], target - mean2[..., None, :]
    M = y.mT @ (w * x)
    R = nearest_rotation(M)
    s = torch.ones_like(M[..., 0, 0])
    if scale:
        spread = (w * x.square()).sum((-1, -2))
        s = (R * M).sum((-1, -2)) / spread.clamp_min(torch.finfo(x.dtype).tiny)
    return Similarity(R, mean2 - s[..., None] * (R @ mean1[..., None])[..., 0], s)


def rotation_from_direction(direction: Tensor, up: int) -> Tensor:
    """Rotations about an axis by the angle of a direction in the plane, counter-clockwise from above.

    Args:
        direction: (..., 2) cosine and sine of the angle, times any positive number. About z, (0, 1) sends x to y.
        up: the axis: 0, 1 or 2 for x, y or z.

    Returns:
        (..., 3, 3).
    """
    direction = as_floats(direction, "direction")
    check_shape(direction, "... 2", "direction")
    check_int(up, "up", low=0, high=2)
    unit = direction / direction.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(direction.dtype).tiny)
    c, s = unit.unbind(-1)
    R = direction.new_zeros(*direction.shape[:-1], 3, 3)
    a, b = (up + 1) % 3, (up + 2) % 3
    R[..., up, up] = 1
    R[..., a, a], R[..., a, b], R[..., b, a], R[..., b, b] = c, -s, s, c
    return R


def rotation_about_axis(angle: Tensor, up: int) -> Tensor:
    """Rotations about an axis by an angle, counter-clockwise from above.

    Args:
        angle: (...) radians.
        up: the axis: 0, 1 or 2 for x, y or z.

    Returns:
        (..., 3, 3).
    """
    angle = as_floats(angle, "angle")
    return rotation_from_direction(torch.stack([angle.cos(), angle.sin()], dim=-1), up)


def sixd_to_rotation(x: Tensor) -> Tensor:
    """Rotations (..., 3, 3) whose first two columns are x (..., 6) made orthonormal (Gram-Schmidt).

    Source: Zhou et al. 2019, "On the continuity of rotation representations in neural networks".
    """
    x = as_floats(x, "x")
    check_shape(x, "... 6", "x")
    tiny = torch.finfo(x.dtype).tiny
    a = x[..., :3] / x[..., :3].norm(dim=-1, keepdim=True).clamp(min=tiny)
    b = x[..., 3:] - (a * x[..., 3:]).sum(-1, keepdim=True) * a
    b = b / b.norm(dim=-1, keepdim=True).clamp(min=tiny)
    return torch.stack([a, b, torch.linalg.cross(a, b)], dim=-1)
