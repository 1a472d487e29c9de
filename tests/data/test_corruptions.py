"""Corruptions of clouds: what each kind does, that its transform tells the truth, and that a seed decides it."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.data.corruptions import corrupted, corruptions
from geoframe.transforms import rotation_angle

_RIGID = ("turned 60", "turned 75", "turned 90", "turned 180", "tilted 10", "tilted 15", "upside down")
_MOVED = (*_RIGID, "another axis up", "map coordinates", "millimetres", "clean")


@pytest.fixture(scope="module")
def clouds():
    """Three clouds at scale 2, longest upwards."""
    x = 2 * torch.rand(3, 200, 3, generator=torch.Generator().manual_seed(0)) - 1
    return x * torch.tensor([0.5, 0.7, 1.0])


@pytest.mark.parametrize("kind", corruptions())
def test_what_is_left_of_the_shape_is_where_the_transform_says(clouds, kind):
    """Most points of the worse cloud, moved back, are points of the clean one (noise: within a few deviations)."""
    worse, motion = corrupted(clouds, kind, seed=3)
    assert worse.shape == clouds.shape and worse.dtype == torch.float64
    gap = torch.cdist(motion.inverse()(worse), clouds.double()).amin(-1)
    near = 0.2 if kind == "noise 2 %" else 1e-6
    share = {"outliers around": 0.94, "outliers inside": 0.94, "floor": 0.69, "stray point": 0.99}.get(
        kind, 1.0
    )
    assert float((gap < near).double().mean()) >= share
    again, other = corrupted(clouds, kind, seed=3), corrupted(clouds, kind, seed=4)
    assert torch.equal(worse, again.points)
    assert (kind in _MOVED and "tilted" not in kind) or not torch.equal(worse, other.points)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_rotations_have_their_angles_about_their_axes(clouds, up):
    for kind, angle in (("turned 60", 60), ("turned 180", 180), ("tilted 10", 10), ("upside down", 180)):
        R = corrupted(clouds, kind, up=up, seed=1).moved.R
        torch.testing.assert_close(rotation_angle(R), torch.full((3,), math.radians(angle)).double())
        upward = R[:, up, up]
        expected = 1.0 if "turned" in kind else math.cos(math.radians(angle))
        torch.testing.assert_close(upward, torch.full((3,), expected).double())


def test_cuts_take_away_one_side(clouds):
    for kind, left in (
        ("cut 30 %", 140),
        ("cut 30 % below", 140),
        ("lateral half", 100),
        ("nearer half", 100),
    ):
        worse = corrupted(clouds, kind, seed=2).points
        assert all(len(x.unique(dim=0)) == left for x in worse), kind
    below = corrupted(clouds, "cut 30 % below").points
    for cloud, cut in zip(clouds, below, strict=True):
        assert float(cut[:, 2].amin()) >= float(cloud[:, 2].quantile(0.29))
    half = corrupted(clouds, "lateral half").points
    assert float(half[..., 0].amin()) > float(half[..., 0].amax()) - 0.6  # clouds are one wide


def test_outliers_and_floors_are_where_they_are_said_to_be(clouds):
    stray = corrupted(clouds, "stray point", seed=5).points
    assert all(abs(float(x.norm(dim=-1).amax()) - 3) < 1e-6 for x in stray)
    assert float(corrupted(clouds, "outliers around").points.abs().amax()) > 1.5
    assert float(corrupted(clouds, "outliers inside").points.abs().amax()) <= 1
    floor = corrupted(clouds, "floor", up=2, seed=5).points
    low = clouds[..., 2].amin(1).double()
    assert all(int(((x[:, 2] - z).abs() < 0.03).sum()) >= 58 for x, z in zip(floor, low, strict=True))


def test_bad_arguments_are_told(clouds):
    with pytest.raises(ValueError, match="kind"):
        corrupted(clouds, "rust")
    with pytest.raises(ValueError, match="up"):
        corrupted(clouds, "clean", up=3)
