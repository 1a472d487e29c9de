"""Soft correspondence between dense features of two pictures: one kernel for all object frames.

A pixel u of one picture looks for its place in another by ``p(v | u) = softmax_v(<f_u, f_v> / T)``. With N pixels in
each, p has N^2 entries: for 64 x 64 pixels and a batch of 16 that is a gigabyte, and autograd keeps several. So the
functions here go through the rows in blocks, keep one number a row, and compute p again on the way back.

Features are (B, N, D), rows of pixels, of any D. `rows` turns a field (B, D, h, w) into them.

Source: Thewlis 2019 (thesis), chapter 5 equations 3 to 5 and chapter 7 equation 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from geoframe._check import check_float, check_int, check_shape

_BLOCK_ENTRIES = 1 << 20  # of p at a time: 4 MB in float32, which stays in a core's caches


def rows(field: Tensor, *, length: float | None = None) -> Tensor:
    """A field (B, D, h, w) as rows of pixels (B, h * w, D).

    Args:
        field: floating.
        length: each vector is normalised to this length; None leaves it as it is.
    """
    check_shape(check_float(field, "field"), "B D H W", "field")
    out = field.flatten(2).mT
    return out if length is None else F.normalize(out, dim=-1) * length


def expected_cost(
    source: Tensor,
    target: Tensor,
    truth: Tensor,
    places: Tensor,
    *,
    gamma: float = 0.5,
    temperature: float = 1.0,
    block: int | None = None,
) -> Tensor:
    """How far each row's soft match lies from its true place: ``sum_v |v - truth_u|^gamma p(v | u)``.

    Args:
        source: (B, N, D) features of the pixels that look for their place.
        target: (B, M, D) features of those that are looked among.
        truth: (B, N, 2) where each source pixel truly lies in the target picture; any unit.
        places: (M, 2) where the target pixels are, in the same unit.
        gamma: power of the distance; 0.5 is robust to places that have no match.
        temperature: T of the softmax.
        block: rows of p at a time; by default about a million entries.

    Returns:
        (B, N) costs, differentiable once in `source` and `target`.

    Source: Thewlis 2019, chapter 5 equation 5.
    """
    _check_pair(source, target)
    N, M = source.shape[1], target.shape[1]
    check_shape(truth, f"{len(source)} {N} 2", "truth")
    check_shape(places, f"{M} 2", "places")
    if not gamma > 0 or not temperature > 0:
        raise ValueError(f"gamma, temperature: expected positive numbers, found {gamma} and {temperature}")
    args = (truth.to(source), places.to(source), gamma, 1 / temperature, _rows_a_block(len(source), M, block))
    return _ExpectedCost.apply(source, target, *args)  # type: ignore[no-any-return]


def match_log_likelihood(
    source: Tensor, target: Tensor, index: Tensor, *, temperature: float = 1.0, block: int | None = None
) -> Tensor:
    """The logarithm of ``p(v | u)`` at one given pixel v for each u.

    Args:
        source: (B, N, D).
        target: (B, M, D).
        index: (B, N) int64, the pixel of the target that each source pixel lies in.
        temperature: of the softmax.
        block: rows of p at a time.

    Returns:
        (B, N), at most 0.

    Source: Thewlis 2019, chapter 5 equation 4.
    """
    _check_pair(source, target)
    check_shape(index, f"{len(source)} {source.shape[1]}", "index")
    picked = torch.gather(target, 1, index[..., None].expand(-1, -1, target.shape[2]))
    score = (source * picked).sum(-1) / temperature
    rows_a_block = _rows_a_block(len(source), target.shape[1], block)
    return score - _LogSumExp.apply(source, target, 1 / temperature, rows_a_block)  # type: ignore[no-any-return]


def exchange(source: Tensor, auxiliary: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Features written in the words of other pictures: ``sum_v softmax_v(<f_u, a_v> / T) a_v``.

    An embedding that survives this can only use vectors that other instances have, too.

    Args:
        source: (B, N, D).
        auxiliary: (B, M, D) of one picture for each, or (B, A, M, D) of several; the softmax is over all their pixels.
        temperature: of the softmax.

    Returns:
        (B, N, D), of bounded memory on the way there and back.

    Source: Thewlis 2019, chapter 7 equation 5 and section 3.3.
    """
    auxiliary = auxiliary.flatten(1, 2) if auxiliary.ndim == 4 else auxiliary
    _check_pair(source, auxiliary)
    q, k = source[:, None], auxiliary[:, None]
    return F.scaled_dot_product_attention(q, k, k, scale=1 / temperature)[:, 0]


