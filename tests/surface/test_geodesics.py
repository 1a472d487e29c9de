"""Geodesic distances: closed forms, bounds, invariances, components, broken meshes, other libraries."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.surface import HeatGeodesics, Mesh, geodesic_distances, geodesic_pairs, load, subdivide
from geoframe.surface.geodesics import METHODS
from geoframe.surface.shapes import box, cylinder, grid, icosphere, torus

pytest.importorskip("pygeodesic", reason="exact geodesics need the extra 'geometry'")


def _double(mesh: Mesh) -> Mesh:
    return mesh.to(torch.float64)


def _bumpy(n: int = 9) -> Mesh:
    """A manifold patch with ridges and pits, of irregular triangles."""
    mesh = _double(grid(n, n))
    rng = np.random.default_rng(0)
    return mesh.with_verts(mesh.verts + torch.as_tensor(rng.normal(scale=0.3 / n, size=mesh.verts.shape)))


def _relative_error(found: torch.Tensor, true: torch.Tensor) -> float:
    far = true > 0
    return float(((found - true).abs()[far] / true[far]).mean())


def _straight(mesh: Mesh) -> torch.Tensor:
    return torch.cdist(mesh.verts, mesh.verts, compute_mode="donot_use_mm_for_euclid_dist")


def _dijkstra_by_hand(mesh: Mesh, source: int) -> np.ndarray:
    """Bellman and Ford's relaxation of all edges until nothing changes."""
    v, d = mesh.verts.double().numpy(), np.full(mesh.n_verts, np.inf)
    d[source] = 0
    while True:
        before = d.copy()
        for face in mesh.faces.tolist():
            for i, j in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)):
                a, b = face[i], face[j]
                d[b] = min(d[b], d[a] + np.linalg.norm(v[a] - v[b]))
        if (d == before).all():
            return d


# ---- closed forms ----


def test_exact_is_straight_in_the_plane():
    mesh = _double(grid(7, 5))
    rng = np.random.default_rng(0)  # not a lattice any more, the rim stays convex
    inner = ((mesh.verts[:, :2].abs() < 0.499).all(1))[:, None]
    shift = torch.as_tensor(rng.uniform(-0.05, 0.05, size=mesh.verts.shape)) * torch.tensor([1.0, 1, 0])
    mesh = mesh.with_verts(mesh.verts + inner * shift)
    D = geodesic_distances(mesh, method="exact")
    torch.testing.assert_close(D, _straight(mesh), atol=1e-12, rtol=0)


def test_exact_unfolds_a_cube():
    mesh = _double(box(n=2))
    corner = [int((mesh.verts - torch.tensor(p, dtype=torch.float64)).norm(dim=1).argmin())
              for p in ([-0.5, -0.5, -0.5], [0.5, 0.5, 0.5], [0.5, -0.5, -0.5])]  # fmt: skip
    d = geodesic_pairs(mesh, [corner[0]] * 2, corner[1:], method="exact")
    torch.testing.assert_close(d, torch.tensor([5**0.5, 1.0], dtype=torch.float64))


def test_exact_converges_to_great_circles():
    errors = []
    for level in (1, 2, 3):
        mesh = _double(icosphere(level))
        true = torch.arccos((mesh.verts @ mesh.verts[0]).clamp(-1, 1))
        errors.append(_relative_error(geodesic_distances(mesh, 0, method="exact")[0], true))
    assert errors[1] < 0.35 * errors[0] and errors[2] < 0.35 * errors[1] < 0.02


def test_heat_converges_to_great_circles():
    errors = []
    for level in (2, 3, 4, 5):
        mesh = _double(icosphere(level))
        true = torch.arccos((mesh.verts @ mesh.verts[0]).clamp(-1, 1))
        errors.append(_relative_error(geodesic_distances(mesh, 0)[0], true))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.008 and errors[-1] < 0.3 * errors[0]


