"""Measures of maps from pixels to surfaces, each exactly defined. Distances on surfaces are in sqrt(area).

A point that the prediction misses has no vertex: its error is infinite. Two ways of counting are in use and differ
by several points, so both have names: *at true foreground* a vertex is predicted for every annotated pixel, whatever
the predicted mask; *misses as zero* takes pixels outside the predicted mask as missed, and a miss scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from geoframe._check import (
    as_floats,
    as_tensor,
    check_choice,
    check_float,
    check_index,
    check_int,
    check_shape,
)
from geoframe.canonical.rows import GeodesicRows
from geoframe.nearest.embedded import check_mask, nearest_vertices

KAPPA = 0.255  # of the released code, for all surfaces but the human one
PART_KAPPAS = (
    0.351,
    0.107,
    0.126,
    0.237,
    0.173,
    0.142,
    0.128,
    0.150,
)  # of the human surface, in metres, by part
_PART_ENDS = (2, 4, 6, 10, 14, 18, 22, 24)  # the last of the 24 fine parts that belongs to each of the eight
THRESHOLDS = tuple(np.round(np.arange(0.5, 0.951, 0.05), 2).tolist())


def geodesic_errors(predicted: Tensor, true: Tensor, rows: GeodesicRows) -> Tensor:
    """(N,) geodesic distance between predicted and true vertices, in sqrt(area); infinite for a missed point.

    Args:
        predicted: (N,) vertices, -1 where the point is missed.
        true: (N,) vertices.
        rows: of the surface; it computes and keeps the rows of the true vertices.

    Raises:
        TypeError, ValueError: not integers, out of range, of different lengths.
    """
    predicted, true = as_tensor(predicted, "predicted"), as_tensor(true, "true")
    return rows.pairs(true, predicted)


def gps(errors: Tensor, *, kappa: float | Tensor = KAPPA, misses: str = "zero") -> Tensor:
    """Geodesic point similarity of one instance: the mean over its points of ``exp(-d^2 / (2 kappa^2))``.

    Args:
        errors: (N,) geodesic errors, infinite for missed points.
        kappa: in the unit of the errors: the error that scores exp(-1/2) = 0.61; or one a point (N,).
        misses: "zero" counts missed points as 0, as the COCO evaluation does; "ignore" leaves them out.

    Returns:
        A scalar in [0, 1]; NaN where there is no point to count.

    Raises:
        TypeError, ValueError: not floating, another shape, a kappa that is not positive, an unknown word.

    Source: Guler et al. 2018, DensePose; Neverova et al. 2020, section 4.
    """
    errors = as_floats(errors, "errors")
    check_shape(errors, "N", "errors")
    check_choice(misses, ("zero", "ignore"), "misses")
    kappa = torch.as_tensor(kappa, dtype=errors.dtype, device=errors.device)
    if not bool((kappa > 0).all()):
        raise ValueError("kappa: expected positive numbers, found others")
    score = torch.exp(-errors.square() / (2 * kappa**2))
    if misses == "ignore":
        score = score[errors.isfinite()]
    return score.mean() if len(score) else errors.new_tensor(torch.nan)


def part_kappas(part: Tensor) -> Tensor:
    """(N,) kappa in metres of points on the human surface, by the fine part (1 to 24) that they are annotated with.

    Raises:
        TypeError, ValueError: not integers from 1 to 24.

    Source: the released evaluation, which groups the 24 parts into eight.
    """
    part = as_tensor(part, "part")
    check_index(part - 1, 24, "part", what="parts, counted from 1")
    ends = torch.tensor(_PART_ENDS, device=part.device)
    return torch.tensor(PART_KAPPAS, device=part.device)[torch.bucketize(part.long(), ends)]


def gpsm(score: Tensor, overlap: Tensor) -> Tensor:
    """``sqrt(GPS * IoU)``: the geometric mean of GPS, misses as zero, and the overlap of the masks.

    Args:
        score: (...) GPS.
        overlap: (...) intersection over union of the masks.
    """
    return (torch.as_tensor(score) * torch.as_tensor(overlap)).sqrt()


def mask_iou(predicted: Tensor, true: Tensor, *, band: int = 0) -> Tensor:
    """Intersection over union of two masks.

    Args:
        predicted: (..., H, W) bool.
        true: (..., H, W) bool.
        band: pixels within so many steps (also diagonal) of the outline of the true mask, on either side, count
            nowhere: 1 takes out what is a matter of half a pixel.

    Returns:
        (...) in [0, 1]; 1 where both are empty.

    Raises:
        TypeError, ValueError: not bool, shapes that differ, a negative band.
    """
    predicted, true = as_tensor(predicted, "predicted"), as_tensor(true, "true")
    check_mask(predicted, tuple(predicted.shape))
    check_mask(true, tuple(predicted.shape))
    check_int(band, "band", low=0)
    counted = ~outline_band(true, band) if band else torch.ones_like(true)
    both = (predicted & true & counted).sum((-2, -1))
    either = ((predicted | true) & counted).sum((-2, -1))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def outline_band(mask: Tensor, width: int = 1) -> Tensor:
    """(..., H, W) bool: pixels that have one of the other kind within `width` steps, also diagonal."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    size = 2 * width + 1

    def widened(x: Tensor) -> Tensor:
        return torch.nn.functional.max_pool2d(x, size, stride=1, padding=width) > 0.5

    return (widened(flat) & widened(1 - flat)).view(mask.shape)


