"""Outliers and floors of clouds: what is found, what is left alone, what does not change the answer."""

from __future__ import annotations

import pytest
import torch

from geoframe.surface.outliers import (
    _lower_medians,
    centred_clouds,
    even_index,
    floor_points,
    isolated_points,
)


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


def test_a_cloud_of_many_outliers_keeps_its_own_points(sphere):
    """30 of 600 in a cube: those that are not next to the sphere go, and few points of the sphere."""
    g = torch.Generator().manual_seed(3)
    cloud = torch.cat([3 * torch.rand(4, 30, 3, generator=g) - 1.5, sphere[:, 30:]], 1)
    far = (cloud[:, :30].norm(dim=-1) - 1).abs() > 0.35
    lone, _ = isolated_points(cloud)
    assert float(lone[:, :30][far].double().mean()) > 0.97
    assert float(lone[:, 30:].double().mean()) < 0.02


@pytest.mark.parametrize("kind", ["spread", "long tails", "few values", "one value", "neighbours"])
def test_medians_are_torch_s(kind):
    g = torch.Generator().manual_seed(4)
    x = torch.randn(20, 101, generator=g, dtype=torch.float64)
    rows = {
        "spread": x,
        "long tails": x.exp() ** 30,
        "few values": x.round(),
        "one value": 0 * x + 7,
        "neighbours": 1 + (x > 0) * 2.3e-16,
    }[kind]
    assert torch.equal(_lower_medians(rows), rows.median(1).values)
    assert torch.equal(_lower_medians(rows.float()), rows.float().median(1).values)


def test_clouds_about_their_middles():
    g = torch.Generator().manual_seed(6)
    cloud = 1e5 + torch.randn(3, 41, 3, generator=g, dtype=torch.float64)
    cloud[:, 0] = 1e7
    for by_median in (True, False):
        flat, middle, unit = centred_clouds(cloud, by_median=by_median)
        assert torch.equal(middle, cloud.median(1).values)
        far = (cloud - middle[:, None]).abs().amax(-1)
        torch.testing.assert_close(unit, far.median(1).values if by_median else far.amax(1))
        torch.testing.assert_close(flat.double() * unit[:, None, None] + middle[:, None], cloud)


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


def test_the_thin_end_of_a_cloud_that_gets_thinner_stays_and_its_outliers_go():
    """A tube seen from above: at its bottom a twentieth of the points of its top."""
    g = torch.Generator().manual_seed(5)
    height = torch.rand(20000, generator=g)
    height = height[torch.rand(20000, generator=g) < 0.05 + 0.95 * height.square()][:800]
    angle = 2 * torch.pi * torch.rand(800, generator=g)
    tube = torch.stack([0.4 * angle.cos(), 0.4 * angle.sin(), 2 * height], 1)
    stray = torch.tensor([[1.5, 0, 1.9], [0, -1.5, 1.2]])
    lone, spacing = isolated_points(torch.cat([tube, stray])[None])
    assert float(spacing[0, :800].max() / spacing[0, :800].median()) > 4.5  # too far off anywhere else
    assert not bool(lone[0, :800][tube[:, 2] < 0.5].any())
    assert float(lone[0, :800].double().mean()) < 0.01 and bool(lone[0, 800:].all())


def test_the_spacing_is_that_of_all_pairs(sphere):
    """The grid of the search changes nothing, whatever the spread of the points."""
    cloud = torch.cat([sphere[0], 0.01 * sphere[1, :200], 30 * sphere[2, :20]])
    _, spacing = isolated_points(cloud[None])
    some = torch.linspace(0, len(cloud) - 1, 512).long()
    far = torch.cdist(cloud.double(), cloud[some].double(), compute_mode="donot_use_mm_for_euclid_dist")
    far[some, torch.arange(512)] = torch.inf
    true = far.sort(1).values[:, :6].mean(1)
    size = (cloud - cloud.median(0).values).abs().max()
    torch.testing.assert_close(spacing[0] * size, true.float(), rtol=1e-3, atol=1e-5)


def test_uneven_clouds_become_more_even_and_even_ones_stay(sphere):
    low = sphere.flatten(0, 1)
    low = low[low[:, 2] < 0][:60]
    high = sphere.flatten(0, 1)
    high = high[high[:, 2] >= 0][:600]
    cloud = torch.cat([low, high])[None]
    lone, spacing = isolated_points(cloud)
    taken = cloud[0][even_index(spacing, ~lone)[0]]
    share = 10**0.75 / (10 + 10**0.75)  # from a tenth as many points that are 10^0.5 times as far apart
    assert float((taken[:, 2] < 0).double().mean()) == pytest.approx(share, abs=0.1)
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


def test_strays_of_small_clouds_are_told():
    found = []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        cloud = torch.nn.functional.normalize(torch.randn(60, 3, generator=g), dim=1)
        cloud[:2] *= 2 + 2 * torch.rand(2, 1, generator=g)
        found.append(isolated_points(cloud[None])[0][0, :2].double().mean())
    assert float(torch.stack(found).mean()) > 0.6  # 0.4 by votes of looks at parts
