"""Clouds brought onto templates by their category keypoints alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geoframe import metrics
from geoframe.data import normalise
from geoframe.models.category_keypoints.predictor import Predictor
from geoframe.transforms import Similarity


def register(predictor: Predictor, sources: Any, targets: Any) -> tuple[Similarity, Tensor, Tensor]:
    """Similarity transforms that bring each source cloud onto the target it fits best, by ordered keypoints alone.

    Clouds are rotated about the vertical, or about any axis where the network allows for that.

    Args:
        predictor: of the category of the clouds.
        sources: (S, N, 3) in any units.
        targets: (T, M, 3) in any units, the templates.

    Returns:
        motion: R (S, 3, 3), t (S, 3) and scale (S,); ``motion(sources)`` lie on the targets.
        target: (S,) int64, which one.
        residual: (S,) root mean square distance of the keypoints, over half the longest side of the target.

    Raises:
        TypeError, ValueError: as `Predictor.predict`.
    """
    moving, still = (predictor.predict(x).keypoints for x in (sources, targets))
    S, T = len(moving), len(still)
    fits = metrics.fit_similarity(
        moving[:, None].expand(-1, T, -1, -1), still[None].expand(S, -1, -1, -1), up=predictor.model.axis
    )
    size = normalise(targets)[2]
    off = (fits(moving[:, None].expand(-1, T, -1, -1)) - still).square().sum(-1).mean(-1).sqrt() / size
    residual, target = off.min(1)
    row = torch.arange(S)
    motion = Similarity(*(x[row, target] for x in fits))
    return motion, target, residual
