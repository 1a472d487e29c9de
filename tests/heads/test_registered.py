"""Registered matching on fields whose vectors tell the place, up to what repeats."""

from __future__ import annotations

import pytest
import torch

from geoframe.heads.registered import joined_features, match_registered, register
from geoframe.warps import affine_warp, pixel_grid

MAP = torch.tensor([[[0.9, 0.15, 0.1], [-0.1, 1.05, -0.05]]])


def _field(u):
    """Waves of places (B, h, w, 2)."""
    return torch.cat([f(k * u) for k in (1.5, 3.0, 5.0) for f in (torch.sin, torch.cos)], -1).movedim(-1, 1)


def _pair(side=24):
    """A picture and the same one moved by MAP: what the target shows at A x + t, the source shows at x."""
    back = affine_warp(MAP).inverse(pixel_grid(side, side).reshape(-1, 2))[0].unflatten(1, (side, side))
    return _field(pixel_grid(side, side)[None]), _field(back)


def test_the_affine_map_is_found():
    source, target = _pair()
    assert float((register(source, target) - MAP).abs().max()) < 0.05


def test_points_are_carried_by_it():
    source, target = _pair()
    points = torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    found, score = match_registered(source, target, points)
    assert float((found - affine_warp(MAP)(points)).norm(dim=-1).max()) < 0.06 and float(score.min()) > 0.9


def test_what_repeats_is_told_apart_by_where_it_lies():
    """Two halves that look the same, and little that tells them apart elsewhere."""
    side = 24
    u = pixel_grid(side, side)[None]
    doubled = torch.cat([u[..., :1].abs(), u[..., 1:]], -1)
    field = torch.cat([_field(doubled), 0.35 * u[..., :1].movedim(-1, 1)], 1)
    noisy = field + 0.25 * torch.randn(field.shape, generator=torch.Generator().manual_seed(1))
    points = torch.tensor([[[x, y] for x in (-0.7, -0.4, 0.4, 0.7) for y in (-0.6, 0.0, 0.6)]])
    errors = [
        float((match_registered(field, noisy, points, strength=s)[0] - points).norm(dim=-1).mean())
        for s in (0.0, 0.1)
    ]
    assert errors[1] < 0.15 and errors[1] < 0.6 * errors[0]


def test_joined_features_are_unit_vectors_and_batch_mates_do_not_matter():
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    field = joined_features(maps, (1.0, 0.5), 6)
    assert field.shape == (2, 8, 6, 6) and torch.allclose(field.norm(dim=1), torch.ones(2, 6, 6), atol=1e-5)
    assert joined_features(maps, (1.0, 0.0), 6).shape[1] == 3
    source, target = (x.repeat(2, 1, 1, 1) for x in _pair())
    target = torch.cat([target[:1], target[1:].flip(-1)])
    assert torch.allclose(register(source, target)[:1], register(source[:1], target[:1]), atol=1e-4)
    same = [x + 7 * torch.randn(1, x.shape[1], 1, 1) for x in maps[:1]]  # what all places have in common
    apart = joined_features(same, (1.0,), 8, centred=True)
    assert torch.allclose(apart[1:], joined_features([same[0][1:]], (1.0,), 8, centred=True), atol=1e-6)
    spread = joined_features(same, (1.0,), 8).var((2, 3)).sum(1)
    assert bool((apart.var((2, 3)).sum(1) > 2 * spread).all())
    with pytest.raises(ValueError, match="weights: expected 2"):
        joined_features(maps, (1.0,), 6)