def soft_match(
    source: Tensor, target: Tensor, values: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Values of the target where each source row finds itself, and how sure it is.

    Args:
        source: (B, N, D).
        target: (B, M, D).
        values: (M, C) or (B, M, C), such as the places of the target's pixels.
        temperature: of the softmax; a small one gives the best match alone.

    Returns:
        values: (B, N, C).
        confidence: (B, N), the largest p(v | u).
    """
    _check_pair(source, target)
    values = (
        values.expand(len(source), -1, -1) if values.ndim == 3 else values[None].expand(len(source), -1, -1)
    )
    found, sure = [], []
    for part in source.split(_rows_a_block(len(source), target.shape[1], None), 1):
        p = torch.softmax(part @ target.mT / temperature, -1)
        found.append(p @ values.to(p))
        sure.append(p.amax(-1))
    return torch.cat(found, 1), torch.cat(sure, 1)


def best_match(source: Tensor, target: Tensor, *, metric: str = "inner") -> Tensor:
    """Index (B, N) of the target row that is most like each source row.

    Args:
        source: (B, N, D).
        target: (B, M, D).
        metric: "inner", the largest inner product, or "distance", the smallest difference.
    """
    _check_pair(source, target)
    if metric not in ("inner", "distance"):
        raise ValueError(f"metric: expected 'inner' or 'distance', found {metric!r}")
    own = target.square().sum(-1)[:, None] / 2 if metric == "distance" else 0.0
    step = _rows_a_block(len(source), target.shape[1], None)
    return torch.cat([(part @ target.mT - own).argmax(-1) for part in source.split(step, 1)], 1)


def soft_argmax(heatmaps: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The mean place under the softmax of each heatmap.

    Args:
        heatmaps: (B, K, h, w) scores.
        temperature: of the softmax.

    Returns:
        (B, K, 2) normalised coordinates, x first; see `geoframe.warps`.

    Source: Li et al. 2020, equation 1, with temperature 1 / beta; pixels' centres as everywhere in geoframe.
    """
    from geoframe.warps import pixel_grid

    check_shape(check_float(heatmaps, "heatmaps"), "B K H W", "heatmaps")
    h, w = heatmaps.shape[2:]
    p = torch.softmax(heatmaps.flatten(2) / temperature, -1)
    return p @ pixel_grid(h, w, like=heatmaps).reshape(-1, 2)


def gaussian_maps(points: Tensor, size: tuple[int, int], *, sigma: float = 0.5) -> Tensor:
    """Bumps of height 1 at landmarks: ``exp(-|u - u_k|^2 / 2 sigma^2)``.

    Args:
        points: (B, K, 2) normalised.
        size: (h, w) of the maps.
        sigma: in pixels of the maps.

    Returns:
        (B, K, h, w).

    Source: Li et al. 2020, equation 2; their code's exp(-d^2 / sigma) is the same at sigma 0.5 only.
    """
    from geoframe.warps import to_pixels

    h, w = size
    place = to_pixels(points, h, w)
    x = torch.arange(w).to(points) + 0.5 - place[..., :1]
    y = torch.arange(h).to(points) + 0.5 - place[..., 1:]
    row, column = (torch.exp(-t.square() / (2 * sigma**2)) for t in (y, x))
    return row[..., :, None] * column[..., None, :]


class _ExpectedCost(torch.autograd.Function):
    """Rows of ``sum_v c_uv softmax(s)_uv``; the gradient in s is ``p (c - sum_v c p)``."""

    @staticmethod
    def forward(
        ctx: Any, f: Tensor, g: Tensor, truth: Tensor, places: Tensor, gamma: float, scale: float, step: int
    ) -> Tensor:
        cost = f.new_empty(f.shape[:2])
        for part in _parts(f.shape[1], step):
            p = _softmax(f[:, part], g, scale)
            cost[:, part] = (p * _distances(truth[:, part], places, gamma)).sum(-1)
        ctx.save_for_backward(f, g, truth, places, cost)
        ctx.settings = gamma, scale, step
        return cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, g, truth, places, cost = ctx.saved_tensors
        gamma, scale, step = ctx.settings
        df, dg = torch.empty_like(f), torch.zeros_like(g)
        for part in _parts(f.shape[1], step):
            ds = _softmax(f[:, part], g, scale)
            off = _distances(truth[:, part], places, gamma).sub_(cost[:, part, None])
            ds.mul_(off).mul_((grad[:, part] * scale)[..., None])
            df[:, part] = ds @ g
            dg.baddbmm_(ds.mT, f[:, part])
        return df, dg, None, None, None, None, None


class _LogSumExp(torch.autograd.Function):
    """Rows of ``log sum_v exp(s_uv)``; the gradient in s is p."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor, scale: float, step: int) -> Tensor:
        out = torch.cat(
            [torch.logsumexp((f[:, part] * scale) @ g.mT, -1) for part in _parts(f.shape[1], step)],
            1,
        )
        ctx.save_for_backward(f, g)
        ctx.settings = scale, step
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, g = ctx.saved_tensors
        scale, step = ctx.settings
        df, dg = torch.empty_like(f), torch.zeros_like(g)
        for part in _parts(f.shape[1], step):
            ds = _softmax(f[:, part], g, scale).mul_((grad[:, part] * scale)[..., None])
            df[:, part] = ds @ g
            dg.baddbmm_(ds.mT, f[:, part])
        return df, dg, None, None


def _softmax(f: Tensor, g: Tensor, scale: float) -> Tensor:
    return torch.softmax((f * scale) @ g.mT, -1)


def _distances(truth: Tensor, places: Tensor, gamma: float) -> Tensor:
    """|v - truth_u|^gamma: (B, n, M)."""
    r2 = (truth[..., :1] - places[:, 0]).square_()
    y = truth[..., 1:] - places[:, 1]
    r2.addcmul_(y, y)
    if gamma == 0.5:
        return r2.sqrt_().sqrt_()
    return r2.sqrt_() if gamma == 1 else r2.pow_(gamma / 2)


def _parts(n: int, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _rows_a_block(B: int, M: int, block: int | None) -> int:
    if block is not None:
        return check_int(block, "block", low=1)
    return max(1, _BLOCK_ENTRIES // max(B * M, 1))


def _check_pair(source: Tensor, target: Tensor) -> None:
    sizes = check_shape(check_float(source, "source"), "B N D", "source")
    check_shape(check_float(target, "target"), f"{sizes['B']} M {sizes['D']}", "target")
