"""How good the keypoints of a category are: the measures of the paper's table, and ours."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe import metrics
from geoframe.data import CloudSet, corrupt
from geoframe.models.category_keypoints.predictor import Predictor
from geoframe.surface.clouds import box, nearest_sq

_CORRUPTIONS = {  # name: share of the points cut off, standard deviation of noise at scale 2
    "missing_30_percent": {"missing": 0.3},
    "noise_2_percent": {"noise": 0.04},
}


def evaluate(
    predictor: Predictor,
    clouds: CloudSet,
    *,
    degrees: float = 45.0,
    seed: int = 1,
    pairs: int = 1000,
    true_axes: tuple[int, ...] | None = None,
) -> dict[str, float]:
    """Measure a predictor on clouds that are rotated by up to `degrees` about the vertical.

    Clouds are normalised, then rotated or corrupted, as the paper does. Lengths are at scale 2. The numbers, each the
    mean over the clouds unless said otherwise, are

    - coverage_percent, model_error_percent, inclusivity_percent, n_keypoints: `metrics.box_coverage`,
      `model_error`, `inclusivity`, and how many keypoints there are after non-maximum suppression;
    - correspondence_percent: 100, keypoints being ordered;
    - symmetry_error_deg, symmetry_error_median_deg: `metrics.symmetry_error`; planes_of_symmetry: how many true planes
      that was measured by: with two, nobody can tell which end is which; not of mode "plain";
    - registration_median_deg, registration_mean_deg (and registration_any_axis_...): over pairs of clouds,
      `metrics.relative_rotation_error` about the vertical (about any axis);
    - box_overlap_percent, points_covered_percent, model_error_unsquared_percent, repeatability_percent: as in
      `geoframe.metrics`; repeatability is the mean over the keypoints;
    - spread_K: of keypoint K over the shapes, a length: root mean square distance to its mean, rotations undone;
    - flagged_percent: share of the clouds whose score is below the model's limit, of a calibrated model;
    - distance_to_points: of a keypoint to the nearest point of its cloud;
    - distance_to_surface, inclusivity_surface_percent: of a keypoint to the surface, and the share within 0.015; where
      the clouds have surfaces;
    - moved_by_unknown_box: distance between keypoints found on the normalised cloud and those of `predict`, which has
      to find centre and size;
    - moved_by_missing_30_percent, moved_by_noise_2_percent (and ..._unknown_box): distance between the keypoints of a
      cloud and of the same one corrupted: without the 30 % of the points that lie farthest on a random side, or with
      Gaussian noise of standard deviation 0.04 in each coordinate;
    - semantic_consistency_percent, dual_alignment_percent: as in `geoframe.metrics`, where the clouds have labels;
    - part_error, part_error_of_box: how far the middles of the labelled parts are from where a linear regression puts
      them that was fitted to the other shapes (leave-one-out), from the keypoints and from the corners of the box.

    Args:
        predictor: that `train` or `load` gave.
        clouds: aligned as the data set has them, so that the rotations drawn here are the truth.
        degrees: largest rotation, in [0, 180].
        seed: of the rotations, the pairs and the corruptions.
        pairs: how many are registered.
        true_axes: coordinate axes, 0 to 2, that are normals of true planes of symmetry; by default those that
            `metrics.symmetry_planes` finds on the clouds, or where that is none the one about which they are most
            symmetric.

    Returns:
        Numbers by name.

    Raises:
        ValueError: clouds with another vertical axis than the model's, arguments out of range.
    """
    ready = clouds.normalised()
    if ready.up != predictor.up:
        theirs, own = ("xyz"[i] for i in (ready.up, predictor.up))
        raise ValueError(
            f"clouds: expected the model's vertical axis, {own}, found {theirs}; "
            f"if theirs is {own}, load them with up={own!r}"
        )
    points, R = ready.rotated(degrees, seed=seed)
    found = predictor.predict_normalised(points)
    p, nodes = found.keypoints, found.nodes
    numbers = {
        "coverage_percent": 100 * float(metrics.box_coverage(p, points).mean()),
        "model_error_percent": 100 * float(metrics.model_error(nodes, p).mean()),
        "correspondence_percent": 100.0,
        "inclusivity_percent": 100 * float(metrics.inclusivity(p, points).mean()),
        "n_keypoints": float(predictor.n_keypoints),
        "box_overlap_percent": 100 * float(metrics.box_overlap(p, points).mean()),
        "points_covered_percent": 100 * float(metrics.points_covered(p, points).mean()),
        "model_error_unsquared_percent": 100 * float(metrics.model_error(nodes, p, squared=False).mean()),
        "distance_to_points": float(nearest_sq(p, points)[0].sqrt().mean()),
        "repeatability_percent": 100 * float(metrics.repeatability(p, R).mean()),
    }
    numbers |= {f"spread_{k}": 2 * float(x) for k, x in enumerate(metrics.repeatability(p, R))}
    found_anyhow = predictor.predict(points)
    if predictor.confidence is not None:
        numbers["flagged_percent"] = 100 * float((found_anyhow.score < predictor.limit).double().mean())
    if predictor.model.basis.mode != "plain":
        axes = _true_axes(ready) if true_axes is None else true_axes
        numbers |= _symmetry(predictor, found.rotation, R, axes)
    if len(ready) > 1:
        which = metrics.random_pairs(len(ready), pairs, seed=seed)
        for name, axis in (("registration", ready.up), ("registration_any_axis", None)):
            error = metrics.relative_rotation_error(p, R, which, up=axis)
            numbers |= {f"{name}_median_deg": float(error.median()), f"{name}_mean_deg": float(error.mean())}
    if ready.surfaces is not None:
        gap = metrics.surface_distance(p @ R, ready.surfaces)
        numbers["distance_to_surface"] = float(gap.mean())
        numbers["inclusivity_surface_percent"] = 100 * float((gap <= metrics.SURFACE_REACH).double().mean())
    numbers |= _moved_by(predictor, points, p, found_anyhow.keypoints, seed)
    if ready.labels is not None:
        _, consistent = metrics.semantic_consistency(p, points, ready.labels)
        numbers["semantic_consistency_percent"] = consistent
        numbers["dual_alignment_percent"] = metrics.dual_alignment_score(p, points, ready.labels)
        numbers |= _part_errors(p @ R, ready)
    return numbers


def _true_axes(ready: CloudSet) -> tuple[int, ...]:
    """Normals of the planes of symmetry of aligned clouds, see `evaluate`."""
    if found := metrics.symmetry_planes(ready.points, ready.up):
        return found
    sides = ((ready.up + 1) % 3, (ready.up + 2) % 3)
    return (min(sides, key=lambda axis: float(metrics.asymmetry(ready.points[:64], axis).mean())),)


def _symmetry(
    predictor: Predictor, rotation: Tensor, true_rotation: Tensor, axes: tuple[int, ...]
) -> dict[str, float]:
    """Errors of the plane of symmetry."""
    if not axes or not set(axes) <= {0, 1, 2}:
        raise ValueError(f"true_axes: expected numbers of axes, 0 to 2, found {axes}")
    normal, true = (x.to(rotation) for x in (predictor.model.basis.normal.detach(), torch.eye(3)[list(axes)]))
    off = metrics.symmetry_error(normal, rotation, true, true_rotation)
    numbers = {"symmetry_error_deg": float(off.mean()), "symmetry_error_median_deg": float(off.median())}
    return numbers | {"planes_of_symmetry": float(len(axes))}


def _moved_by(
    predictor: Predictor, points: Tensor, keypoints: Tensor, anyhow: Tensor, seed: int
) -> dict[str, float]:
    """How far keypoints move when clouds are corrupted, their box known or not."""

    def moved(found: Tensor) -> float:
        return float((found - keypoints).norm(dim=-1).mean())

    generator = torch.Generator().manual_seed(seed)
    numbers = {"moved_by_unknown_box": moved(anyhow)}
    for name, how in _CORRUPTIONS.items():
        worse = corrupt(points, **how, generator=generator)
        numbers[f"moved_by_{name}"] = moved(predictor.predict_normalised(worse).keypoints)
        numbers[f"moved_by_{name}_unknown_box"] = moved(predictor.predict(worse).keypoints)
    return numbers


def _part_errors(keypoints: Tensor, ready: CloudSet) -> dict[str, float]:
    """Errors of the middles of parts that are regressed from keypoints, and from the walls of the box; see `evaluate`.

    Parts that a shape lacks are left out there, and parts that fewer than a third of the shapes have.
    """
    assert ready.labels is not None
    walls = torch.cat(box(ready.points), -1)
    sources = {"part_error": keypoints.flatten(1), "part_error_of_box": walls}
    found: dict[str, list[Tensor]] = {name: [] for name in sources}
    for part in ready.labels.unique().tolist():
        member = (ready.labels == part).to(ready.points)
        have = member.sum(1) >= 3
        if int(have.sum()) < max(8, len(ready) // 3):
            continue
        middle = (ready.points * member[..., None]).sum(1)[have] / member.sum(1)[have, None]
        for name, x in sources.items():
            found[name].append(metrics.left_out_errors(x[have], middle))
    return {name: float(torch.cat(errors).mean()) for name, errors in found.items() if errors}
