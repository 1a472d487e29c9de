"""Sufficient statistics of the pose problem: what its objective needs to know of V points, in O(K^2) numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LIFT = 1e-14  # of the trace, added to the coefficients' equations: a basis of lower rank leaves them solvable
BLOCK = 2**19  # numbers held at a time: about what the caches do


class Moments(NamedTuple):
    """Weighted second moments of points and shape, centred, of B samples; float64.

    With the shape ``X_i = sum_k c_k F_ki`` (F_0 the template, c_0 = 1) and weights v_i, the reprojection error
    at the best translation is ``uu - 2 <M, sum_k c_k H_k> + sum_kl c_k c_l tr(M G_kl M^T)`` for any 2 x 3
    projection M.

    Attributes:
        G: (B, K+1, K+1, 3, 3), ``G_kl = sum_i v_i F_ki F_li^T``. H: (B, K+1, 2, 3), ``H_k = sum_i v_i u_i F_ki^T``.
        uu: (B,) ``sum_i v_i |u_i|^2``. weight: (B,) sum of v.
        mean_u: (B, 2) and mean_f: (B, K+1, 3), the weighted means that were subtracted.
    """

    G: Tensor
    H: Tensor
    uu: Tensor
    weight: Tensor
    mean_u: Tensor
    mean_f: Tensor

    def collapse(self, c: Tensor) -> Moments:
        """The rigid problem of the shapes with the coefficients c (B, K): the same moments with K = 0."""
        c = with_one(c)
        pairs = (c[:, :, None] * c[:, None, :]).flatten(1)[:, None]
        G = (pairs @ self.G.flatten(3).flatten(1, 2)).reshape(-1, 1, 1, 3, 3)
        H = (c[:, None] @ self.H.flatten(2)).reshape(-1, 1, 2, 3)
        return self._replace(G=G, H=H, mean_f=c[:, None] @ self.mean_f)

    def detach(self) -> Moments:
        """Without history."""
        return Moments(*(x.detach() for x in self))

    def take(self, rows: Tensor) -> Moments:
        """The samples `rows`, in that order, possibly repeated."""
        return Moments(*(x[rows] for x in self))


def with_one(c: Tensor) -> Tensor:
    """(B, K+1) coefficients of the template, one, and of the basis, c (B, K)."""
    return torch.cat([c.new_ones(len(c), 1), c], 1)


def or_one(x: Tensor) -> Tensor:
    """x where it is positive, one elsewhere: a safe divisor."""
    return torch.where(x > 0, x, torch.ones_like(x))


def moments(u: Tensor, v: Tensor, T: Tensor, basis: Tensor) -> Moments:
    """Moments of points u (B, V, 2) with weights v (B, V), template T and basis, shared or one a sample.

    Differentiable in all four. T is (V, 3) or (B, V, 3), basis (K, V, 3) or (B, K, V, 3). The sums over points
    run in the dtype of the input, at least float32, centred first: their rounding moves the minimum by about as
    much as that of the points themselves.
    """
    dtype = torch.float32
    for x in (u, v, T, basis):
        dtype = torch.promote_types(dtype, x.dtype)
    u, v, T, basis = (x.to(dtype) for x in (u, v, T, basis))
    shared = T.ndim == 2 and basis.ndim == 3
    if not shared:
        T = T.expand(len(u), *T.shape[-2:])
        basis = basis.expand(len(u), *basis.shape[-3:])
    F = torch.cat([T[..., None, :, :], basis], -3).transpose(-2, -3).flatten(-2)  # (..., V, 3 (K+1))
    shift = F.detach().mean(-2, keepdim=True)  # a rough centre, so that little cancels below
    F = F - shift
    V, m = F.shape[-2:]
    weight = v.sum(1)
    safe = or_one(weight)[:, None]
    mean_u = (v[:, None] @ u)[:, 0] / safe
    u = u - mean_u[:, None]
    vu = v[..., None] * u
    if shared:
        mean_f = v @ F / safe
        H = (vu.mT.reshape(-1, V) @ F).reshape(-1, 2, m)
    else:
        mean_f = (v[:, None] @ F)[:, 0] / safe
        H = vu.mT @ F
    if shared and m <= 2 * len(u):  # all products once, not once a sample
        G = _Squares.apply(v, F)
    else:
        G = (v[:, None] * F.mT) @ F
    G = torch.baddbmm(G, weight[:, None, None] * mean_f[:, :, None], mean_f[:, None, :], alpha=-1)
    mean_f = (mean_f + shift.reshape(-1, m)).unflatten(1, (-1, 3))
    G = G.reshape(-1, m // 3, 3, m // 3, 3).transpose(2, 3)
    H = H.unflatten(2, (-1, 3)).transpose(1, 2)
    fields = (G, H, (vu * u).sum((1, 2)), weight, mean_u, mean_f)
    return Moments(*(x.to(torch.float64, memory_format=torch.contiguous_format) for x in fields))


class _Squares(torch.autograd.Function):
    """``sum_i v_bi F_i F_i^T`` (B, m, m) of weights v (B, V) and rows F (V, m).

    All products ``F_i F_i^T`` are made once for the whole batch, some rows at a time so that they stay in the cache,
    and again for the gradient, which is that of a symmetric product: half the work of differentiating both factors.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, F: Tensor) -> Tensor:
        ctx.save_for_backward(v, F)
        out = v.new_zeros(len(v), F.shape[1] ** 2)
        for rows, products in _products(F):
            out.addmm_(v[:, rows], products)
        return out.view(len(v), F.shape[1], F.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        v, F = ctx.saved_tensors
        wants_v, wants_F = ctx.needs_input_grad
        g_v, g_F = torch.empty_like(v) if wants_v else None, torch.empty_like(F) if wants_F else None
        flat, both = grad.flatten(1), (grad + grad.mT).flatten(1)
        for rows, products in _products(F):
            if g_v is not None:
                g_v[:, rows] = flat @ products.mT
            if g_F is not None:
                torch.mm(v[:, rows].mT, both, out=products)
                g_F[rows] = (products.view(-1, *grad.shape[1:]) @ F[rows, :, None])[..., 0]
        return g_v, g_F


def _products(F: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of F (V, m) and their products with themselves (n, m * m), in a buffer that is used again."""
    V, m = F.shape
    n = max(1, min(V, BLOCK // m**2))
    room = F.new_empty(n, m, m)
    for first in range(0, V, n):
        rows = slice(first, min(first + n, V))
        products = torch.mul(F[rows, :, None], F[rows, None, :], out=room[: rows.stop - first])
        yield rows, products.flatten(1)