@pytest.mark.parametrize(
    "coarse", [torus(n_around=24, n_tube=12), cylinder(n_around=18)], ids=["torus", "cylinder"]
)
def test_heat_stays_right_on_a_subdivided_mesh(coarse):
    # a stretched mesh has obtuse triangles at every level: plain cotangent heat is lost there
    stretched = _double(coarse).with_verts(
        _double(coarse).verts * torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64)
    )
    mesh, _ = subdivide(stretched, 2)
    sources = [0, mesh.n_verts // 3]
    exact = geodesic_distances(mesh, sources, method="exact")
    assert _relative_error(geodesic_distances(mesh, sources), exact) < 0.03


def test_dijkstra_matches_the_relaxation_of_all_edges():
    mesh = _bumpy(5)
    for source in (0, 17):
        np.testing.assert_allclose(
            geodesic_distances(mesh, source, method="dijkstra")[0], _dijkstra_by_hand(mesh, source)
        )


# ---- inequalities ----


def test_metric_and_bounds():
    mesh = _bumpy()
    exact, walk, heat = (geodesic_distances(mesh, method=m) for m in ("exact", "dijkstra", "heat"))
    straight = _straight(mesh)
    for D in (exact, walk):
        torch.testing.assert_close(D, D.T, atol=1e-9, rtol=0)
        assert (D[:, :, None] + D[None] - D[:, None, :]).min() > -1e-9  # d(i,j) + d(j,k) >= d(i,k)
    for D in (exact, walk, heat):
        assert (D.diagonal() == 0).all()
        assert (D - straight).min() > -1e-12
    assert (walk - exact).min() > -1e-9
    assert 0.01 < _relative_error(walk, exact) < 0.2
    assert 0.001 < _relative_error(heat, exact) < 0.05
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]]])
    assert ((walk - straight)[edges[:, 0], edges[:, 1]]).abs().max() < 1e-12


# ---- invariances ----


