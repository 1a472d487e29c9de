"""Pixels to vertices: which vertex of a surface each pixel's embedding is nearest to, and how sure that is.

Embeddings of vertices are unit vectors, so that the vertex with the largest inner product with a pixel is also the
one at the least distance, whatever the length of the pixel's own embedding. The two similarities that papers use
are one: ``-|x - e|^2 / sigma`` of unit vectors is ``2 <x, e> / sigma - 2 / sigma``, hence the inner product at
temperature ``sigma / 2``, and a constant that no softmax sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_choice, check_float, check_index, check_int, check_shape
from geoframe.nearest.coherent import nearest_coherent
from geoframe.nearest.dense import true_at

FORMS = ("dot", "distance")
BLOCK = 2**21  # scores held at a time, 4 bytes each
SHORTEST = 1e-6  # a shorter embedding than this is divided by this, not by its length


def unit_rows(x: Tensor) -> Tensor:
    """The rows of `x` (..., D) divided by their lengths, of at least `SHORTEST`; differentiable at zero.

    Source: DensePose's released code, which normalises in this way.
    """
    return torch.nn.functional.normalize(x, dim=-1, eps=SHORTEST)


def embedding_logits(x: Tensor, table: Tensor, *, temperature: float, form: str = "dot") -> Tensor:
    """(N, V) similarity of embeddings, to be put through a softmax over the vertices.

    Args:
        x: (N, D) of pixels.
        table: (V, D) of vertices.
        temperature: by which similarities are divided: sigma of the "distance" form, sigma / 2 of the "dot" form.
        form: "dot", ``<x, e> / temperature``; "distance", ``-|x - e|^2 / temperature``.

    Raises:
        TypeError, ValueError: not floating, other shapes, a temperature that is not positive, an unknown form.

    Source: Neverova et al. 2020, equation 1 has the inner product; the released code the squared distance.
    """
    check_embeddings(x, table)
    scale, offset = logit_terms(temperature, form)
    logits = scale * (x @ table.mT)
    if form == "distance":
        logits = logits + offset * (table.square().sum(-1) + x.square().sum(-1, keepdim=True))
    return logits


def logit_terms(temperature: float, form: str) -> tuple[float, float]:
    """``(a, b)`` with which the logits are ``a <x, e> + b |e|^2``, up to a constant of each pixel."""
    check_choice(form, FORMS, "form")
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, found {temperature}")
    return (1 / temperature, 0.0) if form == "dot" else (2 / temperature, -1 / temperature)


def check_embeddings(x: Tensor, table: Tensor, name: str = "x") -> None:
    """Require x (N, D) and table (V, D), floating, with V > 0."""
    D = check_shape(check_float(x, name), "N D", name)["D"]
    sizes = check_shape(check_float(table, "table"), "V D", "table")
    if sizes["D"] != D:
        raise ValueError(f"table: expected {D} columns as {name}, found {sizes['D']}")
    if sizes["V"] == 0:
        raise ValueError("table: expected at least one vertex, found none")


def nearest_vertices(x: Tensor, table: Tensor, *, block: int = BLOCK) -> Tensor:
    """(N,) int64: the vertex whose embedding is nearest to each pixel's, exactly.

    Both are taken at unit length, so that this is also the vertex of the largest inner product. Quick where many
    pixels are alike, as those of an image are; see `nearest_coherent`.

    Args:
        x: (N, D) embeddings of pixels; of length zero: vertex 0.
        table: (V, D) embeddings of vertices.
        block: number of scores held at a time (4 bytes each).

    Raises:
        TypeError, ValueError: not floating, other shapes, NaN.
    """
    check_embeddings(x, table)
    check_int(block, "block", low=1)
    with torch.no_grad():
        found = nearest_coherent(unit_rows(x.detach().contiguous()), unit_rows(table.detach()), block=block)
        return found.masked_fill_(x.norm(dim=1) == 0, 0)


def decode_embedding(embedding: Tensor, table: Tensor, mask: Tensor, *, block: int = BLOCK) -> Tensor:
    """(H, W) int64: the nearest vertex of every pixel of the foreground, -1 outside of it.

    Args:
        embedding: (D, H, W) of pixels.
        table: (V, D) of vertices.
        mask: (H, W) bool, the foreground; pixels outside are not looked at.
        block: number of scores held at a time (4 bytes each).

    Raises:
        TypeError, ValueError: not floating, shapes that do not fit, NaN inside the mask.
    """
    sizes = check_shape(check_float(embedding, "embedding"), "D H W", "embedding")
    check_mask(mask, (sizes["H"], sizes["W"]))
    shown = true_at(mask)
    out = torch.full((mask.numel(),), -1, dtype=torch.int64, device=embedding.device)
    out[shown] = nearest_vertices(embedding.flatten(1).T.contiguous()[shown], table, block=block)
    return out.view(mask.shape)


def check_mask(mask: Tensor, size: tuple[int, ...]) -> None:
    """Require a mask (..., H, W) bool of this size."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask: expected a torch.bool tensor, found {found}; compare with a threshold first")
    if tuple(mask.shape) != size:
        raise ValueError(f"mask: expected shape {size} as the image has it, found {tuple(mask.shape)}")


