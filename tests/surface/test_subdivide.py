"""Subdivision: counts, weights, what it keeps, and Loop's limit surface."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.surface import Mesh, subdivide
from geoframe.surface.shapes import box, grid, icosphere, torus

SURFACES = {
    "icosphere": icosphere(1),
    "torus": torus(n_around=9, n_tube=6),
    "box": box(n=2),
    "grid": grid(4, 3),
}
FAN = Mesh(  # three triangles around the edge 0 1, and a vertex without any
    torch.tensor([[0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 1, 0], [-1, -1, 0], [9, 9, 9]], dtype=torch.float64),
    torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]),
)


def _double(mesh: Mesh) -> Mesh:
    return mesh.to(torch.float64)


def _n_edges(faces: torch.Tensor) -> int:
    return len({frozenset(e) for a, b, c in faces.tolist() for e in ((a, b), (b, c), (c, a))})


def _inside(verts: torch.Tensor, margin: float) -> torch.Tensor:
    """Which vertices of a grid lie further than `margin` from its rim."""
    low, high = verts[:, :2].min(0).values, verts[:, :2].max(0).values
    return ((verts[:, :2] > low + margin) & (verts[:, :2] < high - margin)).all(1)


@pytest.mark.parametrize("scheme", ["midpoint", "loop"])
@pytest.mark.parametrize("name", SURFACES)
def test_counts_and_weights(name, scheme):
    mesh = _double(SURFACES[name])
    fine, P = subdivide(mesh, scheme=scheme)
    assert fine.n_verts == mesh.n_verts + _n_edges(mesh.faces)
    assert fine.n_faces == 4 * mesh.n_faces
    assert P.shape == (fine.n_verts, mesh.n_verts) and P.dtype == np.float64
    np.testing.assert_allclose(P.sum(1), 1, atol=1e-14)
    assert P.data.min() > 0
    np.testing.assert_allclose(P @ mesh.verts.numpy(), fine.verts, atol=1e-14)


@pytest.mark.parametrize("name", SURFACES)
def test_midpoint_keeps_the_surface(name):
    mesh = _double(SURFACES[name])
    fine, _ = subdivide(mesh, 2)
    torch.testing.assert_close(fine.area, mesh.area)
    torch.testing.assert_close(fine.volume, mesh.volume)
    torch.testing.assert_close(fine.verts[: mesh.n_verts], mesh.verts)
    # children of face f are 4 f to 4 f + 3, so on a flat triangle they share its normal and quarter its area
    children = subdivide(mesh)[0].face_normals_scaled.reshape(-1, 4, 3)
    torch.testing.assert_close(4 * children, mesh.face_normals_scaled[:, None].expand(-1, 4, -1))


def test_midpoint_is_exact_for_linear_functions():
    mesh = _double(SURFACES["torus"])
    fine, P = subdivide(mesh, 2)
    u = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(P @ (mesh.verts.numpy() @ u + 3), fine.verts.numpy() @ u + 3, atol=1e-13)


def test_loop_reproduces_linear_functions_in_a_regular_lattice():
    mesh = _double(grid(8, 8))
    _, P = subdivide(mesh, scheme="loop")
    fine, _ = subdivide(mesh)  # the same numbering, vertices in their plain places
    inside = _inside(fine.verts, 0.15).numpy()
    assert inside.sum() > 50
    np.testing.assert_allclose((P @ mesh.verts.numpy())[inside], fine.verts.numpy()[inside], atol=1e-14)


def _loop_by_hand(mesh: Mesh) -> torch.Tensor:
    """Loop's rules vertex by vertex, for manifold meshes; the edges in lexicographic order."""
    v, across, around = mesh.verts, {}, [set() for _ in range(mesh.n_verts)]
    for a, b, c in mesh.faces.tolist():
        for i, j, k in ((a, b, c), (b, c, a), (c, a, b)):
            across.setdefault((min(i, j), max(i, j)), []).append(k)
            around[i] |= {j, k}
    new = []
    for i, ring in enumerate(around):
        rim = [j for j in ring if len(across[min(i, j), max(i, j)]) == 1]
        n = len(ring)
        if rim:
            new.append(0.75 * v[i] + 0.125 * v[rim].sum(0))
        else:
            beta = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / n) / 4) ** 2) / n
            new.append((1 - n * beta) * v[i] + beta * v[list(ring)].sum(0))
    for (i, j), k in sorted(across.items()):
        ends, wings = v[i] + v[j], v[k].sum(0)
        new.append(ends / 2 if len(k) == 1 else 3 / 8 * ends + wings / 8)
    return torch.stack(new)


@pytest.mark.parametrize("name", SURFACES)
def test_loop_matches_the_rules_by_hand(name):
    mesh = _double(SURFACES[name])
    torch.testing.assert_close(subdivide(mesh, scheme="loop")[0].verts, _loop_by_hand(mesh))


