"""Fitting a template to the 2D landmarks of one image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import geoframe
from geoframe.fitting import fit_points
from geoframe.surface import Mesh, farthest_points, shapes
from geoframe.transforms import random_rotations, rotation_angle

F64 = torch.float64


def view(seed: int = 3) -> torch.Tensor:
    return random_rotations(1, generator=torch.Generator().manual_seed(seed), dtype=F64)[0]


def test_a_rigid_view_is_recovered_without_bending():
    mesh, R = shapes.ellipsoid((1.0, 0.7, 0.5), level=2).to(F64), view()
    ids = farthest_points(mesh, 20)
    u = 50 * mesh.verts[ids] @ R[:2].T + 100
    fit = fit_points(mesh, u, vertices=ids)
    assert rotation_angle(fit.pose.R, R) < 1e-6 and fit.pose.scale.item() == pytest.approx(50)
    assert (fit.mesh.verts - mesh.verts).abs().max() < 1e-6 and fit.distances.max() < 1e-4
    assert torch.equal(fit_points(mesh, u, vertices=ids, n_basis=0).mesh.verts, mesh.verts)


def test_a_bent_mesh_is_followed_and_stiffness_resists():
    mesh, R = shapes.ellipsoid((1.0, 0.5, 0.4), level=2).to(F64), view()
    bent = mesh.verts + torch.tensor([0, 0.3, 0.1], dtype=F64) * mesh.verts[:, :1] ** 2
    u = 50 * bent @ R[:2].T
    v = (mesh.vertex_normals @ R[2] < 0.3).to(F64)
    found = [fit_points(mesh, u, v, stiffness=s) for s in (1e-6, 1e-3, 1.0)]
    seen = [f.distances[v > 0].mean().item() for f in found]
    assert seen[0] < seen[1] < seen[2] and seen[0] < 0.05 * seen[2]
    hidden = [f.distances[v == 0].mean().item() for f in found]
    assert hidden[0] < 0.5 * hidden[2]  # nobody told it
    moved = [(f.mesh.verts - mesh.verts).norm().item() for f in found]
    assert moved[0] > moved[1] > moved[2]
    best = found[0]
    seen_by_camera = best.pose.camera((100, 100)).project(best.mesh.verts)[..., :2]
    assert torch.allclose(seen_by_camera, best.predicted)


def test_another_pose_of_a_real_cat():
    data = os.environ.get("GEOFRAME_DATA")
    if not data:
        pytest.skip("needs GEOFRAME_DATA")
    start = geoframe.load(Path(data) / "animals/cat_lion/cat-00.off").to(F64)
    other = geoframe.load(Path(data) / "animals/poses/cat-03.off").to(F64)
    assert isinstance(start, Mesh) and isinstance(other, Mesh)
    R = view()
    truth = 300 * other.verts / other.area.sqrt() @ R[:2].T + 128
    seen = other.vertex_normals @ R[2] < 0
    ids = farthest_points(start, 80)
    noise = torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    fit = fit_points(start, truth[ids] + noise, seen[ids].to(F64), vertices=ids)
    assert rotation_angle(fit.pose.R, R) < 0.1
    before = (fit.rigid.project(start.verts) - truth).norm(dim=1)
    after = (fit.pose.project(fit.mesh.verts) - truth).norm(dim=1)
    assert fit.pose.residual < 3 < 15 < fit.rigid.residual  # pixels, of an image of the cat 360 wide
    assert after[seen].mean() < 0.4 * before[seen].mean()
    assert after[~seen].mean() < 0.5 * before[~seen].mean()


def test_bad_input():
    mesh = shapes.icosphere(1)
    with pytest.raises(
        ValueError, match=r"points2d: expected 42 points \(one a vertex\), found 5; pass vertices"
    ):
        fit_points(mesh, torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"vertices: expected indices in \[0, 41\]"):
        fit_points(mesh, torch.rand(5, 2), vertices=torch.arange(5) * 20)
    with pytest.raises(ValueError, match="stiffness: expected a positive"):
        fit_points(mesh, torch.rand(42, 2), stiffness=0.0)
