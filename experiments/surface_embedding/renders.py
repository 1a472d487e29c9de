"""What the model does on unseen renders: on all, and by what makes a picture hard (view, cuts, occluders, size)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from geoframe.data.rendered import RenderedBatch, render_set
from geoframe.metrics.embeddings import mean_scores
from geoframe.models.surface_embedding import Predictor, evaluate_each
from geoframe.render import rasterize

LEAST = (
    0.05  # share of the vertices outside of the picture, or of the object hidden, that makes it a hard one
)
SMALL = 0.1  # of the picture
KEYS = (
    "geodesic_error_mean",
    "geodesic_error_median",
    "gps",
    "gps_misses_zero",
    "mask_iou",
    "mask_iou_inside",
    "mirrored",
)


def renders(
    predictor: Predictor, category: str, n: int, *, size: int = 128, seed: int = 9001
) -> dict[str, Any]:
    """Measures of a predictor on n renders of a category: of all, and of kinds of pictures with their number.

    Args:
        predictor: the model.
        category: whose surface the predictor knows.
        n: pictures.
        size: pixels.
        seed: of the pictures; not one that was trained on.
    """
    images = render_set(category, n, size=size, seed=seed)
    scores = evaluate_each(predictor, images)
    faces = images.surfaces()[0].faces
    kinds: dict[str, list[dict[str, float]]] = {}
    for batch in images.batches(16):
        for number, told in zip(batch.index.tolist(), kinds_of(batch, faces), strict=True):
            for kind in ("all", *told) if number in scores else ():
                kinds.setdefault(kind, []).append(scores[number])
    out: dict[str, Any] = {}
    for kind, found in kinds.items():
        means = mean_scores(found)
        out[kind] = {"pictures": len(found)} | {k: round(means[k], 4) for k in KEYS}
    return out


def kinds_of(batch: RenderedBatch, faces: Tensor) -> list[list[str]]:
    """For each picture the words that fit: "side", "quarter" or "end on"; "cut off", "hidden", "small", or "clear"."""
    assert isinstance(batch.verts, Tensor)
    clear = rasterize(batch.verts, faces, batch.camera).mask
    shown = (clear & batch.mask).sum((1, 2)) / clear.sum((1, 2)).clamp_min(1)
    places = batch.camera.project(batch.verts)[..., :2]
    H, W = batch.mask.shape[-2:]
    outside = ((places < 0) | (places > torch.tensor([W, H]))).any(-1).float().mean(1)
    ahead = batch.camera.R_wc[:, 2]  # an animal stands along x
    from_side = torch.atan2(ahead[:, 0].abs(), ahead[:, 2].abs()) * (180 / math.pi)
    out = []
    for i in range(len(batch.mask)):
        hard = [
            *(["cut off"] if outside[i] > LEAST else []),
            *(["hidden"] if shown[i] < 1 - LEAST else []),
            *(["small"] if batch.mask[i].float().mean() < SMALL else []),
        ]
        view = "side" if from_side[i] < 30 else "quarter" if from_side[i] < 60 else "end on"
        clear_side = ["clear, side"] if not hard and view == "side" else []
        out.append([view, *(hard or ["clear"]), *clear_side])
    return out
