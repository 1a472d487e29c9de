"""How good an object frame is: landmarks from few labels, matching, symmetry, stability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from geoframe.data.face_files import eye_distance, five_of_68
from geoframe.heads.landmarks import RIGHT, relative_error
from geoframe.heads.points import mirror_swap
from geoframe.metrics.landmarks import (
    calibration_gap,
    percent_error,
    stability_error,
    symmetry_transfer_error,
)
from geoframe.models.object_frame.predictor import Predictor, describe, few_shot_points, match_descriptors
from geoframe.warps import random_warp

_PAIRS = 200
_FEW = 10  # annotated pictures of the measures without a regressor


class WithLandmarks(Protocol):
    """What can learn landmarks from a few annotated squares: frames, sparse and inter-intra landmarks."""

    def with_landmarks(self, images: Tensor, points: Tensor, **options: Any) -> Any:
        """See `Predictor.with_landmarks`."""

    def landmarks(self, images: Tensor) -> Any:
        """See `Predictor.landmarks`."""


def landmark_errors(
    predictor: WithLandmarks,
    labelled: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    labels: Sequence[int | str] = (10, 50, "all"),
    method: str = "cascade",
    draws: int = 3,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Errors of landmarks by the number of annotated pictures that they were learned from.

    Args:
        predictor: with a frozen network.
        labelled: squares (n, 3, S, S), landmarks (n, L, 2) and groups (n,) to learn from; no picture of a test group.
        test: squares and landmarks to measure on.
        labels: how many to learn from; "all" or a number.
        method: of the regressor.
        draws: how often a number of labels is drawn; errors are averaged over the draws.
        seed: of the draws.

    Returns:
        By name, then by number of labels. With 68 landmarks `iod_percent_68` and `iod_median_68`, over the distance
        between the outer corners of the eyes, and `iod_percent_5`, `iod_median_5` of the five points made of them,
        over that between the eyes' centres; with 5 the latter; with another number `error_percent` and
        `error_median`, over the diagonal of the landmarks' box. `confidence` is the mean one, and `right` the share of
        images it is about: those whose mean error is below a tenth of the landmarks' spread; `calibration_gap` is how
        far the two are apart, see `geoframe.metrics.landmarks.calibration_gap`.
    """
    images, points, groups = labelled
    known = torch.nonzero(torch.isfinite(points).all(-1).all(-1))[:, 0]
    draw = torch.Generator().manual_seed(seed)
    out: dict[str, dict[str, float]] = {}
    for count in labels:
        n = len(known) if count == "all" else int(count)
        if not 1 <= n <= len(known):
            raise ValueError(f"labels: expected at most {len(known)}, the annotated pictures, found {n}")
        scores: list[dict[str, float]] = []
        for _ in range(1 if n == len(known) else draws):
            order = known[torch.randperm(len(known), generator=draw)]
            chosen, rest = order[:n], order[n : n + 200]
            fitted = predictor.with_landmarks(
                images[chosen],
                points[chosen],
                groups=groups[chosen],
                unlabelled=images[rest] if len(rest) else None,
                method=method,
                seed=seed,
            )
            found = fitted.landmarks(test[0])
            right = relative_error(found.points, test[1])
            known_ones = torch.isfinite(right)
            sure = {
                "confidence": float(found.confidence[known_ones].mean()),
                "right": float((right[known_ones] < RIGHT).float().mean()),
                "calibration_gap": calibration_gap(found.confidence[known_ones], right[known_ones] < RIGHT),
            }
            scores.append(point_errors(found.points, test[1]) | sure)
        for name in scores[0]:
            out.setdefault(name, {})[str(count)] = sum(s[name] for s in scores) / len(scores)
            if len(scores) > 1:
                values = [s[name] for s in scores]
                out.setdefault(f"{name}_range", {})[str(count)] = max(values) - min(values)
    return out


def point_errors(found: Tensor, true: Tensor) -> dict[str, float]:
    """Mean and median errors of landmarks (n, L, 2), named as in `landmark_errors`."""
    L = true.shape[1]
    parts = {68: (("68", found, true),), 5: ()}.get(L)
    if parts is None:
        error = percent_error(found, true, eye_distance(true))
        return {"error_percent": float(error.nanmean()), "error_median": float(error.nanmedian())}
    five = (found, true) if L == 5 else (five_of_68(found), five_of_68(true))
    numbers: dict[str, float] = {}
    for name, a, b in (*parts, ("5", *five)):
        error = percent_error(a, b, eye_distance(b))
        numbers[f"iod_percent_{name}"] = float(error.nanmean())
        numbers[f"iod_median_{name}"] = float(error.nanmedian())
    return numbers


