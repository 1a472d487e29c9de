"""Mirror planes: exact symmetric shapes in any place, noise, other triangulations, shapes without symmetry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

import geoframe
from geoframe.surface import Mesh, load, reflective_symmetry
from geoframe.surface.shapes import box, ellipsoid, icosphere, tetrahedron


def rotation(seed: int) -> Tensor:
    q = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )[0]
    return q * torch.linalg.det(q)


def pear(level: int = 3) -> Mesh:
    """A smooth shape with exactly one mirror plane, x = 0, vertices symmetric."""
    v = ellipsoid((1.0, 0.8, 0.6), level).verts
    x, y, z = v.unbind(1)
    bent = torch.stack(
        [x * (1 + 0.3 * y), y + 0.3 * z**2 + 0.2 * x**2 * z, z + 0.25 * y**2 - 0.2 * y * z], dim=1
    )
    return icosphere(level).with_verts(bent)


def angle(n: Tensor, m: Tensor) -> float:
    """Degrees between two planes."""
    return float(torch.rad2deg(torch.linalg.cross(n, m).norm().clamp(max=1).asin()))


@pytest.mark.parametrize("seed", [0, 1])
def test_exact_symmetry_in_any_place(seed: int) -> None:
    shape, R, t = pear(), rotation(seed), torch.tensor([3.0, -20.0, 7.0], dtype=torch.float64)
    s = reflective_symmetry(shape.with_verts(7 * shape.verts @ R.T + t))
    assert angle(s.normal, R[:, 0]) < 1e-6
    assert float(s.offset) == pytest.approx(float(s.normal @ t), abs=1e-6)
    assert s.residual < 1e-8
    image = shape.verts * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert torch.equal(s.vertex_map, torch.cdist(image, shape.verts).argmin(1))
    assert torch.equal(s.vertex_map[s.vertex_map], torch.arange(shape.n_verts))


def test_reflect_is_an_involution_that_fixes_the_plane() -> None:
    shape = ellipsoid((1.0, 0.6, 0.3), 2).to(torch.float32)
    s = reflective_symmetry(shape)
    assert s.normal.dtype == s.offset.dtype == torch.float32
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    y = s.reflect(x)
    torch.testing.assert_close(s.reflect(y), x)
    torch.testing.assert_close((x + y) / 2 @ s.normal, s.offset.expand(5, 2), atol=1e-6, rtol=0)
    assert bool(((y - x).norm(dim=-1) > 1e-3).any())
    assert float(s.normal[s.normal.abs().argmax()]) > 0


def test_noise_and_uneven_triangulation() -> None:
    """Noise of 1 % moves the plane by less than 1 degree; a finer half does not pull it over."""
    g = torch.Generator().manual_seed(0)
    shape = pear()
    noisy = shape.verts + 0.01 * torch.randn(shape.verts.shape, generator=g, dtype=torch.float64)
    s = reflective_symmetry(shape.with_verts(noisy @ rotation(3).T))
    assert angle(s.normal, rotation(3)[:, 0]) < 1
    assert 1e-4 < s.residual < 0.01
    fine = shape.faces[shape.verts[shape.faces].mean(1)[:, 0] > 0]
    centres = shape.n_verts + torch.arange(len(fine))
    a, b, c = fine.T
    split = torch.cat([torch.stack(t, 1) for t in ((a, b, centres), (b, c, centres), (c, a, centres))])
    coarse = shape.faces[shape.verts[shape.faces].mean(1)[:, 0] <= 0]
    uneven = Mesh(torch.cat([shape.verts, shape.verts[fine].mean(1)]), torch.cat([coarse, split]))
    s = reflective_symmetry(uneven)
    assert angle(s.normal, torch.tensor([1.0, 0, 0], dtype=torch.float64)) < 0.5
    assert s.residual < 0.001


def test_no_symmetry_is_told_by_the_residual() -> None:
    corners = torch.tensor([[0, 0, 0], [4, 0, 0], [0, 3, 0], [1, 0, 1.5]], dtype=torch.float64)
    assert reflective_symmetry(tetrahedron().with_verts(corners)).residual > 0.01


@pytest.mark.parametrize("mesh", [icosphere(2), box(n=3)], ids=["sphere", "cube"])
def test_ambiguous_shapes_give_one_of_their_planes(mesh: Mesh) -> None:
    s = reflective_symmetry(mesh)
    assert s.residual < 0.003
    assert float(s.normal.norm()) == pytest.approx(1)
    assert float(s.offset) == pytest.approx(0, abs=0.01)
    assert int(s.vertex_map.min()) >= 0 and int(s.vertex_map.max()) < mesh.n_verts
    assert torch.equal(reflective_symmetry(mesh).normal, s.normal)  # the same every time


def test_template_in_motion_maps_left_to_right() -> None:
    mesh, names = geoframe.template("giraffe"), geoframe.template_landmarks("giraffe")
    s = reflective_symmetry(mesh)
    assert angle(s.normal, torch.tensor([0.0, 0, 1], dtype=torch.float64)) < 1
    for name in ("ear", "shoulder", "hip"):
        place = mesh.verts[s.vertex_map[names[f"left_{name}"]]]
        assert float((place - mesh.verts[names[f"right_{name}"]]).norm()) < 0.08


@pytest.mark.skipif("GEOFRAME_DATA" not in os.environ, reason="GEOFRAME_DATA is not set: no real data")
@pytest.mark.parametrize(("name", "most"), [("spot_low_resolution", 0.002), ("human_man", 0.004)])
def test_real_objects(name: str, most: float) -> None:
    """Modelled along x = 0 and triangulated freely."""
    mesh = load(Path(os.environ["GEOFRAME_DATA"]) / "objects" / f"{name}.obj")
    assert isinstance(mesh, Mesh)
    s = reflective_symmetry(mesh.with_verts(mesh.verts @ rotation(5).T))
    assert angle(s.normal, rotation(5)[:, 0]) < 0.5
    assert s.residual < most


def test_bad_input() -> None:
    mesh = icosphere(1)
    with pytest.raises(ValueError, match="verts: expected shape"):
        reflective_symmetry(mesh.with_verts(mesh.verts[None]))
    with pytest.raises(ValueError, match="expected faces"):
        reflective_symmetry(Mesh(mesh.verts, mesh.faces[:0]))
    with pytest.raises(ValueError, match="expected finite"):
        reflective_symmetry(mesh.with_verts(mesh.verts / 0))
