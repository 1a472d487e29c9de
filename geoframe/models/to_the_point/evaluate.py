"""Reconstructions measured: silhouettes, keypoints, poses, surfaces; and the confidence calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from geoframe.data.augment import shuffle_tiles
from geoframe.data.object_crops import PADDING, ObjectCrops
from geoframe.fitting.explained import Explained
from geoframe.heads.positions import Positions
from geoframe.layers.logistic import fit_logistic
from geoframe.metrics.embeddings import mask_iou
from geoframe.metrics.reconstruction import REVERSED, iou_3d, keypoint_pck, soft_iou, surface_error
from geoframe.models.to_the_point.network import Posed, ToThePoint, as_images
from geoframe.render import rasterize, soft_silhouette
from geoframe.transforms import procrustes, rotation_angle

if TYPE_CHECKING:
    from geoframe.models.to_the_point.predictor import Predictor

RIGHT = 30.0  # degrees from the truth up to which a pose is right
_BATCH = 32
_DOUBTFUL = 0.5  # confidence below which there is a warning
_PENALTY = 1e-3  # of the confidence's weights
_RIDGES = (0.02, 0.06, 0.2, 0.6, 2.0, 8.0, 32.0)  # of which the set-aside crops choose


def evaluate(
    predictor: Predictor,
    crops: ObjectCrops,
    *,
    deform: bool = True,
    steps: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, float]:
    """Measure a predictor on crops that it was not trained on.

    Args:
        predictor: what is measured.
        crops: with masks; with keypoints and, of renders, the truth of every vertex.
        deform: False measures the mean shape.
        steps: alternations; None for those of the model.
        progress: called with (text, share done).

    Returns:
        `iou_soft` (unthresholded soft silhouettes) and `iou_hard`, means over the crops; where there are keypoints
        `pck_10` and `pck_15` (through the 3D shape) and `pck_10_regressed`, means over keypoints, thresholds in parts
        of the longer side of the object's box; where the truth is known `rotation_median_deg`, `reversed` (share of
        rotations more than 90 degrees away), `surface_percent` (of the box's diagonal) and `iou_3d`; `confidence`, the
        mean, `right` (share of rotations within 30 degrees), `doubtful` (share of crops with a warning) and
        `doubtful_where_wrong`; `crops`, their number.
    """
    found, posed = reconstructed(predictor.model, crops, deform=deform, steps=steps)
    S, faces = crops.size, predictor.model.faces
    out = {"crops": float(len(crops))}
    hard, soft = [], []
    for rows in torch.arange(len(crops)).split(_BATCH):
        screen, mask = posed.screen(S)[rows], crops.mask[rows]
        drawn = rasterize(screen, faces, (S, S)).mask
        hard += [float(mask_iou(a, b)) for a, b in zip(drawn, mask, strict=True)]
        soft += soft_iou(soft_silhouette(screen, faces, (S, S)), mask).tolist()
        if progress is not None:
            progress(f"measuring, {len(hard)} of {len(crops)}", len(hard) / len(crops))
    out |= {"iou_soft": _mean(soft), "iou_hard": _mean(hard)}
    at = predictor.vertices_of(crops.names)
    if bool(crops.visible.any()) and bool((at >= 0).any()):
        side, seen = S / (1 + 2 * PADDING), crops.visible & (at >= 0)
        through, regressed = (
            (x[:, at.clamp_min(0), :2] + 1) * (S / 2) for x in (posed.projected, found.points)
        )
        out["pck_10"] = keypoint_pck(through, crops.points, seen, side, alpha=0.1)
        out["pck_15"] = keypoint_pck(through, crops.points, seen, side, alpha=0.15)
        out["pck_10_regressed"] = keypoint_pck(regressed, crops.points, seen, side, alpha=0.1)
    evidence = predictor.model.evidence(found, posed)
    confidence = predictor.confidence(evidence)
    out["confidence"] = float(confidence.mean())
    if crops.truth is not None:
        out |= _against_truth(predictor, crops, posed, evidence)
    return out


def _against_truth(
    predictor: Predictor, crops: ObjectCrops, posed: Posed, evidence: Tensor
) -> dict[str, float]:
    assert crops.truth is not None
    error = rotation_errors(predictor.model, crops, posed)
    doubtful = torch.tensor([bool(w) for w in predictor.warnings(posed, evidence)])
    wrong = error > RIGHT
    x, faces = crops.truth.double(), predictor.model.faces
    surface = [surface_error(a, b, faces) for a, b in zip(posed.verts, x, strict=True)]
    straight = canonical(predictor.model.template.surface.verts, x)
    return {
        "rotation_median_deg": float(error.median()),
        "reversed": float((error > REVERSED).double().mean()),
        "right": float((~wrong).double().mean()),
        "surface_percent": _mean(surface),
        "iou_3d": float(iou_3d(posed.verts, straight, faces).mean()),
        "doubtful": float(doubtful.double().mean()),
        "doubtful_where_wrong": float(doubtful[wrong].double().mean()) if bool(wrong.any()) else 1.0,
    }


def rotation_errors(model: ToThePoint, crops: ObjectCrops, posed: Posed) -> Tensor:
    """(n,) degrees between predicted and true rotations; the true one brings the template nearest to the true shape.

    Args:
        model: whose template it is.
        crops: with the truth.
        posed: of the crops.
    """
    assert crops.truth is not None
    rest = model.template.surface.verts.double().expand(len(crops), -1, -1)
    true = procrustes(rest, crops.truth.double(), scale=True).R
    return rotation_angle(posed.solution.R.double(), true).rad2deg()


def canonical(rest: Tensor, truth: Tensor) -> Tensor:
    """True shapes (n, V, 3) turned back into the frame of the template (V, 3)."""
    rest = rest.double().expand(len(truth), -1, -1)
    return procrustes(rest, truth, scale=True).inverse()(truth)


@torch.no_grad()
def reconstructed(
    model: ToThePoint, crops: ObjectCrops, *, deform: bool = True, steps: int | None = None
) -> tuple[Positions, Posed]:
    """What a network says of crops, and the meshes that explain it.

    Args:
        model: in evaluation mode.
        crops: n.
        deform: see `ToThePoint.solve`.
        steps: see `ToThePoint.solve`.
    """
    parts = [model.look(as_images(crops.image[rows])) for rows in torch.arange(len(crops)).split(_BATCH)]
    found = Positions(
        torch.cat([p.points for p in parts]),
        torch.cat([p.visibility for p in parts]),
        _joined([p.mask for p in parts]),
        spread=_joined([p.spread for p in parts]),
        apart=_joined([p.apart for p in parts]),
    )
    return found, model.solve(found, deform=deform, steps=steps)


def settle(model: ToThePoint, crops: ObjectCrops, told: Explained, held: Tensor) -> None:
    """Choose the ridge and calibrate the confidence on crops that were set aside.

    As many pictures again are their tiles in another order, in which nothing is right: they stand for pictures of
    something else.

    Args:
        model: whose ridge and calibration are set.
        crops: all that were given.
        told: what is believed of them.
        held: (n,) bool, the crops that were set aside.
    """
    rows = torch.nonzero(held & (told.belief.sum(1) > 0))[:, 0]
    if not len(rows):
        return
    model.eval()
    some = crops[rows]
    S, best = some.size, (float("inf"), model.ridge)
    found = reconstructed(model, some)[0]
    for ridge in _RIDGES if model.ridge is not None and model.shape.n_modes else ():
        model.ridge = ridge
        drawn = rasterize(_solved(model, found).screen(S), model.faces, (S, S)).mask
        off = (drawn ^ some.mask).sum((1, 2)) / some.mask.sum((1, 2))
        best = min(best, (float(off.mean()), ridge), key=lambda pair: pair[0])
    model.ridge = best[1]
    posed = _solved(model, found)
    likeliest = told.belief[rows].argmax(1)
    true = told.rotation[rows].gather(1, likeliest[:, None, None, None].expand(-1, 1, 3, 3))[:, 0]
    right = rotation_angle(posed.solution.R, true.to(posed.solution.R)).rad2deg() < RIGHT
    other = reconstructed(model, replace(some, image=shuffle_tiles(some.image, seed=len(some))))
    evidence = torch.cat([model.evidence(found, posed), model.evidence(*other)])
    weight = fit_logistic(evidence, torch.cat([right, torch.zeros_like(right)]), penalty=_PENALTY)
    cast(Tensor, model.calibration).copy_(torch.cat([weight, weight.new_tensor([_DOUBTFUL])]))


@torch.no_grad()
def _solved(model: ToThePoint, found: Positions) -> Posed:
    return model.solve(found)


def _mean(x: list[float]) -> float:
    return sum(x) / len(x)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """What a head says of all batches, or None where it says nothing."""
    known = [x for x in parts if x is not None]
    return torch.cat(known) if known else None
