"""Sufficient statistics of the pose problem: what its objective needs to know of V points, in O(K^2) numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LIFT = 1e-14  # of the trace, added to the coefficients' equations: a basis of lower rank leaves them solvable
BLOCK = 2**19  # numbers held at a time: about what the caches do
MANY = 16  # samples, from which on it is quicker to make the products of a shared shape once
COLUMNS = 8  # of the products of a shape with itself that are made at a time


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
    m = F.shape[-1]
    weight = v.sum(1)
    safe = or_one(weight)[:, None]
    mean_u = (v[:, None] @ u)[:, 0] / safe
    u = (u - mean_u[:, None]).mT.contiguous()  # (B, 2, V): products along the points run along memory
    vu = v[:, None] * u
    if shared:
        mean_f = v @ F / safe
        H = (vu.flatten(0, 1) @ F).reshape(-1, 2, m)
    else:
        mean_f = (v[:, None] @ F)[:, 0] / safe
        H = vu @ F
    if shared and len(u) >= MANY:  # all products once, not once a sample
        G = _Squares.apply(v, F)
    else:
        G = (v[:, None] * F.mT) @ F
    G = torch.baddbmm(G, weight[:, None, None] * mean_f[:, :, None], mean_f[:, None, :], alpha=-1)
    mean_f = (mean_f + shift.reshape(-1, m)).unflatten(1, (-1, 3))
    G = _Paired.apply(G)
    H = H.unflatten(2, (-1, 3)).transpose(1, 2)
    fields = (G, H, (vu * u).sum((1, 2)), weight, mean_u, mean_f)
    return Moments(*(x.to(torch.float64, memory_format=torch.contiguous_format) for x in fields))


class _Squares(torch.autograd.Function):
    """``sum_i v_bi F_i F_i^T`` (B, m, m) of weights v (B, V) and rows F (V, m).

    The products ``F_ia F_ic`` are made once for the whole batch, and again for the gradient: for some rows i and some
    columns a at a time, so that they stay in the cache, and for the columns c from there on: the result is symmetric.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, F: Tensor) -> Tensor:
        ctx.save_for_backward(v, F)
        m = F.shape[1]
        out = v.new_zeros(len(v), m, m)
        for rows, block, rest in _blocks(F):
            products = (F[rows, block, None] * F[rows, None, rest]).flatten(1)
            out[:, block, rest] += (v[:, rows] @ products).unflatten(1, (-1, m - rest.start))
        for c in range(COLUMNS, m, COLUMNS):
            out[:, c:, c - COLUMNS : c] = out[:, c - COLUMNS : c, c:].mT
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        v, F = ctx.saved_tensors
        wants_v, wants_F = ctx.needs_input_grad
        g_v, g_F = torch.zeros_like(v) if wants_v else None, torch.zeros_like(F) if wants_F else None
        for rows, block, rest in _blocks(F):
            n = block.stop - block.start
            some, here, beyond = F[rows, block], F[rows, rest], grad[:, rest, block][:, n:].mT
            weight = grad[:, block, rest].clone()  # of products within the block both orders are there
            weight[:, :, n:] += beyond
            weight = weight.flatten(1)
            if g_v is not None:
                g_v[:, rows] += weight @ (some[:, :, None] * here[:, None]).flatten(1).mT
            if g_F is not None:
                each = (v[:, rows].mT @ weight).view(len(some), n, -1)
                g_F[rows, block] += (each * here[:, None]).sum(2)
                g_F[rows, rest] += (each * some[:, :, None]).sum(1)
        return g_v, g_F


class _Paired(torch.autograd.Function):
    """(B, m, m) as (B, m / 3, m / 3, 3, 3) in float64: strides so short are copied quicker from a list of places."""

    @staticmethod
    def forward(ctx: Any, G: Tensor) -> Tensor:
        n = G.shape[1] // 3
        ctx.dtype, place = G.dtype, torch.arange(9 * n * n, device=G.device)
        ctx.place = place.view(n, 3, n, 3).transpose(1, 2).flatten()
        return G.flatten(1).index_select(1, ctx.place).to(torch.float64).view(-1, n, n, 3, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        m = 3 * grad.shape[1]
        back = torch.empty_like(ctx.place).scatter_(0, ctx.place, torch.arange(m * m, device=grad.device))
        return grad.flatten(1).to(ctx.dtype).index_select(1, back).view(-1, m, m)


def _blocks(F: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of F (V, m), some columns, and these with all that follow."""
    V, m = F.shape
    n = max(1, BLOCK // (COLUMNS * m))
    for first in range(0, V, n):
        for column in range(0, m, COLUMNS):
            last = min(column + COLUMNS, m)
            yield slice(first, min(first + n, V)), slice(column, last), slice(column, m)
