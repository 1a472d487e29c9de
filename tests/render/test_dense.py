"""Visibility against rays, optical flow against geometry."""

from __future__ import annotations

import pytest
import torch

from geoframe.camera import look_at, pinhole_view, weak_view
from geoframe.render import interpolate, optical_flow, rasterize, vertex_visibility
from geoframe.surface.shapes import icosphere, torus

EYE = torch.tensor([1.0, 1.2, 2.4]).double()


def _hidden_by_rays(verts, faces, towards):
    """(V,) whether the segment from each vertex to the camera (V, 3) meets a face that is not its own."""
    a, b, c = verts[faces].unbind(1)
    u, v = b - a, c - a
    hidden = torch.zeros(len(verts), dtype=torch.bool)
    for i, (p, d) in enumerate(zip(verts, towards, strict=True)):
        h = torch.linalg.cross(d.expand_as(v), v)
        det = (u * h).sum(1)
        r = p - a
        s = (r * h).sum(1) / det
        q = torch.linalg.cross(r, u)
        t = (q * d).sum(1) / det
        far = (v * q).sum(1) / det
        hit = (s > 0) & (t > 0) & (s + t < 1) & (far > 1e-9) & ~(faces == i).any(1)
        hidden[i] = hit.any()
    return hidden


@pytest.mark.parametrize("kind", ["pinhole", "weak"])
def test_visibility_agrees_with_rays(kind):
    mesh = torus(n_around=36, n_tube=18)
    size = (160, 200)
    view = pinhole_view(EYE, size, fov=70.0) if kind == "pinhole" else weak_view(EYE, size, extent=1.5)
    fragments = rasterize(mesh.verts, mesh.faces, view)
    seen = vertex_visibility(fragments, mesh.faces, view.project(mesh.verts))
    towards = EYE - mesh.verts if kind == "pinhole" else EYE.expand_as(mesh.verts)
    hidden = _hidden_by_rays(mesh.verts, mesh.faces, towards)
    assert 0.3 < hidden.float().mean() < 0.7
    assert (seen == ~hidden).float().mean() > 0.98


def test_vertices_outside_the_picture_are_not_visible():
    mesh = icosphere(4)
    view = weak_view(EYE, (40, 40), extent=0.5)
    screen = view.project(mesh.verts)
    seen = vertex_visibility(rasterize(mesh.verts, mesh.faces, view), mesh.faces, screen)
    outside = (screen[:, :2] < 0).any(1) | (screen[:, :2] > 40).any(1)
    assert outside.any() and seen.any() and not seen[outside].any()
    views = weak_view(torch.stack([EYE, -EYE]), (120, 120), extent=1.2)
    both = vertex_visibility(rasterize(mesh.verts, mesh.faces, views), mesh.faces, views.project(mesh.verts))
    assert both.shape == (2, mesh.n_verts)
    assert (both.sum(0) == 1).float().mean() > 0.9  # opposite views share the sphere between them


def test_flow_of_a_rigid_motion():
    mesh = torus(n_around=36, n_tube=18)
    size = (60, 70)
    first, second = (pinhole_view(e, size, fov=80.0) for e in (EYE, EYE * 1.1 + 0.1))
    R, _ = look_at(torch.tensor([0.1, 0.2, 3.0]).double())
    fragments = rasterize(mesh.verts, mesh.faces, first)
    flow, valid = optical_flow(fragments, mesh.faces, mesh.verts @ R.T, second)
    rows, cols = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(70) + 0.5, indexing="ij")
    here = torch.stack([cols, rows, fragments.depth], -1)[fragments.mask]
    there = second.project(first.unproject(here) @ R.T)
    torch.testing.assert_close(flow.movedim(0, -1)[fragments.mask], (there - here)[:, :2])
    assert flow.abs().max() > 3 and torch.equal(valid, fragments.mask)
    still, _ = optical_flow(fragments, mesh.faces, mesh.verts, first)
    assert still.abs().max() < 1e-9
    verts = mesh.verts.clone().requires_grad_()
    (grad,) = torch.autograd.grad(optical_flow(fragments, mesh.faces, verts, second)[0].sum(), verts)
    assert grad.abs().sum() > 0


def test_flow_knows_what_gets_hidden():
    """Where flow says a point is still seen, the second picture shows that very point."""
    mesh = torus(n_around=48, n_tube=24)
    size = (120, 140)
    eyes = EYE, torch.tensor([2.4, 0.4, 1.0]).double()
    first, second = (pinhole_view(e, size, fov=70.0) for e in eyes)
    one, two = (rasterize(mesh.verts, mesh.faces, v) for v in (first, second))
    flow, valid = optical_flow(one, mesh.faces, mesh.verts, second, other=two)
    _, inside = optical_flow(one, mesh.faces, mesh.verts, second)
    rows, cols = torch.meshgrid(torch.arange(120), torch.arange(140), indexing="ij")
    x, y = (cols + 0.5 + flow[0]).long().clamp(0, 139), (rows + 0.5 + flow[1]).long().clamp(0, 119)
    here = interpolate(one, mesh.faces, mesh.verts)
    there = interpolate(two, mesh.faces, mesh.verts)[:, y, x]
    gap = (here - there).norm(dim=0)
    assert valid.sum() > 2000 and (inside & ~valid).sum() > 300
    assert (
        gap[valid] < 0.15
    ).float().mean() > 0.98  # a pixel is 0.03 wide, and thrice that where it is steep
    behind = second.to_camera(here.flatten(1).mT)[:, 2].view(120, 140) - two.depth[y, x]
    assert (~valid)[inside & two.mask[y, x] & (behind > 0.3)].float().mean() > 0.98
    assert valid[inside & (gap < 0.05)].float().mean() > 0.95
