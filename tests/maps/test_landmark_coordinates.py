"""Shares of landmarks: identities, invariances, and places that are not reached."""

import pytest
import torch

from geoframe.maps import landmark_coordinates
from geoframe.surface import Mesh, laplacian
from geoframe.surface.shapes import cylinder, ellipsoid, icosphere


def test_both_kinds_are_shares():
    mesh = ellipsoid(level=3)
    at = torch.tensor([0, 50, 200, 400])
    f = landmark_coordinates(mesh, at)
    assert f.shape == (mesh.n_verts, 8) and f.dtype == torch.float64
    assert f.min() >= 0 and f.max() <= 1
    harmonic, near = f[:, :4] ** 2, f[:, 4:] ** 2
    ones = torch.ones(mesh.n_verts, dtype=torch.float64)
    torch.testing.assert_close(harmonic.sum(1), ones, atol=1e-5, rtol=0)
    torch.testing.assert_close(near.sum(1), ones)
    torch.testing.assert_close(harmonic[at], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(near[at], torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0)
    flux = torch.as_tensor(laplacian(mesh)[0] @ harmonic.numpy())
    flux[at] = 0
    assert flux.abs().max() < 1e-6  # harmonic but for the landmarks


def test_units_and_vertex_order_do_not_matter():
    mesh = ellipsoid(level=3)
    order = torch.randperm(mesh.n_verts, generator=torch.Generator().manual_seed(0))
    other = Mesh(7 * mesh.verts[order], torch.argsort(order)[mesh.faces])
    at = torch.tensor([3, 77, 300])
    f = landmark_coordinates(mesh, at)
    g = landmark_coordinates(other, torch.argsort(order)[at])
    torch.testing.assert_close(g, f[order], atol=1e-6, rtol=1e-6)


def test_huge_units_do_not_matter_either():
    mesh, at = icosphere(2), torch.tensor([0, 40, 90])
    big = mesh.with_verts(1e6 * mesh.verts)
    torch.testing.assert_close(
        landmark_coordinates(big, at), landmark_coordinates(mesh, at), rtol=0, atol=1e-6
    )


def test_the_place_on_the_way_survives_a_change_of_length():
    """Half way along a tube is half way along a longer one."""
    short = cylinder(n_around=16, n_along=16)
    long = Mesh(short.verts * short.verts.new_tensor([1, 1, 3]), short.faces)
    z = short.verts[:, 2]
    off = 10 * short.verts[:, :2].norm(dim=1)
    ends = torch.stack([(z + off).argmin(), (z - off).argmax()])  # the middles of the two caps
    f, g = landmark_coordinates(short, ends), landmark_coordinates(long, ends)
    middle = (z - z.mean()).abs() < 1e-6
    assert middle.any()
    torch.testing.assert_close(
        f[middle][:, :2] ** 2, torch.full_like(f[middle][:, :2], 0.5), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        g[middle][:, :2] ** 2, torch.full_like(g[middle][:, :2], 0.5), atol=1e-6, rtol=0
    )


def test_a_component_without_a_landmark_gets_zeros():
    ball = icosphere(2)
    two = Mesh(torch.cat([ball.verts, ball.verts + 5]), torch.cat([ball.faces, ball.faces + ball.n_verts]))
    f = landmark_coordinates(two, torch.tensor([0, 40]))
    assert f[ball.n_verts :].abs().max() < 1e-6
    assert torch.isfinite(f).all()


def test_a_landmark_twice_and_bad_input():
    ball = icosphere(2)
    f = landmark_coordinates(ball, torch.tensor([5, 5, 90]))
    assert torch.equal(f[:, 0], f[:, 1])
    with pytest.raises(ValueError, match="landmarks: expected at least 1 vertex"):
        landmark_coordinates(ball, torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="landmarks"):
        landmark_coordinates(ball, torch.tensor([ball.n_verts]))
