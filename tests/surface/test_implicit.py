"""Surfaces of implicit functions: closed forms, exact vertices, topology, triangle shape, limbs against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geoframe.surface import Mesh, health
from geoframe.surface.implicit import Limb, body, girth, implicit_surface, smooth_minimum


def sphere(x: Tensor) -> Tensor:
    return x.norm(dim=1) - 1


def torus(x: Tensor) -> Tensor:
    return ((x[:, :2].norm(dim=1) - 1) ** 2 + x[:, 2] ** 2).sqrt() - 0.3


def cube(half: float) -> tuple[Tensor, Tensor]:
    return torch.full((3,), -half).double(), torch.full((3,), half).double()


def smallest_angles(mesh: Mesh) -> np.ndarray:
    """(F,) degrees."""
    v = mesh.verts.numpy()[mesh.faces.numpy()]
    e = np.roll(v, -1, axis=1) - v
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    return np.degrees(np.arccos(-(e * np.roll(e, 1, axis=1)).sum(-1).clip(-1, 1))).min(1)


@pytest.mark.parametrize(
    ("field", "half", "area", "volume", "genus"),
    [(sphere, 1.2, 4 * math.pi, 4 / 3 * math.pi, 0), (torus, 1.5, 1.2 * math.pi**2, 0.18 * math.pi**2, 1)],
)
def test_closed_forms(field: object, half: float, area: float, volume: float, genus: int) -> None:
    mesh = implicit_surface(field, *cube(half), 800, seed=3)  # type: ignore[arg-type]
    h = health(mesh)
    assert mesh.n_verts == 800
    assert h.is_closed and h.is_manifold and h.facing == "outward" and h.genus == genus and not h.problems
    assert float(mesh.area) == pytest.approx(area, rel=0.02)
    assert float(mesh.volume) == pytest.approx(volume, rel=0.03)
    assert float(field(mesh.verts).abs().max()) < 1e-5  # type: ignore[operator]
    angles = smallest_angles(mesh)
    assert angles.min() > 20 and np.median(angles) > 45


def test_size_makes_one_side_finer() -> None:
    mesh = implicit_surface(sphere, *cube(1.2), 600, size=lambda x: torch.where(x[:, 0] > 0, 0.5, 1.0))
    right, left = (int((s * mesh.verts[:, 0] > 0.1).sum()) for s in (1, -1))
    assert 2.5 < right / left < 6  # four times as many triangles for edges half as long
    assert health(mesh).is_manifold


def test_seed_decides_the_triangulation() -> None:
    a, b, c = (implicit_surface(sphere, *cube(1.2), 200, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.verts, b.verts) and torch.equal(a.faces, b.faces)
    assert not torch.equal(a.faces, c.faces)
    assert float(torch.cdist(a.verts, c.verts).min(1).values.median()) > 0.01


def test_limb_and_body_against_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    joints = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 2, 0]], dtype=torch.float64)
    limb = Limb(joints, torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64))
    points = 3 * torch.rand(50, 3, generator=g, dtype=torch.float64) - 1
    bones = []
    for i in range(2):
        steps = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
        axis = joints[i] + steps * (joints[i + 1] - joints[i])
        radius = limb.radii[i] + steps[:, 0] * (limb.radii[i + 1] - limb.radii[i])
        d = torch.cdist(points, axis)
        nearest = d.argmin(1)
        bones.append(d.gather(1, nearest[:, None])[:, 0] - radius[nearest])
    want = smooth_minimum(bones[0], bones[1], 0.1)  # half the radius of the joint between
    torch.testing.assert_close(limb.distance(points), want, atol=1e-5, rtol=0)
    torch.testing.assert_close(body([limb])(points), limb.distance(points))
    far = Limb(joints + 1, limb.radii)
    both = torch.minimum(limb.distance(points), far.distance(points))
    torch.testing.assert_close(body([limb, far])(points), both)
    on_axis = torch.tensor([[0.5, 0, 0], [1, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(girth([limb])(on_axis), torch.tensor([0.25, 0.15], dtype=torch.float64))


def test_stretch_flattens() -> None:
    joints = torch.tensor([[-1, 0, 0], [1, 0, 0]], dtype=torch.float64)
    limb = Limb(joints, torch.tensor([0.4, 0.4], dtype=torch.float64), stretch=(1, 1, 0.5))
    on = torch.tensor([[0, 0.4, 0], [0, 0, 0.2], [0, 0, -0.2]], dtype=torch.float64)
    torch.testing.assert_close(limb.distance(on), torch.zeros(3, dtype=torch.float64))


def test_smooth_minimum() -> None:
    a = torch.linspace(-1, 1, 201, dtype=torch.float64).requires_grad_()
    b = torch.zeros_like(a)
    m = smooth_minimum(a, b, 0.5)
    assert bool((m <= torch.minimum(a, b)).all())
    assert torch.equal(m[a.abs() > 0.5], torch.minimum(a, b)[a.abs() > 0.5])
    assert float(m[100].detach()) == pytest.approx(-0.125)  # a quarter of the width, where both are equal
    (slope,) = torch.autograd.grad(m.sum(), a)
    assert float(slope.diff().abs().max()) < 0.03  # no kink
    assert torch.equal(smooth_minimum(a, b, 0.0), torch.minimum(a, b))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="expected a zero level inside the box"):
        implicit_surface(lambda x: x.norm(dim=1) + 1, *cube(1), 100)
    with pytest.raises(ValueError, match="n_verts: expected an integer at least 20"):
        implicit_surface(sphere, *cube(1.2), 5)
    two, one = torch.zeros(2, 3).double(), torch.ones(1, 3).double()
    with pytest.raises(ValueError, match="joints: expected at least 2"):
        Limb(one, torch.ones(1))
    with pytest.raises(ValueError, match="radii: expected shape"):
        Limb(two, torch.ones(3))
    with pytest.raises(ValueError, match="radii, stretch: expected positive"):
        Limb(two, torch.tensor([1.0, 0.0]))
