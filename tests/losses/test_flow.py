"""The structured hinge loss: equal to a double loop, what it leaves out, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.losses.flow import displacement_in_samples, structured_hinge_loss


def test_the_loss_equals_its_definition():
    scores = torch.rand(1, 3, 2, 5, 5, dtype=torch.float64)
    truth = torch.tensor(
        [[0.2, -1.9], [2.0, 2.0], [3.0, 0.0], [torch.nan, 0.0], [0.0, 0.0], [1.4, 0.0]]
    ).double()
    scores[0, 2, 0, 2, 2] = -torch.inf  # the true place of patch 4 has no score
    total, n = 0.0, 0
    for p in range(6):
        S = scores.reshape(6, 5, 5)[p]
        if not torch.isfinite(truth[p]).all() or (truth[p].abs() > 2).any():
            continue
        y, x = (truth[p].round().long() + 2).tolist()
        if not torch.isfinite(S[y, x]):
            continue
        n += 1
        for m, k in np.ndindex(5, 5):
            far = (m - y) ** 2 + (k - x) ** 2
            if far:
                total += max(0.0, 0.7 * (1 - np.exp(-far / 2 / 1.5**2)) + float(S[m, k] - S[y, x]))
    found = structured_hinge_loss(scores, truth.reshape(1, 3, 2, 2), alpha=0.7, sigma=1.5)
    assert n == 3 and float(found) == pytest.approx(total / n, rel=1e-12)


def test_a_clear_winner_costs_nothing_and_nothing_known_costs_nothing():
    scores = torch.zeros(1, 1, 1, 5, 5)
    scores[..., 3, 1] = 1.0
    assert float(structured_hinge_loss(scores, torch.tensor([1.0, -1.0]).reshape(1, 1, 1, 2))) == 0
    scores.requires_grad_()
    none = structured_hinge_loss(scores, torch.full((1, 1, 1, 2), torch.nan))
    none.backward()
    assert float(none.detach()) == 0 and not scores.grad.any()


def test_gradients():
    scores = torch.rand(1, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])[None].double()
    assert torch.autograd.gradcheck(lambda s: structured_hinge_loss(s, truth), scores)


def test_displacements_in_samples_of_a_level():
    flow = torch.stack([torch.full((16, 24), 8.0), torch.full((16, 24), -4.0)])[None]
    found = displacement_in_samples(flow, 1, (3, 4), stride=8, step=2)
    assert found.shape == (1, 3, 4, 2)
    assert found.reshape(-1, 2).unique(dim=0).tolist() == [[-1.0, 2.0]]
