"""Losses of continuous surface embeddings: from pixels to vertices, around cycles, and of the mask.

All return a scalar, and hold a bounded number of scores at a time: an image has tens of thousands of pixels and a
surface thousands of vertices. Distances on surfaces are in sqrt(area) (`geoframe.canonical.GeodesicRows`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geoframe._check import check_choice, check_float, check_index, check_int, check_shape
from geoframe._precision import full_precision
from geoframe.nearest.embedded import check_embeddings, logit_terms, unit_rows

BLOCK = 2**22  # scores held at a time, 4 bytes each
TARGETS = ("squared", "first_power", "first_power_code")


def vertex_cross_entropy(
    x: Tensor, table: Tensor, vertex: Tensor, *, temperature: float, form: str = "dot", block: int = BLOCK
) -> Tensor:
    """Mean cross entropy of the annotated vertices under the softmax over all vertices.

    Args:
        x: (N, D) embeddings at annotated pixels; taken at unit length.
        table: (V, D) unit embeddings of the vertices.
        vertex: (N,) the annotated vertices.
        temperature: of the similarity, as in `geoframe.nearest.embedding_logits`: sigma of "distance", half of it of
            "dot". The released code has sigma 0.01 for people, 0.1 for animals.
        form: "dot" or "distance".
        block: number of scores held at a time (4 bytes each).

    Returns:
        A scalar of at least 0; 0 where N is 0. Differentiable once, in `x` and `table`.

    Raises:
        TypeError, ValueError: shapes that do not fit, a vertex out of range.

    Source: Neverova et al. 2020, equation 3.
    """
    _check_points(x, table, vertex)
    return _cross_entropy(x, table, vertex, None, None, logit_terms(temperature, form), block)


def geodesic_cross_entropy(
    x: Tensor,
    table: Tensor,
    vertex: Tensor,
    distances: Tensor,
    row: Tensor | None = None,
    *,
    temperature: float,
    sigma: float,
    target: str = "squared",
    form: str = "dot",
    block: int = BLOCK,
) -> Tensor:
    """Mean cross entropy of targets that are spread over the neighbours of the annotated vertices on the surface.

    The target is the softmax over the vertices of

    - "squared": ``-d^2 / (2 sigma^2)``, a Gaussian, which the words of the paper describe;
    - "first_power": ``-d / (2 sigma^2)``, equation 4 of the paper as printed;
    - "first_power_code": ``-d / sigma``, the released code.

    Args:
        x: (N, D) embeddings at annotated pixels; taken at unit length.
        table: (V, D) unit embeddings of the vertices.
        vertex: (N,) the annotated vertices.
        distances: (A, V) rows of the geodesic matrix, in sqrt(area), float16 or float32; of the annotated vertices
            only, or of all (A = V).
        row: (N,) for each pixel its row of `distances`; None where ``row = vertex``. `GeodesicRows.table` gives both.
        temperature: as in `vertex_cross_entropy`.
        sigma: width of the targets; with "squared" a distance in sqrt(area).
        target: one of the three.
        form: "dot" or "distance".
        block: number of scores held at a time (8 bytes each).

    Returns:
        A scalar; its least value is the mean entropy of the targets. 0 where N is 0. Differentiable once, in `x`
        and `table`.

    Raises:
        TypeError, ValueError: shapes that do not fit, a vertex or row out of range, an unknown target.

    Source: Neverova et al. 2020, equation 4.
    """
    _check_points(x, table, vertex)
    check_choice(target, TARGETS, "target")
    if not sigma > 0:
        raise ValueError(f"sigma: expected a positive number, found {sigma}")
    check_shape(distances, f"A {len(table)}", "distances")
    row = vertex if row is None else row
    check_shape(row, f"{len(x)}", "row")
    check_index(row, len(distances), "row", what="rows of distances")
    power = 2 if target == "squared" else 1
    scale = 1 / sigma if target == "first_power_code" else 1 / (2 * sigma**2)
    terms = logit_terms(temperature, form)
    return _cross_entropy(x, table, row, distances, (power, scale), terms, block)


def _check_points(x: Tensor, table: Tensor, vertex: Tensor) -> None:
    check_embeddings(x, table)
    check_index(vertex, len(table), "vertex", what="vertices")
    check_shape(vertex, f"{len(x)}", "vertex")


@full_precision
def _cross_entropy(
    x: Tensor,
    table: Tensor,
    row: Tensor,
    distances: Tensor | None,
    target: tuple[int, float] | None,
    terms: tuple[float, float],
    block: int,
) -> Tensor:
    check_int(block, "block", low=1)
    if not len(x):
        return (x.sum() + table.sum()) * 0
    step = max(block // len(table), 1)
    value: Tensor = _CrossEntropy.apply(unit_rows(x), table, row, distances, target, terms, step)
    return value


class _CrossEntropy(torch.autograd.Function):
    """Mean over the rows of ``-sum_v t_v log softmax(a <x, e_v> + b |e_v|^2)``.

    The gradient of the logits is softmax minus target: it is there with the value, so the backward pass has nothing
    to compute and nothing of size (N, V) to keep.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        table: Tensor,
        row: Tensor,
        distances: Tensor | None,
        target: tuple[int, float] | None,
        terms: tuple[float, float],
        step: int,
    ) -> Tensor:
        scale, offset = terms
        bias = offset * table.square().sum(-1) if offset else None
        total = x.new_zeros((), dtype=torch.float64)
        g_x, g_table, g_bias = torch.empty_like(x), torch.zeros_like(table), x.new_zeros(len(table))
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            logits = scale * (x[part] @ table.mT)
            if bias is not None:
                logits += bias
            log_p = torch.log_softmax(logits, -1)
            g = log_p.exp()
            if target is None or distances is None:
                own = row[part, None].long()
                total -= log_p.gather(1, own).double().sum()
                g.scatter_add_(1, own, g.new_full(own.shape, -1.0))
            else:
                power, sharp = target
                d = distances[row[part]].to(x.dtype)
                t = torch.softmax((d.square() if power == 2 else d).mul_(-sharp), -1)
                total -= torch.where(t > 0, t * log_p, 0.0).double().sum()
                g -= t
            g_x[part] = scale * (g @ table)
            g_table.addmm_(g.mT, x[part], alpha=scale)
            g_bias += g.sum(0)
        if offset:
            g_table += 2 * offset * g_bias[:, None] * table
        ctx.save_for_backward(g_x / len(x), g_table / len(x))
        return (total / len(x)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        g_x, g_table = ctx.saved_tensors
        return g * g_x, g * g_table, None, None, None, None, None


def shape_cycle_loss(
    table1: Tensor,
    table2: Tensor,
    distances1: Tensor,
    distances2: Tensor,
    *,
    temperature: float = 0.05,
    p: float = 2,
    reduction: str = "mean",
) -> Tensor:
    """How far vertices come back from where they started when they go to another surface and back, both ways.

    With the soft maps ``P_12 = softmax(<e1, e2> / temperature)`` the way there and back is ``P_12 P_21``; the loss is
    the p-norm of its entries times the geodesic distances.

    Args:
        table1: (V1, D) unit embeddings of some vertices of surface 1; some thousand at most, drawn anew each step.
        table2: (V2, D) of surface 2.
        distances1: (V1, V1) between these vertices, in sqrt(area).
        distances2: (V2, V2).
        temperature: of the soft maps.
        p: of the norm.
        reduction: "mean", the mean over the vertices of the norm of each row, which does not grow with their number;
            "norm", the norm of the whole matrix, as the released code has it (its weight there is 0.025).

    Returns:
        A scalar of at least 0, the two directions added.

    Raises:
        TypeError, ValueError: shapes that do not fit, an unknown reduction.

    Source: Neverova et al. 2021, Discovering relationships between object categories via universal canonical maps,
        as the DensePose code has it.
    """
    check_embeddings(table1, table2, "table1")
    check_choice(reduction, ("mean", "norm"), "reduction")
    for distances, table, name in ((distances1, table1, "distances1"), (distances2, table2, "distances2")):
        check_shape(distances, f"{len(table)} {len(table)}", name)
    logits = table1 @ table2.mT / temperature
    P_12, P_21 = logits.softmax(-1), logits.mT.softmax(-1)
    there = _norm(distances1.to(table1) * (P_12 @ P_21), p, reduction)
    return there + _norm(distances2.to(table1) * (P_21 @ P_12), p, reduction)


def pixel_cycle_loss(
    x: Tensor,
    pixels: Tensor,
    table: Tensor,
    *,
    temperature: float = 0.05,
    temperature_back: float = 0.05,
    p: float = 2,
    squared: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """How far pixels come back from where they started when they go to the surface and back to the image.

    Args:
        x: (N, D) embeddings of some foreground pixels of one image (the released code takes 100); taken at unit
            length.
        pixels: (N, 2) their places, best in units of the object's size.
        table: (V, D) unit embeddings of the vertices.
        temperature: of the soft map from pixels to vertices.
        temperature_back: of the soft map from vertices to pixels.
        p: of the norm.
        squared: whether distances between pixels are squared, as in the released code.
        reduction: as in `shape_cycle_loss`; with "norm" the released code's weight is 1e-4.

    Returns:
        A scalar of at least 0; 0 where N is 0.

    Raises:
        TypeError, ValueError: shapes that do not fit, an unknown reduction.

    Source: as `shape_cycle_loss`. The released code reads a pixel sigma that it never uses; there is none here.
    """
    check_embeddings(x, table)
    check_shape(check_float(pixels, "pixels"), f"{len(x)} 2", "pixels")
    check_choice(reduction, ("mean", "norm"), "reduction")
    if not len(x):
        return (x.sum() + table.sum()) * 0
    scores = unit_rows(x) @ table.mT
    there = (scores / temperature).softmax(-1)
    back = (scores.mT / temperature_back).softmax(-1)
    away = (pixels[:, None] - pixels).square().sum(-1)
    if not squared:
        away = torch.where(away > 0, away, 1.0).sqrt() * (away > 0)
    return _norm(away.to(x) * (there @ back), p, reduction)


def _norm(x: Tensor, p: float, reduction: str) -> Tensor:
    """p-norm of a matrix with entries of at least 0, or the mean of those of its rows; 0 has gradient 0."""
    return x.norm(p, dim=-1).mean() if reduction == "mean" else x.norm(p)


def mask_loss(logits: Tensor, mask: Tensor, *, overlap: float = 0.0) -> Tensor:
    """Binary cross entropy of the foreground, averaged over all pixels, and optionally the overlap of the soft mask.

    Args:
        logits: (B, H, W) floating; above 0 is foreground.
        mask: (B, H, W) bool or numbers in [0, 1].
        overlap: weight of ``1 - soft IoU``, averaged over the images; it counts small objects as much as large ones.

    Returns:
        A scalar of at least 0.

    Raises:
        TypeError, ValueError: not floating, shapes that differ.
    """
    check_float(logits, "logits")
    if logits.shape != mask.shape:
        raise ValueError(f"mask: expected shape {tuple(logits.shape)} as logits, found {tuple(mask.shape)}")
    truth = mask.to(logits)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    if overlap:
        soft = logits.sigmoid().flatten(1)
        truth = truth.flatten(1)
        both = (soft * truth).sum(-1)
        either = (soft + truth).sum(-1) - both
        loss = loss + overlap * (1 - (both + 1) / (either + 1)).mean()
    return loss
