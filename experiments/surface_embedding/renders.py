"""What the model does on unseen renders: on all, and by what makes a picture hard (view, cuts, occluders, size)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from experiments.surface_embedding.photographs import described
from geoframe.data.rendered import RenderedBatch, render_set
from geoframe.metrics.embeddings import mean_scores, pck
from geoframe.models.surface_embedding import Predictor, evaluate_each
from geoframe.render import rasterize

LEAST = (
    0.05  # share of the vertices outside of the picture, or of the object hidden, that makes it a hard one
)
SMALL = 0.1  # of the picture
LEAST_PIXELS, LEAST_JOINTS = 800, 3  # of a picture, and seen in both, for landmarks to be carried
CARRIED = ("horse", "cow", "dog", "sheep", "zebra", "lion", "cat", "bear", "elephant", "giraffe")
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


WEIGHTS = (0.5, 0.7, 1.0, 1.2, 1.4, 1.7, 2.2, 3.0)


def weights(predictor: Predictor, n: int, *, seed: int = 777) -> dict[str, Any]:
    """Share of landmarks carried between two renders of an animal, by the weight of the embedding beside raw features.

    Args:
        predictor: the model.
        n: pairs: another pose and another camera, 256 pixels, ten species.
        seed: of the pairs.

    Returns:
        For each weight the shares within .2 and .1 sqrt(mask area), and their sum.
    """
    images = render_set(CARRIED, n, size=256, seed=seed, surface="horse")
    found: dict[float, list[list[float]]] = {w: [] for w in WEIGHTS}
    for i in range(n):
        first, second, *_ = images.pairs(i, motion=0.6)
        both = first.visible[0] & second.visible[0]
        if min(int(x.mask.sum()) for x in (first, second)) < LEAST_PIXELS or int(both.sum()) < LEAST_JOINTS:
            continue
        start = described(predictor, first.image[0], first.mask[0], first.landmarks[0][both])
        now = described(predictor, second.image[0], second.mask[0], None)
        for w, shares in found.items():
            ends = [x.of("embedding_and_features", joints, w) for x, joints in ((start, True), (now, False))]
            there = now.pixels[(ends[0].T @ ends[1]).argmax(1)] + 0.5
            size = float(now.mask.sum()) ** 0.5
            shares.append([float(pck(there, second.landmarks[0][both], size, alpha=a)) for a in (0.2, 0.1)])
    means = {str(w): torch.tensor(x).mean(0).tolist() for w, x in found.items()}
    return {w: [round(v, 4) for v in (*m, sum(m))] for w, m in means.items()}


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
