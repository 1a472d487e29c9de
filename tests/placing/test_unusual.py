"""Odd shapes and objects: they stay in their boxes and symmetric, and what they are made of is where it was."""

from __future__ import annotations

import pytest
import torch

from geoframe.data import normalise
from geoframe.placing.unusual import crossed, objects, unusual
from geoframe.surface.clouds import box, nearest_distances


def _slabs(n=6, N=400):
    """Half of the clouds are narrow columns, half are wide plates of other boxes; all are symmetric across."""
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(n, N // 2, 3, generator=g) - 1
    x = torch.cat([x, x * torch.tensor([-1.0, 1, 1])], 1)
    sizes = torch.tensor([[0.2, 0.3, 1.0], [1.0, 0.8, 0.3]])[torch.arange(n) % 2]
    x[..., 2] = torch.where(torch.arange(n)[:, None] % 2 == 0, x[..., 2], x[..., 2].sign())
    x = x * sizes[:, None]
    return normalise(x)[0]


@pytest.mark.parametrize("make", [crossed, unusual])
def test_odd_shapes_have_boxes_at_scale_two_and_are_the_same_for_a_seed(make):
    x = _slabs()
    before = x.clone()
    one, two = (make(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(x, before) and one.shape == x.shape
    assert not torch.equal(one, make(x, torch.Generator().manual_seed(4)))
    low, high = box(one)
    torch.testing.assert_close((high - low).amax(-1), torch.full((6,), 2.0))
    torch.testing.assert_close(low + high, torch.zeros(6, 3), atol=1e-5, rtol=0)


def test_a_crossed_shape_has_on_either_side_of_a_cut_what_one_of_two_shapes_has_there():
    """Every shape is of one layer of points of its own: layers are not mixed within a part."""
    N, n = 600, 8
    g = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(n, N, 3, generator=g) - 1
    corners = 2.0 * torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) - 1
    x[:, :8] = corners  # so that all boxes are alike
    x[:, 8:, 0] = torch.linspace(-0.9, 0.9, n)[:, None]  # each shape is a sheet
    made = crossed(x, torch.Generator().manual_seed(5))
    mixed = 0
    for i, cloud in enumerate(made):
        sheets = cloud[(cloud[:, 0].abs() < 0.95)]
        own = (sheets[:, 0] - x[i, 9, 0]).abs() < 0.05
        if bool(own.all()):
            continue  # crossed with itself, or with nothing of the other
        mixed += 1
        others = sheets[~own]
        assert float(others[:, 0].std()) < 0.02  # of one other shape only
        parted = [
            max(
                float(sheets[own][:, a].amax() - others[:, a].amin()),
                float(others[:, a].amax() - sheets[own][:, a].amin()),
            )
            for a in (1, 2)
        ]
        below = [
            min(
                float(sheets[own][:, a].amax() - others[:, a].amin()),
                float(others[:, a].amax() - sheets[own][:, a].amin()),
            )
            for a in (1, 2)
        ]
        assert min(below) < 0.05 < max(parted)  # a plane across up or along parts them
    assert mixed >= 4


def test_a_shape_crossed_with_itself_has_only_its_own_points():
    x = _slabs(1)
    made = crossed(x, torch.Generator().manual_seed(2))
    assert float(nearest_distances(made, x).amax()) < 1e-5


def test_what_has_hardly_any_points_together_stays_as_it_is():
    """A shape that is all low and one that is all high have nothing of the one above nor of the other below."""
    x = torch.zeros(2, 90, 3)
    x[:, :, 0] = torch.linspace(-1, 1, 90)
    x[0, :, 2], x[1, :, 2] = -0.9, 0.9
    x[0, 0, 2], x[1, 0, 2] = 1.0, -1.0
    for seed in range(20):
        made = crossed(x, torch.Generator().manual_seed(seed))
        assert bool(made.isfinite().all())
        low, high = box(made)
        torch.testing.assert_close((high - low).amax(-1), torch.full((2,), 2.0))


def test_objects_are_symmetric_furniture_at_scale_two():
    made = objects(40, 2000, torch.Generator().manual_seed(0))
    assert made.shape == (40, 2000, 3) and torch.equal(
        made, objects(40, 2000, torch.Generator().manual_seed(0))
    )
    low, high = box(made)
    torch.testing.assert_close((high - low).amax(-1), torch.full((40,), 2.0))
    mirrored = nearest_distances(made * torch.tensor([-1.0, 1, 1]), made)
    assert float(mirrored.mean(1).amax()) < 0.1  # the spacing of the points
    sizes = (high - low) / 2
    assert float(sizes.std(0).amin()) > 0.1  # of many makes
    assert objects(0, 10, torch.Generator()).shape == (0, 10, 3)


def test_objects_are_refused_of_numbers_that_are_none():
    with pytest.raises(ValueError, match="n: expected"):
        objects(-1, 10, torch.Generator())
    with pytest.raises(ValueError, match="n_points: expected"):
        objects(1, 1, torch.Generator())
