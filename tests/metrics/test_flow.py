"""Measures of flow: closed forms, unknown pixels, matches spread over the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.metrics.flow import endpoint_error, flow_measures, spread_matches


def test_a_flow_that_is_off_by_three_and_four_is_off_by_five():
    truth = torch.randn(2, 4, 6)
    numbers = flow_measures(truth + torch.tensor([3.0, 4.0])[:, None, None], truth)
    assert numbers["epe"] == pytest.approx(5, abs=1e-5)
    assert (numbers["acc3"], numbers["acc10"], numbers["known"]) == (0, 100, 100)


def test_unknown_truth_is_left_out_and_an_unknown_flow_is_wrong():
    truth, flow = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    truth[:, 0, 0] = torch.nan
    flow[:, 1, 1] = torch.nan
    assert endpoint_error(flow, truth).tolist() == [0, 0, torch.inf]
    numbers = flow_measures(flow, truth, occluded=torch.tensor([[False, False], [False, True]]))
    assert numbers["acc1"] == numbers["known"] == pytest.approx(200 / 3) and numbers["epe"] == 0
    assert numbers["noc_acc1"] == 100
    with pytest.raises(ValueError, match="flow: expected shape"):
        endpoint_error(torch.zeros(2, 3, 3), truth)


@pytest.mark.parametrize("radius", [3.0, None])
def test_spreading_equals_its_definition(radius):
    rng = np.random.default_rng(0)
    p0, p1 = (torch.tensor(rng.uniform(0, 20, (9, 2)), dtype=torch.float32) for _ in range(2))
    score = torch.tensor(rng.random(9), dtype=torch.float32)
    found = spread_matches(p0, p1, score, (18, 21), radius=radius)
    for y, x in np.ndindex(18, 21):
        away = (p0 - torch.tensor([x + 0.5, y + 0.5])).abs()
        if radius is None:
            want = (p1 - p0)[away.square().sum(1).argmin()]
        elif (near := (away <= radius).all(1)).any():
            want = (p1 - p0)[torch.where(near, score, -1).argmax()]
        else:
            want = torch.full((2,), torch.nan)
        torch.testing.assert_close(found[:, y, x], want, equal_nan=True)