@pytest.mark.parametrize("method", METHODS)
def test_rigid_motion_scale_and_order(method):
    mesh, rng = _bumpy(), np.random.default_rng(2)
    D = geodesic_distances(mesh, [3, 50], method=method)
    Q = torch.as_tensor(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    for scale in (1e-7, 1.0, 3e8):
        moved = mesh.with_verts(scale * (mesh.verts @ Q.T) + scale)
        torch.testing.assert_close(
            geodesic_distances(moved, [3, 50], method=method) / scale, D, rtol=1e-6, atol=1e-8
        )
    order = rng.permutation(mesh.n_verts)  # the new vertex i is the old order[i]
    place = torch.as_tensor(np.argsort(order))
    permuted = Mesh(mesh.verts[order], place[mesh.faces][rng.permutation(mesh.n_faces)].roll(1, 1))
    torch.testing.assert_close(
        geodesic_distances(permuted, place[[3, 50]], method=method), D[:, order], rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("method", METHODS)
def test_orientation_does_not_matter(method):
    mesh = _bumpy()
    turned = mesh.faces.clone()
    turned[::3] = turned[::3].flip(1)
    D = geodesic_distances(mesh, [3, 50], method=method)
    torch.testing.assert_close(
        geodesic_distances(Mesh(mesh.verts, turned), [3, 50], method=method), D, rtol=1e-7, atol=0
    )


# ---- components ----


@pytest.mark.parametrize("method", METHODS)
def test_components_and_unreferenced_vertices_are_infinitely_far(method):
    one, two = _bumpy(), _double(icosphere(1))
    V, lone = one.n_verts, torch.tensor([[50.0, 0, 0]], dtype=torch.float64)
    verts = torch.cat([lone, one.verts, two.verts * 40 + 7, lone + 1])
    both = Mesh(verts, torch.cat([one.faces + 1, two.faces + 1 + V]))
    D = geodesic_distances(both, [1, V + 1, 0], method=method)
    inside = torch.zeros(both.n_verts, dtype=torch.bool)
    inside[1 : V + 1] = True
    # ... and each component gives what it gives alone
    torch.testing.assert_close(
        D[0, inside], geodesic_distances(one, 0, method=method)[0], rtol=1e-7, atol=1e-9
    )
    assert D[0, ~inside].isinf().all() and D[1, inside].isinf().all()
    assert D[1, V + 1 : -1].isfinite().all() and D[1, [0, -1]].isinf().all()
    assert D[2, 0] == 0 and D[2, 1:].isinf().all()
    pairs = geodesic_pairs(both, [1, 1, 0, 0], [2, V + 1, 0, 1], method=method)
    assert torch.equal(pairs.isinf(), torch.tensor([False, True, False, True])) and pairs[2] == 0


def test_nearest_of_several_sources():
    mesh = _double(icosphere(3))
    solver = HeatGeodesics(mesh)
    together, apart = solver.distance([3, 50, 70]), solver.rows([3, 50, 70]).min(0).values
    assert _relative_error(together, apart) < 0.05 and (together[[3, 50, 70]] == 0).all()
    two = Mesh(torch.cat([mesh.verts, mesh.verts + 9]), torch.cat([mesh.faces, mesh.faces + mesh.n_verts]))
    reach = HeatGeodesics(two).distance([3, mesh.n_verts + 50])
    torch.testing.assert_close(reach[: mesh.n_verts], solver.distance(3))
    torch.testing.assert_close(reach[mesh.n_verts :], solver.distance(50))


# ---- forms of the question ----


def test_rows_distance_and_matrix_agree():
    mesh = _bumpy()
    solver = HeatGeodesics(mesh)
    D = geodesic_distances(mesh)
    assert D.shape == (mesh.n_verts, mesh.n_verts)
    assert torch.equal(solver.rows([5, 9, 5]), D[[5, 9, 5]])
    assert torch.equal(solver.distance(9), D[9]) and torch.equal(solver.distance(torch.tensor([9])), D[9])
    assert solver.rows([]).shape == geodesic_distances(mesh, []).shape == (0, mesh.n_verts)


def test_a_source_does_not_feel_the_others():
    mesh = _bumpy()
    D = HeatGeodesics(mesh).rows(range(0, mesh.n_verts, 7))
    assert torch.equal(D[3], HeatGeodesics(mesh).rows([21])[0])


def test_many_sources_at_once_are_as_one_by_one():
    from geoframe.surface._heat import HeatSolver, OneByOne

    mesh = _double(icosphere(3))
    rng = np.random.default_rng(0)
    verts = mesh.verts.numpy() * [1, 1.5, 2] * 10 + rng.normal(size=mesh.verts.shape) / 10
    ours, theirs = (
        kind(verts, mesh.faces.numpy(), 1.0).rows(np.array([0, 9])) for kind in (HeatSolver, OneByOne)
    )
    assert np.abs(ours - theirs).max() < 3e-3 * theirs.max()


def test_an_intrinsic_triangulation_keeps_area_and_is_delaunay():
    from geoframe.surface._delaunay import intrinsic_delaunay
    from geoframe.surface.operators import edge_lengths_squared, face_areas_intrinsic, half_cotangents

    mesh = _bumpy()
    mesh = mesh.with_verts(mesh.verts * torch.tensor([4.0, 1, 1]))  # sheared far from Delaunay
    faces, l_sq = mesh.faces.numpy(), edge_lengths_squared(mesh)
    flipped, after, twin = intrinsic_delaunay(faces, l_sq)
    np.testing.assert_allclose(
        face_areas_intrinsic(after).sum(), face_areas_intrinsic(l_sq).sum(), rtol=1e-12
    )
    lengths, beyond = after.ravel(), twin.ravel()
    inner = np.flatnonzero(beyond >= 0)
    cotangents = half_cotangents(after).ravel()
    assert (cotangents[inner] + cotangents[beyond[inner]]).min() > -1e-6
    assert (flipped != faces).any() and half_cotangents(l_sq).min() < -1
    np.testing.assert_array_equal(lengths[inner], lengths[beyond[inner]])
    ends = flipped[:, [1, 2, 0]].ravel(), flipped[:, [2, 0, 1]].ravel()
    np.testing.assert_array_equal(ends[0][inner], ends[1][beyond[inner]])


@pytest.mark.parametrize("method", METHODS)
def test_pairs_agree_with_rows(method):
    mesh, rng = _bumpy(), np.random.default_rng(3)
    a, b = (torch.as_tensor(rng.integers(0, mesh.n_verts, n)) for n in (90, 90))
    b[:10] = a[:10]
    few = torch.as_tensor([4, 60, 7]).repeat(30)
    for p, q in ((a, b), (few, b), (a, few)):
        rows = geodesic_distances(mesh, p, method=method)
        torch.testing.assert_close(
            geodesic_pairs(mesh, p, q, method=method), rows[torch.arange(90), q], atol=1e-12, rtol=0
        )
    assert geodesic_pairs(mesh, [], [], method=method).shape == (0,)


def test_symmetric_averages_both_directions():
    mesh = _bumpy()
    D = geodesic_distances(mesh)
    S = geodesic_distances(mesh, symmetric=True)
    assert (D - D.T).abs().max() > 1e-4
    assert torch.equal(S, S.T)
    torch.testing.assert_close(S, (D + D.T) / 2)


def test_symmetric_in_blocks():
    from geoframe.surface.geodesics import _symmetrize

    D = np.random.default_rng(0).normal(size=(23, 23))
    for block in (1, 5, 23, 100):
        np.testing.assert_array_equal(_symmetrize(D.copy(), block), (D + D.T) / 2)


def test_dtype_follows_the_mesh_or_the_wish():
    mesh = _bumpy()
    assert geodesic_distances(mesh.to(torch.float32), 0).dtype == torch.float32
    single, full = geodesic_distances(mesh, dtype=torch.float32), geodesic_distances(mesh)
    assert (single.dtype, full.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), full, rtol=1e-6, atol=0)
    assert geodesic_pairs(mesh.to(torch.float32), 0, 1).dtype == torch.float32


def test_the_full_matrix_is_cached_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFRAME_CACHE", str(tmp_path))
    mesh = _bumpy()
    D = geodesic_distances(mesh)
    with monkeypatch.context() as m:
        m.setattr("geoframe.surface.geodesics._row_solver", lambda *_: pytest.fail("computed again"))
        assert torch.equal(geodesic_distances(mesh), D)
    for other in ({"method": "dijkstra"}, {"symmetric": True}, {"dtype": torch.float32}):
        assert not torch.equal(geodesic_distances(mesh, **other).double(), D)
    assert not torch.equal(geodesic_distances(mesh.with_verts(mesh.verts * 2)), D)
    n_files = len(list(tmp_path.iterdir()))
    assert n_files == 5
    geodesic_distances(mesh, [0, 1])
    assert len(list(tmp_path.iterdir())) == n_files


def test_a_longer_diffusion_is_further_from_the_distance():
    mesh = _double(grid(30, 30))
    errors = [
        _relative_error(HeatGeodesics(mesh, t_coef=t).distance(5), _straight(mesh)[5]) for t in (1, 10, 100)
    ]
    assert errors[2] > 1.5 * errors[1] > 4 * errors[0]


# ---- broken meshes ----


@pytest.mark.parametrize("method", METHODS)
def test_a_single_triangle(method):
    mesh = Mesh(torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]]), torch.tensor([[0, 1, 2]]))
    expected = torch.tensor([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]])
    torch.testing.assert_close(
        geodesic_distances(mesh, method=method), expected, rtol=0.06 if method == "heat" else 1e-6, atol=0
    )