def vertex_posterior(
    x: Tensor, table: Tensor, *, temperature: float, area: Tensor | None = None, form: str = "dot"
) -> Tensor:
    """(N, V) the probability of every vertex at every pixel: the softmax that the cross entropy is trained with.

    Args:
        x: (N, D) of pixels; taken at unit length.
        table: (V, D) of vertices; taken at unit length.
        temperature: as in `embedding_logits`.
        area: (V,) positive weights of the vertices, such as the areas of the surface that they stand for when the
            table holds a few representatives only; None counts them alike.
        form: as in `embedding_logits`.

    Raises:
        TypeError, ValueError: as `embedding_logits`; weights of another shape.
    """
    logits = embedding_logits(unit_rows(x), unit_rows(table), temperature=temperature, form=form)
    if area is not None:
        if area.shape != (len(table),):
            raise ValueError(f"area: expected shape ({len(table)},), found {tuple(area.shape)}")
        logits = logits + area.to(logits).log()
    return logits.softmax(-1)


def posterior_confidence(
    x: Tensor,
    table: Tensor,
    *,
    temperature: float,
    vertex: Tensor | None = None,
    kernel: Tensor | None = None,
    area: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """(N,) in [0, 1]: how concentrated the posterior of each pixel is; to be calibrated on data set aside.

    Without a kernel it is the length of the mean embedding ``|sum_v p_v e_v|``, 1 where all probability is at one
    place and small where it is spread over the surface. With one it is ``sum_v p_v kernel[answer, v]``: with
    ``kernel = exp(-d^2 / (2 kappa^2))`` the score (GPS) that the answer expects of itself.

    Args:
        x: (N, D) of pixels.
        table: (R, D) of vertices: all of them, or some hundred that stand for all, which is as good and faster.
        temperature: of the "dot" form.
        vertex: (N,) the answers, as rows of `kernel`; needed with a kernel.
        kernel: (A, R) in [0, 1]: how much a vertex of the table counts for an answer.
        area: (R,) weights of the vertices, as in `vertex_posterior`.
        block: number of probabilities held at a time (4 bytes each).

    Raises:
        TypeError, ValueError: as `vertex_posterior`; a kernel without answers, or of another width.
    """
    check_embeddings(x, table)
    if kernel is not None:
        check_shape(kernel, f"A {len(table)}", "kernel")
        if vertex is None:
            raise ValueError("vertex: expected the answers (N,) that the kernel is read at, found None")
        check_index(vertex, len(kernel), "vertex", what="rows of the kernel")
    table = unit_rows(table)
    out = x.new_empty(len(x))
    step = max(block // len(table), 1)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        p = vertex_posterior(x[part], table, temperature=temperature, area=area)
        if kernel is None:
            out[part] = (p @ table).norm(dim=-1)
        else:
            assert vertex is not None
            out[part] = (p * kernel[vertex[part]].to(p)).sum(-1)
    return out.clamp(0, 1)


def least_expected_distance(
    x: Tensor,
    table: Tensor,
    distances: Tensor,
    *,
    temperature: float,
    area: Tensor | None = None,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """The answer whose expected distance to the truth is least, under the posterior of each pixel.

    The likeliest vertex may be one of two places that look alike; this one weighs them by how far they are. It costs
    a product of (N, R) and (R, A): with R = 256 representatives and all 5,000 vertices as answers, 0.1 ms a pixel
    row of 256 at a time on one core, which is some ten times the nearest vertex.

    Args:
        x: (N, D) of pixels.
        table: (R, D) embeddings of the vertices that carry the posterior: all, or some hundred that stand for all.
        distances: (R, A) from each of these vertices to each possible answer, on the surface.
        temperature: of the "dot" form.
        area: (R,) weights of the vertices, as in `vertex_posterior`.
        block: number of expected distances held at a time (4 bytes each).

    Returns:
        answer: (N,) int64, a column of `distances`.
        expected: (N,) its expected distance, in the unit of `distances`.

    Raises:
        TypeError, ValueError: as `vertex_posterior`; distances of another height.
    """
    check_embeddings(x, table)
    check_shape(check_float(distances, "distances"), f"{len(table)} A", "distances")
    answer = torch.empty(len(x), dtype=torch.int64, device=x.device)
    expected = x.new_empty(len(x))
    step = max(block // max(distances.shape[1], len(table)), 1)
    with torch.no_grad():
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            p = vertex_posterior(x[part], table, temperature=temperature, area=area)
            expected[part], answer[part] = (p @ distances.to(p)).min(-1)
    return answer, expected
