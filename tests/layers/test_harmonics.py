"""The harmonic pose: exact turning, known poses and planes found, gradients, limits."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.layers import HarmonicPose
from geoframe.transforms import rotation_about_axis


def _wedges(n, seed, up=2):
    """Clouds with one plane of symmetry, x = 0 for up = 2: a slab, a wall at +y, two feet at -y; sizes vary."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 400, 3, generator=g, dtype=torch.float64) * 2 - 1
    part = torch.arange(400) % 4
    size = 0.8 + 0.4 * torch.rand(n, 1, generator=g, dtype=torch.float64)
    x, y, z = 0.6 * size * u[..., 0], 0.8 * u[..., 1], 0.1 * u[..., 2]
    wall, foot = part == 1, part == 2
    y = torch.where(wall, 0.75 + 0.05 * u[..., 1], torch.where(foot, -0.6 + 0.1 * u[..., 1], y))
    z = torch.where(wall, 0.4 + 0.4 * u[..., 2], torch.where(foot, -0.5 + 0.4 * u[..., 2], z))
    x = torch.where(foot, torch.sign(u[..., 0]) * 0.5 * size, x)
    half = torch.stack([x, y, z], dim=-1)
    cloud = torch.cat([half, half * torch.tensor([-1.0, 1, 1], dtype=torch.float64)], dim=1)
    return cloud.roll(up - 2, -1)


def _angle(direction):
    return torch.atan2(direction[:, 1], direction[:, 0])


def _wrap(a):
    return torch.atan2(a.sin(), a.cos())


@pytest.mark.parametrize(("limit", "up"), [(45.0, 2), (180.0, 2), (180.0, 1)])
def test_known_turns_and_plane_are_found(limit, up):
    clouds = _wedges(48, 0, up)
    g = torch.Generator().manual_seed(1)
    true = math.radians(limit) * (2 * torch.rand(48, generator=g, dtype=torch.float64) - 1)
    turned = clouds @ rotation_about_axis(true, up).mT
    pose = HarmonicPose(up=up, max_angle=limit).double()
    assert 0.5 < pose.learn(turned[:32]) <= 1 + 1e-9
    off = _wrap(_angle(pose(turned)) - true)
    off = _wrap(off - torch.atan2(off.sin().mean(), off.cos().mean()))  # the common frame is free
    assert float(off.abs().rad2deg().max()) < 2
    plane = _angle(pose(turned)) + pose.plane - true
    assert float((plane.rad2deg() % 180 - 90).abs().max()) < 1.5  # it contains the second horizontal axis


def test_turning_the_cloud_turns_the_answer_exactly():
    clouds = _wedges(16, 2)
    pose = HarmonicPose().double()
    pose.learn(clouds)
    turns = torch.linspace(-math.pi, math.pi, 16, dtype=torch.float64)  # to the very end
    got = _wrap(_angle(pose(clouds @ rotation_about_axis(turns, 2).mT)) - _angle(pose(clouds)) - turns)
    assert float(got.abs().max()) < 1e-4


def test_the_lead_is_that_over_other_rotations():
    clouds = _wedges(3, 3)[:, ::9]
    pose = HarmonicPose(max_angle=45).double()
    pose.learn(_wedges(16, 2))
    upright = clouds @ rotation_about_axis(_angle(pose(clouds)), 2)
    fit, symmetry, lead = pose.fit_upright(upright).unbind(1)
    torch.testing.assert_close(fit, pose.fit(clouds))
    angles = torch.arange(25, 336, dtype=torch.float64).deg2rad()
    others = pose.fit_upright(upright[0] @ rotation_about_axis(angles, 2))
    best = (others[:, 0] + 0.5 * others[:, 1]).amax()
    torch.testing.assert_close(lead[0], fit[0] + 0.5 * symmetry[0] - best)
    twice = torch.cat([upright, upright * torch.tensor([-1.0, -1, 1])], 1)  # the same after half a turn
    assert float(lead.min()) > 0.05 and float(pose.fit_upright(twice)[:, 2].max()) < 1e-6