def _spoilt(kind: str) -> Mesh:
    v, f = icosphere(2).verts.double().numpy().copy(), icosphere(2).faces.numpy().copy()
    some = f[[3, 100, 200, 311]]
    if kind == "collinear":
        v[some[:, 0]] = (v[some[:, 1]] + v[some[:, 2]]) / 2
    elif kind == "almost collinear":
        v[some[:, 0]] = (v[some[:, 1]] + v[some[:, 2]]) / 2 + 1e-6 * v[some[:, 0]]
    elif kind == "equal vertices":
        v[some[:, 0]] = v[some[:, 1]]
    elif kind == "flat":
        v[:, 2] = 0
    elif kind == "repeated index":
        f = np.r_[f, np.c_[some[:, :2], some[:, :1]]]
    elif kind == "duplicate faces":
        f = np.r_[f, some, some[:, ::-1]]
    return Mesh(torch.as_tensor(v), torch.as_tensor(f))


@pytest.mark.parametrize(
    "kind", ["collinear", "almost collinear", "equal vertices", "flat", "repeated index", "duplicate faces"]
)
def test_degenerate_triangles(kind):
    mesh = _spoilt(kind)
    exact, walk = geodesic_distances(mesh, method="exact"), geodesic_distances(mesh, method="dijkstra")
    straight = _straight(mesh)
    torch.testing.assert_close(
        exact, exact.T, atol=1e-7, rtol=0
    )  # pygeodesic alone loses vertices, or is off by 4 %
    assert (walk - exact).min() > -1e-7 and (exact - straight).min() > -1e-7
    assert (walk / exact)[exact > 0].mean() < 1.2
    heat = geodesic_distances(mesh, range(0, 162, 20))
    assert heat.isfinite().all() and _relative_error(heat, exact[::20]) < 0.08


