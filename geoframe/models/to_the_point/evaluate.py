"""Reconstructions measured: silhouettes, keypoints, poses, surfaces; and the confidence calibrated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from geoframe._random import seeded
from geoframe.data.augment import shuffle_tiles
from geoframe.data.object_crops import PADDING, ObjectCrops
from geoframe.data.object_views import Augmentation, affine_by_chance, recolored, warped
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
FEWEST = 200  # crops, below which none is set aside
UNCALIBRATED = (
    "how sure the pose is, this model cannot tell: that is learned from crops that are set aside, "
    f"by recipe geoframe and of {FEWEST} crops or more"
)
_BATCH = 32
_DOUBTFUL = 0.5  # confidence below which there is a warning in any case
_TOLD = 0.95  # share of wrong poses of the set-aside crops that are to be told,
_DOUBTED = 0.2  # if no larger share of the right ones is: of wrong horses .53 are told then, .36 with .13
_PENALTY = 3e-3  # of the confidence's weights
_CHANGED = 3  # times that each set-aside crop is looked at turned and moved, too
_RIDGES = (0.02, 0.06, 0.2, 0.6, 2.0, 8.0, 32.0)  # of which the set-aside crops choose
_USUAL = (0.02, 4.0)  # ridge and outline's weight where no crops are set aside
_OUTLINES = (0.0, 1.0, 2.5, 4.0, 6.0, 10.0)  # likewise; the ridge is chosen with the fourth
_HIDDEN = (0.2, 1.0)  # what a hidden vertex counts, likewise
_COMPARED = 200  # crops, evenly spread, on which these are compared: some fifteen times


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
        mean, `right` (share of rotations within 30 degrees), `doubtful` (share of crops with a warning of their own),
        `doubtful_where_right` and `doubtful_where_wrong`; `crops`, their number.
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
    told = predictor.warnings(posed, evidence)
    doubtful = torch.tensor([any(line != UNCALIBRATED for line in lines) for lines in told])
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
        "doubtful_where_right": float(doubtful[~wrong].double().mean()) if bool((~wrong).any()) else 0.0,
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
    return found, settled(model, found, deform=deform, steps=steps)


def settled(model: ToThePoint, found: Positions, *, deform: bool = True, steps: int | None = None) -> Posed:
    """The meshes that explain what a network said of many crops, some of them at a time.

    Args:
        model: in evaluation mode.
        found: of n crops.
        deform: see `ToThePoint.solve`.
        steps: see `ToThePoint.solve`.
    """
    parts = []
    for rows in torch.arange(len(found.points)).split(_BATCH):
        parts.append(model.settled(_rows(found, rows), deform=deform, steps=steps))
    return _in_one(parts)


def settle(model: ToThePoint, crops: ObjectCrops, told: Explained, held: Tensor, *, seed: int = 0) -> None:
    """Choose ridge, outline's and hidden vertices' weight and calibrate the confidence on crops that were set aside.

    Without such crops these are those that others had, and the confidence knows nothing.

    Pictures of something else are among them: the crops' tiles in another order, in which nothing is right. They count
    together as much as the wrong poses do, so that what is learned is to tell those.

    Args:
        model: whose ridge, weights and calibration are set.
        crops: all that were given.
        told: what is believed of them.
        held: (n,) bool, the crops that were set aside.
        seed: of the changes of the crops.
    """
    rows = torch.nonzero(held & (told.belief.sum(1) > 0))[:, 0]
    model.eval()
    if not len(rows):
        if model.ridge is not None:
            model.ridge, model.outline = _USUAL
        return
    some, likeliest = crops[rows], told.belief[rows].argmax(1)
    points, true = (
        x[rows].gather(1, likeliest.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]))[:, 0]
        for x in (told.points, told.rotation)
    )
    found = reconstructed(model, some)[0]
    model.outline = 0.0 if found.mask is None else _USUAL[1]
    few = torch.arange(0, len(some), max(len(some) // _COMPARED, 1))
    sample = _rows(found, few)
    for name, choices in (("ridge", _RIDGES), ("outline", _OUTLINES), ("hidden", _HIDDEN)):
        if (name == "ridge" and (model.ridge is None or not model.shape.n_modes)) or (
            name == "outline" and found.mask is None
        ):
            continue
        scores = []
        for value in choices:
            setattr(model, name, value)
            scores.append((_score(model, settled(model, sample), some[few], points[few]), value))
        setattr(model, name, max(scores)[1])
    looks = [(found, settled(model, found), true)]
    for k in range(_CHANGED):
        changed, turn = _changed(some, seed + k)
        looks.append((*reconstructed(model, changed), turn @ true))
    evidence = torch.cat([model.evidence(f, posed) for f, posed, _ in looks])
    right = torch.cat([_near(posed.solution.R, R) for _, posed, R in looks])
    other = model.evidence(*reconstructed(model, replace(some, image=shuffle_tiles(some.image, seed=seed))))
    share = max(float((~right).sum()), 0.05 * len(right)) / len(other)
    weight = fit_logistic(
        torch.cat([evidence, other]),
        torch.cat([right, torch.zeros(len(other), dtype=torch.bool)]),
        penalty=_PENALTY,
        weight=torch.cat([torch.ones(len(right)), torch.full((len(other),), share)]),
    )
    limit = doubt(torch.sigmoid(evidence.double() @ weight), right)
    cast(Tensor, model.calibration).copy_(torch.cat([weight, weight.new_tensor([limit])]))


def doubt(confidence: Tensor, right: Tensor) -> float:
    """The confidence below which there is a warning: 95 % of the wrong ones get one, if no more than 20 % of the right.

    Args:
        confidence: (n,).
        right: (n,) bool.
    """
    most = float(confidence[right].quantile(_DOUBTED)) if bool(right.any()) else 1.0
    wanted = float(confidence[~right].quantile(_TOLD)) if bool((~right).any()) else _DOUBTFUL
    return min(max(wanted, _DOUBTFUL), most)


def _near(R: Tensor, true: Tensor) -> Tensor:
    """(n,) bool, whether rotations are right."""
    return rotation_angle(R, true.to(R)).rad2deg() < RIGHT


def _score(model: ToThePoint, posed: Posed, crops: ObjectCrops, points: Tensor) -> float:
    """Mean of the overlap with the masks and of how near vertices are to where they are believed (1: there)."""
    S = crops.size
    drawn = rasterize(posed.screen(S), model.faces, (S, S)).mask
    overlap = torch.stack([*map(mask_iou, drawn, crops.mask)]).mean()
    off = (posed.projected[..., :2] - points).norm(dim=-1) / (0.2 / (1 + 2 * PADDING))  # in tenths of the box
    return float(overlap + (1 - off).clamp_min(0).double().mean()) / 2


def _changed(crops: ObjectCrops, seed: int) -> tuple[ObjectCrops, Tensor]:
    """The crops turned, moved and recoloured by chance as in training, and by how much: rotations (n, 3, 3)."""
    a = Augmentation()
    with seeded(seed):
        affine = affine_by_chance(len(crops), a)
        image = recolored(warped(as_images(crops.image), affine)[0], a.color)
    turn = torch.eye(3).repeat(len(crops), 1, 1)
    turn[:, :2, :2] = affine[:, :, :2] / torch.linalg.det(affine[:, :, :2]).sqrt()[:, None, None]
    return replace(crops, image=(255 * image).round().to(torch.uint8)), turn


def _in_one(parts: Sequence[Posed]) -> Posed:
    """Posed meshes of several batches."""
    first = parts[0].solution
    names = [f.name for f in fields(first) if f.name != "second"]
    some = {n: torch.cat([getattr(p.solution, n) for p in parts]) for n in names}
    second = type(first.second)(
        *(torch.cat(x) for x in zip(*(p.solution.second for p in parts), strict=True))
    )
    verts, projected = (torch.cat([getattr(p, n) for p in parts]) for n in ("verts", "projected"))
    return Posed(verts, projected, replace(first, second=second, **some))


def _rows(found: Positions, rows: Tensor) -> Positions:
    """What is said of some crops."""
    some: dict[str, Any] = {k: x if x is None else x[rows] for k, x in found._asdict().items()}
    return Positions(**some)


def _mean(x: list[float]) -> float:
    return sum(x) / len(x)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """What a head says of all batches, or None where it says nothing."""
    known = [x for x in parts if x is not None]
    return torch.cat(known) if known else None