def test_order_and_batch_mates_do_not_matter():
    clouds = _wedges(6, 3).float()
    pose = HarmonicPose()
    pose.learn(clouds)
    shuffled = clouds[:, torch.randperm(clouds.shape[1])]
    torch.testing.assert_close(pose(shuffled), pose(clouds), atol=1e-4, rtol=0)
    torch.testing.assert_close(pose(clouds[2:3]), pose(clouds)[2:3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_bins_of_the_angle_hardly_change_the_coefficients(up):
    """With and without a gradient, by two ways: also of points on the axis, far out, and at the end of the bins."""
    clouds = _wedges(5, 7, up).float()
    clouds[0, :3] = 0
    clouds[1, 0] = 3.0
    clouds[2, :2, (up + 1) % 3], clouds[2, :2, (up + 2) % 3] = -0.5, torch.tensor([0.0, -1e-8])
    pose = HarmonicPose(up=up)
    binned, exact = pose.describe(clouds), pose.describe(clouds.clone().requires_grad_()).detach()
    assert float((binned - exact).abs().max()) < 1e-3 * float(exact.abs().max())


@pytest.mark.parametrize(("symmetric", "limit"), [(True, 180.0), (True, 45.0), (False, 180.0)])
def test_angles_and_their_fit_are_the_same_with_and_without_a_gradient(symmetric, limit):
    """By compiled loops and by tensor operations; in double precision there is but one way."""
    clouds = _wedges(6, 8).float() @ rotation_about_axis(torch.linspace(-0.6, 0.6, 6), 2).mT
    pose = HarmonicPose(max_angle=limit, symmetric=symmetric)
    pose.learn(clouds)
    slow = pose(clouds.clone().requires_grad_()).detach()
    torch.testing.assert_close(pose(clouds), slow, rtol=0, atol=2e-3)
    upright = clouds @ rotation_about_axis(_angle(slow), 2)
    double = HarmonicPose(max_angle=limit, symmetric=symmetric).double()
    double.load_state_dict(pose.state_dict())
    torch.testing.assert_close(
        pose.fit_upright(upright), double.fit_upright(upright.double()).float(), rtol=0, atol=2e-3
    )


def test_gradient_is_that_of_the_angle():
    clouds = _wedges(3, 4)
    pose = HarmonicPose().double()
    pose.learn(clouds)
    points = clouds.clone().requires_grad_()
    angle = _angle(pose(points))
    (gradient,) = torch.autograd.grad(angle.sum(), points)
    # turning the cloud by a little turns the answer by as much
    generator = torch.stack([-clouds[..., 1], clouds[..., 0], torch.zeros_like(clouds[..., 0])], dim=-1)
    torch.testing.assert_close(
        (gradient * generator).sum((1, 2)), torch.ones(3, dtype=torch.float64), atol=1e-3, rtol=0
    )
    way = torch.randn(clouds.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 1e-5
    numeric = (_angle(pose(clouds + step * way)) - _angle(pose(clouds - step * way))) / (2 * step)
    torch.testing.assert_close((gradient * way).sum((1, 2)), numeric, rtol=2e-2, atol=1e-4)


def test_the_answer_keeps_to_its_limit():
    clouds = _wedges(8, 5)
    pose = HarmonicPose(max_angle=30).double()
    pose.learn(clouds)
    far = _angle(pose(clouds @ rotation_about_axis(torch.full((8,), 2.0, dtype=torch.float64), 2).mT))
    assert float(far.abs().max()) <= math.radians(35) + 1e-12


def test_without_symmetry_the_plane_has_no_say():
    clouds = _wedges(8, 6)
    for symmetric in (True, False):
        pose = HarmonicPose(symmetric=symmetric).double()
        pose.learn(clouds)
        before = pose(clouds)
        pose.plane += 0.3
        assert bool((pose(clouds) - before).abs().amax(1).gt(1e-3).all()) == symmetric


def test_nothing_learned_and_bad_limits_are_told():
    with pytest.raises(ValueError, match="nothing was learned yet"):
        HarmonicPose()(torch.rand(1, 9, 3))
    with pytest.raises(ValueError, match=r"max_angle: expected degrees in \(0, 180\]"):
        HarmonicPose(max_angle=0)


def test_compiled_rings_are_those_of_the_module():
    from geoframe.layers import _harmonics, harmonics

    assert (_harmonics.RADII, _harmonics.HEIGHTS) == (
        harmonics._RADII,
        harmonics._HEIGHTS,
    )  # else out of bounds
