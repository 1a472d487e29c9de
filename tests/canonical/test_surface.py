"""A surface computes each thing once, whoever asks, and its folder gives all of it back."""

from __future__ import annotations

import pytest
import torch

from geoframe import Mesh, eigenbasis
from geoframe.canonical import Surface
from geoframe.spectral import basis as spectral_basis
from geoframe.surface import geodesic_distances, geodesics, laplacian, operators, reflective_symmetry
from geoframe.surface.shapes import icosphere


def bumpy(n: int = 3) -> Mesh:
    ball = icosphere(n)
    x, y, z = ball.verts.T
    return ball.with_verts(torch.stack([1.7 * x + 0.3 * z * z, 0.8 * y, z + 0.2 * x * x], 1))


@pytest.fixture
def counted(monkeypatch) -> dict[str, int]:
    """How often the three expensive things were done."""
    count = dict.fromkeys(("assembly", "eigensolve", "factorisation"), 0)

    def counting(name, fn):
        def call(*args, **kwargs):
            count[name] += 1
            return fn(*args, **kwargs)

        return call

    monkeypatch.setattr(operators, "_laplacian_of_mesh", counting("assembly", operators._laplacian_of_mesh))
    monkeypatch.setattr(spectral_basis, "lowest_pairs", counting("eigensolve", spectral_basis.lowest_pairs))
    monkeypatch.setattr(geodesics, "HeatGeodesics", counting("factorisation", geodesics.HeatGeodesics))
    monkeypatch.setenv("GEOFRAME_CACHE", "off")
    return count


def test_everything_is_computed_once(counted) -> None:
    surface = Surface.of(bumpy())
    for _ in range(2):
        surface.basis(20), surface.basis(7), surface.distances([0, 5]), surface.distances(5)
        laplacian(surface), laplacian(surface, kind="cotangent"), eigenbasis(surface, 12)
        geodesic_distances(surface, [5, 0])
    assert counted == {"assembly": 1, "eigensolve": 1, "factorisation": 1}
    assert surface.symmetry is reflective_symmetry(surface)


def test_a_mesh_keeps_nothing(counted) -> None:
    mesh = bumpy()
    eigenbasis(mesh, 5), eigenbasis(mesh, 5)
    assert counted["eigensolve"] == 2


def test_what_is_kept_is_what_is_computed() -> None:
    mesh = bumpy()
    surface = Surface.of(mesh)
    surface.basis(30)
    few = eigenbasis(mesh, 11)
    torch.testing.assert_close(surface.basis(11).vals, few.vals, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(surface.basis(11).vecs, few.vecs, atol=1e-7, rtol=0)
    assert surface.basis(31).k == 31 and surface.k == 31  # a larger one replaces it
    rows = surface.distances([3, 8])
    torch.testing.assert_close(surface.distances([8, 3, 8]), rows[[1, 0, 1]], atol=0, rtol=0)
    torch.testing.assert_close(rows, geodesic_distances(mesh, [3, 8]), atol=0, rtol=0)


def test_another_pose_starts_anew() -> None:
    surface = Surface.of(bumpy(), {"tip": 4})
    before = surface.basis(6)
    larger = surface.with_verts(2 * surface.verts)
    assert isinstance(larger, Surface) and larger.landmarks == {"tip": 4} and larger.k == 0
    torch.testing.assert_close(larger.basis(6).vals, before.vals / 4)
    assert surface.to(torch.float32).basis(6).vecs.dtype == torch.float32
    assert Surface.of(surface) is surface
    named = Surface.of(surface, {"end": 9})
    assert named.landmarks == {"end": 9} and named.basis(6) is before


def test_a_folder_holds_what_was_computed(tmp_path, counted) -> None:
    surface = Surface.of(bumpy(), {"tip": 4, "end": 9})
    surface.save(tmp_path / "bare")
    assert Surface.load(tmp_path / "bare").k == 0
    vecs, row, plane = surface.basis(25).vecs, surface.distances([9]), surface.symmetry
    surface.save(tmp_path / "full", about={"made_from": "a test"})
    before = dict(counted)
    back = Surface.load(tmp_path / "full")
    assert torch.equal(back.basis(25).vecs, vecs) and torch.equal(back.distances([9]), row)
    assert torch.equal(back.symmetry.vertex_map, plane.vertex_map) and back.landmarks == surface.landmarks
    assert counted == before


def test_bad_surfaces_are_told(tmp_path) -> None:
    mesh = bumpy(1)
    with pytest.raises(TypeError, match="mesh: expected a Mesh, found int"):
        Surface.of(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"verts: expected one pose \(V, 3\), found \(2, 42, 3\)"):
        Surface.of(Mesh(mesh.verts.expand(2, -1, -1), mesh.faces))
    with pytest.raises(ValueError, match="landmarks: expected"):
        Surface.of(mesh, {"nose": 42})
    with pytest.raises(ValueError, match=r"surface\.obj"):
        Surface.load(tmp_path)
