"""Plane warps: exact wherever they are asked, in composition, inverse, points, masks, flow and pictures."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.warps import (
    affine_warp,
    mirror_warp,
    pixel_grid,
    random_warp,
    spline_warp,
    to_normalised,
    to_pixels,
)

SIDE = 100  # pixels: 1e-4 of them are 2e-6 in normalised coordinates


def _ramp(height, width):
    """A picture whose red and green are the normalised coordinates of its pixels."""
    grid = pixel_grid(height, width)
    return torch.cat([grid, torch.ones(height, width, 1)], -1).movedim(-1, 0)[None]


def _warps(dtype=torch.float32):
    affine = random_warp(3, rotation=20, scale=0.2, shift=0.2, bend=0, strong_bend=0, seed=1)
    spline = random_warp(3, bend=0.003, strong_bend=0.01, control=4, seed=2)
    target = torch.tensor([[-0.8, -0.7], [0.9, -0.8], [-0.8, 0.9], [0.7, 0.8], [0.1, 0.0]])
    centres = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1], [0, 0]])
    fitted = spline_warp(centres, target.expand(3, -1, -1))
    return {
        "affine": affine,
        "spline": spline,
        "fitted": fitted,
        "mirror": mirror_warp(3),
        "composed": affine.after(spline).after(mirror_warp(3)),
    }


@pytest.mark.parametrize("name", _warps())
def test_points_and_their_inverse_agree_to_a_ten_thousandth_of_a_pixel(name):
    warp = _warps()[name]
    points = torch.rand(3, 40, 2, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    back, found = warp.inverse(warp(points))
    assert bool(found.all())
    assert float((back - points).abs().max()) * SIDE / 2 < 1e-3  # float32; the map may stretch
    same = warp.inverse(points[0])[0]  # (N, 2): the same points in every picture
    assert same.shape == points.shape and torch.allclose(same[:1], warp.inverse(points)[0][:1], atol=1e-6)
    source = warp.inverse(points)[0]
    assert float((warp(source) - points).abs().max()) * SIDE / 2 < 1e-4


@pytest.mark.parametrize("name", _warps())
def test_the_jacobian_is_the_derivative(name):
    warp = _warps()[name]
    points = (torch.rand(3, 7, 2, generator=torch.Generator().manual_seed(3)) - 0.5).requires_grad_()
    for i in range(2):
        (slope,) = torch.autograd.grad(warp(points)[..., i].sum(), points)
        assert torch.allclose(slope, warp.jacobian(points.detach())[..., i, :], atol=1e-5)


def test_a_composition_is_one_map_after_the_other_and_sampled_once():
    a, b = _warps()["affine"], _warps()["spline"]
    points = pixel_grid(9, 9).reshape(-1, 2)
    assert torch.allclose(a.after(b)(points), a(b(points)), atol=1e-6)
    # a view of a ramp shows the coordinates of the source: exact by bilinear sampling
    view = a.after(b).sample(_ramp(40, 40).expand(3, -1, -1, -1), (24, 30))
    inside = view[:, 2] > 0.999
    truth = a(b(pixel_grid(24, 30).reshape(-1, 2))).unflatten(1, (24, 30)).movedim(-1, 1)
    off = (view[:, :2] - truth).abs().amax(1)[inside]
    assert float(off.max()) * 40 / 2 < 1e-4


def test_flow_points_and_grid_are_the_same_map():
    warp, H, W = _warps()["composed"], 30, 50
    flow, grid = warp.flow((H, W)), warp.grid((H, W))
    centres = to_pixels(pixel_grid(H, W), H, W)
    assert torch.allclose(centres + flow.movedim(1, -1), to_pixels(grid, H, W), atol=1e-4)
    assert torch.allclose(grid[:, 7, 11], warp(to_normalised(centres[7, 11], H, W)[None])[:, 0], atol=1e-6)


def test_masks_are_sampled_where_their_points_are():
    warp = _warps()["affine"]
    mask = torch.zeros(3, 60, 60, dtype=torch.bool)
    mask[:, 20:40, 15:45] = True
    seen = warp.sample_mask(mask)
    place = to_pixels(warp.grid(60), 60, 60)
    x, y = place[..., 0].floor().long(), place[..., 1].floor().long()
    ok = (x >= 0) & (x < 60) & (y >= 0) & (y < 60)
    edge = (place - place.round()).abs().amin(-1) < 1e-3  # where rounding decides
    truth = ok & mask[0][y.clamp(0, 59), x.clamp(0, 59)]
    assert bool(((seen == truth) | edge).all()) and bool(seen.any())


def test_a_mirror_is_its_own_inverse_and_flips_pixels_exactly():
    image = torch.rand(2, 3, 12, 17)
    assert torch.allclose(mirror_warp(2).sample(image), image.flip(-1), atol=1e-5)
    points = torch.rand(1, 5, 2)
    assert torch.equal(mirror_warp()(mirror_warp()(points)), points)


def test_fitted_splines_meet_their_targets_and_affine_ones_do_not_bend():
    draw = torch.Generator().manual_seed(0)
    centres, target = torch.rand(9, 2, generator=draw) * 2 - 1, torch.rand(2, 9, 2, generator=draw)
    assert torch.allclose(spline_warp(centres, target)(centres), target, atol=2e-5)
    A = torch.tensor([[[0.9, 0.2, 0.1], [-0.3, 1.1, 0.0]]])
    bent = spline_warp(centres, affine_warp(A)(centres))
    points = torch.rand(30, 2, generator=draw) * 3
    assert torch.allclose(bent(points), affine_warp(A)(points), atol=1e-4)
    soft = spline_warp(centres, target, stiffness=10.0)
    assert float((soft(centres) - target).norm()) > 0.1  # it rather misses than bends


def test_rotations_keep_shapes_in_pictures_that_are_not_square():
    aspect = 2.0
    warp = random_warp(20, rotation=40, scale=0.1, shift=0.1, bend=0, strong_bend=0, aspect=aspect, seed=0)
    corner = torch.tensor([[0.0, 0], [0.3, 0], [0, 0.4]])
    moved = to_pixels(warp(corner), 100, 200)
    before = to_pixels(corner, 100, 200)
    far = torch.cdist(moved, moved) / torch.cdist(before, before).clamp_min(1e-9)
    assert torch.allclose(far[:, 0, 1], far[:, 0, 2], atol=1e-4) and torch.allclose(
        far[:, 0, 1], far[:, 1, 2], atol=1e-4
    )


def test_random_warps_are_drawn_from_their_seed_with_the_spread_asked_for():
    one, two = random_warp(4, seed=5), random_warp(4, seed=5)
    assert torch.equal(one(torch.zeros(1, 2)), two(torch.zeros(1, 2)))
    many = random_warp(4000, rotation=10, scale=0.2, shift=0.3, bend=0, strong_bend=0, seed=0)
    A = many.steps[0].affine
    assert abs(float(torch.atan2(A[:, 1, 0], A[:, 0, 0]).std()) - math.radians(10)) < 0.01
    assert abs(float(A[:, :, :2].det().log().std() / 2) - 0.2) < 0.01
    assert abs(float(A[:, :, 2].std()) - 0.3) < 0.01


def test_a_fold_is_told():
    fold = spline_warp(
        torch.tensor([[-1.0, 0], [1, 0], [0, 1], [0, -1], [0, 0]]),
        torch.tensor([[[-1.0, 0], [1, 0], [0, 1], [0, -1], [3.0, 0]]]),
    )
    assert not bool(fold.inverse(torch.tensor([[-30.0, 5.0], [40.0, 3.0]]))[1].all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: affine_warp(torch.eye(2)), r"affine: expected shape \(B, 2, 3\)"),
        (lambda: mirror_warp(2)(torch.zeros(3, 4, 2)), "points: expected 2 pictures"),
        (lambda: mirror_warp(2).after(mirror_warp(3)), "inner: expected 2 warps"),
        (lambda: spline_warp(torch.zeros(4, 2), torch.zeros(1, 4, 2)), "centres: expected at least three"),
        (lambda: mirror_warp().sample(torch.zeros(1, 3, 4, 4), border="wrap"), "border: expected one of"),
        (lambda: random_warp(0), "n: expected an integer at least 1"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
