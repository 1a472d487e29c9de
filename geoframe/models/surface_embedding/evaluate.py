"""Surface embeddings measured, and their confidence calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from geoframe.data.pixel_samples import PixelSamples
from geoframe.models.surface_embedding.network import KERNEL, Evidence, at_points
from geoframe.nearest.embedded import nearest_vertices

if TYPE_CHECKING:
    from geoframe.models.surface_embedding.predictor import Predictor


def calibrate(predictor: Predictor, samples: PixelSamples, nothing: Tensor | None = None) -> None:
    """Fit confidence and limits on pictures that were not trained on.

    Args:
        predictor: changed in place.
        samples: annotated pictures, with masks.
        nothing: (n, 3, S, S) in [0, 1], pictures of other things; None leaves the limit of the score as it is.
    """
    clues, right, scores, sides, mirrored = [], [], [], [], []
    for i in range(len(samples)):
        target = predictor.target(samples.names[int(samples.surface[i])])
        known = samples.vertex[i] >= 0
        vertex, points = samples.vertex[i][known], samples.points[i][known]
        found = predictor.fields(samples.image[i].float() / 255)
        both = torch.cat([found.embedding, found.mask[None]])
        scale = both.shape[-1] / samples.size
        if bool(samples.masked[i]):  # as many pixels where the map would be wrong to say anything
            outside = torch.nonzero(~samples.mask[i]).flip(1)
            outside = outside[torch.linspace(0, len(outside) - 1, len(points)).long()] + 0.5
            points = torch.cat([points, outside.float()]) if len(outside) else points
        values = at_points(both[None], points[None] * scale, 1)[0]
        seen = values[:, -1] > 0
        if not bool(seen.any()):
            continue
        answer = nearest_vertices(values[:, :-1], target.table)
        n = len(vertex)
        error = torch.full((len(values),), torch.inf)
        error[:n] = target.rows.pairs(vertex, answer[:n])
        clue = predictor.evidence(values[seen, :-1], values[seen, -1], target)
        clues.append(clue)
        right.append(error[seen] < KERNEL)
        sides.append(float(values[:n, :-1].norm(dim=1)[seen[:n]].mean()) if bool(seen[:n].any()) else 0.0)
        if target.mirror is not None and bool(seen[:n].any()):
            other = target.rows.pairs(target.mirror[vertex], answer[:n])
            mirrored.append(float((other < error[:n])[seen[:n]].float().mean()) > 0.5)
        else:
            mirrored.append(False)
    if not clues:
        return
    evidence = Evidence(*(torch.cat(x) for x in zip(*clues, strict=True)))
    calibration = predictor.model.calibration
    calibration.fit(evidence, torch.cat(right))
    limits = calibration.limits
    assert isinstance(limits, Tensor)
    scores = [float(calibration(c).mean()) for c in clues]
    if nothing is not None:
        wrong = [predictor.verdict(predictor.predict(x)[0]).score for x in nothing]
        limits[0] = best_limit(torch.tensor(wrong), torch.tensor(scores))
    bad = torch.tensor(mirrored)
    if bool(bad.any()) and not bool(bad.all()):
        agreed = torch.tensor(sides)
        limits[1] = best_limit(agreed[bad], agreed[~bad])


def best_limit(low: Tensor, high: Tensor) -> float:
    """The limit between two samples of numbers with the least sum of the shares on the wrong side of it."""
    both = torch.cat([low, high]).sort().values
    middle = (both[1:] + both[:-1]) / 2
    wrong = (low > middle[:, None]).float().mean(1) + (high < middle[:, None]).float().mean(1)
    return float(middle[wrong.argmin()])
