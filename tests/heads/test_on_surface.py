"""Frames tied to a surface, on renders whose pixels are known exactly."""

from __future__ import annotations

import pytest
import torch

from geoframe.canonical.surface import Surface
from geoframe.heads.on_surface import map_by_landmarks, spread_landmarks, tie_to_surface
from geoframe.pixels import PixelMap
from geoframe.render import rasterize
from geoframe.surface.shapes import icosphere
from geoframe.transforms import rotation_about_axis

SIZE = 48


def _render(surface, angle):
    """The sphere from a side: its exact map, and a frame that waves over it."""
    R = rotation_about_axis(torch.tensor(angle), 1).to(surface.verts)
    turned = surface.verts @ R.mT
    screen = torch.cat([turned[:, :2] * 18 + SIZE / 2, turned[:, 2:]], 1)
    seen = rasterize(screen, surface.faces, (SIZE, SIZE))
    truth = PixelMap.of_fragments(seen, surface)
    waves = torch.cat([surface.verts, (3 * surface.verts).sin()], 1).float()
    field = truth.carry(waves).movedim(-1, 0).float()
    field = torch.cat(
        [field, 1.5 * (~truth.mask).float()[None]]
    )  # the background has an embedding of its own
    return truth, field + 0.02 * torch.randn(field.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def surface():
    return Surface.of(icosphere(3))


def test_renders_tie_a_frame_to_the_surface(surface):
    truth, field = _render(surface, 0.0)
    other = [_render(surface, a) for a in (1.5, 3.0, 4.5)]
    pairs = [(t.vertex[t.mask], f[:, t.mask].T) for t, f in [(truth, field), *other]]
    tied = tie_to_surface(torch.cat([d for _, d in pairs]), torch.cat([v for v, _ in pairs]), surface)
    goal, seen = _render(surface, 0.8)
    found = tied.pixel_map(seen, mask=goal.mask)
    away = (surface.verts[found.vertex[goal.mask]] - surface.verts[goal.vertex[goal.mask]]).norm(dim=-1)
    assert float(away.median()) < 0.15 and found.embedding is not None
    alone = tied.pixel_map(seen)
    overlap = (alone.mask & goal.mask).sum() / (alone.mask | goal.mask).sum()
    assert float(overlap) > 0.9


def test_a_few_annotated_pixels_are_enough_for_a_coarse_map(surface):
    truth, field = _render(surface, 0.0)
    pixels = torch.nonzero(truth.mask)[::40]
    tied = tie_to_surface(
        field[:, pixels[:, 0], pixels[:, 1]].T, truth.vertex[pixels[:, 0], pixels[:, 1]], surface
    )
    found = tied.pixel_map(field, mask=truth.mask)
    away = (surface.verts[found.vertex[truth.mask]] - surface.verts[truth.vertex[truth.mask]]).norm(dim=-1)
    assert float(away.median()) < 0.35
    big = tied.pixel_map(field, (96, 96))
    assert big.size == (96, 96)


def test_landmarks_are_spread_over_the_surface_between_them(surface):
    """Pictures are affine maps of the view from +z, which splines meet exactly."""
    flat = surface.verts[:, :2] * surface.verts.new_tensor([1.0, -1.0])
    goals = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [0.0, -0.6], [0.6, -0.2], [-0.6, -0.3]])
    front = torch.where(surface.verts[:, 2:] > 0, flat, 9.0)
    marks = torch.cdist(goals.to(flat), front).argmin(1)
    A = torch.tensor([[[0.9, 0.2], [-0.1, 1.1]], [[0.4, 0.0], [0.1, 0.5]]], dtype=flat.dtype)
    vertices, places = spread_landmarks(surface, marks, flat[marks] @ A.mT + 3, direction=(0, 0, 2))
    assert set(marks.tolist()) <= set(vertices.tolist()) and len(vertices) > 50
    assert float(surface.verts[vertices, 2].min()) > 0 and float(flat[vertices].norm(dim=1).max()) < 0.8
    assert torch.allclose(places, flat[vertices] @ A.mT + 3, atol=1e-6)


def test_a_map_by_landmarks_is_the_view_where_they_agree_with_it(surface):
    """Landmarks of a render: between them the map is the render's own."""
    truth, _ = _render(surface, 0.0)
    goals = torch.tensor([[0.7, 0.0], [-0.7, 0.1], [0.0, -0.7], [0.5, 0.5], [-0.5, 0.5], [0.0, 0.1]])
    flat = torch.where(
        surface.verts[:, 2:] < 0, surface.verts[:, :2], 9.0
    )  # the render looks along +z, y down
    marks = torch.cdist(goals.to(flat), flat).argmin(1)
    there = surface.verts[marks, :2] * 18 + SIZE / 2
    found = map_by_landmarks(
        surface, marks, there, (SIZE, SIZE), direction=(0, 0, -1), up=(0, -1, 0), margin=0, confidence=0.7
    )
    both = found.mask & truth.mask
    off = (found.carry(surface.verts) - truth.carry(surface.verts)).norm(dim=-1)[both]
    assert int(both.sum()) > 200 and float(off.max()) < 0.05
    assert bool((found.confidence[found.mask] == 0.7).all()) and not bool((found.mask & ~truth.mask).any())


def test_bad_input_is_told(surface):
    with pytest.raises(ValueError, match="vertices: expected at least three"):
        spread_landmarks(surface, torch.tensor([0, 1]), torch.zeros(1, 2, 2), direction=(0, 0, 1))
    with pytest.raises(ValueError, match="descriptors: expected at least one"):
        tie_to_surface(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), surface)
    with pytest.raises(ValueError, match="vertices: expected indices in"):
        tie_to_surface(torch.ones(1, 4), torch.tensor([10**6]), surface)