def average_precision(
    similarity: Tensor,
    score: Tensor,
    n_instances: int | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, float]:
    """AP and AR over thresholds of GPS or GPSm, in the manner of COCO: 101 recalls, precision made to fall.

    Args:
        similarity: (n,) of each prediction with the instance it belongs to; 0 for one that belongs to none.
        score: (n,) how sure each prediction is, any monotone scale.
        n_instances: how many there are to find, n or more; None for n.
        thresholds: from which similarity a prediction is right.

    Returns:
        `ap` and `ar`, means over the thresholds, and `ap50`, `ap75` where these are among them; all in [0, 1].

    Raises:
        TypeError, ValueError: not floating, shapes that differ, fewer instances than predictions that are right.
    """
    similarity, score = as_floats(similarity, "similarity"), as_floats(score, "score")
    n = check_shape(similarity, "n", "similarity")["n"]
    check_shape(score, f"{n}", "score")
    total = n if n_instances is None else check_int(n_instances, "n_instances", low=0)
    ranked = similarity[torch.argsort(score, descending=True, stable=True)].double()
    recalls = torch.linspace(0, 1, 101, dtype=torch.float64)
    aps, ars = [], []
    for threshold in thresholds:
        right = (ranked >= threshold).double().cumsum(0).cpu()
        if n and float(right[-1]) > total:
            raise ValueError(f"n_instances: expected at least {int(right[-1])}, found {total}")
        if not n or not total:
            aps.append(0.0)
            ars.append(0.0)
            continue
        recall = right / total
        precision = right / torch.arange(1, n + 1)
        precision = precision.flip(0).cummax(0).values.flip(0)
        at = torch.searchsorted(recall, recalls - 1e-12)
        aps.append(float(torch.where(at < n, precision[at.clamp_max(n - 1)], 0.0).mean()))
        ars.append(float(recall[-1]))
    out = {"ap": float(np.mean(aps)), "ar": float(np.mean(ars))}
    return out | {
        f"ap{round(100 * t)}": ap for t, ap in zip(thresholds, aps, strict=True) if round(100 * t) in (50, 75)
    }


def mirrored_share(errors: Tensor, errors_to_mirror: Tensor) -> Tensor:
    """Share of the points that are nearer to the mirror image of the truth than to the truth: left taken for right.

    Args:
        errors: (N,) geodesic errors.
        errors_to_mirror: (N,) distances from the predictions to the mirror images of the true vertices.

    Returns:
        A scalar in [0, 1], missed points left out; NaN where none is left. Points on the midline never count as
        mirrored.
    """
    errors, errors_to_mirror = as_floats(errors, "errors"), as_floats(errors_to_mirror, "errors_to_mirror")
    check_shape(errors_to_mirror, f"{len(errors)}", "errors_to_mirror")
    found = errors.isfinite()
    return (errors_to_mirror < errors)[found].float().mean()


def pck(predicted: Tensor, true: Tensor, size: float | Tensor, *, alpha: float = 0.1) -> Tensor:
    """Share of points that are transferred to within ``alpha * size`` of the truth.

    Args:
        predicted: (..., N, 2) pixels; NaN where a point was not found, which is wrong.
        true: (..., N, 2) pixels; NaN where a point is not annotated, which is left out.
        size: the length that errors are measured in: the longer side of the object's box, or the square root of its
            mask's area; one, or (...) one an image.
        alpha: share of it.

    Returns:
        (...) in [0, 1]; NaN where no point is annotated.

    Raises:
        TypeError, ValueError: not floating, shapes that differ.
    """
    predicted, true = as_floats(predicted, "predicted"), as_floats(true, "true")
    check_shape(true, "... N 2", "true")
    if predicted.shape != true.shape:
        raise ValueError(f"predicted: expected shape {tuple(true.shape)}, found {tuple(predicted.shape)}")
    known = ~true.isnan().any(-1)
    away = (predicted - true).norm(dim=-1)
    limit = alpha * torch.as_tensor(size, dtype=true.dtype, device=true.device)
    right = known & (away <= limit[..., None])  # NaN is not
    return right.sum(-1) / torch.where(known.any(-1), known.sum(-1).float(), torch.nan)


