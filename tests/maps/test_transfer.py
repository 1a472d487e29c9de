"""Transfer of functions, labels, landmarks, embeddings and texture coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoframe.maps import (
    BarycentricMap,
    p2p_to_fmap,
    transfer_functions,
    transfer_labels,
    transfer_landmarks,
    transfer_spectral,
    transfer_uv,
)
from geoframe.spectral import eigenbasis
from geoframe.surface import Mesh
from geoframe.surface.shapes import ellipsoid, grid


@pytest.fixture(scope="module")
def pair():
    mesh1, mesh2 = ellipsoid((1.0, 0.7, 0.5), level=2), ellipsoid((1.0, 0.8, 0.5), level=1)
    return mesh1, mesh2, torch.arange(42)


def _barycentric(mesh1: Mesh, points: torch.Tensor) -> BarycentricMap:
    """Map of points in the plane to the flat mesh1 below them, by trying all triangles."""
    face, weights = [], []
    corners = mesh1.verts[mesh1.faces][..., :2].numpy()
    for p in points[:, :2].numpy():
        for n, (a, b, c) in enumerate(corners):
            s, t = np.linalg.solve(np.stack([b - a, c - a], 1), p - a)
            if min(s, t, 1 - s - t) > -1e-9:
                face.append(n)
                weights.append([1 - s - t, s, t])
                break
    face = torch.tensor(face)
    weights = torch.tensor(weights, dtype=torch.float64).clamp(min=0)
    return BarycentricMap(face, weights, mesh1.faces[face], mesh1.n_verts)


def test_functions_follow_vertices(pair):
    mesh1, _, p2p_21 = pair
    assert torch.equal(transfer_functions(mesh1.verts, p2p_21), mesh1.verts[:42])
    flags = torch.arange(162) % 2 == 0
    assert torch.equal(transfer_functions(flags, p2p_21.int()), flags[:42])


def test_linear_functions_are_exact_between_vertices():
    coarse, fine = grid(3, 2), grid(10, 7)
    found = _barycentric(coarse, fine.verts)
    torch.testing.assert_close(transfer_functions(coarse.verts, found), fine.verts)


def test_spectral_transfer_is_the_product_of_its_parts(pair):
    mesh1, mesh2, p2p_21 = pair
    basis1, basis2 = eigenbasis(mesh1, 20), eigenbasis(mesh2, 14)
    C_12 = p2p_to_fmap(p2p_21, basis1.truncate(18), basis2.truncate(12))
    E = torch.randn(162, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    T = basis2.vecs[:, :12] @ C_12 @ basis1.vecs[:, :18].T @ torch.diag(basis1.mass)
    torch.testing.assert_close(transfer_spectral(E, C_12, basis1, basis2), T @ E)
    torch.testing.assert_close(transfer_spectral(E[:, 0], C_12, basis1, basis2), T @ E[:, 0])
    assert transfer_spectral(E.float(), C_12, basis1, basis2).dtype == torch.float32
    # constants stay constants, and smooth functions nearly what the vertex map makes of them
    ones = torch.ones(162, dtype=torch.float64)
    torch.testing.assert_close(transfer_spectral(ones, C_12, basis1, basis2), ones[:42])
    x = mesh1.verts[:, 0]
    assert float((transfer_spectral(x, C_12, basis1, basis2) - x[:42]).norm() / x[:42].norm()) < 0.1


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32, torch.bool])
def test_labels_are_never_averaged(dtype):
    corners = torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 3], [3, 2, 1]])
    weights = torch.tensor([[0.4, 0.3, 0.3], [0.2, 0.2, 0.6], [0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    found = BarycentricMap(torch.tensor([0, 0, 1, 1]), weights, corners, 4)
    labels = (
        torch.tensor([7, 5, 5, 2]).to(dtype)
        if dtype != torch.bool
        else torch.tensor([True, False, False, True])
    )
    out = transfer_labels(labels, found)
    assert out.dtype == dtype
    if dtype == torch.bool:
        assert out.tolist() == [False, False, False, False]
    else:  # 0.6 of label 5; 0.8 of 5; 0.75 of 5; only 5
        assert out.tolist() == [5, 5, 5, 5]
    assert transfer_labels(labels, torch.tensor([0, 3, 3])).tolist() == labels[[0, 3, 3]].tolist()


def test_labels_agree_with_a_count():
    g = torch.Generator().manual_seed(1)
    corners = torch.randint(30, (200, 3), generator=g)
    weights = torch.rand(200, 3, generator=g)
    weights /= weights.sum(1, keepdim=True)
    weights[:50] = 1 / 3  # ties go to the smallest label
    labels = torch.randint(-4, 4, (30,), generator=g)
    found = transfer_labels(labels, BarycentricMap(torch.zeros(200).long(), weights, corners, 30))
    for c, w, label in zip(corners.tolist(), weights.tolist(), found.tolist(), strict=True):
        count: dict[int, float] = {}
        for v, x in zip(c, w, strict=True):
            count[int(labels[v])] = count.get(int(labels[v]), 0.0) + x
        most = max(count.values())
        assert label == min(k for k, x in count.items() if x > most - 1e-5)


def test_landmarks_go_against_the_arrow(pair):
    mesh1, mesh2, p2p_21 = pair
    # vertex 7 of 1 has one vertex of 2; 100 has none: nearest image; 20 has three: the middle one of them
    p2p_21 = p2p_21.clone()
    around = mesh2.faces[(mesh2.faces == 20).any(1)].unique()
    p2p_21[around] = 20
    found = transfer_landmarks(torch.tensor([7, 100, 20]), p2p_21, mesh1, mesh2)
    assert 7 not in around and int(found[0]) == 7
    images = mesh1.verts[p2p_21]
    gap = (images - mesh1.verts[100]).norm(dim=1)
    assert float(gap[found[1]]) == float(gap.min()) > 0
    assert int(found[2]) == 20
    # the pair of directions: landmarks of 2 come back where images are not shared
    assert int(p2p_21[found[0]]) == 7


def test_landmarks_of_a_permutation():
    mesh = ellipsoid(level=1)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(2))
    moved = mesh.with_verts(mesh.verts[order])
    landmarks = torch.tensor([3, 30, 12])
    assert torch.equal(order[transfer_landmarks(landmarks, order, mesh, moved)], landmarks)


def _corner_uv(mesh: Mesh) -> torch.Tensor:
    return mesh.uv[mesh.faces if mesh.uv_faces is None else mesh.uv_faces]


def _textured_grid(n: int) -> Mesh:
    mesh = grid(n, n)
    return replace(mesh, uv=mesh.verts[:, :2] + 0.5)


def _cut_in_two(mesh: Mesh) -> Mesh:
    """Left and right half as two charts, far apart in the texture."""
    right = mesh.verts[mesh.faces].mean(1)[:, 0] > 0
    uv = mesh.verts[:, :2] * 0.5
    both = torch.cat([uv, uv + 10])
    return replace(mesh, uv=both, uv_faces=mesh.faces + mesh.n_verts * right[:, None])


def test_texture_without_seams():
    coarse, fine = _textured_grid(4), grid(11, 9)
    nearest = torch.cdist(fine.verts, coarse.verts).argmin(1)
    out = transfer_uv(coarse, fine, nearest)
    assert torch.equal(_corner_uv(out), coarse.uv[nearest][fine.faces])
    out = transfer_uv(coarse, fine, _barycentric(coarse, fine.verts))
    torch.testing.assert_close(_corner_uv(out), (fine.verts[:, :2] + 0.5)[fine.faces])
    assert len(out.uv) <= 3 * fine.n_verts and torch.equal(out.verts, fine.verts)


def test_texture_across_the_seam_of_two_charts():
    """Each triangle lies in one chart, that of its side; a flat texture continues exactly."""
    coarse, fine = _cut_in_two(grid(4, 4)), grid(11, 9)  # 11 columns: triangles straddle x = 0
    out = transfer_uv(coarse, fine, _barycentric(coarse, fine.verts))
    uv = _corner_uv(out)
    chart = uv.mean(1)[:, 0] > 5
    place = fine.verts[fine.faces][..., :2] * 0.5
    torch.testing.assert_close(uv, place + 10.0 * chart[:, None, None])
    x = fine.verts[fine.faces][..., 0]
    assert chart[(x > 1e-6).all(1)].all() and not chart[(x < -1e-6).all(1)].any()
    assert ((x > 1e-6).any(1) & (x < -1e-6).any(1)).any()
    # by vertices: those on the seam have two coordinates and take the one of their triangle's side
    same = transfer_uv(_cut_in_two(grid(4, 4)), grid(4, 4), torch.arange(25))
    torch.testing.assert_close(_corner_uv(same), _corner_uv(_cut_in_two(grid(4, 4))))


def test_texture_around_a_cylinder_with_one_cut():
    """One chart that meets itself: no triangle runs back across the whole texture."""
    n, rings = 24, 5

    def tube(n: int) -> Mesh:
        t = torch.arange(n).double() / n * 2 * torch.pi
        ring = torch.stack([t.cos(), t.sin()], 1)
        verts = torch.cat([torch.cat([ring, torch.full((n, 1), z * 0.4).double()], 1) for z in range(rings)])
        faces = []
        for z in range(rings - 1):
            for i in range(n):
                a, b = z * n + i, z * n + (i + 1) % n
                faces += [[a, b, b + n], [a, b + n, a + n]]
        return Mesh(verts, torch.tensor(faces))

    source = tube(n)
    angle = torch.tensor([[(v % n) / n for v in f] for f in source.faces.tolist()])
    angle = torch.where(
        (angle.max(1).values - angle.min(1).values > 0.5)[:, None] & (angle < 0.5), angle + 1, angle
    )
    uv = torch.stack([angle, source.verts[source.faces][..., 2]], -1).double()
    unique, index = torch.unique(uv.reshape(-1, 2), dim=0, return_inverse=True)
    source = replace(source, uv=unique, uv_faces=index.reshape(-1, 3))
    target = tube(17)
    out = _corner_uv(transfer_uv(source, target, torch.cdist(target.verts, source.verts).argmin(1)))
    width = out[..., 0].max(1).values - out[..., 0].min(1).values
    assert float(width.max()) < 2.5 / 17
    assert float(width.min()) > 0.5 / 17  # none collapsed either


def test_bad_input(pair):
    mesh1, mesh2, p2p_21 = pair
    found = BarycentricMap(torch.zeros(42).long(), torch.ones(42, 3) / 3, mesh1.faces[:42], 162)
    basis1, basis2 = eigenbasis(mesh1, 6), eigenbasis(mesh2, 6)
    textured = replace(mesh1, uv=mesh1.verts[:, :2])
    for call, error, match in (
        (
            lambda: transfer_functions(mesh2.verts, p2p_21 + 1),
            ValueError,
            r"p2p_21: expected indices in \[0, 41\]",
        ),
        (
            lambda: transfer_functions(None, p2p_21),
            TypeError,
            "f1: expected a tensor, a NumPy array or a list",
        ),
        (lambda: transfer_functions(1.0, p2p_21), ValueError, "f1: expected a row a vertex of surface 1"),
        (
            lambda: transfer_spectral(torch.zeros(42), torch.eye(6), basis1, basis2),
            ValueError,
            "f1: expected 162",
        ),
        (lambda: transfer_spectral(torch.zeros(162), torch.eye(7), basis1, basis2), ValueError, "C_12"),
        (
            lambda: transfer_labels(mesh1.verts[:, 0], p2p_21),
            TypeError,
            "labels1: expected integers or booleans",
        ),
        (lambda: transfer_labels(p2p_21, found), ValueError, "labels1: expected 162 entries"),
        (lambda: transfer_landmarks(torch.tensor([162]), p2p_21, mesh1, mesh2), ValueError, "landmarks1"),
        (
            lambda: transfer_landmarks(p2p_21[:2], p2p_21[:9], mesh1, mesh2),
            ValueError,
            "p2p_21: expected shape",
        ),
        (lambda: transfer_uv(mesh1, mesh2, p2p_21), ValueError, "mesh1: expected texture coordinates"),
        (lambda: transfer_uv(textured, mesh1, p2p_21), ValueError, "p2p_21: expected shape"),
        (lambda: transfer_uv(textured, mesh1, found), ValueError, "map_21: expected a map"),
    ):
        with pytest.raises(error, match=match):
            call()
