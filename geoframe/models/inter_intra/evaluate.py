"""How good inter-intra landmarks are: the measures of sparse landmarks, and of the painting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geoframe.models import sparse_landmarks
from geoframe.models.inter_intra.predictor import Predictor
from geoframe.warps import random_warp


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
    """The measures of `geoframe.models.sparse_landmarks.evaluate`, and one more.

    painting_error: see the function of that name.

    Args:
        predictor: trained landmarks.
        labelled: squares (n, 3, S, S), landmarks (n, L, 2) and groups (n,) to learn from.
        test: squares and landmarks to measure on.
        labels: how many to learn from.
        method: of the regressor.
        seed: of draws and warps.
    """
    numbers = sparse_landmarks.evaluate(predictor, labelled, test, labels=labels, method=method, seed=seed)
    return numbers | {"painting_error": painting_error(predictor, test[0], seed=seed)}


@torch.no_grad()
def painting_error(predictor: Predictor, images: Tensor, *, seed: int = 0) -> float:
    """Root mean square difference of warped pictures and of the same painted from the unwarped ones.

    Args:
        predictor: trained landmarks.
        images: (n, 3, S, S) squares, of which the first 32 are painted.
        seed: of the warps.
    """
    some = images[:32].float() / 255
    warp = random_warp(len(some), rotation=10, scale=0.1, shift=0.05, bend=0, strong_bend=0, seed=seed)
    moved = warp.sample(some, border="reflection")
    painted = predictor.paint(some, moved)
    return float((painted - predictor.views(moved, painted.shape[-1])).square().mean().sqrt())
