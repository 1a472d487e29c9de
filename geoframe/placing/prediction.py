"""What is said of clouds."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """What is said of clouds (..., N, 3).

    Attributes:
        keypoints: (..., K, 3) ordered, in the units and the frame of the clouds.
        canonical: (..., K, 3) the same in the common frame, at scale 2.
        nodes: (..., M, 3) unordered, in the units and the frame of the clouds.
        rotation: (..., 3, 3) from the canonical frame to that of the clouds.
        coefficients: (..., C) of the shape basis.
        score: (...) in [0, 1], how sure the keypoints are; NaN from a model that was not calibrated.
        uncertainty: (..., K) in the units of the clouds: nine of ten keypoints are nearer to where they would be found
            on the whole, clean object; NaN from a model that was not calibrated.
        dropped: (..., N) bool, points that are taken for outliers or for a floor.
        warnings: one a cloud, in the order of the flattened leading dimensions; empty where there is nothing to say.
    """

    keypoints: Tensor
    canonical: Tensor
    nodes: Tensor
    rotation: Tensor
    coefficients: Tensor
    score: Tensor
    uncertainty: Tensor
    dropped: Tensor
    warnings: tuple[str, ...]