def test_duplicates_and_repeated_indices_change_no_distance():
    clean = geodesic_distances(_double(icosphere(2)), [0, 50], method="exact")
    for kind in ("duplicate faces", "repeated index"):
        torch.testing.assert_close(geodesic_distances(_spoilt(kind), [0, 50], method="exact"), clean)


def test_all_triangles_at_one_point():
    mesh = Mesh(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]]))
    for method in ("dijkstra", "exact"):
        assert (geodesic_distances(mesh, 0, method=method) == 0).all()
    with pytest.raises(ValueError, match=r"heat method found no distances, .* repair them first"):
        geodesic_distances(mesh, 0)


FIN = [[0, 1, 2], [0, 1, 3], [0, 1, 4], [2, 1, 5]]
BOWTIE = [[0, 1, 2], [0, 3, 4]]


@pytest.mark.parametrize("faces", [FIN, BOWTIE], ids=["fin", "bowtie"])
def test_meshes_that_are_not_manifold(faces):
    v = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 1], [2, 2, 0]], dtype=torch.float64)
    v[3] = torch.tensor([-1.0, 0, 0]) if faces is BOWTIE else torch.tensor([0.0, -1, 0])
    mesh = Mesh(v, torch.tensor(faces))
    heat, walk = geodesic_distances(mesh, method="heat"), geodesic_distances(mesh, method="dijkstra")
    assert torch.equal(heat.isinf(), walk.isinf())
    assert _relative_error(heat[walk.isfinite()], walk[walk.isfinite()]) < 0.35
    with pytest.raises(ValueError, match=r"faces: expected a manifold mesh for method='exact'.*repair"):
        geodesic_distances(mesh, 0, method="exact")


def test_zero_length_edges_connect():
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 0]])
    mesh = Mesh(verts, torch.tensor([[0, 1, 2], [1, 3, 2], [1, 4, 3]]))
    d = geodesic_distances(mesh, 2, method="dijkstra")[0]
    torch.testing.assert_close(d, torch.tensor([1, 2**0.5, 0, 0, 1]))
    torch.testing.assert_close(geodesic_distances(mesh, 2, method="exact")[0], d)


# ---- bad input ----


