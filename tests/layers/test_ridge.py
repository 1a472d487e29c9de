"""Ridge regression: normal equations in both spaces, the choice of the penalty, groups left out together."""

from __future__ import annotations

import pytest
import torch

from geoframe.layers.ridge import cross_validated_ridge, fit_ridge, fold_of


@pytest.mark.parametrize(("n", "d"), [(30, 4), (6, 20)])
def test_the_normal_equations_hold(n, d):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=draw).double(), torch.randn(n, 3, generator=draw).double()
    ridge = fit_ridge(x, y, 0.1)
    xc, yc = x - x.mean(0), y - y.mean(0)
    s = torch.linalg.eigvalsh(xc.T @ xc)[-1]
    assert torch.allclose(xc.T @ (yc - xc @ ridge.weight), 0.1 * s * ridge.weight, atol=1e-9)
    assert torch.allclose(ridge(x.mean(0)), y.mean(0))


def test_noise_is_regularised_and_a_law_is_found():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(60, 10, generator=draw)
    law = x @ torch.randn(10, 2, generator=draw)
    ridge, out = cross_validated_ridge(x, law)
    assert ridge.penalty <= 1e-5 and float((out - law).abs().max()) < 1e-2
    noise = torch.randn(60, 2, generator=draw)
    assert cross_validated_ridge(x, noise)[0].penalty >= 0.1


def test_what_is_left_out_was_not_seen():
    draw = torch.Generator().manual_seed(2)
    x, y = torch.randn(20, 40, generator=draw), torch.randn(20, 1, generator=draw)
    both, twice, groups = torch.cat([x, x]), torch.cat([y, y]), torch.arange(20).repeat(2)
    ridge, out = cross_validated_ridge(both, twice, groups=groups)
    fold = fold_of(groups, 5)
    assert torch.equal(fold[:20], fold[20:]) and len(torch.unique(fold)) == 5
    for k in range(5):
        refitted = fit_ridge(both[fold != k], twice[fold != k], ridge.penalty)
        assert torch.allclose(out[fold == k], refitted(both[fold == k]), atol=1e-5)


def test_one_example_gives_the_mean():
    ridge, _ = cross_validated_ridge(torch.ones(1, 3), torch.tensor([[2.0, 5.0]]))
    assert torch.allclose(ridge(torch.randn(4, 3)), torch.tensor([2.0, 5.0]).expand(4, 2))


def test_bad_input_is_told():
    with pytest.raises(ValueError, match=r"y: expected shape \(3, M\)"):
        fit_ridge(torch.zeros(3, 2), torch.zeros(4, 1), 0.1)
