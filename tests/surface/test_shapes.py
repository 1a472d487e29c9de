"""Procedural shapes: closed forms of area and volume, watertight and outward, second-order convergence."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from geoframe.surface import Mesh, health
from geoframe.surface.shapes import (
    box,
    capsule,
    cylinder,
    ellipsoid,
    grid,
    icosahedron,
    icosphere,
    tetrahedron,
    torus,
    uv_sphere,
)

pi = math.pi
# shape at resolution n, area, volume, genus
CURVED = {
    "icosphere": (lambda n: icosphere(n, 2.0), 16 * pi, 32 / 3 * pi, 0),
    "uv_sphere": (lambda n: uv_sphere(2 ** (n + 2), 2 ** (n + 1)), 4 * pi, 4 / 3 * pi, 0),
    "ellipsoid": (lambda n: ellipsoid((1.0, 1.0, 3.0), n), None, 4 * pi, 0),
    "capsule": (lambda n: capsule(0.5, 2.0, n_around=2 ** (n + 2), n_rings=2**n), 3 * pi, 2 / 3 * pi, 0),
    "cylinder": (lambda n: cylinder(0.5, 2.0, n_around=2 ** (n + 2)), 2.5 * pi, pi / 2, 0),
    "torus": (
        lambda n: torus(1.0, 0.4, n_around=2 ** (n + 2), n_tube=2 ** (n + 2)),
        1.6 * pi**2,
        0.32 * pi**2,
        1,
    ),
}
FLAT = {
    "tetrahedron": (tetrahedron(3**0.5), 8 * 3**0.5, 8 / 3, 0),
    "icosahedron": (icosahedron(math.sin(0.4 * pi)), 5 * 3**0.5, 5 / 12 * (3 + 5**0.5), 0),  # edge 1
    "box": (box((1.0, 2.0, 3.0), 5), 22.0, 6.0, 0),
}


def assert_sound(mesh: Mesh, genus: int) -> None:
    h = health(mesh)
    assert h.is_closed and h.is_manifold and h.n_components == 1 and h.genus == genus
    assert float(mesh.volume) > 0
    assert len(torch.unique(mesh.faces)) == mesh.n_verts == len(torch.unique(mesh.verts, dim=0))


@pytest.mark.parametrize("name", CURVED)
def test_curved_shapes_converge(name: str) -> None:
    """Twice as fine, a fourth of the error, in area and in volume."""
    make: Callable[[int], Mesh]
    make, area, volume, genus = CURVED[name]
    coarse, fine = make(3), make(4)
    for mesh in (coarse, fine):
        assert_sound(mesh, genus)
    for want, measure in ((area, lambda m: float(m.area)), (volume, lambda m: float(m.volume))):
        if want is not None:
            errors = [want - measure(m) for m in (coarse, fine)]
            assert 0 < errors[1] < 0.02 * want
            assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("name", FLAT)
def test_flat_shapes_are_exact(name: str) -> None:
    mesh, area, volume, genus = FLAT[name]
    assert_sound(mesh, genus)
    assert float(mesh.area) == pytest.approx(area)
    assert float(mesh.volume) == pytest.approx(volume)


def test_sizes() -> None:
    for level in range(4):
        assert icosphere(level).n_verts == 10 * 4**level + 2
    assert uv_sphere(10, 7).n_verts == 62
    assert box(n=3).n_verts == 56
    assert grid(3, 2).n_verts == 12
    torch.testing.assert_close(
        icosphere(2, 5.0).verts.norm(dim=1), torch.full((162,), 5.0, dtype=torch.float64)
    )


def test_open_shapes() -> None:
    sheet = grid(4, 3, (2.0, 5.0))
    assert float(sheet.area) == pytest.approx(10)
    torch.testing.assert_close(
        sheet.face_normals_scaled[:, 2].sign(), torch.ones(sheet.n_faces, dtype=torch.float64)
    )
    assert health(sheet).boundary_loops == (14,)
    tube = cylinder(caps=False, n_along=3, n_around=64)
    assert health(tube).boundary_loops == (64, 64)
    centres = tube.verts[tube.faces].mean(1) * torch.tensor([1.0, 1.0, 0.0])
    assert bool(((centres * tube.face_normals_scaled).sum(1) > 0).all())  # outward


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: icosphere(-1), "level: expected an integer from 0"),
        (lambda: uv_sphere(2, 5), "n_around: expected an integer at least 3"),
        (lambda: uv_sphere(5, 1), "n_rings: expected an integer at least 2"),
        (lambda: grid(0, 5), "nx: expected"),
        (lambda: box(n=0), "n: expected"),
        (lambda: torus(n_tube=2), "n_tube: expected"),
        (lambda: cylinder(n_cap=0), "n_cap: expected"),
        (lambda: capsule(n_rings=0), "n_rings: expected"),
    ],
)
def test_bad_sizes(make: Callable[[], Mesh], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
