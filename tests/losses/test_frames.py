"""Losses of object frames: brute force, their minimum, groups, exchange."""

from __future__ import annotations

import pytest
import torch

from geoframe.layers.correspondence import exchange
from geoframe.layers.groups import mirror_group, rotation_group
from geoframe.losses.frames import equivariance_costs, equivariance_loss, relaxed_group_loss
from geoframe.warps import pixel_grid


def _pair(D=4, h=3, B=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    places = pixel_grid(h, h, like=torch.zeros((), dtype=torch.float64)).reshape(-1, 2)
    f, s = (torch.randn(B, h * h, D, generator=draw, dtype=torch.float64) for _ in range(2))
    return s, f, torch.rand(B, h * h, 2, generator=draw, dtype=torch.float64) * 2 - 1, places


def test_the_distance_form_is_the_double_sum():
    s, f, truth, places = _pair()
    valid = torch.rand(2, 9, generator=torch.Generator().manual_seed(1)) > 0.4
    found = equivariance_costs(s, f, truth, places, gamma=0.5, temperature=0.3, valid=valid)
    for b in range(2):
        total = 0.0
        for u in range(9):
            p = torch.softmax(f[b] @ s[b, u] / 0.3, 0)
            total += float(valid[b, u]) * sum(
                float(p[v]) * float((places[v] - truth[b, u]).norm()) ** 0.5 for v in range(9)
            )
        assert float(found[b]) == pytest.approx(total / int(valid[b].sum()))
    assert float(equivariance_loss(s, f, truth, places)) == pytest.approx(
        float(equivariance_costs(s, f, truth, places).mean())
    )


def test_the_log_form_takes_the_nearest_pixel():
    s, f, truth, places = _pair()
    found = equivariance_costs(s, f, truth, places, form="log")
    logs = torch.log_softmax(s @ f.mT, -1)
    index = torch.cdist(truth, places.expand(2, -1, -1)).argmin(-1)
    assert torch.allclose(found, -logs.gather(2, index[..., None])[..., 0].mean(1))


@pytest.mark.parametrize("form", ["distance", "log"])
def test_distinct_embeddings_that_move_with_the_picture_cost_nothing_and_equal_ones_do(form):
    places = pixel_grid(3, 3).reshape(-1, 2)
    f = torch.eye(9)[None] * 100
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    s, truth = f[:, order], places[order][None]
    assert float(equivariance_loss(s, f, truth, places, form=form)) < 1e-4
    assert float(equivariance_loss(torch.ones(1, 9, 9), torch.ones(1, 9, 9), truth, places, form=form)) > 0.5


def test_exchange_comes_before_the_match():
    s, f, truth, places = _pair()
    auxiliary = torch.randn(2, 13, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    told = equivariance_costs(s, f, truth, places, temperature=0.5, auxiliary=auxiliary)
    by_hand = equivariance_costs(exchange(s, auxiliary, temperature=0.5), f, truth, places, temperature=0.5)
    assert torch.allclose(told, by_hand) and not torch.allclose(
        told, equivariance_costs(s, f, truth, places, temperature=0.5)
    )


def test_the_relaxed_loss_takes_one_element_a_picture():
    s, f, truth, places = _pair()
    group = rotation_group(3, 4)
    costs = torch.stack([equivariance_costs(s @ rho.to(s).mT, f, truth, places) for rho in group.channels])
    found = relaxed_group_loss(s, f, truth, places, group)
    assert float(found) == pytest.approx(float(costs.min(0).values.mean()))
    # an embedding that is a turn apart is as good as one that fits
    turned = s @ group.channels[1].to(s).mT
    assert float(relaxed_group_loss(turned, f, truth, places, group)) == pytest.approx(float(found))


def test_gradients():
    s, f, truth, places = _pair(D=2, h=2, B=1)
    s.requires_grad_(), f.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: relaxed_group_loss(a, b, truth[:, :4], places, mirror_group(2)), (s, f)
    )


def test_bad_input_is_told():
    s, f, truth, places = _pair()
    with pytest.raises(ValueError, match="form: expected one of 'distance', 'log'"):
        equivariance_costs(s, f, truth, places, form="hinge")
    with pytest.raises(ValueError, match=r"valid: expected shape \(2, 9\)"):
        equivariance_costs(s, f, truth, places, valid=torch.ones(2, 8, dtype=torch.bool))
