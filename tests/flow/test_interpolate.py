"""Interpolation of matches: exact on affine motions, breaks at edges, outliers do not matter."""

from __future__ import annotations

import pytest
import torch

from geoframe.flow import edge_strength, interpolate_matches, pixel_grid


def grid_points(height: int, width: int, every: int = 6) -> torch.Tensor:
    return pixel_grid(height, width, like=torch.zeros(0))[:, 2::every, 2::every].flatten(1).T.contiguous()


def affine(points: torch.Tensor) -> torch.Tensor:
    return points @ torch.tensor([[1.03, 0.02], [-0.04, 0.98]]).T + torch.tensor([3.0, -2.0])


def test_an_affine_motion_comes_back():
    """The fit has a small ridge towards a translation, hence not to the last digit."""
    p0 = grid_points(40, 50)
    flow, distance = interpolate_matches(p0, affine(p0), torch.zeros(40, 50))
    pixels = pixel_grid(40, 50, like=flow)
    truth = (affine(pixels.flatten(1).T).T).reshape(pixels.shape) - pixels
    assert float((flow - truth).abs().max()) < 0.15
    assert float((flow - truth).abs().mean()) < 0.02
    assert float(distance.min()) == 0 and distance.shape == (40, 50)


def test_motions_do_not_cross_an_edge():
    edges = torch.zeros(30, 60)
    edges[:, 29:31] = 1.0
    p0 = grid_points(30, 60)
    motion = torch.where(p0[:, :1] < 30, torch.tensor([5.0, 0.0]), torch.tensor([-5.0, 2.0]))
    flow, _ = interpolate_matches(p0, p0 + motion, edges)
    left, right = flow[:, :, :29].flatten(1), flow[:, :, 31:].flatten(1)
    assert float((left - torch.tensor([[5.0], [0.0]])).abs().max()) < 0.3
    assert float((right - torch.tensor([[-5.0], [2.0]])).abs().max()) < 0.3


def test_a_few_wrong_matches_change_nothing():
    p0 = grid_points(60, 60, 4)
    p1 = affine(p0)
    wrong = torch.randperm(len(p0), generator=torch.Generator().manual_seed(1))[:20]
    bad = p1.clone()
    bad[wrong] += 25.0
    clean, dirty = (interpolate_matches(p0, x, torch.zeros(60, 60))[0] for x in (p1, bad))
    assert float((clean - dirty).abs().max()) < 0.25


def test_one_match_is_enough_and_none_is_too_few():
    flow, _ = interpolate_matches(torch.tensor([[3.5, 2.5]]), torch.tensor([[5.5, 2.0]]), torch.zeros(6, 8))
    assert torch.equal(flow, torch.tensor([2.0, -0.5])[:, None, None].expand(2, 6, 8))
    with pytest.raises(ValueError, match="points0: expected at least one match, found none"):
        interpolate_matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(6, 8))
    with pytest.raises(ValueError, match="points1: expected finite numbers"):
        interpolate_matches(torch.zeros(1, 2), torch.full((1, 2), torch.nan), torch.zeros(6, 8))


def test_edges_are_where_the_image_changes():
    image = torch.zeros(3, 20, 20)
    image[:, :, 10:] = 1.0
    edges = edge_strength(image)
    assert float(edges[:, 8:12].min()) > 0.8 and float(edges[:, :6].max()) < 1e-3
