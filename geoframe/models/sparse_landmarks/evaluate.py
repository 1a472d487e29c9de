"""How good sparse landmarks are: given landmarks from few labels, stability, spread over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geoframe.data.face_files import eye_distance
from geoframe.heads.trained import LandmarkPredictor
from geoframe.layers.ridge import cross_validated_ridge
from geoframe.metrics.landmarks import percent_error, stability_error
from geoframe.models.object_frame.evaluate import landmark_errors
from geoframe.warps import random_warp


@torch.no_grad()
def evaluate(
    predictor: LandmarkPredictor,
    labelled: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    labels: Sequence[int | str] = (10, 50, "all"),
    method: str = "cascade",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure landmarks that were learned without labels, on annotated squares.

    The numbers are those of `geoframe.models.object_frame.evaluate.landmark_errors`, and

    - forward_percent: error of the given landmarks by one linear regression from all of the network's own;
    - backward_percent: error of the network's landmarks by one linear regression from the given ones, which is high
      for landmarks that find nothing of the object or nothing consistent;
    - stability_percent: how far landmarks move, beyond the motion, in affinely warped pictures;
    - motion: how far landmarks go from picture to picture over how far the given ones go; 0 for fixed places.

    All percents are of the distance between the eyes, or of the diagonal of the landmarks.

    Args:
        predictor: of sparse or inter-intra landmarks.
        labelled: squares (n, 3, S, S), landmarks (n, L, 2) and groups (n,) to learn from.
        test: squares and landmarks to measure on.
        labels: how many to learn from.
        method: of the regressor.
        seed: of draws and warps.
    """
    errors: dict[str, Any] = landmark_errors(
        predictor, labelled, test, labels=labels, method=method, seed=seed
    )
    return errors | point_measures(predictor, labelled, test, seed=seed)


@torch.no_grad()
def point_measures(
    predictor: LandmarkPredictor,
    labelled: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """The measures of `evaluate` that need no regressor to given landmarks.

    Args:
        predictor: as of `evaluate`.
        labelled: as of `evaluate`.
        test: as of `evaluate`.
        seed: of folds and warps.
    """
    numbers: dict[str, float] = {}
    known = [torch.isfinite(p).all(-1).all(-1) for p in (labelled[1], test[1])]
    images, points, groups = (x[known[0]] for x in labelled)
    own, true = predictor.own_points(test[0][known[1]]), test[1][known[1]]
    learned = predictor.own_points(images)
    assert own is not None and learned is not None
    size = eye_distance(true)
    for name, source, goal, seen, truth in (
        ("forward_percent", learned, points, own, true),
        ("backward_percent", points, learned, true, own),
    ):
        ridge, _ = cross_validated_ridge(source.flatten(1), goal.flatten(1), groups=groups, seed=seed)
        found = ridge(seen.flatten(1)).unflatten(1, (-1, 2))
        numbers[name] = float(percent_error(found, truth, size).mean())
    warp = random_warp(len(true), rotation=5, scale=0.05, shift=0.05, bend=0, strong_bend=0, seed=seed)
    moved = warp.sample(test[0][known[1]].float() / 255, border="reflection")
    again = predictor.own_points(moved)
    assert again is not None
    numbers["stability_percent"] = float(stability_error(own, warp(again), size).mean())
    numbers["motion"] = float(own.std(0).mean() / true.std(0).mean())
    return numbers
