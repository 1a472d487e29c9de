"""Losses of object frames: a picture's embedding moves with its pixels and tells them apart.

A pair of views comes with the warp that relates them: pixel v of the second view shows what the first shows at g(v).
The losses look for each pixel of the second view among those of the first.

Source: Thewlis 2019 (thesis), chapter 5 (equivariance with distinctiveness), 6 (groups), 7 (exchange).
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_choice, check_shape
from geoframe.layers.correspondence import exchange, expected_cost, match_log_likelihood
from geoframe.layers.groups import Group

FORMS = ("distance", "log")


def equivariance_costs(
    second: Tensor,
    first: Tensor,
    truth: Tensor,
    places: Tensor,
    *,
    form: str = "distance",
    gamma: float = 0.5,
    temperature: float = 1.0,
    auxiliary: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The loss of each pair of views, averaged over its pixels.

    Args:
        second: (B, N, D) embeddings of pixels of the second view.
        first: (B, M, D) embeddings of the pixels of the first.
        truth: (B, N, 2) places of the second's pixels in the first view.
        places: (M, 2) places of the first's pixels.
        form: "distance", the expected ``|v - g u|^gamma``; "log", the negative logarithm of the probability of the
            pixel nearest to the true place.
        gamma: of the distance.
        temperature: of the softmax.
        auxiliary: (B, M', D) embeddings of other pictures: the second's are replaced by what these can say of them.
        valid: (B, N) bool, which pixels count; all by default.

    Returns:
        (B,); 0 for a pair without a valid pixel.
    """
    check_choice(form, FORMS, "form")
    if auxiliary is not None:
        second = exchange(second, auxiliary, temperature=temperature)
    if form == "distance":
        cost = expected_cost(second, first, truth, places, gamma=gamma, temperature=temperature)
    else:
        with torch.no_grad():
            index = torch.cat([torch.cdist(t[None], places[None]).argmin(-1) for t in truth])
        cost = -match_log_likelihood(second, first, index, temperature=temperature)
    if valid is None:
        return cost.mean(1)
    check_shape(valid, f"{cost.shape[0]} {cost.shape[1]}", "valid")
    return (cost * valid).sum(1) / valid.sum(1).clamp_min(1)


def equivariance_loss(*args: Tensor, **options: object) -> Tensor:
    """The mean of `equivariance_costs` over the batch; a scalar."""
    return equivariance_costs(*args, **options).mean()  # type: ignore[arg-type]


def relaxed_group_loss(
    second: Tensor, first: Tensor, truth: Tensor, places: Tensor, group: Group, **options: object
) -> Tensor:
    """`equivariance_costs`, each pair with the group element that suits it best; a scalar.

    An object that looks the same after a turn has no frame of its own: the embedding of its two views may differ by
    an element of the group, the same for all pixels.

    Args:
        second: (B, N, D).
        first: (B, M, D).
        truth: (B, N, 2).
        places: (M, 2).
        group: acts on the channels of `second`.
        **options: as of `equivariance_costs`.

    Source: Thewlis 2019, chapter 6 equation 6: one element for a whole picture.
    """
    turned = (second @ rho.to(second).mT for rho in group.channels)
    costs = [equivariance_costs(x, first, truth, places, **options) for x in turned]  # type: ignore[arg-type]
    return torch.stack(costs).amin(0).mean()
