"""Rendered rigid categories and heads: one surface a category, nothing where an object has no counterpart on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.data.rendered import render_set, template_surface
from geoframe.zoo.template import counterpart
from geoframe.zoo.things import THINGS, bridge, draw_thing, thing, thing_mesh

N = 600  # vertices of the surfaces here


def _points(batch, faces):
    """Which picture, row and column has a face, and its point (n, 3) in space."""
    b, row, col = torch.where(batch.face >= 0)
    corners = batch.verts[b[:, None], faces[batch.face[b, row, col]]]
    return b, row, col, (batch.barycentric[b, row, col][..., None] * corners).sum(1)


def test_the_point_of_a_pixel_of_one_structure_projects_to_its_centre():
    batch = render_set("table", 4, size=48, seed=12, n_verts=N)[range(4)]
    faces = template_surface("table", n_verts=N).faces
    whole = [i for i in range(4) if bool(batch.mask[i].any()) and not batch.verts[i].isnan().any()]
    b, row, col, points = _points(batch, faces)
    assert whole
    for i in whole:
        at = batch.camera[i].project(points[b == i])[:, :2]
        centre = torch.stack([col[b == i], row[b == i]], 1) + 0.5
        assert float((at - centre).abs().max()) < 5e-3
        assert torch.equal(batch.face[i] >= 0, batch.mask[i])
    other = [i for i in range(4) if bool(batch.verts[i].isnan().any())]
    assert other and any(bool((batch.mask[i] & (batch.face[i] < 0)).any()) for i in other)
    gaps = []
    for i in other:  # from one triangulation to another: not exact, but near
        mine = (b == i) & ~points.isnan().any(1)
        at = batch.camera[i].project(points[mine])[:, :2]
        gaps.append((at - torch.stack([col[mine], row[mine]], 1) - 0.5).norm(dim=1))
    assert float(torch.cat(gaps).median()) < 0.5
    assert bool((batch.vertex[batch.face < 0] == -1).all()) and not batch.barycentric[batch.face < 0].any()
    assert not (batch.visible & batch.landmarks.isnan().any(-1)).any()


def test_a_bridge_tells_counterparts_as_the_template_does():
    usual = thing_mesh("table", None, N)
    name = "table/rectangular/pedestal/no_shelf"
    across = bridge("table", name, N)
    member = next(m for m in (thing("table", s) for s in range(99)) if m.structure.name == name)
    _, exists = counterpart(member, torch.from_numpy(usual.canonical))
    assert torch.equal(torch.from_numpy(across.back), exists) and 0 < float(exists.double().mean()) < 1
    mesh = thing_mesh("table", name, N)
    face, bary = across.cross(
        torch.arange(len(mesh.faces)).numpy(), torch.full((len(mesh.faces), 3), 1 / 3).numpy()
    )
    assert ((face >= 0) == across.exists).all()
    found = (torch.from_numpy(bary)[..., None] * torch.from_numpy(usual.canonical[usual.faces[face]])).sum(1)
    middle = torch.from_numpy(mesh.canonical[mesh.faces]).mean(1)
    gap = (found - middle).norm(dim=1)[torch.from_numpy(across.exists)]
    assert float(gap.median()) < 0.02


def test_bad_input():
    with pytest.raises(ValueError, match="category: expected one of"):
        thing("spoon", 0)
    with pytest.raises(ValueError, match="expression: expected none for 'car'"):
        thing("car", 0, {"smile": 1.0})
    with pytest.raises(ValueError, match="surface: expected none with 'car'"):
        render_set(["horse", "car"], 2, surface="horse")
    with pytest.raises(ValueError, match="pose: expected none with 'car'"):
        render_set("car", 2, pose="grazing")
    assert "head" in THINGS


def test_heads_differ_in_expression():
    drawn = [draw_thing("head", np.random.default_rng(i)) for i in range(20)]
    assert len({m.structure.name for m in drawn}) == 1
    assert len({tuple(sorted(m.traits.items())) for m in drawn}) == 20