@torch.no_grad()
def evaluate(
    predictor: Predictor,
    labelled: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    labels: Sequence[int | str] = (10, 50, "all"),
    method: str = "cascade",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure an object frame on annotated squares.

    The numbers are those of `landmark_errors`, and

    - matching_same_percent, matching_different_percent: error of landmarks found by embedding alone, in a warped copy
      of the picture and in a picture of somebody else, over the distance between the eyes (or the diagonal);
    - few_shot_percent: the same by the mean embedding of 10 annotated pictures, without a regressor;
    - stability_percent: how far landmarks move, beyond the motion, in affinely warped pictures;
    - symmetry_transfer_percent and forward_percent, of frames with the mirror group: error of landmarks found by the
      mirrored mean embedding of their counterparts, and of the same ones found by their own mean embedding;
    - symmetry_own_percent: error of landmarks found by the mirrored embedding of their counterparts in the same
      picture. It is one embedding and no mean, to be compared with matching_different_percent.

    Args:
        predictor: a trained frame.
        labelled: as of `landmark_errors`.
        test: as of `landmark_errors`.
        labels: as of `landmark_errors`.
        method: as of `landmark_errors`.
        seed: of pairs, warps and draws.
    """
    numbers: dict[str, Any] = landmark_errors(
        predictor, labelled, test, labels=labels, method=method, seed=seed
    )
    return numbers | matching_errors(predictor, labelled, test, seed=seed)


@torch.no_grad()
def matching_errors(
    predictor: Predictor,
    labelled: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """The measures of `evaluate` that need no regressor.

    Args:
        predictor: as of `evaluate`.
        labelled: as of `evaluate`.
        test: as of `evaluate`.
        seed: of pairs and warps.
    """
    draw = torch.Generator().manual_seed(seed)
    known = torch.nonzero(torch.isfinite(test[1]).all(-1).all(-1))[:, 0]
    chosen = known[torch.randperm(len(known), generator=draw)[:_PAIRS]]
    images, points = test[0][chosen], test[1][chosen]
    size = eye_distance(points)
    fields = predictor.embed(images)
    own = describe(fields, points)
    other = torch.arange(len(images)).roll(1)
    found = match_descriptors(own[other], fields)[0]
    numbers = {"matching_different_percent": float(percent_error(found, points, size).mean())}
    warp = random_warp(
        len(images), rotation=5, scale=0.05, shift=0.05, bend=0.001, strong_bend=0.005, seed=draw
    )
    moved = warp.sample(images.float() / 255, border="reflection")
    place = match_descriptors(own, predictor.embed(moved))[0]
    numbers["matching_same_percent"] = float(percent_error(warp(place), points, size).mean())
    k = torch.nonzero(torch.isfinite(labelled[1]).all(-1).all(-1))[:, 0]
    k = k[torch.randperm(len(k), generator=draw)[:_FEW]]
    known = describe(predictor.embed(labelled[0][k]), labelled[1][k])
    few = few_shot_points(known, fields)
    numbers["few_shot_percent"] = float(percent_error(few, points, size).mean())
    turn = random_warp(len(images), rotation=5, scale=0.05, shift=0.05, bend=0, strong_bend=0, seed=draw)
    moved = turn.sample(images.float() / 255, border="reflection")
    again = turn(few_shot_points(known, predictor.embed(moved)))
    numbers["stability_percent"] = float(stability_error(few, again, size).mean())
    swap = mirror_swap(labelled[1][k])
    if swap is not None and len(predictor.group) == 2:
        rho = predictor.group.channels[1].to(own)
        across = {
            "transfer": few_shot_points(known @ rho.mT, fields),
            "own": match_descriptors(own @ rho.mT, fields)[0],
        }
        for name, place in across.items():
            error = symmetry_transfer_error(place, points, swap, size)
            numbers[f"symmetry_{name}_percent"] = float(error.mean())
        paired = swap != torch.arange(len(swap))
        numbers["forward_percent"] = float(percent_error(few[:, paired], points[:, paired], size).mean())
    return numbers
