"""Tilt and walls: the truth that the network learns from, its limits, and that it learns."""

from __future__ import annotations

import pytest
import torch

from geoframe.placing.placement import Placement, misplaced, train_placement, varied
from geoframe.surface.clouds import box
from geoframe.transforms import rotvec_to_rotation


@pytest.fixture(scope="module")
def whole():
    """Boxes of 300 points with one side open, at scale 2 and of different shapes."""
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(40, 300, 3, generator=g) - 1
    side = torch.arange(300) % 3
    x[..., 0] = torch.where(side == 0, x[..., 0].sign(), x[..., 0])
    x[..., 2] = torch.where(side == 1, -1.0, x[..., 2])
    return x * torch.tensor([0.6, 1.0, 0.8])


def test_the_truth_undoes_what_was_done_to_a_cloud(whole):
    """Tilted back and given its walls, the box of a cloud is that of the whole object, for one that kept its sides."""
    seen, truth = misplaced(whole, torch.Generator().manual_seed(1))
    assert seen.shape == whole.shape and bool((truth.tilt[:, 2] == 0).all())
    low, high = box(seen)
    torch.testing.assert_close((high - low).amax(-1), torch.full((40,), 2.0))
    torch.testing.assert_close(low + high, torch.zeros(40, 3), atol=1e-5, rtol=0)
    upright = seen @ rotvec_to_rotation(truth.tilt)
    low, high = box(upright)
    scale = (high - low).amax(-1, keepdim=True) / 2
    sides = high + truth.walls[:, 3:] * scale - (low - truth.walls[:, :3] * scale)
    ratio = sides / sides[:, 1:2]
    torch.testing.assert_close(ratio, torch.tensor([0.6, 1.0, 0.8]).expand(40, 3), atol=2e-2, rtol=0)
    angle = truth.tilt.norm(dim=-1).rad2deg()
    assert float(angle.amax()) <= 23 and float(angle.amin()) < 2


def test_shapes_are_varied_without_losing_symmetry_wholeness_or_scale(whole):
    both = torch.cat([whole, whole * torch.tensor([-1.0, 1, 1])], 1)
    odd = varied(both, torch.Generator().manual_seed(3))
    low, high = box(odd)
    torch.testing.assert_close((high - low).amax(-1), torch.full((40,), 2.0))
    torch.testing.assert_close(low + high, torch.zeros(40, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(odd[:, 300:], odd[:, :300] * torch.tensor([-1.0, 1, 1]), atol=1e-5, rtol=0)
    for i in range(0, 40, 8):  # what is higher stays higher: nothing is folded
        order = both[i, :, 2].argsort()
        assert bool((odd[i, order, 2].diff() > -1e-5).all())
    moved = (odd - both).norm(dim=-1).mean(1)
    assert float(moved.max()) > 0.15 and float(moved.min()) < 0.1


def test_it_learns_and_what_it_says_of_clean_clouds_is_noise(whole):
    model = train_placement(whole, steps=40, seed=0)
    seen, truth = misplaced(whole.repeat(3, 1, 1), torch.Generator().manual_seed(7))
    with torch.no_grad():
        found = model(seen)
    for x, y in zip(found, truth, strict=True):
        assert (
            float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1]) > 0.2
        )  # of nothing learned: 0 +- 0.05
    assert float(model.least_tilt) > 1e30  # nothing counts before limits are set
    model.set_limits(whole, quantile=0.9)
    with torch.no_grad():
        clean = model(whole)
    assert float((clean.tilt.norm(dim=-1) > model.least_tilt).double().mean()) == pytest.approx(0.1, abs=0.03)
    again = train_placement(whole, steps=2, seed=3), train_placement(whole, steps=2, seed=3)
    for a, b in zip(again[0].state_dict().values(), again[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_an_untrained_one_says_nothing(whole):
    found = Placement().eval()(whole)
    assert not bool(found.tilt.any()) and not bool(found.walls.any())