def test_loop_smooths_an_icosahedron_towards_a_sphere():
    def roundness(mesh: Mesh) -> float:
        r = mesh.verts.norm(dim=1)
        return float(r.std() / r.mean())

    def dihedral(mesh: Mesh) -> float:
        n = torch.nn.functional.normalize(mesh.face_normals_scaled, dim=1)
        centre = mesh.verts[mesh.faces].mean(1)
        return float((1 - (n * torch.nn.functional.normalize(centre, dim=1)).sum(1)).max())

    coarse = _double(icosphere(0))
    flat, smooth = subdivide(coarse, 4)[0], subdivide(coarse, 4, scheme="loop")[0]
    assert roundness(smooth) < 0.01 < 0.04 < roundness(flat)
    assert dihedral(smooth) < 0.003 < 0.1 < dihedral(flat)


def test_loop_boundary_depends_on_the_boundary_only():
    mesh = _double(grid(4, 4))
    lift = _inside(mesh.verts, 1e-6)[:, None] * torch.tensor([0, 0, 1.0], dtype=torch.float64)
    fine = subdivide(mesh.with_verts(mesh.verts + lift), 2, scheme="loop")[0]
    rim = ~_inside(subdivide(mesh, 2)[0].verts, 1e-6)
    assert rim.sum() == 4 * 16
    assert fine.verts[rim, 2].abs().max() == 0
    assert fine.verts[:, 2].max() > 0.5


def test_loop_holds_creases_where_three_sheets_meet():
    fine, P = subdivide(FAN, scheme="loop")
    assert fine.n_faces == 12
    torch.testing.assert_close(fine.verts[5], FAN.verts[5])  # the vertex without triangles
    torch.testing.assert_close(fine.verts[:2], FAN.verts[:2])  # four creases meet there: corners
    middle = np.flatnonzero((P[:, [0, 1]].toarray() == 0.5).all(1))
    assert len(middle) == 1


def test_colours_texture_and_batches_come_along():
    mesh = _double(grid(3, 2))
    xy = mesh.verts[:, :2] / mesh.verts[:, :2].max(0).values
    colours = torch.cat([xy, xy[:, :1]], 1)
    poses = torch.stack([mesh.verts, 2 * mesh.verts + 1])
    full = Mesh(poses, mesh.faces, colours, xy)
    fine, _ = subdivide(full, 2)
    assert fine.verts.shape == (2, fine.n_verts, 3)
    torch.testing.assert_close(fine.verts[1], 2 * fine.verts[0] + 1)
    scale = mesh.verts[:, :2].max(0).values
    torch.testing.assert_close(fine.colors[:, :2], fine.verts[0, :, :2] / scale)
    torch.testing.assert_close(fine.uv, fine.colors[:, :2])
    assert fine.uv_faces is None

    cut = Mesh(
        mesh.verts,
        mesh.faces,
        None,
        xy[mesh.faces].reshape(-1, 2),
        torch.arange(mesh.faces.numel()).reshape(-1, 3),
    )
    fine, _ = subdivide(cut, 2)
    torch.testing.assert_close(fine.uv[fine.uv_faces], (fine.verts[:, :2] / scale)[fine.faces])
    squeezed = Mesh(mesh.verts, mesh.faces, None, xy, torch.zeros_like(mesh.faces))
    assert (subdivide(squeezed)[0].uv[subdivide(squeezed)[0].uv_faces] == xy[0]).all()


def test_dtype_and_gradient_follow_the_vertices():
    v = icosphere(0).verts.float().requires_grad_()
    fine, P = subdivide(Mesh(v, icosphere(0).faces), scheme="loop")
    assert fine.dtype == torch.float32
    fine.verts.sum().backward()
    np.testing.assert_allclose(v.grad[:, 0], np.asarray(P.sum(0)).ravel(), rtol=1e-6)


def test_no_step_changes_nothing():
    mesh = icosphere(1)
    same, P = subdivide(mesh, 0)
    assert torch.equal(same.verts, mesh.verts) and torch.equal(same.faces, mesh.faces)
    np.testing.assert_array_equal(P.toarray(), np.eye(mesh.n_verts))


def test_bad_input():
    mesh = icosphere(0)
    with pytest.raises(ValueError, match="scheme: expected one of 'midpoint', 'loop'"):
        subdivide(mesh, scheme="butterfly")
    with pytest.raises(ValueError, match="n: expected an integer at least 0, found -1"):
        subdivide(mesh, -1)
    bad = Mesh(mesh.verts, torch.tensor([[0, 1, 2], [3, 3, 4]]))
    with pytest.raises(
        ValueError, match=r"three different corners each, found \[3, 3, 4\] at face 1; repair"
    ):
        subdivide(bad)
