"""Outliers and floors of clouds: what is found, what is left alone, what does not change the answer."""

from __future__ import annotations

import pytest
import torch

from geoframe.surface.outliers import even_index, floor_points, isolated_points


@pytest.fixture(scope="module")
def sphere():
    """Four clouds of 600 points on the unit sphere."""
    x = torch.randn(4, 600, 3, generator=torch.Generator().manual_seed(0))
    return x / x.norm(dim=-1, keepdim=True)


def _with(clouds, extra):
    return torch.cat([extra.expand(len(clouds), -1, -1), clouds[:, extra.shape[1] :]], dim=1)


def test_points_far_from_the_others_are_isolated_and_those_of_the_surface_are_not(sphere):
    inside = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0], [0, -0.4, 0.3]]])
    stray = torch.tensor([[[3.0, 0, 0]]])
    lone, spacing = isolated_points(_with(sphere, torch.cat([stray, inside], 1)))
    assert bool(lone[:, :4].all())
    assert float(lone[:, 4:].double().mean()) < 0.01
    assert spacing.shape == lone.shape
    clean, _ = isolated_points(sphere)
    assert float(clean.double().mean()) < 0.01


def test_isolated_points_are_those_of_any_similar_cloud_and_do_not_depend_on_batch_mates(sphere):
    cloud = _with(sphere, torch.tensor([[[0.0, 0, 0], [2.0, 1, 0]]])).double()
    lone, _ = isolated_points(cloud)
    moved, _ = isolated_points(1000 * cloud + 1e6)
    assert torch.equal(lone, moved)
    assert torch.equal(isolated_points(cloud[1:2])[0][0], lone[1])


def test_a_sparse_part_is_no_outlier(sphere):
    """A quarter of the points on the lower half: twice as far apart, like their neighbours."""
    low = sphere[0][sphere[0, :, 2] < 0]
    high = sphere.flatten(0, 1)
    high = high[high[:, 2] >= 0][: 4 * len(low)]
    lone, spacing = isolated_points(torch.cat([low, high])[None])
    assert float(lone.double().mean()) < 0.02
    assert float(spacing[0, : len(low)].median() / spacing[0, len(low) :].median()) == pytest.approx(
        2, rel=0.25
    )


def test_uneven_clouds_become_even_and_even_ones_stay(sphere):
    low = sphere.flatten(0, 1)
    low = low[low[:, 2] < 0][:60]
    high = sphere.flatten(0, 1)
    high = high[high[:, 2] >= 0][:600]
    cloud = torch.cat([low, high])[None]
    lone, spacing = isolated_points(cloud)
    taken = cloud[0][even_index(spacing, ~lone)[0]]
    assert 0.3 < float((taken[:, 2] < 0).double().mean()) < 0.7
    lone, spacing = isolated_points(sphere)
    index = even_index(spacing, torch.ones_like(lone))
    assert torch.equal(index, torch.arange(600).expand(4, -1))
    left = torch.ones_like(lone)
    left[:, ::5] = False
    index = even_index(spacing, left)
    assert bool(left.gather(1, index).all())  # what may not be taken is not
    assert all(len(row.unique()) == 480 for row in index)  # and all else is


@pytest.mark.parametrize("up", [0, 1, 2])
def test_a_floor_that_reaches_beyond_the_object_is_found_in_any_axis(up):
    generator = torch.Generator().manual_seed(2)
    box = torch.rand(1, 700, 3, generator=generator) * torch.tensor([1.0, 1.0, 1.5])
    box[..., 0] = box[..., 0].round()  # two walls
    floor = 4 * torch.rand(1, 300, 3, generator=generator) - 1.5
    floor[..., 2] = 0
    cloud = torch.cat([box, floor], 1).roll(up - 2, -1)
    found = floor_points(cloud, up)[0]
    assert float(found[700:].double().mean()) > 0.9
    assert float(found[:700].double().mean()) < 0.05
    assert not bool(floor_points(box.roll(up - 2, -1), up).any())
    narrow = box.clone()
    narrow[..., 2] = torch.where(torch.arange(700) % 4 == 0, 0.0, narrow[..., 2])  # the object's own base
    narrow[..., 0] = torch.where(
        torch.arange(700) % 4 == 0, torch.rand(700, generator=generator), narrow[..., 0]
    )
    assert not bool(floor_points(narrow.roll(up - 2, -1), up).any())


def test_bad_clouds_are_told():
    with pytest.raises(ValueError, match="finite"):
        isolated_points(torch.full((1, 40, 3), float("nan")))
    with pytest.raises(ValueError, match="expected shape"):
        floor_points(torch.rand(40, 2), 2)


def test_one_point_repeated_stands_on_no_floor():
    assert not floor_points(torch.eye(3).repeat(1, 20, 1), 2).any()