def test_bad_input():
    mesh = icosphere(0)
    for fn in (
        geodesic_distances,
        lambda m, s: geodesic_pairs(m, s, s),
        lambda m, s: HeatGeodesics(m).rows(s),
    ):
        with pytest.raises(
            ValueError, match=r"(sources|a): expected indices in \[0, 11\] \(12 vertices\), found 12"
        ):
            fn(mesh, [0, 12])
        with pytest.raises(ValueError, match="found -1; indices are 0-based"):
            fn(mesh, -1)
        with pytest.raises(TypeError, match="expected an integer dtype"):
            fn(mesh, [0.5])
        with pytest.raises(ValueError, match=r"found shape \(1, 2\)"):
            fn(mesh, torch.tensor([[0, 1]]))
        bad = mesh.verts.clone()
        bad[2] = float("nan")
        with pytest.raises(ValueError, match=r"verts: .*found 3 NaN"):
            fn(mesh.with_verts(bad), 0)
        with pytest.raises(ValueError, match=r"verts: expected shape \(V, 3\), found \(1, 12, 3\)"):
            fn(mesh.with_verts(mesh.verts[None]), 0)
        with pytest.raises(ValueError, match=r"faces: expected at least one triangle .* found none"):
            fn(Mesh(mesh.verts, mesh.faces[:0]), 0)
    for fn in (geodesic_distances, lambda m, method: geodesic_pairs(m, 0, 1, method=method)):
        with pytest.raises(
            ValueError, match="method: expected one of 'heat', 'dijkstra', 'exact', found 'fast'"
        ):
            fn(mesh, method="fast")
    with pytest.raises(ValueError, match=r"b: expected as many vertices as in a \(2\), found 1"):
        geodesic_pairs(mesh, [0, 1], [0])
    with pytest.raises(ValueError, match="symmetric: expected the full matrix"):
        geodesic_distances(mesh, [0], symmetric=True)
    with pytest.raises(ValueError, match="sources: expected at least one vertex"):
        HeatGeodesics(mesh).distance([])
    for t in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="t_coef: expected a positive number"):
            HeatGeodesics(mesh, t_coef=t)


def test_exact_names_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pygeodesic.geodesic", None)
    with pytest.raises(ImportError, match=r"pip install 'geoframe\[geometry\]'"):
        geodesic_distances(icosphere(0), 0, method="exact")


# ---- other libraries, real data ----


def _ours_and_igl(mesh: Mesh, source: int) -> tuple[np.ndarray, np.ndarray]:
    igl = pytest.importorskip("igl")
    none = np.zeros(0, dtype=np.int64)
    v, f = mesh.verts.double().numpy(), mesh.faces.numpy()
    theirs = igl.exact_geodesic(v, f, np.array([source]), none, np.arange(len(v)), none)
    return geodesic_distances(_double(mesh), source, method="exact")[0].numpy(), theirs


def test_exact_agrees_with_libigl():
    for mesh in (_bumpy(20), _double(torus()), _double(icosphere(3))):
        ours, theirs = _ours_and_igl(mesh, mesh.n_verts // 2)
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.skipif("GEOFRAME_DATA" not in os.environ, reason="needs real data (GEOFRAME_DATA)")
def test_cat():
    mesh = load(Path(os.environ["GEOFRAME_DATA"]) / "animals/cat_lion/cat-00.off").to(torch.float64)
    ours, theirs = _ours_and_igl(mesh, 2653)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    sources = [2653, 0, 5819]
    exact, heat, walk = (geodesic_distances(mesh, sources, method=m) for m in ("exact", "heat", "dijkstra"))
    assert _relative_error(heat, exact) < 0.025
    assert 0.03 < _relative_error(walk, exact) < 0.08
    fine, _ = subdivide(mesh)
    below = geodesic_distances(fine, sources)[:, : mesh.n_verts]  # the same surface, so the same distances
    assert _relative_error(below, exact) < 0.03
    pairs = geodesic_pairs(mesh, mesh.faces[:200, 0], mesh.faces[:200, 1], method="exact")
    edge = (mesh.verts[mesh.faces[:200, 0]] - mesh.verts[mesh.faces[:200, 1]]).norm(dim=1)
    assert (pairs <= edge + 1e-12).all() and (pairs > 0.9 * edge).all()
