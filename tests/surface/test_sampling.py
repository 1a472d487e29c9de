"""Farthest points, k nearest and uniform surface samples against loops, pytorch3d's values and statistics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoframe.surface import Mesh, PointCloud, farthest_points, knn, sample_surface


def triangle_pair() -> Mesh:
    """Two triangles of areas 3 and 1, and one without area between them."""
    verts = torch.tensor(
        [[0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 5], [1, 0, 5], [0, 2, 5]], dtype=torch.float64
    )
    return Mesh(verts, torch.tensor([[0, 1, 2], [1, 1, 4], [3, 4, 5]]))


def naive_farthest(x: Tensor, n: int, start: int) -> list[int]:
    chosen = [start]
    while len(chosen) < n:
        best, best_distance = -1, -1.0
        for i in range(len(x)):
            distance = min(float(((x[i] - x[j]) ** 2).sum()) for j in chosen)
            if i not in chosen and distance > best_distance:
                best, best_distance = i, distance
        chosen.append(best)
    return chosen


def test_farthest_points_are_those_of_pytorch3d() -> None:
    """sample_farthest_points of pytorch3d 0.7.9 on seeded points."""
    x = torch.rand(2, 300, 3, generator=torch.Generator().manual_seed(5))
    assert farthest_points(x, 16)[0].tolist() == [
        *(0, 121, 70, 156, 280, 108, 132, 201, 168, 3, 126, 100, 213, 143, 102, 170)
    ]


@pytest.mark.parametrize("start", [0, 11])
@pytest.mark.parametrize("D", [1, 3, 6])
def test_farthest_points_equal_the_loop(start: int, D: int) -> None:
    g = torch.Generator().manual_seed(D)
    x = torch.randint(0, 4, (2, 1, 20, D), generator=g).double()  # many ties and repeated points
    got = farthest_points(x, 20, start=start)
    assert got.shape == (2, 1, 20)
    for b in range(2):
        assert got[b, 0].tolist() == naive_farthest(x[b, 0], 20, start)


def test_farthest_points_of_surfaces() -> None:
    mesh = triangle_pair()
    want = farthest_points(mesh.verts, 3)
    assert torch.equal(farthest_points(mesh, 3), want)
    assert torch.equal(farthest_points(PointCloud(mesh.verts), 3), want)


@pytest.mark.parametrize(
    ("n", "start", "match"),
    [
        (0, 0, "n: expected an integer from 1 to 4"),
        (5, 0, "n: expected"),
        (1, 4, "start: expected"),
        (1, -1, "start"),
    ],
)
def test_farthest_points_bad_input(n: int, start: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        farthest_points(torch.zeros(4, 3), n, start=start)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_knn_equals_sorting(batch: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    query, points = torch.randn(*batch, 7, 3, generator=g), torch.randn(*batch, 30, 3, generator=g)
    index, distance = knn(query, points, 4)
    d = (query[..., :, None, :] - points[..., None, :, :]).norm(dim=-1)
    want, order = d.sort(dim=-1)
    assert torch.equal(index, order[..., :4])
    torch.testing.assert_close(distance, want[..., :4])


def test_knn_broadcasts_and_keeps_the_axis() -> None:
    query, points = torch.randn(5, 3), torch.randn(2, 9, 3)
    index, _ = knn(query, points, 1)
    assert index.shape == (2, 5, 1)
    assert knn(query, points[0], 1)[0].shape == (5, 1)
    assert torch.equal(index[1], knn(query, points[1], 1)[0])
    with pytest.raises(ValueError, match="leading dimensions"):
        knn(torch.zeros(3, 5, 3), points, 1)
    with pytest.raises(ValueError, match="points: expected shape"):
        knn(query, torch.zeros(4, 2), 1)


def test_samples_lie_on_their_faces_and_fill_the_area() -> None:
    mesh, n = triangle_pair(), 40_000
    s = sample_surface(mesh, n, generator=0)
    assert s.points.shape == s.barycentric.shape == (n, 3) and s.face.shape == (n,)
    assert float(s.barycentric.min()) >= 0
    torch.testing.assert_close(s.barycentric.sum(-1), torch.ones(n, dtype=torch.float64))
    corners = mesh.verts[mesh.faces[s.face]]
    torch.testing.assert_close(s.points, torch.einsum("nc,ncd->nd", s.barycentric, corners))
    share = torch.bincount(s.face, minlength=3) / n
    assert share[1] == 0
    assert abs(float(share[0]) - 0.75) < 5 * (0.75 * 0.25 / n) ** 0.5
    # uniform inside a triangle: weights are Dirichlet(1, 1, 1), mean 1/3, variance 1/18, covariance -1/36
    w = s.barycentric[s.face == 0]
    torch.testing.assert_close(w.mean(0), torch.full((3,), 1 / 3, dtype=w.dtype), rtol=0, atol=0.007)
    want = torch.eye(3, dtype=w.dtype) / 12 - 1 / 36
    torch.testing.assert_close(w.T.cov(), want, rtol=0, atol=0.002)


def test_samples_are_decided_by_the_generator() -> None:
    mesh = triangle_pair()
    a, b = (
        sample_surface(mesh, 50, generator=1),
        sample_surface(mesh, 50, generator=torch.Generator().manual_seed(1)),
    )
    assert torch.equal(a.points, b.points)
    assert not torch.equal(a.points, sample_surface(mesh, 50, generator=2).points)
    torch.manual_seed(3)
    c = sample_surface(mesh, 50)
    assert not torch.equal(c.points, sample_surface(mesh, 50).points)
    torch.manual_seed(3)
    assert torch.equal(c.points, sample_surface(mesh, 50).points)
    assert sample_surface(mesh.to(torch.float32), 5, generator=1).points.dtype == torch.float32


def test_a_pose_does_not_see_its_batch_mates() -> None:
    mesh = triangle_pair()
    stretch = torch.tensor([[1, 1, 1], [2, 3, 1], [0.1, 1, 9]], dtype=torch.float64)[:, None, None]
    poses = mesh.verts * stretch
    batch = sample_surface(mesh.with_verts(poses), 30, generator=4)
    assert batch.points.shape == (3, 1, 30, 3)
    for i in range(3):
        alone = sample_surface(mesh.with_verts(poses[i, 0]), 30, generator=4)
        assert torch.equal(batch.face[i, 0], alone.face)
        torch.testing.assert_close(batch.points[i, 0], alone.points)


def test_gradient_of_samples() -> None:
    mesh = triangle_pair()
    verts = mesh.verts.clone().requires_grad_()
    sample_surface(mesh.with_verts(verts), 200, generator=0).points.sum().backward()
    assert verts.grad is not None
    torch.testing.assert_close(verts.grad.sum(), torch.tensor(600.0, dtype=torch.float64))


def test_sampling_bad_input() -> None:
    mesh = triangle_pair()
    with pytest.raises(ValueError, match="n: expected an integer at least 1"):
        sample_surface(mesh, 0)
    with pytest.raises(ValueError, match="expected faces to sample"):
        sample_surface(Mesh(mesh.verts, mesh.faces[:0]), 3)
    with pytest.raises(ValueError, match="expected a positive area"):
        sample_surface(mesh.with_verts(mesh.verts * 0), 3)
    with pytest.raises(ValueError, match="verts: expected finite"):
        sample_surface(mesh.with_verts(mesh.verts / 0), 3)