def pixel_scores(
    vertex: Tensor,
    mask: Tensor,
    true_vertex: Tensor,
    true_mask: Tensor,
    rows: GeodesicRows,
    *,
    mirror: Tensor | None = None,
    kappa: float = KAPPA,
) -> dict[str, float]:
    """All measures of one image.

    Args:
        vertex: (H, W) predicted vertices: wherever the truth has one, whatever the predicted mask (decode with the
            union of both masks); -1 there is a miss in both ways of counting.
        mask: (H, W) bool, predicted.
        true_vertex: (H, W), -1 where nothing is annotated: all of the mask, or a few points.
        true_mask: (H, W) bool.
        rows: of the surface.
        mirror: (V,) for each vertex the one on the other side; None leaves `mirrored` out.
        kappa: in sqrt(area).

    Returns:
        `geodesic_error_mean`, `geodesic_error_median`, `gps` (at true foreground), `gps_misses_zero`, `gpsm`,
        `mask_iou`, `mask_iou_inside` (without a band of 1 pixel), `mirrored`, `points` (how many are annotated).

    Raises:
        TypeError, ValueError: shapes that differ, vertices out of range, no annotated point.
    """
    size = tuple(true_vertex.shape)
    check_mask(mask, size)
    check_mask(true_mask, size)
    if tuple(vertex.shape) != size:
        raise ValueError(f"vertex: expected shape {size} as true_vertex, found {tuple(vertex.shape)}")
    at = true_vertex >= 0
    if not bool(at.any()):
        raise ValueError("true_vertex: expected at least one annotated pixel, found none")
    found, true = vertex[at], true_vertex[at]
    errors = geodesic_errors(found, true, rows)
    iou = float(mask_iou(mask, true_mask))
    zero = float(gps(errors.masked_fill(~mask[at], torch.inf), kappa=kappa))
    hit = errors[errors.isfinite()]
    out = {
        "geodesic_error_mean": float(hit.mean()),
        "geodesic_error_median": float(hit.median()) if len(hit) else float("nan"),
        "gps": float(gps(errors, kappa=kappa)),
        "gps_misses_zero": zero,
        "gpsm": (zero * iou) ** 0.5,
        "mask_iou": iou,
        "mask_iou_inside": float(mask_iou(mask, true_mask, band=1)),
    }
    if mirror is not None:
        other = mirror.to(true.device)[true]
        out["mirrored"] = float(mirrored_share(errors, geodesic_errors(found, other, rows)))
    return out | {"points": float(len(true))}


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over images of each measure (each image counts alike; NaN is left out), and AP, AR of GPSm.

    `points` is the sum. `ap` and `ar` take every image for one instance, found with certainty: `average_precision`
    takes scores of detections.

    Raises:
        ValueError: no image.
    """
    if not scores:
        raise ValueError("scores: expected those of at least one image, found none")
    names = dict.fromkeys(name for s in scores for name in s)
    out = {}
    for name in names:
        column = np.array([s[name] for s in scores if name in s])
        known = column[~np.isnan(column)]
        out[name] = float(column.sum() if name == "points" else known.mean() if len(known) else np.nan)
    similarity = torch.tensor([s["gpsm"] for s in scores], dtype=torch.float64)
    return out | average_precision(similarity, torch.ones(len(scores), dtype=torch.float64))


def mesh_error(
    table1: Tensor, table2: Tensor, pairs: Tensor, rows2: GeodesicRows, *, kappa: float = KAPPA
) -> dict[str, float]:
    """How well learned embeddings match two surfaces: the nearest vertex of surface 2 against the true one.

    Args:
        table1: (V1, D) embeddings of surface 1.
        table2: (V2, D) of surface 2.
        pairs: (L, 2) vertices of surface 1 and of surface 2 that correspond: landmarks, or all of a known map.
        rows2: geodesic rows of surface 2.
        kappa: in sqrt(area).

    Returns:
        `geodesic_error_mean` in sqrt(area), `gps` in [0, 1].

    Raises:
        TypeError, ValueError: shapes that do not fit, vertices out of range.

    Source: the released mesh alignment evaluation (argmax of the inner product of embeddings, errors times 100).
    """
    pairs = as_tensor(pairs, "pairs")
    check_shape(pairs, "L 2", "pairs")
    check_index(pairs[:, 0], len(check_float(table1, "table1")), "pairs", what="vertices of surface 1")
    check_index(pairs[:, 1], len(table2), "pairs", what="vertices of surface 2")
    found = nearest_vertices(table1[pairs[:, 0].long()], table2)
    errors = geodesic_errors(found, pairs[:, 1].long(), rows2)
    return {"geodesic_error_mean": float(errors.mean()), "gps": float(gps(errors, kappa=kappa))}
