"""What crops that were set aside decide: the ridge of the deformation, and what a confidence is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from geoframe.data.augment import shuffle_tiles
from geoframe.data.object_crops import ObjectCrops
from geoframe.fitting.explained import Explained
from geoframe.heads.positions import Positions
from geoframe.layers.logistic import fit_logistic
from geoframe.models.to_the_point.evaluate import RIGHT, reconstructed
from geoframe.models.to_the_point.network import Posed, ToThePoint
from geoframe.render import rasterize
from geoframe.transforms import rotation_angle

_DOUBTFUL = 0.5  # confidence below which there is a warning
_PENALTY = 1e-3  # of the confidence's weights
_RIDGES = (0.02, 0.06, 0.2, 0.6, 2.0, 8.0, 32.0)  # of which the set-aside crops choose


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
