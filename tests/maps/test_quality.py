"""Measures of a map against naive loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geoframe.maps import (
    GeodesicDistortion,
    coverage,
    cycle_error,
    dirichlet_energy,
    error_auc,
    error_curve,
    flipped_triangles,
    geodesic_error,
    orthogonality,
)
from geoframe.nearest import nearest
from geoframe.surface import Mesh, geodesic_distances
from geoframe.surface.shapes import ellipsoid, grid, icosphere


@pytest.fixture(scope="module")
def pair():
    """Two ellipsoids of different sizes, V1 = 162 and V2 = 42, and a wild map."""
    mesh1, mesh2 = ellipsoid((2.0, 1.4, 1.0), level=2), ellipsoid((1.0, 0.8, 0.6), level=1)
    p2p_21 = torch.randint(162, (42,), generator=torch.Generator().manual_seed(0))
    p2p_12 = torch.randint(42, (162,), generator=torch.Generator().manual_seed(1))
    return mesh1, mesh2, p2p_21, p2p_12


@pytest.mark.parametrize("method", ["exact", "heat", "dijkstra"])
def test_geodesic_error(pair, method):
    if method == "exact":
        pytest.importorskip("pygeodesic")
    mesh1, _, p2p_21, _ = pair
    truth = torch.tensor([[3, 0], [100, 41], [int(p2p_21[7]), 7], [50, 0]])
    error = geodesic_error(mesh1, p2p_21, truth, method=method)
    D = geodesic_distances(mesh1, truth[:, 0], method=method)
    expected = [D[n, p2p_21[j]] / mesh1.area.sqrt() for n, j in enumerate(truth[:, 1].tolist())]
    np.testing.assert_allclose(error, expected, rtol=1e-6)
    assert float(error[2]) == 0


def test_truth_for_every_vertex(pair):
    mesh1, _, p2p_21, _ = pair
    truth = torch.arange(42)
    rows = torch.stack([truth, torch.arange(42)], 1)
    a = geodesic_error(mesh1, p2p_21, truth, method="dijkstra")
    assert torch.equal(a, geodesic_error(mesh1, p2p_21, rows, method="dijkstra"))
    assert float(geodesic_error(mesh1, p2p_21, p2p_21).abs().max()) == 0


def test_error_curve_and_area():
    errors = torch.tensor([0.0, 0.1, 0.1, 0.2, 0.4, torch.inf])
    curve = error_curve(errors, torch.tensor([0.0, 0.05, 0.1, 0.3, 1.0]))
    torch.testing.assert_close(curve, torch.tensor([1, 1, 3, 4, 5]) / 6)
    fine = torch.linspace(0, 0.25, 100_001)
    integral = float(torch.trapezoid(error_curve(errors, fine), fine)) / 0.25
    assert abs(error_auc(errors, 0.25) - integral) < 1e-4
    assert error_auc(torch.zeros(3)) == 1 and error_auc(torch.ones(3)) == 0


@pytest.mark.parametrize("method", ["dijkstra", "exact"])
def test_round_trip(pair, method):
    if method == "exact":
        pytest.importorskip("pygeodesic")
    _, mesh2, p2p_21, p2p_12 = pair
    D = geodesic_distances(mesh2, method=method) / mesh2.area.sqrt()
    expected = [float(D[j, p2p_12[p2p_21[j]]]) for j in range(42)]
    np.testing.assert_allclose(cycle_error(mesh2, p2p_21, p2p_12, method=method), expected, atol=1e-9)
    some = torch.tensor([5, 40, 5])
    np.testing.assert_allclose(
        cycle_error(mesh2, p2p_21, p2p_12, vertices=some, method=method),
        [expected[j] for j in some],
        atol=1e-9,
    )


def test_round_trip_of_a_bijection():
    mesh = ellipsoid(level=1)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(2))
    assert float(cycle_error(mesh, order, torch.argsort(order)).max()) == 0
    assert float(cycle_error(mesh, order, torch.argsort(order).roll(1)).mean()) > 0


def test_coverage(pair):
    mesh1, _, p2p_21, _ = pair
    hit, total = 0.0, 0.0
    for (i, j, k), area in zip(mesh1.faces.tolist(), mesh1.face_areas.tolist(), strict=True):
        total += area
        hit += sum(area / 3 for v in (i, j, k) if v in set(p2p_21.tolist()))
    assert abs(coverage(mesh1, p2p_21) - hit / total) < 1e-12
    assert abs(coverage(mesh1, torch.arange(162)) - 1) < 1e-12


def test_dirichlet_energy(pair):
    """Against the sum over triangles of cot * |edge|^2 / 2."""
    mesh1, mesh2, p2p_21, _ = pair
    X = (mesh1.verts / mesh1.area.sqrt())[p2p_21].numpy()
    v, energy = mesh2.verts.numpy(), 0.0
    for face in mesh2.faces.numpy():
        for n in range(3):
            i, j, k = face[n], face[(n + 1) % 3], face[(n + 2) % 3]
            a, b = v[i] - v[k], v[j] - v[k]
            energy += (a @ b) / np.linalg.norm(np.cross(a, b)) / 2 * ((X[i] - X[j]) ** 2).sum()
    assert abs(dirichlet_energy(mesh1, mesh2, p2p_21) - energy) < 1e-9 * energy


def test_dirichlet_energy_of_known_maps():
    sphere, ball = icosphere(3), icosphere(3, radius=5.0)
    same = torch.arange(sphere.n_verts)
    # identity: twice the area, whatever the units
    assert abs(dirichlet_energy(sphere, sphere, same) - 2) < 1e-9
    assert abs(dirichlet_energy(ball, sphere, same) - 2) < 1e-9
    assert abs(dirichlet_energy(sphere, ball, same) - 2) < 1e-9
    assert abs(dirichlet_energy(sphere, ball, same * 0)) < 1e-9
    # a flat stretch by (a, 1 / a) of equal area: a^2 + 1 / a^2
    square, strip = grid(8, 8), grid(8, 8, (3.0, 1 / 3.0))
    flat = torch.arange(81)
    assert abs(dirichlet_energy(strip, square, flat) - (9 + 1 / 9)) < 1e-9


def test_orthogonality():
    Q = torch.linalg.qr(torch.randn(7, 5, generator=torch.Generator().manual_seed(3)).double())[0]
    assert orthogonality(Q) < 1e-12
    assert abs(orthogonality(2 * Q) - 3) < 1e-12  # |4 I - I| / sqrt(5) = 3
    assert abs(orthogonality(torch.zeros(4, 6)) - 1) < 1e-12
    C = torch.arange(6.0).reshape(2, 3)
    expected = math.sqrt(
        sum((float((C[:, i] * C[:, j]).sum()) - (i == j)) ** 2 for i in range(3) for j in range(3)) / 3
    )
    assert abs(orthogonality(C) - expected) < 1e-6


def test_inverted_share(pair):
    mesh1, mesh2, p2p_21, _ = pair
    normals, verts = mesh1.vertex_normals.numpy(), mesh1.verts.numpy()
    bad = good = 0.0
    for face, area in zip(mesh2.faces.tolist(), mesh2.face_areas.tolist(), strict=True):
        a, b, c = (int(p2p_21[v]) for v in face)
        n = np.cross(verts[b] - verts[a], verts[c] - verts[a])
        if np.linalg.norm(n) == 0:
            continue
        side = n @ (normals[a] + normals[b] + normals[c])
        bad, good = bad + area * (side < 0), good + area * (side >= 0)
    assert 0.1 < bad / (bad + good) < 0.9
    assert abs(flipped_triangles(mesh1, mesh2, p2p_21) - bad / (bad + good)) < 1e-12


def test_inverted_share_of_known_maps():
    sphere = icosphere(2)
    same = torch.arange(162)
    mirror = torch.cdist(sphere.verts * torch.tensor([-1.0, 1, 1]).double(), sphere.verts).argmin(1)
    assert flipped_triangles(sphere, sphere, same) == 0
    assert flipped_triangles(sphere, sphere, mirror) == 1
    half = torch.where(sphere.verts[:, 0] > 0.3, mirror, same * 0)  # the rest collapsed counts neither way
    assert flipped_triangles(sphere, sphere, half) > 0.5
    assert math.isnan(flipped_triangles(sphere, sphere, same * 0))


def test_images_without_area_are_not_inverted():
    """Two corners on one vertex: rounding must not give them a side."""
    mesh = icosphere(2)
    generator = torch.Generator().manual_seed(0)
    shifted = mesh.with_verts(
        mesh.verts @ torch.linalg.qr(torch.rand(3, 3, generator=generator).double())[0] + 1e3
    )
    p2p = torch.arange(mesh.n_verts)
    p2p[mesh.faces[::3, 0]] = p2p[mesh.faces[::3, 1]]
    shares = [flipped_triangles(m, mesh, p2p) for m in (mesh, shifted)]
    image = p2p[mesh.faces]
    whole = (image != image.roll(1, 1)).all(1)
    a, b, c = mesh.verts[image[whole]].unbind(1)
    inverted = (torch.linalg.cross(b - a, c - a) * (a + b + c)).sum(
        1
    ) < 0  # normals of a sphere are its points
    areas = mesh.face_areas[whole]
    assert shares[0] == pytest.approx(float(areas[inverted].sum() / areas.sum()))
    assert shares[1] == pytest.approx(shares[0])


def test_units_do_not_matter(pair):
    mesh1, mesh2, p2p_21, p2p_12 = pair
    big1, big2 = mesh1.with_verts(mesh1.verts * 1000), mesh2.with_verts(mesh2.verts / 1000)
    truth = torch.arange(42)
    for method in ("dijkstra", "heat"):
        a, b = (geodesic_error(m, p2p_21, truth, method=method) for m in (mesh1, big1))
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(cycle_error(mesh2, p2p_21, p2p_12), cycle_error(big2, p2p_21, p2p_12))
    for measure in (dirichlet_energy, flipped_triangles):
        assert abs(measure(mesh1, mesh2, p2p_21) - measure(big1, big2, p2p_21)) < 1e-9
    assert abs(coverage(mesh1, p2p_21) - coverage(big1, p2p_21)) < 1e-12


def test_other_components_are_infinitely_far():
    one = icosphere(0)
    two = Mesh(torch.cat([one.verts, one.verts + 5]), torch.cat([one.faces, one.faces + 12]))
    error = geodesic_error(two, torch.tensor([0, 12]), torch.tensor([[0, 0], [0, 1]]), method="dijkstra")
    assert error.tolist() == [0, math.inf]


def test_bad_input(pair):
    mesh1, mesh2, p2p_21, p2p_12 = pair
    rows = torch.tensor([[0, 0]])
    point = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    for call, error, match in (
        (lambda: geodesic_error(mesh2, p2p_21, rows), ValueError, "p2p_21: expected indices"),
        (lambda: geodesic_error(mesh1, p2p_21, rows + 42), ValueError, r"truth\[:, 1\]: expected indices"),
        (lambda: geodesic_error(mesh1, p2p_21, rows + 200), ValueError, "truth"),
        (lambda: geodesic_error(mesh1, p2p_21, rows[0]), ValueError, r"truth: expected shape \(42,\)"),
        (
            lambda: geodesic_error(mesh1, p2p_21, [[0], [0, 0]]),
            TypeError,
            "truth: expected a tensor, a NumPy",
        ),
        (lambda: geodesic_error(mesh1, p2p_21, rows, method="guess"), ValueError, "method"),
        (lambda: geodesic_error(mesh1, p2p_21.double(), rows), TypeError, "p2p_21: expected an integer"),
        (lambda: cycle_error(mesh2, p2p_12, p2p_21), ValueError, "p2p_12: expected indices"),
        (lambda: cycle_error(mesh2, p2p_21[:9], p2p_12), ValueError, r"p2p_21: expected shape \(42,\)"),
        (lambda: cycle_error(mesh2, p2p_21, p2p_12, vertices=rows[0] + 42), ValueError, "vertices"),
        (lambda: coverage(mesh2, p2p_21), ValueError, "p2p_21: expected indices"),
        (lambda: coverage(point, torch.zeros(3).long()), ValueError, "positive area"),
        (lambda: dirichlet_energy(mesh1, mesh2, p2p_21[:9]), ValueError, r"p2p_21: expected shape \(42,\)"),
        (lambda: flipped_triangles(mesh1, mesh2, p2p_21[:9]), ValueError, r"p2p_21: expected shape \(42,\)"),
        (lambda: error_curve(torch.zeros(0), torch.zeros(1)), ValueError, "errors: expected at least one"),
        (lambda: error_auc(torch.zeros(2), 0.0), ValueError, "limit: expected a positive"),
        (lambda: orthogonality(torch.zeros(3)), ValueError, "C_12: expected shape"),
    ):
        with pytest.raises(error, match=match):
            call()


def test_distortion_of_isometries_and_others():
    mesh = ellipsoid(level=3)
    order = torch.randperm(mesh.n_verts, generator=torch.Generator().manual_seed(0))
    other = Mesh(2 * mesh.verts[order], torch.argsort(order)[mesh.faces])
    distortion = GeodesicDistortion(mesh, other)
    back = torch.argsort(order)
    assert distortion(order, back) < 0.015  # heat from either end of a way differs by its error
    mirror = torch.cdist(mesh.verts * mesh.verts.new_tensor([-1, 1, 1]), mesh.verts).argmin(1)
    assert distortion(mirror[order], back[mirror]) < 0.03  # a flip is an isometry too
    assert distortion(torch.zeros_like(order), torch.zeros_like(order)) > 0.3  # all to one vertex
    wrong = torch.randint(mesh.n_verts, order.shape, generator=torch.Generator().manual_seed(1))
    half = torch.where(torch.arange(len(order)) % 2 == 0, order, wrong)
    assert 0.05 < distortion(half, back) < distortion(wrong, back)
    assert distortion(mirror[order], back) > 0.05  # each alone is an isometry, but they are not inverse


def test_distortion_is_the_naive_loop(pair):
    mesh1, mesh2, p2p_21, p2p_12 = pair
    distortion = GeodesicDistortion(mesh1, mesh2, n=9)
    D1, D2 = (geodesic_distances(m) / m.area.sqrt() for m in (mesh1, mesh2))
    a, b = distortion.probes1.tolist(), distortion.probes2.tolist()
    two = [(float(D1[i, p2p_21[j]]), float(D2[j, p2p_12[i]])) for i in a for j in b]
    naive = sum(abs(x - y) for x, y in two) / (sum(x + y for x, y in two) / 2)
    assert distortion(p2p_21, p2p_12) == pytest.approx(naive)


def test_distortion_over_several_components():
    """Places out of reach count as the farthest: joining or parting components is a distortion, not a crash."""
    ball = icosphere(2)
    two = Mesh(torch.cat([ball.verts, ball.verts + 5]), torch.cat([ball.faces, ball.faces + ball.n_verts]))
    same = torch.arange(two.n_verts)
    distortion = GeodesicDistortion(two, two)
    assert distortion(same, same) < 0.015
    assert distortion(same % ball.n_verts, same) > 0.2


def test_distortion_of_what_both_have(bumpy, cut):
    """The right map of a part of another size changes distances of what both have little, and others are infinite."""
    part, kept = cut
    distortion = GeodesicDistortion(bumpy, part)
    p2p_12 = nearest(bumpy.verts, bumpy.verts[kept])[0]
    places = kept[distortion.probes2], p2p_12[distortion.probes1]
    right = distortion.of_common(*places, kept[places[1]])
    assert right < 0.06 < 0.2 < distortion.of_probes(*places)
    assert distortion.of_common(places[0].flip(0), places[1], kept[places[1]]) > 0.3
    assert distortion.of_common(*places, torch.zeros_like(places[1])) == math.inf  # hardly any comes back


def test_distortion_of_bad_input():
    ball = icosphere(1)
    with pytest.raises(ValueError, match="n: expected an integer at least 2"):
        GeodesicDistortion(ball, ball, n=1)
    with pytest.raises(ValueError, match="p2p_21: expected shape"):
        GeodesicDistortion(ball, ball)(torch.zeros(3, dtype=torch.int64), torch.arange(42))


def test_distortion_with_the_surfaces_exchanged(bumpy):
    other = Mesh(2 * bumpy.verts * torch.tensor([1.0, 1.2, 0.9]), bumpy.faces)
    there, back = GeodesicDistortion(bumpy, other, n=20), GeodesicDistortion(other, bumpy, n=20)
    p2p_21, p2p_12 = (torch.arange(bumpy.n_verts).roll(i) for i in (3, 7))
    turned = there.exchanged()
    assert turned.mean_and_spread(p2p_12, p2p_21) == pytest.approx(back.mean_and_spread(p2p_12, p2p_21))
    assert turned(p2p_12, p2p_21) == pytest.approx(there(p2p_21, p2p_12))
    assert torch.equal(turned.probes1, there.probes2)
